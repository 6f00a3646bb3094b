"""Random completions that stand side by side in rows, as the loss sees them."""

import jax.numpy as jnp
import numpy as np

from rlif_jax.config import Loss
from rlif_jax.loss.tokens import LossTokens

VARIANTS = {
    "grpo": Loss(clip_high=0.28),
    "gspo": Loss(variant="gspo", dual_clip=None, clip_low=0.1, clip_high=0.15),
    "cispo": Loss(variant="cispo", dual_clip=None, clip_low=0.5, clip_high=0.5),
    "clip_cov": Loss(variant="clip_cov", dual_clip=None),
    "kl_cov": Loss(variant="kl_cov", dual_clip=None, kl_cov_coef=0.7),
}


def packed(seed: int, rows: int = 8, columns: int = 13, spread: float = 0.3) -> dict:
    """Arrays [R, T] of every field of LossTokens, float64; log ratios of the size of `spread`.

    Each row holds a prompt, a completion, a gap and another completion, of unequal lengths.
    """
    rng = np.random.default_rng(seed)
    shape = (rows, columns)
    segment = np.zeros(shape, np.int32)
    for row in range(rows):
        ends = np.sort(rng.choice(np.arange(1, columns + 1), 4, replace=False))
        segment[row, ends[0] : ends[1]] = 1
        segment[row, ends[2] : ends[3]] = 2
    mask = segment > 0
    length = (segment[:, :, None] == segment[:, None, :]).sum(axis=2)
    old = rng.normal(-2, 1, shape)
    per_completion = rng.normal(size=(rows, 3))
    return {
        "logprob": old + rng.normal(0, spread, shape),
        "entropy": rng.uniform(0, 2, shape),
        "advantage": np.take_along_axis(per_completion, segment, axis=1),
        "mask": mask,
        "segment": segment,
        "length": np.where(mask, length, 0).astype(np.float64),
        "old_logprob": old,
        "ref_logprob": old + rng.normal(0, 0.5, shape),
        "sampler_logprob": old + rng.normal(0, 0.5, shape),
        "selected": rng.random(shape) < 0.4,
    }


def as_tokens(arrays: dict, dtype=jnp.float32) -> LossTokens:
    """The arrays on the devices, numbers as `dtype`."""

    def one(x):
        return jnp.asarray(x, dtype if np.asarray(x).dtype == np.float64 else None)

    return LossTokens(**{name: None if x is None else one(x) for name, x in arrays.items()})
