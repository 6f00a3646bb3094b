"""Models out and in again: bit for bit, by the command that users call."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath
from flax import nnx
from safetensors import safe_open
from support import ROOT
from support.family_folders import CASES, family_folder
from support.tiny import write_problems
from transformers import AutoConfig, AutoTokenizer

from rlif_jax import sharding
from rlif_jax.convert import Arguments, convert, main
from rlif_jax.errors import UserError
from rlif_jax.train import main as train
from rlif_jax.weights import export
from rlif_jax.weights.parameters import named
from rlif_jax.weights.source import load_model, open_model

BF16 = np.dtype(ml_dtypes.bfloat16)


def tensors(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of a folder, as the safetensors library reads it."""
    out = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            out |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return out


def assert_same_bits(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> None:
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert (value.dtype, value.shape) == (two[name].dtype, two[name].shape), name
        assert value.tobytes() == two[name].tobytes(), name


def params(source: Path | str, mesh=None) -> dict[str, jax.Array]:
    model, _ = load_model(str(source), mesh=mesh)
    return named(nnx.state(model, nnx.Param))


def assert_same_params(one: dict, two: dict) -> None:
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


@pytest.fixture(params=CASES)
def folder(request, tmp_path):
    return family_folder(request.param, tmp_path / "source")


@pytest.mark.parametrize("shard_gb", [5.0, 6e-6])
def test_an_untouched_model_keeps_every_bit(folder, tmp_path, shard_gb):
    out = convert(Arguments(str(folder), str(tmp_path / "out"), shard_gb=shard_gb))
    assert_same_bits(tensors(folder), tensors(out))
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (out / name).read_bytes() == (folder / name).read_bytes()
    shards = sorted(out.glob("*.safetensors"))
    index = out / "model.safetensors.index.json"
    assert index.exists() == (len(shards) > 1) == (shard_gb < 1)
    if index.exists():
        where = json.loads(index.read_text())["weight_map"]
        assert where.keys() == tensors(out).keys()
        assert {path.name for path in shards} == set(where.values())
        single = max(value.nbytes for value in tensors(out).values())
        assert all(p.stat().st_size < max(6000, single) + 4000 for p in shards)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "source"]


def test_through_an_orbax_folder_and_back(folder, tmp_path):
    orbax = convert(Arguments(str(folder), str(tmp_path / "orbax"), format="orbax"))
    assert not list(orbax.glob("*.safetensors"))
    assert_same_params(params(orbax), params(folder))
    with jax.set_mesh(sharding.make_mesh(2, 2, 2)) as mesh:
        placed, straight = params(orbax, mesh), params(folder, mesh)
        assert_same_params(placed, straight)
        assert {n: v.sharding for n, v in placed.items()} == {
            n: v.sharding for n, v in straight.items()
        }
    back = convert(Arguments(str(orbax), str(tmp_path / "back")))
    assert_same_bits(tensors(folder), tensors(back))


def test_an_orbax_folder_can_be_read_in_parts(tmp_path, monkeypatch):
    """A parameter larger than a chunk is stored as several, so that a host reads its own."""
    monkeypatch.setattr(export, "CHUNK_BYTES", 1000)
    source = family_folder("qwen2-default", tmp_path / "source")
    orbax = convert(Arguments(str(source), str(tmp_path / "orbax"), format="orbax"))
    stored = ocp.PyTreeCheckpointHandler().metadata(epath.Path(orbax / "params")).tree
    for name, value in params(source).items():
        assert np.prod(stored[name].storage.chunk_shape) * 4 <= 1000, name
        assert stored[name].shape == value.shape
    assert_same_params(params(orbax), params(source))


def test_types_are_changed_when_asked_for(tmp_path):
    source = family_folder("qwen2-default", tmp_path / "source")
    half = convert(Arguments(str(source), str(tmp_path / "half"), dtype="bfloat16"))
    want = {name: value.astype(BF16) for name, value in tensors(source).items()}
    assert_same_bits(tensors(half), want)
    config = json.loads((half / "config.json").read_text())
    before = json.loads((source / "config.json").read_text())
    key = "dtype" if "dtype" in before else "torch_dtype"
    assert config == {**before, key: "bfloat16"}
    whole = convert(Arguments(str(half), str(tmp_path / "whole"), dtype="float32"))
    assert_same_bits(tensors(whole), {n: v.astype(np.float32) for n, v in want.items()})
    assert json.loads((whole / "config.json").read_text()) == before


