"""Files of Hugging Face Hub repositories, fetched into the Hub's own cache by huggingface_hub.

`weights` fetches models by it, `data` problem sets. `hub_push` is the way back; no other file
speaks with the Hub.
"""

import contextlib
import re
import shutil
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub import HfApi, constants, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage]
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    filter_repo_objects,
    validate_repo_id,
)

from rlif_jax.errors import UserError
from rlif_jax.storage.user_cache import arrived

SECONDS_BETWEEN_LINES = 10.0
HUB_SECONDS = 10.0  # how long the Hub may take to list a repository


@dataclass(frozen=True)
class Wanted:
    """The files to fetch of `hf:ORG/NAME` or `hf:ORG/NAME@REVISION`.

    REVISION is a branch, a tag or a commit hash; without it, the repository's main branch. Fetched
    are the files that match `needed` or `also`, unless they match `ignored`; a star also matches
    slashes. `check(names, chosen)` raises UserError where the repository's names, and those chosen,
    lack a file; `is_whole(folder)` tells whether a folder of the cache has every file needed, which
    those of `also` are not. `elsewhere` is what to do without the Hub: "give a folder instead".
    """

    source: str
    kind: Literal["model", "dataset"]
    needed: Sequence[str]
    check: Callable[[Collection[str], Collection[str]], None]
    is_whole: Callable[[Path], bool]
    elsewhere: str
    also: Sequence[str] = ()
    ignored: Sequence[str] = ()

    @property
    def noun(self) -> str:
        """What messages call the repository."""
        return {"model": "model", "dataset": "data set"}[self.kind]


@dataclass(frozen=True)
class HubFolder:
    """A folder in the Hub's cache, and the commit hash of its files."""

    path: Path
    revision: str


def fetch(wanted: Wanted) -> HubFolder:
    """The folder with the wanted files; those that the Hub's cache (HF_HOME) lacks are downloaded.

    One request suffices where the cache holds all. A connection that breaks is resumed where it
    broke; a file that was not whole when the program ended starts anew. When the Hub is unreachable
    or refuses, or HF_HUB_OFFLINE is set, the cache is used if it holds all.

    Raises UserError, naming the source and the remedy.
    """
    repo, revision = split_source(wanted.source)
    folder = Path(constants.HF_HUB_CACHE) / f"{wanted.kind}s--{repo.replace('/', '--')}"
    with _user_errors(wanted, repo, revision):
        try:
            commit, sizes = _listing(wanted, repo, revision)
        except RevisionNotFoundError:
            raise
        except (HTTPError, OfflineModeIsEnabled) as error:
            cached = _cached(wanted, repo, revision)
            if cached is None:
                raise
            if not isinstance(error, OfflineModeIsEnabled):
                say(f"{wanted.source}: the Hub is out of reach; using the copy in {cached.path}")
            return cached
        snapshot = folder / "snapshots" / commit
        if all(_cached_file(wanted, repo, name, revision) == snapshot / name for name in sizes):
            return HubFolder(snapshot, commit)
        missing = sum(size for name, size in sizes.items() if not (snapshot / name).is_file())
        _check_room(wanted, missing)
        with _progress_lines(wanted.source, folder, missing):
            path = _snapshot(wanted, repo, revision, [*wanted.needed, *wanted.also])
    return HubFolder(path, path.name)


def split_source(source: str) -> tuple[str, str]:
    """The repository and the revision that `hf:ORG/NAME[@REVISION]` names; UserError for others."""
    repo, at, revision = source.removeprefix("hf:").partition("@")
    try:
        validate_repo_id(repo)
        named = repo.count("/") == 1
    except HFValidationError:
        named = False
    # What git allows in the name of a branch or tag, as far as it matters in a path.
    if not named or (at and (not re.fullmatch(r"[\w.+/-]+", revision) or ".." in revision)):
        raise UserError(
            f"{source!r} is not of the form hf:ORG/NAME or hf:ORG/NAME@REVISION, where REVISION is "
            "a branch, a tag or a commit, such as main"
        )
    return repo, revision or constants.DEFAULT_REVISION


def _listing(wanted: Wanted, repo: str, revision: str) -> tuple[str, dict[str, int]]:
    """The commit hash of a revision, and the size in bytes of each file to fetch."""
    try:
        ask = HfApi().model_info if wanted.kind == "model" else HfApi().dataset_info
        info = ask(repo, revision=revision, files_metadata=True, timeout=HUB_SECONDS)
        commit, siblings = str(info.sha), info.siblings or []
    except (ValueError, TypeError, KeyError, AttributeError):  # the client's, for any other answer
        raise HTTPError(
            "what answered is not the Hub: perhaps a page where this network asks to log in"
        ) from None
    sizes = {sibling.rfilename: sibling.size or 0 for sibling in siblings}
    chosen = set(
        filter_repo_objects(
            sizes,
            allow_patterns=[*wanted.needed, *wanted.also],
            ignore_patterns=list(wanted.ignored),
        )
    )
    wanted.check(sizes, chosen)
    return commit, {name: sizes[name] for name in chosen}


