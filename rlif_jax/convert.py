"""Write a model in another form: a Hugging Face folder, or an Orbax folder for fast starts.

python -m rlif_jax.convert --model runs/prob_disparity --out trained
python -m rlif_jax.convert --model runs/prob_disparity --push-to hf:ORG/NAME
"""

import contextlib
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from rlif_jax.console.meter import Phases
from rlif_jax.console.notice import Notice
from rlif_jax.console.screen import Screen
from rlif_jax.errors import Outage, UserError, exit_on_user_error
from rlif_jax.reporting.model_card import model_card, own_card
from rlif_jax.reporting.run_facts import RunFacts, run_of
from rlif_jax.sharding import skip_absent_tpu
from rlif_jax.storage.hub_push import push, pushable
from rlif_jax.storage.user_cache import cache_folder
from rlif_jax.weights.export import stored_bytes, write_hf_folder, write_orbax_folder
from rlif_jax.weights.safetensors import DTYPES
from rlif_jax.weights.source import OpenModel, open_model


@dataclass(frozen=True)
class Arguments:
    """Write a model source or a run's checkpoint to a folder for others to serve, or push it."""

    model: str
    """A Hugging Face folder, .gguf file, hf:ORG/NAME, gs:// folder, run folder or checkpoint."""
    out: str = ""
    """Folder to write; it must not exist, or be empty. With --push-to it may be left out."""
    format: Literal["huggingface", "orbax"] = "huggingface"
    """huggingface: safetensors, for vLLM, transformers, llama.cpp; orbax: for fast starts here."""
    dtype: Literal["stored", "float32", "bfloat16"] = "stored"
    """Type of the tensors written; stored keeps every bit (a run's checkpoint is float32)."""
    shard_gb: float = 5.0
    """Largest safetensors file in GB (10^9 bytes)."""
    push_to: str = ""
    """hf:ORG/NAME: make the folder the content of this repository of the Hub, in one commit.
    What the repository had before and the folder lacks is removed. Needs a token that may write."""
    private: bool = False
    """With --push-to: a repository that is made for it is private."""


def convert(args: Arguments, check: Callable[[], None] = lambda: None) -> Path:
    """Write the folder and return it; it appears under its name only when it is complete.

    `check` is called before that; when it raises, nothing is kept. README.md is a model card, of
    the checkpoint of a run or with `push_to`.

    Raises:
        UserError: a source that cannot be opened, a folder that is not empty, or no room.
    """
    if not 0 < args.shard_gb < 1e9:
        raise UserError(f"--shard-gb {args.shard_gb} must be positive and below 1e9")
    if not args.out:
        raise UserError("give a folder to write with --out DIR, or --push-to hf:ORG/NAME")
    if args.private and not args.push_to:
        raise UserError("--private is for the repository of --push-to hf:ORG/NAME; leave it out")
    out = _free_folder(args.out)
    opened = open_model(args.model)
    dtype = {"stored": None, "float32": DTYPES["F32"], "bfloat16": DTYPES["BF16"]}[args.dtype]
    size = stored_bytes(opened, dtype)
    _check_room(out, size)
    print(f"{args.model}: {opened.summary()}", flush=True)
    print(f"writing {size / 1e9:.2f} GB to {args.out}", flush=True)
    partial = out.with_name(f"{_partial(out)}{os.getpid()}")
    try:
        with Phases(Screen()) as notice:
            if args.format == "orbax":
                _write_orbax(opened, partial, dtype, notice)
            else:
                write_hf_folder(opened, partial, dtype, int(args.shard_gb * 1e9), notice)
        _write_card(args, opened, partial, out.name)
        check()
        os.replace(partial, out)
    except OSError as error:
        raise UserError(
            f"--out {args.out} could not be written: {error}; nothing was kept: make room or "
            "choose another folder, and run again"
        ) from error
    finally:
        _remove(partial)
    return out


def convert_and_push(args: Arguments, check: Callable[[], None] = lambda: None) -> list[str]:
    """Write the folder and make it the content of `push_to`; the lines that say what is there.

    Without `out` the folder is a temporary one, in TMPDIR or in the user's cache folder.

    Raises:
        UserError: as `convert` and `storage.hub_push.push`; what `push_to` names is checked first.
    """
    if args.format == "orbax":
        raise UserError(
            "--format orbax cannot be pushed: the Hub's models are safetensors; leave one of "
            "--format and --push-to out"
        )
    repo = pushable(args.push_to)
    with contextlib.ExitStack() as stack:
        out = args.out or str(stack.enter_context(_temporary()) / repo.partition("/")[2])
        folder = convert(replace(args, out=out), check)
        again = f"{args.out} is complete: `hf upload {repo} {args.out}` sends it as well."
        named = re.sub(r"/checkpoints/(\d+)/?$", r", step \1", args.model)
        message = f"{Path(named).name}, by rlif_jax"
        pushed = push(folder, repo, args.private, message, again if args.out else "")
    return pushed.lines()


