"""Model folders of the Hugging Face Hub, fetched into its own cache by huggingface_hub."""

import contextlib
import json
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
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

NEEDED = [
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "chat_template*.jinja",
    "chat_template*.json",
    "additional_chat_templates/*.jinja",
]
LICENCES = ["LICENSE*", "NOTICE*"]  # fetched as well, since who passes a model on must have them
# A star also matches slashes, so copies in subfolders (original/, onnx/) are named here; so is the
# second copy of the weights, in the maker's own layout, beside Mistral's.
UNNEEDED = ["*/*.safetensors", "*/*.json", "*/*.txt", "*/*.model", "consolidated*"]

SECONDS_BETWEEN_LINES = 10.0
HUB_SECONDS = 10.0  # how long the Hub may take to say what a repository holds


@dataclass(frozen=True)
class HubFolder:
    """A model folder in the cache, and the commit hash it was taken at."""

    path: Path
    revision: str


def fetch_hub(source: str) -> HubFolder:
    """The folder of `hf:ORG/NAME` or `hf:ORG/NAME@REVISION`, with what is missing downloaded first.

    REVISION is a branch, a tag or a commit hash; without it the repository's main branch. Only the
    configuration, the safetensors weights, the tokenizer's files and the licence are fetched, into
    the Hub's own cache (HF_HOME), where files once whole are never fetched again. A connection that
    breaks is resumed where it broke; a file that was not whole when the program ended starts anew.
    When the Hub cannot be reached or refuses, what the cache holds is used if it is whole. Raises
    UserError.
    """
    repo, revision = _split(source)
    with _user_errors(source, repo, revision):
        try:
            commit, sizes = _needed_files(source, repo, revision)
        except RevisionNotFoundError:
            raise
        except (HTTPError, OfflineModeIsEnabled) as error:
            cached = _cached(repo, revision)
            if cached is None:
                raise
            if not isinstance(error, OfflineModeIsEnabled):
                _say(f"the Hub cannot be asked for {source}; using the copy in {cached.path}")
            return cached
        missing = sum(
            size
            for name, size in sizes.items()
            if not isinstance(try_to_load_from_cache(repo, name, revision=commit), str)
        )
        _check_room(source, missing)
        with _lines(source, repo, missing):
            path = _snapshot(repo, revision, NEEDED + LICENCES)
    return HubFolder(path, path.name)


def _split(source: str) -> tuple[str, str]:
    """The repository and the revision that a source names."""
    repo, at, revision = source.removeprefix("hf:").partition("@")
    try:
        validate_repo_id(repo)
        named = repo.count("/") == 1
    except HFValidationError:
        named = False
    # What git allows in the name of a branch or tag, as far as it matters in a path.
    if not named or (at and (not re.fullmatch(r"[\w.+/-]+", revision) or ".." in revision)):
        raise UserError(
            f"model source {source!r} is not of the form hf:ORG/NAME or hf:ORG/NAME@REVISION, such "
            "as hf:Qwen/Qwen2.5-Coder-7B-Instruct@main"
        )
    return repo, revision or constants.DEFAULT_REVISION


def _needed_files(source: str, repo: str, revision: str) -> tuple[str, dict[str, int]]:
    """The commit hash that the Hub resolves, and the size in bytes of each file to fetch."""
    try:
        info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=HUB_SECONDS)
    except (ValueError, TypeError, KeyError, AttributeError):  # the client's, for any other answer
        raise HTTPError(
            "what answered is not the Hub: perhaps a page where this network asks to log in"
        ) from None
    sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or []}
    patterns = NEEDED + LICENCES
    needed = set(filter_repo_objects(sizes, allow_patterns=patterns, ignore_patterns=UNNEEDED))
    if not any(name.endswith(".safetensors") for name in needed):
        others = [n for n in sizes if n.endswith((".bin", ".pth", ".pt", ".gguf", ".safetensors"))]
        raise UserError(
            f"{source} holds no safetensors weights"
            + (f", only {', '.join(sorted(others)[:3])}" if others else "")
            + "; choose a repository or revision with *.safetensors files, or give the path of a "
            "local folder or .gguf file (--model.source /path/to/folder)"
        )
    if "config.json" not in needed:
        raise UserError(
            f"{source} holds no config.json; choose the repository of a whole model, or give the "
            "path of a local folder (--model.source /path/to/folder)"
        )
    return info.sha, {name: sizes[name] for name in needed}


def _snapshot(
    repo: str, revision: str, patterns: list[str], local_files_only: bool = False
) -> Path:
    """The snapshot folder; its name is the commit hash, as the layout of the Hub's cache has it."""
    return Path(
        snapshot_download(
            repo,
            revision=revision,
            allow_patterns=patterns,
            ignore_patterns=UNNEEDED,
            local_files_only=local_files_only,
        )
    )


