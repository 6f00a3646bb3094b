"""Time, memory and bytes read when a model is loaded onto a mesh, whole or by two processes.

    python -m benchmarks.load_memory [--layers 20 --folder FOLDER --repeats 3]

Writes a Qwen2 of a billion random bfloat16 parameters in several safetensors files to a temporary
folder (in FOLDER, if given), then loads it as float32 parameters on a mesh of fsdp 4 and tensor 2,
on virtual CPU devices: eight in one process, then four in each of two processes that run at once
and must each read its half only. Beside it, the least that any loading takes: the time in which the
`safetensors` library reads every tensor of the same files and NumPy makes it float32 by a shift of
bits, the best of three in one process, so that the system has memory at hand; nothing is
transposed, sharded or put on a device. The files are in the operating system's cache, as just
written. One JSON line a figure, median and spread over the repeats; memory in MB: `before` is
resident memory when the devices have started, `peak` its highest (VmHWM) by the end of loading,
`parameters` the bytes of those that the process holds.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rlif_jax.model.config import ModelConfig, param_count, param_specs
from rlif_jax.sharding import make_mesh
from rlif_jax.weights.export import write_hf_folder
from rlif_jax.weights.layout import file_shape
from rlif_jax.weights.source import OpenModel, open_model

MB = 1e6
LIBRARY = """
import json, pathlib, sys, time
import ml_dtypes, numpy as np
from safetensors import safe_open

def read():
    start, held = time.perf_counter(), []
    for path in sorted(pathlib.Path(sys.argv[1]).glob("*.safetensors")):
        with safe_open(path, "numpy") as file:
            for name in file.keys():
                bits = file.get_tensor(name).view(np.uint16)
                held.append(np.left_shift(bits, 16, dtype=np.uint32).view(np.float32))
    return time.perf_counter() - start

print(json.dumps({"seconds": min(read() for _ in range(3))}))
"""


class RandomWeights:
    """Weights to be written: random numbers, every tensor other ones."""

    def __init__(self, cfg: ModelConfig):
        self._cfg, self._specs = cfg, param_specs(cfg)
        self._rng = np.random.default_rng(0)
        self._pool = self._rng.normal(0, 0.02, 1 << 22).astype(ml_dtypes.bfloat16)

    def dtype(self, name: str, layer: int) -> np.dtype:
        """All bfloat16."""
        return self._pool.dtype

    def stored(self, name: str, layer: int) -> np.ndarray:
        """One tensor: the numbers of a pool from a random place on."""
        spec = self._specs[name]
        shape = spec.shape[1:] if spec.axes[0] == "layer" else spec.shape
        shape = file_shape(name, shape, self._cfg.vocab_size)
        at = int(self._rng.integers(len(self._pool)))
        return np.resize(np.roll(self._pool, at), shape)


def tokenizer(size: int) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of `size` tokens, of which only the bytes and the last ever occur."""
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet())]
    pieces += [f"<|{i}|>" for i in range(len(pieces), size - 1)]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    made = Tokenizer(models.BPE({**vocabulary, "<|end|>": size - 1}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|end|>")


def write_model(folder: Path, layers: int) -> int:
    """A Qwen2 in safetensors of at most 600 MB; returns its parameters."""
    cfg = ModelConfig(
        vocab_size=32_768,
        embed=2048,
        ffn=5632,
        layers=layers,
        heads=16,
        kv_heads=4,
        head_dim=128,
        family="qwen2",
        tied=False,
        qkv_bias=True,
        eos_ids=(32_767,),
    )
    made = OpenModel("random", None, cfg, RandomWeights(cfg), tokenizer(cfg.vocab_size), None)
    write_hf_folder(made, folder, None, 600_000_000, lambda *_: None)
    return param_count(cfg)


def memory() -> tuple[float, float]:
    """Resident memory of this process and its peak so far, in MB."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(int(lines[key].split()[0]) * 1024 / MB for key in ("VmRSS", "VmHWM"))


def load(folder: str, coordinator: str | None, processes: int, number: int) -> None:
    """Load the model in this process, one of so many, and print the figures."""
    if coordinator:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(coordinator, processes, number)
    mesh = make_mesh(fsdp=4, tensor=2)
    jax.block_until_ready([jax.device_put(0, device) for device in mesh.local_devices])
    opened = open_model(folder)
    before, start = memory()[0], time.perf_counter()
    model = opened.load(mesh=mesh)
    seconds = time.perf_counter() - start
    shards = [s for x in jax.tree.leaves(model) for s in x.addressable_shards]
    figure = {
        "seconds": seconds,
        "before": before,
        "peak": memory()[1],
        "parameters": sum(s.data.nbytes for s in shards) / MB,
        "read": opened.files.bytes_read / MB,
    }
    print(json.dumps(figure), flush=True)


def start(folder: Path, processes: int, number: int, port: int) -> subprocess.Popen:
    """A process that loads its share of eight devices."""
    flag = f"--xla_force_host_platform_device_count={8 // processes}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flag}
    share = ["--share", f"localhost:{port}" if processes > 1 else "", str(processes), str(number)]
    command = [sys.executable, "-m", "benchmarks.load_memory", "--folder", str(folder), *share]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def outcome(process: subprocess.Popen) -> dict:
    """What a process printed last."""
    out, _ = process.communicate()
    if process.returncode:
        sys.exit(f"{process.args} ended with status {process.returncode}")
    return json.loads(out.splitlines()[-1])


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def rounded(values: list[float]) -> dict:
    """The median and the spread."""
    spread = [round(min(values), 2), round(max(values), 2)]
    return {"median": round(statistics.median(values), 2), "spread": spread}


def measure(folder: Path, repeats: int) -> None:
    """The library, one process and two in turn, and print the figures of each."""
    kinds: dict[str, list[dict]] = {}
    for _ in range(repeats):
        command = [sys.executable, "-c", LIBRARY, str(folder)]
        library = outcome(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        kinds.setdefault("safetensors and NumPy", []).append(library)
        for processes in (1, 2):
            port = free_port()
            running = [start(folder, processes, i, port) for i in range(processes)]
            for i, figure in enumerate([outcome(process) for process in running]):
                figure["over"] = figure["peak"] - figure["before"] - figure["parameters"]
                figure["ratio"] = figure["seconds"] / library["seconds"]
                kinds.setdefault(f"process {i + 1} of {processes}", []).append(figure)
    units = {
        "seconds": "load, s",
        "ratio": "load, seconds over the library's",
        "read": "bytes read, MB",
        "parameters": "parameters held, MB",
        "before": "memory before, MB",
        "peak": "peak memory, MB",
        "over": "peak memory less memory before and parameters, MB",
    }
    for kind, figures in kinds.items():
        for key, text in units.items():
            if key in figures[0]:
                values = rounded([figure[key] for figure in figures])
                print(json.dumps({"figure": f"{text}, {kind}", **values}), flush=True)


def main() -> None:
    """Write the model, then load it in every way."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument("--folder", help="where the temporary folder is made")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--share", nargs=3, help=argparse.SUPPRESS)  # of the processes it starts
    options = parser.parse_args()
    if options.share:
        coordinator, processes, number = options.share
        load(options.folder, coordinator or None, int(processes), int(number))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary, "model")
        parameters = write_model(folder, options.layers)
        files = sorted(folder.glob("*.safetensors"))
        size = sum(path.stat().st_size for path in files)
        figure = {"figure": "model", "parameters": parameters, "files": len(files), "bytes": size}
        print(json.dumps(figure), flush=True)
        measure(folder, options.repeats)


if __name__ == "__main__":
    main()
