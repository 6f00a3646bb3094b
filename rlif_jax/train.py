"""Train a code model by reinforcement learning: the life of a run.

python -m rlif_jax.train --config=configs/prob_disparity.py [--steps 20] [--run-dir DIR] [--help]

One step, from prompts to new parameters, is on its own page: step.py. On several processes each
runs this page, and the first of them writes and speaks.
"""

import contextlib
import functools
import sys
from collections.abc import Sequence

import jax

from rlif_jax.config import Config, load
from rlif_jax.config.validate import validate
from rlif_jax.console.interrupt import Interrupted, StopRequest, sigterm_as_ctrl_c
from rlif_jax.console.progress import Progress, evaluation_lines
from rlif_jax.console.screen import Screen
from rlif_jax.data.training import position_of
from rlif_jax.distributed import (
    any_of,
    by_first,
    ending_together,
    is_first,
    join,
    process_count,
)
from rlif_jax.errors import UserError, exit_on_user_error
from rlif_jax.evaluation.during_training import make_evaluate
from rlif_jax.prepare import begin, check_shares, make_ask
from rlif_jax.rewards import executing_rewards, known_rewards
from rlif_jax.run.checkpoint import Checkpoints, DamagedCheckpoint
from rlif_jax.run.clock import Clock
from rlif_jax.run.failures import (
    FOLDER,
    Diverged,
    SkippedBatches,
    key_of_life,
    key_of_step,
    memory_advice,
)
from rlif_jax.run.folder import check_shared, locked
from rlif_jax.run.guard import Guard, recorded_metrics
from rlif_jax.run.log import NoLog, RunLog
from rlif_jax.run.policy import check_drift
from rlif_jax.run.profile import StepTrace
from rlif_jax.run.provenance import check_same_config, run_facts
from rlif_jax.run.resume import joined, resume_point
from rlif_jax.run.retention import is_scheduled, quality
from rlif_jax.run.token_record import recorded_at
from rlif_jax.run.trackers.opened import check_installed
from rlif_jax.run.watchdog import Watchdog
from rlif_jax.sharding import skip_absent_tpu
from rlif_jax.step import train_step
from rlif_jax.step_record import Skipped, StepRecord
from rlif_jax.storage.compile_cache import keep_compiled
from rlif_jax.storage.folder import Folder, bucket_errors, in_bucket, is_folder
from rlif_jax.weights.token_ends import make_token_ends


def train(cfg: Config) -> None:
    """Run a configuration to its last step, resuming from the newest checkpoint of its folder.

    Raises:
        UserError: bad input, found as early as it can be, or a run that diverges again and again;
            what was recorded before is kept.
        Interrupted: Ctrl-C or SIGTERM, after the last whole step was saved.
        KeyboardInterrupt: the same before there is a state, and a second Ctrl-C.
    """
    # ---- configuration and processes: refuse what cannot run before a device is touched
    validate(cfg, known_rewards(), executing_rewards())
    check_installed(cfg.log.to)
    join(cfg.processes)
    skip_absent_tpu()  # Orbax starts JAX's backend when it opens a folder
    check_shares(cfg)
    with bucket_errors(cfg.folder):
        by_first(functools.partial(check_same_config, cfg.folder, cfg))

    # ---- a life of the run, and another from its newest whole checkpoint when it diverges
    rollbacks = 0
    while True:
        try:
            with memory_advice(), bucket_errors(cfg.folder):
                return live(cfg, rollbacks)
        except DamagedCheckpoint as error:  # it was moved out of the way
            if process_count() > 1:  # the others do not know: the launcher starts all of them again
                raise
            print(f"warning: {error}", file=sys.stderr)
        except Diverged as error:
            if rollbacks == cfg.failures.rollbacks:
                raise UserError(report(cfg, rollbacks, error)) from error
            rollbacks += 1


