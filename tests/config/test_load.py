"""Configuration files and flags."""

import ast
import dataclasses
import functools
import inspect
import itertools
import re

import pytest
import tyro
from support import ROOT

from rlif_jax.config import Config, Data, PromptOptions, load
from rlif_jax.config.validate import validate
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


def evaluate_help():
    tyro.cli(Arguments, args=["--help"])


@pytest.mark.parametrize("path", CONFIG_FILES, ids=lambda p: p.stem)
def test_every_config_file_is_valid_and_names_its_command(path):
    config = load([f"--config={path}"])
    validate(config, known_rewards())
    assert config.name == path.stem
    assert f"python -m rlif_jax.train --config=configs/{path.name}" in path.read_text()


def test_every_other_file_is_a_configuration_or_a_part_of_some():
    parts = {"base.py", "paper/base.py", "paper/machines.py", "paper/problems.py"}
    folder = ROOT / "configs"
    for path in sorted(set(folder.rglob("*.py")) - set(CONFIG_FILES)):
        suite = path.parent.name == "study"  # tests/config/test_suite.py has those
        if str(path.relative_to(folder)) not in parts and not suite:
            validate(load([f"--config={path}"]), known_rewards())


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


def test_an_unknown_flag_ends_with_status_2_and_names_it(capsys):
    with pytest.raises(SystemExit) as stop:
        load([f"--config={ROOT / 'configs/random.py'}", "--optim.learning-rat=1"])
    assert stop.value.code == 2
    assert "learning-rat" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "of"), [(functools.partial(load, ["--help"]), Config), (evaluate_help, Arguments)]
)
def test_help_shows_every_field_with_its_type_default_and_doc(command, of, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as stop:
        command()
    assert stop.value.code == 0
    text = "".join(re.sub("[\u2500-\u257f]", "", capsys.readouterr().out).split())
    for dotted, cls, name in fields(of):
        assert "--" + dotted.replace("_", "-") in text, dotted
        doc = docstring_of(cls, name)
        assert doc, f"{dotted} has no documentation"
        assert "".join(doc.split()) + "(default:" in text, dotted


def docstring_of(cls, name):
    """The string below a field, here or in the class that it is inherited from."""
    for parent in cls.__mro__[:-1]:
        (tree,) = ast.parse(inspect.getsource(parent)).body
        for node, after in itertools.pairwise(tree.body):
            declared = isinstance(node, ast.AnnAssign) and node.target.id == name
            if declared and isinstance(after, ast.Expr):
                return after.value.value
    return None


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


def test_a_file_s_values_of_a_wrong_type_are_named_all_at_once(tmp_path, recwarn):
    """Before flags are read: tyro would take the type of such a value for the field's."""
    path = tmp_path / "mine.py"
    path.write_text(
        "from rlif_jax.config import Config, Data, Reward\n"
        "config = Config(steps=2.5, seed=-1, resume='no', data=Data(difficulties=('easy')),\n"
        "                reward=Reward(terms=[('random', 1.0)]))\n"
    )
    with pytest.raises(UserError) as error:
        load([f"--config={path}", "--seed=3"])
    text = str(error.value)
    for part in (
        str(path),
        "steps=2.5 must be of type int",
        "seed=-1 must be at least 0",
        "resume='no' must be of type bool",
        "data.difficulties='easy' must be of type tuple[str, ...]",
        "reward.terms=[('random', 1.0)] must be of type tuple[tuple[str, float], ...]",
    ):
        assert part in text, part
    assert not recwarn.list


def test_flags_may_mend_a_file_s_values_out_of_range(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from rlif_jax.config import Config\nconfig = Config(steps=0, seed=-1)\n")
    config = load([f"--config={path}", "--steps=3"])
    with pytest.raises(UserError, match="seed=-1 must be at least 0") as error:
        validate(config, known_rewards())
    assert "steps" not in str(error.value)
