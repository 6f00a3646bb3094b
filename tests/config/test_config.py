"""Configuration files, flags, and the refusal of what cannot run."""

import ast
import dataclasses
import itertools
import os
from dataclasses import replace

import pytest
import tyro
from support import ROOT

from rlif_jax.config.schema import (
    Config,
    Data,
    Eval,
    Execution,
    Loss,
    Mesh,
    Reward,
    Sampling,
    load,
    own_limits,
)
from rlif_jax.config.validate import validate
from rlif_jax.data.prompts import PromptOptions
from rlif_jax.errors import UserError
from rlif_jax.evaluate import Arguments
from rlif_jax.rewards import known_rewards

CONFIG_FILES = sorted(p for p in (ROOT / "configs").glob("*.py") if p.name != "base.py")


def fields(cls=Config, prefix=""):
    """Every leaf field as (dotted name, its class, its name)."""
    for field in dataclasses.fields(cls):
        inner = field.type if isinstance(field.type, type) else None
        if inner is not None and dataclasses.is_dataclass(inner):
            yield from fields(inner, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", cls, field.name


@pytest.mark.parametrize("path", CONFIG_FILES, ids=lambda p: p.stem)
def test_every_config_file_is_valid_and_names_its_command(path):
    config = load([f"--config={path}"])
    validate(config, known_rewards())
    assert config.name == path.stem
    assert f"python -m rlif_jax.train --config=configs/{path.name}" in path.read_text()


def test_flags_override_the_file():
    config = load(
        [
            f"--config={ROOT / 'configs/prob_disparity.py'}",
            "--optim.learning-rate=1e-3",
            "--steps",
            "20",
            "--checkpoint.every",
            "3",
            "--no-resume",
            "--reward.terms",
            "tests_passed",
            "1.0",
            "random",
            "0.5",
        ]
    )
    assert config.optim.learning_rate == 1e-3
    assert (config.steps, config.checkpoint.every, config.resume) == (20, 3, False)
    assert config.reward.terms == (("tests_passed", 1.0), ("random", 0.5))
    assert config.sampling == load([f"--config={ROOT / 'configs/prob_disparity.py'}"]).sampling


def test_the_options_of_prompts_are_flags_of_training_and_of_evaluation():
    options = PromptOptions("livecodebench", "Be brief.", "off")
    flags = {"prompt-style": "livecodebench", "system-prompt": "Be brief.", "thinking": "off"}
    file = f"--config={ROOT / 'configs/prob_disparity.py'}"
    config = load([file, *(f"--data.{name}={value}" for name, value in flags.items())])
    assert PromptOptions.of(config.data) == options
    arguments = tyro.cli(Arguments, args=[f"--{name}={value}" for name, value in flags.items()])
    assert PromptOptions.of(arguments) == options
    assert PromptOptions.of(Data()) == PromptOptions.of(Arguments()) == PromptOptions()


@pytest.mark.parametrize("execution", [Execution(), own_limits(), Arguments().execution])
def test_programs_run_on_all_processors_of_this_process(execution, monkeypatch):
    assert execution.workers == len(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 8})
    assert Execution().workers == own_limits().workers == Config().execution.workers == 3
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    assert Execution().workers == os.cpu_count()


def test_an_unknown_flag_ends_with_status_2_and_names_it(capsys):
    with pytest.raises(SystemExit) as stop:
        load([f"--config={ROOT / 'configs/random.py'}", "--optim.learning-rat=1"])
    assert stop.value.code == 2
    assert "learning-rat" in capsys.readouterr().err


def test_help_documents_every_field(capsys):
    with pytest.raises(SystemExit) as stop:
        load(["--help"])
    assert stop.value.code == 0
    text = "".join(capsys.readouterr().out.split())
    for dotted, cls, name in fields():
        assert "--" + dotted.replace("_", "-") in text or "--" + dotted in text, dotted
        assert docstring_of(cls, name), f"{dotted} has no documentation"


def docstring_of(cls, name):
    """The string below a field, which --help prints."""
    tree = ast.parse((ROOT / "rlif_jax/config/schema.py").read_text())
    body = next(n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == cls.__name__)
    for node, after in itertools.pairwise(body):
        if isinstance(node, ast.AnnAssign) and node.target.id == name:
            return isinstance(after, ast.Expr) and isinstance(after.value.value, str)
    return False


