"""Charts as SVG: where values lie, and what they say to those who do not see them."""

import json
import re
from xml.etree import ElementTree

import pytest

from rlif_jax.reporting.panels import Curve
from rlif_jax.reporting.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    MOST_POINTS,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    line_chart,
    script_json,
)

CURVE = Curve("a", 0, [0, 5, 10], [0.0, 1.0, 0.5], low=[0.0, 0.5, 0.25], high=[0.5, 1.0, 0.5])


def drawn(*curves: Curve, **options) -> tuple[ElementTree.Element, dict]:
    """The chart as XML, and the numbers that it holds for the page's script."""
    svg, held = re.fullmatch(
        r"(<svg.*</svg>)<script[^>]*>(.*)</script>", line_chart(curves, "t", "c", **options)
    ).groups()
    return ElementTree.fromstring(svg), json.loads(held)


def points(path: str) -> list[tuple[float, float]]:
    return [tuple(map(float, pair.split())) for pair in re.findall(r"[\d.]+ [\d.]+", path)]


def test_a_scale_ends_at_round_numbers_around_the_values():
    scale = Scale([0.03, 0.94], 100.0, 0.0)
    assert (scale.low, scale.high) == (0.0, 1.0)
    assert scale(0.25) == pytest.approx(75.0)
    assert scale.ticks == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_a_scale_of_equal_values_has_some_room():
    scale = Scale([2.0, 2.0], 0.0, 1.0)
    assert scale.low < 2.0 < scale.high


def test_steps_end_where_the_runs_end():
    scale = Scale([1, 37], 0.0, 72.0, whole=True)
    assert (scale.low, scale.high, scale(1), scale(37)) == (1, 37, 0.0, 72.0)
    assert all(tick == round(tick) and 1 <= tick <= 37 for tick in scale.ticks)


def test_a_line_and_its_band_lie_where_the_values_are():
    svg, _ = drawn(CURVE)
    line = svg.find(".//path[@class='line']").get("d")
    right, bottom, middle = WIDTH - RIGHT, HEIGHT - BOTTOM, (TOP + HEIGHT - BOTTOM) / 2
    assert points(line) == [(LEFT, bottom), ((LEFT + right) / 2, TOP), (right, middle)]
    band = points(svg.find(".//path[@class='band']").get("d"))
    assert band[:3] == [(LEFT, middle), ((LEFT + right) / 2, TOP), (right, middle)]
    assert band[3:] == [(right, 140.5), ((LEFT + right) / 2, middle), (LEFT, bottom)]


def test_it_says_what_it_shows():
    svg, held = drawn(CURVE)
    assert svg.get("role") == "img"
    assert svg.get("aria-labelledby") == "c-t c-d"
    assert svg.find("desc").text == "a: 0 at step 0, highest 1 at step 5, 0.5 at step 10"
    assert held["lines"] == [{"n": "a", "m": 0, "x": [0, 5, 10], "y": [0.0, 1.0, 0.5]}]
    assert (held["from"], held["to"]) == (0, 10)


def test_points_are_marked_where_asked_and_a_lone_one_in_any_case():
    assert len(drawn(CURVE)[0].findall(".//circle")) == 0
    assert len(drawn(CURVE, marked=True)[0].findall(".//circle")) == 3
    assert len(drawn(Curve("a", 0, [4], [1.0]))[0].findall(".//circle")) == 1


def test_a_long_line_is_thinned_and_keeps_its_ends():
    steps = list(range(1, 3 * MOST_POINTS))
    _, held = drawn(Curve("a", 0, steps, [float(s) for s in steps], faint=[0.0] * len(steps)))
    (line,) = held["lines"]
    assert len(line["x"]) <= MOST_POINTS + 1
    assert (line["x"][0], line["x"][-1]) == (1, steps[-1])


def test_names_in_place_of_steps():
    svg, held = drawn(Curve("a", 0, [0, 1], [1.0, 2.0]), places=["0.001", "<x>"])
    assert [t.text for t in svg.findall(".//text[@class='tick x']")] == ["0.001", "<x>"]
    assert svg.find("desc").text == "a: 1 at 0.001, 2 at <x>"
    assert held["places"] == ["0.001", "<x>"]


@pytest.mark.parametrize("low, high", [(100, 110), (12.2, 12.8), (1010, 1090), (0.1, 0.4)])
def test_ticks_are_what_they_say(low, high):
    svg, _ = drawn(Curve("a", 0, [0, 1], [low, high]))
    ticks = Scale([low, high], HEIGHT - BOTTOM, TOP).ticks
    said = [float(t.text) for t in svg.findall(".//text[@class='tick y']")]
    assert said == pytest.approx(ticks, rel=1e-12) and len(said) > 2


def test_json_cannot_end_its_script():
    text = script_json({"n": "</script><script>alert(1)</script>"})
    assert "<" not in text
    assert json.loads(text) == {"n": "</script><script>alert(1)</script>"}


def test_its_numbers_are_those_that_were_recorded():
    """The line is a running mean; who saves the numbers gets the values."""
    curve = Curve("a", 0, [1, 2], [0.0, 0.5], faint=[0.0, 1.0])
    svg, held = drawn(curve)
    assert held["lines"][0]["y"] == [0.0, 1.0]
    assert svg.find("desc").text == "a: 0 at step 1, 0.5 at step 2"
