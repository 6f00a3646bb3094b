"""Training and evaluation share the declarations of what they have in common."""

import ast
import dataclasses
import inspect

import pytest
from support import ROOT

from rlif_jax.config import (
    Config,
    Data,
    Eval,
    EvalOptions,
    Filters,
    Model,
    Pool,
    Precision,
    ProblemOptions,
    PromptOptions,
    Sampling,
    SamplingOptions,
    load,
)
from rlif_jax.evaluation.arguments import Arguments
from rlif_jax.sampler.pool_shape import Batching

SHARED = (
    (Precision, Model),
    (ProblemOptions, Data),
    (SamplingOptions, Sampling),
    (EvalOptions, Eval),
)


def names(kind) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


@pytest.mark.parametrize(("shared", "section"), SHARED, ids=lambda kind: kind.__name__)
def test_training_and_evaluation_inherit_what_they_share(shared, section):
    assert issubclass(section, shared) and issubclass(Arguments, shared)
    again = {
        (kind.__name__, name)
        for kind in (section, Arguments)
        for name in inspect.get_annotations(kind)
        if name in names(shared)
    }
    # An evaluation takes longer prompts: it has no gradient to hold.
    assert again <= {("Arguments", "max_prompt_tokens")}


def test_defaults():
    assert (Data().max_prompt_tokens, Arguments().max_prompt_tokens) == (384, 2048)
    assert (Sampling().temperature, Eval().temperature, Arguments().temperature) == (1.0, 0.8, 0.8)


def test_a_part_of_a_section_is_no_longer_that_section():
    """Filters are compared with each other, and prompts are looked up by their options."""
    part = Filters.of(Eval(top_k=3, min_p=0.5, temperature=0.2))
    assert type(part) is Filters and part == Filters(3, 1.0, 0.5)
    asked = Arguments(slots=2, page=8, cache_dtype="float32", cache_gib=1.5)
    assert Batching.of(asked) == Batching(slots=2, page=8, cache_dtype="float32", cache_gib=1.5)
    assert Batching.of(Sampling()) == Batching()


@pytest.mark.parametrize(
    ("kind", "room"),
    [(Pool, "sampler"), (Filters, "sampler"), (PromptOptions, "data")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_is_passed_on_as_a_part_is_read_where_it_goes(kind, room):
    """`Section.of` copies whole sections, which says nothing about each of their fields."""
    read = {
        node.attr
        for path in (ROOT / "rlif_jax" / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
    }
    assert set(names(kind)) - read == set()


def test_flags_are_the_dotted_names_of_inherited_fields():
    config = load(
        [
            f"--config={ROOT / 'configs/random.py'}",
            "--sampling.slots=4",
            "--eval.top-k=3",
            "--data.max-prompt-tokens=99",
            "--model.dtype=bfloat16",
        ]
    )
    assert isinstance(config, Config)
    assert (config.sampling.slots, config.eval.top_k) == (4, 3)
    assert (config.data.max_prompt_tokens, config.model.dtype) == (99, "bfloat16")
