"""Loading onto meshes: every part where it belongs, read once, by the process that holds it."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file
from support import ROOT
from support.family_folders import family_folder

from rlif_jax import sharding
from rlif_jax.convert import Arguments, convert
from rlif_jax.model.config import param_specs
from rlif_jax.storage.files import LocalFiles
from rlif_jax.weights.hf_config import read_hf_config
from rlif_jax.weights.layout import HF_LAYER, file_block, file_shape, from_file, to_file
from rlif_jax.weights.parameters import SafetensorsWeights, cast, filled, named, shardings_of
from rlif_jax.weights.source import load_model, open_model

MESH = {"data": 1, "fsdp": 4, "tensor": 2}


@pytest.fixture
def folder(tmp_path):
    """Six files of a Qwen3 whose every matrix the meshes below divide, once 53 rows are padded."""
    return family_folder("qwen3-linear-bfloat16", tmp_path / "model")


def test_a_part_of_a_file_is_that_part_of_the_parameter(folder):
    """Every leaf, cut at every place: a block of the file against the whole one, cut in memory."""
    cfg = read_hf_config(LocalFiles(folder))
    rng = np.random.default_rng(0)
    for name, spec in param_specs(cfg).items():
        shape = spec.layer_shape
        matrix = rng.normal(size=file_shape(name, shape, shape[0]))
        value = from_file(name, matrix.reshape(matrix.shape[0], -1), shape)
        np.testing.assert_array_equal(to_file(name, value), matrix)
        for _ in range(20):
            index = tuple(
                slice(0, n) if axis == "head_dim" else slice(*np.sort(rng.integers(0, n + 1, 2)))
                for n, axis in zip(shape, spec.axes[-len(shape) :], strict=True)
            )
            (rows, columns), part = file_block(name, shape, index)
            block = matrix.reshape(matrix.shape[0], -1)[rows, columns]
            np.testing.assert_array_equal(from_file(name, block, part), value[index])


def test_the_width_of_a_head_cannot_be_cut():
    assert "q" in HF_LAYER
    with pytest.raises(ValueError, match="may not be split"):
        file_block("layers.q", (16, 4, 8), (slice(0, 16), slice(0, 4), slice(0, 4)))


def test_a_mesh_holds_the_numbers_of_one_device(folder):
    one, _ = load_model(str(folder))
    mesh = sharding.make_mesh(2, 2, 2)
    eight, _ = load_model(str(folder), mesh=mesh)
    wanted = shardings_of(one.cfg, mesh)
    for name, value in named(nnx.state(eight, nnx.Param)).items():
        assert value.sharding == wanted[name]
        np.testing.assert_array_equal(value, named(nnx.state(one, nnx.Param))[name])


def bytes_read(folder: Path, mesh) -> int:
    """What the files are asked for when a model is loaded, headers left out."""
    files = LocalFiles(folder)
    cfg = read_hf_config(files)
    weights = SafetensorsWeights(files, cfg)
    before = files.bytes_read
    weights.arrays(shardings_of(cfg, mesh), None)
    return files.bytes_read - before


def test_each_byte_is_read_once_whatever_the_mesh(folder):
    tensors = sum(
        value.nbytes for path in folder.glob("*.safetensors") for value in load_file(path).values()
    )
    for mesh in (None, sharding.make_mesh(1, 2, 2), sharding.make_mesh(2, 2, 2)):
        assert bytes_read(folder, mesh) == tensors


def test_tensors_that_follow_from_others_are_reported(tmp_path):
    """What older checkpoints carry besides: a copy of a tied head, and rotary frequencies."""
    folder = family_folder("qwen2-default", tmp_path / "model")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    assert "not read" not in open_model(str(folder)).summary()
    extra = ["lm_head.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"]
    tensors[extra[0]] = tensors["model.embed_tokens.weight"]
    tensors[extra[1]] = np.ones(2, np.float32)
    save_file(tensors, path)
    opened = open_model(str(folder))
    assert sorted(opened.weights.unused) == extra
    assert all(name in opened.summary() for name in extra)


def test_progress_is_told_in_bytes(folder):
    told = []
    opened = open_model(str(folder))
    opened.load(notice=lambda *args: told.append(args))
    assert told[-1][0] == "loading the parameters" and told[-1][1] == told[-1][2] > 0
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_names_and_values_go_both_ways(folder):
    model, _ = load_model(str(folder))
    state = nnx.state(model, nnx.Param)
    arrays = {name: value + 1 for name, value in named(state).items()}
    assert named(state).keys() == param_specs(model.cfg).keys()
    again = filled(state, arrays)
    assert jax.tree.structure(again) == jax.tree.structure(state)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b + 1), again, state)


def test_bfloat16_is_widened_exactly():
    bits = np.arange(2**16, dtype=np.uint16)  # every number there is, infinities and NaN too
    values = bits.view(ml_dtypes.bfloat16)
    widened = cast(values, np.dtype(np.float32))
    np.testing.assert_array_equal(widened, values.astype(np.float32))
    finite = np.isfinite(widened)
    assert (widened[finite].astype(ml_dtypes.bfloat16).view(np.uint16) == bits[finite]).all()


PROGRAM = """
import json, sys
import jax
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
import numpy as np
from rlif_jax import sharding
from rlif_jax.weights.source import open_model
from rlif_jax.weights.parameters import shardings_of
mesh = sharding.make_mesh(**json.loads(sys.argv[4]))
opened = open_model(sys.argv[3])
before = opened.files.bytes_read
arrays = opened.weights.arrays(shardings_of(opened.cfg, mesh), None)
read = opened.files.bytes_read - before
whole = open_model(sys.argv[5]).weights
for name, value in arrays.items():
    want = whole.whole(name, np.dtype(np.float32))
    for shard in value.addressable_shards:
        np.testing.assert_array_equal(shard.data, want[shard.index])
print(json.dumps({"read": read, "total": float(sum(v.sum() for v in arrays.values()))}))
"""


def in_two_processes(source: Path, folder: Path) -> list[dict]:
    """What each of two real processes, joined by gloo, tells of loading `source`.

    Both hold every part that they were given against the same part of `folder`.
    """
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    given = [str(source), json.dumps(MESH), str(folder)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, address, str(i), *given],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    outputs = [p.communicate(timeout=240) for p in processes]
    assert [p.returncode for p in processes] == [0, 0], outputs
    return [json.loads(out.splitlines()[-1]) for out, _ in outputs]


@pytest.mark.slow
def test_each_of_two_processes_reads_its_own_half(folder):
    model, _ = load_model(str(folder))
    arrays = named(nnx.state(model, nnx.Param))
    norms = sum(value.size * 2 for name, value in arrays.items() if "norm" in name)  # bfloat16
    whole = bytes_read(folder, None)
    for result in in_two_processes(folder, folder):
        assert result["total"] == pytest.approx(float(sum(v.sum() for v in arrays.values())))
        assert result["read"] == (whole - norms) / 2 + norms


@pytest.mark.slow
def test_two_processes_start_from_an_orbax_folder(folder, tmp_path):
    orbax = convert(Arguments(str(folder), str(tmp_path / "orbax"), format="orbax"))
    first, second = in_two_processes(orbax, folder)
    assert first["total"] == second["total"] != 0
