"""Write a model in another form: a Hugging Face folder, or an Orbax folder for fast starts.

python -m rlif_jax.convert --model runs/prob_disparity --out trained
"""

import contextlib
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from rlif_jax.console.meter import Phases
from rlif_jax.console.notice import Notice
from rlif_jax.console.screen import Screen
from rlif_jax.errors import UserError, exit_on_user_error
from rlif_jax.sharding import skip_absent_tpu
from rlif_jax.weights.export import stored_bytes, write_hf_folder, write_orbax_folder
from rlif_jax.weights.safetensors import DTYPES
from rlif_jax.weights.source import OpenModel, open_model


@dataclass(frozen=True)
class Arguments:
    """Write a model source or a run's checkpoint to a folder that others can serve."""

    model: str
    """A Hugging Face folder, .gguf file, hf:ORG/NAME, gs:// folder, run folder or checkpoint."""
    out: str
    """Folder to write; it must not exist, or be empty."""
    format: Literal["huggingface", "orbax"] = "huggingface"
    """huggingface: safetensors, for vLLM, transformers, llama.cpp; orbax: for fast starts here."""
    dtype: Literal["stored", "float32", "bfloat16"] = "stored"
    """Type of the tensors written; stored keeps every bit (a run's checkpoint is float32)."""
    shard_gb: float = 5.0
    """Largest safetensors file in GB (10^9 bytes)."""


def convert(args: Arguments, check: Callable[[], None] = lambda: None) -> Path:
    """Write the folder and return it; it appears under its name only when it is complete.

    `check` is called before that; when it raises, nothing is kept.

    Raises:
        UserError: a source that cannot be opened, a folder that is not empty, or no room.
    """
    if not 0 < args.shard_gb < 1e9:
        raise UserError(f"--shard-gb {args.shard_gb} must be positive and below 1e9")
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
            print(
                f"{left} belongs to a convert that is running or was killed; remove it if none is"
            )
    return out


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
            out = convert(args, check)
        except KeyboardInterrupt:
            print(f"stopped; nothing was written to {args.out}: run the same command again")
            sys.exit(130)
        files = ", ".join(sorted(path.name for path in out.iterdir()))
        print(f"wrote {args.out}: {files}")


if __name__ == "__main__":
    main()
