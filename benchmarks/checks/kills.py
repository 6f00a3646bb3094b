"""A small training that is killed at random for an hour, by one and by two processes.

python -m benchmarks.checks.kills [--minutes 45] [--seed 0] [--folder DIR]

Each life of the run ends in one of these ways, and the next one starts by the same command:

- SIGKILL, SIGTERM or SIGSTOP of one process, at any time, in start-up, checkpoint or evaluation
- disk: every file is limited to 48 KiB, so that some write fails
- damage: SIGKILL, and then bytes of the newest checkpoint are overwritten

At the end a run that nobody disturbs is made, and every metric and every rollout has to be its own.
Printed is one JSON line for each kind of end. The status is 1 when more was lost than the steps
after the newest whole checkpoint, when a number differs, or when a process or a lock is left.
"""

import argparse
import json
import os
import random
import re
import resource
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.tiny import write_problems, write_tiny_gguf
from tests.support.two_processes import free_address

ROOT = Path(__file__).parents[2]
DEVICES, CHECKPOINT_EVERY = 4, 3
LONGEST_LIFE_S, FULL_DISK_S = 40.0, 150.0
ALONE_S, GRACE_S = 60.0, 30.0
FULL_AT = 48 << 10
KINDS = (*("SIGKILL",) * 3, *("SIGTERM",) * 3, "SIGSTOP", "disk", "damage")
TIMES = ("time/", "throughput/")
FOREVER = 100_000


@dataclass
class Tally:
    """What the ends of one kind, with one number of processes, have shown."""

    ends: int = 0
    lost: list[int] = field(default_factory=list)
    ended_s: list[float] = field(default_factory=list)


class Run:
    """One run folder, and the command that trains in it."""

    def __init__(self, folder: Path, model: Path, problems: Path):
        self.folder, self.token = folder, secrets.token_hex(8)
        self._command = [
            *(sys.executable, "-m", "rlif_jax.train", f"--config={ROOT / 'configs/hybrid.py'}"),
            *(f"--model.source={model}", f"--data.name={problems}", f"--run-dir={folder}"),
            *("--data.prompts-per-step=4", "--sampling.samples-per-prompt=4"),
            *("--sampling.max-new-tokens=12", "--eval.samples-per-problem=2", "--eval.pass-at=2"),
            *("--mesh.data=2", "--mesh.fsdp=2", "--eval.every=7", "--optim.learning-rate=1e-4"),
            *(f"--checkpoint.every={CHECKPOINT_EVERY}", "--failures.hang-s=60"),
        ]

    def start(self, count: int, steps: int = FOREVER, full: bool = False) -> list[subprocess.Popen]:
        """A life of the run, in `count` processes, on a disk that is `full` or not."""
        environment = os.environ | {
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES // count}",
            "JAX_PLATFORMS": "cpu",
            "RLIF_KILLS": self.token,
        }
        several = ["--processes.count", f"{count}", "--processes.coordinator", free_address()]
        return [
            subprocess.Popen(
                [
                    *(*self._command, f"--steps={steps}"),
                    *([*several, "--processes.index", f"{i}"] if count > 1 else []),
                ],
                cwd=ROOT,
                env=environment,
                stdout=self._log(i).open("w"),
                stderr=subprocess.STDOUT,
                preexec_fn=_limit_files if full else None,
            )
            for i in range(count)
        ]

    def _log(self, index: int) -> Path:
        return self.folder.with_name(f"log.{index}")

    def said(self) -> str:
        """What the processes of the last life have printed."""
        return "\n".join(path.read_text() for path in sorted(self.folder.parent.glob("log.*")))

    def checkpoints(self) -> list[int]:
        """The steps of whole checkpoints, in order."""
        found = (self.folder / "checkpoints").glob("*/commit_success.txt")
        return sorted(int(path.parent.name) for path in found if path.parent.name.isdigit())

    def steps(self) -> list[int]:
        """The recorded steps, in order."""
        return [row["step"] for row in _rows(self.folder / "metrics.jsonl")]

    def left_processes(self) -> list[int]:
        """Processes of this run that are still there."""
        left = []
        for entry in Path("/proc").glob("[0-9]*/environ"):
            try:
                if f"RLIF_KILLS={self.token}".encode() in entry.read_bytes():
                    left.append(int(entry.parent.name))
            except OSError:  # it has just ended, or is not ours
                continue
        return left


def _limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_AT, FULL_AT))


def _rows(path: Path) -> Iterator[dict]:
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return (json.loads(line) for line in lines if line.endswith(b"\n"))


