"""Train a code model by reinforcement learning. Every arrow of the flow is on this page.

python -m rlif_jax.train --config=configs/prob_disparity.py [--steps 20] [--run-dir DIR] [--help]
"""

import contextlib
import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from rlif_jax.batch import Evidence, TokenStats, TrainState
from rlif_jax.config.schema import Config, load
from rlif_jax.config.validate import validate
from rlif_jax.console.interrupt import Interrupted, StopRequest, sigterm_as_ctrl_c
from rlif_jax.console.progress import Progress, evaluation_lines
from rlif_jax.data.pipeline import problem_batches
from rlif_jax.data.prompts import EncodedPrompt, PromptOptions, encode_prompt
from rlif_jax.data.training import go_on, position_of, training_problems
from rlif_jax.errors import UserError, exit_on_user_error
from rlif_jax.evaluation.drawing import HeldOut, held_out, make_evaluation
from rlif_jax.evaluation.results import metrics_of
from rlif_jax.evaluation.sample_file import Place
from rlif_jax.execution.pool import Judge, described
from rlif_jax.grpo import init_state, state_shapes, train_batch
from rlif_jax.kernels.precision import products_of
from rlif_jax.loss.grpo_loss import group_advantages
from rlif_jax.programs import Programs, make_programs
from rlif_jax.rewards import combine, known_rewards, needs_all_tests, needs_execution
from rlif_jax.run.checkpoint import Checkpoints
from rlif_jax.run.clock import Clock
from rlif_jax.run.log import RunLog, last_step
from rlif_jax.run.profile import StepTrace
from rlif_jax.run.provenance import check_same_config, recorded_source
from rlif_jax.sampler.engine import Usage
from rlif_jax.sampler.filters import Filters
from rlif_jax.sampler.pool_shape import Batching
from rlif_jax.sharding import make_mesh, skip_absent_tpu
from rlif_jax.step_record import StepRecord
from rlif_jax.storage.compile_cache import keep_compiled
from rlif_jax.submissions import Submissions
from rlif_jax.weights.source import open_model

UNRECORDED = "unrecorded"
"""Where a checkpoint keeps the metrics of a step that was stopped in its evaluation."""


