"""Whole runs of the very small model: real files and real candidate programs."""

import dataclasses
import json
from pathlib import Path

import jax
import pytest
from support import ROOT
from support.fields_read import leaves, recording
from support.small_runs import config, metrics, numbers

from rlif_jax import step_record
from rlif_jax import train as train_module
from rlif_jax.config import Gates, Guard, Loss, Processes, load
from rlif_jax.distributed import join
from rlif_jax.errors import UserError
from rlif_jax.execution.pool import Judge
from rlif_jax.problem import Problem, Test
from rlif_jax.run.failures import Diverged
from rlif_jax.train import main, train

CONFIG_FILES = sorted(p for p in (ROOT / "configs").glob("*.py") if p.name != "base.py")


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


def test_the_part_that_certainty_reads_and_weights_that_change(flags, tmp_path):
    """A random model writes no program: there is nothing to read, and nothing to gain."""
    value = "reward/probability_disparity"
    by_part = {}
    for over in ("code", "tail(3)"):
        run = f"--run-dir={tmp_path / over}"
        main(
            [
                config("prob_disparity"),
                *flags,
                "--steps=1",
                "--eval.every=0",
                f"--reward.over={over}",
                run,
            ]
        )
        (by_part[over],) = metrics(tmp_path / over)
    assert by_part["code"][value] == 0 < by_part["tail(3)"][value]
    ramp = ["--reward.ramps", "probability_disparity", "1", "3", "0.0"]
    run = [f"--run-dir={tmp_path / 'ramp'}", "--steps=3", "--eval.every=0"]
    main([config("prob_disparity"), *flags, *run, *ramp])
    steps = metrics(tmp_path / "ramp")
    assert [step[f"{value}_weight"] for step in steps] == [1.0, 0.5, 0.0]
    assert [step["reward/mean"] / step[value] for step in steps] == pytest.approx([1.0, 0.5, 0.0])


def test_votes_on_inputs_made_of_examples(flags, tmp_path):
    """The judge runs all of them for every reward of votes, beside the tests."""
    run = [f"--run-dir={tmp_path / 'fuzz'}", "--steps=1", "--eval.every=0"]
    main([config("majority_vote"), *flags, *run, "--reward.vote-inputs=fuzz"])
    (step,) = metrics(tmp_path / "fuzz")
    assert step["exec/no_code"] == 1 and step["exec/unique_behaviours"] == 0
    assert step["reward/majority_vote"] == 0


@pytest.mark.slow
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
        original = getattr(step_record, name)

        def spy(*args, original=original, **kwargs):
            given.extend(jax.tree.leaves((args, kwargs)))
            return original(*args, **kwargs)

        monkeypatch.setattr(step_record, name, spy)
    return given


@dataclasses.dataclass(frozen=True)
class LossWithADeadField(Loss):
    temperature: float = 1.0
    """Nothing reads it, though sampling.temperature and eval.temperature are read."""


def diverging(cfg, rollbacks):
    raise Diverged(f"life {rollbacks}")


