"""Signs of a collapse, by hand."""

import math

import pytest

from rlif_jax.run.monitor import COLLAPSED, HEALTHY, SUSPICIOUS, Monitor, signs

HEALTHY_STEP = {
    "rollout/response_length": 400.0,
    "rollout/truncated_fraction": 0.1,
    "rollout/repetition_ratio": 0.2,
    "stats/token_entropy": 1.0,
    "reward/mean": 0.5,
    "exec/no_code": 0.1,
    "exec/compile_error": 0.0,
}
FIRST = [HEALTHY_STEP | {"reward/mean": reward} for reward in (0.4, 0.5, 0.6)]  # deviation 0.1


def after(**changes: float) -> dict[str, float]:
    """The signs when three further steps have these values, named by what follows the slash."""
    full = {name.partition("/")[2]: name for name in HEALTHY_STEP}
    now = HEALTHY_STEP | {full[name]: value for name, value in changes.items()}
    return signs([*FIRST, now, now, now], first_steps=3)


def test_nothing_is_said_of_the_first_steps():
    assert signs([*FIRST, HEALTHY_STEP, HEALTHY_STEP], first_steps=3) == {}
    assert set(after()) == {"short", "entropy", "limit", "divergence"}
    assert max(after().values()) <= 0.2  # the limit: 0.1 of 0.5 cut off, and no more repetition


@pytest.mark.parametrize(
    ("sign", "changes", "score"),
    [
        ("short", {"response_length": 120.0}, 1.0),  # 120 nats of 400
        ("short", {"response_length": 240.0, "token_entropy": 0.5}, 1.0),
        ("short", {"response_length": 72.0, "token_entropy": 0.5}, 2.0),  # 0.09 of them
        ("short", {"response_length": 4000 / 3}, -1.0),
        ("entropy", {"token_entropy": 1 / 3}, 1.0),
        ("entropy", {"token_entropy": 1 / 9}, 2.0),
        ("limit", {"truncated_fraction": 0.5, "repetition_ratio": 1.0}, 1.0),
        ("limit", {"truncated_fraction": 1.0, "repetition_ratio": 0.6}, 1.0),  # 0.4 of 0.8
        ("limit", {"truncated_fraction": 1.0, "repetition_ratio": 0.2}, 0.0),  # long, not repeated
        ("divergence", {"mean": 0.6, "compile_error": 0.9}, 1.0),  # one deviation above 0.5
        ("divergence", {"mean": 0.9, "no_code": 0.35}, 1.0),  # a quarter more than at best
        ("divergence", {"mean": 0.5, "no_code": 0.9}, 0.0),  # worse, and not rewarded for it
    ],
)
def test_the_threshold_of_each_sign(sign, changes, score):
    assert after(**changes)[sign] == pytest.approx(score, abs=1e-9)


def test_the_last_three_steps_are_averaged_and_the_first_ones_have_their_median():
    steps = [{"stats/token_entropy": value} for value in (9.0, 1.0, 0.9, 0.2, 0.3, 0.5)]
    # Median 1 of the first three; mean 1/3 of the last three.
    assert signs(steps, first_steps=3) == {"entropy": pytest.approx(1.0)}


def test_a_stream_that_is_not_recorded_gives_no_sign():
    steps = [{"stats/token_entropy": 1.0, "reward/mean": 1.0}] * 6
    assert signs(steps, first_steps=3) == {"entropy": 0.0}


def test_equal_rewards_at_first_and_nothing_left_of_a_stream_are_finite():
    steps = [HEALTHY_STEP] * 3 + [
        HEALTHY_STEP | {"reward/mean": 0.6, "exec/no_code": 1.0, "stats/token_entropy": 0.0}
    ] * 3
    scores = signs(steps, first_steps=3)
    assert scores["divergence"] == pytest.approx(0.9 / 0.25)
    assert scores["entropy"] == pytest.approx(math.log(0.05) / math.log(1 / 3))


def test_a_policy_that_is_certain_from_the_start_gives_no_sign_by_chance():
    """Below 0.05 nats all is one: what follows 0.06 is no fall, a third of the length still is."""
    sure = HEALTHY_STEP | {"stats/token_entropy": 0.06}
    surer = sure | {"stats/token_entropy": 0.005}
    scores = signs([sure] * 3 + [surer] * 3, first_steps=3)
    assert scores["entropy"] == pytest.approx(math.log(0.05 / 0.06) / math.log(1 / 3))
    assert scores["short"] == pytest.approx(math.log(0.05 / 0.06) / math.log(0.3))
    shorter = surer | {"rollout/response_length": 100.0}
    assert signs([sure] * 3 + [shorter] * 3, first_steps=3)["short"] > 1


def test_signs_in_a_row_are_a_collapse_and_stay_one():
    monitor = Monitor(first_steps=3, patience=2)
    readings = [monitor.seen(n, step) for n, step in enumerate(FIRST, 1)]
    assert [r.state for r in readings] == [HEALTHY] * 3
    assert readings[-1].metrics() == {"collapse/score": 0.0, "collapse/state": 0.0}
    certain = HEALTHY_STEP | {"stats/token_entropy": 0.01}
    # With one of three steps certain the mean is 0.68, with two 0.37, above a third.
    states = [monitor.seen(n, certain).state for n in (4, 5, 6)]
    assert states == [HEALTHY, HEALTHY, SUSPICIOUS]
    # One healthy step lifts the mean to 0.37: the row is broken, and no collapse is told.
    assert monitor.seen(7, HEALTHY_STEP).state == HEALTHY
    found = [monitor.seen(n, certain) for n in (8, 9, 10, 11)]
    assert [r.state for r in found] == [HEALTHY, HEALTHY, SUSPICIOUS, COLLAPSED]
    assert (found[-1].sign, found[-1].since) == ("entropy", 10)
    assert monitor.collapse == found[-1]
    back = [monitor.seen(n, HEALTHY_STEP) for n in range(12, 20)][-1]
    assert (back.state, back.sign, back.since) == (COLLAPSED, "entropy", 10)
    assert back.score < 1


def test_rewards_that_are_normalised_in_their_groups_do_not_rise():
    """Their mean is 0 but for rounding, whatever becomes of the programs."""
    for spread in (0.0, 1e-9):
        first = [HEALTHY_STEP | {"reward/mean": sign * spread} for sign in (-1, 0, 1)]
        broken = HEALTHY_STEP | {"reward/mean": 2e-8, "exec/no_code": 0.9}
        assert signs([*first, *[broken] * 3], first_steps=3)["divergence"] < 0.1
