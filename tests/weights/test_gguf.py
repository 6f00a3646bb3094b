"""GGUF files written by the gguf package: every supported type read right, every damage named."""

import dataclasses

import jax
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from support.tiny_gguf import TINY, gguf_tensors, positions, write_gguf

from rlif_jax.errors import UserError
from rlif_jax.model.decoder import Decoder
from rlif_jax.weights.gguf import GGUFWeights, read_config
from rlif_jax.weights.gguf_header import open_gguf
from rlif_jax.weights.parameters import shardings_of
from rlif_jax.weights.source import load_model


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tiny.gguf"


def read(path) -> Decoder:
    reader = open_gguf(path)
    cfg = read_config(reader, path)
    arrays = GGUFWeights(reader, cfg, path).arrays(shardings_of(cfg, None), None)
    return Decoder(cfg, lambda name, _: arrays[name])


def same_weights(one: Decoder, two: Decoder) -> None:
    a, b = (jax.tree.leaves(jax.tree.map(np.asarray, vars(m.layers))) for m in (one, two))
    for x, y in zip([*a, one.head_VD], [*b, two.head_VD], strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("arch", ["llama", "qwen2", "qwen3"])
def test_float32_round_trip_undoes_the_row_permutation(path, tiny, arch):
    write_gguf(path, gguf_tensors(tiny, arch), arch=arch)
    model = read(path)
    assert dataclasses.replace(model.cfg, rms_eps=TINY.rms_eps) == dataclasses.replace(
        TINY, family=arch, eos_ids=(1, 2)
    )
    assert abs(model.cfg.rms_eps - TINY.rms_eps) < 1e-10
    same_weights(model, tiny)


def test_biases_norms_and_head_make_the_flags(path):
    cfg = dataclasses.replace(TINY, tied=False, qkv_bias=True, qk_norm=True)
    model = Decoder.init(cfg, jax.random.key(1))
    tensors = gguf_tensors(model, "qwen3") | {
        "output.weight": np.asarray(model.head[: cfg.vocab_size])
    }
    rng = np.random.default_rng(0)
    for i in range(cfg.layers):
        for name, width in (("q", 32), ("k", 16), ("v", 16)):
            tensors[f"blk.{i}.attn_{name}.bias"] = rng.normal(size=width).astype(np.float32)
        for name in "qk":
            tensors[f"blk.{i}.attn_{name}_norm.weight"] = np.full(8, i + 1, np.float32)
    write_gguf(path, tensors, arch="qwen3")
    got = read(path)
    assert (got.cfg.tied, got.cfg.qkv_bias, got.cfg.qk_norm) == (False, True, True)
    np.testing.assert_array_equal(got.head_VD, model.head[...])
    np.testing.assert_array_equal(got.layers.k_norm[...], [[1] * 8, [2] * 8])
    for i in range(cfg.layers):
        bias = tensors[f"blk.{i}.attn_k.bias"].reshape(2, 8)
        np.testing.assert_array_equal(got.layers.k_bias[i], bias)


@pytest.mark.parametrize(
    ("kind", "bound"),
    [
        (Kind.F16, 2**-11),
        (Kind.BF16, 2**-8),
        (Kind.Q8_0, 1 / 254 + 1e-3),
        (Kind.Q4_1, 1 / 15 + 1e-3),
    ],
)
def test_quantised_types_are_read_within_their_step(path, tiny, kind, bound):
    """The error of a block of 32 is at most half a quantisation step of its largest magnitude.

    Q4_1 has 15 steps from minimum to maximum, so its half step is at most 1/15 of the magnitude.
    """
    tensors = gguf_tensors(tiny)
    matrices = {name: kind for name, value in tensors.items() if value.ndim == 2}
    write_gguf(path, tensors, kinds=matrices)
    got = read(path)
    exact, read_back = np.asarray(tiny.head_VD), np.asarray(got.head_VD)
    error = np.abs(exact - read_back).max(axis=1)[: TINY.vocab_size]
    assert (error <= bound * np.abs(exact).max(axis=1)[: TINY.vocab_size]).all()
    assert error.max() > 0
    for name in ("q", "k", "v", "o", "gate", "up", "down"):
        exact, read_back = (np.asarray(getattr(m.layers, name)[...]) for m in (tiny, got))
        assert np.abs(exact - read_back).max() <= bound * np.abs(exact).max()
    np.testing.assert_array_equal(tiny.layers.attn_norm[...], got.layers.attn_norm[...])


def q4_1_block(scale, minimum, nibbles):
    """Bytes of a Q4_1 block: two float16, then value i in the low and i + 16 in the high nibble."""
    nibbles = np.asarray(nibbles, np.uint8)
    head = np.array([scale, minimum], np.float16).view(np.uint8)
    return np.concatenate([head, nibbles[:16] | (nibbles[16:] << 4)])


def test_q4_1_by_hand(path, tiny):
    tensors = gguf_tensors(tiny)
    write_gguf(path, tensors, kinds={"token_embd.weight": Kind.Q4_1})
    blocks = [q4_1_block(0.5, -1.0, (np.arange(32) + row) % 16) for row in range(TINY.vocab_size)]
    reader = open_gguf(path)
    at = next(t.data_offset for t in reader.tensors if t.name == "token_embd.weight")
    with path.open("r+b") as file:
        file.seek(at)
        file.write(np.concatenate(blocks).tobytes())
    want = [[0.5 * ((i + row) % 16) - 1.0 for i in range(32)] for row in range(TINY.vocab_size)]
    np.testing.assert_array_equal(read(path).embed[: TINY.vocab_size], want)


def test_other_quantisations_are_refused_by_name(path, tiny):
    write_gguf(path, gguf_tensors(tiny), kinds={"blk.1.ffn_up.weight": Kind.Q5_0})
    with pytest.raises(UserError, match=r"blk\.1\.ffn_up\.weight is stored as 'Q5_0', which is"):
        read(path)


def test_missing_unused_and_misshaped_tensors_are_all_named(path, tiny):
    tensors = gguf_tensors(tiny)
    del tensors["blk.0.ffn_gate.weight"]
    tensors["blk.0.rope.weight"] = np.ones(4, np.float32)
    tensors["blk.1.attn_v.weight"] = np.ones((16, 64), np.float32)
    write_gguf(path, tensors)
    with pytest.raises(UserError) as error:
        read(path)
    assert "blk.0.ffn_gate.weight is missing" in str(error.value)
    assert "'blk.0.rope.weight' belongs to no parameter" in str(error.value)
    assert "blk.1.attn_v.weight has shape (16, 64), not (16, 32)" in str(error.value)


@pytest.mark.parametrize("share", [0, 0.01, 0.2, 0.5, 0.999])
def test_cut_files_are_refused(path, tiny, share):
    write_gguf(path, gguf_tensors(tiny))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match="tiny"):
        load_model(str(path))


