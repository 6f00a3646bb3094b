"""Conversion between a parameter and its matrices in files.

Hugging Face and llama.cpp files keep one [out, in] matrix per layer, with heads flattened. Here a
weight is stored as it is multiplied: inputs first, heads separate, all layers on a leading axis.
The file's matrices of `INPUT_AXES` are transposed.
`file_block` maps a part of a parameter to a block of the file's matrix, so that a process reads
only the shards that it holds.
"""

import math

import numpy as np

from rlif_jax.model.config import INPUT_AXES

HF_GLOBAL = {
    "embed": "model.embed_tokens.weight",
    "final_norm": "model.norm.weight",
    "head": "lm_head.weight",
}
HF_LAYER = {
    "attn_norm": "input_layernorm.weight",
    "q": "self_attn.q_proj.weight",
    "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight",
    "o": "self_attn.o_proj.weight",
    "ffn_norm": "post_attention_layernorm.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
    "q_bias": "self_attn.q_proj.bias",
    "k_bias": "self_attn.k_proj.bias",
    "v_bias": "self_attn.v_proj.bias",
    "q_norm": "self_attn.q_norm.weight",
    "k_norm": "self_attn.k_norm.weight",
}


def leaf_of(name: str) -> str:
    """A parameter's name without the prefix of the layers."""
    return name.removeprefix("layers.")


def hf_names(name: str, layers: int) -> list[str]:
    """The tensors of a Hugging Face checkpoint that make up a parameter, in layer order."""
    if name in HF_GLOBAL:
        return [HF_GLOBAL[name]]
    return [f"model.layers.{i}.{HF_LAYER[leaf_of(name)]}" for i in range(layers)]


def file_shape(name: str, shape: tuple[int, ...], vocab_size: int) -> tuple[int, ...]:
    """The shape in the file of one layer's tensor, `shape` being the parameter's for one layer."""
    leaf = leaf_of(name)
    if leaf in ("embed", "head"):
        return (vocab_size, *shape[1:])
    if leaf not in INPUT_AXES:
        return (math.prod(shape),)
    inputs = INPUT_AXES[leaf]
    return (math.prod(shape[inputs:]), math.prod(shape[:inputs]))


def file_block(
    name: str, shape: tuple[int, ...], index: tuple[slice, ...]
) -> tuple[tuple[slice, slice], tuple[int, ...]]:
    """Where a part of one layer's parameter lies in the file, and the shape of that part.

    `index` has a slice for each axis of `shape`. Returns (rows, columns) of the file's matrix, a
    vector counting as a matrix of one column, and the part's shape.
    """
    leaf = leaf_of(name)
    part = tuple(len(range(*s.indices(n))) for s, n in zip(index, shape, strict=True))
    if leaf in ("embed", "head"):
        return (_flat(index[:1], shape[:1]), _flat(index[1:], shape[1:])), part
    inputs = INPUT_AXES.get(leaf, 0)
    columns = _flat(index[:inputs], shape[:inputs])
    return (_flat(index[inputs:], shape[inputs:]), columns), part


def _flat(index: tuple[slice, ...], shape: tuple[int, ...]) -> slice:
    """The run of a flattened group of axes that a part of it covers: only the first may be cut."""
    if not shape:
        return slice(0, 1)
    start, stop, _ = index[0].indices(shape[0])
    inner = math.prod(shape[1:])
    for s, n in zip(index[1:], shape[1:], strict=True):
        if s.indices(n) != (0, n, 1):
            raise ValueError(f"axis of {n} may not be split: {s}")
    return slice(start * inner, stop * inner)


def from_file(name: str, block: np.ndarray, part: tuple[int, ...]) -> np.ndarray:
    """A block of the file's matrix as that part of the parameter; a view where it can be."""
    return (block.T if leaf_of(name) in INPUT_AXES else block).reshape(part)


def to_file(name: str, value: np.ndarray) -> np.ndarray:
    """One layer's whole parameter as the file's matrix or vector."""
    leaf = leaf_of(name)
    if leaf in ("embed", "head"):
        return value
    if leaf not in INPUT_AXES:
        return value.reshape(-1)
    inputs = INPUT_AXES[leaf]
    return value.reshape(math.prod(value.shape[:inputs]), -1).T
