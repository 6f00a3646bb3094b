"""What cannot run is refused: types, choices and ranges by their declarations, then the rules."""

import dataclasses
import math
import typing
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import pytest

from rlif_jax.config import (
    Config,
    Data,
    Eval,
    Execution,
    Guard,
    Loss,
    Mesh,
    Model,
    Optim,
    Reward,
    Sampling,
    own_limits,
)
from rlif_jax.config.ranges import FINITE, Range, at_least, between, positive
from rlif_jax.config.validate import (
    as_flag,
    range_problems,
    type_problems,
    validate,
    validate_arguments,
)
from rlif_jax.errors import UserError
from rlif_jax.evaluation.arguments import Arguments
from rlif_jax.rewards import known_rewards
from rlif_jax.sampler.pool_shape import Batching


@dataclass(frozen=True)
class Part:
    count: Annotated[int, at_least(1)] = 1


@dataclass(frozen=True)
class Whole:
    """A field of each kind that the schema has."""

    share: Annotated[float, between(0, 1, open_low=True)] = 0.5
    optional: Annotated[float, positive()] | None = None
    choice: Literal["", "a", "b"] = ""
    on: bool = True
    name: str = ""
    pairs: tuple[tuple[str, Annotated[float, FINITE]], ...] = ()
    two: tuple[float, int] = (0.0, 0)
    part: Part = Part()


@pytest.mark.parametrize(
    ("changes", "type_problem", "range_problem"),
    [
        ({"share": 1}, None, None),
        ({"share": 0.0}, None, "share=0.0 must be in (0, 1]"),
        ({"share": math.nan}, None, "share=nan must be in (0, 1]"),
        ({"share": "1"}, "share='1' must be of type float", None),
        ({"share": True}, "share=True must be of type float", None),
        ({"optional": 1}, None, None),
        ({"optional": -1.0}, None, "optional=-1.0 must be positive"),
        ({"optional": math.inf}, None, "optional=inf must be a finite number"),
        ({"optional": "no"}, "optional='no' must be of type float or None", None),
        ({"choice": "c"}, None, "choice='c' is invalid; choose one of '', a, b"),
        ({"choice": ["a"]}, None, "choice=['a'] is invalid; choose one of '', a, b"),
        ({"on": 1}, "on=1 must be of type bool", None),
        ({"name": None}, "name=None must be of type str", None),
        ({"pairs": (("a", 1), ("b", 2.5))}, None, None),
        (
            {"pairs": [("a", 1.0)]},
            "pairs=[('a', 1.0)] must be of type tuple[tuple[str, float], ...]",
            None,
        ),
        (
            {"pairs": (("a", 1.0, 2.0),)},
            "pairs=(('a', 1.0, 2.0),) must be of type tuple[tuple[str, float], ...]",
            None,
        ),
        (
            {"pairs": (("a", 1.0), ("b", math.nan))},
            None,
            "pairs=(('a', 1.0), ('b', nan)) holds nan, which must be a finite number",
        ),
        ({"two": (1.0, 2)}, None, None),
        ({"two": (1.0,)}, "two=(1.0,) must be of type tuple[float, int]", None),
        ({"two": (1.0, 2.0)}, "two=(1.0, 2.0) must be of type tuple[float, int]", None),
        ({"part": Part(0)}, None, "part.count=0 must be at least 1"),
        ({"part": Part(2.0)}, "part.count=2.0 must be of type int", None),
        ({"part": Whole()}, "must be of type Part", None),
        ({"part": {"count": 1}}, "part={'count': 1} must be of type Part", None),
    ],
    ids=str,
)
def test_a_value_is_held_against_its_declaration(changes, type_problem, range_problem):
    whole = replace(Whole(), **changes)
    for found, wanted in (
        (type_problems(whole), type_problem),
        (range_problems(whole), range_problem),
    ):
        assert len(found) == (wanted is not None)
        assert wanted is None or found[0].endswith(wanted)


def test_arguments_are_spelled_as_flags():
    @dataclass(frozen=True)
    class Flags:
        max_new_tokens: Annotated[int, at_least(1)] = 0
        part: Part = Part(-3)

    assert range_problems(Flags(), as_flag) == [
        "--max-new-tokens 0 must be at least 1",
        "--part.count -3 must be at least 1",
    ]
    with pytest.raises(UserError) as error:
        validate_arguments(Flags(), lambda flags: [f"rule of {flags.part.count}"])
    assert str(error.value) == (
        "--max-new-tokens 0 must be at least 1; --part.count -3 must be at least 1; rule of -3."
    )
    with pytest.raises(UserError) as error:  # a rule could fail on a value of another type
        validate_arguments(Flags(1, Part("x")), lambda flags: [1 / 0])
    assert str(error.value) == "--part.count 'x' must be of type int."


