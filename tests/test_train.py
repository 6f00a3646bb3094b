"""Whole runs of the very small model: real files, real programs, real processes, real kills."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import pytest
from support import ROOT
from support.fields_read import leaves, recording
from support.tiny import write_problems

from rlif_jax import step as step_page
from rlif_jax.config.schema import Loss, load
from rlif_jax.console.progress import Progress
from rlif_jax.errors import UserError
from rlif_jax.execution.pool import Judge
from rlif_jax.problem import Problem, Test
from rlif_jax.run.clock import PHASES
from rlif_jax.train import main, train

CONFIG_FILES = sorted(p for p in (ROOT / "configs").glob("*.py") if p.name != "base.py")
TIMES = ("time/", "throughput/")


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    return write_problems(tmp_path_factory.mktemp("problems") / "adding.jsonl")


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLIF_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(scope="module")
def flags(tiny_path, problems):
    """Flags that make any configuration run on the very small model in seconds."""
    return [
        f"--model.source={tiny_path}",
        f"--data.name={problems}",
        "--data.prompts-per-step=4",
        "--sampling.samples-per-prompt=4",
        "--sampling.max-new-tokens=12",
        "--sampling.bucket=12",
        "--loss.micro-batches=1",
        "--eval.samples-per-problem=2",
        "--eval.pass-at=2",
    ]


def config(name: str) -> str:
    return f"--config={ROOT / 'configs' / name}.py"


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def numbers(folder: Path) -> list[dict]:
    """The metrics without what a clock measured."""
    return [{k: v for k, v in m.items() if not k.startswith(TIMES)} for m in metrics(folder)]


def process(arguments: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "rlif_jax.train", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_step(folder: Path, step: int) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        path = folder / "metrics.jsonl"
        if path.is_file() and f'{{"step": {step},' in path.read_text():
            return
        time.sleep(0.02)
    raise AssertionError(f"step {step} was never reached")


@pytest.mark.parametrize("path", CONFIG_FILES, ids=lambda p: p.stem)
def test_every_config_file_trains(path, flags, tmp_path):
    evaluates = path.stem == "tests_passed"
    main(
        [
            f"--config={path}",
            *flags,
            f"--run-dir={tmp_path / 'run'}",
            "--steps=1",
            f"--eval.every={int(evaluates)}",
        ]
    )
    rows = metrics(tmp_path / "run")
    assert [row["step"] for row in rows] == ([0, 1] if evaluates else [1])
    step = rows[-1]
    made_by = json.loads((tmp_path / "run/config.json").read_text())
    exact = {"operands": "float32", "products": "highest", "head": "highest"}
    assert made_by["precision"] == exact
    assert made_by["isolation"].keys() >= {"namespaces", "user", "files", "system_calls", "network"}
    terms = made_by["config"]["reward"]["terms"]
    expected = {
        *("reward/mean", "reward/std", "rollout/response_length", "rollout/truncated_fraction"),
        *("rollout/action_reward", "rollout/reasoning_tokens", "rollout/repetition_ratio"),
        *("stats/trajectory_entropy", "stats/token_entropy", "stats/self_certainty"),
        *("stats/probability_disparity", "exec/pass_rate", "loss/policy", "loss/clip_fraction"),
        *(
            "grad/norm",
            "drift/sampler_logprob",
            "time/data",
            "time/sync",
            "time/sample",
            "time/score",
            "time/execute",
        ),
        *("time/update", "time/step", "throughput/sample_tokens_per_s"),
        *("throughput/train_tokens_per_s", "throughput/slot_use"),
        *(f"reward/{name}" for name, _ in terms),
    }
    assert expected <= step.keys()
    if evaluates:
        names = ("avg@2", "pass@2", "response_length")
        assert {f"eval/adding/{name}" for name in names} <= step.keys()
    assert 0 < step["throughput/slot_use"] <= 1
    # A random model writes no program, so tests and votes are as flat as constant.
    flat = path.stem in ("constant", "tests_passed", "majority_vote")
    assert flat == (step["grad/norm"] == 0)
    rollouts = (tmp_path / "run/rollouts/step_000001.jsonl").read_text().splitlines()
    assert len(rollouts) == 16
    first = json.loads(rollouts[0])
    assert first["prompt"].startswith("<|im_start|>user\nf(x) adds")
    assert first["verdict"] is not None
    assert list((tmp_path / "run/tensorboard").iterdir())
    assert (tmp_path / "run/checkpoints/1").is_dir()


def long_run(flags: list[str]) -> list[str]:
    return [config("hybrid"), *flags, "--steps=6", "--eval.every=3", "--checkpoint.every=2"]


@pytest.fixture(scope="module")
def uninterrupted(flags, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    main([*long_run(flags), f"--run-dir={folder}"])
    return folder


def assert_same_run(folder: Path, expected: Path) -> None:
    """Nothing is lost and nothing is recorded twice."""
    assert numbers(folder) == numbers(expected)
    for step in range(1, 7):
        name = f"rollouts/step_{step:06d}.jsonl"
        assert (folder / name).read_text() == (expected / name).read_text()


def test_the_times_of_a_step_add_up(uninterrupted):
    before, *steps = metrics(uninterrupted)
    assert not any(name.startswith(TIMES) for name in before)
    for step in steps:
        times = {k: v for k, v in step.items() if k.startswith("time/") and k != "time/step"}
        assert times.keys() == {f"time/{phase}" for phase in PHASES}
        assert sum(times.values()) == pytest.approx(step["time/step"], rel=0.02)
        assert min(times.values()) >= 0
        # An evaluation counts towards its own step, a checkpoint towards the one that follows.
        assert (times["time/save"] > 0) == (step["step"] in (3, 5))
        assert times["time/reward"] > 0 and times["time/record"] > 0
    evaluated = {step["step"]: step["time/evaluate"] for step in steps}
    assert min(evaluated[3], evaluated[6]) > max(evaluated[n] for n in (1, 2, 4, 5))


def test_a_killed_run_resumes_as_if_nothing_had_happened(flags, tmp_path, uninterrupted):
    killed = tmp_path / "run"
    victim = process([*long_run(flags), f"--run-dir={killed}"])
    wait_for_step(killed, 3)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert [row["step"] for row in metrics(killed)] == [0, 1, 2, 3]
    main([*long_run(flags), f"--run-dir={killed}"])
    assert_same_run(killed, uninterrupted)


def signal_when(monkeypatch, condition) -> None:
    """Send this process a SIGTERM when a phase is shown for which `condition(text)` holds."""
    shown = Progress.phase

    def phase(self, text, done=None, total=None):
        shown(self, text, done, total)
        if condition(text):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Progress, "phase", phase)


def stopped(arguments: list[str], capsys) -> str:
    """What the program prints when a signal ends it."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 130
    return capsys.readouterr().out


