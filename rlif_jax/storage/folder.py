"""Folders on this machine or in a bucket: one kind of path for both, and a bucket's refusals.

Paths in buckets are etils' `epath.Path`, which Orbax uses as well; its client is gcsfs. It finds
credentials as `storage/bucket.py` says. STORAGE_EMULATOR_HOST names another server.
"""

import contextlib
import importlib.util
import logging
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from rlif_jax.errors import Outage, UserError

Folder = Path | epath.Path
"""A folder or a file, on this machine or in a bucket."""

_CLIENTS = {"aiohttp", "fsspec", "gcsfs", "google", "requests", "tensorflow"}


def folder_at(location: str) -> Folder:
    """The path of a local folder or of `gs://BUCKET/PATH`.

    Raises:
        UserError: a bucket is named, and the package that reaches it is not installed.
    """
    if not in_bucket(location):
        return Path(location)
    if importlib.util.find_spec("gcsfs") is None:
        raise UserError(
            f"{location} is in a bucket, and the package gcsfs is not installed: pip install "
            "'rlif_jax[gcs]', or choose a local folder"
        )
    import fsspec.config  # installed with gcsfs

    # Listings that gcsfs has kept lack what tensorstore and other processes have written since.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    for client in ("gcsfs", "fsspec"):  # they log what they raise
        logging.getLogger(client).setLevel(logging.CRITICAL)
    return epath.Path(location)


def in_bucket(path: Folder | str) -> bool:
    """Whether a path is that of an object or a folder in a bucket."""
    return str(path).startswith("gs://")


def is_folder(path: Folder) -> bool:
    """Whether a folder is there; unlike `is_dir`, it raises when a bucket cannot be read."""
    return path.exists() if in_bucket(path) else path.is_dir()


def from_bucket(error: BaseException) -> bool:
    """Whether an exception is a bucket's refusal or a failure to reach it, as its clients raise."""
    if isinstance(error, OSError) and str(error).startswith("Forbidden"):  # gcsfs, for status 403
        return True
    return any(kind.__module__.partition(".")[0] in _CLIENTS for kind in type(error).__mro__)


def refused(path: Folder | str, error: BaseException, what: str, then: str = "") -> UserError:
    """The exception for what a bucket or the network refused: `what`, the remedy, and `then`.

    It is an `Outage` where the same request may succeed later.
    """
    text = " ".join(str(error).split())[:300] or type(error).__name__
    code, bucket = getattr(error, "code", None), str(path).removeprefix("gs://").partition("/")[0]
    signs = ("Forbidden", "PERMISSION_DENIED", "UNAUTHENTICATED")
    kind = UserError
    if code in (401, 403) or text.startswith(signs) or ".auth." in type(error).__module__:
        remedy = (
            f"the bucket refuses access ({text}). Log in with `gcloud auth application-default "
            "login`, or give the account the roles Storage Object User and Storage Legacy Bucket "
            f"Reader on gs://{bucket}."
        )
    elif code == 404 or isinstance(error, FileNotFoundError) or text.startswith("NOT_FOUND"):
        remedy = (
            f"there is no bucket gs://{bucket} ({text}). Make it with `gcloud storage buckets "
            f"create gs://{bucket}`, or name another one."
        )
    else:
        kind = Outage
        remedy = f"a request failed ({text}). Check the network, and run the command again."
    return kind(f"{what}: {remedy}{then and ' '}{then}")


@contextlib.contextmanager
def bucket_errors(folder: Folder | str) -> Iterator[None]:
    """Turn what a bucket refuses into a `UserError` that names the folder and the remedy.

    Nothing is turned for a local folder.
    """
    try:
        yield
    except Exception as error:
        if not (in_bucket(folder) and from_bucket(error)):
            raise
        raise refused(folder, error, f"{folder} cannot be used") from error
