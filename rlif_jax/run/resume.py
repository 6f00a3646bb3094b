"""Where a run resumes: after its newest checkpoint, whose step may lack only its evaluation.

A run that is stopped in the evaluation of a step has done the step and not recorded its metrics.
The checkpoint keeps these beside the place in the data until the evaluation is repeated.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlif_jax.config import Config
from rlif_jax.distributed import by_first
from rlif_jax.errors import Complete, UserError
from rlif_jax.run.checkpoint import Checkpoints
from rlif_jax.run.guard import stopped_at
from rlif_jax.run.log import last_step
from rlif_jax.storage.folder import in_bucket, is_folder

UNRECORDED = "unrecorded"
"""Where a checkpoint keeps the metrics of a step that was stopped in its evaluation."""


@dataclass(frozen=True)
class ResumePoint:
    """`step` of the newest checkpoint, 0 for a new run, and whether metrics.jsonl has it."""

    step: int
    recorded: bool

    def split(self, kept: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
        """What a checkpoint kept: the place in the data, and the metrics that are still to record.

        An evaluation that was repeated before leaves the checkpoint as it is.
        """
        position = dict(kept)
        unrecorded = position.pop(UNRECORDED, {})
        return position, {} if self.recorded else unrecorded


def joined(position: Mapping[str, Any], unrecorded: Mapping[str, float]) -> dict[str, Any]:
    """The place in the data with the metrics of its step, as `ResumePoint.split` takes them."""
    return {**position, UNRECORDED: dict(unrecorded)}


def resume_point(cfg: Config, checkpoints: Checkpoints) -> ResumePoint:
    """Where the run of a configuration's folder resumes, the same on every process.

    Raises:
        UserError: the run may not be resumed, or has lost its checkpoints.
        Complete: it has all of its steps, or its guard has ended it.
    """
    saved = checkpoints.latest() or 0  # all processes open the folder together
    return by_first(lambda: _decided(cfg, saved))


def _decided(cfg: Config, saved: int) -> ResumePoint:
    if saved and not cfg.resume:
        raise UserError(
            f"{cfg.folder} already holds a run saved at step {saved}, which --no-resume would "
            "overwrite. Choose another folder with --run-dir, or remove this one."
        )
    if not saved and (steps := _passed_on(cfg)):
        raise UserError(
            f"{cfg.folder} holds the records of {steps} steps without checkpoints/, as a run is "
            "passed on: a run in it would begin again and overwrite them. Choose another folder "
            "with --run-dir, or remove this one."
        )
    recorded = saved == 0 or last_step(cfg.folder) >= saved
    if saved >= cfg.steps and recorded:
        raise Complete(
            f"{cfg.folder} holds a run that is complete at step {saved}, and steps={cfg.steps}. "
            "Raise --steps to train further, or choose another folder with --run-dir."
        )
    if recorded and (step := stopped_at(cfg, saved)):
        raise Complete(
            f"{cfg.folder} holds a run that guard.action=stop has ended at step {step}, where its "
            "policy had collapsed. Start another from a checkpoint of it, with --init-from "
            f"{cfg.folder}@STEP and its own --run-dir."
        )
    return ResumePoint(saved, recorded)


def _passed_on(cfg: Config) -> int:
    """The steps recorded in a folder that is here without checkpoints/; 0: it is none.

    A run makes that folder when it begins; but in a bucket, where one is known by its last step.
    """
    steps = 0 if is_folder(cfg.folder / "checkpoints") else max(last_step(cfg.folder), 0)
    return 0 if in_bucket(cfg.folder) and steps < cfg.steps else steps