@contextlib.contextmanager
def _temporary() -> Iterator[Path]:
    """A folder until the block ends; reports those of runs that were killed."""
    parent, prefix = Path(os.environ.get("TMPDIR") or cache_folder()), "rlif-push-"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for left in sorted(parent.glob(f"{prefix}*")):
            _report(left)
        made = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    except OSError as error:
        raise UserError(
            f"{parent} cannot be written: {error}; name a folder with --out, or another with TMPDIR"
        ) from error
    try:
        yield made
    finally:
        _remove(made)


def _write_card(args: Arguments, opened: OpenModel, folder: Path, name: str) -> None:
    """README.md of a run's checkpoint, or of any model that is pushed."""
    run, facts = run_of(opened.source), None
    if run is not None:
        try:
            facts = RunFacts.read(*run)
        except Outage:
            raise
        except UserError as error:
            print(f"the model card says nothing of the run: {error}", flush=True)
    elif not args.push_to:
        return
    title = args.push_to.partition("/")[2] or (facts.run.name if facts else name)
    text = own_card(opened) or model_card(opened, facts, folder, title, args.push_to or name)
    (folder / "README.md").write_text(text, "utf-8")


def _partial(out: Path) -> str:
    """The beginning of a partial folder's name, before it becomes `out`."""
    return f".{out.name}.partial-"


def _remove(folder: Path) -> None:
    """Remove a folder that threads of Orbax may be writing to for a moment after its error."""
    for wait in (0.0, 0.1, 0.5, 2.0, 5.0):
        time.sleep(wait)
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return


def _write_orbax(opened: OpenModel, folder: Path, dtype: np.dtype | None, notice: Notice) -> None:
    """`write_orbax_folder`, where a full disk raises OSError and is not logged."""
    log = logging.getLogger("absl")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        write_orbax_folder(opened, folder, dtype, notice)
    except ValueError as error:  # tensorstore's own; the reason stands at its end
        raise OSError(str(error).rsplit(": ", 1)[-1]) from error
    finally:
        log.setLevel(before)


def _free_folder(path: str) -> Path:
    """The absolute path of a folder that may be written to; reports leftovers of killed runs."""
    if "://" in path:
        raise UserError(f"--out {path} is not a local folder; write to one, then copy it there")
    try:
        out = Path(path).expanduser().resolve()
    except (OSError, RuntimeError) as error:  # links in a circle, no such user
        raise UserError(f"--out {path} is not a valid path: {error}") from error
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            f"--out {path} exists and is not an empty folder; choose another or remove it"
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {path} cannot be made: {error}; choose another") from error
    for left in sorted(out.parent.iterdir()):
        if left.name.startswith(_partial(out)):
            _report(left)
    return out


def _report(left: Path) -> None:
    print(f"{left} belongs to a convert that is running or was killed; remove it if none is")


def _check_room(out: Path, size: int) -> None:
    free = shutil.disk_usage(out.parent).free
    if free < size * 1.02 + 50e6:
        raise UserError(
            f"{out.parent} has {free / 1e9:.1f} GB free and {size / 1e9:.1f} GB are to be written; "
            "free some space, or choose another disk with --out"
        )


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[Callable[[], None]]:
    """SIGINT and SIGTERM raise KeyboardInterrupt; the function yielded raises it again.

    Otherwise an interrupt during a finaliser would be lost: Python drops what finalisers raise.
    """
    asked = False

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        asked = True
        raise KeyboardInterrupt

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main() -> None:
    """Entry point: exit status 2 for bad input, 130 when stopped by Ctrl-C or SIGTERM."""
    args = tyro.cli(Arguments, prog="python -m rlif_jax.convert")
    # Writes that Orbax abandons after an error would print that its loop is closed.
    sys.unraisablehook = lambda _: None
    with exit_on_user_error(), _signals_interrupt() as check:
        skip_absent_tpu()
        try:
            if args.push_to:
                print("\n".join(convert_and_push(args, check)))
                return
            out = convert(args, check)
        except KeyboardInterrupt:
            print(_stopped(args))
            sys.exit(130)
        files = ", ".join(sorted(path.name for path in out.iterdir()))
        print(f"wrote {args.out}: {files}")


def _stopped(args: Arguments) -> str:
    """What a signal has left of what was asked for."""
    if args.push_to and args.out and (Path(args.out) / "config.json").exists():
        repo = args.push_to.removeprefix("hf:")
        return (
            f"stopped; {args.out} is complete, and {args.push_to} has got all of it or nothing: "
            f"`hf upload {repo} {args.out}` sends it"
        )
    if args.push_to:
        return f"stopped; {args.push_to} has got all files or none: run the same command again"
    return f"stopped; nothing was written to {args.out}: run the same command again"


if __name__ == "__main__":
    main()
