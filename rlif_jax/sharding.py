"""The device mesh and the only PartitionSpecs.

Every parameter and activation names its axes ("embed", "ffn", ...); the table below says which mesh
axis each of them is split over. The mesh has four axes: `data` (rows), `fsdp` (rows, and the
embedding axis of weights), `context` (columns of rows, and the embedding axis of weights) and
`tensor` (heads, feed-forward and vocabulary). Within attention the columns are whole and `context`
splits heads: XLA exchanges one for the other, all to all.
"""

import importlib.util
import math
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from rlif_jax.batch import Params
from rlif_jax.errors import UserError

MESH_AXES = ("data", "fsdp", "context", "tensor")

AnyMesh = Mesh | AbstractMesh
Rules = Mapping[str, str | tuple[str, ...] | None]

RULES_TRAIN: Rules = {
    "batch": ("data", "fsdp"),
    "length": "context",
    "layer": None,
    "embed": ("fsdp", "context"),
    "hidden": None,  # the embedding axis of activations: rows are already split over fsdp
    "heads": "tensor",
    "kv_heads": "tensor",
    "attention_heads": ("tensor", "context"),  # while attention runs: each device sees whole rows
    "head_dim": None,
    "ffn": "tensor",
    "vocab": "tensor",
    "norm": None,
    "rank": None,  # of adapters
}

RULES_DECODE: Rules = {
    **RULES_TRAIN,
    "batch": ("data", "fsdp", "context"),
    "length": None,
    "embed": None,
    "attention_heads": "tensor",
}
"""For sampling: weights split over `tensor` only, so that no step gathers them, and slots over all
other axes."""


def skip_absent_tpu() -> None:
    """Keep JAX from starting libtpu where it is installed but there is no TPU.

    libtpu would look for a metadata server for over a minute and print warnings. JAX is kept to the
    CPU where nothing else is there: no JAX_PLATFORMS, no TPU device node, no accelerator's plugin.
    """
    spec_of_plugins = importlib.util.find_spec("jax_plugins")
    plugins = spec_of_plugins and any(
        pkgutil.iter_modules(spec_of_plugins.submodule_search_locations)
    )
    chips = [*Path("/dev").glob("accel*"), *Path("/dev").glob("vfio/[0-9]*")]
    if jax.config.values["jax_platforms"] is None and not plugins and not chips:
        jax.config.update("jax_platforms", "cpu")


def make_mesh(data: int = 1, fsdp: int = 1, tensor: int = 1, context: int = 1) -> Mesh:
    """A (data, fsdp, context, tensor) mesh over the first devices, as many as these multiply to.

    Over all devices it follows their wiring, as far as JAX knows it: neighbours on the mesh are
    neighbours on the slice, and several slices are told apart by the `data` axis alone, whose
    traffic is least.

    Raises:
        UserError: there are fewer devices than the mesh asks for, or, on several processes or
            slices, the mesh does not take all of them evenly.
    """
    skip_absent_tpu()
    devices, count = jax.devices(), data * fsdp * context * tensor
    if count > len(devices):
        raise UserError(
            f"mesh.data={data} * mesh.fsdp={fsdp} * mesh.context={context} * mesh.tensor={tensor} "
            f"asks for {count} devices, "
            f"but this machine has {len(devices)} ({devices[0].platform}). Lower one of "
            f"them; on a CPU, XLA_FLAGS=--xla_force_host_platform_device_count={count} creates "
            "virtual devices."
        )
    if count < len(devices) and jax.process_count() > 1:
        raise UserError(
            f"mesh.data={data} * mesh.fsdp={fsdp} * mesh.context={context} * mesh.tensor={tensor} "
            f"is {count} devices, and the {jax.process_count()} processes have {len(devices)}: "
            "each process needs its part of the mesh. Raise mesh.data, or start fewer processes."
        )
    return mesh_over(devices[:count], (data, fsdp, context, tensor))


def own_mesh() -> Mesh:
    """One device of this process, for what it alone computes while the others do not."""
    return mesh_over(jax.local_devices()[:1], (1,) * len(MESH_AXES))


