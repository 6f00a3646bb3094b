"""The flags that a search prints make the configuration that it has tried."""

from dataclasses import replace
from typing import Any

from support.small_runs import config

from rlif_jax.config import Loss, Mesh, Sampling
from rlif_jax.config.load import load
from rlif_jax.planning.search import Tried

NOTHING: Any = None  # what flags do not depend on


def test_flags_make_the_candidate_of_the_configuration_that_was_asked():
    """Also where it is back at a default."""
    asked = replace(
        load([config("tests_passed")]),
        mesh=Mesh(fsdp=8, tensor=2),
        sampling=Sampling(slots=64, cache_gib=2.0),
        loss=Loss(tokens_per_micro_batch=2048),
    )
    candidate = replace(
        asked,
        mesh=Mesh(fsdp=16),
        sampling=Sampling(slots=64, cache_gib=0.0),
        loss=Loss(tokens_per_micro_batch=0),
        model=replace(asked.model, remat="layer"),
    )
    flags = Tried(asked, candidate, NOTHING, None, []).flags
    assert flags == (
        "--model.remat layer --sampling.slots 64 --sampling.cache-gib 0.0 "
        "--loss.tokens-per-micro-batch 0 --mesh.fsdp 16 --mesh.tensor 1"
    )
    given = ["--mesh.fsdp=8", "--mesh.tensor=2", "--sampling.slots=64", "--sampling.cache-gib=2"]
    given += ["--loss.tokens-per-micro-batch=2048"]
    loaded = load([config("tests_passed"), *given, *flags.split()])
    assert (loaded.mesh, loaded.sampling.cache_gib) == (candidate.mesh, 0.0)
    assert (loaded.loss.tokens_per_micro_batch, loaded.model.remat) == (0, "layer")
