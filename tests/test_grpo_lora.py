"""The update with adapters: they alone move, and nothing of the frozen weights' size is made."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.packed import packed
from support.small_batch import SETTINGS, make_batch, rollout_and_stats
from support.tiny_gguf import TINY

from rlif_jax.config import Config, Data, Loss, Optim, Sampling
from rlif_jax.grpo import make_gradient, make_update
from rlif_jax.loss.reference import kept_reference
from rlif_jax.model.config import INPUT_AXES, Lora, adapter_specs
from rlif_jax.model.decoder import Decoder
from rlif_jax.model.lora import divided, trained, with_trained
from rlif_jax.optimizer import init_state, make_optimizer, state_shapes
from rlif_jax.planning.ahead import train_batch_shapes, with_sharding
from rlif_jax.scoring import Score, make_scores
from rlif_jax.sharding import make_mesh, param_shardings
from rlif_jax.step import make_stages
from rlif_jax.weights.parameters import named

LORA = Lora(rank=2, alpha=4.0, targets=tuple(INPUT_AXES))


@pytest.fixture(scope="module")
def model():
    """(graphdef, params) of a decoder whose adapters are fresh."""
    cfg = dataclasses.replace(TINY, vocab_size=256, lora=LORA)
    return nnx.split(Decoder.init(cfg, jax.random.key(1), scale=0.3))


def moved(params):
    """The parameters with other factors `b`, as after some training."""
    noise = np.random.default_rng(0)
    adapters = jax.tree.map(
        lambda x: x + jnp.asarray(noise.normal(0, 0.1, x.shape), jnp.float32), trained(params)
    )
    return with_trained(params, adapters)


def updated(model, batch, optim):
    graphdef, params = model
    optimizer = make_optimizer(optim)
    update = make_update(graphdef, optimizer, Loss(), **SETTINGS)
    start = init_state(jax.tree.map(jnp.copy, params), optimizer)
    sizes = [x.size for x in jax.tree.leaves(start.opt_state)]
    state, metrics, _ = update(start, batch)
    return state, metrics, sizes


def test_adapters_alone_are_updated_and_have_moments(model):
    state, metrics, sizes = updated(model, make_batch(), Optim(learning_rate=0.1, warmup_steps=1))
    before, after = named(model[1]), named(state.params)
    for name, value in before.items():
        # Of fresh adapters b alone has a gradient; a decays as all matrices do.
        assert bool((after[name] != value).any()) == ("_lora_" in name), name
    adapters = sum(x.size for x in jax.tree.leaves(trained(model[1])))
    assert 0 <= sum(sizes) - 2 * adapters < 10  # two moments each, and counters
    assert float(metrics["grad/norm"]) > 0


def test_adapters_decay(model):
    graphdef, params = model
    params = moved(params)
    batch = make_batch()
    still = dataclasses.replace(batch, advantage=jnp.zeros_like(batch.advantage))
    optim = Optim(learning_rate=0.1, warmup_steps=1, weight_decay=0.5)
    state, _, _ = updated((graphdef, params), still, optim)
    for name, value in named(trained(params)).items():
        np.testing.assert_allclose(named(state.params)[name], 0.95 * value, rtol=1e-5)


def test_micro_batches_and_devices_give_one_gradient(model):
    graphdef, params = model
    params = moved(params)
    gradient = jax.jit(make_gradient(graphdef, Loss(), **SETTINGS))
    want, want_metrics, _ = gradient(params, make_batch())
    assert named(want).keys() == adapter_specs(nnx.merge(graphdef, params).cfg).keys()
    pieces = gradient(params, make_batch(tokens=16))
    with jax.set_mesh(mesh := make_mesh(data=2, fsdp=2, tensor=2)):
        placed = jax.device_put(params, param_shardings(params, mesh))
        spread = gradient(placed, make_batch())
    for grads, metrics, _ in (pieces, spread):
        for name, grad in named(grads).items():
            size = np.abs(named(want)[name]).max()
            np.testing.assert_allclose(grad, named(want)[name], atol=2e-5 * size, err_msg=name)
        np.testing.assert_allclose(metrics["loss/policy"], want_metrics["loss/policy"], rtol=1e-4)


def test_the_reference_is_the_same_weights_with_the_adapters_of_the_start(model):
    graphdef, params = model
    rollout, _, _ = rollout_and_stats()
    scores = make_scores(graphdef, temperatures=(1.0,), shared=False)
    score = Score(scores, None, from_sampler=False)
    later = moved(params)
    before, _ = score.certainty(params, rollout, packed)
    after, _ = score.certainty(later, rollout, packed)
    kept = with_trained(later, kept_reference(trained(params), "float32"))
    anchor = score.reference(kept, packed(rollout), rollout.tokens.shape[1])
    np.testing.assert_array_equal(anchor.logprob, before.logprob)
    assert np.abs(after.logprob - before.logprob).max() > 0.01


def compiled_update(lora, vocab_size=2000):
    """The compiled update of a small deep model, and the bytes of its frozen parameters."""
    cfg = dataclasses.replace(
        TINY, vocab_size=vocab_size, embed=128, ffn=512, head_dim=32, layers=8, tied=False
    )
    cfg = dataclasses.replace(cfg, remat="layer", lora=lora)
    graphdef, params = nnx.split(nnx.eval_shape(lambda: Decoder.init(cfg, jax.random.key(0))))
    run = Config(
        data=Data(prompts_per_step=4, max_prompt_tokens=32),
        sampling=Sampling(samples_per_prompt=4, max_new_tokens=32),
        loss=Loss(tokens_per_micro_batch=64),
    )
    with jax.set_mesh(mesh := make_mesh()):
        params = with_sharding(params, param_shardings(params, mesh))
        stages = make_stages(run, graphdef, pad_id=0)
        batch = train_batch_shapes(stages.form, reference=False)
        state = state_shapes(params, stages.optimizer)
        memory = stages.update.lower(state, batch).compile().memory_analysis()
    return memory, 4 * sum(x.size for x in jax.tree.leaves(divided(params)[1]))


def test_frozen_weights_cost_neither_moments_nor_gradients():
    """Full training holds a gradient, an accumulator and two moments of every parameter."""
    full, _ = compiled_update(None)
    memory, frozen = compiled_update(LORA)
    assert full.argument_size_in_bytes - memory.argument_size_in_bytes > 1.9 * frozen
    assert full.temp_size_in_bytes - memory.temp_size_in_bytes > 1.2 * frozen
    larger, _ = compiled_update(LORA, vocab_size=20000)  # nor does the head
    assert larger.temp_size_in_bytes < 1.01 * memory.temp_size_in_bytes