def mesh_over(devices: Sequence[Any], shape: tuple[int, ...]) -> Mesh:
    """The mesh of this shape over these devices, along their wiring.

    Raises:
        UserError: the devices are in several slices, and the first axis does not split into them.
    """
    data, *rest = shape
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    elif data % slices:
        raise UserError(
            f"mesh.data={data} is not a multiple of the {slices} slices, whose link is too slow "
            f"for the other axes of the mesh; use a multiple of {slices}"
        )
    else:
        within, across = (data // slices, *rest), (slices, *(1 for _ in rest))
        grid = mesh_utils.create_hybrid_device_mesh(
            within, across, devices, allow_split_physical_axes=True
        )
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def spec(axes: tuple[str | None, ...], rules: Rules = RULES_TRAIN) -> PartitionSpec:
    """The PartitionSpec of an array whose axes carry these names; None is a replicated axis."""
    return PartitionSpec(*(None if axis is None else rules[axis] for axis in axes))


def _divisible(partition: PartitionSpec, shape: tuple[int, ...], mesh: AnyMesh) -> PartitionSpec:
    """`partition` with the axes that their mesh axes do not divide replicated instead.

    Of a model on a mesh that `model.placement` lets through, these are key/value heads alone, which
    it reports; a batch that a caller builds itself may have other such axes.
    """
    entries = []
    for size, entry in zip(shape, partition, strict=True):
        parts = math.prod(mesh.shape[name] for name in _mesh_axes(entry))
        entries.append(entry if size % parts == 0 else None)
    return PartitionSpec(*entries)


def _mesh_axes(entry: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The mesh axes that an entry of a PartitionSpec or of a table of rules names."""
    return (entry,) if isinstance(entry, str) else (entry or ())


def _shortest(partition: PartitionSpec, mesh: AnyMesh) -> PartitionSpec:
    """`partition` as XLA writes it, so that a stage takes its own outputs as they are."""
    entries = []
    for entry in partition:
        names = tuple(name for name in _mesh_axes(entry) if mesh.shape[name] > 1)
        entries.append(names[0] if len(names) == 1 else names or None)
    while entries and entries[-1] is None:
        entries.pop()
    return PartitionSpec(*entries)


def param_shardings(params: Params, mesh: AnyMesh, rules: Rules = RULES_TRAIN) -> Params:
    """A NamedSharding in place of each parameter, by the names of its axes in `axes`."""

    def one(variable):
        return variable.replace(
            array_sharding(variable.axes, variable.get_value().shape, mesh, rules)
        )

    return jax.tree.map(one, params, is_leaf=lambda v: hasattr(v, "axes"))


def array_sharding(
    axes: tuple[str | None, ...], shape: tuple[int, ...], mesh: AnyMesh, rules: Rules = RULES_TRAIN
) -> NamedSharding:
    """That of an array of this shape, by the names of its axes.

    As XLA writes it, or every stage would compile again for the parameters of an update.
    """
    return NamedSharding(mesh, _shortest(_divisible(spec(axes, rules), shape, mesh), mesh))


def piece_sharding(mesh: AnyMesh) -> NamedSharding:
    """Of arrays [M, R, T]: rows over data and fsdp, columns over context."""
    return NamedSharding(mesh, _shortest(spec((None, "batch", "length")), mesh))


def put_pieces(tree: Any) -> Any:
    """Host arrays on the mesh of `jax.set_mesh`: [M, R, T] in pieces, scalars everywhere.

    Every process has the whole of each array and hands its devices their parts.
    """
    mesh = jax.sharding.get_mesh()
    if mesh.empty:
        return jax.device_put(tree)

    def put(x: np.ndarray) -> jax.Array:
        x = np.asarray(x)
        sharding = piece_sharding(mesh) if x.ndim == 3 else replicated(mesh)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(put, tree)


def replicated(mesh: AnyMesh) -> NamedSharding:
    """One copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def constrain(x: jax.Array, *axes: str | None, rules: Rules = RULES_TRAIN) -> jax.Array:
    """Pin an activation to its sharding on the mesh of `jax.set_mesh`; the identity without one."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    partition = _divisible(spec(axes, rules), x.shape, mesh)
    return jax.lax.with_sharding_constraint(x, _shortest(partition, mesh))


def axis_size(name: str) -> int:
    """Devices along an axis of the mesh of `jax.set_mesh`; 1 without one."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.shape[name]


def parts_of(axis: str, size: int = 0, rules: Rules = RULES_TRAIN) -> int:
    """The number of parts into which the mesh of `jax.set_mesh` splits an axis of this name.

    It is 1 where the parts do not divide the axis's `size`: the axis is replicated then.
    """
    parts = math.prod(axis_size(name) for name in _mesh_axes(rules[axis]))
    return 1 if size % parts else parts


def platform() -> str:
    """What the stage that is being traced runs on, as `cpu` or `tpu`: the mesh of `jax.set_mesh`.

    Without one, the default backend. The two differ where a stage is compiled ahead of time.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def on_one_cpu() -> bool:
    """Whether the mesh of `jax.set_mesh` is a single CPU; without one, the default backend is."""
    return platform() == "cpu" and jax.sharding.get_abstract_mesh().size <= 1


def dividing(sizes: Mapping[str, int], rules: Rules = RULES_TRAIN) -> dict[str, tuple[str, ...]]:
    """The mesh axes, of more than one device, over which axes of these names and sizes are split.

    They are those of the mesh of `jax.set_mesh`; an axis that they do not divide has none.
    """
    return {
        axis: tuple(name for name in _mesh_axes(rules[axis]) if axis_size(name) > 1)
        if parts_of(axis, size, rules) > 1
        else ()
        for axis, size in sizes.items()
    }


def row_shards() -> int:
    """How many parts of the mesh of `jax.set_mesh` train on different rows: data * fsdp."""
    return parts_of("batch")


def slot_shards() -> int:
    """How many parts of the mesh sample in different slots: data * fsdp * context."""
    return parts_of("batch", rules=RULES_DECODE)


def on_shards(
    f: Callable[..., Any],
    in_axes: tuple[tuple[str | None, ...], ...],
    out_axes: tuple[tuple[str | None, ...], ...],
    rules: Rules = RULES_DECODE,
) -> Callable[..., Any]:
    """`f` on every device's own part of its arguments, whose axes carry these names.

    On one device it is `f` itself.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return f
    in_specs, out_specs = (
        tuple(spec(axes, rules) for axes in all_) for all_ in (in_axes, out_axes)
    )
    return jax.shard_map(f, in_specs=in_specs, out_specs=out_specs, check_vma=False)
