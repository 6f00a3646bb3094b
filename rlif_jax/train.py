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
import numpy as np
from flax import nnx

from rlif_jax.batch import Evidence, TokenStats, TrainState
from rlif_jax.checkpoint import Checkpoints
from rlif_jax.config import Config, load
from rlif_jax.data.pipeline import problem_batches
from rlif_jax.data.prompts import EncodedPrompt, PromptOptions, encode_prompt
from rlif_jax.data.sample_file import Place
from rlif_jax.data.training import go_on, position_of, training_problems
from rlif_jax.errors import UserError, exit_on_user_error
from rlif_jax.evaluation import HeldOut, held_out, make_evaluation
from rlif_jax.execution.pool import Judge, described
from rlif_jax.grpo import init_state, state_shapes, train_batch
from rlif_jax.grpo_loss import group_advantages
from rlif_jax.interrupt import Interrupted, StopRequest
from rlif_jax.kernels.precision import products_of
from rlif_jax.metrics import execution_metrics, reward_metrics, rollout_metrics
from rlif_jax.model.source import open_model
from rlif_jax.programs import Programs, make_programs
from rlif_jax.progress import Progress, evaluation_lines
from rlif_jax.provenance import check_same_config, recorded_source
from rlif_jax.results import metrics_of
from rlif_jax.rewards import combine, known_rewards, needs_all_tests, needs_execution
from rlif_jax.runlog import RunLog, completion_records
from rlif_jax.sampler.batching import Usage
from rlif_jax.sampler.budget import Batching
from rlif_jax.sampler.filters import Filters
from rlif_jax.sharding import make_mesh, skip_absent_tpu
from rlif_jax.submissions import Submissions
from rlif_jax.timing import Watch
from rlif_jax.validation import validate


