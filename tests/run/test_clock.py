"""Where the seconds went, by a clock that passes only when told."""

import pytest

from rlif_jax.run.clock import PHASES, Clock


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def spend(clock: Clock, time: Time, **seconds: float) -> None:
    for phase, length in seconds.items():
        with clock(phase):
            time.now += length


def test_every_second_is_in_one_phase():
    time = Time()
    clock = Clock(now=time)
    spend(clock, time, data=1.0, sample=2.0, update=4.0)
    time.now += 8.0  # outside of every phase
    with clock("record"):
        time.now += 16.0
        spend(clock, time, evaluate=32.0)  # which is no part of the phase around it
        time.now += 64.0
    with pytest.raises(KeyError), clock("sync"):
        time.now += 128.0
        raise KeyError
    lap = clock.lap()
    expected = {"data": 1, "sample": 2, "update": 4, "other": 8, "record": 80, "evaluate": 32}
    expected["sync"] = 128
    assert lap.pop("time/step") == sum(expected.values()) == time.now - 100
    assert lap == {f"time/{phase}": expected.get(phase, 0) for phase in PHASES}


def test_what_follows_a_record_counts_towards_the_next():
    time = Time()
    clock = Clock(now=time)
    spend(clock, time, sample=1.0, update=4.0)
    speed = clock.throughput(10, 20)
    assert speed == {
        "throughput/sample_tokens_per_s": 10.0,
        "throughput/train_tokens_per_s": 5.0,
    }
    assert clock.lap()["time/step"] == 5
    spend(clock, time, save=2.0, sample=1.0)
    lap = clock.lap()
    assert (lap["time/save"], lap["time/sample"], lap["time/step"]) == (2, 1, 3)


def test_an_interrupted_lap_is_continued():
    time = Time()
    clock = Clock(now=time)
    spend(clock, time, sample=1.0, evaluate=2.0)
    stopped = clock.lap()
    time.now += 1000.0  # nobody ran
    clock = Clock(stopped, time)
    spend(clock, time, evaluate=5.0)
    lap = clock.lap()
    assert (lap["time/sample"], lap["time/evaluate"], lap["time/step"]) == (1, 7, 8)