def test_a_signal_during_an_evaluation(flags, tmp_path, uninterrupted, monkeypatch, capsys):
    """Before training, after a step and after the last: what is not recorded yet is kept."""
    folder = tmp_path / "run"
    arguments = [*long_run(flags), f"--run-dir={folder}"]
    for step in (0, 3, 6):
        with monkeypatch.context() as patch:
            recorded = list(range(step))
            signal_when(
                patch,
                lambda text, recorded=recorded: (
                    text.startswith("evaluating")
                    and [row["step"] for row in metrics(folder)] == recorded
                ),
            )
            text = stopped(arguments, capsys)
        assert f"stopped after step {step}" in text
        assert [row["step"] for row in metrics(folder)] == recorded
        assert (folder / f"checkpoints/{step}").is_dir() == (step > 0)
    main(arguments)
    assert_same_run(folder, uninterrupted)
    resumed = metrics(folder)[-1]  # its step ran in the process before
    assert min(resumed[f"time/{phase}"] for phase in ("sample", "update", "evaluate")) > 0
    # Its checkpoint still has the metrics that were not recorded then.
    assert "complete at step 6" in refused(arguments, capsys)
    arguments[arguments.index("--steps=6")] = "--steps=7"
    main(arguments)
    assert [row["step"] for row in metrics(folder)] == list(range(8))


def test_a_signal_before_training_stops_at_once(flags, tmp_path, monkeypatch, capsys):
    signal_when(monkeypatch, lambda text: text.startswith("preparing"))
    text = stopped([config("random"), *flags, f"--run-dir={tmp_path / 'run'}"], capsys)
    assert text.endswith("problems ...\n")  # nothing was said or done after it
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kl_coef", [0.0, 0.5])
def test_a_resumed_run_loads_the_source_for_the_anchor_only(flags, tmp_path, capsys, kl_coef):
    """With a KL term the reference is the starting model, not what the checkpoint holds."""
    arguments = [config("prob_disparity"), *flags, "--eval.every=0", f"--loss.kl-coef={kl_coef}"]
    arguments += ["--optim.learning-rate=0.01"]
    main([*arguments, "--steps=3", f"--run-dir={tmp_path / 'whole'}"])
    main([*arguments, "--steps=2", f"--run-dir={tmp_path / 'parts'}"])
    capsys.readouterr()
    main([*arguments, "--steps=3", f"--run-dir={tmp_path / 'parts'}"])
    assert ("loading the parameters" in capsys.readouterr().out) == bool(kl_coef)
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "whole")
    assert (numbers(tmp_path / "parts")[-1].get("loss/kl", 0) > 0) == bool(kl_coef)


