"""Where a decoder's parameters come from, part by part, and how they get onto devices."""

import abc
import hashlib
import math
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, Sharding, SingleDeviceSharding

from rlif_jax.console.notice import Notice
from rlif_jax.errors import UserError, shown
from rlif_jax.model.config import INPUT_AXES, ModelConfig, ParamSpec, param_specs
from rlif_jax.model.decoder import Decoder
from rlif_jax.model.placement import check_mesh
from rlif_jax.sharding import param_shardings
from rlif_jax.storage.files import Files
from rlif_jax.weights.layout import file_block, file_shape, from_file, hf_names, leaf_of
from rlif_jax.weights.safetensors import DTYPES, StoredTensor, read_block, stored_tensors

Index = tuple[slice, ...]
FLOAT32 = np.dtype(np.float32)
COMPARED_BYTES = 64 << 20  # of a head, and of the embedding it should repeat, at a time
IN_FLIGHT_BYTES = 256 << 20  # of parts on their way to devices while the next is read
_ROWS = 4  # of each matrix, for a fingerprint
STRIP = 16  # float32 numbers in a cache line of 64 bytes


class Weights(Protocol):
    """Stored parameters, checked when they are opened as far as headers allow.

    `SafetensorsWeights` alone compares values then: a head beside tied embeddings.
    """

    unused: tuple[str, ...]
    """Redundant tensors, which are skipped."""

    def arrays(
        self, shardings: Mapping[str, Sharding], notice: Notice | None
    ) -> dict[str, jax.Array]:
        """Every parameter by name as a float32 array of this sharding."""
        ...

    def whole(self, name: str, dtype: np.dtype) -> np.ndarray:
        """A whole parameter as a NumPy array of this type."""
        ...

    def stored(self, name: str, layer: int) -> np.ndarray:
        """One layer's tensor as Hugging Face keeps it, in its stored type, without padding rows.

        `layer` is 0 for a parameter outside of the layers.
        """
        ...

    def dtype(self, name: str, layer: int) -> np.dtype:
        """The type of what `stored` gives."""
        ...

    def fingerprint(self) -> str:
        """A digest of a part, by which other weights in the same place are told from these."""
        ...


class ReadInParts(abc.ABC):
    """Weights whose tensors can be read in parts: `_block` is a block of one tensor's matrix.

    A process asks, for each parameter in turn, for the distinct parts that its own devices hold
    and nothing else. Of a local safetensors file those parts alone are read; a bucket, and a GGUF
    file, whose blocks are dequantised by the row, give whole rows for a part of the columns. While
    parts are copied to devices the next one is read. Parts on their way take at most
    `IN_FLIGHT_BYTES`, so that memory stays near the process's share of the parameters.
    """

    def __init__(self, cfg: ModelConfig):
        self._cfg, self._specs = cfg, param_specs(cfg)
        self._in_flight: deque[tuple[int, list[jax.Array]]] = deque()
        self.unused: tuple[str, ...] = ()

    @abc.abstractmethod
    def _block(self, name: str, layer: int, rows: slice, columns: slice) -> np.ndarray:
        """Rows and columns of the file's matrix as Hugging Face keeps it, as far as it has them."""

    def fingerprint(self) -> str:
        """See `Weights`: the first head of q and of k in each layer, and rows of other matrices.

        Training moves all of them.
        """
        digest = hashlib.sha256()
        for name, spec in self._specs.items():
            if spec.stacked and leaf_of(name) in INPUT_AXES:
                _, columns = file_shape(name, spec.layer_shape, 0)
                rows = self._cfg.head_dim if leaf_of(name) in ("q", "k") else _ROWS
                for layer in range(spec.shape[0]):
                    block = self._block(name, layer, slice(0, rows), slice(0, columns))
                    digest.update(np.ascontiguousarray(block).tobytes())
        return digest.hexdigest()[:16]

    def _read_one(self, name: str, layer: int, index: Index) -> np.ndarray:
        """Part of one layer's parameter; rows that pad the embedding are zero."""
        (rows, columns), part = file_block(name, self._specs[name].layer_shape, index)
        block = self._block(name, layer, rows, columns)
        if missing := (rows.stop - rows.start) - len(block):
            block = np.pad(block, ((0, missing), (0, 0)))
        return from_file(name, block, part)

    def whole(self, name: str, dtype: np.dtype) -> np.ndarray:
        """See `Weights`."""
        return self.read(name, tuple(slice(0, n) for n in self._specs[name].shape), dtype)

    def read(self, name: str, index: Index, dtype: np.dtype = FLOAT32) -> np.ndarray:
        """The part of a parameter at `index`, one slice an axis."""
        spec = self._specs[name]
        if not spec.stacked:
            return cast(self._read_one(name, 0, index), dtype)
        layers = range(spec.shape[0])[index[0]]
        sizes = [
            len(range(*s.indices(n))) for s, n in zip(index[1:], spec.layer_shape, strict=True)
        ]
        out = np.empty((len(layers), *sizes), dtype)
        for i, layer in enumerate(layers):
            _copy_cast(out[i], self._read_one(name, layer, index[1:]))
        return out

    def arrays(
        self, shardings: Mapping[str, Sharding], notice: Notice | None
    ) -> dict[str, jax.Array]:
        """See `Weights`; `notice` is called after each parameter."""
        sizes = {name: 4 * math.prod(spec.shape) for name, spec in self._specs.items()}
        arrays, done = {}, 0
        for name, spec in self._specs.items():
            arrays[name] = self._sharded(name, spec.shape, shardings[name])
            done += sizes[name]
            if notice is not None:
                notice("loading the parameters", done, sum(sizes.values()))
        self._wait(0)
        return arrays

    def _sharded(self, name: str, shape: tuple[int, ...], sharding: Sharding) -> jax.Array:
        """One parameter: each part read once and copied to all devices here that hold it."""
        holders: dict[tuple, list[Any]] = {}
        for device, index in sharding.addressable_devices_indices_map(shape).items():
            assert index is not None  # every addressable device holds a part
            bounds = tuple(s.indices(n)[:2] for s, n in zip(index, shape, strict=True))
            holders.setdefault(bounds, []).append(device)
        arrays = []
        for bounds, devices in holders.items():
            size = FLOAT32.itemsize * math.prod(stop - start for start, stop in bounds)
            self._wait(max(0, IN_FLIGHT_BYTES - size))
            part = self.read(name, tuple(slice(*b) for b in bounds))
            copies = [jax.device_put(part, device) for device in devices]
            self._in_flight.append((size, copies))
            arrays += copies
        return jax.make_array_from_single_device_arrays(shape, sharding, arrays)

    def _wait(self, limit: int) -> None:
        """Wait until at most `limit` bytes of host memory are being copied to devices."""
        while sum(size for size, _ in self._in_flight) > limit:
            jax.block_until_ready(self._in_flight.popleft()[1])


