"""Lengths of prompts and responses that a step is planned for."""

import json

import numpy as np
import pytest

from rlif_jax.errors import UserError
from rlif_jax.planning.lengths import step_lengths

PAPER = {"prompts": 64, "samples": 16, "longest_prompt": 2048, "longest_response": 8192}


def test_the_papers_lengths():
    """Mean 3,600 at 8k, as the paper's figure has it; some are cut, none is short."""
    lengths = step_lengths("paper", **PAPER)
    assert lengths.prompt_N.shape == (64,) and lengths.response_B.shape == (1024,)
    assert lengths.response_B.mean() == pytest.approx(3600, rel=0.05)
    assert lengths.response_B.min() >= 150 and lengths.response_B.max() == 8192
    assert 0.05 < (lengths.response_B == 8192).mean() < 0.15
    assert lengths.prompt_N.max() <= 2048 and lengths.prompt_N.min() >= 64
    again = step_lengths("paper", **PAPER)
    np.testing.assert_array_equal(again.response_B, lengths.response_B)


def test_all_are_cut_where_a_run_allows_less():
    lengths = step_lengths("paper", **PAPER | {"longest_prompt": 32, "longest_response": 64})
    assert set(lengths.response_B) == {64} and set(lengths.prompt_N) == {32}


def test_a_max_length_collapse():
    assert set(step_lengths("longest", **PAPER).response_B) == {8192}


def test_a_runs_own_lengths(tmp_path):
    folder = tmp_path / "rollouts"
    folder.mkdir()
    for step, lengths in {1: [10, 20], 2: [9000]}.items():
        text = "a line of its own for some:\u2028"
        rows = [json.dumps({"text": text, "length": n}, ensure_ascii=False) for n in lengths]
        (folder / f"step_{step:06}.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "step_000003.jsonl.tmp").write_text("{")
    lengths = step_lengths(str(tmp_path), **PAPER)
    assert set(lengths.response_B) == {10, 20, 8192}
    assert "the 3 recorded" in lengths.source


def test_a_folder_without_rollouts_is_refused(tmp_path):
    with pytest.raises(UserError, match="no run folder with rollouts/; give one, or 'paper'"):
        step_lengths(str(tmp_path), **PAPER)
    (tmp_path / "rollouts").mkdir()
    with pytest.raises(UserError, match="has no rollouts yet"):
        step_lengths(str(tmp_path), **PAPER)
    (tmp_path / "rollouts/step_000001.jsonl").write_text('{"reward": 1}\n')
    with pytest.raises(UserError, match=r"line 1 of .*step_000001\.jsonl is no rollout"):
        step_lengths(str(tmp_path), **PAPER)
