"""Which mesh, slots, micro-batches and remat suit a slice: candidates, tried by compiling them.

Compiling takes as long for many layers as for few, since XLA compiles one layer and a loop: so
nothing is extrapolated, each candidate is compiled whole.
"""

import dataclasses
import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from threading import Lock

from jax.sharding import Mesh as DeviceMesh

from rlif_jax.config import Config, Mesh
from rlif_jax.config.shared import Remat
from rlif_jax.console.notice import Notice
from rlif_jax.errors import UserError
from rlif_jax.model.config import ModelConfig, kv_bytes_per_token, param_count
from rlif_jax.model.placement import check_mesh
from rlif_jax.planning.ahead import mesh_of
from rlif_jax.planning.chips import Slice
from rlif_jax.planning.compiled import CompiledStage, compile_stage, digest
from rlif_jax.planning.estimate import HOP_S, StepPlan, plan_step
from rlif_jax.planning.fit import refusals
from rlif_jax.planning.lengths import Lengths
from rlif_jax.planning.stages import StagesAhead
from rlif_jax.planning.step_work import decode_hops, train_flops
from rlif_jax.run.provenance import flat, resolved
from rlif_jax.sampler.pool_shape import SHARE_OF_FREE_MEMORY
from rlif_jax.sharding import make_mesh

NO_MESH = "no mesh of {} can split this model and hold its parameters: take a larger slice"

_MESHES, _REFINED = 5, 1
_VARIANTS: tuple[tuple[int, Remat], ...] = ((1, "attention"), (2, "attention"))
_LARGEST_TENSOR, _LARGEST_CONTEXT = 8, 4
_GIB = 2**30


@dataclass(frozen=True)
class Tried:
    """A candidate for the configuration that was asked, and its plan or why it does not fit."""

    asked: Config
    cfg: Config
    ahead: StagesAhead
    step: StepPlan | None
    refused: list[str]

    @property
    def flags(self) -> str:
        """What to add to the command line of train, which makes its configuration this one."""
        before, now = flat(resolved(self.asked)), flat(resolved(self.cfg))
        said = [
            name
            for name in now
            if now[name] != before[name]
            or name in ("sampling.slots", "model.remat")
            or (name.startswith("mesh.") and now[name] > 1)
        ]
        return " ".join(f"--{name.replace('_', '-')} {now[name]}" for name in said)


def search(
    cfg: Config, model: ModelConfig, slice_: Slice, lengths: Lengths, workers: int, notice: Notice
) -> list[Tried]:
    """Compile candidates, `workers` at a time; those that fit first, the fastest in front.

    First the meshes that a closed form finds fastest, with as many slots as it finds best,
    micro-batches of one longest row, and layers recomputed whole. Then, on the fastest of these
    that fits, layers recomputed but for attention, in micro-batches of one row and of two.
    """
    compiling: dict[str, Lock] = defaultdict(Lock)  # two candidates may have a stage in common
    tried: list[Tried] = []

    def compile_all(asked: Sequence[Config], still_to_come: int) -> None:
        total = len(tried) + len(asked) + still_to_come
        running = [pool.submit(_try, cfg, one, model, slice_, lengths, compiling) for one in asked]
        for done in as_completed(running):
            tried.append(done.result())
            notice(f"compiling candidates for {slice_.name}", len(tried), total)
        tried.sort(key=lambda one: math.inf if one.step is None else one.step.step_s)

    with ThreadPoolExecutor(workers) as pool:
        meshes = candidates(cfg, model, slice_, lengths)
        compile_all(meshes, min(_REFINED, len(meshes)) * len(_VARIANTS))
        best = [one.cfg for one in tried if one.step][:_REFINED]
        compile_all([_varied(one, *how) for one in best for how in _VARIANTS], 0)
    return tried


def _try(
    asked: Config,
    cfg: Config,
    model: ModelConfig,
    slice_: Slice,
    lengths: Lengths,
    compiling: Mapping[str, Lock],
) -> Tried:
    chip = slice_.chip
    ahead = StagesAhead(
        cfg, model, mesh_over(slice_, cfg.mesh), None if chip is None else chip.memory_gib
    )
    compiled = {}
    for name in reversed(ahead.names):  # the update first: it is what most often does not fit
        lowered = ahead.lowered(name)
        with compiling[digest(lowered, slice_)]:  # the second reads what the first has made
            compiled[name] = compile_stage(lowered, slice_)
        if refused := refusals(ahead, compiled, slice_):
            return Tried(asked, cfg, ahead, None, refused)
    whole = {name: one for name, one in compiled.items() if isinstance(one, CompiledStage)}
    return Tried(asked, cfg, ahead, plan_step(ahead, whole, lengths, slice_), [])