@pytest.mark.parametrize(
    ("range_", "inside", "outside"),
    [
        (at_least(1), (1, 1.5, 10**400), (0, 0.999, -math.inf, math.inf, math.nan)),
        (positive(), (5e-324, 1), (0, -1, math.inf, math.nan)),
        (positive(infinite=True), (1, math.inf), (0, -math.inf, math.nan)),
        (between(0, 1), (0, 0.5, 1), (-1e-9, 1.0000001, math.inf, math.nan)),
        (between(0, 1, open_low=True), (1e-9, 1), (0, 1.1, -math.inf)),
        (between(0, 1, open_high=True), (0, 0.999), (-0.1, 1, math.inf)),
        (FINITE, (-1e300, 0, 10**400), (math.inf, -math.inf, math.nan)),
    ],
    ids=lambda value: value.words if isinstance(value, Range) else "",
)
def test_the_ends_of_ranges(range_, inside, outside):
    assert [value for value in inside if range_.problem(value)] == []
    assert [value for value in outside if not range_.problem(value)] == []


def declared(kind, prefix=""):
    """(dotted name, declared type) of every field of a section and of the sections in it."""
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        if dataclasses.is_dataclass(hint):
            yield from declared(hint, f"{prefix}{name}.")
        else:
            yield prefix + name, hint


@pytest.mark.parametrize("kind", [Config, Arguments, Batching])
def test_every_number_has_a_range(kind):
    def bare(hint):
        if typing.get_origin(hint) is Annotated:
            return not any(isinstance(one, Range) for one in hint.__metadata__)
        inner = typing.get_args(hint)
        return hint in (int, float) or any(map(bare, inner))

    assert {name for name, hint in declared(kind) if bare(hint)} == set()


def test_defaults_are_in_their_ranges():
    for section in (Config(), own_limits(), Arguments(), Batching()):
        assert type_problems(section) == range_problems(section) == []


@pytest.mark.parametrize("slots", [np.int64(4), 4])
def test_numpy_numbers_are_held_against_ranges(slots):
    assert Batching(slots=slots).slots == 4
    with pytest.raises(UserError, match=r"slots=.*0.* must be at least 1"):
        Batching(slots=slots - 4)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"optim": Optim(learning_rate=math.nan)}, "optim.learning_rate=nan must be at least 0"),
        ({"optim": Optim(eps=math.inf)}, "optim.eps=inf must be a finite number"),
        ({"optim": Optim(b2=1.0)}, "optim.b2=1.0 must be in [0, 1)"),
        ({"loss": Loss(dual_clip=math.nan)}, "loss.dual_clip=nan must be a finite number"),
        ({"loss": Loss(aggregation="mean")}, "loss.aggregation='mean' is invalid; choose one of"),
        ({"model": Model(dtype="float16")}, "model.dtype='float16' is invalid; choose one of"),
        ({"reward": Reward(reward_temperature=0.0)}, "reward.reward_temperature=0.0 must be pos"),
        (
            {"reward": Reward(terms=(("random", math.inf),))},
            "reward.terms=(('random', inf),) holds inf, which must be a finite number",
        ),
        ({"execution": Execution(time_limit_s=math.nan)}, "time_limit_s=nan must be positive"),
        ({"execution": Execution(memory_mb=63)}, "execution.memory_mb=63 must be at least 64"),
        ({"sampling": Sampling(slots=64.0)}, "sampling.slots=64.0 must be of type int"),
        ({"steps": True}, "steps=True must be of type int"),
        ({"data": Eval()}, "must be of type Data"),
    ],
)
def test_what_a_declaration_does_not_allow_is_refused(changes, problem):
    with pytest.raises(UserError) as error:
        validate(Config(**changes), known_rewards())
    assert problem in str(error.value)
    assert str(error.value).count("\n") == 1  # and nothing else


def test_no_time_limit_but_the_problems_own():
    validate(Config(execution=own_limits()), known_rewards())


