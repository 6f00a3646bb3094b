"""Two real processes, joined by gloo, sample as one device does: tokens, statistics, streaming."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from support import ROOT, TESTS
from support.two_processes import PROMPTS, C, G, free_address, results

from rlif_jax.weights.source import open_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def one(tiny_path):
    """One device of this process, without a mesh."""
    return results(open_model(str(tiny_path)), lambda **axes: None)


@pytest.fixture(scope="module")
def two(tiny_path, tmp_path_factory):
    """What each of the two processes gives, which have two devices each."""
    folder = tmp_path_factory.mktemp("two")
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(TESTS)]),
    }
    address = free_address()
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                TESTS / "support" / "two_processes.py",
                address,
                str(i),
                tiny_path,
                folder / str(i),
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=400)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n\n".join(outputs)
    return [json.loads((folder / str(i)).read_text()) for i in range(2)]


def test_both_processes_see_the_same(two):
    """Rollouts, streamed rows and generated samples: every number of them, in the same order."""
    assert two[0] == two[1]


def test_processes_agree_on_what_the_first_has_and_on_the_least(two):
    expected = {"first": [0, 0, 0], "least": 2.5, "gathered": ["of 0", "of 11"], "by_first": "0"}
    expected |= {"any": True, "all": False, "refused": "process 0 refuses"}
    assert [each["agreed"] for each in two] == 2 * [expected]


@pytest.mark.parametrize("axis", ["data", "fsdp"])
def test_rollouts_are_those_of_one_device(one, two, axis):
    got, expected = two[0][axis], one[axis]
    tokens = np.asarray(got["tokens"])
    assert tokens.shape == (len(PROMPTS) * G, C)
    # Sums that heads or vocabulary are split over round differently: a draw could flip, none does.
    flipped_B = (tokens != np.asarray(expected["tokens"])).any(axis=1)
    assert flipped_B.sum() == 0
    assert got["mask"] == expected["mask"]
    assert got["truncated"] == expected["truncated"]
    assert 0 < sum(got["truncated"]) < len(tokens)
    for ours, theirs in zip(got["stats"], expected["stats"], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
        assert np.count_nonzero(ours) > 200


@pytest.mark.parametrize("axis", ["data", "fsdp"])
def test_rows_are_told_of_once_and_whole_while_others_go_on(two, axis):
    tokens, mask = np.asarray(two[0][axis]["tokens"]), np.asarray(two[0][axis]["mask"])
    told = two[0][axis]["told"]
    seen = [(row, cut) for rows, cuts in told for row, cut in zip(rows, cuts, strict=True)]
    assert sorted(seen) == [(row, tokens[row][mask[row]].tolist()) for row in range(len(tokens))]
    assert len(told) > 4


def test_generated_samples_are_those_of_one_device(one, two):
    """With limits of their own, a filter and a stop string; kv heads repeated over four devices."""
    got = {tuple(sample["which"]): sample for sample in two[0]["tensor"]}
    expected = {tuple(sample["which"]): sample for sample in one["tensor"]}
    assert got.keys() == expected.keys()
    assert len(got) == len(two[0]["tensor"]) == len(PROMPTS) * 3
    flipped = sum(got[which]["said"] != expected[which]["said"] for which in got)
    assert flipped == 0
    assert {sample["said"][2] for sample in got.values()} == {"eos", "stop", "length"}
    for which, sample in got.items():
        np.testing.assert_allclose(sample["stats"], expected[which]["stats"], atol=1e-5)