def test_ctrl_c_saves_and_says_how_to_go_on(flags, tmp_path, capsys):
    folder = tmp_path / "run"
    arguments = [config("prob_disparity"), *flags, "--steps=500", "--eval.every=0"]
    arguments += [f"--run-dir={folder}", "--checkpoint.every=0"]

    def interrupt():
        wait_for_step(folder, 2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 130
    done = metrics(folder)[-1]["step"]
    assert f"stopped after step {done}" in capsys.readouterr().out
    assert (folder / f"checkpoints/{done}").is_dir()
    arguments[arguments.index("--steps=500")] = f"--steps={done + 1}"
    main(arguments)
    assert [row["step"] for row in metrics(folder)] == list(range(1, done + 2))


def test_a_mesh_trains_as_one_device(flags, tmp_path, monkeypatch):
    """Every number of two steps, the second after an update that moves the parameters.

    Sums in another order differ by 1e-6 of their size at most, which Adam's first step, the size of
    which does not depend on that of a gradient, makes some times larger.
    """
    arguments = [config("hybrid"), *flags, "--steps=2", "--eval.every=0"]
    arguments += ["--optim.learning-rate=1e-3", "--optim.warmup-steps=0"]
    main([*arguments, f"--run-dir={tmp_path / 'one'}"])
    mesh = ["--mesh.data=2", "--mesh.fsdp=2", "--mesh.tensor=2"]
    read = read_by_records(monkeypatch)
    main([*arguments, *mesh, f"--run-dir={tmp_path / 'eight'}"])
    for one, eight in zip(numbers(tmp_path / "one"), numbers(tmp_path / "eight"), strict=True):
        assert one.keys() == eight.keys()
        for key, value in one.items():
            if key.startswith("drift/"):  # itself a difference of rounding
                assert max(value, eight[key]) < 1e-5, key
            else:  # what is 0 but for rounding, such as the mean of centred rewards, has no size
                assert eight[key] == pytest.approx(value, rel=2e-5, abs=1e-7), key
    # Everything that metrics and records read was copied from the devices before, in one go.
    assert len(read) > 10
    assert not [x for x in read if isinstance(x, jax.Array)]


def read_by_records(monkeypatch) -> list:
    """The arrays that metrics and records are given from now on."""
    given = []
    for name in ("reward_metrics", "rollout_metrics", "completion_records"):
        original = getattr(step_page, name)

        def spy(*args, original=original, **kwargs):
            given.extend(jax.tree.leaves((args, kwargs)))
            return original(*args, **kwargs)

        monkeypatch.setattr(step_page, name, spy)
    return given


@dataclasses.dataclass(frozen=True)
class LossWithADeadField(Loss):
    temperature: float = 1.0
    """Nothing reads it, though sampling.temperature and eval.temperature are read."""


def test_everything_switched_on_reads_every_field(flags, tmp_path, monkeypatch):
    """KL, a reward temperature, two epochs of two mini-batches, entropy bonus, Dr.GRPO.

    No field of a section is dead. One that only some runs read has to be switched on here.
    """
    monkeypatch.chdir(tmp_path)
    graded = [{"id": f"add{i}", "passed": True} for i in range(10)]
    Path("graded.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in graded))
    given = load(
        [
            config("prob_disparity"),
            *flags,
            *("--steps=2", "--eval.every=2", "--loss.kl-coef=0.1", "--loss.epochs=2"),
            *("--loss.mini-batches=2", "--loss.entropy-coef=0.01", "--loss.aggregation=dr_grpo"),
            *("--loss.advantage=dr_grpo", "--reward.reward-temperature=0.5"),
            *("--optim.learning-rate=1e-3", "--optim.warmup-steps=0", "--model.dtype=bfloat16"),
            *("--data.system-prompt=Be brief.", "--data.graded=graded.jsonl"),
            *("--loss.samples-per-row=2", "--loss.dual-clip=None"),
            *("--reward.short-length-tokens=2", "--reward.short-length-penalty=0.1"),
        ]
    )
    loss = LossWithADeadField(**dataclasses.asdict(given.loss))
    read: set[str] = set()
    recorded = recording(dataclasses.replace(given, loss=loss), read)
    train(recorded)
    with pytest.raises(UserError, match="complete at step 2"):
        train(recorded)  # which asks whether it may resume
    with Judge(recorded.execution) as judge:  # a random model writes no program
        problem = Problem("id", "?", (Test("1", "1", "stdin"),))
        assert judge.submit(problem, "print(input())").result().passed
    assert set(leaves(recorded)) - read == {"loss.temperature"}

    folder = tmp_path / "runs/prob_disparity"
    _, first, second = metrics(folder)
    assert first["loss/kl"] > 0  # the first mini-batch alone is still at the reference
    assert second["loss/kl"] > 0
    assert first["loss/clip_fraction"] > 0  # the second epoch has moved away from the sampler
    # Certainty read at temperature 0.5 is higher than what the metrics show at 1.0.
    assert first["reward/probability_disparity"] > first["stats/probability_disparity"]
    record = json.loads((folder / "rollouts/step_000001.jsonl").read_text().split("\n")[0])
    assert "Be brief." in record["prompt"]


def test_sampler_statistics_need_no_scoring_pass(flags, tmp_path):
    """The distance to the trainer's comes from the update then, before it has changed anything."""
    arguments = [config("self_certainty"), *flags, "--steps=1", "--eval.every=0"]
    main([*arguments, f"--run-dir={tmp_path / 'scorer'}"])
    main([*arguments, "--reward.stats-from=sampler", f"--run-dir={tmp_path / 'sampler'}"])
    (scorer,), (sampler,) = metrics(tmp_path / "scorer"), metrics(tmp_path / "sampler")
    names = ("logprob", "logprob_max", "entropy", "self_certainty", "probability_disparity")
    drift = {name for name in scorer if name.startswith("drift/")}
    assert drift == {f"drift/sampler_{name}" for name in names}
    assert all(0 < scorer[name] < 1e-4 for name in drift)
    assert {name for name in sampler if name.startswith("drift/")} == {"drift/sampler_logprob"}
    assert sampler["drift/sampler_logprob"] == pytest.approx(
        scorer["drift/sampler_logprob"], rel=0.5
    )
    assert scorer["loss/old_distance"] < sampler["loss/old_distance"]
    assert sampler["time/score"] < scorer["time/score"]
    assert sampler["grad/norm"] == pytest.approx(scorer["grad/norm"], rel=1e-3)


def test_few_slots_and_pages_train_the_same(flags, tmp_path):
    """Sixteen completions at once, and through three slots that wait for a page now and then."""
    arguments = [config("self_certainty"), *flags, "--steps=1", "--eval.every=0"]
    arguments += ["--data.max-prompt-tokens=128"]
    main([*arguments, f"--run-dir={tmp_path / 'many'}"])
    # Pages of 16 tokens have 8 KiB: there are 14, of which a prompt takes 8.
    few = ["--sampling.slots=3", "--sampling.page=16", "--sampling.cache-gib=1.1e-4"]
    main([*arguments, *few, f"--run-dir={tmp_path / 'few'}"])
    (many,), (few,) = numbers(tmp_path / "many"), numbers(tmp_path / "few")
    assert few.pop("throughput/slot_use", 1) != many.pop("throughput/slot_use", 0)
    for name, value in many.items():
        assert few[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
    first = (tmp_path / "many/rollouts/step_000001.jsonl").read_text().splitlines()
    second = (tmp_path / "few/rollouts/step_000001.jsonl").read_text().splitlines()
    assert [json.loads(r)["completion"] for r in first] == [
        json.loads(r)["completion"] for r in second
    ]


def refused(arguments: list[str], capsys) -> str:
    """What the program prints when it ends with status 2."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return re.sub(r"\s+", " ", text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optim.learning-rat=1"], "learning-rat"),
        (["--loss.micro-batches=3"], "not divisible by loss.micro_batches=3"),
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
    assert "a sequence of 396 tokens needs" in text and "raise cache_gib" in text


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
    assert "complete at step 1" in refused([*arguments, "--steps=1"], capsys)
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
    text = refused([*arguments, "--steps=2", "--mesh.data=2"], capsys)
    assert "mesh.data was 1 and is now 2" in text
    main([*arguments, "--steps=2"])
    assert [row["step"] for row in metrics(tmp_path / "run")] == [1, 2]
    assert json.loads(path.read_text())["config"]["mesh"]["data"] == 1
