"""Bad input of a run: refused early, in one sentence that names the value and the remedy."""

import json
import re

import pytest
from support.small_runs import config, metrics, refused
from support.tiny import write_problems

from rlif_jax.train import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optim.learning-rat=1"], "learning-rat"),
        (["--loss.mini-batches=3"], "not divisible by loss.mini_batches=3"),
        (["--loss.tokens-per-micro-batch=9"], "less than the longest sequence"),
        (["--mesh.context=8"], "does not divide the model's heads (4 for queries, 2 for keys"),
        (["--sampling.samples-per-prompt=1"], "leaves a group of one"),
        (["--reward.terms", "certainty", "1.0"], "known rewards are"),
        (["--mesh.data=64", "--data.prompts-per-step=64"], "asks for 64 devices"),
        (["--mesh.tensor=16"], "tensor=16 does not divide the model's 4 query heads"),
        (["--model.source=hf:nobody"], "not of the form hf:ORG/NAME"),
        (["--data.name=no_such_set"], "no_such_set"),
        (["--data.difficulties", "absurd"], "'absurd'"),
        (["--data.thinking=on"], "choose thinking=template"),
        (["--data.prompt-style=livecodebench_deepseek_r1"], "which the tokenizer"),
        (["--eval.temperature=0"], "eval.samples_per_problem=1 instead of 2"),
        (["--sampling.slots=0"], "sampling.slots=0 must be at least 1"),
        (["--eval.top-p=1.5"], "eval.top_p=1.5 must be in (0, 1]"),
        (["--data.max-prompt-tokens=3"], "data.max_prompt_tokens"),
    ],
    ids=lambda v: v[0] if isinstance(v, list) else "",
)
def test_bad_input_ends_with_one_sentence(arguments, message, flags, tmp_path, capsys):
    folder = tmp_path / "run"
    text = refused([config("prob_disparity"), *flags, f"--run-dir={folder}", *arguments], capsys)
    assert message in text
    assert not folder.exists()


def test_what_a_mesh_keeps_whole_is_said_before_devices_are_touched(flags, tmp_path, capsys):
    arguments = [config("random"), *flags, f"--run-dir={tmp_path / 'run'}", "--mesh.tensor=4"]
    with pytest.raises(SystemExit):
        main([*arguments, "--mesh.data=64", "--data.prompts-per-step=64"])
    printed = capsys.readouterr()
    assert "asks for 256 devices" in printed.err
    assert "mesh.tensor=4 exceeds the 2 key/value heads" in re.sub(r"\s+", " ", printed.out)


def test_a_cache_too_small_for_one_sequence_is_named(flags, tmp_path, capsys):
    arguments = [config("random"), *flags, f"--run-dir={tmp_path / 'run'}"]
    text = refused([*arguments, "--eval.every=0", "--sampling.cache-gib=1e-6"], capsys)
    assert "a sequence of 125 tokens needs" in text and "raise cache_gib" in text


def test_problems_are_looked_at_before_parameters_are_loaded(flags, tmp_path, capsys):
    """What a prompt is refused for is known from the tokenizer: no memory is filled first."""
    arguments = [config("random"), *flags, f"--run-dir={tmp_path / 'run'}", "--data.thinking=on"]
    with pytest.raises(SystemExit):
        main(arguments)
    printed = capsys.readouterr().out
    assert "model: llama, " in printed and "loading the parameters" not in printed


def test_a_damaged_model_file_is_named(flags, tiny_path, tmp_path, capsys):
    damaged = tmp_path / "cut.gguf"
    damaged.write_bytes(tiny_path.read_bytes()[:20_000])
    changed = [*flags, f"--model.source={damaged}", f"--run-dir={tmp_path / 'run'}"]
    text = refused([config("random"), *changed], capsys)
    assert str(damaged) in text


def test_a_problem_without_tests_is_named(flags, tmp_path, capsys):
    path = write_problems(tmp_path / "bare.jsonl", public_test_cases="[]", private_test_cases="[]")
    changed = [*flags, f"--data.name={path}", f"--run-dir={tmp_path / 'run'}"]
    text = refused([config("random"), *changed], capsys)
    assert str(path) in text
    assert "add0" in text


def test_a_used_folder_is_for_the_same_run_only(flags, tmp_path, capsys):
    arguments = [config("random"), *flags, f"--run-dir={tmp_path / 'run'}", "--eval.every=0"]
    main([*arguments, "--steps=1"])
    before = (tmp_path / "run/metrics.jsonl").read_bytes()
    text = refused([*arguments, "--steps=2", "--optim.learning-rate=0.5"], capsys)
    assert "optim.learning_rate was 2e-05 and is now 0.5" in text
    main([*arguments, "--steps=1"])
    assert "complete at step 1" in capsys.readouterr().out
    assert "--no-resume would overwrite" in refused([*arguments, "--no-resume"], capsys)
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == before
    # A version that did not have these fields wrote it: they count as their defaults.
    path = tmp_path / "run/config.json"
    older = json.loads(path.read_text())
    for section in ("mesh", "checkpoint"):
        del older["config"][section]
    for section, name in (("loss", "dual_clip"), ("data", "mix"), ("execution", "monitor")):
        del older["config"][section][name]
    path.write_text(json.dumps(older))
    text = refused([*arguments, "--steps=2", "--loss.dual-clip=4"], capsys)
    assert "loss.dual_clip was 3.0 and is now 4.0" in text
    main([*arguments, "--steps=2"])
    assert [row["step"] for row in metrics(tmp_path / "run")] == [1, 2]
    assert json.loads(path.read_text())["config"]["mesh"]["data"] == 1