def train(cfg: Config) -> None:
    """Run a configuration to its last step, resuming from the newest checkpoint of its folder.

    Raises:
        UserError: bad input, found as early as it can be; what was recorded before is kept.
        Interrupted: Ctrl-C or SIGTERM, after the last whole step was saved.
        KeyboardInterrupt: the same before there is a state, and a second Ctrl-C.
    """
    # ---- configuration: refuse what cannot run before a device is touched
    validate(cfg, known_rewards())
    check_same_config(cfg.folder, cfg)
    skip_absent_tpu()  # Orbax starts JAX's backend when it opens a folder
    checkpoints = Checkpoints(cfg.folder / "checkpoints", cfg.checkpoint.keep)
    start = step_to_resume(cfg, checkpoints)

    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(Progress(cfg.steps, start))
        stack.callback(checkpoints.close)
        progress.note(f"run folder {cfg.folder}")
        if cfg.compile_cache:
            keep_compiled(progress.note)

        # ---- judge: whether programs can be run safely is known before memory is filled
        tested, judge = runs_tests(cfg), None
        if tested or cfg.eval.every:
            judge = stack.enter_context(Judge(cfg.execution, all_tests(cfg)))
            progress.note(f"programs are isolated: {described(judge.isolation)}")

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
        unseen = held_out_problems(cfg, tokenizer, options, progress)
        mixture = training_problems(
            cfg.data,
            functools.partial(encode_prompt, tokenizer, options=options),
            [] if unseen is None else unseen.statements,
            progress.note,
        )
        data = problem_batches(mixture, cfg.data.prompts_per_step, cfg.seed)
        G = cfg.sampling.samples_per_prompt

        # ---- devices, parameters, programs
        mesh = make_mesh(cfg.mesh.data, cfg.mesh.fsdp, cfg.mesh.tensor)
        stack.enter_context(jax.set_mesh(mesh))

        def loading(_: str, done: int, total: int) -> None:
            progress.phase("loading the parameters", 100 * done // total, 100)

        # A resumed run has its parameters in the checkpoint; the source's are the KL anchor.
        how = (cfg.model.dtype, cfg.model.remat, mesh)
        needed = cfg.loss.kl_coef or not start
        model = opened.load(*how, loading) if needed else opened.shapes(*how)
        graphdef, params = nnx.split(model)
        programs = make_programs(cfg, graphdef, tokenizer)

        # ---- state: from scratch, or from the newest checkpoint
        reference, unrecorded = params if cfg.loss.kl_coef else None, {}
        if start:
            progress.phase(f"resuming after step {start}")
            state, key, position = checkpoints.restore(state_shapes(params, programs.optimizer))
            interrupted = position.pop(UNRECORDED, {})
            unrecorded = interrupted if last_step(cfg.folder) < start else {}
            go_on(data, mixture, position)
        else:
            params = jax.tree.map(jnp.copy, params) if cfg.loss.kl_coef else params
            state, key = init_state(params, programs.optimizer), jax.random.key(cfg.seed)
        del model, params
        position, saved = position_of(data, mixture), start

        facts = {"platform": jax.default_backend(), "devices": [str(d) for d in mesh.devices.flat]}
        facts["isolation"] = None if judge is None else dict(judge.isolation)
        facts["model"] = {"source": opened.source, "revision": opened.revision}
        facts["precision"] = products_of(cfg.model.dtype)
        log = stack.enter_context(RunLog(cfg.folder, cfg, facts, resume_step=start or None))
        opened.describe_run(cfg.folder)

        # ---- from here on there is a state to lose: a signal stops the run at the next notice
        stop = stack.enter_context(StopRequest(progress.note))

        def notice(text: str, done: int | None = None, total: int | None = None) -> None:
            stop.check()
            progress.phase(text, done, total)

        eval_key = jax.random.fold_in(key, 0)
        evaluate = evaluation(cfg, graphdef, programs, tokenizer, unseen, eval_key, judge, notice)
        traced = cfg.profile.traced
        trace = stack.enter_context(StepTrace(cfg.folder / "profile", traced, progress.note))

        # ---- the loop; `unrecorded` are the metrics of a step that only its evaluation lacks
        try:
            if start == 0 and (before := evaluate(0, state.params)):
                log.metrics(0, before)
                for line in evaluation_lines(before):
                    progress.note(f"before training: {line}")
            watch, judge_of_samples = Clock(unrecorded), judge if tested else None
            run_step = functools.partial(train_step, cfg, programs, reference, watch, notice)
            for step in trace.steps(range(start if unrecorded else start + 1, cfg.steps + 1)):
                if not unrecorded:
                    with watch("data"):
                        stop.check()
                        problems = next(data)
                        prompts = [programs.pose(problem) for problem in problems]
                    texts = [prompt.text for prompt in prompts]
                    submissions = Submissions(
                        problems, texts, G, tokenizer, judge_of_samples, notice, opened.cfg.eos_ids
                    )
                    step_key = jax.random.fold_in(key, step)
                    state, record = run_step(state, prompts, step_key, submissions)
                    position = position_of(data, mixture)
                    with watch("record"):
                        log.rollouts(step, record.completions())
                        speed = watch.throughput(*record.tokens(cfg.samples_per_row))
                        unrecorded = record.metrics(cfg) | speed
                with watch("evaluate"):
                    measured = evaluate(step, state.params)
                with watch("record"):
                    values = unrecorded | measured | watch.lap()
                    log.metrics(step, values)
                    unrecorded = {}
                    progress.step(step, values)
                last, every = step == cfg.steps, cfg.checkpoint.every
                if step > saved and (last or (every and step % every == 0)):
                    with watch("save"):
                        progress.phase("saving")
                        checkpoints.save(step, state, key, position)
                    saved = step
        except Interrupted:
            if (done := int(state.step)) > saved:
                if unrecorded:
                    position |= {UNRECORDED: unrecorded | watch.lap()}
                checkpoints.save(done, state, key, position)
            saved_as = "the same command resumes from it" if done else "there is nothing to save"
            progress.note(f"stopped after step {done}; {saved_as}")
            raise
        progress.note(f"done: {cfg.folder} has metrics.jsonl, rollouts/ and checkpoints/")


def train_step(
    cfg: Config,
    programs: Programs,
    reference: Any,
    watch: Clock,
    notice: Callable[..., None],
    state: TrainState,
    prompts: Sequence[EncodedPrompt],
    key: jax.Array,
    submissions: Submissions,
) -> tuple[TrainState, StepRecord]:
    """Prompts in; new state and what metrics.jsonl and rollouts/ show out. `state` is used up.

    `notice(text, done, total)` is told each phase; it may raise to stop before the state is used.
    The record is on the host.
    """
    usage = Usage()
    with watch("sync"):
        decode_params = jax.block_until_ready(programs.sync(state.params))
    with watch("sample"):
        notice("sampling")
        sample_key, reward_key = jax.random.split(key)
        rollout = programs.sample(decode_params, prompts, sample_key, submissions.finished, usage)
    del decode_params
    with watch("score"):  # programs handed in while sampling are being tested meanwhile
        notice("scoring")
        scores = programs.score(state.params, reference, rollout)
    with watch("execute"):
        outcomes = submissions.outcomes()
    with watch("reward"):
        evidence = Evidence(
            stats=scores.reward,
            mask=rollout.mask,
            truncated=rollout.truncated,
            key=reward_key,
            group_size=cfg.sampling.samples_per_prompt,
            outcomes=outcomes if needs_execution(cfg.reward) else None,
        )
        reward_B, terms = combine(cfg.reward, evidence, cfg.loss.std_floor)
        advantage_B = group_advantages(
            reward_B, evidence.group_size, cfg.loss.advantage, cfg.loss.std_floor
        )
        batch = train_batch(
            rollout, advantage_B, scores.policy, scores.reference, cfg.samples_per_row
        )
    with watch("update"):
        notice("updating")
        state, updates = programs.update(state, batch)
    with watch("record"):
        record = StepRecord(
            rollout=rollout,
            policy=scores.policy,
            reward=reward_B,
            terms=terms,
            advantage=advantage_B,
            updates=updates,
            policy_is_sampler=scores.policy is rollout.stats,
            submissions=submissions,
            outcomes=outcomes,
            usage=usage,
        )
        return state, jax.device_get(record)


def step_to_resume(cfg: Config, checkpoints: Checkpoints) -> int:
    """The last step that the run folder has saved, 0 for a new run.

    Raises:
        UserError: the folder is in use and may not be resumed, or the run is already complete.
    """
    start = checkpoints.latest() or 0
    if start and not cfg.resume:
        raise UserError(
            f"{cfg.folder} already holds a run saved at step {start}, which --no-resume would "
            "overwrite. Choose another folder with --run-dir, or remove this one."
        )
    if start >= cfg.steps and last_step(cfg.folder) >= start:  # else its evaluation is missing
        raise UserError(
            f"{cfg.folder} holds a run that is complete at step {start}, and steps={cfg.steps}. "
            f"Raise --steps to go on, or choose another folder with --run-dir."
        )
    return start


def runs_tests(cfg: Config) -> bool:
    """Whether sampled programs are run while training."""
    return needs_execution(cfg.reward) or cfg.execution.monitor


def all_tests(cfg: Config) -> bool:
    """Whether tests after the first failing one are run, too."""
    return cfg.execution.run_all_tests or needs_all_tests(cfg.reward)


def held_out_problems(
    cfg: Config, tokenizer: Any, options: PromptOptions, progress: Progress
) -> HeldOut | None:
    """The problems of the evaluation; None when it is off."""
    if not cfg.eval.every:
        return None
    return held_out(
        cfg.eval.data or cfg.data.name,
        tokenizer,
        cfg.data.max_prompt_tokens,
        options,
        limit=cfg.eval.max_problems,
        keep_errata=cfg.data.keep_errata,
        skip_bad=cfg.data.skip_bad,
        prefix="data.",
        notice=progress.note,
    )


def evaluation(
    cfg: Config,
    graphdef: Any,
    programs: Programs,
    tokenizer: Any,
    unseen: HeldOut | None,
    key: jax.Array,
    judge: Judge | None,
    notice: Callable[..., None],
) -> Callable[[int, Any], dict[str, float]]:
    """`evaluate(step, params) -> metrics` on the held-out problems; none where it is not due.

    It draws with `key` each time and leaves the training stream alone. `notice` may raise to stop.
    """
    if unseen is None:
        return lambda step, params: {}
    sample = make_evaluation(
        graphdef,
        tokenizer,
        unseen,
        samples_per_problem=cfg.eval.samples_per_problem,
        temperature=cfg.eval.temperature,
        max_new_tokens=cfg.sampling.max_new_tokens,
        batching=Batching.of(cfg.sampling),
        filters=Filters.of(cfg.eval),
    )

    def evaluate(step: int, params: Any) -> dict[str, float]:
        if step % cfg.eval.every and step != cfg.steps:
            return {}
        rows: dict[Place, dict[str, Any]] = {}

        def keep(row: dict[str, Any], stats: TokenStats) -> None:
            rows[row["problem"], row["sample"]] = row

        sample(programs.sync(params), key, judge, keep, notice=notice)
        return metrics_of(unseen, rows, cfg.eval.samples_per_problem, cfg.eval.pass_at)

    return evaluate


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: exit status 2 for bad input, 130 when stopped by a signal."""
    with exit_on_user_error():
        try:
            with sigterm_as_ctrl_c():
                train(load(argv))
        except (Interrupted, KeyboardInterrupt):
            sys.exit(130)


if __name__ == "__main__":
    main()
