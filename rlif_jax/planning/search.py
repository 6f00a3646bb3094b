"""Which mesh, slots, micro-batches and remat suit a slice: candidates, tried by compiling them.

Compiling takes as long for many layers as for few, since XLA compiles one layer and a loop: so
nothing is extrapolated, each candidate is compiled whole.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from jax.sharding import Mesh as DeviceMesh

from rlif_jax.config import Config, Mesh
from rlif_jax.console.notice import Notice
from rlif_jax.errors import UserError
from rlif_jax.model.config import ModelConfig, kv_bytes_per_token, param_count
from rlif_jax.model.placement import check_mesh
from rlif_jax.planning.ahead import mesh_of
from rlif_jax.planning.chips import Chip, Slice
from rlif_jax.planning.compiled import CompiledStage, compile_stage
from rlif_jax.planning.estimate import StepPlan, plan_step
from rlif_jax.planning.fit import refusals
from rlif_jax.planning.lengths import Lengths
from rlif_jax.planning.stages import StagesAhead
from rlif_jax.sharding import make_mesh

MOST = 20
"""Candidates that are compiled."""

NO_MESH = "no mesh of {} can split this model and hold its parameters: take a larger slice"

_MESHES, _LARGEST_TENSOR, _LARGEST_CONTEXT = 6, 8, 4
_GIB = 2**30


@dataclass(frozen=True)
class Tried:
    """A candidate, and its plan or why it does not fit."""

    cfg: Config
    ahead: StagesAhead
    step: StepPlan | None
    refused: list[str]

    @property
    def flags(self) -> str:
        """What to add to the command line of train."""
        cfg, mesh = self.cfg, self.cfg.mesh
        said = [
            f"--mesh.{axis.name} {getattr(mesh, axis.name)}"
            for axis in dataclasses.fields(mesh)
            if getattr(mesh, axis.name) > 1
        ]
        said.append(f"--sampling.slots {cfg.sampling.slots}")
        if cfg.loss.tokens_per_micro_batch:
            said.append(f"--loss.tokens-per-micro-batch {cfg.loss.tokens_per_micro_batch}")
        return " ".join([*said, f"--model.remat {cfg.model.remat}"])


def search(
    cfg: Config, model: ModelConfig, slice_: Slice, lengths: Lengths, workers: int, notice: Notice
) -> list[Tried]:
    """Compile the candidates, `workers` at a time; those that fit first, the fastest in front."""
    tried, asked = [], candidates(cfg, model, slice_)
    with ThreadPoolExecutor(workers) as pool:
        running = [pool.submit(_try, one, model, slice_, lengths) for one in asked]
        for done in as_completed(running):
            tried.append(done.result())
            notice(f"compiling candidates for {slice_.name}", len(tried), len(asked))
    return sorted(tried, key=lambda one: math.inf if one.step is None else one.step.step_s)


def _try(cfg: Config, model: ModelConfig, slice_: Slice, lengths: Lengths) -> Tried:
    chip = slice_.chip
    ahead = StagesAhead(
        cfg, model, mesh_over(slice_, cfg.mesh), None if chip is None else chip.memory_gib
    )
    compiled = {}
    for name in reversed(ahead.names):  # the update first: it is what most often does not fit
        compiled[name] = compile_stage(ahead.lowered(name), slice_)
        if refused := refusals(ahead, compiled, slice_):
            return Tried(cfg, ahead, None, refused)
    whole = {name: one for name, one in compiled.items() if isinstance(one, CompiledStage)}
    return Tried(cfg, ahead, plan_step(ahead, whole, lengths, slice_), [])


def mesh_over(slice_: Slice, mesh: Mesh) -> DeviceMesh:
    """A configuration's mesh over the chips of a slice, or over virtual devices in their place."""
    sizes = dataclasses.asdict(mesh)
    return mesh_of(slice_.name, **sizes) if slice_.platform == "tpu" else make_mesh(**sizes)


def candidates(cfg: Config, model: ModelConfig, slice_: Slice) -> list[Config]:
    """At most `MOST` configurations, the most promising first.

    Meshes by how little they send; micro-batches of one and of two longest rows; layers recomputed
    whole or but for attention. All responses of a step are sampled at once where the cache has room
    for half of their tokens, else as many as it has room for.
    """
    meshes = sorted(_meshes(model, slice_.chips), key=lambda mesh: _sends(mesh, cfg))
    kept = [mesh for mesh in meshes if _state_fits(model, mesh, slice_.chip)][:_MESHES]
    settings = itertools.product((1, 2), ("layer", "attention"))
    found = []
    for (rows, remat), mesh in itertools.product(settings, kept):
        tokens = 0 if rows == 1 else rows * cfg.longest_row
        found.append(
            dataclasses.replace(
                cfg,
                mesh=mesh,
                model=dataclasses.replace(cfg.model, remat=remat),
                loss=dataclasses.replace(cfg.loss, tokens_per_micro_batch=tokens),
                sampling=dataclasses.replace(
                    cfg.sampling, slots=_slots(cfg, model, mesh, slice_.chip)
                ),
            )
        )
    return found[:MOST]


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


def _sends(mesh: Mesh, cfg: Config) -> tuple[int, int]:
    """Meshes that send least first: tensor sends activations twice a layer, context twice heads."""
    longest = cfg.longest_row
    return mesh.tensor * 2 + (mesh.context if longest <= 2**14 else -mesh.context), mesh.context


def _state_fits(model: ModelConfig, mesh: Mesh, chip: Chip | None) -> bool:
    """Whether parameters, moments, gradient and the sampler's weights leave a chip any room."""
    if chip is None:
        return True
    parts = mesh.fsdp * mesh.context * mesh.tensor
    needed = param_count(model) * (16 / parts + 2 / mesh.tensor)
    return needed < 0.9 * chip.memory_gib * _GIB


def _slots(cfg: Config, model: ModelConfig, mesh: Mesh, chip: Chip | None) -> int:
    """Slots for all responses, or a power-of-two share of them that the cache has room for."""
    responses = cfg.data.prompts_per_step * cfg.sampling.samples_per_prompt
    shards = mesh.data * mesh.fsdp * mesh.context
    slots = max(responses, shards)
    if chip is None:
        return slots
    parts = mesh.fsdp * mesh.context * mesh.tensor
    free = 0.8 * (chip.memory_gib * _GIB - param_count(model) * (12 / parts + 2 / mesh.tensor))
    tokens = free / (kv_bytes_per_token(model) / min(mesh.tensor, model.kv_heads))
    while slots // 2 >= shards and slots / shards * cfg.longest_row / 2 > tokens:
        slots //= 2
    return slots
