"""What must hold between the fields of the loss, and between the loss and the reward."""

from collections.abc import Iterator

from rlif_jax.config.learning import Loss
from rlif_jax.config.schema import Config

READ_BY: dict[str, tuple[str, ...]] = {
    "clip_low": ("grpo", "gspo", "cispo", "clip_cov"),
    "clip_high": ("grpo", "gspo", "cispo", "clip_cov"),
    "cov_fraction": ("clip_cov", "kl_cov"),
    "clip_cov_range": ("clip_cov",),
    "kl_cov_coef": ("kl_cov",),
}
"""The variants that read a field, for fields that not all of them read."""


def loss_problems(c: Config) -> Iterator[str]:
    """Settings of the loss that contradict each other, or that nothing would read."""
    yield from _variant(c.loss)
    yield from _entropy(c.loss)
    yield from _anchor(c)


def _variant(loss: Loss) -> Iterator[str]:
    """Whether the variant reads what is set, and can use it."""
    dual_clip, least = loss.dual_clip, 1 + loss.clip_high
    if dual_clip is not None and loss.variant != "grpo":
        yield (
            f"loss.dual_clip={dual_clip} is read by loss.variant=grpo alone, not by "
            f"{loss.variant}; use loss.dual_clip=None"
        )
    elif dual_clip is not None and dual_clip <= least:
        yield f"loss.dual_clip={dual_clip} must exceed 1 + loss.clip_high={least}, or be None"
    for name, readers in READ_BY.items():
        value, default = getattr(loss, name), getattr(Loss, name)
        if loss.variant not in readers and value != default:
            yield (
                f"loss.{name}={value} is not read by loss.variant={loss.variant}; leave it at "
                f"{default}, or use loss.variant={' or '.join(readers)}"
            )
    if loss.variant == "kl_cov" and loss.epochs * loss.mini_batches == 1:
        yield (
            "loss.variant=kl_cov penalises the distance from the policy before the step, which is "
            "0 in the only update of a step; use more than one of loss.mini_batches or loss.epochs"
        )
    low, high = loss.clip_cov_range
    if low >= high:
        yield (
            f"loss.clip_cov_range={loss.clip_cov_range} is empty; give two numbers, the lower one "
            "first"
        )


def _entropy(loss: Loss) -> Iterator[str]:
    """Whether the coefficient of the entropy bonus can be steered as asked."""
    if loss.entropy_target is None and loss.entropy_step != Loss.entropy_step:
        yield (
            f"loss.entropy_step={loss.entropy_step} is read only with loss.entropy_target; set a "
            f"target, or leave it at {Loss.entropy_step}"
        )
    if loss.entropy_target is not None and loss.entropy_coef < 0:
        yield (
            f"loss.entropy_coef={loss.entropy_coef} with loss.entropy_target={loss.entropy_target} "
            "would start with a penalty on entropy; use 0 or more"
        )


def _anchor(c: Config) -> Iterator[str]:
    """Whether the KL term has the anchor that is asked for, and reads it."""
    if c.loss.reference_on_host and not c.loss.kl_coef:
        yield (
            "loss.reference_on_host=True moves the anchor of the KL term, and loss.kl_coef=0.0 has "
            "none; set loss.kl_coef above 0, or leave loss.reference_on_host at False"
        )
    if c.loss.kl_anchor != "average":
        return
    if c.optim.average_decay is None:
        yield (
            "loss.kl_anchor='average' needs an average of the parameters, and "
            "optim.average_decay=None keeps none; set optim.average_decay, such as 0.99, or use "
            "loss.kl_anchor=start"
        )
    if not c.loss.kl_coef:
        yield (
            "loss.kl_anchor='average' is read only with a KL term, and loss.kl_coef=0.0; set "
            "loss.kl_coef above 0, or leave loss.kl_anchor at start"
        )
    if c.loss.reference_on_host:
        yield (
            "loss.reference_on_host=True moves the starting model, which "
            "loss.kl_anchor='average' does not keep; leave loss.reference_on_host at False"
        )
