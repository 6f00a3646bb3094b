"""Run a suite: all the runs of a study that are not finished, one after another.

python -m rlif_jax.study --suite configs/study/laptop.py [--dry-run] [--only 'self_certainty-*']
python -m rlif_jax.study --suite configs/study/paper.py --dry-run --topology v5e:4x4

Each run is a process of its own and has its run folder, OUT/NAME. A finished run is never repeated;
one that was interrupted resumes. So the same command continues a study after anything, and on
another machine from the folders that are copied there.
"""

import argparse
import fnmatch
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.table import Table

from rlif_jax.config.suite import PlannedRun, Suite, read_suite_file
from rlif_jax.config.validate import validate
from rlif_jax.console.interrupt import Interrupted, sigterm_as_ctrl_c
from rlif_jax.console.meter import Phases
from rlif_jax.console.screen import Screen, format_duration
from rlif_jax.distributed import ending_together
from rlif_jax.errors import UserError, exit_on_user_error
from rlif_jax.planning.chips import Slice
from rlif_jax.planning.suite_hours import seconds_by_plan
from rlif_jax.reporting.recorded_runs import RecordedRun
from rlif_jax.reporting.study_summary import LEGEND, MethodOutcome, RunOutcome, shown, summarise
from rlif_jax.rewards import executing_rewards, known_rewards
from rlif_jax.run.checkpoint import DamagedCheckpoint
from rlif_jax.run.provenance import check_same_config
from rlif_jax.run.standing import Standing, seconds_of_steps, standing
from rlif_jax.storage.folder import bucket_errors
from rlif_jax.train import train
from rlif_jax.weights.run_folder import saved_steps

REFUSED, STOPPED = 2, 130
"""Statuses of a run that ends for good: bad input, and a signal to stop."""


@dataclass(frozen=True)
class Planned:
    """A run, how far it is, and the seconds that it still takes; None where nothing is known."""

    run: PlannedRun
    standing: Standing
    seconds: float | None


def study(suite_file: str, suite: Suite, out: str, only: Sequence[str], screen: Screen) -> bool:
    """Run what is missing; whether all runs that were asked for are finished now.

    A run that ends in an error is started once more, unless it was refused, and then left; those
    that start from its checkpoints are left with it.

    Raises:
        KeyboardInterrupt: a signal has stopped a run, which can resume.
    """
    left: list[str] = []
    runs = planned(suite, out, only)
    for number, one in enumerate(runs):
        run, title = one.run, f"run {number + 1} of {len(runs)}: {one.run.name}"
        if one.standing.finished:
            continue
        if run.after in left:
            screen.note(f"{title} is left out, because it starts from {run.after}")
            left.append(run.name)
            continue
        source = next((other for other in suite.runs(out) if other.name == run.after), None)
        if source and (lacking := _lacking(run, source)) is not None:
            screen.note(f"{title} is left out: {lacking}")
            left.append(run.name)
            continue
        screen.note(title + _time_left(planned(suite, out, only)[number:]))
        command = [sys.executable, "-m", "rlif_jax.study", *_arguments_of(suite_file, out, run)]
        command += ["--stop-with", f"{os.getpid()}"]
        if (status := _status_of(command)) not in (0, REFUSED):
            screen.note(f"{run.name} ended with status {status}: once more")
            status = _status_of(command)
        if status:
            screen.note(f"{run.name} is not finished: its error is above")
            left.append(run.name)
    if left:
        screen.note(f"{len(left)} of {len(runs)} runs are not finished; the same command resumes")
    return not left


def _lacking(run: PlannedRun, source: PlannedRun) -> str | None:
    """Why a run cannot start from a checkpoint of `source`; None: it can, or has started."""
    folder, step = source.config.folder, run.config.init_from.rpartition("@")[2]
    with bucket_errors(folder):
        begun = saved_steps(run.config.folder / "checkpoints")
        if begun or int(step) in saved_steps(folder / "checkpoints"):
            return None
    lacking = f"{source.name} has no checkpoint {step}"
    stands = standing(source.config)
    if not stands.finished:
        return f"{lacking} yet ({stands}); run it first, or wait for it"
    if stands.done < int(step):
        return f"{lacking}: its guard has ended it at step {stands.done}"
    return (
        f"{lacking} here, as a folder that was passed on without checkpoints; remove {folder} to "
        "have it run again"
    )


