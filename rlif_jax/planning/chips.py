"""The chips that a run can be planned for, and the slices that are named after them."""

import math
import re
from dataclasses import dataclass
from typing import Literal

from rlif_jax.errors import UserError


@dataclass(frozen=True)
class Chip:
    """What a chip can do at most.

    `flops_per_s` are those of bfloat16 matrix products, `bytes_per_s` what its main memory moves,
    `sent_per_s` what it sends to the neighbours along one mesh axis, both directions together.
    `memory_gib` is what a program may use, by the compiler's own account.
    """

    name: str
    flops_per_s: float
    bytes_per_s: float
    sent_per_s: float
    memory_gib: float
    source: str


_TPU_PAGES = "docs.cloud.google.com/tpu/docs/{}"

CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 275e12, 1228e9, 100e9, 30.75, _TPU_PAGES.format("v4")),
        Chip("v5e", 197e12, 819e9, 100e9, 15.75, _TPU_PAGES.format("v5e")),
        Chip("v5p", 459e12, 2765e9, 200e9, 95.73, _TPU_PAGES.format("v5p")),
        Chip("v6e", 918e12, 1638e9, 200e9, 31.24, _TPU_PAGES.format("v6e")),
        Chip("h100", 989e12, 3350e9, 450e9, 79.0, "nvidia.com/en-us/data-center/h100 (SXM)"),
    )
}
"""By name. Of a TPU's ports, which each send 50 (v4, v5e) or 100 (v5p, v6e) GB/s one way, two lie
along a mesh axis."""

_SHAPE = re.compile(r"(?P<kind>[a-z]\w*):(?P<shape>\d+(x\d+)*)")
_GPUS = re.compile(r"gpu:(?P<kind>[a-z]\w*?)x(?P<count>\d+)")
_AXES = {"v4": 3, "v5p": 3, "v5e": 2, "v6e": 2}


@dataclass(frozen=True)
class Slice:
    """Chips of one kind that work together; of a CPU's virtual devices `chip` is None."""

    name: str
    platform: Literal["tpu", "gpu", "cpu"]
    chips: int
    chip: Chip | None

    @classmethod
    def parse(cls, name: str) -> "Slice":
        """Read `v5e:4x4`, `gpu:h100x8` or `cpu:8`; UserError for anything else."""
        if (gpus := _GPUS.fullmatch(name)) and gpus["kind"] == "h100" and int(gpus["count"]):
            return cls(name, "gpu", int(gpus["count"]), CHIPS["h100"])
        if tpus := _SHAPE.fullmatch(name):
            sizes, kind = [int(size) for size in tpus["shape"].split("x")], tpus["kind"]
            if kind == "cpu" and len(sizes) == 1 and sizes[0]:
                return cls(name, "cpu", sizes[0], None)
            if len(sizes) == _AXES.get(kind) and min(sizes):
                return cls(name, "tpu", math.prod(sizes), CHIPS[kind])
        raise UserError(
            f"--topology {name} is not known. Name a TPU slice by its chips along each axis, as "
            "v5e:4x4 or v6e:4x4 (two axes), v4:2x2x4 or v5p:2x2x2 (three); GPUs of one node as "
            "gpu:h100x8; virtual devices of this machine as cpu:8"
        )
