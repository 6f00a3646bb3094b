"""What certainty terms read, and how it adds up, by hand."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.evidence import evidence

from rlif_jax.batch import Evidence
from rlif_jax.config import Config, Reward
from rlif_jax.config.spans import Span
from rlif_jax.config.validate import validate
from rlif_jax.errors import UserError
from rlif_jax.rewards import known_rewards
from rlif_jax.rewards.registry import find_reward

NAN = np.nan
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], bool)
CERTAIN = [[5.0, 1.0, 2.0, 0.0, 7.0], [3.0, 2.0, 4.0, NAN, NAN]]
CODE = np.array([[0, 1, 1, 0, 0], [0, 0, 0, 0, 0]], bool)


def read(read_BC=None, name="self_certainty", group=1, **settings) -> np.ndarray:
    ev: Evidence = evidence(
        group, outcomes=None, mask=MASK, self_certainty=CERTAIN, entropy=CERTAIN
    )
    ev = replace(ev, settings=Reward(**settings), read=read_BC)
    return np.asarray(find_reward(name)(ev))


@pytest.mark.parametrize(
    ("over", "want"),
    [
        ("response", [3.0, 3.0]),
        ("tail(1)", [7.0, 4.0]),
        ("tail(2)", [3.5, 3.0]),
        ("tail(99)", [3.0, 3.0]),
        ("lowest_window(1)", [0.0, 2.0]),
        ("lowest_window(2)", [1.0, 2.5]),  # 2, 0 and 3, 2
        ("lowest_window(3)", [1.0, 3.0]),  # 1, 2, 0 and all
        ("lowest_window(4)", [2.0, 3.0]),  # 5, 1, 2, 0; the second row is shorter
    ],
)
def test_tails_and_windows(over, want):
    np.testing.assert_allclose(read(over=over), want)


@pytest.mark.parametrize(
    ("settings", "want"),
    [
        ({"aggregate": "sum"}, [15.0, 9.0]),
        ({"aggregate": "min"}, [0.0, 2.0]),
        ({"aggregate": "quantile", "quantile": 0.5}, [2.0, 3.0]),
        ({"aggregate": "quantile", "quantile": 0.25}, [1.0, 2.5]),
        ({"aggregate": "quantile", "quantile": 1.0}, [7.0, 4.0]),
        ({"aggregate": "sum", "over": "tail(2)"}, [7.0, 6.0]),
    ],
)
def test_how_tokens_add_up(settings, want):
    np.testing.assert_allclose(read(**settings), want)


def test_the_least_certain_tokens_are_those_of_most_entropy():
    """Terms turn entropy into certainty before they look for the lowest."""
    assert read(name="token_entropy", aggregate="min").tolist() == [-7.0, -4.0]
    assert read(name="token_entropy", over="lowest_window(1)").tolist() == [-7.0, -4.0]


def test_sums_stay_sums():
    assert read(name="token_entropy_sum", over="tail(2)", aggregate="min").tolist() == [-7.0, -6.0]


def test_only_the_part_is_read():
    assert read(CODE, over="code", group=2)[0] == 1.5
    assert read(CODE, over="code", aggregate="min", group=2)[0] == 1.0


def test_a_row_without_the_part_has_the_least_of_its_group():
    """Where nobody has it all have 0: there is nothing to gain by leaving it out."""
    assert read(CODE, over="code", group=2).tolist() == [1.5, 1.5]
    assert read(CODE, over="code", group=1).tolist() == [1.5, 0.0]
    assert read(CODE & False, over="code", group=2).tolist() == [0.0, 0.0]


@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=12),
    st.integers(1, 14),
)
def test_the_lowest_window_is_the_lowest(values, width):
    mask = np.ones((1, len(values)), bool)
    ev = evidence(1, outcomes=None, mask=mask, self_certainty=[values])
    ev = replace(ev, settings=Reward(over=f"lowest_window({width})"))
    got = float(find_reward("self_certainty")(ev)[0])
    width = min(width, len(values))
    means = [np.mean(values[i : i + width]) for i in range(len(values) - width + 1)]
    assert got == pytest.approx(min(means), rel=1e-5, abs=1e-2)


@pytest.mark.parametrize("over", ["tail", "tail(0)", "tail(-3)", "head(3)", "Code", ""])
def test_parts_that_there_are_not(over):
    with pytest.raises(ValueError):
        Span.parse(over)
    with pytest.raises(UserError, match=r"reward\.over=.* must be one of response, code, thinking"):
        validate(Config(reward=Reward(over=over)), known_rewards())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quantile": 0.1}, "reward.quantile=0.1 is read only with reward.aggregate=quantile"),
        ({"aggregate": "quantile"}, "reward.aggregate=quantile needs reward.quantile"),
    ],
)
def test_a_quantile_and_its_size_go_together(settings, message):
    with pytest.raises(UserError, match=message):
        validate(Config(reward=Reward(**settings)), known_rewards())


def test_values_are_float32():
    assert find_reward("self_certainty")(evidence(2)).dtype == jnp.float32
