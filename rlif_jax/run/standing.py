"""How far runs are, and how long their steps take, from what is in their folders."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from rlif_jax.config import Config
from rlif_jax.run.guard import stopped_at
from rlif_jax.run.log import last_step, recorded_lines
from rlif_jax.storage.folder import bucket_errors, is_folder


@dataclass(frozen=True)
class Standing:
    """A run has recorded `done` of `steps` steps; it is `finished` once nothing is left to do."""

    done: int
    steps: int
    finished: bool

    @property
    def steps_left(self) -> int:
        """Of a finished run none; of one that has recorded all, but not saved, its last."""
        return 0 if self.finished else max(self.steps - self.done, 1)

    def __str__(self) -> str:
        if self.finished:
            return "finished"
        return f"at step {self.done}" if self.done else "not begun"


def standing(cfg: Config) -> Standing:
    """How far the run of a configuration is.

    It is finished with its last step, or that with which the guard has ended it, in metrics.jsonl
    and in checkpoints/. A folder without checkpoints/, as it is passed on, need not have one.
    """
    with bucket_errors(cfg.folder):
        done = max(last_step(cfg.folder), 0)
        checkpoints = cfg.folder / "checkpoints"
        last = min(cfg.steps, stopped_at(cfg, done) or cfg.steps)
        saved = not is_folder(checkpoints) or is_folder(checkpoints / str(last))
    return Standing(done, cfg.steps, done >= last and saved)


def seconds_of_steps(configs: Sequence[Config]) -> float | None:
    """The mean of `time/step` over all steps of these runs, evaluations included; None of none.

    The first step of each is left out, for it compiles.
    """
    seconds = []
    for cfg in configs:
        with bucket_errors(cfg.folder):
            lines = recorded_lines(cfg.folder / "metrics.jsonl")
        records = [json.loads(line) for step, line in lines if step > 1]
        seconds += [record["time/step"] for record in records if "time/step" in record]
    return fmean(seconds) if seconds else None
