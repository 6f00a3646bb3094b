"""The plan command: what it prints, what it refuses, what it exits with."""

import functools
import json
import os
import re
import subprocess
import sys

import pytest
from support import ROOT

from rlif_jax import plan

QWEN = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 2048,
    "tie_word_embeddings": True,
    "max_position_embeddings": 4096,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-6,
    "eos_token_id": 2,
}
SIZES = (
    *("--model.dtype", "bfloat16", "--data.max-prompt-tokens", "128"),
    *("--sampling.max-new-tokens", "384", "--sampling.slots", "16"),
    *("--data.prompts-per-step", "4", "--sampling.samples-per-prompt", "8"),
    *("--reward.stats-from", "scorer"),
)


@pytest.fixture
def model(tmp_path):
    """A folder that holds config.json and nothing else."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(QWEN))
    return str(folder)


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """`planned(model, topology, *flags)`: the command in a process of its own.

    What is compiled is kept from one call to the next, and from no other session.
    """
    kept = tmp_path_factory.mktemp("kept")
    return functools.partial(_planned, os.environ | {"RLIF_CACHE": str(kept)})


def _planned(env, model, topology, *flags):
    command = [sys.executable, "-m", "rlif_jax.plan", "--config=configs/prob_disparity.py"]
    command += ["--topology", topology, "--model.source", model, *SIZES, *flags]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=900, env=env)


def test_a_plan_for_this_machine(model, planned):
    """Memory and counts, without seconds: what a CPU can do at best is not known."""
    done = planned(model, "cpu:2", "--mesh.fsdp", "2", "--json")
    assert done.returncode == 0, done.stderr
    plan_ = json.loads(done.stdout)
    assert list(plan_["stages"]) == ["prefill", "decode", "score", "update"]
    assert plan_["seconds"] == {} and "step_s" not in plan_
    assert plan_["mesh"] == {"data": 1, "fsdp": 2, "context": 1, "tensor": 1}
    update = plan_["stages"]["update"]
    assert update["total"] == update["held"] - update["beside"]
    # Parameters and two moments in float32, halved by fsdp, lie beside what samples.
    layer = 256 * (2 + 1 + 1 + 2) * 128 + 3 * 256 * 512 + (2 + 1 + 1) * 128 + 2 * 256
    state = 3 * 4 * (2 * layer + 2048 * 256 + 256) / 2
    assert plan_["stages"]["decode"]["beside"] == pytest.approx(state, rel=0.01)
    assert plan_["tokens"]["drawn"] > 0 < update["flops"]
    assert update["sent"]["all-gather"] > 0


@pytest.mark.slow
def test_an_average_is_held_and_a_teacher_samples_as_well(model, planned):
    """A fourth tree beside what samples; both drawings are counted, of one cache and one copy."""

    def calls(stage) -> int:
        return int(stage["calls"].split()[0].replace(",", ""))

    teacher = ("--reward.terms", "teacher_vote", "1.0", "--optim.average-decay", "0.99")
    alone, both = (
        json.loads(planned(model, "cpu:1", *flags, "--json").stdout) for flags in ((), teacher)
    )
    for stage in ("prefill", "decode"):
        once, twice = (one["stages"][stage] for one in (alone, both))
        assert twice["beside"] == pytest.approx(4 / 3 * once["beside"], rel=1e-3)
        assert twice["flops"] == pytest.approx(2 * once["flops"])
        assert twice["total"] == once["total"]
        assert calls(twice) == 2 * calls(once)
    assert both["tokens"] == {**alone["tokens"], "drawn": 2 * alone["tokens"]["drawn"]}
    assert both["slot_use"] == pytest.approx(alone["slot_use"])
    assert both["stages"]["update"]["flops"] == pytest.approx(
        alone["stages"]["update"]["flops"], rel=0.01
    )
    said = planned(model, "cpu:1", *teacher).stdout
    assert "as long as programs: the responses of a teacher (reward.terms)\n" in said


@pytest.mark.slow
def test_tests_that_the_policy_writes_are_sampled_too(model, planned):
    voted = ("--reward.terms", "majority_vote", "1.0", "--reward.vote-inputs")
    once, twice = (
        json.loads(planned(model, "cpu:1", *voted, inputs, "--json").stdout)
        for inputs in ("problem", "model")
    )
    assert twice["tokens"] == {**once["tokens"], "drawn": 2 * once["tokens"]["drawn"]}
    for stage, factor in (("prefill", 2), ("decode", 2), ("update", 1)):
        flops = once["stages"][stage]["flops"]
        assert twice["stages"][stage]["flops"] == pytest.approx(factor * flops)
    said = planned(model, "cpu:1", *voted, "model").stdout
    assert "as long as programs: tests that the policy writes (reward.vote_inputs)\n" in said


@pytest.mark.slow
def test_a_plan_for_a_slice(model, planned):
    """Libtpu compiles; the tables name every stage, what binds it, and every assumption."""
    flags = ("--mesh.fsdp", "4", "--price", "1.2")
    done = planned(model, "v5e:2x2", *flags)
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert "prob_disparity on v5e:2x2 (fsdp=4)" in said
    for stage in ("prefill", "decode", "score", "update"):
        assert re.search(rf"│ {stage} +│.*(memory|products|network)", said), said
    assert re.search(r"step: [\d.]+ s \(sync [\d.]+, prefill", said)
    assert re.search(r"chip-hours, [\d,]+ at 1.2 a chip-hour", said)
    assert re.search(r"update sends, in GB: all-gather [\d.]+", said)
    assert "45.5%" in said and "197 TFLOP/s" in said and "docs.cloud.google.com" in said
    again = json.loads(planned(model, "v5e:2x2", *flags, "--json").stdout)
    parts = again["seconds"]
    assert again["step_s"] == pytest.approx(sum(parts.values()))
    assert again["chip_hours"] == pytest.approx(4 * again["run_hours"])
    assert again["cost"] == pytest.approx(1.2 * again["chip_hours"])


@pytest.mark.slow
def test_a_run_that_does_not_fit_exits_with_1_and_the_remedy(planned, tmp_path):
    """Parameters and moments alone take 22 GiB of each chip, which has 15.75."""
    large = {"hidden_size": 4096, "intermediate_size": 16384, "num_hidden_layers": 32}
    heads = {"num_attention_heads": 32, "num_key_value_heads": 8}
    (tmp_path / "config.json").write_text(json.dumps(QWEN | large | heads))
    done = planned(str(tmp_path), "v5e:2x2", "--mesh.fsdp", "4", "--model.remat", "none")
    assert done.returncode == 1
    refusal = r"does not fit: update needs ([\d.]+) GiB on a chip, and a v5e has 15.75. It holds "
    found = re.search(refusal + r"([\d.]+) GiB of parameters and moments", done.stderr)
    assert found, done.stderr
    layer = 4096 * (32 + 8 + 8 + 32) * 128 + 3 * 4096 * 16384
    assert float(found[2]) == pytest.approx(3 * 4 * 32 * layer / 4 / 2**30, rel=0.01)
    assert float(found[1]) > float(found[2])
    assert re.search(r"largest buffers are [\d.]+ GiB \w+\[", done.stderr)
    assert "Remedies: --model.remat layer; --mesh.context 2" in done.stderr
    assert "--mesh.fsdp 8 or --mesh.tensor 2 on a slice of 8 chips" in done.stderr


@pytest.mark.slow
def test_a_search_gives_flags_that_fit(planned, tmp_path):
    """A model of one head leaves one mesh; micro-batches and remat are what is left to choose."""
    one_head = {"num_attention_heads": 1, "num_key_value_heads": 1, "hidden_size": 128}
    (tmp_path / "config.json").write_text(json.dumps(QWEN | one_head))
    done = planned(str(tmp_path), "v5e:2x2", "--search", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    seconds = [one["step_s"] for one in found]
    assert seconds == sorted(seconds) and len(seconds) == 3
    assert len({one["flags"] for one in found}) == 3
    assert all("--mesh.fsdp 4" in one["flags"] for one in found)
    best = planned(str(tmp_path), "v5e:2x2", "--json", *found[0]["flags"].split())
    assert json.loads(best.stdout)["step_s"] == pytest.approx(seconds[0])


@pytest.mark.parametrize(
    ("topology", "flags", "said"),
    [
        ("v5e:3", (), "--topology v5e:3 is not known"),
        (
            "v5e:2x2",
            (),
            r"mesh.tensor=1 = 1 chips, and v5e:2x2 has 4; start from --mesh.data 1 --mesh.f",
        ),
        ("v5e:2x2", ("--mesh.tensor", "4"), "does not divide the model's 2 query heads"),
        ("cpu:1", ("--lengths", "absent"), "--lengths absent is no run folder"),
        ("cpu:1", ("--price", "-1"), r"--price -1.0 must be above 0"),
        ("cpu:1", ("--sampling.max-new-tokens", "4000"), "exceed the 4096 positions of"),
        ("cpu:1", ("--steps", "0"), "steps=0 must be at least 1"),
    ],
)
def test_bad_input_is_refused_before_anything_is_compiled(model, topology, flags, said, capsys):
    argv = ["--config", str(ROOT / "configs/prob_disparity.py"), "--topology", topology]
    with pytest.raises(SystemExit) as exit_:
        plan.main([*argv, "--model.source", model, *SIZES, *flags])
    assert exit_.value.code == 2
    assert re.search(said, capsys.readouterr().err)


def test_without_libtpu_the_remedy_is_said(model, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)  # JAX sets it where it has found libtpu
    argv = ["--config", str(ROOT / "configs/prob_disparity.py"), "--topology", "v5e:2x2"]
    with pytest.raises(SystemExit) as exit_:
        plan.main([*argv, "--model.source", model, *SIZES, "--mesh.fsdp", "4"])
    assert exit_.value.code == 2
    assert "pip install libtpu" in capsys.readouterr().err
