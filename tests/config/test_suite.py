"""The runs that a suite describes."""

import dataclasses

import pytest
from support import ROOT

from rlif_jax.config import Config, Stage, Suite, Sweep
from rlif_jax.config.suite import read_suite_file, with_fields
from rlif_jax.config.validate import validate
from rlif_jax.errors import UserError
from rlif_jax.rewards import known_rewards

SUITES = sorted((ROOT / "configs/study").glob("*.py"))
METHODS = {
    "tests": {},
    "certain": {
        "reward.terms": (("self_certainty", 1.0),),
        "checkpoint.every": 1,
        "checkpoint.keep_every": 3,
    },
}


def suite(**parts) -> Suite:
    return Suite(name="small", base=Config(steps=7), methods=METHODS, **parts)


def names(one: Suite) -> list[str]:
    return [run.name for run in one.runs("out")]


def test_each_method_has_its_seeds_one_after_the_other():
    planned = suite(seeds={"certain": 2, "": 1}).runs("out")
    assert [run.name for run in planned] == ["tests-s0", "certain-s0", "certain-s1"]
    last = planned[-1].config
    assert (last.steps, last.seed, last.name, last.run_dir) == (
        7,
        1,
        "certain-s1",
        "out/certain-s1",
    )
    assert last.reward.terms == (("self_certainty", 1.0),)
    assert planned[0].config.reward == Config().reward


def test_a_sweep_varies_one_field():
    sweep = Sweep("sampling.temperature", (0.8, 1.2), ("certain",))
    *_, low, high = suite(sweeps=(sweep,)).runs("out")
    assert (low.name, high.name) == ("certain-temperature=0.8-s0", "certain-temperature=1.2-s0")
    assert (low.config.sampling.temperature, high.config.sampling.temperature) == (0.8, 1.2)
    assert dataclasses.replace(low.config.sampling, temperature=1.2) == high.config.sampling


def test_a_stage_starts_from_checkpoints_of_the_same_seed():
    stage = Stage("tests", after="certain", at=(3, 7), optimizer="kept", fields={"steps": 2})
    planned = suite(seeds={"certain": 2, "": 1}, stages=(stage,)).runs("out")
    _, _, first, second, last = planned  # behind the run whose checkpoints they need
    assert last.name == "certain-s1"
    assert (first.name, second.name) == ("tests-from-certain@3-s0", "tests-from-certain@7-s0")
    assert second.after == "certain-s0"
    cfg = second.config
    assert (cfg.init_from, cfg.init_optimizer, cfg.steps) == ("out/certain-s0@7", "kept", 2)
    assert names(suite(seeds={"": 2}, stages=(stage,)))[-1] == "tests-from-certain@7-s1"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"sweeps": (Sweep("seed", (1,), ("other",)),)}, "method 'other'; it has tests, certain"),
        ({"stages": (Stage("tests", after="none", at=(1,)),)}, "method 'none'"),
        *(
            ({"stages": (Stage("tests", after=after, at=(at,)),)}, f"step {at} of '{after}', which")
            for after, at in (("certain", 5), ("certain", 9), ("certain", 0), ("tests", 5))
        ),
        ({"sweeps": (Sweep("sampling.heat", (1,), ("tests",)),)}, "no field 'heat'; Sampling has"),
        ({"sweeps": (Sweep("seed", (1, 1), ("tests",)),)}, "several runs called tests-seed=1-s0"),
    ],
)
def test_what_a_suite_cannot_mean_is_refused(parts, message):
    with pytest.raises(UserError, match=message):
        suite(**parts).runs("out")


def test_fields_are_named_as_on_the_command_line():
    cfg = with_fields(Config(), {"steps": 3, "loss.kl_coef": 0.1, "loss.epochs": 2})
    assert (cfg.steps, cfg.loss.kl_coef, cfg.loss.epochs) == (3, 0.1, 2)
    assert Config().loss.kl_coef == 0.0


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_every_suite_can_run(path):
    """Names, fields and rewards are there, and the checkpoints that stages start from."""
    one = read_suite_file(path)
    runs = one.runs("out")
    assert one.name == path.stem and len(runs) > 1
    for run in runs:
        validate(run.config, known_rewards())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is not a file.*--suite=configs/study/laptop.py"),
        ("suite = 3", "leaves no `suite`"),
        ("suite = Suite()", "could not be run: NameError"),
    ],
)
def test_a_file_that_is_no_suite(tmp_path, text, message):
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_suite_file(path)
