"""Repeat recorded steps of a run: each is identical, or the first difference is named.

python -m rlif_jax.replay runs/prob_disparity --step 7 [--step-to 9]

The newest checkpoint before the step is restored. From there on each step is sampled, tested,
rewarded and trained on by the functions that train uses, and compared with what the run has
recorded. Nothing is written into the run folder.
"""

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence

import jax

from rlif_jax.config import Config, Processes
from rlif_jax.config.load import read_config_file, with_flags
from rlif_jax.config.validate import validate
from rlif_jax.console.progress import Progress
from rlif_jax.console.screen import Screen
from rlif_jax.data.training import position_of
from rlif_jax.distributed import ending_together, is_first, join
from rlif_jax.errors import UserError, exit_on_user_error
from rlif_jax.prepare import begin, check_shares, make_ask
from rlif_jax.rewards import executing_rewards, known_rewards
from rlif_jax.run.checkpoint import Checkpoints
from rlif_jax.run.clock import Clock
from rlif_jax.run.failures import key_of_life, key_of_step, memory_advice
from rlif_jax.run.guard import Guard, recorded_metrics
from rlif_jax.run.provenance import differing_fields, recorded_config, resolved
from rlif_jax.run.recorded import (
    Difference,
    RecordedStep,
    check_recorded,
    first_difference,
    recorded_steps,
)
from rlif_jax.sampler.draw import key_data
from rlif_jax.sharding import skip_absent_tpu
from rlif_jax.step import train_step
from rlif_jax.step_record import Skipped, StepRecord
from rlif_jax.storage.compile_cache import keep_compiled
from rlif_jax.storage.folder import Folder, bucket_errors, folder_at


def replay(
    run: Folder,
    first: int,
    last: int | None = None,
    *,
    start: int | None = None,
    config: Config | None = None,
) -> Difference | None:
    """The first difference between steps `first` to `last` as recorded and as repeated.

    None: there is no difference. `last` is `first` by default. `start` is the step whose checkpoint
    is restored, 0 for the start of the run; by default the newest before `first`. The steps after
    it are compared as well where they were recorded. `config` is the run's own by default.
    Under several processes every one of them calls this.

    Raises:
        UserError: the run, one of the steps or the checkpoint is not there, or something that the
            run has read is no longer what it was.
    """
    # ---- what is asked for, and what there is of it
    cfg, last = config or configuration_of(run), first if last is None else last
    if not 1 <= first <= last:
        raise UserError(
            f"steps {first} to {last} cannot be replayed: steps count from 1, and --step-to comes "
            "after --step"
        )
    validate(cfg, known_rewards(), executing_rewards())
    cfg = dataclasses.replace(cfg, eval=dataclasses.replace(cfg.eval, every=0))
    join(cfg.processes)
    skip_absent_tpu()  # Orbax starts JAX's backend when it opens a folder
    check_shares(cfg)
    with bucket_errors(run):
        recorded = recorded_steps(run, first, last)
        check_recorded(run, recorded, first, last)

    with memory_advice(), bucket_errors(run), contextlib.ExitStack() as stack:
        checkpoints = Checkpoints(run / "checkpoints", keep=1, read_only=True)
        stack.callback(checkpoints.close)
        start = begin_at(run, checkpoints, first, start)
        recorded |= recorded_steps(run, start + 1, first - 1)
        screen = Screen(silent=not is_first())
        progress = stack.enter_context(Progress(last, start, screen))
        origin = f"checkpoint {start}" if start else "the start of the run"
        steps = range(start + 1, last + 1)
        which = f"step {last}" if len(steps) == 1 else f"{len(steps)} steps, {start + 1} to {last}"
        progress.note(f"{run}: repeating {which}, from {origin}")
        if cfg.compile_cache:
            keep_compiled(progress.note)

        # ---- step by step
        for step, now in repeated(cfg, checkpoints, recorded, steps, stack, progress):
            was = recorded.get(step)
            if was is None or not was.complete:
                continue
            difference = first_difference(step, was, now)
            progress.note(str(difference or f"step {step}: identical"))
            if difference is not None:
                return difference
    return None


def begin_at(run: Folder, checkpoints: Checkpoints, first: int, start: int | None) -> int:
    """The step to begin after, 0 for the start of the run. Raises UserError where it cannot be."""
    saved = [0, *checkpoints.steps()]
    if start is None:
        return max(step for step in saved if step < first)
    if start not in saved or start >= first:
        raise UserError(
            f"--from {start} is no place to begin: step {first} can be replayed from "
            f"{', '.join(str(step) for step in saved if step < first)} (0: the start of the run), "
            f"of which {run / 'checkpoints'} has checkpoints"
        )
    return start


