"""From compiled stages to a step: memory, rooflines, seconds, tokens a second.

A stage takes as long as the slowest of its three parts: products, main memory, the interconnect.
They are taken to overlap within a stage, and at the shares of a chip's best that `ASSUMED` names.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import jax
import numpy as np

from rlif_jax import sharding
from rlif_jax.planning.ahead import Memory
from rlif_jax.planning.chips import Chip, Slice
from rlif_jax.planning.compiled import CompiledStage
from rlif_jax.planning.counts import Work
from rlif_jax.planning.lengths import Lengths
from rlif_jax.planning.rollout import play
from rlif_jax.planning.stages import StagesAhead
from rlif_jax.planning.step_work import (
    DecodeSteps,
    PackedLengths,
    decode_hops,
    prefill_work,
    rows_work,
    sync_work,
    train_flops,
)

PRODUCTS, MEMORY, NETWORK = 0.60, 0.86, 0.80
HOP_S = 1e-6
HOST_S_PER_SLOT = 1e-4

ASSUMED = (
    f"products run at {PRODUCTS:.0%} of a chip's peak: 45.5% without the recomputed forward pass "
    "on v6e-256 at 8k (MaxText, tiering.md)",
    f"main memory moves at {MEMORY:.0%} of its best (ragged paged attention on TPUs, decode)",
    f"chips send at {NETWORK:.0%} of two ports along a mesh axis (no published figure)",
    "products, memory and sending overlap within a stage",
    f"a decode step also waits {1e6 * HOP_S:g} us for each hop of its all-reduces (How to Scale "
    "Your Model, jax-ml.github.io/scaling-book)",
    f"the host takes {1e3 * HOST_S_PER_SLOT:.1f} ms a slot between two chunks of decoding "
    "(an upper bound: benchmarks/sampler_host.py)",
    "programs are judged while others are sampled: no waiting",
)
"""What the seconds rest on besides counts; each with its source."""


@dataclass(frozen=True)
class Seconds:
    """How long each of the parts alone would take, and how long all of them together take."""

    products: float
    memory: float
    network: float
    together: float

    @classmethod
    def of(cls, work: Work, chip: Chip, hops: int = 0) -> "Seconds":
        """Of work that a chip does at the assumed shares of its best, and of waiting for `hops`."""
        parts = (
            work.flops / (PRODUCTS * chip.flops_per_s),
            work.bytes / (MEMORY * chip.bytes_per_s),
            sum(work.sent.values()) / (NETWORK * chip.sent_per_s),
        )
        products, memory, network = parts
        waited = HOP_S * hops
        return cls(products, memory, network + waited, together=max(parts) + waited)

    @classmethod
    def in_turn(cls, works: Iterable[tuple[int, "Seconds"]]) -> "Seconds":
        """Of works that are done so many times, one after the other."""
        each = np.array([np.multiply(n, dataclasses.astuple(seconds)) for n, seconds in works])
        return cls(*each.sum(axis=0).tolist())

    @property
    def bound(self) -> str:
        """The name of the part that binds."""
        parts = {"products": self.products, "memory": self.memory, "network": self.network}
        return max(parts, key=parts.__getitem__)


@dataclass(frozen=True)
class StagePlan:
    """A stage of a step: what a chip holds while it runs, and all of its work in the step.

    `beside` are bytes that lie on the chip and are not among the stage's arguments. `calls` says
    how often what turns. `seconds` are None where the chip is not known.
    """

    name: str
    memory: Memory
    beside: int
    work: Work
    seconds: Seconds | None
    calls: str

    @property
    def held(self) -> int:
        """Bytes that a chip holds while the stage runs."""
        return self.memory.total + self.beside


@dataclass(frozen=True)
class StepPlan:
    """A step of a configuration on a slice.

    `drawn` and `trained` count tokens: those of responses, a teacher's as well, and those of packed
    rows, prompts included. `column_use` and `slot_use` are the shares of computed columns and of
    slot-steps that hold a token. `update_flops` are the model's own, for all chips: nothing
    recomputed, attention causal.
    """

    stages: tuple[StagePlan, ...]
    sync: Seconds | None
    host_s: float
    drawn: int
    trained: int
    column_use: float
    slot_use: float
    update_flops: float

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of each part of the step; of all stages, empty where the chip is not known."""
        timed = {s.name: s.seconds.together for s in self.stages if s.seconds is not None}
        return {"sync": self.sync.together, **timed, "host": self.host_s} if self.sync else {}

    @property
    def step_s(self) -> float:
        """Seconds of the whole step."""
        return sum(self.seconds.values())


def plan_step(
    ahead: StagesAhead, compiled: Mapping[str, CompiledStage], lengths: Lengths, slice_: Slice
) -> StepPlan:
    """What a step with responses of these lengths does and takes."""
    cfg, chip, model = ahead.cfg, slice_.chip, ahead.model
    with jax.set_mesh(ahead.mesh):
        shards, tensor = sharding.slot_shards(), sharding.axis_size("tensor")
        attention_parts = sharding.parts_of("attention_heads", model.heads)
    batching, C = ahead.stages.engine.batching, cfg.sampling.max_new_tokens
    played = play(lengths, ahead.pool, batching, shards, C)
    minis = np.split(np.arange(len(lengths.prompt_N)), cfg.loss.mini_batches)
    form, platform = ahead.stages.form, slice_.platform
    packed = [PackedLengths.of(lengths, prompts, form, platform) for prompts in minis]
    decode = DecodeSteps.of(compiled["decode"].text, ahead, shards, tensor)
    draws = ahead.draws
    steps = [(draws * chunk.steps, decode.of_chunk(chunk, shards)) for chunk in played.chunks]

    def rows(stage: str) -> Work:
        text = compiled[stage].text
        return sum((rows_work(text, ahead, mini, attention_parts) for mini in packed), Work())

    pieces, prompts = sum(mini.pieces for mini in packed), draws * sum(played.prefills.values())
    parts = {
        "prefill": (
            draws * prefill_work(compiled["prefill"].text, ahead, played),
            f"{prompts} calls",
        ),
        "decode": (
            sum((count * work for count, work in steps), Work()),
            f"{draws * played.steps:,} steps",
        ),
        "score": (ahead.scored * rows("score") if ahead.scored else Work(), f"{pieces} pieces"),
        "update": (cfg.loss.epochs * rows("update"), f"{cfg.loss.epochs * pieces} pieces"),
    }

    def timed(name: str, work: Work) -> Seconds | None:
        if chip is None:
            return None
        if name == "decode":  # a step ends before the next begins
            hops = decode_hops(model, tensor)
            return Seconds.in_turn([(count, Seconds.of(one, chip, hops)) for count, one in steps])
        return Seconds.of(work, chip)

    drawn, filled = draws * int(lengths.response_B.sum()), sum(mini.filled for mini in packed)
    return StepPlan(
        stages=tuple(
            StagePlan(
                name,
                compiled[name].memory,
                ahead.held_beside(name),
                parts[name][0],
                timed(name, parts[name][0]),
                parts[name][1],
            )
            for name in ahead.names
        ),
        sync=None if chip is None else Seconds.of(draws * sync_work(ahead), chip),
        host_s=draws * HOST_S_PER_SLOT * sum(chunk.slots for chunk in played.chunks),
        drawn=drawn,
        trained=cfg.loss.epochs * filled,
        column_use=filled / sum(mini.columns for mini in packed),
        slot_use=drawn / (draws * played.slot_steps),
        update_flops=cfg.loss.epochs * train_flops(model, lengths, filled),
    )
