"""Compiling for TPU slices without a TPU: libtpu compiles for a topology that it is told about.

https://docs.jax.dev/en/latest/aot.html. In the place of arrays there are shapes with shardings
(`jax.ShapeDtypeStruct`); a "tree" below is a pytree of them.
"""

import os
import re
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh
from jax.stages import Compiled, Lowered

from rlif_jax.batch import Packed, TrainBatch
from rlif_jax.packing import Form
from rlif_jax.sharding import mesh_over, piece_sharding, replicated

_LOADING = threading.Lock()
"""JAX loads libtpu at the first topology; of two threads that do so one would get an error."""


def settle_libtpu() -> None:
    """Tell libtpu what it would ask of a TPU host, unless the environment says so already.

    Where there is none it would ask for over a minute and print errors. To be called before
    libtpu is loaded.
    """
    settings = {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def mesh_of(topology: str, data: int = 1, fsdp: int = 1, tensor: int = 1, context: int = 1) -> Mesh:
    """A mesh over all chips of a slice, named as in `v5e:2x4`; the axes multiply to its chips."""
    # Both cores of a v4 are one device, as on a real slice; libtpu's default here is two.
    chip = {"chip_config_name": "megacore"} if topology.startswith("v4:") else {}
    with _LOADING:
        described = topologies.get_topology_desc(platform="tpu", topology_name=topology, **chip)
    return mesh_over(described.devices, (data, fsdp, context, tensor))


def with_sharding(tree: Any, shardings: Any) -> Any:
    """The shapes of a tree with these shardings, one for each array or one for all."""
    if isinstance(shardings, jax.sharding.Sharding):
        one = shardings
        shardings = jax.tree.map(lambda _: one, tree)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings
    )


def packed_shapes(form: Form) -> Packed:
    """A packed mini-batch of this form on the mesh of `jax.set_mesh`, as shapes."""
    mesh = jax.sharding.get_mesh()
    ids: Any = jax.ShapeDtypeStruct(form.shape, np.int32, sharding=piece_sharding(mesh))
    count: Any = jax.ShapeDtypeStruct((), np.int32, sharding=replicated(mesh))
    return Packed(tokens=ids, position=ids, segment=ids, prefix=ids, target=ids, count=count)


def train_batch_shapes(form: Form, *, reference: bool, selection: bool = False) -> TrainBatch:
    """What an update reads of such a mini-batch, as shapes.

    With or without a KL term, and with or without a selection of tokens by their covariance.
    """
    mesh, packed = jax.sharding.get_mesh(), packed_shapes(form)

    def facts(dtype: Any) -> Any:
        return jax.ShapeDtypeStruct(form.shape, dtype, sharding=piece_sharding(mesh))

    def number(dtype: Any) -> Any:
        return jax.ShapeDtypeStruct((), dtype, sharding=replicated(mesh))

    return TrainBatch(
        packed=packed,
        trained=facts(bool),
        advantage=facts(np.float32),
        length=facts(np.float32),
        old_logprob=facts(np.float32),
        sampler_logprob=facts(np.float32),
        ref_logprob=facts(np.float32) if reference else None,
        selected=facts(bool) if selection else None,
        on_policy=number(bool),
        trained_tokens=number(np.float32),
        completions=number(np.float32),
        entropy_coef=number(np.float32),
    )


def made_by(lowered: Lowered, compiled: Compiled) -> Any:
    """Shapes and shardings of what a stage returns."""
    return with_sharding(lowered.out_info, compiled.output_shardings)


def made(f: Callable[[], Any]) -> Any:
    """Shapes and shardings of what `f()` returns on the mesh of `jax.set_mesh`."""
    lowered = jax.jit(f).lower()
    return made_by(lowered, lowered.compile())


