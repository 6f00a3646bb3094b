"""Runs that train adapters: what is saved, resumed, opened and converted."""

import json
import shutil

import jax
import numpy as np
import pytest
from flax import nnx
from support.small_runs import config, numbers, refused

from rlif_jax.convert import Arguments, convert
from rlif_jax.errors import UserError
from rlif_jax.train import main
from rlif_jax.weights.orbax_folder import ADAPTERS, FOLDER
from rlif_jax.weights.parameters import named
from rlif_jax.weights.source import load_model, open_model

pytestmark = pytest.mark.slow
TOKENS = np.arange(3, 35).reshape(2, 16)


@pytest.fixture(scope="module")
def lora_flags(flags):
    return [
        *(config("prob_disparity"), *flags),
        *("--eval.every=0", "--checkpoint.every=1", "--checkpoint.keep=3", "--steps=3"),
        *("--model.lora-rank=4", "--model.lora-alpha=8", "--optim.learning-rate=0.01"),
        *("--loss.kl-coef=0.1", "--optim.warmup-steps=1"),
    ]


@pytest.fixture(scope="module")
def whole(lora_flags, tmp_path_factory):
    """A run that saves the frozen weights as well."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    main([*lora_flags, f"--run-dir={folder}"])
    return folder


@pytest.fixture(scope="module")
def slim(lora_flags, tmp_path_factory):
    """The same run with checkpoints of adapters alone."""
    folder = tmp_path_factory.mktemp("slim") / "run"
    main([*lora_flags, f"--run-dir={folder}", "--checkpoint.adapters-only"])
    return folder


def params(source) -> dict[str, jax.Array]:
    return named(nnx.state(load_model(str(source))[0]))


def test_adapters_alone_are_trained(whole, tiny_path):
    """The frozen weights in the checkpoint are the source's; the merged ones are not."""
    base, opened = params(tiny_path), open_model(str(whole))
    merged = params(whole)
    saved = opened.weights._base.arrays(
        dict.fromkeys(base, jax.sharding.SingleDeviceSharding(jax.devices()[0])), None
    )
    assert base.keys() == merged.keys() == saved.keys()
    targets = {f"layers.{t}" for t in ("q", "k", "v", "o", "gate", "up", "down")}
    for name, value in base.items():
        np.testing.assert_array_equal(saved[name], value, err_msg=name)
        assert bool((merged[name] != value).any()) == (name in targets), name
    steps = numbers(whole)
    assert steps[0]["loss/kl"] == 0 and steps[-1]["loss/kl"] > 0
    assert all(step["drift/sampler_logprob"] < 1e-4 for step in steps)  # it samples as it trains


def test_checkpoints_of_adapters_alone_hold_the_same_model(whole, slim):
    assert numbers(slim) == numbers(whole)
    for folder, has_base in ((whole, True), (slim, False)):
        step = folder / "checkpoints" / "3"
        assert (step / ADAPTERS).is_dir() and (step / FOLDER).is_dir() == has_base
    one, other = params(whole), params(slim)
    for name, value in one.items():
        np.testing.assert_array_equal(other[name], value, err_msg=name)


@pytest.mark.parametrize("more", [[], ["--checkpoint.adapters-only"]])
def test_a_resumed_run_equals_an_uninterrupted_one(whole, lora_flags, tmp_path, more):
    folder = tmp_path / "run"
    main([*lora_flags, "--steps=2", f"--run-dir={folder}", *more])
    main([*lora_flags, f"--run-dir={folder}"])
    assert numbers(folder) == numbers(whole)
    one, other = params(whole), params(folder)
    for name, value in one.items():
        np.testing.assert_array_equal(other[name], value, err_msg=name)


@pytest.mark.parametrize("which", ["whole", "slim"])
@pytest.mark.parametrize("form", ["huggingface", "orbax"])
def test_convert_writes_the_merged_model(which, form, request, tmp_path):
    run = request.getfixturevalue(which)
    out = convert(Arguments(model=str(run), out=str(tmp_path / "out"), format=form))
    want, got = (load_model(str(source))[0].logits(TOKENS) for source in (run, out))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    if form == "huggingface":
        assert json.loads((out / "config.json").read_text())["torch_dtype"] == "float32"


def test_what_adapters_alone_need_is_named(slim, lora_flags, tmp_path, capsys):
    moved = shutil.copytree(slim, tmp_path / "moved")
    record = json.loads((moved / "config.json").read_text())
    record["model"]["source"] = str(tmp_path / "gone.gguf")
    (moved / "config.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"holds adapters alone.*gone\.gguf"):
        open_model(str(moved))
    (moved / "config.json").unlink()
    with pytest.raises(UserError, match=r"does not say with which model\.lora_rank"):
        open_model(str(moved))
    other = refused([*lora_flags, f"--run-dir={slim}", "--model.lora-rank=8", "--steps=4"], capsys)
    assert "model.lora_rank was 4 and is now 8" in other
