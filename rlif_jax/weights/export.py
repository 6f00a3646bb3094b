"""Writing models: to a Hugging Face folder, bit for bit, or to an Orbax folder for fast starts."""

from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from rlif_jax.console.notice import Notice
from rlif_jax.model.config import ModelConfig, param_specs
from rlif_jax.weights import orbax_folder
from rlif_jax.weights.layout import file_shape, hf_names
from rlif_jax.weights.parameters import cast
from rlif_jax.weights.safetensors import NewTensor, shard, write_file, write_index
from rlif_jax.weights.source import OpenModel

CHUNK_BYTES = 32 << 20
"""Largest chunk of a parameter in an Orbax folder."""


def hf_tensors(
    opened: OpenModel, dtype: np.dtype | None
) -> Iterator[tuple[NewTensor, tuple[str, int]]]:
    """The tensors of a Hugging Face checkpoint in writing order, each with (parameter, layer).

    `dtype` None keeps each tensor's type. All layers of a parameter come together, as in Orbax
    folders.
    """
    cfg = opened.cfg
    for name, spec in param_specs(cfg).items():
        shape = file_shape(name, spec.layer_shape, cfg.vocab_size)
        for layer, tensor in enumerate(hf_names(name, cfg.layers)):
            kind = opened.weights.dtype(name, layer) if dtype is None else dtype
            yield NewTensor(tensor, shape, kind), (name, layer)


def stored_bytes(opened: OpenModel, dtype: np.dtype | None) -> int:
    """Bytes of the weights when written in this type."""
    return sum(tensor.size for tensor, _ in hf_tensors(opened, dtype))


def write_hf_folder(
    opened: OpenModel, folder: Path, dtype: np.dtype | None, shard_bytes: int, notice: Notice
) -> None:
    """config.json, tokenizer and safetensors of at most `shard_bytes` each.

    One tensor is in memory at a time; of an Orbax source all layers of one parameter.
    `dtype` None keeps each tensor's type, and with it every bit. `notice` counts bytes written.
    """
    _describe(opened, folder, dtype)
    origin = dict(hf_tensors(opened, dtype))
    shards, total, done = shard(origin, shard_bytes), sum(tensor.size for tensor in origin), 0

    def values(group: list[NewTensor]) -> Iterator[np.ndarray]:
        nonlocal done
        for tensor in group:
            yield cast(opened.weights.stored(*origin[tensor]), tensor.dtype)
            done += tensor.size
            notice("writing", done, total)

    for name, group in shards.items():
        with (folder / name).open("wb") as out:
            write_file(out, group, values(group))
    if len(shards) > 1:
        write_index(folder, shards)


def write_orbax_folder(
    opened: OpenModel, folder: Path, dtype: np.dtype | None, notice: Notice
) -> None:
    """config.json, tokenizer and the parameters in their layout in memory, in an Orbax folder.

    `dtype` None keeps the type of each parameter whose layers share one, else float32. The whole
    model is in memory for this.
    """
    _describe(opened, folder, dtype)
    specs = param_specs(opened.cfg)
    params = {}
    for i, name in enumerate(specs, 1):
        params[name] = opened.weights.whole(name, dtype or _common_dtype(opened, name))
        notice("reading", i, len(specs))
    notice("writing", 0, 1)
    path = Path(folder).absolute() / orbax_folder.FOLDER
    whole = jax.tree.map(np.ascontiguousarray, params)
    # In one chunk a parameter would have to be read whole by every host.
    chunks = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES), whole)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        checkpointer.save(path, args=ocp.args.PyTreeSave(whole, save_args=chunks))
    notice("writing", 1, 1)


def _describe(opened: OpenModel, folder: Path, dtype: np.dtype | None) -> None:
    """config.json and tokenizer; with `dtype` None config.json states the type of the matrices."""
    opened.describe(folder, opened.weights.dtype("layers.q", 0) if dtype is None else dtype)


def _common_dtype(opened: OpenModel, name: str) -> np.dtype:
    cfg: ModelConfig = opened.cfg
    kinds = {opened.weights.dtype(name, layer) for layer in range(len(hf_names(name, cfg.layers)))}
    return kinds.pop() if len(kinds) == 1 else np.dtype(np.float32)