class SafetensorsWeights(ReadInParts):
    """The weights of a Hugging Face folder.

    Opening one reads headers alone, with one exception: where embeddings are tied and the folder
    has a head nevertheless, both matrices are read whole and compared.

    Raises:
        UserError: every tensor that is missing, of another shape or of a type that is not
            supported, and every one that belongs to no parameter, before any is read; a head
            beside a tied embedding that differs from it.
    """

    def __init__(self, files: Files, cfg: ModelConfig):
        super().__init__(cfg)
        self._files, self._tensors = files, stored_tensors(files)
        found = {n: (t.shape, t.kind) for n, t in self._tensors.items() if not _redundant(n, cfg)}
        what = f"the weights in {files.location} do not fit its config.json"
        check_fit(found, hf_names, DTYPES, cfg, what)
        _check_tied_head(self._tensors, files, cfg)
        self.unused = tuple(name for name in self._tensors if _redundant(name, cfg))

    def _block(self, name: str, layer: int, rows: slice, columns: slice) -> np.ndarray:
        return read_block(self._files, self._tensors[self._name(name, layer)], rows, columns)

    def stored(self, name: str, layer: int) -> np.ndarray:
        """See `Weights`."""
        tensor = self._tensors[self._name(name, layer)]
        columns = slice(0, int(np.prod(tensor.shape[1:], dtype=int)))
        block = read_block(self._files, tensor, slice(0, tensor.shape[0]), columns)
        return block.reshape(tensor.shape)

    def dtype(self, name: str, layer: int) -> np.dtype:
        """See `Weights`."""
        return self._tensors[self._name(name, layer)].dtype

    def _name(self, name: str, layer: int) -> str:
        return hf_names(name, self._cfg.layers)[layer]