def end(processes: Sequence[subprocess.Popen], kind: str, rng: random.Random) -> float:
    """End a life in this way; the seconds until all of its processes were gone.

    A process that still waits for the one that is gone is told to end, as launchers do.

    Raises:
        subprocess.TimeoutExpired: it did not end.
    """
    victim, begun = rng.choice(processes), time.monotonic()
    if kind in ("SIGKILL", "damage"):
        victim.kill()
    elif kind == "SIGTERM":
        victim.terminate()
    elif kind == "SIGSTOP":  # for a while; then it is lost
        victim.send_signal(signal.SIGSTOP)
        time.sleep(rng.uniform(1, 8))
        victim.kill()
    for process in processes:
        try:
            process.wait(timeout=max(0.0, begun + ALONE_S - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait(timeout=GRACE_S)
    return time.monotonic() - begun


def damage(run: Run, rng: random.Random) -> int | None:
    """Overwrite bytes in the newest checkpoint's largest file; its step."""
    if not (steps := run.checkpoints()):
        return None
    newest = run.folder / "checkpoints" / f"{steps[-1]}"
    target = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(target.read_bytes())
    start = rng.randrange(len(data) // 2)
    data[start : start + 64] = rng.randbytes(64)
    target.write_bytes(data)
    return steps[-1]


def one_life(
    run: Run, kind: str, count: int, rng: random.Random, tally: Tally, before_it: Tally | None
) -> list[str]:
    """Start, end, and look at what is left; the faults that were found.

    What is lost counts towards the end `before_it`, of which this life is the resume.
    """
    before, recorded = run.checkpoints(), run.steps()
    processes = run.start(count, full=kind == "disk")
    deadline = time.monotonic() + (
        FULL_DISK_S if kind == "disk" else rng.uniform(1, LONGEST_LIFE_S)
    )
    while time.monotonic() < deadline and all(p.poll() is None for p in processes):
        time.sleep(0.05)
    ended_early = [p.returncode for p in processes if p.poll() is not None]
    took = end(processes, "SIGKILL" if ended_early else kind, rng)
    tally.ends += 1
    tally.ended_s.append(took)
    faults = []
    said = re.search(r"resuming after step (\d+)", run.said())
    resumed = int(said[1]) if said else None
    damaged = "damaged" in run.said()
    # Of several processes all end where one finds damage, and the next life does without it.
    if ended_early and kind != "disk" and not (damaged and count > 1):
        faults.append(f"it ended by itself with {ended_early} before {kind}:\n{run.said()[-3000:]}")
    if resumed is not None:
        if before_it:
            before_it.lost.append(max([*recorded, 0]) - resumed)
        if before and resumed < before[-1] and not damaged:
            faults.append(f"it resumed after step {resumed}, and checkpoint {before[-1]} was there")
    steps = run.steps()
    if steps != list(range(len(steps))):
        faults.append(f"the recorded steps are {steps}")
    time.sleep(1.0)
    if left := run.left_processes():
        faults.append(f"{len(left)} processes are left after {kind}")
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    if kind == "damage":
        damage(run, rng)
    return faults


def compare(folder: Path, expected: Path) -> list[str]:
    """Every number of the run that differs from the undisturbed one's."""
    faults = []
    pairs = zip(_rows(folder / "metrics.jsonl"), _rows(expected / "metrics.jsonl"), strict=True)
    for ours, theirs in pairs:
        faults += [
            f"step {ours['step']}: {key} is {ours.get(key)}, undisturbed {theirs.get(key)}"
            for key in sorted(ours.keys() | theirs.keys())
            if not key.startswith(TIMES) and ours.get(key) != theirs.get(key)
        ]
    for path in sorted((expected / "rollouts").iterdir()):
        if (folder / "rollouts" / path.name).read_bytes() != path.read_bytes():
            faults.append(f"{path.name} differs")
    return faults


def soak(minutes: float, seed: int, folder: Path) -> int:
    """Disturb, finish, compare, print; how many faults there were."""
    rng, tallies, faults = random.Random(seed), defaultdict(Tally), []
    model, problems = write_tiny_gguf(folder / "tiny.gguf"), write_problems(folder / "adding.jsonl")
    run = Run(folder / "run", model, problems)
    until, count, last = time.monotonic() + 60 * minutes, 2, None
    while time.monotonic() < until:
        kind, count = rng.choice(KINDS), 3 - count
        found = one_life(run, kind, count, rng, tallies[kind, count], last)
        faults, last = faults + found, tallies[kind, count]
        for fault in found:
            print(f"fault: {fault}", file=sys.stderr, flush=True)
    steps = max([*run.steps(), 0]) + 2
    plain = Run(folder / "plain", model, problems)
    for one in (run, plain):
        if any(process.wait() for process in one.start(1, steps=steps)):
            faults.append(f"the last life failed:\n{one.said()[-3000:]}")
    faults += compare(run.folder, plain.folder)
    for (kind, processes), tally in sorted(tallies.items()):
        line = {
            "name": "kills",
            "kind": kind,
            "processes": processes,
            "ends": tally.ends,
            "most_steps_lost": max(tally.lost, default=0),
            "median_s_to_end": round(statistics.median(tally.ended_s), 2),
            "longest_s_to_end": round(max(tally.ended_s), 2),
        }
        print(json.dumps(line), flush=True)
    total = sum(tally.ends for tally in tallies.values())
    print(json.dumps({"name": "kills", "ends": total, "steps": steps, "faults": len(faults)}))
    for fault in faults:
        print(f"fault: {fault}", file=sys.stderr)
    return len(faults)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="kept; by default a temporary one is removed")
    asked = parser.parse_args()
    if asked.folder:
        asked.folder.mkdir(parents=True, exist_ok=True)
        sys.exit(bool(soak(asked.minutes, asked.seed, asked.folder)))
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(bool(soak(asked.minutes, asked.seed, Path(folder))))


if __name__ == "__main__":
    main()
