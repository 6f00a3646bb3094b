"""What stages have to do, in closed form: FLOPs of products, bytes of weights and of the cache.

The forms are the planner's: two FLOPs for a parameter and a token, attention by the pairs of a
query and a key that it sees, so that causal attention counts half. The backward pass has two
products for each of the forward pass; layers that it computes again are not counted, nor are norms,
rotations and softmaxes.
"""

import numpy as np

from rlif_jax.model.config import ModelConfig, kv_bytes_per_token
from rlif_jax.planning.counts import Work
from rlif_jax.planning.step_work import forward_flops, matrix_parameters


def decode_step(model: ModelConfig, slots: int, context: float, itemsize: int) -> Work:
    """One decode step of `slots` sequences with `context` tokens each.

    Weights are read once, and so are the keys and values of each sequence; those of its prompt
    count for each sequence, though several share their pages.
    """
    weights, seen = matrix_parameters(model), slots * context
    attention = 4.0 * model.layers * model.heads * model.head_dim * seen
    moved = itemsize * weights + seen * kv_bytes_per_token(model, itemsize)
    return Work(flops=2.0 * weights * slots + attention, bytes=moved)


def prefill(model: ModelConfig, tokens: int, itemsize: int) -> Work:
    """A prompt: no token is multiplied with the head, and its keys and values are written."""
    head = model.reachable * model.embed
    flops = forward_flops(model, tokens, np.array([tokens])) - 2.0 * head * tokens
    moved = itemsize * (matrix_parameters(model) - head)
    return Work(flops=flops, bytes=moved + tokens * kv_bytes_per_token(model, itemsize))


def score(model: ModelConfig, lengths: np.ndarray, pieces: int) -> Work:
    """Sequences of these lengths in `pieces` micro-batches, which each read float32 weights."""
    flops = forward_flops(model, int(lengths.sum()), lengths)
    return Work(flops=flops, bytes=4.0 * pieces * matrix_parameters(model))


def update(model: ModelConfig, lengths: np.ndarray, pieces: int) -> Work:
    """As `score` with the backward pass, and the optimiser.

    Each micro-batch reads the weights twice and adds to their gradient, which is read and written;
    the optimiser reads weights, gradient and both moments and writes all but the gradient.
    """
    weights = matrix_parameters(model)
    trained = weights if model.tied else weights + model.vocab_rows * model.embed
    moved = 4.0 * (pieces * (2 + 2) * weights + 7 * trained)
    return Work(flops=3 * score(model, lengths, pieces).flops, bytes=moved)
