"""From the rewards of a group to the advantages of its samples, by name."""

import jax.numpy as jnp

from rlif_jax.batch import Array
from rlif_jax.errors import UserError
from rlif_jax.groups import group_normalised, group_statistics


def group_advantages(reward_B: Array, group_size: int, kind: str, std_floor: float) -> Array:
    """Advantages of rows n * G + g within their group of G samples, float32 [B].

    "grpo": (r - mean) / (unbiased std + 1e-6) (arXiv 2402.03300); "dr_grpo": r - mean
    (arXiv 2503.20783); "none": r. The first two are exactly 0 in a group whose std is not above
    `std_floor` times its largest |reward|, so that rounding noise is never amplified (see
    `group_statistics`).

    Raises:
        UserError: rows are not whole groups, or "grpo"/"dr_grpo" is asked for groups of one.
    """
    reward_B = jnp.asarray(reward_B, jnp.float32)
    if kind == "none":
        return reward_B
    if group_size < 2:
        raise UserError(
            f"loss.advantage={kind!r} compares the samples of a prompt, and there is "
            f"{group_size} of each: set sampling.samples_per_prompt to 2 or more, or "
            "loss.advantage to 'none'."
        )
    if kind == "grpo":
        return group_normalised(reward_B, group_size, std_floor)
    return group_statistics(reward_B, group_size, std_floor).centred.reshape(-1)
