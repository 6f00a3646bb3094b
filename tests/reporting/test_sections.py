"""What a page says of runs: outcomes, collapses and times."""

import pytest
from support.reported_runs import arc, methods_in, write_run

from rlif_jax.reporting.recorded_runs import methods_of, read_runs
from rlif_jax.reporting.sections import Strip, summary, timeline, times


@pytest.fixture
def methods(tmp_path):
    return methods_in(tmp_path)


def test_runs_that_have_not_ended_are_compared_with_nothing(tmp_path):
    """Their last evaluation is another step's than the control's end."""
    folders = [
        write_run(tmp_path / f"{name}-s{seed}", arc(0.3, end), seed=seed, steps=steps, **reward)
        for name, end, steps, reward in (
            ("killed", 0.3, 40, {"reward__terms": [["length", 1.0]]}),
            ("random", 0.1, 20, {"reward__terms": [["random", 1.0]]}),
        )
        for seed in range(2)
    ]
    killed, _ = summary(methods_of(read_runs(folders)), "random", 0.02)
    assert (killed.state, killed.verdict) == ("2 stopped at step 20 of 40", "not finished")
    assert killed.end.startswith("30.0")


def test_the_summary_says_what_became_of_each_method(methods):
    certain, random, bare = summary(methods, "random", 0.02)
    assert (certain.name, certain.runs, certain.state) == ("certain", 3, "3 finished, 20 steps")
    assert certain.before == "10.0 (10.0 to 10.0)"
    assert certain.best == "30.0 (30.0 to 30.0) at 5"
    assert certain.end == "2.1 (1.9 to 2.3)"
    assert (certain.length, certain.entropy) == ("50 → 5", "0.80 → 0.08")
    assert certain.collapse == "steps 14, 14, 14"
    assert certain.verdict == "loses 7.9 (7.7 to 8.1) points against its start"
    assert certain.story == (
        "certain: held-out accuracy was 10.0 percent at first, 30.0 at best and 2.1 at the end. "
        "Signs of a collapse in 3 of 3 runs, told at step 14: responses have become short "
        "and certain."
    )
    assert random.end == "12.0 (6.0 to 24.0)"  # one run: the interval over problems
    assert random.story == (
        "random: held-out accuracy was 10.0 percent at first and 12.0 at the end. There were no "
        "signs of a collapse."
    )
    assert (bare.before, bare.verdict, bare.state) == (
        "not evaluated",
        "",
        "stopped at step 4 of 9",
    )
    assert bare.length == "not recorded"
    assert "of the responses in training 15.0 percent passed in the first 2 steps and 35.0" in (
        bare.story
    )


def test_the_timeline_shows_when_signs_began_and_when_they_told(methods):
    strips = timeline([run for method in methods for run in method.runs])
    assert strips[0] == Strip(
        "certain-s0",
        [("healthy", 60.0), ("suspicious", 5.0), ("told", 35.0)],
        "responses have become short and certain: signs since step 13, told at step 14",
    )
    assert strips[3] == Strip("random", [("healthy", 100.0)], "no signs")
    assert strips[4].parts == [("healthy", 20.0)]  # of the longest run's steps


def test_a_return_to_a_checkpoint_is_an_event(tmp_path):
    metrics = arc(0.3, 0.1, collapses=True)
    metrics[14]["collapse/returned_to"] = 10.0
    (strip,) = timeline(read_runs([write_run(tmp_path / "one", metrics)]))
    assert strip.events.endswith("told at step 14; at step 14 back to checkpoint 10")


def test_passing_signs(tmp_path):
    metrics = arc(0.3, 0.1)
    metrics[7]["collapse/state"] = 1.0
    (strip,) = timeline(read_runs([write_run(tmp_path / "one", metrics)]))
    assert strip.events == "passing signs at step 7"


def test_rewards_that_are_no_longer_right_are_an_event(tmp_path):
    right = enumerate((0.5, 0.01, 0.009, 0.2), 1)
    metrics = [{"step": step, "exec/reward_accuracy": share} for step, share in right]
    (strip,) = timeline(read_runs([write_run(tmp_path / "run", metrics)]))
    assert strip.events == "fewer than 1% of the rewards are right at step 3"


def test_times_are_shares_of_a_step(methods):
    first, second = times(methods)  # the bare one has recorded none
    assert (first.name, first.seconds) == ("certain", 4.0)
    assert dict(first.shares) == {
        **dict.fromkeys(("score", "execute", "reward", "evaluate", "save", "sync", "record"), 0.0),
        **{"sample": 0.5, "update": 0.25, "other": 0.25},
    }
    assert second.name == "random"
