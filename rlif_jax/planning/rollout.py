"""What the sampler would do in a step: the schedule of a run, played through without a device.

The schedule is the sampler's own, so waiting, sharing of prompts, refills and narrowing are as in a
run; only the tokens are missing. A response ends at the length it was given. Of guessed tokens none
is right.
"""

from dataclasses import dataclass, field

import numpy as np

from rlif_jax.planning.lengths import Lengths
from rlif_jax.sampler.pool_shape import Batching, PoolShape
from rlif_jax.sampler.requests import Request
from rlif_jax.sampler.schedule import Schedule


@dataclass(frozen=True)
class Chunk:
    """Decode steps between two looks of the host.

    `slots` is the width of the stage on the whole mesh; `cached` are the tokens whose keys and
    values a step reads on the row shard that holds most, at the middle of the chunk.
    """

    steps: int
    slots: int
    cached: float


@dataclass
class Played:
    """The chunks of a step in order, and how often a prompt of each width was computed."""

    chunks: list[Chunk] = field(default_factory=list)
    prefills: dict[int, int] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Decode steps, one after the other."""
        return sum(chunk.steps for chunk in self.chunks)

    @property
    def slot_steps(self) -> int:
        """Slots times steps: all that could have been drawn."""
        return sum(chunk.steps * chunk.slots for chunk in self.chunks)


def play(
    lengths: Lengths, shape: PoolShape, batching: Batching, shards: int, longest_response: int
) -> Played:
    """Put a step's requests through the schedule of `shards` row shards."""
    G = len(lengths.response_B) // len(lengths.prompt_N)
    key = np.zeros(2, np.uint32)
    requests = [Request(row // G, key, longest_response) for row in range(len(lengths.response_B))]
    schedule = Schedule(
        shape,
        shards,
        [[0] * int(n) for n in lengths.prompt_N],
        requests,
        chunk=batching.chunk,
        narrow_for=batching.narrow_for,
        drafts=False,
        eos_ids=(),
        stop=None,
    )
    played = Played()
    while schedule.unfinished:
        while (work := schedule.next_round()) is not None:
            for call in work[0]:
                width = call.tokens.shape[1]
                played.prefills[width] = played.prefills.get(width, 0) + 1
        schedule.narrow()
        _, run_B = schedule.table()
        request_B, drawn_B = schedule.standing()
        left_B = np.where(request_B < 0, 0, lengths.response_B[request_B] - drawn_B)
        cached_B = lengths.prompt_N[request_B // G] + drawn_B
        left = np.sort(left_B[run_B])
        steps = int(min(batching.steps, left[min(schedule.leave_after, len(left)) - 1]))
        cached = (cached_B + steps / 2) * run_B
        played.chunks.append(
            Chunk(steps, schedule.width, cached.reshape(shards, -1).sum(axis=1).max())
        )
        count_B = np.where(run_B, np.minimum(left_B, steps), 0)
        schedule.settle(count_B, left_B > count_B)
    return played
