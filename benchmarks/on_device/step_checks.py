"""A real training step of a small model beside its plain reference, and sampler beside trainer."""

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.on_device.kernel_checks import reordered
from benchmarks.on_device.plain_step import by_name, plain_gradient
from benchmarks.on_device.questions import made_questions
from benchmarks.on_device.results import Check
from benchmarks.on_device.runs import Run, make_run
from benchmarks.on_device.sizes import Sizes
from rlif_jax.batch import TrainBatch, TrainState
from rlif_jax.config import Optim
from rlif_jax.console.notice import ignore
from rlif_jax.execution.pool import Judge
from rlif_jax.experience import Experience
from rlif_jax.grpo import train_batches
from rlif_jax.loss.advantages import group_advantages
from rlif_jax.model.config import ModelConfig
from rlif_jax.optimizer import init_state
from rlif_jax.packing import Packing
from rlif_jax.run.clock import Clock
from rlif_jax.step import gather_experience

_SCALE = 0.05  # of weights, so that distributions are not flat


def allowed(cfg: ModelConfig, dtype: str, factor: float) -> tuple[float, str]:
    """What may differ in a number that comes through all layers, in activations of this type.

    In bfloat16 a layer rounds its activations at about eight places, by 2^-9 on average, at random:
    `factor` times as much as these add up to.
    """
    if dtype == "float32":
        return reordered(cfg.embed * cfg.layers)
    places = 8 * cfg.layers
    basis = f"{factor:g} sqrt({places}) 2^-9: activations in bfloat16"
    return factor * math.sqrt(places) * 2.0**-9, basis


def check_step(sizes: Sizes, dtype: str, judge: Judge | None) -> Iterator[Check]:
    """One step: sampled, judged, scored, packed and updated by the stages of a real training.

    The update's gradient is read from its first moment, (1 - b1) times the gradient where the
    moment was zero and nothing is clipped.
    """
    size, optim = sizes.check_step, Optim(clip_norm=math.inf)
    run = make_run(
        sizes.check_model,
        size,
        dtype,
        slots=max(4, size.rows // 2),
        judged=judge is not None,
        scale=_SCALE,
        optim=optim,
    )
    questions = made_questions(size, run.model.reachable, judge)
    seen, *_ = gather_experience(
        run.cfg, run.stages, run.params, lambda: questions, jax.random.key(3), Clock(), ignore
    )
    yield _drift(run, seen, dtype)

    advantage_B = _advantages(run, seen)
    temperature = run.cfg.sampling.temperature
    want, want_BC = plain_gradient(run.model, run.params, seen.rollout, advantage_B, temperature)
    (packing,), batch = _batch(run, seen, advantage_B)
    params = jax.tree.map(jnp.copy, run.params)  # the update uses up its state
    state = init_state(params, run.stages.optimizer)
    state, measured, logprob_MRT = run.stages.update(state, batch)
    got_BC = packing.collect(np.asarray(logprob_MRT), size.new)
    yield _of_logprobs("the update", run, dtype, got_BC, want_BC)
    want = {name: np.asarray(x) for name, x in want.items()}
    yield _of_gradient(run, dtype, _gradient_of(state, optim), want)
    yield _recorded_drift(run, dtype, float(measured["drift/sampler_logprob"]))


def _batch(run: Run, seen: Experience, advantage_B: np.ndarray) -> tuple[list[Packing], TrainBatch]:
    """The step's one mini-batch, packed, and what its update reads."""
    packings = run.stages.pack(seen.rollout)
    old = run.stages.score.old_logprobs(run.params, seen.policy, packings, run.size.new)
    facts = (advantage_B, old, None, run.cfg.loss, 0.0, jax.random.key(0))
    (batch,) = train_batches(packings, seen.rollout, *facts)
    return packings, batch


def _advantages(run: Run, seen: Experience) -> np.ndarray:
    """Those of the judge's rewards; where all of these are equal, ones of alternating sign."""
    cfg = run.cfg
    advantage_B = np.asarray(
        group_advantages(
            seen.reward, cfg.sampling.samples_per_prompt, cfg.loss.advantage, cfg.loss.std_floor
        )
    )
    return advantage_B if advantage_B.any() else 1.0 - 2.0 * (np.arange(run.size.rows) % 2)


def _gradient_of(state: TrainState, optim: Optim) -> dict[str, np.ndarray]:
    moments: Any = optax.tree_utils.tree_get(state.opt_state, "mu")
    return {name: np.asarray(x) / (1 - optim.b1) for name, x in by_name(moments).items()}


def _of_gradient(
    run: Run, dtype: str, got: dict[str, np.ndarray], want: dict[str, np.ndarray]
) -> Check:
    """The weight whose gradient is furthest off, by the norm of the difference."""
    whole = math.sqrt(sum(float((x.astype(np.float64) ** 2).sum()) for x in want.values()))

    def error(name: str) -> float:
        # Of a weight with hardly a gradient what counts is its share of the whole.
        norm = max(float(np.linalg.norm(want[name])), 1e-2 * whole)
        return float(np.linalg.norm(got[name] - want[name])) / norm

    errors = {name: error(name) for name in want}
    worst = max(errors, key=lambda name: (math.isnan(errors[name]), errors[name]))
    tolerance, basis = allowed(run.model, dtype, 8)  # the backward pass rounds as well
    what = f"gradient of a packed update (worst: {worst}, by its norm)"
    return Check("training step", what, dtype, errors[worst], tolerance, basis)


def _of_logprobs(of: str, run: Run, dtype: str, got: np.ndarray, want: np.ndarray) -> Check:
    tolerance, basis = allowed(run.model, dtype, 2)
    error = float(np.abs(got - want).max() / np.abs(want).max())
    return Check("training step", f"log-probabilities of {of}", dtype, error, tolerance, basis)


def _drift(run: Run, seen: Experience, dtype: str) -> Check:
    """Log-probabilities of the sampler beside those of the scorer."""
    mask_BC, policy = np.asarray(seen.rollout.mask), seen.policy or seen.rollout.stats
    sampler_BC, scorer_BC = (
        np.where(mask_BC, np.asarray(stats.logprob), 0.0) for stats in (seen.rollout.stats, policy)
    )
    return _of_logprobs("the sampler beside the scorer's", run, dtype, sampler_BC, scorer_BC)


def _recorded_drift(run: Run, dtype: str, mean: float) -> Check:
    """The mean difference in nats, as a run records it."""
    tolerance, basis = allowed(run.model, dtype, 2)
    what = "drift/sampler_logprob, the mean in nats"
    return Check("training step", what, dtype, mean, tolerance, basis)
