"""Small trainings: the flags that make any configuration run in seconds, and what a run leaves."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support import ROOT
from support.tiny import write_problems

TIMES = ("time/", "throughput/")


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLIF_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(scope="module")
def flags(tiny_path, own_cache, tmp_path_factory):
    """Flags that make any configuration run on the very small model in seconds."""
    problems = write_problems(tmp_path_factory.mktemp("problems") / "adding.jsonl")
    return [
        f"--model.source={tiny_path}",
        f"--data.name={problems}",
        "--data.prompts-per-step=4",
        "--sampling.samples-per-prompt=4",
        "--sampling.max-new-tokens=12",
        "--eval.samples-per-problem=2",
        "--eval.pass-at=2",
    ]


def config(name: str) -> str:
    return f"--config={ROOT / 'configs' / name}.py"


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def numbers(folder: Path) -> list[dict]:
    """The metrics without what a clock measured."""
    return [{k: v for k, v in m.items() if not k.startswith(TIMES)} for m in metrics(folder)]


def process(arguments: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "rlif_jax.train", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_step(folder: Path, step: int) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        path = folder / "metrics.jsonl"
        if path.is_file() and f'{{"step": {step},' in path.read_text():
            return
        time.sleep(0.02)
    raise AssertionError(f"step {step} was never reached")


def refused(arguments: list[str], capsys, status: int = 2) -> str:
    """What the command prints when it ends with this status."""
    from rlif_jax.train import main  # which imports JAX, and this file comes before the tests

    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == status
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return re.sub(r"\s+", " ", text)


def long_run(flags: list[str]) -> list[str]:
    return [config("hybrid"), *flags, "--steps=6", "--eval.every=3", "--checkpoint.every=2"]
