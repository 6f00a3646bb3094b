"""One of two processes that sample together, and what they are asked for: see the test beside it.

python tests/support/two_processes.py ADDRESS RANK MODEL OUT.json
"""

import contextlib
import json
import socket
import sys
from dataclasses import replace

import jax
import numpy as np
from flax import nnx

from rlif_jax import distributed
from rlif_jax.config import Processes
from rlif_jax.distributed import join, least
from rlif_jax.errors import UserError
from rlif_jax.sampler.engine import Engine
from rlif_jax.sampler.pool_shape import Batching
from rlif_jax.sampler.sample import make_sample
from rlif_jax.sampler.sampler import Sampler
from rlif_jax.sampler.sync import make_sync
from rlif_jax.sharding import make_mesh
from rlif_jax.weights.source import open_model

ROWS_OF_DATA = {"data": 2, "tensor": 2}
ROWS_OF_FSDP = {"fsdp": 2, "tensor": 2}
MORE_DEVICES_THAN_KV_HEADS = {"tensor": 4}

PROMPTS = [[70 + i for i in range(n)] for n in (5, 2, 21, 8, 18, 1)]
G, C = 4, 40
BATCHING = Batching(slots=8, page=32, chunk=8, narrow_for=0)


def sampled(opened, mesh, narrow: bool) -> dict:
    """The rollout of `make_sample`, and the rows that it told of before, in order."""
    graphdef, params = nnx.split(opened.load("float32", mesh=mesh))
    engine = Engine(graphdef, temperature=0.9, batching=replace(BATCHING, narrow_for=int(narrow)))
    sample = make_sample(engine, samples_per_prompt=G, max_new_tokens=C, pad_id=2)
    told = []

    def rows_finished(rows, tokens):
        told.append([rows.tolist(), [one.tolist() for one in tokens]])

    params = make_sync(graphdef)(params)
    rollout, _ = sample(params, PROMPTS, jax.random.key(5), rows_finished)
    return {
        "tokens": rollout.tokens.tolist(),
        "mask": rollout.mask.tolist(),
        "truncated": rollout.truncated.tolist(),
        "stats": stats_of(rollout.stats),
        "told": told,
    }


def generated(opened, mesh) -> list[dict]:
    """What `Sampler.generate` yields, in order."""
    sampler = Sampler(opened.load("float32", mesh=mesh), opened.tokenizer, BATCHING)
    samples = sampler.generate(
        PROMPTS, n=3, max_new_tokens=[10, 40, 20, 30, 1, 25], top_p=0.9, stop="e", seed=3
    )
    return [
        {
            "which": [one.prompt, one.index],
            "said": [one.tokens.tolist(), one.text, one.finish],
            "stats": stats_of(one.stats),
        }
        for one in samples
    ]


def stats_of(stats) -> list:
    return [np.asarray(x).tolist() for x in jax.tree.leaves(stats)]


def results(opened, make_mesh) -> dict:
    """Everything that is asked for; `make_mesh(**axes)` gives the mesh, or None for one device."""

    def on(axes, ask, *args):
        mesh = make_mesh(**axes)
        with contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh):
            return ask(opened, mesh, *args)

    return {
        "data": on(ROWS_OF_DATA, sampled, True),
        "fsdp": on(ROWS_OF_FSDP, sampled, False),
        "tensor": on(MORE_DEVICES_THAN_KV_HEADS, generated),
    }


def free_address() -> str:
    """HOST:PORT of this machine at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return f"localhost:{probe.getsockname()[1]}"


def refusal_of_first() -> str:
    """What every process is told when the first one refuses."""

    def refuse():
        raise UserError(f"process {distributed.process_index()} refuses")

    try:
        distributed.by_first(refuse)
    except UserError as error:
        return str(error)
    return ""


def main(address: str, rank: str, model: str, out: str) -> None:
    join(Processes(count=2, index=int(rank), coordinator=address))
    assert distributed.is_first() == (rank == "0")
    assert [d.process_index for d in jax.devices()] == [0, 0, 1, 1]
    agreed = {
        "first": distributed.by_first(lambda: np.full(3, int(rank))).tolist(),
        "least": least(int(rank) + 2.5),
        "gathered": distributed.gathered("of " + rank * (1 + int(rank))),
        "by_first": distributed.by_first(lambda: rank),
        "any": distributed.any_of(rank == "1"),
        "all": distributed.all_of(rank == "1"),
        "refused": refusal_of_first(),
    }
    with open(out, "w") as file:
        json.dump(results(open_model(model), make_mesh) | {"agreed": agreed}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