def test_all_problems_are_reported_at_once():
    config = Config(
        steps=0,
        name="a/b",
        run_dir="s3://bucket/run",
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
        "run_dir='s3://bucket/run' is neither a local folder nor gs://BUCKET/PATH",
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
            Config(
                data=Data(max_refills=2),
                sampling=Sampling(samples_per_prompt=1),
                loss=Loss(advantage="none"),
            ),
            "data.max_refills=2 replaces groups whose rewards are equal",
        ),
        (
            Config(loss=Loss(mini_batches=3)),
            "data.prompts_per_step=8 is not divisible by loss.mini_batches=3; choose one of [1, 2",
        ),
        (
            Config(loss=Loss(tokens_per_micro_batch=478)),
            "loss.tokens_per_micro_batch=478 is less than the longest sequence, "
            "data.max_prompt_tokens + sampling.max_new_tokens - 1 = 479; use at least that, or 0",
        ),
        (
            Config(data=Data(prompt_style="llama")),
            "data.prompt_style='llama' is invalid; choose one of chat, live",
        ),
        (
            Config(data=Data(thinking="yes")),
            "data.thinking='yes' is invalid; choose one of template, on, off",
        ),
        (Config(sampling=Sampling(slots=0)), "sampling.slots=0 must be at least 1"),
        (Config(sampling=Sampling(page=0)), "sampling.page=0 must be at least 1"),
        (Config(sampling=Sampling(cache_gib=-1.0)), "sampling.cache_gib=-1.0 must be at least 0"),
        (
            Config(sampling=Sampling(weights_dtype="int8"), model=Model(dtype="bfloat16")),
            "sampling.weights_dtype='int8' samples from another policy than the trainer's; "
            "weigh each token by the ratio of the two with loss.sampler_correction_cap=2.0",
        ),
        (
            Config(sampling=Sampling(weights_dtype="bfloat16")),
            "sampling.weights_dtype='bfloat16' samples from another policy",
        ),
        (
            Config(sampling=Sampling(cache_dtype="int8")),
            "sampling.cache_dtype='int8' is invalid; choose one of '', float32, bfloat16",
        ),
        (
            Config(data=Data(mix=(("starter", 0.0),))),
            "data.mix=(('starter', 0.0),) holds 0.0, which must be positive",
        ),
        (Config(data=Data(mix=(("a", 1.0), ("a", 2.0)))), "data.mix names 'a' twice"),
        (Config(data=Data(graded="g", pass_rates=(0.9, 0.1))), "pass_rates=(0.9, 0.1) must be two"),
        (Config(data=Data(pass_rates=(0.1, 0.9))), "data.pass_rates=(0.1, 0.9) needs data.graded"),
        (Config(data=Data(min_tests=-1)), "data.min_tests=-1 must be at least 0"),
        (Config(reward=Reward(terms=())), "reward.terms is empty"),
        (Config(reward=Reward(terms=(("random", 1.0),) * 2)), "names a reward twice"),
        (
            Config(sampling=Sampling(slots=2), mesh=Mesh(data=2, context=2)),
            "sampling.slots=2 is less than mesh.data * mesh.fsdp * mesh.context = 4: each shard",
        ),
        (
            Config(reward=Reward(combine="normalise_then_sum")),
            "loss.advantage=grpo normalises twice",
        ),
        (
            Config(reward=Reward(reward_temperature=2.0, stats_from="sampler")),
            "needs reward.stats_from=scorer",
        ),
        (
            Config(reward=Reward(overlong_buffer_tokens=16)),
            "reward.overlong_buffer_tokens=16 and reward.overlong_penalty=0.0 work together",
        ),
        *(
            (
                Config(reward=Reward(**{name: 0.5 if name.endswith("penalty") else 4})),
                "and reward.short_length_penalty=",
            )
            for name in ("short_length_tokens", "short_length_penalty")
        ),
        (
            Config(reward=Reward(fuzz_inputs=20)),
            "reward.fuzz_inputs=20 is read only with reward.vote_inputs=fuzz; set that, or leave",
        ),
        (
            Config(loss=Loss(reference_on_host=True)),
            "loss.reference_on_host=True moves the anchor of the KL term, and loss.kl_coef=0.0 has",
        ),
        (
            Config(
                guard=Guard(action="switch", terms=(("codet", 1.0),)),
                reward=Reward(terms=(("random", 1.0),)),
            ),
            "guard.terms names codet, for which the policy has to write tests",
        ),
        (
            Config(reward=Reward(overlong_penalty=1.0)),
            "reward.overlong_buffer_tokens=0 and reward.overlong_penalty=1.0 work together",
        ),
        (
            Config(
                reward=Reward(overlong_buffer_tokens=65, overlong_penalty=1.0),
                sampling=Sampling(max_new_tokens=64),
            ),
            "overlong_buffer_tokens=65 is more than sampling.max_new_tokens=64",
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
        Config(sampling=one, loss=Loss(advantage="none"), eval=Eval(every=0)),
        known_rewards(),
    )
    with pytest.raises(UserError, match="group of one"):
        validate(
            replace(
                Config(sampling=one, loss=Loss(advantage="none")),
                reward=Reward(combine="normalise_then_sum"),
            ),
            known_rewards(),
        )


def test_what_a_collapse_brings_may_be_set():
    guard = Guard(action="switch", terms=(("evol", 1.0),))
    terms = (("random", 1.0),)
    validate(Config(guard=guard, reward=Reward(terms=terms, similarity="syntax")), known_rewards())
    with pytest.raises(UserError, match=r"reward.similarity=syntax is read by the reward evol"):
        validate(Config(reward=Reward(terms=terms, similarity="syntax")), known_rewards())