class Ahead:
    """Stands in for `jax.jit` where a `make_*` factory calls it.

    A function it was given compiles for the shapes that it is called with and returns shapes, so
    that stages can be called one after the other; `compiled` keeps them in the order of the calls.
    """

    def __init__(self):
        self._jit = jax.jit
        self.compiled: list[Compiled] = []

    def __call__(self, f: Callable, **settings: Any) -> Callable:
        """`jax.jit(f, **settings)` that only compiles."""

        def call(*args: Any) -> Any:
            lowered = self._jit(f, **settings).lower(*args)
            self.compiled.append(lowered.compile())
            return made_by(lowered, self.compiled[-1])

        return call


class ExceedsMemory(Exception):
    """A stage needs more memory than a chip has.

    `largest` are its largest buffers: GiB, shape, and the operation that makes it ("" if unknown).
    """

    def __init__(self, needed_gib: float, largest: list[tuple[float, str, str]]):
        super().__init__(f"a stage needs {needed_gib} GiB on a chip")
        self.needed_gib, self.largest = needed_gib, largest


def compile_with_text(lowered: Lowered) -> tuple[Compiled, str]:
    """Compile a stage; also give its optimised HLO text, that of one device's share.

    Libtpu writes the text while it compiles. `compiled.as_text()` gives the same, but fails where
    a chip with SparseCores (v5p) gathers on them: XLA cannot read what libtpu then hands over.

    Raises:
        ExceedsMemory: libtpu says that the stage has no room on a chip.
    """
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
        try:
            compiled = lowered.compile(compiler_options=options)
        except jax.errors.JaxRuntimeError as error:
            if needed := _NEEDED.search(str(error)):
                raise ExceedsMemory(_gib(*needed.groups()), _largest(Path(folder))) from error
            raise
        written = list(Path(folder).glob("*.after_codegen.txt"))
        if len(written) == 1:
            return compiled, written[0].read_text()
    text = compiled.as_text()
    assert text is not None
    return compiled, text


_NEEDED = re.compile(r"\(([\d.]+)([KMGT])\) exceeds available HBM")
_REPORTED = re.compile(r"; +([\d.]+)([KMGT])iB; +\d+; +\d+; (\w+\[[\d,]*\])")
_MADE = re.compile(r'from instruction: %\S+ = (\w+\[[\d,]*\]).*?op_name="([^"]*)"')


def _largest(folder: Path) -> list[tuple[float, str, str]]:
    """The largest buffers that libtpu reports in what it wrote; none where it wrote no report."""

    def text(kind: str) -> str:
        return "".join(
            path.read_text() for path in folder.glob(f"*.after_optimizations-{kind}.txt")
        )

    report = text("memory-usage-report").partition("Memory Space: vmem")[0]
    made = dict(reversed(_MADE.findall(text("buffer-assignment-values"))))  # the first of a shape
    found = [(_gib(size, unit), shape) for size, unit, shape in _REPORTED.findall(report)]
    return [(gib, shape, made.get(shape, "")) for gib, shape in sorted(found, reverse=True)[:3]]


def _gib(size: str, unit: str) -> float:
    return float(size) * 1024.0 ** ("KMGT".index(unit) - 2)


def local_bytes(tree: Any) -> int:
    """Bytes of one device's share of a tree of arrays, or of shapes with shardings."""
    return sum(
        x.dtype.itemsize * int(np.prod(x.sharding.shard_shape(x.shape)))
        for x in jax.tree.leaves(tree)
    )


@dataclass(frozen=True)
class Memory:
    """Bytes of a chip by XLA's own analysis; `aliased` results are written into arguments."""

    arguments: int
    temporaries: int
    outputs: int
    aliased: int

    @property
    def total(self) -> int:
        """The most that the chip holds while the stage runs."""
        return self.arguments + self.temporaries + self.outputs - self.aliased


def memory_of(compiled: Compiled) -> Memory:
    """What a chip holds of a compiled stage."""
    analysis: Any = compiled.memory_analysis()
    return Memory(
        arguments=analysis.argument_size_in_bytes,
        temporaries=analysis.temp_size_in_bytes,
        outputs=analysis.output_size_in_bytes,
        aliased=analysis.alias_size_in_bytes,
    )


def total_bytes(compiled: Compiled) -> int:
    """The most bytes that a chip holds while the stage runs, by XLA's own analysis."""
    return memory_of(compiled).total
