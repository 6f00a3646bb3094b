"""What a checkpoint says of its own content, which tells damage from another model's parameters.

It is kept with the place in the data, as JSON: a digest, the type and the shape of each array by
its path, and a digest of all of that. Checkpoints of older versions have the place alone.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from rlif_jax.run.digest import by_path, digests

Arrays = Mapping[str, list[Any]]
"""[digest, type, shape] of each array by its path."""

_KEYS = {"data", "arrays", "digest"}


class Damage(Exception):
    """The content is not what was written; says how, in a phrase."""


def written(tree: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept as JSON of the arrays in `tree` and of `data`, of which it is a copy.

    Digests are computed on the devices.
    """
    leaves = by_path(tree)
    arrays = {
        name: [digest, str(leaves[name].dtype), list(leaves[name].shape)]
        for name, digest in digests(tree).items()
    }
    kept = json.loads(json.dumps({"data": data, "arrays": arrays}))
    return kept | {"digest": _digest(kept)}


def opened(kept: Any) -> tuple[dict[str, Any], Arrays | None]:
    """The data and the arrays of what `written` gave; (data, None) of an older version's.

    Raises:
        Damage: it is not what was written.
    """
    if not isinstance(kept, dict):
        raise Damage("the place in the data is not a JSON object")
    if not _KEYS & kept.keys():
        return kept, None
    digest = kept.pop("digest", None)
    if kept.keys() != _KEYS - {"digest"} or digest != _digest(kept):
        raise Damage("the record of its content has another digest than when it was written")
    return kept["data"], kept["arrays"]


def misfits(arrays: Arrays, wanted: Any) -> list[str]:
    """How the arrays of a checkpoint differ from a tree of arrays or shapes, each in a phrase."""
    leaves = by_path(wanted)
    kinds = {name: (tuple(x.shape), str(x.dtype)) for name, x in leaves.items()}
    stored = {name: (tuple(shape), dtype) for name, (_, dtype, shape) in arrays.items()}
    found = [f"it lacks {name}" for name in sorted(kinds.keys() - stored.keys())]
    found += [f"{name} belongs to nothing here" for name in sorted(stored.keys() - kinds.keys())]
    for name in sorted(kinds.keys() & stored.keys()):
        (shape, dtype), (shape_here, dtype_here) = stored[name], kinds[name]
        if shape != shape_here:
            found.append(f"{name} has shape {shape}, not {shape_here}")
        elif dtype != dtype_here:
            found.append(f"{name} is {dtype}, not {dtype_here}")
    return found


def altered(arrays: Arrays, tree: Any) -> list[str]:
    """The paths of the arrays in `tree` whose digests are not those of the checkpoint."""
    return [name for name, digest in digests(tree).items() if arrays[name][0] != digest]


def _digest(kept: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]
