"""Embedding rows that no token id names, which most published models have."""

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file
from support.changed_folders import TOKENS, change_tensors, words, write_words
from support.family_folders import family_folder
from support.packed import scored

from rlif_jax.model.decoder import Decoder
from rlif_jax.sampler.engine import Engine
from rlif_jax.sampler.sample import make_sample
from rlif_jax.weights.source import load_model

HEAD = "lm_head.weight"


@pytest.fixture
def beyond(tmp_path) -> Decoder:
    """A model whose largest logit is always that of a row that no token id names: 49 or 50."""
    folder = family_folder("llama-default", tmp_path / "model")
    write_words(folder, words(range(3, 49)))
    head = load_file(folder / "model.safetensors")[HEAD]
    head[49] = 1000 * head[48]
    head[50] = -head[49]
    change_tensors(folder, **{HEAD: head})
    model, _ = load_model(str(folder))
    assert (np.argmax(model.logits(TOKENS), axis=-1) >= 49).all()
    assert model.cfg.reachable == 49
    return model


def test_rows_that_no_id_names_are_never_drawn_and_no_part_of_statistics(beyond):
    graphdef, params = nnx.split(beyond)
    engine = Engine(graphdef, temperature=0.7)
    sample = make_sample(engine, samples_per_prompt=8, max_new_tokens=24, pad_id=2)
    rollout, _ = sample(params, [[5, 6, 7, 8], [9, 10]], jax.random.key(0))
    stats_of_scorer = scored(graphdef, params, rollout, 0.7)
    mask_BC, tokens_BC = np.asarray(rollout.mask), np.asarray(rollout.tokens)
    assert tokens_BC.max() < 49 and len(np.unique(tokens_BC[mask_BC])) > 20
    prompts = jax.tree.map(lambda x_NP: np.repeat(x_NP, 8, axis=0), rollout.prompts)
    tokens_BT = np.concatenate([prompts.tokens, tokens_BC], axis=1)
    logits_BTV = beyond.logits(tokens_BT, None, np.concatenate([prompts.mask, mask_BC], axis=1))
    first = prompts.tokens.shape[1] - 1
    z_BCV = np.asarray(logits_BTV, np.float64)[:, first:-1, :49] / 0.7
    lse_BC = np.log(np.exp(z_BCV).sum(axis=-1))
    p_BCV = np.exp(z_BCV - lse_BC[..., None])
    top_BCV = np.sort(p_BCV, axis=-1)
    chosen_BC = np.take_along_axis(z_BCV, tokens_BC[..., None], axis=-1)[..., 0]
    want = {
        "logprob": chosen_BC - lse_BC,
        "entropy": -(p_BCV * np.log(p_BCV)).sum(axis=-1),
        "self_certainty": lse_BC - z_BCV.mean(axis=-1),
        "top1": top_BCV[..., -1],
        "top2": top_BCV[..., -2],
    }
    for name, value in want.items():
        for stats in (rollout.stats, stats_of_scorer):
            got = np.asarray(getattr(stats, name))
            np.testing.assert_allclose(got[mask_BC], value[mask_BC], rtol=2e-4, atol=2e-5)
