"""Where the seconds went, by a clock that passes only when told."""

import pytest

from rlif_jax.run.clock import PHASES, Watch


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def spend(watch: Watch, clock: Clock, **seconds: float) -> None:
    for phase, length in seconds.items():
        with watch(phase):
            clock.now += length


def test_every_second_is_in_one_phase():
    clock = Clock()
    watch = Watch(clock=clock)
    spend(watch, clock, data=1.0, sample=2.0, update=4.0)
    clock.now += 8.0  # outside of every phase
    with watch("record"):
        clock.now += 16.0
        spend(watch, clock, evaluate=32.0)  # which is no part of the phase around it
        clock.now += 64.0
    with pytest.raises(KeyError), watch("sync"):
        clock.now += 128.0
        raise KeyError
    lap = watch.lap()
    expected = {"data": 1, "sample": 2, "update": 4, "other": 8, "record": 80, "evaluate": 32}
    expected["sync"] = 128
    assert lap.pop("time/step") == sum(expected.values()) == clock.now - 100
    assert lap == {f"time/{phase}": expected.get(phase, 0) for phase in PHASES}


def test_what_follows_a_record_counts_towards_the_next():
    clock = Clock()
    watch = Watch(clock=clock)
    spend(watch, clock, sample=1.0, update=4.0)
    speed = watch.throughput(10, 20)
    assert speed == {
        "throughput/sample_tokens_per_s": 10.0,
        "throughput/train_tokens_per_s": 5.0,
    }
    assert watch.lap()["time/step"] == 5
    spend(watch, clock, save=2.0, sample=1.0)
    lap = watch.lap()
    assert (lap["time/save"], lap["time/sample"], lap["time/step"]) == (2, 1, 3)


def test_an_interrupted_lap_is_continued():
    clock = Clock()
    watch = Watch(clock=clock)
    spend(watch, clock, sample=1.0, evaluate=2.0)
    stopped = watch.lap()
    clock.now += 1000.0  # nobody ran
    watch = Watch(stopped, clock)
    spend(watch, clock, evaluate=5.0)
    lap = watch.lap()
    assert (lap["time/sample"], lap["time/evaluate"], lap["time/step"]) == (1, 7, 8)
