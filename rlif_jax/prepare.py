"""What a run needs before its first step, in the order in which it can fail.

Judge, model and problems are found and checked before memory is filled (`open_inputs`); then come
devices, parameters, compiled stages and the state (`begin`). Training and replay begin alike.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx

from rlif_jax import distributed
from rlif_jax.batch import Params, TrainState
from rlif_jax.config import Config, Processes
from rlif_jax.config.spans import Span
from rlif_jax.console.notice import Notice
from rlif_jax.console.progress import Progress
from rlif_jax.data.generated_tests import longer_prompt, pose_tests
from rlif_jax.data.pipeline import Mixture, problem_batches
from rlif_jax.data.prompts import PromptOptions, encode_prompt, pose
from rlif_jax.data.selection import example_filter
from rlif_jax.data.training import Batches, restore_position, training_problems
from rlif_jax.data.vote_inputs import vote_problem
from rlif_jax.errors import UserError
from rlif_jax.evaluation.drawing import HeldOut
from rlif_jax.evaluation.during_training import held_out_problems
from rlif_jax.execution.pool import Judge, described
from rlif_jax.experience import Ask, Questions
from rlif_jax.loss.reference import kept_reference
from rlif_jax.model.lora import lora_of, trained
from rlif_jax.optimizer import state_shapes
from rlif_jax.rewards import (
    needs_teacher,
    reward_after_collapse,
    runs_all_tests,
    runs_programs,
    writes_tests,
)
from rlif_jax.run.checkpoint import Checkpoints
from rlif_jax.run.clock import Clock
from rlif_jax.run.start import initial_state, start_point
from rlif_jax.sharding import make_mesh
from rlif_jax.step import Stages, make_stages
from rlif_jax.submissions import Submissions
from rlif_jax.weights.run_folder import recorded_source
from rlif_jax.weights.source import OpenModel, open_model


@dataclass(frozen=True)
class Inputs:
    """What a run reads. `judge` runs the programs of training only where they are `tested`.

    `unseen` are the problems of the evaluation. `data` gives this process's share of each batch of
    `mixture`.
    """

    judge: Judge | None
    tested: bool
    model: OpenModel
    unseen: HeldOut | None
    mixture: Mixture
    data: Batches


def open_inputs(cfg: Config, stack: contextlib.ExitStack, progress: Progress) -> Inputs:
    """Find and check what a configuration names; `stack` closes it.

    Raises UserError for what is missing or does not fit.
    """
    # ---- judge: whether programs can be run safely is known before memory is filled
    tested, judge = runs_programs(cfg), None
    if tested or cfg.eval.every:
        judge = stack.enter_context(Judge(cfg.execution, runs_all_tests(cfg)))
        progress.note(f"programs are sandboxed: {described(judge.isolation)}")

    # ---- model
    progress.phase(f"opening {cfg.model.source}")
    source = cfg.model.source
    opened = open_model(recorded_source(cfg.folder, source) or source)
    opened.check_describable()
    for line in opened.check_mesh(cfg.mesh):
        progress.note(line)
    opened.check_length(cfg.data.max_prompt_tokens, cfg.sampling.max_new_tokens)
    progress.note(f"model: {opened.summary()}")

    # ---- problems
    sets = ", ".join(name for name, _ in cfg.data.mix) or cfg.data.name
    progress.phase(f"preparing the {sets} problems")
    tokenizer, options = opened.tokenizer, PromptOptions.of(cfg.data)
    unseen = held_out_problems(cfg, tokenizer, progress.note)
    # A problem is left out where the prompt that asks for its tests is too long.
    encode = longer_prompt if writes_tests(cfg) else encode_prompt
    mixture = training_problems(
        cfg.data,
        functools.partial(encode, tokenizer, options=options),
        [] if unseen is None else unseen.statements,
        progress.note,
        [example_filter(cfg.reward.vote_inputs)] if tested and cfg.reward.reads_examples else [],
    )
    index, count = distributed.process_index(), distributed.process_count()
    data = problem_batches(mixture, cfg.data.prompts_per_step // count, cfg.seed, index, count)
    distributed.check_same(
        {
            "the model": (opened.source, opened.cfg),
            "the problems to train on": (mixture.digest, mixture.longest_prompt),
            "the held-out problems": unseen and unseen.digest,
            "the configuration": _shared(cfg),
        }
    )
    return Inputs(judge, tested, opened, unseen, mixture, data)


def _shared(cfg: Config) -> Config:
    """A configuration but for what each process has of its own."""
    execution = dataclasses.replace(cfg.execution, workers=1)
    return dataclasses.replace(cfg, processes=Processes(), execution=execution)


def check_shares(cfg: Config) -> None:
    """Refuse a batch that the processes cannot share out evenly. Raises UserError."""
    N, count = cfg.data.prompts_per_step, distributed.process_count()
    if N % count:
        raise UserError(
            f"data.prompts_per_step={N} cannot be shared out evenly by {count} processes, each of "
            f"which judges whole groups; use a multiple of {count}"
        )


def make_ask(
    cfg: Config, inputs: Inputs, clock: Clock, check: Callable[[], None], notice: Notice
) -> Ask:
    """Build `ask()`, which gives the next N problems, posed; this process judges its share.

    `check()` is called first and may raise to stop.
    """
    tokenizer, options = inputs.model.tokenizer, PromptOptions.of(cfg.data)
    index, count = distributed.process_index(), distributed.process_count()
    taught = any(map(needs_teacher, (cfg.reward, reward_after_collapse(cfg))))

    def ask() -> Questions:
        with clock("data"):
            check()
            own = next(inputs.data)
            posed = [pose(tokenizer, problem, options) for problem in own]
            statements = [dataclasses.replace(problem, tests=()) for problem in own]
            shares = distributed.gathered((statements, posed))
            problems = distributed.in_turns([share[0] for share in shares])
            problems[index::count] = own
            prompts = distributed.in_turns([share[1] for share in shares])
            # Of other processes' problems there are only the statements, and nothing to run.
            mine = range(index, len(problems), count)
            desk = functools.partial(
                Submissions,
                problems,
                group=cfg.sampling.samples_per_prompt,
                tokenizer=tokenizer,
                notice=notice,
                eos_ids=inputs.model.cfg.eos_ids,
                share=mine,
            )
            tests = vote_on = None
            if writes_tests(cfg):
                asked = [pose_tests(tokenizer, problem, options) for problem in problems]
                texts = desk(asked, judge=None, phase="asking for tests")
                tests = Questions(problems, asked, texts)
            elif cfg.reward.reads_examples:
                vote = cfg.reward.vote_inputs, cfg.reward.fuzz_inputs
                vote_on = {n: vote_problem(problems[n], *vote) for n in mine}
            submissions = functools.partial(
                desk,
                prompts,
                judge=inputs.judge if inputs.tested else None,
                vote_on=vote_on,
                twice=cfg.gates.deterministic,
            )
            policy = submissions(part=Span.parse(cfg.reward.over).part)
            return Questions(problems, prompts, policy, tests, submissions() if taught else None)

    return ask


@dataclass(frozen=True)
class Beginning:
    """What the steps of a run begin with, on the devices of the mesh of `jax.set_mesh`.

    `reference` is the starting model, where a KL term is anchored in it; `kept` is what a
    checkpoint keeps beside the state, and {} at the start of the run.
    """

    inputs: Inputs
    graphdef: nnx.GraphDef
    stages: Stages
    reference: Params | None
    state: TrainState
    key: jax.Array
    kept: dict[str, Any]


def begin(
    cfg: Config,
    start: int,
    checkpoints: Checkpoints,
    stack: contextlib.ExitStack,
    progress: Progress,
) -> Beginning:
    """Inputs, mesh, parameters, stages and state, to go on after step `start` of a run.

    It is the step of one of `checkpoints`, or 0 for where the run starts. The mesh is that of
    `jax.set_mesh` until `stack` closes. Parameters are loaded where the run starts from them, where
    a KL term is anchored in the starting model, and where they stay frozen beside adapters.

    Raises UserError for what is missing or does not fit, and DamagedCheckpoint.
    """
    origin = None if start else start_point(cfg)
    inputs = open_inputs(cfg, stack, progress)
    opened, numerics, lora = inputs.model, cfg.model, lora_of(cfg.model)

    # ---- mesh, parameters or their shapes, stages
    mesh = make_mesh(cfg.mesh.data, cfg.mesh.fsdp, cfg.mesh.tensor, cfg.mesh.context)
    stack.enter_context(jax.set_mesh(mesh))
    from_source = origin is not None and not origin.source
    if from_source or cfg.anchored_at_start or lora:
        model = opened.load(numerics.dtype, numerics.remat, mesh, progress.phase, lora, cfg.seed)
    else:
        model = opened.shapes(numerics.dtype, numerics.remat, mesh)
    graphdef, params = nnx.split(model)
    if lora:
        moving = sum(x.size for x in jax.tree.leaves(trained(params)))
        progress.note(f"adapters of {moving:,} parameters are trained, all else is frozen")
    # Shapes are for the prompts that there are, which may all be shorter than allowed.
    data = dataclasses.replace(cfg.data, max_prompt_tokens=inputs.mixture.longest_prompt)
    shaped = dataclasses.replace(cfg, data=data)
    stages = make_stages(shaped, graphdef, opened.tokenizer.pad_token_id)
    reference = None
    if cfg.anchored_at_start:
        anchor, on_host = trained(params), cfg.loss.reference_on_host
        reference = kept_reference(anchor, numerics.dtype, on_host)

    # ---- the state of a checkpoint, or that of step 0
    if origin is None:
        progress.phase(f"resuming after step {start}")
        shapes = state_shapes(params, stages.optimizer)
        state, key, kept = checkpoints.restore(shapes, step=start)
        restore_position(inputs.data, inputs.mixture, kept)
    else:
        if origin.source:
            progress.phase(f"starting from {origin.source}")
        state = initial_state(cfg, origin, params, stages.optimizer)
        key, kept = jax.random.key(cfg.seed), {}
    return Beginning(inputs, graphdef, stages, reference, state, key, kept)