def _cached(repo: str, revision: str) -> HubFolder | None:
    """What the cache holds of a revision, if that is a whole model; its licence may be missing."""
    try:
        path = _snapshot(repo, revision, NEEDED, local_files_only=True)
    except LocalEntryNotFoundError:
        return None
    shards, indexed = {shard.name for shard in path.glob("*.safetensors")}, set()
    for index in path.glob("*.safetensors.index.json"):
        try:
            indexed |= set(json.loads(index.read_bytes())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
    # Only an index tells whether files of a numbered series, such as model-1-of-2, are all there.
    told = all("-of-" not in name or name in indexed for name in shards)
    needed = shards | indexed | {"config.json"}
    whole = shards and told and all((path / name).is_file() for name in needed)
    return HubFolder(path, path.name) if whole else None


def _check_room(source: str, missing: int) -> None:
    """Refuse a download that cannot fit, before it fills the disk."""
    folder = Path(constants.HF_HUB_CACHE)
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    free = shutil.disk_usage(existing).free
    if missing > free:
        raise UserError(
            f"{source} needs {missing / 1e6:.0f} MB more in {folder}, where {free / 1e6:.0f} MB "
            "are free; set HF_HOME to a folder with room, or give the path of a local folder "
            "(--model.source /path/to/folder)"
        )


@contextlib.contextmanager
def _lines(source: str, repo: str, missing: int) -> Iterator[None]:
    """Plain lines on how far a download is; on a terminal the Hub's own bars show that."""
    if missing == 0 or sys.stderr.isatty():
        yield
        return
    blobs = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}" / "blobs"
    before = _bytes_in(blobs)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(SECONDS_BETWEEN_LINES):
            arrived = min(_bytes_in(blobs) - before, missing)
            _say(f"downloaded {arrived / 1e6:.0f} of {missing / 1e6:.0f} MB of {source}")

    _say(f"downloading {source} ({missing / 1e6:.0f} MB) to {constants.HF_HUB_CACHE}")
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    shown = not are_progress_bars_disabled()
    if shown:
        disable_progress_bars()  # one of the Hub's own would be drawn in a pipe too
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()
        over.set()
        watcher.join()


def _bytes_in(folder: Path) -> int:
    """Bytes on disk of the files of a folder in which other threads write and rename."""
    total = 0
    for path in folder.glob("*"):
        with contextlib.suppress(OSError):
            stat = path.stat()
            total += min(stat.st_size, 512 * stat.st_blocks)  # files may be filled out of order
    return total


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _user_errors(source: str, repo: str, revision: str) -> Iterator[None]:
    """Every way in which the Hub, the network or the cache may fail, as a sentence."""
    folder = "give the path of a local folder instead (--model.source /path/to/folder)"
    page = f"{constants.ENDPOINT}/{repo}"
    try:
        yield
    except GatedRepoError as error:
        raise UserError(
            f"{source} is gated: accept its terms on {page}, then log in with `hf auth login` or "
            f"set HF_TOKEN to a token of that account; or {folder}"
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"the Hub has no model {repo}, or it is private; check the name on {page}, and for a "
            f"private model set HF_TOKEN or log in with `hf auth login`; or {folder}"
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(
            f"{repo} has no revision {revision!r}; its branches, tags and commits are listed on "
            f"{page}/tree/main; or {folder}"
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        remedy = "try again later"
        if status in (401, 403):
            remedy = "set HF_TOKEN to a token that may read it, or log in with `hf auth login`"
        raise UserError(
            f"the Hub refused {source} with HTTP status {status}; {remedy}; or {folder}"
        ) from error
    except (HTTPError, OfflineModeIsEnabled, LocalEntryNotFoundError) as error:
        raise UserError(
            f"cannot get {source} from the Hub ({_reason(error)}), and the cache "
            f"{constants.HF_HUB_CACHE} does not hold the whole of it. Connect and run again; or "
            f"fetch it elsewhere with `hf download {repo} --revision {revision} --local-dir "
            f"FOLDER`, and {folder}"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        if getattr(error, "errno", None) is None:  # of the transfer, not of the file system
            raise UserError(
                f"the download of {source} broke off ({_reason(error)}); run again: files that "
                f"are whole are kept; or {folder}"
            ) from error
        raise UserError(
            f"cannot store {source} in {constants.HF_HUB_CACHE}: {error}; set HF_HOME to a folder "
            f"that can be written and has room; or {folder}"
        ) from error


def _reason(error: BaseException) -> str:
    """The first line of an error's cause, or its class where it says nothing."""
    cause = error.__cause__ or error
    lines = str(cause).strip().splitlines()
    return lines[0] if lines else type(cause).__name__
