"""Trainings in several real processes, which share virtual devices of this machine's CPU."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from support import ROOT
from support.two_processes import free_address

DEVICES = 4


def started(
    arguments: Sequence[str], count: int, folders: Sequence[Path] = (), command: str = "train"
) -> list[subprocess.Popen]:
    """`count` processes of one training, or of another command, with `DEVICES` devices together.

    Each works in its folder of `folders`, by default in the checkout.
    """
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES // count}",
        "PYTHONPATH": str(ROOT),
        "CI": "1",
    }
    address = free_address()
    together = [f"--processes.count={count}", f"--processes.coordinator={address}"]
    return [
        subprocess.Popen(
            [
                *(sys.executable, "-m", f"rlif_jax.{command}", *arguments),
                *([*together, f"--processes.index={index}"] if count > 1 else []),
            ],
            cwd=folders[index] if folders else ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(count)
    ]


def ended(processes: Sequence[subprocess.Popen], timeout_s: float = 400) -> list[str]:
    """What each has printed, once all have ended; none is left behind."""
    try:
        return [process.communicate(timeout=timeout_s)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def wait_for_line(folder: Path, step: int, processes: Sequence[subprocess.Popen]) -> None:
    """Wait until metrics.jsonl has the step."""
    path, wanted = folder / "metrics.jsonl", f'{{"step": {step},'
    while not (path.is_file() and wanted in path.read_text()):
        for process in processes:
            assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
