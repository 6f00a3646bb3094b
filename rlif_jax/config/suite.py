"""A suite: many runs that belong together, described once.

A suite file is Python and leaves a `suite`. Its runs are every method with every seed, the base
with one field varied (a sweep), and runs that start from another's checkpoint (a stage). Fields are
named as on the command line, `{"reward.terms": ..., "optim.learning_rate": 1e-5}`.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlif_jax.config.load import left_by
from rlif_jax.config.schema import Config
from rlif_jax.errors import UserError

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Sweep:
    """One field at several values, for some of the methods."""

    field: str
    values: tuple[Any, ...]
    methods: tuple[str, ...]


@dataclass(frozen=True)
class Stage:
    """Runs of `method` that start from checkpoints of the runs of another one, which keeps them.

    `at` are the steps of these checkpoints; `optimizer` is fresh or kept, as `init_optimizer`;
    `fields` are set on top, such as the evaluation problems for training at test time.
    """

    method: str
    after: str
    at: tuple[int, ...]
    optimizer: str = "fresh"
    fields: Fields = field(default_factory=dict)


@dataclass(frozen=True)
class PlannedRun:
    """One run of a suite. `after` is the run whose checkpoint it starts from; empty: none."""

    name: str
    method: str
    config: Config
    after: str = ""


@dataclass(frozen=True)
class Suite:
    """What to run. `seeds` says how many each method has, "" for those it does not name.

    `step_s` are the seconds of a step on the machine that it is written for, which plan its hours
    until a run of it has been measured; 0: unknown.
    """

    name: str
    base: Config
    methods: Mapping[str, Fields]
    seeds: Mapping[str, int] = field(default_factory=lambda: {"": 1})
    sweeps: tuple[Sweep, ...] = ()
    stages: tuple[Stage, ...] = ()
    step_s: float = 0.0

    def runs(self, folder: str) -> list[PlannedRun]:
        """All runs, with a folder `FOLDER/NAME` each, in the order in which they are to run.

        Those that start from another's checkpoint follow it: on another machine it would be gone.

        Raises:
            UserError: a field or a method that is not there, a checkpoint that is not kept, or two
                runs of one name.
        """
        staged = list(self._stages(folder))
        planned = []
        for run in (*self._methods(folder), *self._sweeps(folder)):
            planned += [run, *(one for one in staged if one.after == run.name)]
        names = [run.name for run in planned]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UserError(f"suite {self.name!r} has several runs called {', '.join(twice)}")
        return planned

    def seeds_of(self, method: str) -> int:
        return self.seeds.get(method, self.seeds.get("", 1))

    def _methods(self, folder: str) -> Iterator[PlannedRun]:
        # Seed after seed, so that an interrupted study has one of everything first.
        most = max((self.seeds_of(method) for method in self.methods), default=0)
        for seed in range(most):
            for method in self.methods:
                if seed < self.seeds_of(method):
                    yield self._run(folder, f"{method}-s{seed}", method, seed)

    def _sweeps(self, folder: str) -> Iterator[PlannedRun]:
        for sweep in self.sweeps:
            for value in sweep.values:
                for method in sweep.methods:
                    name = f"{method}-{sweep.field.rpartition('.')[2]}={value}-s0"
                    yield self._run(folder, name, method, 0, {sweep.field: value})

    def _stages(self, folder: str) -> Iterator[PlannedRun]:
        for stage in self.stages:
            if stage.after not in self.methods:
                raise self._unknown(stage.after)
            for seed in range(min(self.seeds_of(stage.method), self.seeds_of(stage.after))):
                before = f"{stage.after}-s{seed}"
                start_from = self._run(folder, before, stage.after, seed).config
                for step in stage.at:
                    if not _keeps(start_from, step):
                        raise UserError(
                            f"suite {self.name!r} starts {stage.method!r} from step {step} of "
                            f"{stage.after!r}, which does not keep that checkpoint; give it a "
                            f"checkpoint.every and a checkpoint.keep_every that divide {step}"
                        )
                    start = {
                        "init_from": f"{folder}/{before}@{step}",
                        "init_optimizer": stage.optimizer,
                        **stage.fields,
                    }
                    name = f"{stage.method}-from-{stage.after}@{step}-s{seed}"
                    yield self._run(folder, name, stage.method, seed, start, before)

    def _run(
        self,
        folder: str,
        name: str,
        method: str,
        seed: int,
        more: Fields | None = None,
        after: str = "",
    ) -> PlannedRun:
        if method not in self.methods:
            raise self._unknown(method)
        own = {"name": name, "seed": seed, "run_dir": f"{folder}/{name}"}
        config = with_fields(self.base, {**self.methods[method], **(more or {}), **own})
        return PlannedRun(name, method, config, after)

    def _unknown(self, method: str) -> UserError:
        return UserError(
            f"suite {self.name!r} names the method {method!r}; it has {', '.join(self.methods)}"
        )


def _keeps(cfg: Config, step: int) -> bool:
    """Whether a run keeps the checkpoint of a step, however often it was interrupted."""
    every, keep_every = cfg.checkpoint.every, cfg.checkpoint.keep_every
    by_rule = every and keep_every and step % every == 0 and step % keep_every == 0
    return step == cfg.steps or bool(0 < step < cfg.steps and by_rule)


def with_fields(config: Any, fields: Fields) -> Any:
    """A configuration with these fields, by their dotted names.

    Raises:
        UserError: there is no such field.
    """
    for name, value in fields.items():
        first, _, rest = name.partition(".")
        known = [one.name for one in dataclasses.fields(config)]
        if first not in known:
            raise UserError(f"there is no field {name!r}; {type(config).__name__} has {known}")
        inner = with_fields(getattr(config, first), {rest: value}) if rest else value
        config = dataclasses.replace(config, **{first: inner})
    return config


def read_suite_file(path: str | Path) -> Suite:
    """The `suite` that a Python suite file leaves behind.

    Raises:
        UserError: there is no such file, it fails, or it leaves no Suite.
    """
    suite = left_by(path, "suite", "--suite", "configs/study/laptop.py")
    if not isinstance(suite, Suite):
        raise UserError(
            f"--suite={path} leaves no `suite` of type rlif_jax.config.Suite. End it with "
            "`suite = Suite(...)`; configs/study/ has examples."
        )
    return suite
