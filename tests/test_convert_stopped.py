"""Converting where it cannot end well: a full disk, a signal; nothing half-written is left."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import ROOT
from support.family_folders import family_folder, write_tokenizer

from rlif_jax.convert import Arguments, convert
from rlif_jax.model.config import ModelConfig, param_specs
from rlif_jax.weights.hf_config import hf_config
from rlif_jax.weights.layout import file_shape, hf_names


def start(model: Path, out: Path, *more: str, limit: str = "unlimited") -> subprocess.Popen:
    """The command of a user, in a shell where a file may have so many blocks of 512 bytes.

    Writing more fails as on a full disk: Python ignores the signal.
    """
    command = [sys.executable, "-m", "rlif_jax.convert", "--model", str(model), "--out", str(out)]
    shell = ["sh", "-c", f'ulimit -f {limit}; exec "$@"', "sh"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*shell, *command, *more], cwd=ROOT, **pipes)


def large_model(folder: Path) -> Path:
    """A checkpoint of 1.5 GB of zeros that takes no room itself: it is written for a while."""
    cfg = ModelConfig(40, 64, 500_000, 4, 4, 4, 16)
    folder.mkdir()
    values = hf_config(cfg, "float32") | {"eos_token_id": 2}
    (folder / "config.json").write_text(json.dumps(values))
    write_tokenizer(folder)
    header, end = {}, 0
    for name, spec in param_specs(cfg).items():
        shape = spec.layer_shape
        for tensor in hf_names(name, cfg.layers):
            want = file_shape(name, shape, cfg.vocab_size)
            size = 4 * want[0] * (want[1] if len(want) == 2 else 1)
            offsets = [end, end + size]
            header[tensor] = {"dtype": "F32", "shape": list(want), "data_offsets": offsets}
            end += size
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        out.truncate(8 + len(text) + end)
    return folder


@pytest.mark.parametrize("form", ["huggingface", "orbax"])
def test_a_full_disk_is_named_and_nothing_is_left(tmp_path, form):
    source = family_folder("qwen2-default", tmp_path / "source")
    out = tmp_path / "out"
    process = start(source, out, f"--format={form}", limit="16")
    _, errors = process.communicate()
    assert process.returncode == 2
    last = errors.strip().splitlines()[-1]
    assert last.startswith(f"error: --out {out} could not be written: ")
    assert "File too large" in last and "make room or choose another folder" in last
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_nothing_under_the_name(tmp_path, number):
    """After a SIGKILL the next run names what it left; whoever runs it removes that."""
    source, out = large_model(tmp_path / "source"), tmp_path / "out"
    process = start(source, out)
    partial = tmp_path / f".out.partial-{process.pid}"
    while not (partial / "model.safetensors").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    os.kill(process.pid, number)
    printed, errors = process.communicate()
    assert not out.exists() and "Traceback" not in errors
    if number == signal.SIGKILL:
        assert process.returncode == -number and partial.exists()
        shutil.rmtree(partial)
        return
    assert process.returncode == 130 and not partial.exists()
    assert f"nothing was written to {out}: run the same command again" in printed


def test_what_a_killed_run_left_is_named(tmp_path, capsys):
    source = family_folder("llama-default", tmp_path / "source")
    (tmp_path / ".out.partial-1").mkdir()
    (tmp_path / ".other.partial-1").mkdir()
    convert(Arguments(str(source), str(tmp_path / "out")))
    printed = capsys.readouterr().out
    assert (
        f"{tmp_path / '.out.partial-1'} belongs to a convert that is running or was killed"
        in printed
    )
    assert ".other" not in printed and (tmp_path / ".out.partial-1").exists()


def test_a_link_to_an_empty_folder_is_filled(tmp_path):
    source = family_folder("llama-default", tmp_path / "source")
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    convert(Arguments(str(source), str(tmp_path / "link")))
    assert (tmp_path / "disk" / "model.safetensors").is_file() and (tmp_path / "link").is_symlink()
    shutil.rmtree(tmp_path / "disk")
    convert(Arguments(str(source), str(tmp_path / "link")))
    assert (tmp_path / "disk" / "model.safetensors").is_file()
