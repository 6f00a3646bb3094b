"""What was found, as tables for people and as one JSON file."""

import json
import statistics
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.on_device.machine import memory_line
from benchmarks.on_device.parts import Parts
from benchmarks.on_device.results import Check, Ending

_STEPS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def as_json(facts: dict[str, Any], form: str, parts: Parts) -> dict[str, Any]:
    """Everything that was found; rates are per second, sizes in bytes, times in seconds."""
    return {
        **facts,
        "form": form,
        "passed": parts.passed,
        "ceilings": parts.ceilings and parts.ceilings.__dict__,
        "checks": [check.as_json() for check in parts.checks],
        "figures": [figure.as_json(parts.ceilings) for figure in parts.figures],
        "refusals": [refusal.__dict__ for refusal in parts.refusals],
        "parts": [ending.__dict__ for ending in parts.endings],
    }


def write_json(path: Path, found: dict[str, Any]) -> None:
    """One JSON object; numbers that are none are refused, `as_json` has replaced them."""
    path.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")


def print_tables(console: Console, facts: dict[str, Any], parts: Parts) -> None:
    """The device, the checks, the figures, and the parts that were not done."""
    chosen = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    console.print(
        f"{facts['device']} ({facts['platform']}), {facts['date']}; host: {facts['processor']}\n"
        f"{chosen}\n{memory_line(facts['memory'])}",
        highlight=False,
        markup=False,
    )
    console.print(_checks(parts.checks))
    console.print(_figures(parts))
    console.print(_endings(parts.endings))
    for refusal in parts.refusals:
        console.print(f"not run: {refusal.what}: {refusal.reason}", highlight=False, markup=False)
    failed = sum(not check.passed for check in parts.checks)
    errors = sum(ending.status == "error" for ending in parts.endings)
    console.print(
        f"{len(parts.checks)} checks, {failed} failed; {errors} parts ended in an error",
        highlight=False,
    )


def _checks(checks: list[Check]) -> Table:
    table = Table(title="Checks: largest error, and what is allowed")
    for name in ("operation", "what", "type", "error", "allowed", "because of", ""):
        table.add_column(name, overflow="fold")
    for one in checks:
        verdict = Text("ok") if one.passed else Text("FAILED", style="bold red")
        error, tolerance = f"{one.error:.1e}", f"{one.tolerance:.1e}"
        cells = (one.operation, one.what, one.dtype, error, tolerance, one.basis)
        table.add_row(*map(Text, cells), verdict)
    return table


def _figures(parts: Parts) -> Table:
    table = Table(title="Times: median, least and greatest of the runs; share of a ceiling")
    for name in ("stage", "model", "type", "a second", "spread", "seconds", "share", "sizes"):
        table.add_column(name, overflow="fold")
    for one in parts.figures:
        share, bound = one.share(parts.ceilings)
        low, median, high = one.rates[0], statistics.median(one.rates), one.rates[-1]
        table.add_row(
            one.what,
            one.model,
            one.dtype,
            f"{short(median)} {one.unit}s",
            f"{short(low)}..{short(high)}",
            f"{statistics.median(one.seconds):.3g}",
            "" if share is None else f"{share:.0%} of {bound}",
            one.note,
        )
    return table


def _endings(endings: list[Ending]) -> Table:
    table = Table(title="Parts: seconds, of them compiling, most memory in use so far")
    for name in ("part", "seconds", "compiling", "GiB", "ended"):
        table.add_column(name, overflow="fold")
    for one in endings:
        table.add_row(
            one.part,
            f"{one.seconds:.1f}",
            f"{one.compile_seconds:.1f}",
            f"{one.peak_bytes / 2**30:.2f}",
            Text(one.status + (f": {one.reason}" if one.reason else "")),
        )
    return table


def short(x: float) -> str:
    """A number with a letter for its thousands: 1234 is 1.23k."""
    for step, letter in _STEPS:
        if x >= step:
            return f"{x / step:.3g}{letter}"
    return f"{x:.3g}"
