"""What stages have to do, in closed form: FLOPs of products, bytes of weights and of the cache.

A multiplication and an addition are two FLOPs. The backward pass has two products for each of the
forward pass; layers that it computes again are not counted, nor are norms, rotations and softmaxes.
Attention counts the pairs of a query and a key that it sees, so causal attention counts half.
"""

import math

import numpy as np

from benchmarks.on_device.results import Work
from rlif_jax.model.config import ModelConfig, kv_bytes_per_token, param_specs


def layer_weights(cfg: ModelConfig) -> int:
    """Numbers in the matrices of all layers: each token is multiplied with each of them."""
    specs = param_specs(cfg)
    return sum(math.prod(s.shape) for s in specs.values() if s.stacked and s.init == "normal")


def head_weights(cfg: ModelConfig) -> int:
    """Numbers in the head."""
    return cfg.vocab_rows * cfg.embed


def forward_flops(cfg: ModelConfig, tokens: float, pairs: float, predicted: float) -> float:
    """FLOPs of a forward pass over `tokens`, of which `predicted` are multiplied with the head.

    `pairs` counts the keys that each query sees, over all queries.
    """
    attention = 4.0 * cfg.layers * cfg.heads * cfg.head_dim * pairs
    return 2.0 * layer_weights(cfg) * tokens + attention + 2.0 * head_weights(cfg) * predicted


def causal_pairs(length: np.ndarray) -> float:
    """Pairs of a query and a key in sequences of these lengths."""
    length = np.asarray(length, np.float64)
    return float((length * (length + 1) / 2).sum())


def weight_bytes(cfg: ModelConfig, itemsize: int) -> float:
    """Bytes of all matrices that a forward pass reads; of the embedding it reads a few rows."""
    return float(itemsize * (layer_weights(cfg) + head_weights(cfg)))


def decode_step(cfg: ModelConfig, slots: int, context: float, itemsize: int) -> Work:
    """One decode step of `slots` sequences with `context` tokens each.

    Weights are read once, and so are the keys and values of each sequence; those of its prompt
    count for each sequence, though several share their pages.
    """
    cache = slots * context * kv_bytes_per_token(cfg, itemsize)
    flops = forward_flops(cfg, slots, slots * context, slots)
    return Work(flops=flops, moved=weight_bytes(cfg, itemsize) + cache)


def prefill(cfg: ModelConfig, tokens: int, itemsize: int) -> Work:
    """A prompt: no token is multiplied with the head."""
    flops = forward_flops(cfg, tokens, causal_pairs(np.array([tokens])), 0)
    weights = float(itemsize * layer_weights(cfg))
    return Work(flops=flops, moved=weights + tokens * kv_bytes_per_token(cfg, itemsize))


def score(cfg: ModelConfig, length: np.ndarray, pieces: int) -> Work:
    """Sequences of these lengths in `pieces` micro-batches, which each read float32 weights."""
    tokens = float(length.sum())
    flops = forward_flops(cfg, tokens, causal_pairs(length), tokens)
    return Work(flops=flops, moved=pieces * weight_bytes(cfg, 4))


def update(cfg: ModelConfig, length: np.ndarray, pieces: int) -> Work:
    """As `score`, with the backward pass, and a pass over weights, gradients and moments.

    Each micro-batch reads the weights twice and adds to the gradient; the optimiser reads weights,
    gradients and both moments and writes all but the gradients.
    """
    forward = score(cfg, length, pieces)
    numbers = layer_weights(cfg) + head_weights(cfg) * (1 if cfg.tied else 2)
    moved = pieces * (2 + 2) * weight_bytes(cfg, 4) + 4.0 * 7 * numbers
    return Work(flops=3 * forward.flops, moved=moved)
