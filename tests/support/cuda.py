"""Stages lowered for an NVIDIA GPU that is not there, and how exactly they multiply."""

import contextlib
import inspect
import re

import jax
from jax.sharding import AbstractDevice, AbstractMesh

H100 = {"device_kind": "NVIDIA H100 80GB HBM3", "num_cores": 132, "platform": "gpu"}
EXACT = "precision = [HIGHEST, HIGHEST]"

_PRODUCT = re.compile(r"stablehlo\.dot_general\W.*")
_TYPES = re.compile(r": \(tensor<([^>]*)>, tensor<([^>]*)>\)")


@contextlib.contextmanager
def h100():
    """Stages that are traced here are for an H100."""
    known = inspect.signature(AbstractDevice).parameters  # JAX 0.9 has no platform
    device = AbstractDevice(**{name: value for name, value in H100.items() if name in known})
    with jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=device)):
        yield


def lowered(stage, *args) -> str:
    """The text of a stage's module for CUDA, which JAX has not to compile."""
    with h100():
        return stage.trace(*args).lower(lowering_platforms=("cuda",)).as_text()


def products(text: str) -> list[tuple[str, str, bool]]:
    """Types of both operands of each matrix product, as `8x32xf32`, and whether it is exact."""
    lines = [found[0] for found in _PRODUCT.finditer(text)]
    assert lines
    return [(*_TYPES.search(line).groups(), EXACT in line) for line in lines]


def assert_precise(text: str, dtype: str) -> None:
    """Assert that float32 is multiplied as float32, and that a bfloat16 stage has bfloat16."""
    found = products(text)
    kinds = {one.rpartition("x")[2] for left, right, _ in found for one in (left, right)}
    assert kinds == {"f32"} if dtype == "float32" else "bf16" in kinds
    rounded = [one for one in found if one[0].endswith("f32") and not one[2]]
    assert rounded == []
