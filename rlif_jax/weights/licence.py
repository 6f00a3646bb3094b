"""The licence of a model, as far as its own files tell it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from huggingface_hub import metadata_load

from rlif_jax.errors import UserError
from rlif_jax.storage.hub import cached_file
from rlif_jax.weights.gguf_header import metadata, open_gguf
from rlif_jax.weights.pypi_models import PUBLISHED

_BEGINNINGS = {"apache license version 2.0": "apache-2.0", "mit license": "mit"}


class Licence(NamedTuple):
    """A licence in the words of the Hub's metadata: `other` has a name or a link as well.

    All are empty where nothing is known.
    """

    id: str = ""
    name: str = ""
    link: str = ""


def licence_of(source: str, folder: Path) -> Licence:
    """The licence of a model source, whose licence file may lie in `folder`.

    It is read in the source's model card, if that is on this machine, in the header of its .gguf
    file, or in the licence file. Nothing is downloaded.
    """
    text = next(iter(sorted(folder.glob("LICENSE*"))), None)
    kind, _, name = source.partition(":")
    if kind == "pypi" and name in PUBLISHED:
        return Licence(PUBLISHED[name].licence)
    return _on_card(source, text) or _in_gguf(source) or _as_text(text)


def _on_card(source: str, text: Path | None) -> Licence | None:
    """That of the YAML front matter of README.md."""
    if source.startswith("hf:"):
        card = cached_file(source, "README.md")
    else:
        card = Path(source) / "README.md" if source else None
    try:
        found = (metadata_load(card) or {}) if card and card.is_file() else {}
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return _stated(found, {"id": "license", "name": "license_name", "link": "license_link"}, text)


def _in_gguf(source: str) -> Licence | None:
    """That of the metadata of a .gguf file."""
    path = Path(source)
    if not (path.suffix == ".gguf" and path.is_file()):
        return None
    key = "general.license"
    try:
        reader = open_gguf(path)
        found = {one: metadata(reader, one) for one in (key, f"{key}.name", f"{key}.link")}
    except UserError:
        return None
    return _stated(found, {"id": key, "name": f"{key}.name", "link": f"{key}.link"}, None)


def _stated(found: Mapping[str, Any], keys: Mapping[str, str], text: Path | None) -> Licence | None:
    """What metadata say; a link to a file is kept where it is the licence file."""
    said = {field: found.get(key) for field, key in keys.items()}
    said = {field: value for field, value in said.items() if value and isinstance(value, str)}
    if "id" not in said:
        return None
    link = said.get("link", "")
    if "://" not in link and (text is None or link != text.name):
        said.pop("link", None)
    return Licence(**said)


def _as_text(text: Path | None) -> Licence:
    """That of a licence file: by its first words, or `other` with a link to it."""
    if text is None:
        return Licence()
    words = " ".join(text.read_text("utf-8", "replace").split()).lower()
    known = [name for start, name in _BEGINNINGS.items() if words.startswith(start)]
    return Licence(known[0]) if known else Licence("other", link=text.name)
