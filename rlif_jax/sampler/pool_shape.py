"""How large the cache is: as many pages as the sequences can use, or as memory allows."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from rlif_jax import distributed, sharding
from rlif_jax.config import Pool
from rlif_jax.config.ranges import at_least
from rlif_jax.config.validate import range_problems
from rlif_jax.errors import UserError
from rlif_jax.kernels.paged_attention.api import Kernel, head_width
from rlif_jax.model.cache import heads_of_device, kernel_for
from rlif_jax.model.config import ModelConfig

SHARE_OF_FREE_MEMORY = 0.8
"""The rest is left to the programs' temporary memory."""


@dataclass(frozen=True)
class Batching(Pool):
    """How sequences share the device; none of it changes what is sampled but for rounding.

    Raises UserError, all problems at once, for a value out of range.
    """

    chunk: Annotated[int, at_least(1)] = 32
    """Most tokens of a sequence between two looks of the host."""
    narrow_for: Annotated[int, at_least(0)] = 64
    """Continue with fewer slots when most are empty, nothing waits, and some sequence may still get
    this many tokens: for less, compiling the narrower stage does not pay. 0: never."""

    def __post_init__(self) -> None:
        problems = range_problems(self)
        if self.draft_tokens >= self.chunk:
            problems.append(f"draft_tokens={self.draft_tokens} must be below chunk={self.chunk}")
        if problems:
            raise UserError("; ".join(problems))

    @property
    def steps(self) -> int:
        """Most decode steps between two looks of the host: each may draw all that is guessed."""
        return self.chunk // (1 + self.draft_tokens)

    @classmethod
    def of(cls, section: Pool) -> "Batching":
        """As a configuration's `sampling`, or an evaluation, has it."""
        return cls(**asdict(Pool.of(section)))


@dataclass(frozen=True)
class PoolShape:
    """Shapes of the sampler's programs: what is compiled depends on nothing else.

    `slots` sequences on the whole mesh; `pages` of `page` tokens a layer on each row shard;
    `columns` pages of the longest sequence. `dtype` is that of the cache.
    """

    slots: int
    page: int
    pages: int
    columns: int
    kernel: Kernel
    dtype: str

    def own_pages(self, prompt: int, tokens: int) -> int:
        """Pages of its own that a sequence needs for `tokens` behind a prompt; never none.

        It shares its prompt's whole pages with the other samples of the prompt.
        """
        return max(1, -(-(prompt + tokens) // self.page) - prompt // self.page)

    def check(self, prompts: Sequence[Sequence[int]], limits: Sequence[tuple[int, int]]) -> None:
        """Raise UserError unless every (prompt, limit) fits, by itself, into the cache."""
        for n, limit in limits:
            length = len(prompts[n])
            if not length:
                raise UserError(
                    f"prompt {n} is empty; a model needs at least one token, such as "
                    "the beginning-of-sequence token"
                )
            if limit < 1:
                raise UserError(f"max_new_tokens={limit} of prompt {n} must be at least 1")
            held = -(-length // self.page) + self.own_pages(length, limit)
            if length + limit > self.columns * self.page or held >= self.pages:
                raise UserError(
                    f"prompt {n} has {length} tokens and asks for up to {limit} more, but the "
                    f"cache is made for sequences of {self.longest} tokens; shorten the prompt, "
                    "lower max_new_tokens, or give the cache more memory (cache_gib)"
                )

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence that fits."""
        return self.page * min(self.columns, self.pages - 2)


def bucket(length: int, page: int) -> int:
    """`length` rounded up to 1, 2, 3, 4, 6, 8, 12, ... pages, in tokens: few widths to compile."""
    pages = -(-length // page)
    power = 1 << (pages - 1).bit_length()
    three_quarters = 3 * power // 4
    return page * (three_quarters if power >= 4 and pages <= three_quarters else power)


def pool_shape(
    cfg: ModelConfig,
    batching: Batching,
    *,
    prompt: int,
    new: int,
    samples: int,
    sequences: int,
    total: int = 0,
    platform: str | None = None,
) -> PoolShape:
    """Shapes for `sequences` of prompts of up to `prompt` tokens and up to `new` more.

    Each prompt has at least `samples` of them; the longest has `total` tokens (0: the sum). Room
    is made for the slots' own pages and for the prompts that are being sampled when each is
    finished before the next but one begins. If that is more than memory allows there are fewer
    pages, and sequences wait for each other.

    Raises:
        UserError: not even one such sequence fits.
    """
    shards, tensor = sharding.slot_shards(), sharding.axis_size("tensor")
    each = max(1, -(-min(batching.slots, sequences) // shards))
    page = batching.page
    platform = platform or jax.default_backend()
    dtype = jnp.dtype(batching.cache_dtype or cfg.dtype)
    total = total or prompt + new
    columns = bucket(total, page) // page
    own, prompt_pages = -(-(page - 1 + new) // page), -(-prompt // page)
    wanted = 1 + each * own + (-(-each // samples) + 2) * prompt_pages
    entries = each * columns * (1 + batching.draft_tokens)
    kernel = kernel_for(cfg, platform, tensor, page, dtype.name, entries)
    _, heads = heads_of_device(cfg, tensor)
    row = heads * head_width(kernel, cfg.head_dim) * dtype.itemsize
    page_bytes = 2 * cfg.layers * page * row
    allowed = int(min(wanted, _budget(batching) / page_bytes))
    shape = PoolShape(each * shards, page, allowed, columns, kernel, dtype.name)
    least = 2 + -(-total // page)  # the null page, and that which prompt and completion share
    if shape.pages < least:
        raise UserError(
            f"a sequence of {total} tokens needs {least * page_bytes / 2**20:.3g} MiB of "
            f"cache on a device, and {allowed * page_bytes / 2**20:.3g} MiB are available; lower "
            "max_new_tokens, raise cache_gib, or free memory"
        )
    return shape


def _budget(batching: Batching) -> float:
    """Bytes that the cache may take on each device: the same number on every process."""
    if batching.cache_gib:
        return batching.cache_gib * 2**30
    mesh = jax.sharding.get_mesh()
    devices = jax.local_devices() if mesh.empty else mesh.local_devices
    free = distributed.least(SHARE_OF_FREE_MEMORY * min(map(_free_bytes, devices)))
    # In eighths of a power of two: not every change of it is to compile the sampler again.
    grid = 2.0 ** (math.floor(math.log2(free)) - 3) if 0 < free < math.inf else 1.0
    return free // grid * grid if free < math.inf else free


def _free_bytes(device: Any) -> float:
    """Free memory of a jax.Device; a CPU's is shared by its virtual devices."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    if device.platform == "cpu" and Path("/proc/meminfo").exists():
        with open("/proc/meminfo") as lines:
            kib = dict(line.split(":") for line in lines)["MemAvailable"].split()[0]
        return int(kib) * 1024 / jax.local_device_count()
    return math.inf
