"""Run folders that a report reads, written by hand: metrics by step, completions, configuration."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlif_jax.config import Config
from rlif_jax.reporting.recorded_runs import Method, methods_of, read_runs
from rlif_jax.run.provenance import resolved

ACCURACY = "eval/starter/avg@4"


def write_run(
    folder: Path,
    metrics: Sequence[Mapping[str, float]],
    rollouts: Mapping[int, Sequence[Mapping[str, Any]]] | None = None,
    **fields: Any,
) -> Path:
    """A run whose lines of metrics.jsonl are these; `fields` of the configuration, `__` for dots.

    The last line is followed by half of another one, as in a run that was killed.
    """
    folder.mkdir(parents=True)
    lines = [json.dumps(record) for record in metrics]
    (folder / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 99, "rew']))
    config = dataclasses.replace(Config(), name=folder.name, steps=int(metrics[-1]["step"]))
    values = resolved(config)
    for name, value in fields.items():
        section = values
        *outer, last = name.split("__")
        for part in outer:
            section = section[part]
        section[last] = value
    (folder / "config.json").write_text(
        json.dumps({"config": values, "platform": "cpu", "devices": ["cpu:0"]})
    )
    for step, rows in (rollouts or {}).items():
        path = folder / "rollouts" / f"step_{step:06d}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def completion(text: str, passed: bool = False, **more: Any) -> dict[str, Any]:
    """A row of rollouts/."""
    verdict = "passed" if passed else "wrong_answer"
    return {
        "id": "p1",
        "passed": passed,
        "verdict": verdict,
        "tests": [verdict],
        "tests_total": 2,
        "detail": "",
        "sample": 0,
        "prompt": "Add two numbers.",
        "completion": text,
        "code": None,
        "reward": 0.0,
        "terms": {},
        "advantage": 0.0,
        "length": 3,
        "truncated": False,
    } | more


def arc(
    peak: float, end: float, steps: int = 20, collapses: bool = False
) -> list[dict[str, float]]:
    """Metrics of a run: accuracy 0.1 at first, `peak` in the middle, `end`, every fifth step.

    One that collapses has short and certain responses from the middle on.
    """
    records = [{"step": 0, ACCURACY: 0.1, f"{ACCURACY}_low": 0.05, f"{ACCURACY}_high": 0.2}]
    for step in range(1, steps + 1):
        late = step > steps / 2
        small = 0.1 if collapses and late else 1.0
        record = {
            "step": step,
            "reward/mean": step / steps,
            "exec/pass_rate": end if late else peak,
            "rollout/response_length": 50.0 * small,
            "stats/token_entropy": 0.8 * small,
            "time/sample": 2.0,
            "time/update": 1.0,
            "time/step": 4.0,
        }
        if step % 5 == 0:
            value = end if late else peak
            record |= {ACCURACY: value, f"{ACCURACY}_low": value / 2, f"{ACCURACY}_high": 2 * value}
        records.append(record)
    return records


def methods_in(folder: Path) -> list[Method]:
    """Three seeds that collapse, one control, and a run that was never evaluated."""
    runs = [
        write_run(
            folder / f"certain-s{seed}",
            arc(0.3, 0.02 + seed / 1000, collapses=True),
            seed=seed,
            reward__terms=[["self_certainty", 1.0]],
        )
        for seed in range(3)
    ]
    runs.append(write_run(folder / "random", arc(0.1, 0.12), reward__terms=[["random", 1.0]]))
    metrics = [{"step": n, "exec/pass_rate": n / 10} for n in range(1, 5)]
    runs.append(write_run(folder / "bare", metrics, steps=9))
    return methods_of(read_runs(runs))
