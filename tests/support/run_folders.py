"""Run folders with logged steps."""

from pathlib import Path

from rlif_jax.config import Config
from rlif_jax.run.log import RunLog


def write_steps(folder: Path, *steps: int, **options) -> None:
    with RunLog(folder, Config(), **options) as log:
        for step in steps:
            log.metrics(step, {"reward/mean": step / 10})
            log.rollouts(step, [{"problem": "p", "reward": 1.0}])