def repeated(
    cfg: Config,
    checkpoints: Checkpoints,
    recorded: Mapping[int, RecordedStep],
    steps: range,
    stack: contextlib.ExitStack,
    progress: Progress,
) -> Iterator[tuple[int, RecordedStep]]:
    """Each of `steps` as training records it. The first is 1 or comes after a checkpoint."""
    begun = begin(cfg, steps.start - 1, checkpoints, stack, progress)
    inputs, stages, reference = begun.inputs, begun.stages, begun.reference
    state, key = begun.state, begun.key
    del begun
    clock = Clock()
    ask = make_ask(cfg, inputs, clock, lambda: None, progress.phase)
    guard = Guard(cfg, checkpoints, recorded_metrics(cfg, steps.start - 1), progress.note)
    for step in steps:
        key = key_as_recorded(cfg, key, recorded.get(step))
        record, skipped = None, 0
        while not isinstance(record, StepRecord):
            step_key = key_of_step(key, step, skipped)
            state, record = train_step(
                guard.config(), stages, state, reference, ask, step_key, clock, progress.phase
            )
            if isinstance(record, Skipped):
                check_skipped(cfg, step, skipped, record)
                skipped += 1
        position = position_of(inputs.data, inputs.mixture)
        measured = record.metrics(guard.config())
        state, signs = guard.watch(step, measured, state)
        provenance = record.provenance(key, position, state.params)
        speed = clock.throughput(record.sampled_tokens, record.trained_tokens)
        progress.step(step, measured | signs | speed | clock.lap())
        yield step, RecordedStep.of(provenance, record.completions())


def key_as_recorded(cfg: Config, key: jax.Array, was: RecordedStep | None) -> jax.Array:
    """The key of the run in a step, which is another one after each return to a checkpoint.

    Where none of these is the recorded one the key comes back as it is.
    """
    for rollbacks in range(cfg.failures.rollbacks + 1):
        one = key_of_life(key, rollbacks)
        if was is not None and key_data(one).tolist() == was.provenance["key"]:
            return one
    return key


def check_skipped(cfg: Config, step: int, skipped: int, record: Skipped) -> None:
    """Refuse more batches in a row than a run leaves out. Raises UserError."""
    if skipped == cfg.failures.skipped_batches:
        raise UserError(
            f"step {step} cannot be repeated: {skipped + 1} batches in a row are not finite, the "
            f"last because {record.reason}. The run itself got past this step: replay it on the "
            "devices and with the versions that its config.json names."
        )


# ---- command


def configuration_of(run: Folder) -> Config:
    """The configuration of a run folder, which may have been moved, for one process."""
    return dataclasses.replace(recorded_config(run), run_dir=str(run), processes=Processes())


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: exit status 1 where a step differs, 2 for bad input, 130 on Ctrl-C."""
    with ending_together(), exit_on_user_error():
        try:
            asked, cfg = _arguments(sys.argv[1:] if argv is None else argv)
            found = replay(asked.run, asked.step, asked.step_to, start=asked.start, config=cfg)
        except KeyboardInterrupt:
            sys.exit(130)
    sys.exit(0 if found is None else 1)


def _arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, Config]:
    """The flags of this command, and the configuration of the run with all others on top."""
    parser = argparse.ArgumentParser(
        prog=_PROG,
        description=__doc__,
        epilog="Other flags are those of rlif_jax.train that say where to compute: --mesh.fsdp 4,\n"
        "--execution.workers 8, --processes.count 2. Another mesh or another kind of\n"
        "device rounds sums differently, so that steps differ by that.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("run", type=folder_at, help="run folder")
    parser.add_argument("--step", type=int, required=True, help="step to repeat")
    parser.add_argument("--step-to", type=int, help="last of several steps; default: that one")
    parser.add_argument(
        "--from",
        dest="start",
        type=int,
        metavar="STEP",
        help="checkpoint to restore, 0: the start of the run; default: the newest before the step",
    )
    parser.add_argument(
        "--config", help="the run's configuration file, where it defines rewards of its own"
    )
    asked, flags = parser.parse_known_args(argv)
    if asked.config:
        read_config_file(asked.config)
    before = configuration_of(asked.run)
    cfg = with_flags(before, flags, _PROG, f"Where to compute: fields of {asked.run}/config.json")
    if changed := differing_fields(resolved(before), cfg):
        raise UserError(
            f"a replay computes what the run has computed, and {'; '.join(changed)}. Leave out "
            "the flag; those of mesh, processes, execution.workers and model.remat may be given."
        )
    return asked, cfg


_PROG = "python -m rlif_jax.replay"

if __name__ == "__main__":
    main()
