"""Train a code model by reinforcement learning: the life of a run.

python -m rlif_jax.train --config=configs/prob_disparity.py [--steps 20] [--run-dir DIR] [--help]

One step, from prompts to new parameters, is on its own page: step.py.
"""

import contextlib
import functools
import sys
from collections.abc import Sequence

import jax
from flax import nnx

from rlif_jax.config import Config, load
from rlif_jax.config.validate import validate
from rlif_jax.console.interrupt import Interrupted, StopRequest, sigterm_as_ctrl_c
from rlif_jax.console.progress import Progress, evaluation_lines
from rlif_jax.data.pipeline import problem_batches
from rlif_jax.data.prompts import PromptOptions, encode_prompt, pose
from rlif_jax.data.training import position_of, restore_position, training_problems
from rlif_jax.errors import exit_on_user_error
from rlif_jax.evaluation.during_training import held_out_problems, make_evaluate
from rlif_jax.execution.pool import Judge, described
from rlif_jax.experience import Questions
from rlif_jax.loss.reference import kept_reference
from rlif_jax.model.lora import lora_of, trained
from rlif_jax.optimizer import state_shapes
from rlif_jax.rewards import known_rewards, needs_execution, runs_all_tests
from rlif_jax.run.checkpoint import Checkpoints, DamagedCheckpoint
from rlif_jax.run.clock import Clock
from rlif_jax.run.log import RunLog
from rlif_jax.run.profile import StepTrace
from rlif_jax.run.provenance import check_same_config, run_facts
from rlif_jax.run.resume import joined, resume_point
from rlif_jax.run.retention import quality
from rlif_jax.run.start import initial_state, start_point
from rlif_jax.sharding import make_mesh, skip_absent_tpu
from rlif_jax.step import make_stages, train_step
from rlif_jax.storage.compile_cache import keep_compiled
from rlif_jax.submissions import Submissions
from rlif_jax.weights.run_folder import recorded_source
from rlif_jax.weights.source import open_model


