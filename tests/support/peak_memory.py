"""Runs one stage of a small configuration; prints what it held at its peak and what was planned.

    python -m support.peak_memory STAGE DEVICES

One JSON object: bytes of the process beyond those before there was any array, and bytes planned for
all of its virtual devices.
"""

import ctypes
import dataclasses
import gc
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from rlif_jax.config import Config, Data, Loss, Mesh, Sampling
from rlif_jax.model.config import ModelConfig
from rlif_jax.planning.ahead import total_bytes
from rlif_jax.planning.stages import StagesAhead
from rlif_jax.sharding import make_mesh

MODEL = ModelConfig(
    vocab_size=16384,
    embed=512,
    ffn=1536,
    layers=6,
    heads=8,
    kv_heads=4,
    head_dim=64,
    eos_ids=(2,),
    max_positions=2048,
)
MESHES = {1: Mesh(), 8: Mesh(fsdp=4, tensor=2)}


def config(devices: int) -> Config:
    """Two settings: a micro-batch of one row of 1,024 tokens on a device, or of four on eight."""
    return Config(
        data=Data(prompts_per_step=8, max_prompt_tokens=128),
        sampling=Sampling(samples_per_prompt=8, max_new_tokens=384, slots=64),
        loss=Loss(tokens_per_micro_batch=1024),
        mesh=MESHES[devices],
    )


def main(stage: str, devices: int) -> None:
    """Compile, make the arguments, run, and print."""
    jax.config.update("jax_num_cpu_devices", devices)
    cfg = config(devices)
    mesh = make_mesh(**dataclasses.asdict(cfg.mesh))
    ahead = StagesAhead(cfg, MODEL, mesh, None)
    lowered = ahead.lowered(stage)
    compiled = lowered.compile()
    make = jax.jit(lambda: _filled(lowered.args_info[0]), out_shardings=compiled.input_shardings[0])
    jax.block_until_ready(make())  # compiles
    before = _resident()
    with jax.set_mesh(mesh):
        arguments: Any = make()
        jax.block_until_ready(compiled(*arguments))
    planned = total_bytes(compiled) * devices
    print(json.dumps({"held": _peak() - before, "planned": planned}))


def _filled(shapes: Any) -> Any:
    """Ones of these shapes: a step with them is done in full."""
    return jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), shapes)


def _resident() -> int:
    """Bytes of the process now; the peak is counted from here."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(field: str) -> int:
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[field].split()[0]) * 1024


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
