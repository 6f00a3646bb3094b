"""From `--config=FILE.py` and flags to a `Config`.

A configuration file is Python: it imports a base, replaces fields, and leaves a `config`. Flags
then override its fields (`--optim.learning-rate 1e-5`).
"""

import argparse
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from rlif_jax.config.schema import Config
from rlif_jax.config.validate import listed, range_problems, type_problems
from rlif_jax.errors import UserError


def load(argv: Sequence[str] | None = None, prog: str = "python -m rlif_jax.train") -> Config:
    """The configuration that `--config=FILE.py` and the flags after it describe.

    Flags are the dotted names of fields, with dashes or underscores: `--optim.learning-rate 1e-5`,
    `--steps 20`. An unknown flag or a value of the wrong type ends the process with status 2 and
    says what was meant; `--help` lists every field.

    Raises:
        UserError: no --config, a missing file, or a file that leaves no usable `config`.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    known, overrides = parser.parse_known_args(args)
    if known.config is None and not {"-h", "--help"} & set(overrides):
        raise UserError(
            "no --config given. Name a configuration file, for example "
            "--config=configs/prob_disparity.py; --help lists the fields it may set."
        )
    base = Config() if known.config is None else read_config_file(known.config)
    description = (
        "Every field of a run. --config=FILE.py is read first; flags override what it sets. "
        f"Example: {prog} --config=configs/prob_disparity.py --steps 20 --optim.learning-rate 1e-5"
    )
    return with_flags(base, overrides, prog, description)


def with_flags(base: Config, flags: Sequence[str], prog: str, description: str) -> Config:
    """`base` with the fields that flags name, as `load` takes them."""
    return tyro.cli(Config, default=base, args=flags, prog=prog, description=description)


def read_config_file(path: str | Path) -> Config:
    """The `config` that a Python configuration file leaves behind.

    The folder above the nearest `configs` folder is importable while the file runs, so that
    `from configs.base import BASE` works from anywhere.

    Raises:
        UserError: there is no such file, it fails, or its `config` is no Config or holds a value
            of the wrong type, which flags could not override.
    """
    config = left_by(path, "config", "--config", "configs/prob_disparity.py")
    if not isinstance(config, Config):
        raise UserError(
            f"--config={path} leaves no `config` of type rlif_jax.config.Config. "
            "End it with `config = dataclasses.replace(BASE, ...)`."
        )
    if wrong := type_problems(config):
        problems = listed([*wrong, *range_problems(config)])
        raise UserError(f"--config={path} leaves a `config` that cannot run:\n{problems}")
    return config


def left_by(path: str | Path, name: str, flag: str, example: str) -> Any:
    """What a Python file leaves under a name, None for nothing; `flag` has named the file.

    Raises:
        UserError: there is no such file, or it fails.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"{flag}={path} is not a file. The configurations that come with the project are in "
            f"configs/, for example {flag}={example}."
        )
    above = [p.parent for p in path.resolve().parents if p.name == "configs"]
    sys.path[:0] = [str(folder) for folder in above]
    try:
        return runpy.run_path(str(path)).get(name)
    except Exception as error:
        raise UserError(
            f"{flag}={path} could not be run: {type(error).__name__}: {error}. "
            "Correct the file, or start from one in configs/."
        ) from error
    finally:
        del sys.path[: len(above)]
