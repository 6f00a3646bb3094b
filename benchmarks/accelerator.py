"""The first run on an accelerator: whether its numbers are right, and how fast its stages are.

    python -m benchmarks.accelerator [--minutes 8] [--small] [--out FILE.json]

For one GPU with jax[cuda], one TPU chip with jax[tpu], or a CPU, where the short form is measured.
It needs no network: weights are random, at the shapes of R1-Distill-1.5B and Qwen2.5-0.5B (short
form: a very small model, and SmolLM2-135M's shape). The stages are those of `rlif_jax.train`.

- Checks, in float32 and bfloat16: products, token statistics, attention in each implementation that
  runs there, paged attention in each kernel, and a whole step (sampled, judged, scored, packed,
  updated) beside plain references on the same device; sampler beside trainer. Each prints its
  largest error, what is allowed, and why.
- Ceilings: a large matrix product and a large copy, before all else and at the end. Between them
  times: decoding in 64 and in 512 slots, prefill, scoring, the update, a whole step, each with its
  share of the ceiling that binds it.
- Memory: how much JAX may take; the most in use so far after each part.

A part that the time left does not allow is skipped, one that runs out of memory is reported, and
the rest runs. Exit status 1: a check has failed, or a part has ended in an error. It is not a
training, and no statement about several devices.
"""

import argparse
import contextlib
import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import jax

from benchmarks.on_device import kernel_checks
from benchmarks.on_device.ceilings import measure_ceilings
from benchmarks.on_device.machine import machine
from benchmarks.on_device.parts import CompileMeter, Parts
from benchmarks.on_device.report import as_json, print_tables, write_json
from benchmarks.on_device.results import Found
from benchmarks.on_device.runs import make_run, resized
from benchmarks.on_device.sizes import FULL, SMALL, Sizes
from benchmarks.on_device.step_checks import check_step
from benchmarks.on_device.times import Timed
from rlif_jax import sharding
from rlif_jax.config import Execution
from rlif_jax.console.screen import Screen
from rlif_jax.errors import UserError, exit_on_user_error
from rlif_jax.execution.pool import Judge
from rlif_jax.model.config import ModelConfig

Part = tuple[str, float, Callable[[], Iterable[Found]]]
"""Its name, the seconds that it takes on an H100 with compilation, and its work."""


def check_parts(sizes: Sizes, judge: Judge | None) -> Iterator[Part]:
    """The checks, the fundamental ones first."""
    yield "products", 5, functools.partial(kernel_checks.check_products, sizes)
    works = {
        "token_stats": (20, kernel_checks.check_token_stats),
        "attention": (25, kernel_checks.check_attention),
        "paged attention": (20, kernel_checks.check_paged_attention),
    }
    for name, (needs, work) in works.items():
        for dtype in kernel_checks.DTYPES:
            yield f"{name}, {dtype}", needs, functools.partial(work, sizes, dtype)
    for dtype in kernel_checks.DTYPES:
        work = functools.partial(check_step, sizes, dtype, judge)
        yield f"training step, {dtype}", 45, work


def timed_parts(
    sizes: Sizes, name: str, model: ModelConfig, dtype: str, judge: Judge | None
) -> Iterator[Part]:
    """The times of one model. Its parameters are made when the first part runs."""

    @functools.cache
    def one() -> Timed:
        judged = judge is not None
        run = make_run(model, sizes.step, dtype, slots=sizes.step.rows, judged=judged)
        return Timed(name, run, judge, sizes.repeats)

    def many_slots() -> Iterable[Found]:
        run = resized(one().run, sizes.many_step, sizes.many_slots)
        return Timed(name, run, judge, sizes.repeats).decode()

    yield f"decode, {name}", 40, lambda: one().decode()
    yield f"prefill, {name}", 15, lambda: one().prefill()
    yield f"score, {name}", 25, lambda: one().score()
    yield f"update, {name}", 45, lambda: one().update()
    yield f"step, {name}", 40, lambda: one().step()
    yield f"decode in {sizes.many_slots} slots, {name}", 35, many_slots


def run_all(sizes: Sizes, parts: Parts, judge: Judge | None) -> None:
    """Every part on the mesh of `jax.set_mesh`, one device."""
    dtype = "float32" if sharding.platform() == "cpu" else "bfloat16"
    parts.run("ceilings", 10 * sizes.pace, functools.partial(measure_ceilings, sizes))
    _run_each(parts, sizes.pace, check_parts(sizes, judge))
    for name, model in sizes.models:
        _run_each(parts, sizes.pace, timed_parts(sizes, name, model, dtype, judge))
    # Others may have used the machine before; shares are of the better ones.
    again = functools.partial(measure_ceilings, sizes, ", at the end")
    parts.run("ceilings, at the end", 5 * sizes.pace, again)


def _run_each(parts: Parts, pace: float, each: Iterator[Part]) -> None:
    """These parts; what they have put on the device is free again when this returns."""
    for name, needs, work in each:
        parts.run(name, needs * pace, work)


def judge_of(note: Callable[[str], None]) -> contextlib.AbstractContextManager[Judge | None]:
    """A judge, or None, with a line, on a machine that cannot sandbox programs."""
    try:
        return Judge(Execution())
    except UserError as error:
        note(f"programs are not run: {error}")
        return contextlib.nullcontext()


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, measure, print, write; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accelerator", description=(__doc__ or "").split("\n")[0]
    )
    minutes_help = "time to end within (default 8, and 4 for the short form)"
    parser.add_argument("--minutes", type=float, help=minutes_help)
    parser.add_argument("--small", action="store_true", help="the short form, as on a CPU")
    parser.add_argument("--out", type=Path, default=Path("accelerator.json"), help="the JSON file")
    options = parser.parse_args(arguments)
    screen = Screen()
    if not screen.watched:
        screen.console.width = 160  # a file has no width of its own
    with exit_on_user_error(), CompileMeter() as meter:
        mesh = sharding.make_mesh()
        sizes = SMALL if options.small or mesh.devices.flat[0].platform == "cpu" else FULL
        minutes = options.minutes or (4 if sizes is SMALL else 8)
        facts, parts = machine(), Parts(minutes, meter, screen.note)
        try:
            with jax.set_mesh(mesh), judge_of(screen.note) as judge:
                run_all(sizes, parts, judge)
        finally:  # Ctrl-C as well: what was found is kept
            print_tables(screen.console, facts, parts)
            write_json(options.out, as_json(facts, sizes.name, parts))
            screen.note(f"written: {options.out}")
    return 0 if parts.passed else 1


if __name__ == "__main__":
    sys.exit(main())
