"""The surrogates as their papers write them: float64, a completion and a token at a time."""

import numpy as np

from rlif_jax.config import Loss


def plain_surrogate(
    logprob: np.ndarray, frozen: np.ndarray, tokens: dict[str, np.ndarray], loss: Loss
) -> float:
    """The aggregated surrogate of whole rows, which are all of the mini-batch.

    `frozen` are the log-probabilities where the formula stops the gradient: a derivative is that of
    `logprob` alone. The ratio of a GSPO completion is differentiated whole. Token means only for
    loss.aggregation "token_mean".
    """
    completions = [
        np.flatnonzero(mask & (segment == number))
        for mask, segment in zip(tokens["mask"], tokens["segment"], strict=True)
        for number in range(1, segment.max() + 1)
    ]
    rows = np.repeat(np.arange(len(logprob)), tokens["segment"].max(axis=1))
    values = [
        [_token(logprob[row], frozen[row], row, t, columns, tokens, loss) for t in columns]
        for row, columns in zip(rows, completions, strict=True)
    ]
    if loss.aggregation == "sequence_mean":
        return float(np.mean([np.mean(one) for one in values]))
    return float(np.concatenate(values).mean())


def _token(logprob_T, frozen_T, row, t, columns, tokens, loss: Loss) -> float:
    old_T, A = tokens["old_logprob"][row], tokens["advantage"][row, t]
    log_ratio_T = logprob_T - old_T
    ratio = _exp(log_ratio_T[columns].mean() if loss.variant == "gspo" else log_ratio_T[t])
    selected = tokens["selected"][row, t]
    if loss.variant == "kl_cov":
        return -A * ratio + (loss.kl_cov_coef * abs(log_ratio_T[t]) if selected else 0.0)
    if loss.variant == "cispo":
        weight = np.clip(_exp(frozen_T[t] - old_T[t]), 1 - loss.clip_low, 1 + loss.clip_high)
        return -A * weight * logprob_T[t]
    if loss.variant == "clip_cov" and selected:
        return 0.0
    value = -min(A * ratio, A * np.clip(ratio, 1 - loss.clip_low, 1 + loss.clip_high))
    return min(value, -A * loss.dual_clip) if loss.dual_clip is not None and A < 0 else value


def _exp(log_ratio: float) -> float:
    return float(np.exp(np.clip(log_ratio, -20, 20)))


def slopes(tokens: dict[str, np.ndarray], loss: Loss, step: float = 1e-6) -> np.ndarray:
    """Central differences of the surrogate in each log-probability."""
    at = tokens["logprob"]
    slope = np.zeros_like(at)
    for where in np.ndindex(at.shape):
        moved = [at.copy(), at.copy()]
        for sign, one in zip((1, -1), moved, strict=True):
            one[where] += sign * step
        up, down = (plain_surrogate(one, at, tokens, loss) for one in moved)
        slope[where] = (up - down) / (2 * step)
    return slope
