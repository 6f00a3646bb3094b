"""The files of a published problem set: in a local folder, in a bucket, or on the Hub."""

import hashlib
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import tensorstore as ts
from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from rlif_jax.errors import UserError
from rlif_jax.storage.user_cache import cache_folder, keep_in_cache

HUB_SECONDS = 10.0  # how long the Hub may take to say which commit a revision is


def release_files(location: str, names: Sequence[str], remedy: str) -> list[Path]:
    """Local paths of the files `names` at `location`, with what is missing here downloaded first.

    A location is a folder, where a file may be called NAME.gz; `gs://BUCKET/FOLDER`; or
    `hf:ORG/NAME` or `hf:ORG/NAME@REVISION`, a data set of the Hugging Face Hub. Files of the Hub go
    to its own cache (HF_HOME), which is all that is read where the Hub cannot be asked or
    HF_HUB_OFFLINE is set; objects of a bucket to `cache_folder()`, anew when they were written
    anew.

    Raises UserError for a file that is missing, naming it, the location and the `remedy`, and when
    the location cannot be read.
    """
    if location.startswith("hf:"):
        return _of_hub(location, names, remedy)
    if location.startswith("gs://"):
        return [_of_bucket(location, name, remedy) for name in names]
    if "://" in location:
        raise UserError(
            f"{location} is neither a local folder nor gs://BUCKET/FOLDER nor hf:ORG/NAME; copy it "
            "to one."
        )
    folder = Path(location).expanduser()
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise UserError(f"{location} {what}; name the folder that holds {names[0]}.")
    return [_of_folder(folder, location, name, remedy) for name in names]


def _of_folder(folder: Path, location: str, name: str, remedy: str) -> Path:
    """A file of a folder, or else its compressed copy."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise _missing(location, name, remedy)


def _of_hub(location: str, names: Sequence[str], remedy: str) -> list[Path]:
    repo, at, revision = location.removeprefix("hf:").partition("@")
    page = f"{constants.ENDPOINT}/datasets/{repo}"
    elsewhere = f"or get the files elsewhere and give their folder: {remedy}"
    if not repo or (at and not re.fullmatch(r"[\w.+/-]+", revision)):
        raise UserError(f"{location!r} is not of the form hf:ORG/NAME or hf:ORG/NAME@REVISION.")
    name, revision = names[0], revision or constants.DEFAULT_REVISION
    try:
        paths = _cached(repo, revision, names)
        for name in names[len(paths) :]:
            # Given the revision's name, not its commit, the cache can tell them offline, too.
            paths.append(hf_hub_download(repo, name, repo_type="dataset", revision=revision))
        return [Path(path) for path in paths]
    except HFValidationError as error:
        raise UserError(f"{location!r} does not name a data set of the Hub: {error}") from error
    except GatedRepoError as error:
        raise UserError(
            f"{location} is gated: accept its terms on {page}, then log in with `hf auth login` or "
            f"set HF_TOKEN; {elsewhere}"
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"The Hub has no data set {repo}, or it is private; check the name on {page}, and log "
            f"in with `hf auth login` if it is; {elsewhere}"
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(
            f"{repo} has no revision {revision!r}; {page}/tree/main lists those it has."
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise UserError(
            f"Cannot get {name} of {location} from the Hub, and the cache {constants.HF_HUB_CACHE} "
            f"does not hold it. Connect and run again; {elsewhere}"
        ) from error
    except EntryNotFoundError as error:
        raise _missing(location, name, remedy) from error
    except (HfHubHTTPError, HTTPError, OSError, RuntimeError) as error:
        raise UserError(
            f"The download of {name} of {location} broke off ({_first_line(error)}). Check the "
            f"network and the room in {constants.HF_HUB_CACHE} and run again; {elsewhere}"
        ) from error


def _cached(repo: str, revision: str, names: Sequence[str]) -> list[str]:
    """The first of the files, as many as the cache has at the commit that the Hub says.

    So one request is enough for all files where nothing has changed; none where the Hub cannot be
    asked, and the client then looks for each file by the revision's name.
    """
    try:
        commit = HfApi().dataset_info(repo, revision=revision, timeout=HUB_SECONDS).sha
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except (HTTPError, OfflineModeIsEnabled):
        return []
    paths = (
        try_to_load_from_cache(repo, name, repo_type="dataset", revision=commit) for name in names
    )
    return list(itertools.takewhile(lambda path: isinstance(path, str), paths))


def _of_bucket(location: str, name: str, remedy: str) -> Path:
    """A copy of an object, in folders named after the location and the object's generation."""
    bucket, _, path = location.removeprefix("gs://").partition("/")
    spec = {"driver": "gcs", "bucket": bucket, "path": f"{path.strip('/')}/".lstrip("/")}
    quick = {"gcs_request_retries": {"max_retries": 3, "max_delay": "1s"}}
    try:
        look = ts.KvStore.open(spec | {"context": quick}).result()
        found = look.read(name, byte_range=slice(0, 1)).result()
        if found.state != "value":
            raise _missing(location, name, remedy)
        if not _copy(location, name, found).exists():
            found = ts.KvStore.open(spec).result().read(name).result()
            keep_in_cache(_copy(location, name, found), found.value)
        return _copy(location, name, found)
    except ValueError as error:  # what tensorstore raises, whatever went wrong
        raise UserError(
            f"Cannot read {name} in {location} ({_first_line(error)}). Check the name, the network "
            "and the credentials (`gcloud auth application-default login`); or copy the folder "
            f"with `gcloud storage cp -r {location} FOLDER` and name that."
        ) from error
    except OSError as error:
        raise UserError(
            f"Cannot keep {name} of {location} in {cache_folder()}: {error}. Free some space, or "
            "point the environment variable RLIF_CACHE to a folder that can be written."
        ) from error


def _copy(location: str, name: str, found: ts.KvStore.ReadResult) -> Path:
    key = hashlib.sha256(location.rstrip("/").encode()).hexdigest()[:16]
    generation = hashlib.sha256(found.stamp.generation).hexdigest()[:16]
    return cache_folder() / "gs" / key / generation / name


def _missing(location: str, name: str, remedy: str) -> UserError:
    return UserError(f"{location} has no file {name}; {remedy}")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