@pytest.mark.parametrize(
    ("text", "argument"),
    [("config = 3", "leaves no `config`"), ("1/0", "ZeroDivisionError"), ("x = (", "SyntaxError")],
)
def test_a_bad_config_file_is_named(tmp_path, text, argument):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(UserError, match=argument) as error:
        load([f"--config={path}"])
    assert str(path) in str(error.value)


def test_a_missing_config_file_is_named(tmp_path):
    with pytest.raises(UserError, match="is not a file"):
        load([f"--config={tmp_path / 'none.py'}"])
    with pytest.raises(UserError, match="no --config given"):
        load(["--steps", "3"])


def test_all_problems_are_reported_at_once():
    config = Config(
        steps=0,
        name="a/b",
        data=Data(prompts_per_step=6),
        sampling=Sampling(samples_per_prompt=1, temperature=0.0),
        loss=Loss(mini_batches=4, dual_clip=1.1),
        reward=Reward(terms=(("test_passed", 1.0),)),
        eval=Eval(samples_per_problem=2, pass_at=4),
    )
    with pytest.raises(UserError) as error:
        validate(config, known_rewards())
    text = str(error.value)
    for part in (
        "steps=0",
        "name='a/b'",
        "sampling.samples_per_prompt=1",
        "sampling.temperature=0.0",
        "data.prompts_per_step=6 is not divisible by loss.mini_batches=4",
        "choose one of [1, 2, 3, 6]",
        "loss.dual_clip=1.1",
        "'test_passed'; known rewards are",
        "eval.pass_at=4",
    ):
        assert part in text, part


@pytest.mark.parametrize(
    ("config", "part"),
    [
        (
            Config(loss=Loss(micro_batches=5)),
            "8 rows (of 8 completions each) is not divisible by loss.micro_batches=5",
        ),
        (
            Config(loss=Loss(samples_per_row=3)),
            "sampling.samples_per_prompt=8 is not divisible by loss.samples_per_row=3",
        ),
        (
            Config(mesh=Mesh(data=3)),
            "micro-batch of 2 rows (of 8 completions each) is not divisible by mesh.data",
        ),
        (
            Config(data=Data(prompt_style="llama")),
            "data.prompt_style='llama' is none of chat, live",
        ),
        (Config(data=Data(thinking="yes")), "data.thinking='yes' is none of template, on, off"),
        (Config(sampling=Sampling(slots=0)), "sampling.slots=0 must be at least 1"),
        (Config(sampling=Sampling(page=0)), "sampling.page=0 must be at least 1"),
        (Config(sampling=Sampling(cache_gib=-1.0)), "sampling.cache_gib=-1.0 must be at least 0"),
        (Config(sampling=Sampling(bucket=0)), "sampling.bucket=0 must be at least 1"),
        (Config(sampling=Sampling(cache_dtype="int8")), "sampling.cache_dtype='int8' is none of"),
        (Config(data=Data(mix=(("starter", 0.0),))), "gives 'starter' the weight 0.0, which must"),
        (Config(data=Data(mix=(("a", 1.0), ("a", 2.0)))), "data.mix names 'a' twice"),
        (Config(data=Data(graded="g", pass_rates=(0.9, 0.1))), "pass_rates=0.9 0.1 must be two"),
        (Config(data=Data(pass_rates=(0.1, 0.9))), "data.pass_rates=0.1 0.9 needs data.graded"),
        (Config(data=Data(min_tests=-1)), "data.min_tests=-1 must be at least 0"),
        (Config(reward=Reward(terms=())), "reward.terms is empty"),
        (Config(reward=Reward(terms=(("random", 1.0),) * 2)), "names a reward twice"),
        (
            Config(reward=Reward(combine="normalise_then_sum")),
            "loss.advantage=grpo normalises twice",
        ),
        (
            Config(reward=Reward(reward_temperature=2.0, stats_from="sampler")),
            "needs reward.stats_from=scorer",
        ),
    ],
)
def test_what_cannot_run_is_refused(config, part):
    with pytest.raises(UserError, match=r"cannot run") as error:
        validate(config, known_rewards())
    assert part in str(error.value)


def test_a_group_of_one_is_allowed_without_group_normalisation():
    one = Sampling(samples_per_prompt=1)
    validate(
        Config(sampling=one, loss=Loss(advantage="none", micro_batches=1), eval=Eval(every=0)),
        known_rewards(),
    )
    with pytest.raises(UserError, match="group of one"):
        validate(
            replace(
                Config(sampling=one, loss=Loss(advantage="none", micro_batches=1)),
                reward=Reward(combine="normalise_then_sum"),
            ),
            known_rewards(),
        )