def mesh_over(slice_: Slice, mesh: Mesh) -> DeviceMesh:
    """A configuration's mesh over the chips of a slice, or over virtual devices in their place."""
    sizes = dataclasses.asdict(mesh)
    return mesh_of(slice_.name, **sizes) if slice_.platform == "tpu" else make_mesh(**sizes)


def candidates(cfg: Config, model: ModelConfig, slice_: Slice, lengths: Lengths) -> list[Config]:
    """The configuration on the meshes that a closed form finds fastest, with the slots it asks."""
    found = (_rough(model, mesh, slice_, lengths) for mesh in _meshes(model, slice_.chips))
    ranked = sorted((one for one in found if one), key=lambda one: one.seconds)
    return [
        dataclasses.replace(
            cfg,
            mesh=rough.mesh,
            model=dataclasses.replace(cfg.model, remat="layer"),
            loss=dataclasses.replace(cfg.loss, tokens_per_micro_batch=0),
            sampling=dataclasses.replace(cfg.sampling, slots=rough.slots, cache_gib=0.0),
        )
        for rough in ranked[:_MESHES]
    ]


def _varied(cfg: Config, rows: int, remat: Remat) -> Config:
    tokens = 0 if rows == 1 else rows * cfg.longest_row
    return dataclasses.replace(
        cfg,
        model=dataclasses.replace(cfg.model, remat=remat),
        loss=dataclasses.replace(cfg.loss, tokens_per_micro_batch=tokens),
    )


def _meshes(model: ModelConfig, chips: int) -> Iterator[Mesh]:
    """Meshes of all chips that can split the model, rows over fsdp alone."""
    divisors = [n for n in range(1, chips + 1) if chips % n == 0]
    for tensor, context in itertools.product(divisors, divisors):
        if tensor > _LARGEST_TENSOR or context > _LARGEST_CONTEXT or chips % (tensor * context):
            continue
        mesh = Mesh(fsdp=chips // (tensor * context), context=context, tensor=tensor)
        try:
            check_mesh(model, mesh.fsdp, mesh.tensor, mesh.context)
        except UserError:
            continue
        yield mesh


@dataclass(frozen=True)
class _Rough:
    """A mesh with the slots that suit it, and about how long a step then is."""

    mesh: Mesh
    slots: int
    seconds: float


def _rough(model: ModelConfig, mesh: Mesh, slice_: Slice, lengths: Lengths) -> _Rough | None:
    """By closed forms: weights and cache are read in each step of decoding, all else multiplies.

    A slot holds, on average over time, half the mean of squared lengths over the mean length. An
    axis of `tensor` or `context` costs a tenth of the products for each doubling: it sends
    activations. None where weights and state leave no room for any slot.
    """
    chip, shards = slice_.chip, slice_.chips // mesh.tensor
    drawn = lengths.response_B.astype(float)
    if chip is None:
        return _Rough(mesh, max(len(drawn), shards), float(mesh.tensor * mesh.context))
    weights = 2.0 * param_count(model) / mesh.tensor
    token = kv_bytes_per_token(model) / min(mesh.tensor, model.kv_heads)
    free = SHARE_OF_FREE_MEMORY * (
        chip.memory_gib * _GIB - 12 * param_count(model) / slice_.chips - weights
    )
    held = (drawn**2).mean() / (2 * drawn.mean()) + lengths.prompt_N.mean()
    most = min(math.floor(free / (token * held)), math.ceil(len(drawn) / shards))
    if most < 1:
        return None
    steps = max(drawn.max(), drawn.sum() / (shards * most))
    read = steps * weights + drawn.sum() / shards * held * token
    waited = steps * HOP_S * decode_hops(model, mesh.tensor)
    sends = 1 + 0.1 * math.log2(mesh.tensor * mesh.context)
    flops = train_flops(model, lengths, int(drawn.sum())) / slice_.chips
    seconds = waited + read / chip.bytes_per_s + sends * flops / (0.5 * chip.flops_per_s)
    return _Rough(mesh, most * shards, seconds)
