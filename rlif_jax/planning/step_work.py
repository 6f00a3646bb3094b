"""What the stages of a step do on one chip, given what XLA made of them and the step's lengths."""

import math
import re
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from rlif_jax.kernels.attention import blocked, splash
from rlif_jax.model.cache import heads_of_device
from rlif_jax.model.config import ModelConfig, param_specs
from rlif_jax.packing import Form, pack
from rlif_jax.planning.ahead import local_bytes
from rlif_jax.planning.counts import Work, work_of
from rlif_jax.planning.lengths import Lengths
from rlif_jax.planning.rollout import Chunk, Played
from rlif_jax.planning.stages import StagesAhead

_KERNEL_PRODUCTS = {"splash_mha_fwd": 2, "splash_mha_dq": 3, "splash_mha_dkv": 4}
"""Products of a query block and a key block in the passes of the attention kernel of TPUs."""

_CACHE_KERNELS = ("paged_attention", "write_token")


@dataclass(frozen=True)
class PackedLengths:
    """A mini-batch of a step as it is packed.

    `pieces` micro-batches hold anything, of `columns` columns together, `filled` of them with a
    token. `blocks` are the pairs of blocks, `edge` columns by `edge`, that attention visits on the
    row shard that visits most, of each piece, all pieces together; `queries` are the blocks of
    queries of all row shards.
    """

    pieces: int
    columns: int
    filled: int
    blocks: int
    edge: int
    queries: int

    @classmethod
    def of(
        cls, lengths: Lengths, prompts: np.ndarray, form: Form, platform: str
    ) -> "PackedLengths":
        """The completions of these prompts, packed as train packs them."""
        G = len(lengths.response_B) // len(lengths.prompt_N)
        rows = (prompts[:, None] * G + np.arange(G)).reshape(-1)
        packing = pack(
            [np.ones(n, np.int32) for n in lengths.prompt_N[prompts]],
            [np.ones(n, np.int32) for n in lengths.response_B[rows]],
            G,
            form,
        )
        count = int(packing.packed.count)
        own, prefix = (
            jnp.asarray(x[:count].reshape(-1, form.columns))
            for x in (packing.packed.segment, packing.packed.prefix)
        )
        edge = splash.block_columns(form.columns)
        if platform != "tpu":  # what is read there is what XLA made of attention for a CPU
            edge = min(blocked.form_for("cpu", "float32").block, form.columns)
        visited = splash.visited_blocks(own, prefix if form.shared else None, edge)
        blocks_MR = np.asarray(visited.sum(axis=(1, 2))).reshape(count, form.rows)
        return cls(
            pieces=count,
            columns=packing.columns,
            filled=packing.filled,
            blocks=int(blocks_MR.max(axis=1).sum()),
            edge=edge,
            queries=visited.shape[0] * visited.shape[1],
        )


def rows_work(text: str, ahead: StagesAhead, packed: PackedLengths, attention_parts: int) -> Work:
    """What the scorer or the update of this text does with a mini-batch."""
    kernels = _attention_kernels(ahead.model, attention_parts, packed)
    named = {name: work for name, work in kernels.items() if _is_called(name, text)}
    visited = packed.blocks * ahead.stages.form.rows / packed.queries  # by a block of queries
    return work_of(text, turns=packed.pieces, kernels=named, inner=visited)


def _is_called(kernel: str, text: str) -> bool:
    """Whether a stage has a custom call with this in its name."""
    return re.search(rf"%[\w.\-]*{kernel}[\w.\-]* = .* custom-call\(", text) is not None


def _attention_kernels(model: ModelConfig, parts: int, packed: PackedLengths) -> dict[str, Work]:
    """What one call of each attention kernel does, on average over the micro-batches.

    Keys and values of a visited block are read once for every query head.
    """
    heads, A, edge = math.ceil(model.heads / parts), model.head_dim, packed.edge
    blocks = packed.blocks / packed.pieces
    return {
        name: Work(
            flops=2.0 * products * A * edge * edge * blocks * heads,
            bytes=2.0 * 2 * edge * A * blocks * heads,
        )
        for name, products in _KERNEL_PRODUCTS.items()
    }