def _status_of(command: Sequence[str]) -> int:
    """The status of a command, which is given the signals that come here.

    Raises:
        KeyboardInterrupt: it was stopped by one.
    """
    child = subprocess.Popen(command, start_new_session=True)  # a Ctrl-C reaches it once, from here
    before = {
        number: signal.signal(number, lambda number, _: child.send_signal(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        status = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if status in (STOPPED, -signal.SIGINT, -signal.SIGTERM):
        raise KeyboardInterrupt
    return status


def planned(suite: Suite, out: str, only: Sequence[str]) -> list[Planned]:
    """The runs whose names match one of the patterns `only`, or all, as they stand now.

    Raises:
        UserError: no name matches, a configuration is invalid, or a folder holds another one.
    """
    runs = suite.runs(out)
    asked = [run for run in runs if not only or any(fnmatch.fnmatch(run.name, p) for p in only)]
    if not asked:
        names = ", ".join(run.name for run in runs)
        raise UserError(f"no run matches --only {' '.join(only)}; the suite has {names}")
    step_s = seconds_of_steps([run.config for run in runs]) or suite.step_s or None
    found = []
    for run in asked:
        validate(run.config, known_rewards(), executing_rewards())
        check_same_config(run.config.folder, run.config)
        one = standing(run.config)
        found.append(Planned(run, one, None if step_s is None else step_s * one.steps_left))
    return found


def planned_on(runs: Sequence[Planned], topology: str, screen: Screen) -> list[Planned]:
    """The runs with the seconds that they take on a slice by `rlif_jax.plan`, not as measured.

    Raises:
        UserError: there is no such topology, its meshes are others, or a run does not fit it.
    """
    slice_ = Slice.parse(topology)
    steps = [(one.run.config, one.standing.steps_left) for one in runs]
    with Phases(screen) as notice:
        seconds = seconds_by_plan(steps, slice_, notice)
    return [replace(one, seconds=s) for one, s in zip(runs, seconds, strict=True)]


def table(runs: Sequence[Planned]) -> Table:
    """The runs with what is left of each."""
    shown = Table(box=None, pad_edge=False)
    for name in ("run", "starts from", "steps", "state", "hours left"):
        right = "right" if name in ("steps", "hours left") else "left"
        shown.add_column(name, justify=right, no_wrap=name == "run", overflow="fold")
    for one in runs:
        hours = "unknown" if one.seconds is None else f"{one.seconds / 3600:.2f}"
        start = one.run.config.init_from.rpartition("/")[2]
        shown.add_row(one.run.name, start, f"{one.run.config.steps}", f"{one.standing}", hours)
    known = [one.seconds for one in runs if one.seconds is not None]
    if len(known) == len(runs):
        shown.add_section()
        shown.add_row(f"{len(runs)} runs", "", "", "", f"{sum(known) / 3600:.2f}")
    return shown


def outcomes(runs: Sequence[Planned], control: str, margin: float) -> list[MethodOutcome]:
    """What the finished runs came to, method by method; see `reporting.study_summary`."""
    by_method: dict[str, dict[int, RunOutcome]] = {}
    for one in runs:
        run = RecordedRun.read(one.run.config.folder) if one.standing.finished else None
        if run is not None and run.outcome is not None:
            method = one.run.name.rpartition("-s")[0]
            by_method.setdefault(method, {})[one.run.config.seed] = run.outcome
    if not by_method:
        raise UserError(
            "no run is finished that was evaluated before and after training; run the suite first, "
            "with eval.every above 0"
        )
    return summarise(by_method, control, margin)


def _arguments_of(suite_file: str, out: str, run: PlannedRun) -> list[str]:
    return ["--suite", suite_file, "--out", out, "--run", run.name]


def _time_left(runs: Sequence[Planned]) -> str:
    """Of the first of these runs, and of all."""
    known = [one.seconds for one in runs if one.seconds is not None]
    if len(known) < len(runs):
        return ""
    return f", about {format_duration(known[0])}; the whole study {format_duration(sum(known))}"


def _run(suite: Suite, out: str, name: str, parent: int) -> None:
    """Train one run of the suite in this process, which stops when `parent` has gone; 0: nobody."""
    runs = {run.name: run for run in suite.runs(out)}
    if name not in runs:
        raise UserError(f"--run {name} is not in the suite; it has {', '.join(runs)}")
    if parent:
        threading.Thread(target=_stop_with, args=[parent], daemon=True).start()
    with sigterm_as_ctrl_c():
        train(runs[name].config)


def _stop_with(parent: int) -> None:
    """Ask this process to stop, as SIGTERM does, once `parent` is no longer its parent."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: exit status 1 where runs are left, 2 for bad input, 130 when stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m rlif_jax.study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--suite", required=True, help="suite file, such as configs/study/laptop.py"
    )
    parser.add_argument("--out", default="", help="folder of the runs (default runs/SUITE)")
    parser.add_argument("--only", nargs="+", default=[], help="names of runs; * and ? match any")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="list the runs and their hours")
    what.add_argument("--commands", action="store_true", help="print a command for each run")
    what.add_argument("--summary", action="store_true", help="what the finished runs came to")
    what.add_argument("--run", default="", help="train this run alone, in this process")
    parser.add_argument(
        "--topology",
        default="",
        help="of --dry-run: hours on this slice by its plan, such as v5e:4x4",
    )
    parser.add_argument(
        "--control", default="random", help="of --summary: the method that others are held against"
    )
    parser.add_argument(
        "--margin",
        type=float,
        default=0.02,
        help="of --summary: accuracies so close are equal",
    )
    parser.add_argument(
        "--stop-with", type=int, default=0, help="of --run: stop when this parent process has gone"
    )
    args = parser.parse_args(argv)
    with ending_together(), exit_on_user_error():
        suite = read_suite_file(args.suite)
        out = args.out or f"runs/{suite.name}"
        screen = Screen()
        try:
            if args.dry_run:
                runs = planned(suite, out, args.only)
                if args.topology:
                    runs = planned_on(runs, args.topology, screen)
                screen.console.print(table(runs))
            elif args.commands:
                for one in planned(suite, out, args.only):
                    arguments = shlex.join(_arguments_of(args.suite, out, one.run))
                    print(f"python -m rlif_jax.study {arguments}")
            elif args.summary:
                found = outcomes(planned(suite, out, args.only), args.control, args.margin)
                screen.console.print(shown(found), LEGEND, sep="\n\n", end="\n\n")
                for one in found:
                    screen.note(f"{one.name}: {one.verdict}")
            elif args.run:
                _run(suite, out, args.run, args.stop_with)
            elif not study(args.suite, suite, out, args.only, screen):
                raise SystemExit(1)
        except DamagedCheckpoint as error:  # of several processes, as in train
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(1) from None
        except (Interrupted, KeyboardInterrupt):
            raise SystemExit(STOPPED) from None


if __name__ == "__main__":
    main()