def train(cfg: Config) -> None:
    """Run a configuration to its last step, resuming from the newest checkpoint of its folder.

    Raises:
        UserError: bad input, found as early as it can be; what was recorded before is kept.
        DamagedCheckpoint: the newest checkpoint, which is out of the way now: train again.
        Interrupted: Ctrl-C or SIGTERM, after the last whole step was saved.
        KeyboardInterrupt: the same before there is a state, and a second Ctrl-C.
    """
    # ---- configuration: refuse what cannot run before a device is touched
    validate(cfg, known_rewards())
    check_same_config(cfg.folder, cfg)
    skip_absent_tpu()  # Orbax starts JAX's backend when it opens a folder
    checkpoints = Checkpoints(
        cfg.folder / "checkpoints",
        cfg.checkpoint.keep,
        cfg.checkpoint.adapters_only,
        cfg.checkpoint.keep_every,
        cfg.checkpoint.keep_best,
    )
    resume = resume_point(cfg, checkpoints)
    start = resume.step
    origin = None if start else start_point(cfg)

    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(Progress(cfg.steps, start))
        stack.callback(checkpoints.close)
        progress.note(f"run folder {cfg.folder}")
        if cfg.compile_cache:
            keep_compiled(progress.note)

        # ---- judge: whether programs can be run safely is known before memory is filled
        tested, judge = needs_execution(cfg.reward) or cfg.execution.monitor, None
        if tested or cfg.eval.every:
            judge = stack.enter_context(Judge(cfg.execution, runs_all_tests(cfg)))
            progress.note(f"programs are sandboxed: {described(judge.isolation)}")

        # ---- model and data: found and checked before memory is filled
        progress.phase(f"opening {cfg.model.source}")
        opened = open_model(recorded_source(cfg.folder) or cfg.model.source)
        opened.check_describable()
        for line in opened.check_mesh(cfg.mesh):
            progress.note(line)
        opened.check_length(cfg.data.max_prompt_tokens, cfg.sampling.max_new_tokens)
        progress.note(f"model: {opened.summary()}")
        sets = ", ".join(name for name, _ in cfg.data.mix) or cfg.data.name
        progress.phase(f"preparing the {sets} problems")
        options, tokenizer = PromptOptions.of(cfg.data), opened.tokenizer
        G, eos_ids = cfg.sampling.samples_per_prompt, opened.cfg.eos_ids
        unseen = held_out_problems(cfg, tokenizer, progress.note)
        mixture = training_problems(
            cfg.data,
            functools.partial(encode_prompt, tokenizer, options=options),
            [] if unseen is None else unseen.statements,
            progress.note,
        )
        data = problem_batches(mixture, cfg.data.prompts_per_step, cfg.seed)

        # ---- devices: parameters and the compiled stages
        mesh = make_mesh(cfg.mesh.data, cfg.mesh.fsdp, cfg.mesh.tensor, cfg.mesh.context)
        stack.enter_context(jax.set_mesh(mesh))

        # The trained parameters of a resumed run, and of one with init_from, are in a checkpoint;
        # the source's are the KL anchor.
        numerics, lora = cfg.model, lora_of(cfg.model)
        if cfg.loss.kl_coef or lora or (origin and not origin.source):
            model = opened.load(
                numerics.dtype, numerics.remat, mesh, progress.phase, lora, cfg.seed
            )
        else:
            model = opened.shapes(numerics.dtype, numerics.remat, mesh)
        graphdef, params = nnx.split(model)
        if lora:
            moving = sum(x.size for x in jax.tree.leaves(trained(params)))
            progress.note(f"adapters of {moving:,} parameters are trained, all else is frozen")
        stages = make_stages(cfg, graphdef, tokenizer.pad_token_id)

        # ---- resume: the state of the newest checkpoint, or that of step 0
        reference, unrecorded = None, {}
        if cfg.loss.kl_coef:
            anchor, on_host = trained(params), cfg.loss.reference_on_host
            reference = kept_reference(anchor, cfg.model.dtype, on_host)
        if origin is None:
            progress.phase(f"resuming after step {start}")
            state, key, kept = checkpoints.restore(state_shapes(params, stages.optimizer))
            position, unrecorded = resume.split(kept)
            restore_position(data, mixture, position)
        else:
            if origin.source:
                progress.phase(f"starting from {origin.source}")
            state = initial_state(cfg, origin, params, stages.optimizer)
            key = jax.random.key(cfg.seed)
        del model, params
        position, saved = position_of(data, mixture), start
        facts = run_facts(opened, cfg.model.dtype, mesh, None if judge is None else judge.isolation)
        log = stack.enter_context(RunLog(cfg.folder, cfg, facts, resume_step=start or None))
        opened.describe_run(cfg.folder)

        # ---- from here on there is a state to lose: a signal stops the run at the next notice
        stop = stack.enter_context(StopRequest(progress.note))

        def notice(text: str, done: int | None = None, total: int | None = None) -> None:
            stop.check()
            progress.phase(text, done, total)

        eval_key = jax.random.fold_in(key, 0)
        evaluate = make_evaluate(
            cfg, graphdef, tokenizer, stages.sync, unseen, eval_key, judge, notice
        )
        trace = StepTrace(cfg.folder / "profile", cfg.profile.traced, progress.note)
        stack.enter_context(trace)

        # ---- loop; `unrecorded` are the metrics of a step that lacks only its evaluation
        clock = Clock(unrecorded)

        def ask() -> Questions:
            with clock("data"):
                stop.check()
                problems = next(data)
                prompts = [pose(tokenizer, problem, options) for problem in problems]
                testing = judge if tested else None
                submissions = Submissions(problems, prompts, G, tokenizer, testing, notice, eos_ids)
                return Questions(problems, prompts, submissions)

        try:
            if start == 0 and (before := evaluate(0, state.params)):
                log.metrics(0, before)
                for line in evaluation_lines(before):
                    progress.note(f"before training: {line}")
                clock.lap()  # no part of the first step
            for step in trace.steps(range(start if unrecorded else start + 1, cfg.steps + 1)):
                if not unrecorded:
                    step_key = jax.random.fold_in(key, step)
                    state, record = train_step(
                        cfg, stages, state, reference, ask, step_key, clock, notice
                    )
                    position = position_of(data, mixture)
                    with clock("record"):
                        log.rollouts(step, record.completions())
                        speed = clock.throughput(record.sampled_tokens, record.trained_tokens)
                        unrecorded = record.metrics(cfg) | speed
                with clock("evaluate"):
                    measured = evaluate(step, state.params)
                with clock("record"):
                    values = unrecorded | measured | clock.lap()
                    log.metrics(step, values)
                    unrecorded = {}
                    progress.step(step, values)
                last, every = step == cfg.steps, cfg.checkpoint.every
                if step > saved and (last or (every and step % every == 0)):
                    with clock("save"):
                        progress.phase("saving")
                        checkpoints.save(step, state, key, position, quality(measured))
                    saved = step
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


def _trained(cfg: Config) -> bool:
    """Train; False when that found a damaged checkpoint, which is out of the way now."""
    try:
        train(cfg)
    except DamagedCheckpoint as error:
        if jax.process_count() > 1:  # the others cannot know: the launcher starts all of them again
            raise
        print(f"warning: {error}", file=sys.stderr)
        return False
    return True


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: exit status 2 for bad input, 130 when stopped by a signal.

    A damaged checkpoint is reported, and the run resumes from the one before.
    """
    with exit_on_user_error():
        try:
            with sigterm_as_ctrl_c():
                cfg = load(argv)
                while not _trained(cfg):
                    pass
        except (Interrupted, KeyboardInterrupt):
            sys.exit(130)


if __name__ == "__main__":
    main()
