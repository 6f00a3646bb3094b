"""Continuous batching: more sequences than slots, of unequal lengths, through the same stages.

`schedule.py` hands the waiting (prompt, sample) pairs to slots as these fall free; here the
device does what it says. When nothing waits and most slots are empty, the rest continue in fewer
slots.

Every process of a multi-host run takes the same decisions, for they depend on nothing but what has
been asked for and drawn.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from rlif_jax import sharding
from rlif_jax.batch import Array, Params
from rlif_jax.errors import UserError
from rlif_jax.model.cache import PagedCache, init_cache
from rlif_jax.model.config import ModelConfig
from rlif_jax.model.lora import without_adapters
from rlif_jax.sampler.decode import (
    make_admit,
    make_decode_chunk,
    make_narrow,
    make_prefill,
)
from rlif_jax.sampler.filters import NO_FILTERS, Filters
from rlif_jax.sampler.pool_shape import Batching, PoolShape, bucket, pool_shape
from rlif_jax.sampler.requests import Finished, Request, Stop
from rlif_jax.sampler.schedule import Drawn, Schedule
from rlif_jax.sampler.slots import Block, Slots, empty_slots


@dataclass
class Usage:
    """What a run has cost so far: slot-steps done, steps, chunks, prompts computed.

    `drawing` are the slot-steps that drew something, and `drawn` the tokens: more, where guesses
    were right. `useful` counts the tokens of finished samples, so it is whole only at the end.
    """

    slot_steps: int = 0
    drawing: int = 0
    drawn: int = 0
    useful: int = 0
    steps: int = 0
    chunks: int = 0
    prefills: int = 0

    @property
    def tokens_per_draw(self) -> float:
        """Tokens that a slot has drawn in a step on average: 1 unless tokens are guessed ahead."""
        return self.drawn / max(self.drawing, 1)

    @property
    def slot_use(self) -> float:
        """The share of slot-steps that drew a token of a finished sample."""
        return self.useful / self.tokens_per_draw / self.slot_steps


class Engine:
    """The compiled stages of a sampler, and `run`, which puts requests through them."""

    def __init__(
        self,
        graphdef: nnx.GraphDef,
        *,
        temperature: float,
        batching: Batching | None = None,
        filters: Filters = NO_FILTERS,
        eos_ids: tuple[int, ...] | None = None,
        with_stats: bool = True,
    ):
        self.batching = batching = batching or Batching()
        self.graphdef, self._eos_ids = without_adapters(graphdef), eos_ids
        self.prefill = make_prefill(self.graphdef)
        self.admit = make_admit()
        self.decode_chunk = make_decode_chunk(
            self.graphdef,
            tokens=batching.chunk,
            temperature=temperature,
            filters=filters,
            eos_ids=eos_ids,
            with_stats=with_stats,
            drafts=batching.draft_tokens,
        )
        self.narrow = make_narrow()

    def run(
        self,
        params: Params,
        prompts: Sequence[Sequence[int]],
        requests: Sequence[Request],
        *,
        shape: PoolShape | None = None,
        stop: Stop | None = None,
        usage: Usage | None = None,
    ) -> Iterator[list[Finished]]:
        """Sample every request; yields those that have finished, chunk by chunk.

        `shape` fixes the pool and the page table over several runs, so that nothing is compiled
        again; by default they are made for these requests. The mesh is that of `jax.set_mesh` at
        the call, wherever the results are then taken.

        Raises:
            UserError: at the call: an empty prompt, a sequence for which the cache is too small, or
                parameters that are on other devices than the mesh.
        """
        if not requests:
            return iter(())
        mesh = jax.sharding.get_mesh()
        _check_place(params, mesh)
        cfg = nnx.merge(self.graphdef, params).cfg
        shape = shape or _shape_for(cfg, self.batching, prompts, requests)
        shape.check(prompts, [(request.prompt, request.limit) for request in requests])
        schedule = Schedule(
            shape,
            sharding.slot_shards(),
            prompts,
            requests,
            chunk=self.batching.chunk,
            narrow_for=self.batching.narrow_for,
            drafts=self.batching.draft_tokens > 0,
            eos_ids=cfg.eos_ids if self._eos_ids is None else self._eos_ids,
            stop=stop,
        )
        return self._steps(params, cfg, shape, schedule, mesh, usage or Usage())

    def _steps(
        self,
        params: Params,
        cfg: ModelConfig,
        shape: PoolShape,
        schedule: Schedule,
        mesh: Mesh,
        usage: Usage,
    ) -> Iterator[list[Finished]]:
        """Advance until nothing is left, on `mesh`, though others may be set between results.

        A chunk starts before what the last has drawn is recorded and handed out, so that the host's
        work hides behind the device's; unless texts decide which sequences continue.
        """
        with _on(mesh):
            device = _on_device(params, cfg, shape, self.batching.draft_tokens)
            block = self._start_chunk(device, schedule, usage)
        while block is not None:
            with _on(mesh):
                drawn = self._settle(block, schedule, usage)
                finished = self._record(block, drawn, schedule) if schedule.reads_texts else None
                following = self._start_chunk(device, schedule, usage)
                if finished is None:
                    finished = self._record(block, drawn, schedule)
            usage.useful += sum(len(one.tokens) for one in finished)
            yield finished
            block = following

    def _start_chunk(self, device: "_Device", schedule: Schedule, usage: Usage) -> Block | None:
        """Refill, narrow, and start to decode a chunk; None if nothing is left."""
        if not schedule.unfinished:
            return None
        d = device
        while (work := schedule.next_round()) is not None:
            prefills, admission = work
            for call in prefills:
                prompts = (call.tokens, call.length, call.pages, call.page_count)
                d.cache, d.prompt_x = self.prefill(d.params, d.cache, d.prompt_x, *prompts)
                usage.prefills += int((call.length > 0).sum())
            if admission is not None:
                d.cache, d.slots = self.admit(d.cache, d.slots, d.prompt_x, admission)
        if (rows := schedule.narrow()) is not None:
            d.slots = self.narrow(d.slots, rows)
        table_BJ, run_B = schedule.table()
        if not run_B.any():
            raise RuntimeError("no sequence has the pages to continue: the allocator has lost some")
        d.cache, d.slots, block = self.decode_chunk(
            d.params, d.cache, d.slots, table_BJ, run_B, np.int32(schedule.leave_after)
        )
        for x in jax.tree.leaves(block):
            x.copy_to_host_async()
        return block

    def _settle(self, block: Block, schedule: Schedule, usage: Usage) -> list[Drawn]:
        """Wait for a chunk, and see which sequences are over."""
        count_B, passes_B, live_B, steps = jax.device_get(
            (block.count, block.passes, block.live, block.steps)
        )
        usage.chunks += 1
        usage.steps += int(steps)
        usage.slot_steps += int(steps) * len(count_B)
        usage.drawing += int(passes_B.sum())
        usage.drawn += int(count_B.sum())
        return schedule.settle(count_B, live_B)

    def _record(self, block: Block, drawn: list[Drawn], schedule: Schedule) -> list[Finished]:
        return schedule.record(drawn, *jax.device_get((block.tokens, block.stats)))


@dataclass
class _Device:
    """What lies on the devices during a run; the stages use up all but `params`."""

    params: Params
    cache: PagedCache
    slots: Slots
    prompt_x: Array


def _on_device(params: Params, cfg: ModelConfig, shape: PoolShape, drafts: int) -> _Device:
    """Parameters, and cache, slots and prompts before anything is in them."""
    cache = init_cache(
        cfg, pages=shape.pages, page=shape.page, dtype=shape.dtype, kernel=shape.kernel
    )
    slots = empty_slots(shape.slots, cfg.embed, cfg.dtype, drafts)
    prompt_x = jnp.zeros((sharding.slot_shards(), cfg.embed), cfg.dtype)
    everything: Any = (
        params,
        cache,
        slots,
        sharding.constrain(prompt_x, "batch", "hidden", rules=sharding.RULES_DECODE),
    )
    mesh = jax.sharding.get_mesh()
    if mesh.empty or mesh.size == 1:
        # Nothing moves, but with one sharding for all no stage is compiled twice.
        place = jax.tree.leaves(params)[0].sharding if mesh.empty else sharding.replicated(mesh)
        everything = jax.device_put(everything, place)
    return _Device(*everything)


def _check_place(params: Params, mesh: Mesh) -> None:
    devices = jax.tree.leaves(params)[0].sharding.device_set
    if len(devices) > 1 if mesh.empty else devices != set(mesh.devices.flat):
        raise UserError(
            f"the parameters are on {len(devices)} devices and the mesh of jax.set_mesh has "
            f"{mesh.size}; sample under the mesh that the parameters were laid out on"
        )


def _on(mesh: Mesh) -> AbstractContextManager:
    """`mesh` as that of `jax.set_mesh`."""
    if not mesh.empty:
        return jax.set_mesh(mesh)
    if not jax.sharding.get_mesh().empty:
        raise UserError(
            "sampling began without a mesh and its results are taken under one; take them outside"
        )
    return nullcontext()


def _shape_for(
    cfg: ModelConfig,
    batching: Batching,
    prompts: Sequence[Sequence[int]],
    requests: Sequence[Request],
) -> PoolShape:
    """Shapes that suit these requests, rounded so that others like them have the same."""
    lengths = [len(prompts[request.prompt]) for request in requests]
    samples = min(Counter(request.prompt for request in requests).values())
    return pool_shape(
        cfg,
        batching,
        prompt=bucket(max(lengths), batching.page),
        new=bucket(max(request.limit for request in requests), batching.page),
        total=max(n + request.limit for n, request in zip(lengths, requests, strict=True)),
        samples=1 << (samples.bit_length() - 1),
        sequences=1 << (len(requests) - 1).bit_length(),
    )
