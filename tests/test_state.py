"""The start of training: parameters, moments and counters are made sharded, and nothing whole."""

import jax
import numpy as np
import pytest
from flax import nnx
from support import GOLDENS

from rlif_jax.config import Config
from rlif_jax.model.decoder import Decoder
from rlif_jax.optimizer import init_state, make_init, state_shapes
from rlif_jax.planning.ahead import local_bytes, mesh_of, total_bytes, with_sharding
from rlif_jax.sharding import make_mesh, param_shardings
from rlif_jax.step import make_stages
from rlif_jax.storage.files import LocalFiles
from rlif_jax.weights.hf_config import read_hf_config

CONFIGS = GOLDENS / "configs"
GIB = 2**30


def placed(tree, mesh):
    return with_sharding(tree, param_shardings(tree, mesh))


@pytest.mark.parametrize(
    ("name", "share_gib"),
    [("DeepSeek-R1-Distill-Qwen-1.5B", 0.83), ("Qwen2.5-Coder-7B-Instruct", 3.55)],
)
def test_a_chip_of_a_slice_makes_its_share_of_the_moments(name, share_gib):
    """fsdp=16 on v5e:4x4, compiled ahead of time: what the stage holds, and what it gives."""
    mesh = mesh_of("v5e:4x4", fsdp=16)
    cfg = read_hf_config(LocalFiles(CONFIGS / name))
    graphdef, params = nnx.split(nnx.eval_shape(lambda: Decoder.init(cfg, jax.random.key(0))))
    share = 2 * 4 * sum(x.size for x in jax.tree.leaves(params)) / 16
    assert share / GIB == pytest.approx(share_gib, abs=0.005)
    params = placed(params, mesh)
    optimizer = make_stages(Config(), graphdef, pad_id=0).optimizer
    compiled = make_init(params, optimizer).lower(params).compile()
    assert share <= compiled.memory_analysis().output_size_in_bytes < 1.1 * share
    assert total_bytes(compiled) < 1.1 * share


def test_parameters_and_moments_are_really_spread(tiny):
    """The compiled stage of `init_state` on eight devices, and the arrays that it gives."""
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    optimizer = make_stages(Config(), tiny[0], pad_id=0).optimizer
    params = jax.device_put(tiny[1], param_shardings(tiny[1], mesh))
    with jax.set_mesh(mesh):
        compiled = make_init(params, optimizer).lower(params).compile()
        state = init_state(params, optimizer)
    whole = sum(x.nbytes for x in jax.tree.leaves(params))
    assert compiled.memory_analysis().output_size_in_bytes < 1.1 * local_bytes(params) * 2
    assert local_bytes(params) < whole / 3.5  # over fsdp and tensor; norms are replicated
    shapes = state_shapes(params, optimizer)

    def same(array, shape):
        assert (array.shape, array.dtype) == (shape.shape, shape.dtype)
        assert array.sharding == shape.sharding

    jax.tree.map(same, state, shapes)
    moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
    assert local_bytes(moments) == 2 * local_bytes(params)
    assert not any(np.any(x) for x in moments)
    assert state.params is params
