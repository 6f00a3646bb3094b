"""Whole model folders, as people have them and as they should not be, through `load_model`."""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from support import ROOT
from support.changed_folders import (
    EMBED,
    HEAD,
    TOKENS,
    change_json,
    change_tensors,
    logits,
    refused,
)
from support.family_folders import family_folder

from rlif_jax.convert import Arguments, convert
from rlif_jax.errors import UserError
from rlif_jax.weights import parameters as weights
from rlif_jax.weights.source import load_model, open_model

GATE = "model.layers.0.mlp.gate_proj.weight"


@pytest.fixture
def tied(tmp_path) -> Path:
    return family_folder("qwen2-default", tmp_path / "model")


def change_header(folder: Path, name: str, **changed) -> int:
    """Change one entry of the header without moving a byte; returns the bytes before the data."""
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    end = 8 + struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8:end])
    header[name] |= changed
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + whole[end:])
    return 8 + len(text)


def test_all_that_is_wrong_with_the_tensors_is_named_at_once(untied):
    layer = "model.layers.1."
    change_tensors(
        untied,
        **{
            GATE: None,
            "model.norm.weight": np.ones(17, np.float32),
            layer + "mlp.up_proj.weight": np.ones((16, 24), np.float32),
            layer + "mlp.down_proj.weight": np.ones((16, 24), np.int8),
            layer + "input_layernorm.weight": np.ones(16, np.float64),
            layer + "self_attn.q_proj.bias": np.ones(16, np.float32),
            "model.vision.weight": np.ones((2, 2), np.float32),
        },
    )
    change_header(untied, layer + "mlp.down_proj.weight", dtype="F8_E4M3")
    message = refused(
        untied,
        f"{GATE} is missing",
        "model.norm.weight has shape (17,), not (16,)",
        f"{layer}mlp.up_proj.weight has shape (16, 24), not (24, 16)",
        f"{layer}mlp.down_proj.weight is stored as 'F8_E4M3', which is not among F32, BF16, F16",
        f"{layer}input_layernorm.weight is stored as 'F64'",
        f"'{layer}self_attn.q_proj.bias' belongs to no parameter",
        "'model.vision.weight' belongs to no parameter",
    )
    assert message.count(";") == 6 and "more" not in message


@pytest.mark.parametrize("kind", ["I8", "U8", "F64", "F8_E5M2", "I32", "BOOL", "F4", "nonsense"])
def test_types_that_are_no_weights_are_named(untied, kind):
    change_header(untied, GATE, dtype=kind)
    refused(untied, f"{GATE} is stored as {kind!r}, which is not among F32, BF16, F16")


def test_a_model_of_another_depth_counts_what_it_does_not_list(untied):
    change_json(untied / "config.json", num_hidden_layers=4)
    refused(untied, "model.layers.2.input_layernorm.weight is missing", "and 10 more")
    change_json(untied / "config.json", num_hidden_layers=1)
    refused(untied, "'model.layers.1.input_layernorm.weight' belongs to no parameter", "and 1 more")


def test_a_huge_tensor_is_refused_before_memory_is_filled(untied):
    """The header claims 16 TiB, and the sparse file has them."""
    rows, path = 2**38, untied / "model.safetensors"
    sizes = [0, rows * 16 * 4]
    entry = {HEAD: {"dtype": "F32", "shape": [rows, 16], "data_offsets": sizes}}
    text = json.dumps(entry).encode()
    with path.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        try:
            out.truncate(8 + len(text) + sizes[1])
        except OSError:  # a file system without such files: the header then lies about the size
            out.truncate(8 + len(text) + 2**30)
    message = refused(untied)
    assert f"has shape ({rows}, 16), not (51, 16)" in message or "cut short" in message
    change_json(untied / "config.json", vocab_size=2**31 - 1)
    refused(untied, "50 ids and the embedding 2147483647 rows")


def test_a_tied_model_may_carry_its_embedding_twice(tied):
    before = logits(tied)
    change_tensors(tied, **{HEAD: load_file(tied / "model.safetensors")[EMBED]})
    np.testing.assert_array_equal(logits(tied), before)


@pytest.mark.parametrize("change", ["a value", "a sign of zero", "rows", "type"])
def test_a_tied_model_with_a_head_of_its_own_is_refused(tied, change):
    head = load_file(tied / "model.safetensors")[EMBED].copy()
    if change == "a value":
        head[-1, -1] += 1e-3
    elif change == "a sign of zero":
        change_tensors(tied, **{EMBED: np.zeros_like(head)})
        head = np.full_like(head, -0.0)
    else:
        head = head[:-1] if change == "rows" else head.astype(np.float16)
    change_tensors(tied, **{HEAD: head})
    refused(tied, "tie_word_embeddings true, but lm_head.weight differs", "set it to false")


