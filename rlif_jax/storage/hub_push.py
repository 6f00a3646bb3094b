"""A folder becomes a model repository of the Hub: in one commit, all of it or nothing."""

import contextlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage]
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from rlif_jax.errors import UserError
from rlif_jax.storage.hub import reason_of, say, split_source

_THE_HUBS_OWN = (".gitattributes",)
"""Files of a repository that are not the model's and stay."""


@dataclass(frozen=True)
class Pushed:
    """What a push has left: the repository's page, its commit, and the sizes of its files.

    `removed` are the files that it had before and has no more.
    """

    page: str
    commit: str
    sizes: Mapping[str, int]
    removed: tuple[str, ...]

    def lines(self) -> list[str]:
        """The page, the commit, and each file with its size."""
        width = max(len(name) for name in self.sizes)
        lines = [f"pushed to {self.page} at commit {self.commit}:"]
        for name, size in self.sizes.items():
            lines.append(f"  {name.ljust(width)}  {_size(size)}")
        if self.removed:
            lines.append(f"removed what was there before: {', '.join(self.removed)}")
        return lines


def pushable(target: str) -> str:
    """The ORG/NAME of `hf:ORG/NAME`, once the Hub has answered and knows the token.

    Raises UserError, before anything is made, naming the target and the remedy.
    """
    if not target.startswith("hf:") or "@" in target:
        raise UserError(
            f"--push-to {target} is not of the form hf:ORG/NAME: it is a repository's main branch "
            "that is pushed to"
        )
    repo, _ = split_source(target)
    with _user_errors(repo, ""):
        HfApi(token=True).whoami()
    return repo


def push(folder: Path, repo: str, private: bool, message: str, again: str) -> Pushed:
    """Make `folder` the content of a repository, made first if there is none.

    Files that the repository has and the folder lacks are removed in the same commit. `private` is
    for a new repository. `again` says in a sentence how to push another time.

    Raises:
        UserError: the Hub refuses, the network fails, or the repository is public and should not
            be; nothing has been pushed then.
    """
    files = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    sizes = {name: path.stat().st_size for name, path in files.items()}
    api = HfApi(token=True)
    with _user_errors(repo, again), _bars_on_terminals():
        api.create_repo(repo, private=private or None, exist_ok=True)
        info = api.model_info(repo)
        if private and not info.private:
            raise UserError(
                f"{_page(repo)} exists and is public; make it private in its settings, choose "
                "another name, or leave --private out"
            )
        there = [sibling.rfilename for sibling in info.siblings or []]
        removed = tuple(
            name for name in sorted(there) if name not in files and name not in _THE_HUBS_OWN
        )
        say(f"uploading {_size(sum(sizes.values()))} to {_page(repo)}")
        commit = api.create_commit(
            repo,
            [
                *(CommitOperationDelete(name, is_folder=False) for name in removed),
                *(CommitOperationAdd(name, path) for name, path in files.items()),
            ],
            commit_message=message,
            parent_commit=info.sha,
        )
    return Pushed(_page(repo), commit.oid, sizes, removed)


def _page(repo: str) -> str:
    return f"{constants.ENDPOINT}/{repo}"


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size:,} bytes"


@contextlib.contextmanager
def _bars_on_terminals() -> Iterator[None]:
    """The client's progress bars are for terminals alone; it would draw them in a pipe too."""
    if sys.stderr.isatty() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@contextlib.contextmanager
def _user_errors(repo: str, again: str) -> Iterator[None]:
    """Failures of the Hub and the network as UserError."""
    tokens = f"{constants.ENDPOINT}/settings/tokens"
    failed, end = f"cannot push to hf:{repo}", f"{again and ' '}{again}"
    try:
        yield
    except LocalTokenNotFoundError as error:
        raise UserError(
            f"{failed} without a token: make one that may write on {tokens}, then log in with "
            f"`hf auth login` or set HF_TOKEN to it.{end}"
        ) from error
    except OfflineModeIsEnabled as error:
        raise UserError(f"{failed} while HF_HUB_OFFLINE is set: unset it.{end}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise UserError(
            f"{failed}: the Hub refused it with HTTP status {status} ({_said(error)}), and nothing "
            f"was pushed. {_remedy(status, repo, tokens)}.{end}"
        ) from error
    except HTTPError as error:
        raise UserError(
            f"{failed}: the connection to {constants.ENDPOINT} failed ({reason_of(error)}); either "
            f"all files have arrived or none. Connect, and try again.{end}"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:  # of the transfer, or no answer of the Hub
        raise UserError(
            f"{failed}: {reason_of(error)}. Nothing was pushed. Try again.{end}"
        ) from error


def _said(error: HfHubHTTPError) -> str:
    """What the Hub said of a refusal."""
    return (error.server_message or reason_of(error)).strip().splitlines()[0]


def _remedy(status: int, repo: str, tokens: str) -> str:
    match status:
        case 401:
            return (
                f"The token is not valid: make another on {tokens}, then log in with `hf auth "
                "login` or set HF_TOKEN to it"
            )
        case 403 | 404:
            return (
                f"The token needs the right to write to {repo}, and its owner to be "
                f"{repo.partition('/')[0]} or a member of it that may write: see {tokens}"
            )
        case 400:
            return "Choose a name that the Hub allows"
        case 409 | 412:
            return "The repository was changed meanwhile: look at it, then try again"
    return "Try again later"
