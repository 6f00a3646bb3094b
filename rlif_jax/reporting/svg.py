"""Line charts as SVG that a page holds: drawn without scripts, coloured by the page's style."""

import json
import math
from collections.abc import Sequence
from html import escape

from matplotlib.ticker import MaxNLocator

from rlif_jax.reporting.panels import Curve, in_words

WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 26
MOST_POINTS = 400
"""Points of a line; of a longer one every k-th is drawn."""


class Scale:
    """Maps values to places between two ends, which lie at round numbers around the values."""

    def __init__(self, values: Sequence[float], start: float, end: float, whole: bool = False):
        low, high = min(values), max(values)
        if low == high:
            low, high = (low - 0.5, high + 0.5) if not whole else (low, high + 1)
        locator = MaxNLocator(nbins=4, integer=whole, steps=[1, 2, 2.5, 5, 10])
        ticks = [float(tick) for tick in locator.tick_values(low, high)]
        if whole:  # steps end where the runs end
            self.low, self.high = low, high
        else:
            self.low, self.high = min(low, ticks[0]), max(high, ticks[-1])
        self.ticks = [tick for tick in ticks if self.low <= tick <= self.high]
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        part = (value - self.low) / (self.high - self.low)
        return self._start + part * (self._end - self._start)


def line_chart(
    curves: Sequence[Curve],
    title: str,
    ident: str,
    marked: bool = False,
    places: Sequence[str] = (),
) -> str:
    """A chart of these curves, of which there is at least one; `marked` ones have their points.

    It names itself and its curves to screen readers, and holds its numbers for the page's script.
    With `places` the steps are the numbers of these names, which stand below.
    """
    thinned = [_thinned(curve) for curve in curves]
    steps = [step for curve in thinned for step in curve.steps]
    values = [v for c in thinned for v in (*c.values, *c.faint, *c.low, *c.high)]
    x = Scale(steps, LEFT, WIDTH - RIGHT, whole=True)
    y = Scale(values, HEIGHT - BOTTOM, TOP)
    words = ". ".join(in_words(curve, places) for curve in curves)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{ident}-t {ident}-d">',
        f'<title id="{ident}-t">{escape(title)}</title>',
        f'<desc id="{ident}-d">{escape(words)}</desc>',
        *_axes(x, y, places),
        *(_drawn(curve, x, y, marked) for curve in thinned),
        "</svg>",
        f'<script type="application/json" class="values">{_numbers(thinned, x, places)}</script>',
    ]
    return "".join(parts)


def _thinned(curve: Curve) -> Curve:
    every = math.ceil(len(curve.steps) / MOST_POINTS)
    if every == 1:
        return curve

    def some(values: Sequence) -> list:
        kept = list(values[::every])
        return kept if not values or (len(values) - 1) % every == 0 else [*kept, values[-1]]

    return Curve(
        curve.name,
        curve.number,
        *map(some, (curve.steps, curve.values, curve.faint, curve.low, curve.high)),
    )


def _axes(x: Scale, y: Scale, places: Sequence[str]) -> list[str]:
    parts = []
    for tick in y.ticks:
        at = f"{y(tick):.1f}"
        parts.append(f'<path class="grid" d="M{LEFT} {at}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="tick y" x="{LEFT - 6}" y="{at}">{_number(tick)}</text>')
    named = dict(enumerate(places)) if places else {tick: _number(tick) for tick in x.ticks}
    for tick, name in named.items():
        place = f'x="{x(tick):.1f}" y="{HEIGHT - 8}"'
        parts.append(f'<text class="tick x" {place}>{escape(name)}</text>')
    return parts


def _drawn(curve: Curve, x: Scale, y: Scale, marked: bool) -> str:
    """Band, values, line and points of a curve; a lone point is marked in any case."""
    at = [x(step) for step in curve.steps]
    parts = []
    if curve.low and len(at) > 1:
        forth = _path(at, map(y, curve.high))
        back = _path(at[::-1], map(y, list(curve.low)[::-1]))
        parts.append(f'<path class="band" d="{forth}L{back[1:]}Z"/>')
    if curve.faint:
        parts.append(f'<path class="faint" d="{_path(at, map(y, curve.faint))}"/>')
    parts.append(f'<path class="line" d="{_path(at, map(y, curve.values))}"/>')
    if marked or len(at) == 1:
        spots = zip(at, map(y, curve.values), strict=True)
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.6"/>' for a, b in spots]
    return f'<g class="m{curve.number % 16} method" data-m="{curve.number}">{"".join(parts)}</g>'


def _path(xs, ys) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(xs, ys, strict=True))


def _number(value: float) -> str:
    return f"{value:g}" if abs(value) < 1e4 else f"{value / 1e3:g}k"


def _numbers(curves: Sequence[Curve], x: Scale, places: Sequence[str]) -> str:
    """The curves' numbers as JSON that can stand in a page: of a running mean what was recorded."""
    lines = [
        {
            "n": curve.name,
            "m": curve.number,
            "x": list(curve.steps),
            "y": [float(f"{v:.4g}") for v in curve.faint or curve.values],
        }
        for curve in curves
    ]
    held = {"from": x.low, "to": x.high, "left": LEFT, "right": WIDTH - RIGHT, "lines": lines}
    return script_json(held | {"places": list(places)})


def script_json(value: object) -> str:
    """JSON that cannot end the script element that it stands in."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")
