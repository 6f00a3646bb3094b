"""Settings of the loss that nothing would read, or that contradict each other, are refused."""

from dataclasses import replace

import pytest
from support.packed_tokens import VARIANTS

from rlif_jax.config import Config, Loss, Optim, Reward
from rlif_jax.config.validate import validate
from rlif_jax.errors import UserError
from rlif_jax.rewards import known_rewards


def problems(loss, reward=None, optim=None):
    config = Config(loss=loss, reward=reward or Reward(), optim=optim or Optim())
    try:
        validate(config, known_rewards())
    except UserError as error:
        return str(error).splitlines()[1:]
    return []


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_can_be_asked_for(variant):
    assert problems(replace(VARIANTS[variant], epochs=2)) == []


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "grpo"])
def test_the_dual_clip_is_that_of_grpo_alone(variant):
    assert problems(Loss(variant=variant, epochs=2)) == [
        f"  - loss.dual_clip=3.0 is read by loss.variant=grpo alone, not by {variant}; use "
        "loss.dual_clip=None"
    ]


@pytest.mark.parametrize(
    ("loss", "problem"),
    [
        (Loss(dual_clip=1.2), "loss.dual_clip=1.2 must exceed 1 + loss.clip_high=1.2, or be None"),
        (
            Loss(clip_cov_range=(2.0, 4.0)),
            "loss.clip_cov_range=(2.0, 4.0) is not read by loss.variant=grpo; leave it at "
            "(1.0, 5.0), or use loss.variant=clip_cov",
        ),
        (
            replace(VARIANTS["gspo"], cov_fraction=0.1),
            "loss.cov_fraction=0.1 is not read by loss.variant=gspo; leave it at 0.0002, or use "
            "loss.variant=clip_cov or kl_cov",
        ),
        (replace(VARIANTS["clip_cov"], kl_cov_coef=2.0), "loss.kl_cov_coef=2.0 is not read by"),
        (
            Loss(variant="kl_cov", dual_clip=None, epochs=2, clip_high=0.28),
            "loss.clip_high=0.28 is not read by loss.variant=kl_cov; leave it at 0.2, or use "
            "loss.variant=grpo or gspo or cispo or clip_cov",
        ),
        (
            Loss(variant="kl_cov", dual_clip=None, epochs=2, clip_low=0.1),
            "loss.clip_low=0.1 is not read by loss.variant=kl_cov",
        ),
        (
            Loss(variant="kl_cov", dual_clip=None),
            "is 0 in the only update of a step; use more than one of loss.mini_batches or",
        ),
        (
            Loss(variant="clip_cov", dual_clip=None, clip_cov_range=(5.0, 1.0)),
            "loss.clip_cov_range=(5.0, 1.0) is empty; give two numbers, the lower one first",
        ),
        (Loss(variant="ppo"), "loss.variant='ppo' is invalid; choose one of grpo, gspo, cispo"),
        (Loss(cov_fraction=0.0), "loss.cov_fraction=0.0 must be in (0, 1]"),
        (Loss(sampler_correction_cap=0.5), "loss.sampler_correction_cap=0.5 must be at least 1"),
        (Loss(entropy_target=0.0), "loss.entropy_target=0.0 must be positive"),
        (
            Loss(entropy_step=0.01),
            "loss.entropy_step=0.01 is read only with loss.entropy_target; set a target, or leave "
            "it at 0.005",
        ),
        (
            Loss(entropy_coef=-0.1, entropy_target=0.3),
            "loss.entropy_coef=-0.1 with loss.entropy_target=0.3 would start with a penalty",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(loss, problem):
    assert any(problem in line for line in problems(loss)), problems(loss)


def test_a_steered_entropy_may_start_without_bonus():
    assert problems(Loss(entropy_target=0.2, entropy_step=0.01)) == []
    assert problems(Loss(entropy_coef=-0.1)) == []


AVERAGED = Loss(kl_anchor="average", kl_coef=0.1)


def test_an_average_can_be_the_anchor():
    assert problems(AVERAGED, optim=Optim(average_decay=0.99)) == []
    assert problems(Loss(), optim=Optim(average_decay=0.99)) == []  # kept for a run that follows


@pytest.mark.parametrize(
    ("loss", "decay", "problem"),
    [
        (AVERAGED, None, "and optim.average_decay=None keeps none; set optim.average_decay"),
        (replace(AVERAGED, kl_coef=0.0), 0.9, "is read only with a KL term, and loss.kl_coef=0.0"),
        (
            replace(AVERAGED, reference_on_host=True),
            0.9,
            "loss.reference_on_host=True moves the starting model, which loss.kl_anchor='average' "
            "does not keep; leave loss.reference_on_host at False",
        ),
    ],
)
def test_an_anchor_that_is_not_there_or_that_nothing_reads(loss, decay, problem):
    (found,) = problems(loss, optim=Optim(average_decay=decay))
    assert "loss.kl_anchor='average'" in found and problem in found
