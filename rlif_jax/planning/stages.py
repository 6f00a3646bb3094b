"""The stages of a configuration, as train runs them, lowered for chips that are not there."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jax.stages import Lowered

from rlif_jax import sharding
from rlif_jax.config import Config
from rlif_jax.model.cache import init_cache
from rlif_jax.model.config import ModelConfig
from rlif_jax.model.decoder import Decoder
from rlif_jax.model.lora import lora_of
from rlif_jax.optimizer import make_optimizer, state_shapes
from rlif_jax.planning.ahead import (
    local_bytes,
    made,
    packed_shapes,
    train_batch_shapes,
    with_sharding,
)
from rlif_jax.rewards import samplings
from rlif_jax.sampler.pool_shape import SHARE_OF_FREE_MEMORY, bucket, pool_shape
from rlif_jax.sampler.slots import empty_slots
from rlif_jax.sampler.sync import make_sync
from rlif_jax.step import make_stages

_GIB = 2**30


class StagesAhead:
    """The stages of a run on a mesh, of `model`'s shape, and what a chip holds between them.

    `memory_gib` is a chip's memory, from which the key/value cache takes its share where the
    configuration leaves that open; None: all of it is as large as the sequences need.
    """

    def __init__(self, cfg: Config, model: ModelConfig, mesh: Mesh, memory_gib: float | None):
        self.cfg, self.mesh = cfg, mesh
        self.model = dataclasses.replace(
            model, dtype=cfg.model.dtype, remat=cfg.model.remat, lora=lora_of(cfg.model)
        )
        shapes = nnx.eval_shape(lambda: Decoder.init(self.model, jax.random.key(0)))
        graphdef, params = nnx.split(shapes)
        self.params = with_sharding(params, sharding.param_shardings(params, mesh))
        # Outside the mesh: optax makes a counter, which needs a device that is there.
        updates = cfg.loss.epochs * cfg.loss.mini_batches
        self.state = state_shapes(self.params, make_optimizer(cfg.optim, updates))
        with jax.set_mesh(mesh):
            sync = make_sync(graphdef, cfg.rounded_to, jit=_shapes_only)
            self.decode_params = sync(self.params)
            self.pool_gib = cfg.sampling.cache_gib or self._free_gib(memory_gib)
            sampling = dataclasses.replace(cfg.sampling, cache_gib=self.pool_gib)
            planned = dataclasses.replace(cfg, sampling=sampling)
            self.stages = make_stages(planned, graphdef, pad_id=0)
            self.pool = pool_shape(
                self.model,
                self.stages.engine.batching,
                prompt=cfg.data.max_prompt_tokens,
                new=cfg.sampling.max_new_tokens,
                samples=cfg.sampling.samples_per_prompt,
                sequences=cfg.data.prompts_per_step * cfg.sampling.samples_per_prompt,
                platform=sharding.platform(),
            )
            self.cache = made(
                lambda: init_cache(
                    self.model,
                    pages=self.pool.pages,
                    page=self.pool.page,
                    dtype=self.pool.dtype,
                    kernel=self.pool.kernel,
                )
            )

    def _free_gib(self, memory_gib: float | None) -> float:
        """What a cache may take beside all that lies on a chip while it samples.

        Where that leaves nothing it is as large as the sequences need, and the stages do not fit.
        """
        held = local_bytes(self.state) + self.reference_bytes + self.decode_bytes
        free = math.inf if memory_gib is None else memory_gib - held / _GIB
        return SHARE_OF_FREE_MEMORY * free if 0 < free < math.inf else float(2**20)

    @functools.cached_property
    def slots(self) -> Any:
        """The sampler's slots, as shapes."""
        size = (self.pool.slots, self.model.embed, self.model.dtype)
        return self._made(lambda: empty_slots(*size, self.cfg.sampling.draft_tokens))

    @functools.cached_property
    def prompt_x(self) -> Any:
        """The hidden states behind the prompts that row shards hold, as shapes."""
        axes, rules = ("batch", "hidden"), sharding.RULES_DECODE

        def zeros() -> jax.Array:
            x = jnp.zeros((sharding.slot_shards(), self.model.embed), self.model.dtype)
            return sharding.constrain(x, *axes, rules=rules)

        return self._made(zeros)

    def _made(self, f: Callable[[], Any]) -> Any:
        with jax.set_mesh(self.mesh):
            return made(f)

    # ---- bytes of a chip

    @property
    def params_bytes(self) -> int:
        """Of the parameters that are trained, and of those that are frozen."""
        return local_bytes(self.params)

    @property
    def state_bytes(self) -> int:
        """Of parameters, both moments, and the average where one is kept."""
        return local_bytes(self.state)

    @property
    def reference_bytes(self) -> int:
        """Of the KL term's starting model while it is not scoring."""
        loss = self.cfg.loss
        if not self.cfg.anchored_at_start or loss.reference_on_host or self.model.lora:
            return 0
        return self.params_bytes * jnp.dtype(self.model.dtype).itemsize // 4

    @property
    def decode_bytes(self) -> int:
        """Of the sampler's copy of the weights, which lasts until the update."""
        own = {id(x) for x in jax.tree.leaves(self.params)}
        return local_bytes([x for x in jax.tree.leaves(self.decode_params) if id(x) not in own])

    @property
    def cache_bytes(self) -> int:
        """Of the key/value cache."""
        return local_bytes(self.cache)

    def held_beside(self, stage: str) -> int:
        """Bytes that lie on a chip while a stage runs and are not among its arguments."""
        moments = self.state_bytes - self.params_bytes
        return (
            self.reference_bytes
            + {
                "prefill": self.state_bytes,
                "decode": self.state_bytes,
                "score": moments + self.decode_bytes,
                "update": 0,
            }[stage]
        )

    # ---- stages

    @property
    def names(self) -> list[str]:
        """The stages that a step of this configuration runs, in their order."""
        return ["prefill", "decode", *(["score"] if self.scored else []), "update"]

    @property
    def draws(self) -> int:
        """How often a step samples; each time counts as much as that of the policy's programs."""
        return samplings(self.cfg)

    @property
    def scored(self) -> float:
        """How often a step scores all of its completions, the KL term's pass included."""
        minis = self.cfg.loss.mini_batches
        policy = (minis - 1) / minis if self.stages.score.from_sampler else 1.0
        return policy + bool(self.cfg.loss.kl_coef)

    @property
    def prefill_columns(self) -> int:
        """Columns of the widest prefill, of one prompt on each row shard."""
        return bucket(self.cfg.data.max_prompt_tokens, self.pool.page)

    def lowered(self, stage: str) -> Lowered:
        """A stage for the shapes that it has in a run."""
        with jax.set_mesh(self.mesh):
            return getattr(self, f"_{stage}")()

    def _prefill(self) -> Lowered:
        N, T = sharding.slot_shards(), self.prefill_columns
        lengths, pages = _int32(N), _int32(N, T // self.pool.page)
        args = (self.decode_params, self.cache, self.prompt_x, _int32(N, T), lengths, pages)
        return self.stages.engine.prefill.lower(*args, lengths)

    def _decode(self) -> Lowered:
        B = self.pool.slots
        table, run = _int32(B, self.pool.columns), jax.ShapeDtypeStruct((B,), jnp.bool_)
        args = (self.decode_params, self.cache, self.slots, table, run, _int32())
        return self.stages.engine.decode_chunk.lower(*args)

    def _score(self) -> Lowered:
        score = self.stages.score
        scores: Any = score.at_both or score.at_sampling
        return scores.lower(self.params, packed_shapes(self.stages.form))

    def _update(self) -> Lowered:
        loss, update = self.cfg.loss, self.stages.update
        batch = train_batch_shapes(
            self.stages.form,
            reference=loss.kl_coef > 0,
            selection=loss.variant in ("clip_cov", "kl_cov"),
        )
        return cast(Any, update).lower(self.state, batch)


def _int32(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.int32)  # from the host, as the sampler passes them


def _shapes_only(f: Callable[..., Any], out_shardings: Any) -> Callable[..., Any]:
    """Stands in for `jax.jit(f, out_shardings=...)`: shapes for shapes."""

    def call(*args: Any) -> Any:
        return with_sharding(jax.eval_shape(f, *args), out_shardings)

    return call