def cast(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The numbers in another type; from bfloat16 to float32 by a shift of bits, which is faster."""
    if values.dtype == DTYPES["BF16"] and dtype == FLOAT32:
        return np.left_shift(values.view(np.uint16), 16, dtype=np.uint32).view(np.float32)
    return values.astype(dtype, copy=False)


def _copy_cast(out: np.ndarray, values: np.ndarray) -> None:
    """`out[...] = cast(values, out.dtype)` for a contiguous `out`.

    A transposed view is copied `STRIP` of the file's rows at a time: they fill cache lines of `out`
    whole, where one row after the other would fetch every line again for each number.
    """
    inputs = int(np.argmax(values.strides))  # axes before that of the file's rows
    width = math.prod(values.shape[inputs:]) if inputs else values.size
    by_row, to = values.reshape(-1, width), out.reshape(-1, width)
    step = STRIP if inputs else width
    for start in range(0, width, step):
        rows = slice(start, start + step)
        to[:, rows] = cast(by_row[:, rows], out.dtype)


def check_fit(
    found: Mapping[str, tuple[tuple[int, ...], str]],
    names_of: Callable[[str, int], list[str]],
    known_kinds: Collection[str],
    cfg: ModelConfig,
    what: str,
) -> None:
    """Raise UserError, which begins with `what`, unless these tensors are those of `cfg`.

    `found` has (shape in the file, stored type) by name, `names_of(parameter, layers)` names the
    tensors of a parameter. The message lists the tensors that are missing, of another shape or of
    a type that is not among `known_kinds`, and those that belong to no parameter: the first eight,
    and the number of the others.
    """
    problems, used = [], set()
    for name, spec in param_specs(cfg).items():
        want = file_shape(name, spec.layer_shape, cfg.vocab_size)
        for tensor in names_of(name, cfg.layers):
            used.add(tensor)
            if tensor not in found:
                problems.append(f"{tensor} is missing")
                continue
            shape_found, kind = found[tensor]
            if kind not in known_kinds:
                known = ", ".join(known_kinds)
                problems.append(f"{tensor} is stored as {shown(kind)}, which is not among {known}")
            elif shape_found != want:
                problems.append(f"{tensor} has shape {shape_found}, not {want}")
    problems += [f"{shown(name)} belongs to no parameter" for name in found if name not in used]
    if problems:
        listed = "; ".join(problems[:8])
        more = f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise UserError(f"{what}: {listed}{more}")


def _redundant(tensor: str, cfg: ModelConfig) -> bool:
    """Whether a tensor, as in older checkpoints, can be computed from others."""
    return tensor.endswith("rotary_emb.inv_freq") or (cfg.tied and tensor == "lm_head.weight")


def _check_tied_head(tensors: dict[str, StoredTensor], files: Files, cfg: ModelConfig) -> None:
    """Raise UserError for a head that differs from the embedding it is tied to."""
    head, embed = tensors.get("lm_head.weight"), tensors["model.embed_tokens.weight"]
    if head is None or not cfg.tied:
        return
    same = (head.kind, head.shape) == (embed.kind, embed.shape)
    step = max(1, COMPARED_BYTES // (cfg.embed * embed.dtype.itemsize))
    for start in range(0, embed.shape[0] if same else 0, step):
        rows = slice(start, min(start + step, embed.shape[0]))
        here, there = (read_block(files, t, rows, slice(0, cfg.embed)) for t in (head, embed))
        if not np.array_equal(here.view(np.uint8), there.view(np.uint8)):
            same = False
            break
    if not same:
        raise UserError(
            f"config.json in {files.location} has tie_word_embeddings true, but lm_head.weight "
            "differs from model.embed_tokens.weight; set it to false if the head is meant to be "
            "used, or remove the tensor"
        )


def named(state: nnx.State) -> dict[str, Any]:
    """A decoder's parameters (or their placeholders) by their declared names."""
    return {".".join(map(str, keys)): v.get_value() for keys, v in state.flat_state()}


def filled(state: nnx.State, arrays: Mapping[str, jax.Array]) -> nnx.State:
    """The inverse of `named`: `state` with these arrays in place of its own."""
    flat = [(keys, v.replace(arrays[".".join(map(str, keys))])) for keys, v in state.flat_state()]
    return nnx.State.from_flat_path(flat)


def shardings_of(cfg: ModelConfig, mesh: Mesh | None) -> dict[str, Sharding]:
    """The sharding of each parameter by its declared name; without a mesh, the first device.

    Raises UserError for a mesh that cannot split the model.
    """
    if mesh is None:
        here = SingleDeviceSharding(jax.devices()[0])
        return dict.fromkeys(param_specs(cfg), here)
    check_mesh(cfg, mesh.shape["fsdp"], mesh.shape["tensor"], mesh.shape["context"])

    def shape_only(name: str, spec: ParamSpec) -> Any:
        return jax.ShapeDtypeStruct(spec.shape, jnp.float32)

    return named(param_shardings(nnx.state(Decoder(cfg, shape_only), nnx.Param), mesh))