def _snapshot(
    wanted: Wanted, repo: str, revision: str, patterns: list[str], local_files_only: bool = False
) -> Path:
    """The snapshot folder; its name is the commit hash, as the layout of the Hub's cache has it."""
    return Path(
        snapshot_download(
            repo,
            repo_type=wanted.kind,
            revision=revision,
            allow_patterns=patterns,
            ignore_patterns=list(wanted.ignored),
            local_files_only=local_files_only,
        )
    )


def _cached_file(wanted: Wanted, repo: str, name: str, revision: str) -> Path | None:
    """A file of a revision in the cache, without asking the Hub which commit that is now."""
    path = try_to_load_from_cache(repo, name, revision=revision, repo_type=wanted.kind)
    return Path(path) if isinstance(path, str) else None


def cached_file(source: str, name: str) -> Path | None:
    """A file of `hf:ORG/NAME[@REVISION]` if the Hub's cache has it; nothing is asked for."""
    repo, revision = split_source(source)
    path = try_to_load_from_cache(repo, name, revision=revision)
    return Path(path) if isinstance(path, str) else None


def _cached(wanted: Wanted, repo: str, revision: str) -> HubFolder | None:
    """The folder of a revision in the cache, None unless every file needed is there."""
    try:
        path = _snapshot(wanted, repo, revision, list(wanted.needed), local_files_only=True)
    except LocalEntryNotFoundError:
        return None
    return HubFolder(path, path.name) if wanted.is_whole(path) else None


def _check_room(wanted: Wanted, missing: int) -> None:
    """Refuse a download that does not fit, before it fills the disk."""
    folder = Path(constants.HF_HUB_CACHE)
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    free = shutil.disk_usage(existing).free
    if missing > free:
        raise UserError(
            f"{wanted.source} needs {missing / 1e6:.0f} MB more in {folder}, where "
            f"{free / 1e6:.0f} MB are free; set HF_HOME to a folder with room, or "
            f"{wanted.elsewhere}"
        )


@contextlib.contextmanager
def _progress_lines(source: str, folder: Path, missing: int) -> Iterator[None]:
    """Plain lines with the progress of a download; on a terminal the client's own bars show it."""
    if missing == 0 or sys.stderr.isatty():
        yield
        return
    blobs = folder / "blobs"
    before = arrived(blobs)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(SECONDS_BETWEEN_LINES):
            done = min(arrived(blobs) - before, missing)
            say(f"downloaded {done / 1e6:.0f} of {missing / 1e6:.0f} MB of {source}")

    say(f"downloading {source} ({missing / 1e6:.0f} MB) to {constants.HF_HUB_CACHE}")
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    shown = not are_progress_bars_disabled()
    if shown:
        disable_progress_bars()  # the client would draw one in a pipe too
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()
        over.set()
        watcher.join()


def say(line: str) -> None:
    """Print a line on standard error."""
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _user_errors(wanted: Wanted, repo: str, revision: str) -> Iterator[None]:
    """Failures of the Hub, the network and the cache as UserError."""
    source, elsewhere = wanted.source, wanted.elsewhere
    page = f"{constants.ENDPOINT}/{'datasets/' if wanted.kind == 'dataset' else ''}{repo}"
    try:
        yield
    except GatedRepoError as error:
        raise UserError(
            f"{source} is gated: accept its terms on {page}, then log in with `hf auth login` or "
            f"set HF_TOKEN to a token of that account; or {elsewhere}"
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"the Hub has no {wanted.noun} {repo}, or it is private; check the name on {page}, and "
            "for a private one set HF_TOKEN or log in with `hf auth login`; or "
            f"{elsewhere}"
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(
            f"{repo} has no revision {revision!r}; its branches, tags and commits are listed on "
            f"{page}/tree/main; or {elsewhere}"
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        remedy = "try again later"
        if status in (401, 403):
            remedy = "set HF_TOKEN to a token that may read it, or log in with `hf auth login`"
        raise UserError(
            f"the Hub refused {source} with HTTP status {status} ({reason_of(error)}); {remedy}; "
            f"or {elsewhere}"
        ) from error
    except (HTTPError, OfflineModeIsEnabled, LocalEntryNotFoundError) as error:
        command = f"hf download {repo}"
        if wanted.kind == "dataset":
            command += f" {' '.join(wanted.needed)} --repo-type dataset"
        raise UserError(
            f"cannot get {source} from the Hub ({reason_of(error)}), and the cache "
            f"{constants.HF_HUB_CACHE} does not hold the whole of it. Connect and run again; or "
            f"fetch it elsewhere with `{command} --revision {revision} --local-dir FOLDER`, and "
            f"{elsewhere}"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        if getattr(error, "errno", None) is None:  # of the transfer, not of the file system
            raise UserError(
                f"the download of {source} broke off ({reason_of(error)}); run again: files that "
                f"are whole are kept; or {elsewhere}"
            ) from error
        raise UserError(
            f"cannot store {source} in {constants.HF_HUB_CACHE}: {error}; set HF_HOME to a folder "
            f"that can be written and has room; or {elsewhere}"
        ) from error


def reason_of(error: BaseException) -> str:
    """The first line of an error's cause, or its class where it says nothing."""
    cause = error.__cause__ or error
    lines = str(cause).strip().splitlines()
    return lines[0] if lines else type(cause).__name__
