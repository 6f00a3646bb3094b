"""A run whose sampler has weights of 8 bits: it draws with them, and evaluates without."""

from flax import nnx
from support.small_runs import config, numbers

from rlif_jax import train
from rlif_jax.weights.source import load_model


def test_rounded_weights_draw_and_do_not_evaluate(flags, tiny_path, tmp_path, monkeypatch):
    """The drift tells them from the trainer's; what evaluation draws with is the trainer's."""
    made, make_evaluate = [], train.make_evaluate

    def spy(cfg, graphdef, tokenizer, sync, *more):
        made.append(sync)
        return make_evaluate(cfg, graphdef, tokenizer, sync, *more)

    monkeypatch.setattr(train, "make_evaluate", spy)
    drift = {}
    for dtype in ("", "int8"):
        run = tmp_path / (dtype or "whole")
        more = ["--steps=1", "--checkpoint.every=0", f"--run-dir={run}"]
        rounded = [f"--sampling.weights-dtype={dtype}", "--loss.sampler-correction-cap=2.0"]
        train.main([config("prob_disparity"), *flags, *more, *(rounded if dtype else [])])
        drift[dtype] = numbers(run)[-1]["drift/sampler_logprob"]
    assert drift[""] < 1e-5 < 1e-4 < drift["int8"] < 0.5
    params = nnx.state(load_model(str(tiny_path))[0])
    for sync in made:
        for name, weight in sync(params)["layers"].items():
            assert weight.get_value().stacked is params["layers"][name].get_value()