@pytest.mark.slow
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
            *("--reward.stats-from=scorer", "--reward.aggregate=quantile", "--reward.quantile=0.5"),
            *("--optim.learning-rate=1e-3", "--optim.warmup-steps=0", "--model.dtype=bfloat16"),
            "--optim.average-decay=0.9",
            *("--data.system-prompt=Be brief.", "--data.graded=graded.jsonl"),
            *("--loss.dual-clip=None", "--loss.tokens-per-micro-batch=512"),
            *("--loss.sampler-correction-cap=2", "--loss.overlong-filter"),
            *("--loss.entropy-target=3", "--loss.entropy-step=0.01"),
            *("--reward.short-length-tokens=2", "--reward.short-length-penalty=0.1"),
            *("--reward.overlong-buffer-tokens=4", "--reward.overlong-penalty=0.5"),
            *("--gates.low-entropy-iqr=1.5", "--gates.deterministic"),
        ]
    )
    read: set[str] = set()

    def recorded_with(sections=None, **loss_changes):
        loss = LossWithADeadField(**{**dataclasses.asdict(given.loss), **loss_changes})
        return recording(dataclasses.replace(given, loss=loss, **sections or {}), read)

    recorded = recorded_with()
    train(recorded)
    with pytest.raises(UserError, match="complete at step 2"):
        train(recorded)  # which asks whether it may resume
    with Judge(recorded.execution) as judge:  # a random model writes no program
        problem = Problem("id", "?", (Test("1", "1", "stdin"),))
        assert judge.submit(problem, "print(input())").result().passed
    only = {"sampler_correction_cap": None, "entropy_target": None, "entropy_step": 0.005}
    # Each reads fields of its own, and so do the inputs of votes.
    for variant, inputs in (("clip_cov", "fuzz"), ("kl_cov", "model")):
        terms = (("behaviour_entropy", 1.0), ("evol", 1.0), ("brier", 1.0), ("teacher_vote", 1.0))
        votes = {"vote_entropy_max": 1.0, "similarity": "syntax", "confidence": "stated"}
        votes |= {"vote_inputs": inputs}
        sections = {
            "reward": dataclasses.replace(given.reward, terms=terms, **votes),
            "gates": Gates(min_compiling=0.5, min_behaviours=2, vote_entropy=(0.1, 1.0)),
            "data": dataclasses.replace(given.data, ask_confidence=True),
            "guard": Guard("switch", (("random", 1.0),)),
        }
        other = recorded_with(sections, variant=variant, clip_low=0.2, clip_high=0.2, **only)
        train(dataclasses.replace(other, run_dir=variant, steps=1))
    alone = Processes(count=2, index=2, coordinator="localhost:1")
    with pytest.raises(UserError, match="did not meet"):
        join(recording(dataclasses.replace(given, processes=alone), read).processes)
    with monkeypatch.context() as patch, pytest.raises(UserError, match="the run has diverged"):
        patch.setattr(train_module, "live", diverging)
        train(dataclasses.replace(recorded, run_dir="diverging"))
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


def test_groups_that_teach_nothing_are_replaced_as_often_as_allowed(flags, tmp_path):
    """Every reward is equal here: three rounds are drawn and recorded, and one is trained on."""
    folder = tmp_path / "run"
    arguments = [config("constant"), *flags, "--steps=1", "--eval.every=0"]
    main([*arguments, "--data.max-refills=2", f"--run-dir={folder}"])
    (only,) = metrics(folder)
    assert only["rollout/refills"] == 2 and only["reward/zero_std_groups"] == 1
    assert only["grad/norm"] == 0
    rows = [json.loads(x) for x in (folder / "rollouts/step_000001.jsonl").open()]
    assert len(rows) == 3 * 4 * 4 and {row["advantage"] for row in rows} == {0}
    assert len({row["completion"] for row in rows}) > 16  # each round has a key of its own


def test_sampler_statistics_need_no_scoring_pass(flags, tmp_path):
    """The distance to the trainer's comes from the update then, before it has changed anything."""
    arguments = [config("self_certainty"), *flags, "--steps=1", "--eval.every=0"]
    main([*arguments, "--reward.stats-from=scorer", f"--run-dir={tmp_path / 'scorer'}"])
    main([*arguments, f"--run-dir={tmp_path / 'sampler'}"])
    (scorer,), (sampler,) = metrics(tmp_path / "scorer"), metrics(tmp_path / "sampler")
    names = ("logprob", "logprob_max", "entropy", "self_certainty", "probability_disparity")
    drift = {name for name in scorer if name.startswith("drift/")}
    assert drift == {f"drift/sampler_{name}" for name in names}
    assert all(0 < scorer[name] < 1e-4 for name in drift)
    assert {name for name in sampler if name.startswith("drift/")} == {"drift/sampler_logprob"}
    assert sampler["drift/sampler_logprob"] == pytest.approx(
        scorer["drift/sampler_logprob"], rel=0.5
    )
    assert sampler["loss/old_distance"] == 0  # its own log-probabilities are the old ones
    assert sampler["grad/norm"] == pytest.approx(scorer["grad/norm"], rel=1e-3)


@pytest.mark.slow
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
