"""The configurations of the study: its settings, its models, and the machines they are made for."""

import ast
import dataclasses
import json
import math
import re

import pytest
import tyro
from support import ROOT
from support.paper_settings import PAPER, SETTINGS, published

from configs.paper import machines
from configs.paper.machines import MACHINES
from rlif_jax.config import Config, load
from rlif_jax.config.load import read_config_file
from rlif_jax.config.validate import validate
from rlif_jax.data.sets.named import problem_source
from rlif_jax.errors import UserError
from rlif_jax.evaluation.arguments import Arguments, check
from rlif_jax.model.config import kv_bytes_per_token, param_count
from rlif_jax.model.placement import check_mesh
from rlif_jax.rewards import known_rewards

FILES = sorted(PAPER.glob("*/*.py"))
README = (PAPER / "README.md").read_text()
each_file = pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
each_setting = pytest.mark.parametrize(
    "setting", SETTINGS, ids=lambda setting: f"{setting.folder}-{setting.machine}"
)

METHODS = {
    "tests_passed",
    "self_certainty",
    "token_entropy",
    "trajectory_entropy",
    "probability_disparity",
    "random",
}
MODELS = {
    "r1_1p5b_8k": {
        "model.source": "hf:deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
        "sampling.max_new_tokens": 8192,
        "data.prompt_style": "livecodebench_deepseek_r1",
        "data.thinking": "template",
    },
    "r1_1p5b_16k": {
        "model.source": "hf:deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
        "sampling.max_new_tokens": 16384,
        "data.prompt_style": "livecodebench_deepseek_r1",
        "data.thinking": "template",
    },
    "qwen3_4b_16k": {
        "model.source": "hf:Qwen/Qwen3-4B",
        "sampling.max_new_tokens": 16384,
        "data.prompt_style": "livecodebench",
        "data.thinking": "on",
    },
    "coder_7b_8k": {
        "model.source": "hf:Qwen/Qwen2.5-Coder-7B-Instruct",
        "sampling.max_new_tokens": 8192,
        "data.prompt_style": "livecodebench_qwen",
        "data.thinking": "template",
    },
}
PUBLISHED = {
    "steps": 105,
    "data.prompts_per_step": 64,
    "data.max_prompt_tokens": 2048,
    "data.max_refills": 0,
    "sampling.samples_per_prompt": 16,
    "sampling.temperature": 1.0,
    "reward.combine": "sum",
    "reward.reward_temperature": None,
    "reward.short_length_tokens": 0,
    "reward.overlong_buffer_tokens": 0,
    "reward.stats_from": "scorer",
    "loss.variant": "grpo",
    "loss.advantage": "grpo",
    "loss.mini_batches": 2,
    "loss.epochs": 1,
    "loss.clip_low": 0.2,
    "loss.clip_high": 0.2,
    "loss.dual_clip": 3.0,
    "loss.aggregation": "token_mean",
    "loss.entropy_coef": 0.0,
    "loss.entropy_target": None,
    "loss.kl_coef": 0.0,
    "loss.kl_estimator": "k3",
    "loss.sampler_correction_cap": None,
    "loss.overlong_filter": False,
    "optim.learning_rate": 1e-6,
    "optim.warmup_steps": 10,
    "optim.weight_decay": 0.1,
    "optim.clip_norm": 1.0,
    "optim.b1": 0.9,
    "optim.b2": 0.999,
    "optim.first_moment_dtype": "float32",
    "model.dtype": "bfloat16",
    "model.lora_rank": 0,
    "eval.data": "livecodebench_v5",
    "eval.every": 10,
    "eval.samples_per_problem": 4,
    "eval.temperature": 0.8,
    "eval.top_p": 1.0,
    "eval.top_k": 0,
    "eval.max_problems": 0,
}
"""As the study has them, or as its framework has them by default."""
OTHERWISE = {"r1_1p5b_8k/tests_passed_3_epochs": {"loss.epochs": 3, "loss.dual_clip": 10.0}}
"""What the runs of sweeps with more than one change have instead."""


