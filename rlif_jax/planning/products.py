"""Floating-point operations of the matrix products in a compiled stage's optimised HLO text.

A multiplication and an addition count as two operations. Sums, exponentials and the like are left
out: they are few beside the products, and other units compute them.

XLA for TPUs writes a product as a convolution, with a window over the axis of a batch. Only the
places of the window that meet an entry of the operand count, as in XLA's own analysis
(`HloCostAnalysis::GetConvolutionFlops`).
"""

import re
from math import prod

import numpy as np

from rlif_jax.planning.hlo import Computation, Instruction, Module, dims_of


class Products:
    """Counts the operations of the products of a module."""

    def __init__(self, module: Module):
        self._module = module
        self._within: dict[str, int] = {}

    def flops(self, here: Computation, op: Instruction) -> int:
        """Operations of one instruction of `here`, or of the products inside its fusion."""
        if op.opcode == "dot":
            return _dot(here, op)
        if op.opcode == "convolution":
            return _convolution(here, op)
        if op.opcode != "fusion":
            return 0
        (name,) = op.called
        if name not in self._within:
            fused = self._module.computations[name]
            self._within[name] = sum(self.flops(fused, x) for x in fused.instructions.values())
        return self._within[name]


def _dot(here: Computation, op: Instruction) -> int:
    """Each entry of the result is a sum over the contracted axes."""
    dims = dims_of(here.operand(op, 0).type)
    contracted = op.attribute(r"lhs_contracting_dims=\{([\d,]*)\}") or ""
    return 2 * prod(dims_of(op.type)) * prod(dims[int(d)] for d in contracted.split(",") if d)


def _convolution(here: Computation, op: Instruction) -> int:
    """Of b examples, f input and output features, and numbered axes that a window goes over."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", op.attributes)
    if labels is None:
        raise ValueError(f"{op.name} does not label its axes: {op.attributes[:200]}")
    types = here.operand(op, 0).type, here.operand(op, 1).type, op.type
    x, kernel, y = (
        dict(zip(names, dims_of(type_), strict=True))
        for names, type_ in zip(labels.groups(), types, strict=True)
    )
    met = 1
    for axis in filter(str.isdigit, x):
        met *= _met(x[axis], kernel[axis], y[axis], _window(op, int(axis)))
    features = x["f"] // int(op.attribute(r"feature_group_count=(\d+)") or 1)
    examples = x["b"] // int(op.attribute(r"batch_group_count=(\d+)") or 1)
    return 2 * met * features * y["f"] * examples


def _window(op: Instruction, axis: int) -> dict[str, str]:
    """The entries of a window for one axis: `stride`, `pad`, `lhs_dilate`, `rhs_dilate`."""
    text = op.attribute(r"window=\{([^}]*)\}") or ""
    parts = (part.split("=") for part in text.split())
    return {name: values.split("x")[axis] for name, values in parts}


def _met(entries: int, window: int, places: int, form: dict[str, str]) -> int:
    """Pairs of a place of the window and an entry of it that meet an entry of the operand.

    `places` is the length of the result. Reversing the window changes no count.
    """
    low, _, _ = form.get("pad", "0_0").partition("_")
    stride, apart, spread = (int(form.get(k, 1)) for k in ("stride", "lhs_dilate", "rhs_dilate"))
    first = np.arange(places) * stride - int(low)
    met = 0
    for k in range(window):
        at = first + k * spread
        met += int(np.sum((at % apart == 0) & (at >= 0) & (at // apart < entries)))
    return met
