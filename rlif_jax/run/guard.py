"""What a run does when its policy collapses: `guard.action`, decided on every process alike."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from rlif_jax.batch import TrainState
from rlif_jax.config import Config
from rlif_jax.console.notice import Notice
from rlif_jax.distributed import by_first
from rlif_jax.model.lora import trained, with_trained
from rlif_jax.rewards import reward_after_collapse
from rlif_jax.run.checkpoint import Checkpoints
from rlif_jax.run.log import recorded_lines
from rlif_jax.run.monitor import SAID, STREAMS, Monitor, Reading, first_collapse


class Guard:
    """Watches the steps of a run for a collapse, and acts on the first.

    `recorded` are the steps before, from which it comes to be as an uninterrupted run has it.
    `checkpoints` keep the newest one from before the signs, for as long as there are any.
    """

    def __init__(
        self,
        cfg: Config,
        checkpoints: Checkpoints,
        recorded: Iterable[tuple[int, Mapping[str, float]]],
        note: Notice,
    ):
        self._cfg, self._checkpoints, self._note = cfg, checkpoints, note
        self._monitor = Monitor(cfg.guard.first_steps, cfg.guard.patience)
        for step, metrics in recorded:
            self._look(step, metrics)

    @property
    def stopped(self) -> bool:
        """Whether the run is to end here."""
        return self._cfg.guard.action == "stop" and self._monitor.collapse is not None

    def config(self) -> Config:
        """That of the next step, whose reward is another one after a collapse that changes it."""
        if self._monitor.collapse is None:
            return self._cfg
        return dataclasses.replace(self._cfg, reward=reward_after_collapse(self._cfg))

    def watch(
        self, step: int, metrics: Mapping[str, float], state: TrainState
    ) -> tuple[TrainState, dict[str, float]]:
        """The state to go on from after a step, which is used up, and the `collapse/` metrics."""
        before = self._monitor.collapse
        seen = by_first(lambda: {name: metrics[name] for name in STREAMS if name in metrics})
        measured = self._look(step, seen).metrics()
        collapse = self._monitor.collapse
        if collapse is not None and before is None:
            assert collapse.since is not None
            healthy = self._checkpoints.newest_before(collapse.since)
            if self._cfg.guard.action != "record":
                self._note(told(self._cfg, collapse, step, healthy))
            if self._cfg.guard.action == "rollback" and healthy:
                state = _returned(self._checkpoints, state, healthy)
                measured["collapse/returned_to"] = float(healthy)
        return state, measured

    def _look(self, step: int, metrics: Mapping[str, float]) -> Reading:
        reading = self._monitor.seen(step, metrics)
        self._checkpoints.keep_before(reading.since)
        return reading


def recorded_metrics(cfg: Config, last: int) -> list[tuple[int, dict[str, float]]]:
    """The metrics of the training steps up to `last` that the run folder has."""
    lines = recorded_lines(cfg.folder / "metrics.jsonl")
    return [(step, json.loads(line)) for step, line in lines if 1 <= step <= last]


def stopped_at(cfg: Config, last: int) -> int | None:
    """The step up to `last` with which the guard has ended the run of a folder, None: none."""
    if cfg.guard.action != "stop":
        return None
    steps = recorded_metrics(cfg, last)
    found = first_collapse(steps, cfg.guard.first_steps, cfg.guard.patience)
    return None if found is None else found[0]


def told(cfg: Config, collapse: Reading, step: int, healthy: int) -> str:
    """What has happened and what is done, or can be."""
    said = (
        f"step {step}: signs since step {collapse.since} that the policy collapses: "
        f"{SAID[collapse.sign]}. "
    )
    kept = f"checkpoint {healthy} is the last from before" if healthy else ""
    name = f"{cfg.folder}@{healthy}"
    match cfg.guard.action:
        case "rollback" if healthy:
            return f"{said}Going on from checkpoint {healthy}, with {terms_of(cfg)}"
        case "switch" | "rollback":
            return f"{said}Going on with {terms_of(cfg)}; {kept or 'no checkpoint is older'}"
        case "stop":
            return f"{said}The run ends here; {kept or 'no checkpoint is older'}"
    use = f"{kept}: --init-from {name} starts from it" if healthy else "no checkpoint is older"
    return f"{said}{use}. --guard.action stop would end the run"


def terms_of(cfg: Config) -> str:
    """The terms that are rewarded after a collapse."""
    return " + ".join(f"{weight:g} {name}" for name, weight in cfg.guard.terms)


def _returned(checkpoints: Checkpoints, state: TrainState, step: int) -> TrainState:
    """The state of a checkpoint, but for the number of steps; the arrays of `state` are freed."""

    def shape(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)

    moving = jax.tree.map(shape, trained(state.params))
    shapes = dataclasses.replace(
        jax.tree.map(shape, state), params=with_trained(state.params, moving)
    )
    done = state.step + 0
    jax.tree.map(lambda x: x.delete(), (trained(state.params), state.opt_state))
    restored, _, _ = checkpoints.restore(shapes, step)
    return dataclasses.replace(restored, step=done)
