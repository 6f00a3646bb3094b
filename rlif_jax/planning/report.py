"""A plan as tables for people, and as one JSON object for scripts."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, cast

from rich.console import Console
from rich.table import Table

from rlif_jax.config import Config
from rlif_jax.console.screen import format_duration
from rlif_jax.planning.chips import Slice
from rlif_jax.planning.estimate import ASSUMED, StagePlan, StepPlan
from rlif_jax.planning.lengths import Lengths
from rlif_jax.planning.search import Tried
from rlif_jax.planning.stages import StagesAhead
from rlif_jax.rewards import needs_teacher, writes_tests

_GIB, _VALIDATION = 2**30, 279


def as_json(
    ahead: StagesAhead, step: StepPlan, lengths: Lengths, slice_: Slice, price: float | None
) -> dict[str, Any]:
    """All figures: bytes, FLOPs, seconds; None where the chip is not known."""
    return {
        "topology": slice_.name,
        "estimate": slice_.platform != "tpu",
        "mesh": dict(ahead.mesh.shape),
        "slots": ahead.pool.slots,
        "cache_bytes": ahead.cache_bytes,
        "stages": {
            stage.name: {
                "calls": stage.calls,
                **dataclasses.asdict(stage.memory),
                "total": stage.memory.total,
                "beside": stage.beside,
                "held": stage.held,
                "flops": stage.work.flops,
                "bytes": stage.work.bytes,
                "sent": dict(stage.work.sent),
                "seconds": stage.seconds and dataclasses.asdict(stage.seconds),
                "bound": stage.seconds and stage.seconds.bound,
            }
            for stage in step.stages
        },
        "seconds": step.seconds,
        **run_figures(ahead, step, slice_, price),
        "tokens": {"drawn": step.drawn, "trained": step.trained},
        "column_use": step.column_use,
        "slot_use": step.slot_use,
        "assumed": [lengths.source, *ASSUMED],
    }


def run_figures(
    ahead: StagesAhead, step: StepPlan, slice_: Slice, price: float | None
) -> dict[str, float]:
    """Seconds of a step and of evaluations, tokens a second, MFU, chip-hours; empty without them.

    MFU counts the model's own products, nothing recomputed, attention causal.
    """
    chip, cfg = slice_.chip, ahead.cfg
    if chip is None:
        return {}
    peak, update_s = slice_.chips * chip.flops_per_s, step.seconds["update"]
    evaluation_s = evaluation_seconds(ahead, step)
    hours = run_seconds(cfg, cfg.steps, step.step_s, evaluation_s) / 3600
    figures = {
        "step_s": step.step_s,
        "evaluation_s": evaluation_s,
        "drawn_tokens_per_s_per_chip": step.drawn / step.step_s / slice_.chips,
        "mfu_update": step.update_flops / update_s / peak,
        "run_hours": hours,
        "chip_hours": hours * slice_.chips,
    }
    return figures | ({} if price is None else {"cost": price * figures["chip_hours"]})


def run_seconds(cfg: Config, steps: int, step_s: float, evaluation_s: float) -> float:
    """Of so many steps with their evaluations: also before the first step and after the last."""
    evaluations = (math.ceil(steps / cfg.eval.every) + 1) if cfg.eval.every and steps else 0
    return steps * step_s + evaluations * evaluation_s


def evaluation_seconds(ahead: StagesAhead, step: StepPlan) -> float:
    """An evaluation samples as a step does, in proportion to its responses."""
    cfg = ahead.cfg
    rows = (cfg.eval.max_problems or _VALIDATION) * cfg.eval.samples_per_problem
    drawn = ahead.draws * cfg.data.prompts_per_step * cfg.sampling.samples_per_prompt
    sampling = sum(step.seconds[part] for part in ("sync", "prefill", "decode", "host"))
    return sampling * rows / drawn


def show(
    console: Console,
    ahead: StagesAhead,
    step: StepPlan,
    lengths: Lengths,
    slice_: Slice,
    price: float | None,
) -> None:
    """Print the stages, the step, the run and what they rest on."""
    axes = ", ".join(f"{axis}={n}" for axis, n in ahead.mesh.shape.items() if n > 1) or "one device"
    console.print(f"{ahead.cfg.name} on {slice_.name} ({axes})", highlight=False)
    console.print(_memory_table(step), _work_table(step))
    for line in [*_lines(ahead, step, slice_, price), "", *_assumed(lengths, slice_)]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def show_found(
    console: Console, found: Sequence[Tried], tried: int, slice_: Slice, price: float | None
) -> None:
    """Print the candidates that fit, the fastest first, and below them the flags of each."""
    table = Table(title=f"{len(found)} of {tried} candidates fit {slice_.name}")
    columns = ("", "GiB a chip", "slots", "step s", "decode s", "update s", "chip-hours")
    for column in (*columns, *(["cost"] if price is not None else [])):
        table.add_column(column, justify="right")
    for number, one in enumerate(found, 1):
        step = cast(StepPlan, one.step)
        figures = run_figures(one.ahead, step, slice_, price)
        held = max(stage.held for stage in step.stages) / _GIB
        cells = [f"{number}", f"{held:.2f}", f"{one.ahead.pool.slots}"]
        if figures:
            cells += [f"{figures['step_s']:.1f}", f"{step.seconds['decode']:.1f}"]
            cells += [f"{step.seconds['update']:.1f}", f"{figures['chip_hours']:,.0f}"]
        else:
            cells += [""] * 4
        if price is not None:
            cells.append(f"{figures['cost']:,.0f}" if figures else "")
        table.add_row(*cells)
    console.print(table)
    for number, one in enumerate(found, 1):
        console.print(f"{number}: {one.flags}", highlight=False, markup=False, soft_wrap=True)


def found_json(one: Tried, slice_: Slice, price: float | None) -> dict[str, Any]:
    """The flags and figures of a candidate that fits."""
    step = cast(StepPlan, one.step)
    return {
        "flags": one.flags,
        "held": max(stage.held for stage in step.stages),
        "seconds": step.seconds,
        **run_figures(one.ahead, step, slice_, price),
    }


def _memory_table(step: StepPlan) -> Table:
    table = Table(title="GiB of a chip, while each stage runs", title_justify="left")
    table.add_column("stage")
    for column in ("arguments", "temporaries", "results", "held beside", "total"):
        table.add_column(column, justify="right")
    for stage in step.stages:
        memory = stage.memory
        sizes = (memory.arguments, memory.temporaries, memory.outputs - memory.aliased)
        sizes = (*sizes, stage.beside, stage.held)
        table.add_row(stage.name, *(f"{size / _GIB:.2f}" for size in sizes))
    return table


def _work_table(step: StepPlan) -> Table:
    table = Table(title="Work of a chip in a step", title_justify="left")
    table.add_column("stage")
    table.add_column("does")
    for column in ("TFLOP", "GB moved", "GB sent", "seconds"):
        table.add_column(column, justify="right")
    table.add_column("bound by")
    for stage in step.stages:
        work, seconds = stage.work, stage.seconds
        done = (work.flops / 1e12, work.bytes / 1e9, sum(work.sent.values()) / 1e9)
        timed = [f"{seconds.together:.1f}", seconds.bound] if seconds else ["", ""]
        table.add_row(stage.name, stage.calls, *(f"{x:,.1f}" for x in done), *timed)
    return table


def _lines(ahead: StagesAhead, step: StepPlan, slice_: Slice, price: float | None) -> list[str]:
    held = max(stage.held for stage in step.stages) / _GIB
    lines = [
        f"memory: {held:.2f} GiB at most"
        + ("" if slice_.chip is None else f" of {slice_.chip.memory_gib:.2f}")
        + f"; {ahead.pool.slots} slots with {ahead.cache_bytes / _GIB:.2f} GiB of cache a chip",
        f"use: {step.slot_use:.0%} of slot-steps and {step.column_use:.0%} of trained columns hold "
        "a token",
    ]
    if ahead.cfg.sampling.draft_tokens:
        lines.append("tokens guessed ahead (sampling.draft_tokens): counted as if none was right")
    also = ["the responses of a teacher (reward.terms)"] * needs_teacher(ahead.cfg.reward)
    also += ["tests that the policy writes (reward.vote_inputs)"] * writes_tests(ahead.cfg)
    if also:
        lines.append(f"sampled as well, taken to be as long as programs: {' and '.join(also)}")
    lines += [line for stage in step.stages if (line := _sent(stage))]
    figures = run_figures(ahead, step, slice_, price)
    if not figures:
        return lines
    parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in step.seconds.items())
    lines += [
        f"step: {step.step_s:.1f} s ({parts})",
        f"{step.drawn:,} tokens drawn a step, "
        f"{figures['drawn_tokens_per_s_per_chip']:,.0f} a second and chip; "
        f"MFU of the update {figures['mfu_update']:.1%} (causal attention counted as half)",
        f"run: {ahead.cfg.steps} steps in {format_duration(3600 * figures['run_hours'])}, "
        f"{figures['chip_hours']:,.0f} chip-hours"
        + (f", {figures['cost']:,.0f} at {price:g} a chip-hour" if price is not None else ""),
    ]
    return lines


def _sent(stage: StagePlan) -> str:
    """What a stage sends by kind of collective; empty where it sends nothing."""
    kinds = {kind: size / 1e9 for kind, size in stage.work.sent.items() if size}
    listed = ", ".join(f"{kind} {size:,.3g}" for kind, size in kinds.items())
    return f"{stage.name} sends, in GB: {listed}" if kinds else ""


def _assumed(lengths: Lengths, slice_: Slice) -> list[str]:
    said = [lengths.source]
    if slice_.chip is not None:
        chip = slice_.chip
        said += [
            f"a {chip.name} multiplies {chip.flops_per_s / 1e12:g} TFLOP/s in bfloat16, moves "
            f"{chip.bytes_per_s / 1e9:g} GB/s and sends {chip.sent_per_s / 1e9:g} GB/s along a "
            f"mesh axis ({chip.source})",
            *ASSUMED,
            f"an evaluation has {_VALIDATION} problems (LiveCodeBench v5) unless eval.max_problems "
            "says less, with responses as long as a step's",
        ]
    if slice_.platform == "gpu":
        said.append(
            "an estimate: stages are compiled for this machine's CPU, which fuses less, so that "
            "they move more bytes than on a GPU; buffers and collectives differ, too"
        )
    return ["Assumed:", *(f"- {one}" for one in said)]
