"""A configuration on a slice: every stage compiled ahead of time, and what a step then takes."""

import importlib.util
import os
from dataclasses import dataclass

import jax

from rlif_jax.config import Config
from rlif_jax.console.notice import Notice, ignore
from rlif_jax.errors import UserError
from rlif_jax.model.config import ModelConfig
from rlif_jax.model.placement import check_mesh
from rlif_jax.planning.ahead import settle_libtpu
from rlif_jax.planning.chips import Slice
from rlif_jax.planning.compiled import CompiledStage, TooLarge, compile_stage
from rlif_jax.planning.estimate import StepPlan, plan_step
from rlif_jax.planning.fit import refusals
from rlif_jax.planning.lengths import Lengths
from rlif_jax.planning.search import mesh_over
from rlif_jax.planning.stages import StagesAhead


@dataclass(frozen=True)
class Forecast:
    """The stages; a step of them, None where some have no room, and `refused` says of which."""

    ahead: StagesAhead
    step: StepPlan | None
    refused: list[str]


def forecast(
    cfg: Config, model: ModelConfig, slice_: Slice, lengths: Lengths, notice: Notice = ignore
) -> Forecast:
    """Compile the stages for the chips of a slice, none of which has to be there.

    `check_slice` and `use_cpu` come before.
    """
    memory_gib = None if slice_.chip is None else slice_.chip.memory_gib
    ahead = StagesAhead(cfg, model, mesh_over(slice_, cfg.mesh), memory_gib)
    compiled: dict[str, CompiledStage | TooLarge] = {}
    for number, name in enumerate(ahead.names):
        notice(f"compiling {name} for {slice_.name}", number, len(ahead.names))
        compiled[name] = compile_stage(ahead.lowered(name), slice_)
    refused = refusals(ahead, compiled, slice_)
    whole = {name: one for name, one in compiled.items() if isinstance(one, CompiledStage)}
    step = None if refused else plan_step(ahead, whole, lengths, slice_)
    return Forecast(ahead, step, refused)


def check_slice(slice_: Slice, cfg: Config, model: ModelConfig) -> None:
    """Whether a configuration's mesh is one of all chips. Raises UserError where it is not."""
    axes = cfg.mesh
    product = axes.data * axes.fsdp * axes.context * axes.tensor
    if product != slice_.chips:
        raise UserError(
            f"mesh.data={axes.data} * mesh.fsdp={axes.fsdp} * mesh.context={axes.context} * "
            f"mesh.tensor={axes.tensor} = {product} chips, and {slice_.name} has {slice_.chips}; "
            f"start from --mesh.data 1 --mesh.fsdp {slice_.chips} --mesh.context 1 --mesh.tensor "
            "1, or let --search try meshes"
        )
    check_mesh(model, axes.fsdp, axes.tensor, axes.context)


def use_cpu(slice_: Slice) -> None:
    """Keep JAX off accelerators that are there: they are not what is planned for.

    Raises UserError where libtpu is needed and absent.
    """
    absent = importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ
    if slice_.platform == "tpu" and absent:
        raise UserError(
            f"libtpu compiles for {slice_.name}, and it is not installed: pip install libtpu "
            "(Linux on x86-64; no TPU is needed)"
        )
    settle_libtpu()
    jax.config.update("jax_platforms", "cpu")
    if slice_.platform != "tpu":
        jax.config.update("jax_num_cpu_devices", slice_.chips)