def prefill_work(text: str, ahead: StagesAhead, played: Played) -> Work:
    """Of all prompts: a narrower call does its share of the columns' work."""
    # On CPUs a block of queries visits the blocks of keys up to its own: half of them on average.
    blocks = -(-ahead.prefill_columns // blocked.form_for("cpu", "float32").block)
    widest = work_of(text, inner=(blocks + 1) / 2)
    columns = sum(width * calls for width, calls in played.prefills.items())
    return columns / ahead.prefill_columns * widest


@dataclass(frozen=True)
class DecodeSteps:
    """What a decode step does on one chip.

    `fixed` is what does not depend on the slots: reading the weights. `slot` is the rest, of one
    slot; `token` what each token in the cache adds.
    """

    fixed: Work
    slot: Work
    token: Work

    @classmethod
    def of(cls, text: str, ahead: StagesAhead, shards: int, tensor: int) -> "DecodeSteps":
        """Read from the compiled chunk, but for what the cache's kernel reads: that is `token`."""
        cache = {name: Work() for name in _CACHE_KERNELS if _is_called(name, text)}
        # Loops inside are those of the plain kernel over pages: what they do is `token`, too.
        once, none = (work_of(text, turns=n, kernels=cache, inner=0) for n in (1, 0))
        one_step = once + -1 * none
        weights = local_bytes(ahead.decode_params)
        rest = max(one_step.bytes - weights, 0.0) if cache else 0.0
        each = ahead.pool.slots // shards
        model, (queries, heads) = ahead.model, heads_of_device(ahead.model, tensor)
        row = 2 * model.layers * heads * model.head_dim
        # The accelerators' kernels read a slot's pages for each of its queries.
        per_slot = 1 + ahead.cfg.sampling.draft_tokens
        return cls(
            fixed=Work(bytes=weights),
            slot=(1 / each) * Work(one_step.flops, rest, one_step.sent),
            token=Work(
                flops=4.0 * per_slot * model.layers * queries * model.head_dim,
                bytes=per_slot * row * jnp.dtype(ahead.pool.dtype).itemsize,
            ),
        )

    def of_chunk(self, chunk: Chunk, shards: int) -> Work:
        """One step of a chunk."""
        return self.fixed + chunk.slots // shards * self.slot + chunk.cached * self.token


def decode_hops(model: ModelConfig, tensor: int) -> int:
    """Hops that a decode step waits for: two all-reduces a layer, one after the head, in rings."""
    return (2 * model.layers + 1) * 2 * (tensor - 1)


def matrix_parameters(model: ModelConfig) -> int:
    """Parameters that every token is multiplied by: all matrices, the embedding as the head."""
    specs = param_specs(model)
    layers = sum(
        math.prod(spec.shape)
        for name, spec in specs.items()
        if spec.stacked and "norm" not in spec.axes and not name.endswith("_bias")
    )
    return layers + model.reachable * model.embed


def forward_flops(model: ModelConfig, tokens: int, lengths: np.ndarray) -> float:
    """Of a forward pass over sequences of these lengths with causal attention, head included.

    The closed form 2 P tokens + 4 L H A sum(n (n + 1) / 2).
    """
    pairs = float((lengths * (lengths + 1.0) / 2).sum())
    attention = 4.0 * model.layers * model.heads * model.head_dim * pairs
    return 2.0 * matrix_parameters(model) * tokens + attention


def train_flops(model: ModelConfig, lengths: Lengths, tokens: int) -> float:
    """Of the update: three forward passes, nothing recomputed (the MFU of PaLM, 2204.02311)."""
    G = len(lengths.response_B) // len(lengths.prompt_N)
    return 3 * forward_flops(model, tokens, np.repeat(lengths.prompt_N, G) + lengths.response_B)


def sync_work(ahead: StagesAhead) -> Work:
    """Each chip reads its share of the trained weights, and gathers the sampler's copy."""
    copy, share = ahead.decode_bytes, ahead.params_bytes
    kept = min(share * jnp.dtype(ahead.model.dtype).itemsize / 4, copy)
    return Work(bytes=share + 2 * copy, sent={"all-gather": copy - kept} if copy else {})