@pytest.mark.parametrize("compared", [1, 3 * 64, 50 * 64 + 1])
def test_head_and_embedding_are_compared_to_the_last_block(tied, monkeypatch, compared):
    monkeypatch.setattr(weights, "COMPARED_BYTES", compared)
    head = load_file(tied / "model.safetensors")[EMBED].copy()
    change_tensors(tied, **{HEAD: head})
    assert open_model(str(tied)).weights.unused == (HEAD,)
    for row in (0, 3, len(head) - 1):
        changed = head.copy()
        changed[row, -1] += 1e-3
        change_tensors(tied, **{HEAD: changed})
        refused(tied, "lm_head.weight differs")


def test_an_untied_model_without_head_is_refused(untied):
    change_tensors(untied, **{HEAD: None})
    refused(untied, "lm_head.weight is missing")


def test_rotary_tables_of_old_checkpoints_are_left_aside(untied):
    before = logits(untied)
    table = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": np.zeros(2) for i in range(2)}
    change_tensors(untied, **table)
    np.testing.assert_array_equal(logits(untied), before)


@pytest.mark.parametrize("content", [None, b"{", b"[]"])
def test_a_folder_without_a_config_is_refused(untied, content):
    (untied / "config.json").unlink()
    if content is not None:
        (untied / "config.json").write_bytes(content)
    refused(untied, "config.json")


def test_an_empty_folder_is_refused(tmp_path):
    refused(tmp_path, "is empty; put the model's files there")


def test_a_folder_of_symbolic_links_as_the_hub_keeps_it(untied, tmp_path):
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "0123abcd"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for i, path in enumerate(sorted(untied.iterdir())):
        shutil.copyfile(path, blobs / str(i))
        (snapshot / path.name).symlink_to(f"../../blobs/{i}")
    np.testing.assert_array_equal(logits(snapshot), logits(untied))
    out = convert(Arguments(str(snapshot), str(tmp_path / "out")))
    assert not [path for path in out.iterdir() if path.is_symlink()]
    np.testing.assert_array_equal(logits(out), logits(untied))
    (blobs / "0").unlink()  # config.json: a link to nothing
    refused(snapshot, "has no config.json")


def test_a_run_folder_without_checkpoint_or_description_is_refused(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    refused(tmp_path, "has no checkpoint yet")
    (tmp_path / "checkpoints" / "3" / "params").mkdir(parents=True)
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "model"))):
        load_model(str(tmp_path))


@pytest.fixture(scope="module")
def orbax(tmp_path_factory):
    """What convert writes for fast starts, and its logits."""
    home = tmp_path_factory.mktemp("orbax")
    source = family_folder("qwen2-default", home / "source")
    out = convert(Arguments(str(source), str(home / "orbax"), format="orbax"))
    return out, logits(out)


LOAD_EACH = """
import pathlib, sys
import numpy as np
from rlif_jax.errors import UserError
from rlif_jax.weights.source import load_model
for folder in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    try:
        model, _ = load_model(str(folder))
        np.save(folder / "logits.npy", model.logits(np.load(sys.argv[2])))
    except UserError as error:
        (folder / "refused").write_text(str(error))
"""


def test_a_damaged_orbax_folder_is_refused_or_computes_the_same(orbax, tmp_path):
    """Some of its files are only of use to Orbax; no damage of the others goes by.

    In a process of its own: Orbax leaves threads and complaints behind.
    """
    folder, want = orbax
    copies = tmp_path / "copies"
    for i, path in enumerate(sorted(p for p in (folder / "params").rglob("*") if p.is_file())):
        for damage in ("missing", "empty", "half"):
            copy = copies / f"{damage}-{i}"
            shutil.copytree(folder, copy)
            damaged = copy / path.relative_to(folder)
            if damage == "missing":
                damaged.unlink()
            else:
                os.truncate(damaged, 0 if damage == "empty" else damaged.stat().st_size // 2)
    np.save(tmp_path / "tokens.npy", TOKENS)
    command = [sys.executable, "-c", LOAD_EACH, str(copies), str(tmp_path / "tokens.npy")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    refusals = [path.read_text() for path in copies.glob("*/refused")]
    same = [np.load(path) for path in copies.glob("*/logits.npy")]
    assert len(refusals) > 9 and len(same) > 9
    assert len(refusals) + len(same) == len(list(copies.iterdir()))
    for logits_BTV in same:
        np.testing.assert_allclose(logits_BTV, want, rtol=0, atol=1e-5 * np.abs(want).max())
    for message in refusals:
        assert f"{copies}/" in message and "\n" not in message


def test_an_orbax_folder_of_another_config_is_refused(orbax, tmp_path):
    shutil.copytree(orbax[0], tmp_path / "copy")
    change_json(tmp_path / "copy" / "config.json", intermediate_size=40)
    refused(tmp_path / "copy", "layers.up has shape", "do not fit the config.json")
    (tmp_path / "copy" / "params" / "_METADATA").unlink()
    refused(tmp_path / "copy", "neither model.safetensors")
