"""Which parameters drew a rollout, and the two alarms for others than the trainer's.

The sampler holds its own copy of the parameters, which each step renews. A copy that is not renewed
trains all the same, on completions of an old policy. The first alarm compares bits before anything
is drawn: those of the copy, and those that the trainer's parameters have in the copy's types. The
second compares what both say of the completions, after the step: it also finds another temperature
or another arithmetic.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from rlif_jax.errors import UserError
from rlif_jax.run.digest import by_path, digest_of, digests


@dataclass(frozen=True)
class Policy:
    """The parameters after step `step`, and the digest of the copy that the sampler drew with."""

    step: int
    digest: str

    def record(self) -> dict[str, Any]:
        """As the records of a run have it."""
        return asdict(self)


def digest_of_copy(copy: Any, params: Any, rounded: Collection[str] = ()) -> str:
    """The digest of the sampler's copy of the trainer's parameters.

    Neither is laid out anew: a digest does not depend on the sharding. An array that is one and the
    same in both is read once. A weight of the layers that adapters were merged into, or that is
    among the `rounded` ones, has no counterpart in the trainer, so that `check_drift` alone tells
    whether it is an old one. Under several processes every one of them calls this.

    Raises:
        UserError: the copy is not that of these parameters.
    """
    held, own = by_path(copy), by_path(params)
    apart = {f"layers.{name}" for name in rounded}
    compared = {
        name: own[name]
        for name, x in held.items()
        if name in own and x is not own[name] and f"{name}_lora_a" not in own and name not in apart
    }
    found = digests(copy)
    wanted = digests(compared, types={name: held[name].dtype for name in compared})
    if stale := [name for name, digest in wanted.items() if found[name] != digest]:
        raise UserError(
            f"the sampler draws with parameters that are not the trainer's: {len(stale)} of "
            f"{len(held)} arrays differ, {stale[0]} first. Nothing was drawn with them, and what "
            "was recorded before is kept. The copy that the sampler holds was not renewed, or a "
            "device has altered it: run the same command again to resume, and report it if it "
            "happens again."
        )
    return digest_of(found)


def check_drift(step: int, nats: float, bound: float) -> None:
    """Stop a run whose sampler and trainer disagree on the completions of a step.

    `nats` is the mean over tokens of |sampler - trainer|, the difference of their log-probabilities
    (`drift/sampler_logprob`), and `bound` is `failures.max_drift`.

    Raises:
        UserError: it exceeds the bound, or is not a number.
    """
    if nats <= bound:
        return
    raise UserError(
        f"in step {step} the log-probabilities of the sampler are {nats:.3g} nats a token from "
        f"those of the trainer, and failures.max_drift is {bound:g}: the completions were drawn "
        "by another policy than the one that is trained. The step is recorded, and no checkpoint "
        "of it is saved. Train with --model.dtype float32 and without --sampling.cache-dtype to "
        "see whether rounding is the cause. If it is, raise --failures.max-drift; if not, "
        "report it."
    )