def live(cfg: Config, rollbacks: int = 0) -> None:
    """One life of a run, from its newest checkpoint to its last step.

    `rollbacks` counts the lives of this process that have diverged; each draws with other random
    numbers. Raises what `train` does, and Diverged.
    """
    checkpoints = Checkpoints(
        cfg.folder / "checkpoints",
        cfg.checkpoint.keep,
        cfg.checkpoint.adapters_only,
        cfg.checkpoint.keep_every,
        cfg.checkpoint.keep_best,
        scheduled=functools.partial(is_scheduled, cfg),
    )
    with contextlib.ExitStack() as stack:
        # ---- a run folder that exists is this run's alone before its checkpoints are opened
        held = any_of(not in_bucket(cfg.folder) and is_folder(cfg.folder))
        if held:
            hold(cfg.folder, stack)
        resume = resume_point(cfg, checkpoints)
        start = resume.step
        watchdog = stack.enter_context(Watchdog(cfg.failures.hang_s))
        screen = Screen(silent=not is_first())
        progress = stack.enter_context(Progress(cfg.steps, start, screen))
        stack.callback(checkpoints.close)
        progress.note(f"run folder {cfg.folder}")
        if cfg.compile_cache:
            keep_compiled(progress.note)

        # ---- judge, model, data, devices, stages; the state of the newest checkpoint or of step 0
        begun = begin(cfg, start, checkpoints, stack, progress)
        inputs, stages, reference = begun.inputs, begun.stages, begun.reference
        graphdef, judge, opened = begun.graphdef, inputs.judge, inputs.model
        data, mixture = inputs.data, inputs.mixture
        state, key = begun.state, key_of_life(begun.key, rollbacks)
        _, unrecorded = resume.split(begun.kept)
        position, saved = position_of(data, mixture), start
        del begun

        # ---- the run folder: a new one is made only now, when nothing can be refused any more
        if not held:
            hold(cfg.folder, stack)
        isolation = None if judge is None else judge.isolation
        facts = run_facts(opened, cfg.model.dtype, jax.sharding.get_mesh(), isolation)
        log: RunLog | NoLog = NoLog()
        if is_first():
            log = stack.enter_context(
                RunLog(cfg.folder, cfg, facts, resume_step=start or None, note=progress.note)
            )
        by_first(functools.partial(opened.describe_run, cfg.folder, again=start == 0))

        seen = recorded_metrics(cfg, start) + ([(start, unrecorded)] if unrecorded else [])
        guard = Guard(cfg, checkpoints, seen, progress.note)

        # ---- from here on there is a state to lose: a signal stops the run at the next notice
        stop = StopRequest(progress.note, cfg.failures.grace_s, together=True)
        stack.enter_context(stop)

        def notice(text: str, done: int | None = None, total: int | None = None) -> None:
            watchdog.alive()
            stop.check()
            progress.phase(text, done, total)

        eval_key = jax.random.fold_in(jax.random.key(cfg.seed), 0)
        evaluate = make_evaluate(
            cfg,
            graphdef,
            opened.tokenizer,
            stages.sync_unrounded,
            inputs.unseen,
            eval_key,
            judge,
            notice,
        )
        trace = StepTrace(cfg.folder / "profile", cfg.profile.traced, progress.note)
        stack.enter_context(trace)

        # ---- loop; `unrecorded` are the metrics of a step that lacks only its evaluation
        clock = Clock(unrecorded)
        skipped = SkippedBatches(cfg.folder, cfg.failures.skipped_batches, progress.note)
        ask = make_ask(cfg, inputs, clock, stop.check, notice)
        ends = make_token_ends(opened.tokenizer, opened.cfg.eos_ids)
        try:
            if start == 0 and (before := evaluate(0, state.params, False)):
                log.metrics(0, before)
                for line in evaluation_lines(before):
                    progress.note(f"before training: {line}")
                clock.lap()  # no part of the first step
            for step in trace.steps(range(start if unrecorded else start + 1, cfg.steps + 1)):
                if not unrecorded:
                    record = None
                    while not isinstance(record, StepRecord):
                        step_key = key_of_step(key, step, skipped.in_a_row)
                        state, record = train_step(
                            guard.config(), stages, state, reference, ask, step_key, clock, notice
                        )
                        if isinstance(record, Skipped):
                            skipped.skip(step, record.reason, record.arrays)
                    skipped.in_a_row = 0
                    position = position_of(data, mixture)
                    with clock("record"):
                        measured = record.metrics(guard.config())
                        state, signs = guard.watch(step, measured, state)
                        # First: in a bucket it refuses a run that another one has replaced.
                        log.provenance(step, record.provenance(key, position, state.params))
                        log.rollouts(step, record.completions())
                        if recorded_at(cfg.log.token_stats_every, step):
                            log.tokens(step, record.tokens(ends))
                        speed = clock.throughput(record.sampled_tokens, record.trained_tokens)
                        unrecorded = measured | signs | speed
                last = step == cfg.steps or guard.stopped
                with clock("evaluate"):
                    measured = evaluate(step, state.params, last)
                with clock("record"):
                    values = unrecorded | measured | clock.lap()
                    log.metrics(step, values)
                    unrecorded = {}
                    progress.step(step, values)
                check_drift(step, values["drift/sampler_logprob"], cfg.failures.max_drift)
                if step > saved and (last or is_scheduled(cfg, step)):
                    with clock("save"):
                        progress.phase("saving")
                        checkpoints.save(step, state, key, position, quality(measured))
                    saved = step
                if last:
                    break
        except Interrupted:
            if (done := int(state.step)) > saved:
                kept = joined(position, unrecorded | clock.lap()) if unrecorded else position
                checkpoints.save(done, state, key, kept)
            checkpoints.wait()
            saved_as = "the same command resumes from it" if done else "there is nothing to save"
            progress.note(f"stopped after step {done}; {saved_as}")
            raise
        checkpoints.wait()
        progress.note(f"done: {cfg.folder} has metrics.jsonl, rollouts/ and checkpoints/")


def hold(folder: Folder, stack: contextlib.ExitStack) -> None:
    """Make the run folder this run's alone until `stack` closes; UserError where it cannot be."""
    check_shared(folder)
    stack.enter_context(locked(folder))


def report(cfg: Config, rollbacks: int, error: Diverged) -> str:
    """Why a run that diverges ends, and what can be done."""
    returns = f"{rollbacks} return{'s' if rollbacks > 1 else ''}"
    again = f", after {returns} to its newest checkpoint" if rollbacks else ""
    return (
        f"the run has diverged{again}: {error}. The batches are in {cfg.folder / FOLDER}, "
        "and everything up to the newest checkpoint is kept. Lower --optim.learning-rate or "
        "--optim.clip-norm in a new --run-dir, with --init-from to start from a checkpoint."
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: exit status 2 for bad input, 130 when stopped by a signal, 1 to start again.

    It is 0 for a run that was complete before, too.
    """
    with ending_together(), exit_on_user_error():
        try:
            with sigterm_as_ctrl_c():
                train(load(argv))
        except DamagedCheckpoint as error:  # of several processes: the next start does without it
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)
        except (Interrupted, KeyboardInterrupt):
            sys.exit(130)


if __name__ == "__main__":
    main()