def value_of(config: Config, dotted: str):
    for name in dotted.split("."):
        config = getattr(config, name)
    return config


def differing(config: Config, wanted: dict) -> dict:
    """The settings that are not as wanted, with their values."""
    found = {name: value_of(config, name) for name in wanted}
    return {name: value for name, value in found.items() if value != wanted[name]}


def commands_of(text: str, module: str = "train") -> list[list[str]]:
    """The arguments of each command in a text, with files by their whole path."""
    lines = re.findall(rf"python -m rlif_jax\.{module} (.*)", text)
    return [
        line.partition(" #")[0].replace("=configs/", f"={ROOT}/configs/").split() for line in lines
    ]


def test_there_is_a_file_for_each_model_and_method():
    found = {f"{path.parent.name}/{path.stem}" for path in FILES}
    assert found == {f"{model}/{method}" for model in MODELS for method in METHODS} | set(OTHERWISE)
    assert set(MACHINES) == set(MODELS)


def test_names_are_unique():
    names = [read_config_file(path).name for path in FILES]
    assert len(set(names)) == len(names)


@each_file
def test_a_file_has_the_studys_settings(path):
    config = read_config_file(path)
    validate(config, known_rewards())
    model, run = path.parent.name, f"{path.parent.name}/{path.stem}"
    assert differing(config, PUBLISHED | MODELS[model] | OTHERWISE.get(run, {})) == {}
    (method,) = {method for method in METHODS if path.stem.startswith(method)}
    assert config.reward.terms == ((method, 1.0),)
    assert config.name == run.replace("/", "-")


@each_file
def test_a_docstring_has_its_command_and_the_flags_of_each_machine(path):
    text = ast.get_docstring(ast.parse(path.read_text()), clean=False)
    model = path.parent.name
    assert text is not None
    assert commands_of(text) == [[f"--config={path}"]]
    assert f"\n\n{machines.listing(model)}\n\n" in text
    config = read_config_file(path)
    for machine, one in MACHINES[model].items():
        (words,) = re.findall(rf"^    {machine} (.*?)(?=^    \w|^$)", text, re.M | re.S)
        flags = [word for word in words.split() if word.startswith("--")]
        placed = load([f"--config={path}", *flags])
        assert placed == one.applied(config), machine
        validate(placed, known_rewards())
    assert config == machines.first(model).applied(config)


@each_file
def test_steps_50_80_and_105_are_kept(path):
    """The steps that the study starts GRPO from, and those of its tables."""
    config = read_config_file(path)
    saved = [*range(config.checkpoint.every, config.steps, config.checkpoint.every), config.steps]
    assert {50, 80, 105} <= set(saved[-config.checkpoint.keep :])


@each_setting
def test_a_model_fits_its_lengths_and_the_mesh_of_each_machine(setting):
    config, mesh = setting.config, setting.config.mesh
    model = published(config)
    tokens = config.data.max_prompt_tokens + config.sampling.max_new_tokens
    assert tokens <= model.max_positions
    assert check_mesh(model, mesh.fsdp, mesh.tensor, mesh.context) == []
    chips = math.prod(
        map(int, re.findall(r"\d+", setting.machine.replace("h100", "").split(":")[1]))
    )
    assert math.prod(dataclasses.astuple(mesh)) == chips


@each_setting
def test_slots_and_cache_fit_each_machine(setting):
    config, mesh = setting.config, setting.config.mesh
    model, sampling = published(config), config.sampling
    shards = mesh.data * mesh.fsdp * mesh.context
    rows = config.data.prompts_per_step * sampling.samples_per_prompt
    assert sampling.slots % shards == 0
    assert sampling.slots <= rows
    # While it samples, a device holds parameters, two moments, the copy for sampling and the cache.
    state = 12 * param_count(model) / (mesh.fsdp * mesh.context * mesh.tensor) / 2**30
    copy = 2 * param_count(model) / mesh.tensor / 2**30
    cache_gib = 0.8 * (setting.gib_of_chip - state - copy)
    # It has room for a whole response; sequences wait for each other where all are long.
    longest = config.data.max_prompt_tokens + sampling.max_new_tokens
    gib_a_token = kv_bytes_per_token(model) / min(mesh.tensor, model.kv_heads) / 2**30
    assert 1.1 * longest * gib_a_token < cache_gib