def test_damaged_headers_end_in_a_user_error_or_a_model(path, tiny):
    """Any single damaged byte of the metadata: never another exception."""
    write_gguf(path, gguf_tensors(tiny))
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for at in [0, 4, 8, 16, *rng.integers(24, 3000, 120)]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        try:
            reader = open_gguf(path)
            cfg = read_config(reader, path)
            GGUFWeights(reader, cfg, path)
        except UserError as error:
            assert "tiny.gguf" in str(error)


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ({"arch": "gemma3"}, "gemma3"),
        ({"leave_out": ("embedding_length",)}, "llama.embedding_length"),
        ({"rope_scaling": "longrope"}, "longrope"),
        ({"rope_scaling": "yarn"}, r"lacks the metadata llama\.rope\.scaling\.factor"),
        ({"cfg": dataclasses.replace(TINY, heads=0)}, "head_count 0"),
        ({"cfg": dataclasses.replace(TINY, kv_heads=3)}, "4 heads, 3 key/value heads"),
        ({"cfg": dataclasses.replace(TINY, head_dim=7)}, "heads 7 wide, which do not fit together"),
        ({"cfg": dataclasses.replace(TINY, layers=2**30)}, "block_count 1073741824"),
        ({"cfg": dataclasses.replace(TINY, layers=3)}, r"blk\.2\.attn_norm\.weight is missing"),
    ],
)
def test_unsupported_metadata_is_named(path, tiny, written, named):
    write_gguf(path, gguf_tensors(tiny), **written)
    with pytest.raises(UserError, match=named):
        read(path)


def test_not_a_gguf_file(path):
    path.write_bytes(b"PK\x03\x04 this is a zip" * 100)
    with pytest.raises(UserError, match="not a complete GGUF file"):
        open_gguf(path)


def test_loaded_model_computes_what_was_written(path, tiny):
    write_gguf(path, gguf_tensors(tiny))
    model, tokenizer = load_model(str(path))
    ids = np.array([tokenizer("ab a b<|im_end|>").input_ids])
    mask = np.ones(ids.shape, bool)
    logits = model.logits(ids, positions(mask), mask)
    np.testing.assert_allclose(logits, tiny.logits(ids, positions(mask), mask), rtol=1e-5)
