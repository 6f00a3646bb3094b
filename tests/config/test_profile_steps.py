"""Which steps a run traces, and what is refused before it starts."""

import pytest

from rlif_jax.config import Config, Profile
from rlif_jax.config.validate import validate
from rlif_jax.errors import UserError
from rlif_jax.rewards import known_rewards


@pytest.mark.parametrize(
    "text, traced", [("", []), ("3:5", [3, 4, 5]), ("1:1", [1]), ("10:10", [10])]
)
def test_both_ends_are_traced(text, traced):
    profile = Profile(steps=text)
    validate(Config(steps=10, profile=profile), known_rewards())
    assert list(profile.traced) == traced


@pytest.mark.parametrize(
    "text, said",
    [
        ("3", "'3' is not FROM:TO"),
        ("3:4:5", "'3:4:5' is not FROM:TO"),
        ("a:b", "'a:b' is not FROM:TO"),
        (":", "':' is not FROM:TO"),
        ("0:2", "profile.steps=0:2 names no step"),
        ("-1:2", "profile.steps=-1:2 names no step"),
        ("5:3", "profile.steps=5:3 names no step"),
        ("9:11", "profile.steps=9:11 ends after the run, which has steps=10"),
    ],
)
def test_steps_that_are_not_the_runs_are_refused(text, said):
    with pytest.raises(UserError, match=said):
        validate(Config(steps=10, profile=Profile(steps=text)), known_rewards())
