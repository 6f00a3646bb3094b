"""Which meshes can split a model, and what a mesh that keeps heads whole says it costs."""

import dataclasses
import math
import re

import pytest
from support import GOLDENS
from support.tiny_gguf import TINY

from rlif_jax.config import Mesh
from rlif_jax.errors import UserError
from rlif_jax.model.config import param_specs
from rlif_jax.model.placement import check_mesh
from rlif_jax.sharding import RULES_TRAIN, make_mesh
from rlif_jax.storage.files import LocalFiles
from rlif_jax.weights.hf_config import read_hf_config
from rlif_jax.weights.parameters import shardings_of
from rlif_jax.weights.source import open_model

CONFIGS = GOLDENS / "configs"
QWEN = read_hf_config(LocalFiles(CONFIGS / "DeepSeek-R1-Distill-Qwen-1.5B"))


@pytest.mark.parametrize(
    ("changed", "fsdp", "tensor", "said"),
    [
        ({}, 1, 8, "tensor=8 does not divide the model's 12 query heads; choose one of [1, 2, 4]"),
        (  # Qwen2.5-Coder-7B
            {"heads": 28, "kv_heads": 4, "embed": 3584, "ffn": 18944},
            1,
            8,
            "tensor=8 does not divide the model's 28 query heads; choose one of [1, 2, 4]",
        ),
        # Six devices of two heads each would need parts of two key/value heads.
        (
            {"kv_heads": 4, "ffn": 9216, "vocab_size": 384},
            1,
            6,
            "6 does not divide the model's 4 key",
        ),
        ({"ffn": 8961}, 1, 2, "2 does not divide the model's 8961 feed-forward channels; choose"),
        ({"ffn": 8961}, 1, 3, "3 does not divide the model's 2 key/value heads and 151936 vocab"),
        (
            {},
            7,
            1,
            "fsdp=7 does not divide the model's embedding of 1536; the nearest that divide "
            "it: 6 and 8",
        ),
        ({}, 2048, 1, "the nearest that divide it: 1536"),
        ({}, 5, 5, "tensor=5 does not divide the model's 12 query heads and 2 key/value heads and"),
        ({}, 5, 5, "; mesh.fsdp=5 does not divide"),
    ],
)
def test_a_mesh_that_cannot_split_the_model_is_refused(changed, fsdp, tensor, said):
    with pytest.raises(UserError, match=re.escape(said)):
        check_mesh(dataclasses.replace(QWEN, **changed), fsdp, tensor)


def test_heads_that_are_kept_whole_are_told_with_their_cost():
    assert check_mesh(QWEN, 1, 1) == check_mesh(QWEN, 4, 2) == []
    (line,) = check_mesh(QWEN, 1, 4)
    # 28 layers of two matrices 1536 x 256 and two biases of 256, float32.
    assert "2 key/value heads" in line
    assert "84.1 MiB where an even split would be 21 MiB" in line
    assert "7168 numbers of cache a token where an even split would be 3584" in line
    (line,) = check_mesh(QWEN, 8, 4)
    assert "10.6 MiB where" in line


@pytest.mark.parametrize(
    ("changed", "axes"),
    [
        ({}, {"fsdp": 4, "tensor": 2}),
        ({}, {"data": 2, "tensor": 4}),
        ({}, {"fsdp": 2, "context": 2, "tensor": 2}),
        ({"heads": 8, "tied": False, "qkv_bias": True, "qk_norm": True}, {"tensor": 8}),
        ({"heads": 6, "kv_heads": 3, "ffn": 96, "vocab_size": 384}, {"fsdp": 2, "tensor": 3}),
    ],
)
def test_an_accepted_mesh_splits_all_that_the_rules_name(changed, axes):
    cfg = dataclasses.replace(TINY, **changed)
    mesh = make_mesh(**axes)
    whole = 0
    for name, sharding in shardings_of(cfg, mesh).items():
        spec = param_specs(cfg)[name]
        expected = []
        for size, axis in zip(spec.shape, spec.axes, strict=True):
            rule = RULES_TRAIN[axis]
            split = (rule,) if isinstance(rule, str) else rule or ()
            parts = math.prod(mesh.shape[name] for name in split)
            alone = axis == "kv_heads" and cfg.kv_heads < parts
            expected.append(size if alone else size // parts)
        local = sharding.shard_shape(spec.shape)
        assert local == tuple(expected), name
        whole += 4 * math.prod(local) if "kv_heads" in spec.axes else 0
    told = check_mesh(cfg, mesh.shape["fsdp"], mesh.shape["tensor"], mesh.shape["context"])
    assert bool(told) == (mesh.shape["tensor"] > cfg.kv_heads)
    assert all(f"{whole / 2**20:.3g} MiB where" in line for line in told)


def test_a_model_is_not_loaded_onto_a_mesh_that_cannot_split_it(tiny_path):
    opened = open_model(str(tiny_path))
    with pytest.raises(UserError, match="8 does not divide the model's 4 query heads"):
        opened.check_mesh(Mesh(tensor=8))
    with pytest.raises(UserError, match="8 does not divide the model's 4 query heads"):
        opened.load(mesh=make_mesh(tensor=8))
    assert opened.load(mesh=make_mesh(tensor=4)).head_VD.shape == (384, 32)