def test_a_gguf_file_becomes_a_folder_that_transformers_reads(tiny_path, tmp_path):
    out = convert(Arguments(str(tiny_path), str(tmp_path / "out")))
    assert_same_params(params(out), params(tiny_path))
    (before, old), (after, new) = load_model(str(tiny_path)), load_model(str(out))
    assert after.cfg == before.cfg
    config = AutoConfig.from_pretrained(out)
    assert (config.model_type, config.vocab_size) == ("llama", before.cfg.vocab_size)
    assert config.rope_parameters["rope_theta"] == before.cfg.rope_theta
    auto = AutoTokenizer.from_pretrained(out)
    text = "def f(x):\n    return 12 <|im_end|>é"
    chat = [{"role": "user", "content": text}]
    for tokenizer in (new, auto):
        assert tokenizer(text).input_ids == old(text).input_ids
        assert tokenizer.chat_template == old.chat_template
        assert tokenizer.eos_token_id == old.eos_token_id
        ids = tokenizer.apply_chat_template(chat, return_dict=False)
        assert ids == old.apply_chat_template(chat, return_dict=False)


@pytest.fixture(scope="module")
def run(tiny_path, tmp_path_factory):
    """The folder of a run of one step from a Hugging Face folder, and that folder."""
    home = tmp_path_factory.mktemp("trained")
    source = convert(Arguments(str(tiny_path), str(home / "source")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLIF_CACHE", str(home / "cache"))
        train(
            [
                f"--config={ROOT / 'configs' / 'prob_disparity.py'}",
                f"--model.source={source}",
                f"--data.name={write_problems(home / 'adding.jsonl')}",
                f"--run-dir={home / 'run'}",
                "--steps=1",
                "--data.prompts-per-step=4",
                "--sampling.samples-per-prompt=4",
                "--sampling.max-new-tokens=12",
                "--optim.learning-rate=0.01",
                "--eval.every=0",
            ]
        )
    return home / "run", source


def test_a_trained_step_goes_out_and_in_again(run, tmp_path):
    folder, source = run
    tokens = np.arange(3, 40).reshape(1, -1)
    logits = {}
    out = convert(Arguments(str(folder), str(tmp_path / "out")))
    for name in (source, folder, folder / "checkpoints" / "1", out):
        model, _ = load_model(str(name))
        logits[name] = np.asarray(model.logits(tokens))
    trained = logits[folder]
    np.testing.assert_array_equal(logits[folder / "checkpoints" / "1"], trained)
    np.testing.assert_array_equal(logits[out], trained)
    assert np.abs(trained - logits[source]).max() > 0.01
    for name in ("config.json", "tokenizer.json", "generation_config.json"):
        assert (out / name).read_bytes() == (source / name).read_bytes()


def test_a_run_folder_says_which_model_it_was_and_needs_it_no_more(run, tmp_path):
    folder, source = run
    record = json.loads((folder / "config.json").read_text())["model"]
    assert record == {"source": str(source), "revision": None}
    # A run that starts from this one records the very checkpoint, whatever is saved later.
    assert open_model(str(folder)).source == str(folder / "checkpoints" / "1")
    moved = source.with_name("elsewhere")
    source.rename(moved)
    try:
        assert convert(Arguments(str(folder), str(tmp_path / "out"))).is_dir()
    finally:
        moved.rename(source)


def test_a_run_folder_without_its_checkpoints_is_known_as_one(run, tmp_path):
    folder, _ = run
    shutil.copytree(folder, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    with pytest.raises(UserError, match="this is the folder of a run, not of a model"):
        convert(Arguments(str(tmp_path / "run"), str(tmp_path / "out")))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"out": "full"}, "not an empty folder"),
        ({"out": "full/file"}, "not an empty folder"),
        ({"out": "full/file/below"}, "cannot be made"),
        ({"out": "gs://bucket/out"}, "not a local folder"),
        ({"model": "nowhere"}, "'nowhere' is not known"),
        ({"shard_gb": 0.0}, "--shard-gb 0.0"),
    ],
)
def test_what_cannot_be_written_is_refused(tiny_path, tmp_path, monkeypatch, change, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    arguments = {"model": str(tiny_path), "out": "out"} | change
    with pytest.raises(UserError, match=named):
        convert(Arguments(**arguments))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full"]
    assert (tmp_path / "full" / "file").read_text() == "mine"


def test_the_command(tiny_path, tmp_path, capsys, monkeypatch):
    out = tmp_path / "made" / "out"
    monkeypatch.setattr(sys, "argv", ["convert", "--model", str(tiny_path), "--out", str(out)])
    main()
    printed = capsys.readouterr().out
    assert "llama, " in printed and f"wrote {out}: " in printed
    done = subprocess.run(
        [sys.executable, "-m", "rlif_jax.convert", "--model", str(tiny_path), "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: --out ") and "Traceback" not in done.stderr
