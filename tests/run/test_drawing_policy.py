"""The alarms for rollouts that another policy drew: the sampler's copy, and the drift."""

import jax
import numpy as np
import pytest
from flax import nnx

from rlif_jax.errors import UserError
from rlif_jax.model.config import INPUT_AXES, Lora
from rlif_jax.run.digest import digest_of, digests
from rlif_jax.run.policy import check_drift, digest_of_copy
from rlif_jax.sampler.sync import make_sync
from rlif_jax.sharding import make_mesh
from rlif_jax.weights.source import open_model


def loaded(tiny_path, dtype: str, mesh, lora: Lora | None = None):
    """Graph definition and parameters, the adapters' second factors no longer zero."""
    graphdef, params = nnx.split(open_model(str(tiny_path)).load(dtype, mesh=mesh, lora=lora))

    def moved(path, x):
        return x + 0.01 if "lora_b" in jax.tree_util.keystr(path) else x

    return graphdef, jax.tree_util.tree_map_with_path(moved, params)


def one_bit_off(tree, name: str):
    """A copy with one bit flipped in an array."""

    def changed(path, x):
        if f"'{name}'" not in jax.tree_util.keystr(path):
            return x
        host = np.array(x)
        host.reshape(-1).view(f"uint{8 * host.itemsize}")[7] ^= 1
        return jax.device_put(host, x.sharding)

    return jax.tree_util.tree_map_with_path(changed, tree)


AXES = [(1, 1, 1), (1, 4, 2), (2, 2, 2)]


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_renewed_copy_passes_on_any_mesh_and_a_changed_one_does_not(tiny_path, axes, dtype):
    """Cast within the digest, the trainer's numbers are those of the copy to the last bit."""
    mesh = make_mesh(*axes)
    with jax.set_mesh(mesh):
        graphdef, params = loaded(tiny_path, dtype, mesh)
        copy = make_sync(graphdef)(params)
        digest = digest_of_copy(copy, params)
        assert digest == digest_of(digests(jax.device_get(copy)))
        for name in ("down", "q", "embed"):
            with pytest.raises(UserError, match=rf"1 of \d+ arrays differ, \S*{name}"):
                digest_of_copy(one_bit_off(copy, name), params)
        if dtype == "float32":
            with pytest.raises(UserError, match="1 of"):
                digest_of_copy(copy, one_bit_off(params, "k"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_without_adapters_are_compared_beside_merged_ones(tiny_path, dtype):
    mesh = make_mesh(1, 2, 2)
    with jax.set_mesh(mesh):
        lora = Lora(rank=2, alpha=4.0, targets=("q", "down"))
        graphdef, params = loaded(tiny_path, dtype, mesh, lora)
        copy = make_sync(graphdef)(params)
        assert digest_of_copy(copy, params) == digest_of(digests(jax.device_get(copy)))
        with pytest.raises(UserError, match=r"1 of \d+ arrays differ, \S*gate"):
            digest_of_copy(one_bit_off(copy, "gate"), params)
        digest_of_copy(one_bit_off(copy, "q"), params)  # the drift tells


@pytest.mark.parametrize("dtype", ["int8", "bfloat16"])
@pytest.mark.parametrize("axes", AXES)
def test_weights_that_are_kept_are_compared_beside_rounded_ones(tiny_path, axes, dtype):
    mesh = make_mesh(*axes)
    with jax.set_mesh(mesh):
        graphdef, params = loaded(tiny_path, "float32", mesh)
        copy = make_sync(graphdef, dtype)(params)
        digest = digest_of_copy(copy, params, INPUT_AXES)
        assert digest == digest_of(digests(jax.device_get(copy)))
        assert digest != digest_of_copy(make_sync(graphdef)(params), params)
        with pytest.raises(UserError, match=r"1 of \d+ arrays differ, \S*embed"):
            digest_of_copy(one_bit_off(copy, "embed"), params, INPUT_AXES)
        digest_of_copy(one_bit_off(copy, "q"), params, INPUT_AXES)  # the drift tells


def test_drift_beyond_the_bound_is_refused_with_both_numbers():
    check_drift(3, 0.5, 0.5)
    check_drift(3, 1e9, float("inf"))
    with pytest.raises(UserError, match=r"step 3 .* 0.501 nats .* failures.max_drift is 0.5: "):
        check_drift(3, 0.501, 0.5)
    with pytest.raises(UserError, match="nan nats"):
        check_drift(3, float("nan"), 0.5)