@each_setting
def test_the_stored_plan_is_that_of_the_machine_and_fits(setting):
    """After a change of a machine, `python -m benchmarks.paper_plans` plans it anew."""
    plan = json.loads((ROOT / "benchmarks/paper_plans.json").read_text())
    mine = plan[setting.folder][setting.machine]
    assert mine["settings"] == setting.settings
    assert max(mine["gib_held"].values()) < mine["gib_of_chip"] == setting.gib_of_chip
    assert mine["step_s"] == pytest.approx(sum(mine["seconds"].values()), abs=0.5)


def test_no_other_problems_are_trained_on_where_the_file_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = read_config_file(FILES[0]).data.name
    assert name == "jsonl:paper_problems.jsonl"
    with pytest.raises(UserError, match=r"paper_problems\.jsonl"):
        problem_source(name)


def test_the_readme_lists_every_file_once():
    linked = re.findall(r"\]\((\w+/\w+\.py)\)", README)
    assert sorted(linked) == [str(path.relative_to(PAPER)) for path in FILES]


def test_the_readme_has_a_command_for_every_point_of_the_sweeps():
    swept: dict[str, set] = {"temperature": set(), "samples": set(), "epochs": set(), "kl": set()}
    names = []
    for arguments in commands_of(README.split("## Sweeps")[1].split("\n## ")[0]):
        config = load(arguments)
        validate(config, known_rewards())
        names.append(config.name)
        changed = differing(config, PUBLISHED)
        for key, name in (
            ("temperature", "sampling.temperature"),
            ("samples", "sampling.samples_per_prompt"),
            ("kl", "loss.kl_coef"),
        ):
            if name in changed:
                swept[key].add(changed.pop(name))
        epochs = (changed.pop("loss.epochs", None), changed.pop("loss.dual_clip", None))
        if epochs != (None, None):
            swept["epochs"].add((config.reward.terms[0][0], *epochs))
        assert changed == {}
    assert swept == {
        "temperature": {0.8, 1.2},  # and 1.0, as the files have it
        "samples": {8, 12},  # and 16
        "epochs": {  # and 1
            ("tests_passed", 3, 10.0),
            ("self_certainty", 3, None),
            ("token_entropy", 3, None),
        },
        "kl": {0.001, 0.005},  # and 0
    }
    assert len(set(names)) == len(names)


def test_the_readme_starts_grpo_from_the_steps_that_are_kept():
    text = README.split("## From a checkpoint")[1].split("\n## ")[0]
    starts = [load(arguments) for arguments in commands_of(text)]
    sources = {config.model.source for config in starts}
    run = read_config_file(PAPER / "r1_1p5b_8k/probability_disparity.py").folder
    assert sources == {f"{run}/checkpoints/{step}" for step in (50, 80, 105)}
    assert {config.steps for config in starts} == {40}
    assert {config.reward.terms for config in starts} == {(("tests_passed", 1.0),)}


def test_the_readme_evaluates_as_training_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (arguments,) = commands_of(README, "evaluate")
    asked = tyro.cli(Arguments, args=arguments)
    check(asked)
    config = read_config_file(PAPER / "r1_1p5b_8k/self_certainty.py")
    assert asked.model == f"{config.folder}/checkpoints/{config.steps}"
    assert (asked.n, asked.k, asked.temperature) == (8, 8, config.eval.temperature)
    assert (asked.data, asked.prompt_style) == (config.eval.data, config.data.prompt_style)
    assert (asked.dtype, asked.mesh) == (config.model.dtype, config.mesh)
    assert asked.max_new_tokens == config.sampling.max_new_tokens
    assert asked.slots == config.sampling.slots
