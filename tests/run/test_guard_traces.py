"""The guard on a recorded collapse, and on traces of the shapes that the study describes.

The recorded one is of SmolLM2-135M with self-certainty, by the settings of configs/study/laptop.py.
"""

import json
from collections import Counter

import numpy as np
import pytest
from support import GOLDENS

from benchmarks.guard import DEFAULT, SHAPES, Judged, drawn, gain_lost, judged_trace

DRAWN = 100


@pytest.fixture(scope="module")
def recorded():
    lines = (GOLDENS / "self_certainty_trace.jsonl").read_text().splitlines()
    return [(record["step"], record) for record in map(json.loads, lines)]


def test_a_recorded_collapse_is_told_before_its_gain_is_lost(recorded):
    """Held out, 17.4% are solved before, 22.9% after step 5, and none from step 10 on."""
    assert judged_trace(recorded, DEFAULT) == Judged("in time", fired=9, lost=10, sign="short")


def test_nothing_is_told_while_it_gains(recorded):
    assert judged_trace(recorded[:9], DEFAULT) == Judged("silent", None, None)
    assert gain_lost(recorded[:10]) is None


@pytest.mark.parametrize("shape", SHAPES)
def test_drawn_shapes(shape):
    """At most a tenth of the collapses late, and hardly a false alarm."""
    rng = np.random.default_rng(1)
    found = Counter(judged_trace(drawn(SHAPES[shape], rng), DEFAULT).outcome for _ in range(DRAWN))
    if shape in ("tests", "random"):
        assert found["silent"] >= 0.98 * DRAWN
    else:
        assert found["in time"] >= 0.9 * DRAWN and not found["missed"]


def test_gain_is_lost_with_half_of_it():
    def trace(*accuracy):
        return [(step, {"eval/some/avg@4": value}) for step, value in enumerate(accuracy)]

    assert gain_lost(trace(0.1, 0.3, 0.2, 0.19, 0.3)) == 3  # 0.2 is half of it
    assert gain_lost(trace(0.1, 0.05, 0.08)) is None  # nothing was gained, and not all lost
    assert gain_lost(trace(0.2, 0.1, 0.04, 0.0)) == 2  # less than a quarter is left
    assert gain_lost(trace(0.3, 0.2, 0.4)) is None  # the peak is the end
    assert gain_lost(trace(0.3, 0.07, 0.4)) == 1  # it comes back, but for a step all is lost
