"""Rewards by name. A reward is a function `fn(ev: Evidence) -> float32 [B]`, larger is better."""

from collections.abc import Callable
from typing import Literal, get_args

from rlif_jax.batch import Array, Evidence
from rlif_jax.errors import UserError

RewardFunction = Callable[[Evidence], Array]
Needs = Literal["stats", "exec", "none"]

_BY_NAME: dict[str, RewardFunction] = {}


def reward(
    needs: Needs, all_tests: bool = False, teacher: bool = False
) -> Callable[[RewardFunction], RewardFunction]:
    """Register a function as a reward under its own name, and declare what it reads.

    `needs` "stats": `ev.stats`, a certainty term; "exec": `ev.outcomes`, so programs have to run;
    "none": neither. `all_tests` declares that outcomes after the first failing test are read as
    well, so that the judge runs all tests; `teacher` that `ev.teacher` is read, so that a teacher
    samples as well.

    Raises:
        UserError: `needs` is invalid, `all_tests` or `teacher` is set without needs="exec", or
            another function has the name.
    """
    if needs not in get_args(Needs):
        raise UserError(
            f"@reward(needs={needs!r}) is not one of {', '.join(map(repr, get_args(Needs)))}: "
            'write "stats" for a reward that reads ev.stats, "exec" for one that reads ev.outcomes.'
        )
    if all_tests and needs != "exec":
        raise UserError(
            f'@reward(needs={needs!r}, all_tests=True) is invalid, since only needs="exec" runs '
            'tests: write needs="exec", or leave all_tests out.'
        )

    if teacher and needs != "exec":
        raise UserError(
            f'@reward(needs={needs!r}, teacher=True) is invalid, since only needs="exec" runs the '
            'programs of a teacher: write needs="exec", or leave teacher out.'
        )

    def register(fn: RewardFunction) -> RewardFunction:
        known = _BY_NAME.get(fn.__name__, fn)
        if (known.__module__, known.__qualname__) != (fn.__module__, fn.__qualname__):
            raise UserError(
                f"There are two rewards called {fn.__name__!r}, one in {known.__module__} and one "
                f"in {fn.__module__}: rename the second."
            )
        fn.needs = needs
        fn.all_tests = all_tests
        fn.teacher = teacher
        _BY_NAME[fn.__name__] = fn
        return fn

    return register


def known_rewards() -> tuple[str, ...]:
    """Names of all rewards, sorted."""
    return tuple(sorted(_BY_NAME))


def executing_rewards() -> tuple[str, ...]:
    """Names of the rewards that read the outcomes of tests, sorted."""
    return tuple(name for name in known_rewards() if _BY_NAME[name].needs == "exec")


def find_reward(name: str) -> RewardFunction:
    """The reward of that name.

    Raises:
        UserError: the name is unknown.
    """
    if name not in _BY_NAME:
        raise UserError(
            f"Unknown reward {name!r} in reward.terms: known are {', '.join(known_rewards())}. "
            "A new one is a function decorated with @rlif_jax.rewards.reward."
        )
    return _BY_NAME[name]