def train(cfg: Config) -> None:
    """Run a configuration to its last step, going on from the newest checkpoint of its folder.

    Raises:
        UserError: bad input, found as early as it can be; what was recorded before is kept.
        Interrupted: Ctrl-C or SIGTERM, after the last whole step was saved.
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
        stop = stack.enter_context(StopRequest(progress.note))
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
            stop.check()
            progress.phase("loading the parameters", 100 * done // total, 100)

        # A resumed run has its parameters in the checkpoint; the source's are the KL anchor.
        how = (cfg.model.dtype, cfg.model.remat, mesh)
        needed = cfg.loss.kl_coef or not start
        model = opened.load(*how, loading) if needed else opened.shapes(*how)
        graphdef, params = nnx.split(model)
        programs = make_programs(cfg, graphdef, tokenizer)
        evaluate = evaluation(cfg, graphdef, tokenizer, unseen)

        # ---- state: from scratch, or from the newest checkpoint
        reference = params if cfg.loss.kl_coef else None
        if start:
            progress.phase(f"resuming after step {start}")
            state, key, position = checkpoints.restore(state_shapes(params, programs.optimizer))
            go_on(data, mixture, position)
        else:
            params = jax.tree.map(jnp.copy, params) if cfg.loss.kl_coef else params
            state, key = init_state(params, programs.optimizer), jax.random.key(cfg.seed)
        del model, params
        eval_key, saved = jax.random.fold_in(key, 0), start
        position = position_of(data, mixture)

        facts = {"platform": jax.default_backend(), "devices": [str(d) for d in mesh.devices.flat]}
        facts["isolation"] = None if judge is None else dict(judge.isolation)
        facts["model"] = {"source": opened.source, "revision": opened.revision}
        facts["precision"] = products_of(cfg.model.dtype)
        log = stack.enter_context(RunLog(cfg.folder, cfg, facts, resume_step=start or None))
        opened.describe_run(cfg.folder)

        def notice(text, done=None, total=None):
            stop.check()
            progress.phase(text, done, total)

        if evaluate and start == 0:
            before = evaluate(programs.sync(state.params), eval_key, judge, progress.phase)
            log.metrics(0, before)
            for line in evaluation_lines(before):
                progress.note(f"before training: {line}")

        # ---- the loop
        try:
            for step in range(start + 1, cfg.steps + 1):
                watch, step_key = Watch(), jax.random.fold_in(key, step)
                with watch("data"):
                    problems = next(data)
                    prompts = [programs.pose(problem) for problem in problems]
                texts = [prompt.text for prompt in prompts]
                submissions = Submissions(
                    problems, texts, G, tokenizer, judge if tested else None, notice
                )
                state, values, records = train_step(
                    cfg, programs, state, reference, prompts, step_key, submissions, watch, notice
                )
                position = position_of(data, mixture)
                if evaluate and (step % cfg.eval.every == 0 or step == cfg.steps):
                    values |= evaluate(programs.sync(state.params), eval_key, judge, progress.phase)
                log.rollouts(step, records)
                log.metrics(step, values)
                progress.step(step, values)
                if step == cfg.steps or (cfg.checkpoint.every and step % cfg.checkpoint.every == 0):
                    progress.phase("saving")
                    checkpoints.save(step, state, key, position)
                    saved = step
        except Interrupted:
            if (done := int(state.step)) > saved:
                checkpoints.save(done, state, key, position)
            saving = (
                "it is saved, and the same command goes on" if done else "there is nothing to save"
            )
            progress.note(f"stopped after step {done}; {saving}")
            raise
        progress.note(f"done: {cfg.folder} has metrics.jsonl, rollouts/ and checkpoints/")


def train_step(
    cfg: Config,
    programs: Programs,
    state: TrainState,
    reference: Any,
    prompts: Sequence[EncodedPrompt],
    key: jax.Array,
    submissions: Submissions,
    watch: Watch,
    notice: Callable[..., None],
) -> tuple[TrainState, dict[str, float], list[dict[str, Any]]]:
    """Prompts in; new state, metrics and one record per completion out. `state` is used up.

    `notice(text, done, total)` is told each phase; it may raise to stop before the state is used.
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
        notice("waiting for tests")
        outcomes = submissions.outcomes()

    evidence = Evidence(
        stats=scores.reward,
        mask=rollout.mask,
        truncated=rollout.truncated,
        key=reward_key,
        group_size=cfg.sampling.samples_per_prompt,
        outcomes=outcomes if needs_execution(cfg.reward) else None,
    )
    reward_B, terms = combine(cfg.reward, evidence)
    advantage_B = group_advantages(
        reward_B, evidence.group_size, cfg.loss.advantage, cfg.loss.std_floor
    )
    batch = train_batch(rollout, advantage_B, scores.policy, scores.reference, cfg.samples_per_row)

    with watch("update"):
        notice("updating")
        state, update_metrics = programs.update(state, batch)

    values = {
        **reward_metrics(reward_B, terms, evidence.group_size, cfg.loss.std_floor),
        **rollout_metrics(
            scores.policy,
            rollout.mask,
            rollout.truncated,
            submissions.texts,
            max_new_tokens=cfg.sampling.max_new_tokens,
            sampler_stats=None if scores.policy is rollout.stats else rollout.stats,
        ),
        **({} if outcomes is None else execution_metrics(outcomes)),
        **{name: float(np.mean([m[name] for m in update_metrics])) for name in update_metrics[0]},
        **watch.metrics(int(rollout.length.sum()), int(batch.sequences.mask.sum())),
        "throughput/slot_use": usage.useful / usage.slot_steps,
    }
    if scores.policy is rollout.stats:  # the update has seen the trainer's before it changed them
        values["drift/sampler_logprob"] = float(update_metrics[0]["loss/old_distance"])
    records = completion_records(
        submissions.problems,
        [prompt.text for prompt in prompts],
        submissions.texts,
        submissions.codes,
        reward=reward_B,
        terms=terms,
        advantage=advantage_B,
        outcomes=outcomes,
        length=rollout.length,
        truncated=rollout.truncated,
    )
    return state, values, records


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
    if start >= cfg.steps:
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
    cfg: Config, graphdef: Any, tokenizer: Any, unseen: HeldOut | None
) -> Callable[..., dict[str, float]] | None:
    """`evaluate(params, key, judge, notice) -> metrics` on held-out problems; None when it is off.

    It has keys of its own and leaves the training stream alone.
    """
    if unseen is None:
        return None
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

    def evaluate(params: Any, key: jax.Array, judge: Judge, notice: Callable[..., None]):
        rows: dict[Place, dict[str, Any]] = {}

        def keep(row: dict[str, Any], stats: TokenStats) -> None:
            rows[row["problem"], row["sample"]] = row

        sample(params, key, judge, keep, notice=notice)
        return metrics_of(unseen, rows, cfg.eval.samples_per_problem, cfg.eval.pass_at)

    return evaluate


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: exit status 2 for bad input, 130 when stopped by a signal."""
    with exit_on_user_error():
        try:
            train(load(argv))
        except (Interrupted, KeyboardInterrupt):
            sys.exit(130)


if __name__ == "__main__":
    main()
