"""Saved training states: parameters, optimiser, step, key and the place in the data.

The parameters are an item of their own, by their declared names, so that a checkpoint is a model
source as well. Adapters are another one: the frozen parameters beside them are those of the model
that the run started from, and need not be saved.

Under several processes each of them makes the same calls in the same order.
"""

import contextlib
import dataclasses
import errno
import functools
import itertools
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from rlif_jax.batch import Params, TrainState
from rlif_jax.errors import Outage, UserError
from rlif_jax.model.lora import divided, with_trained
from rlif_jax.run import manifest, retention
from rlif_jax.run.saved_items import REST, handlers, items, rest, restored_as
from rlif_jax.storage.folder import Folder, from_bucket, in_bucket, is_folder, refused
from rlif_jax.weights.orbax_folder import FOLDER, reason_of
from rlif_jax.weights.parameters import filled, named
from rlif_jax.weights.run_folder import saved_steps

OUT, DENIED = ("UNAVAILABLE", "DEADLINE_EXCEEDED"), ("PERMISSION_DENIED", "UNAUTHENTICATED")
PASSING = (*OUT, *DENIED, "RESOURCE_EXHAUSTED")
"""What storage and devices say when a checkpoint cannot be read now and may be whole."""


class DamagedCheckpoint(UserError):
    """A checkpoint cannot be read, or does not hold what was written.

    `step` is its step and `reason` what is wrong with it, in a phrase.
    """

    def __init__(self, step: int, reason: str, folder: Any, remedy: str):
        super().__init__(f"checkpoint {step} in {folder} is damaged: {reason}. {remedy}")
        self.step, self.reason = step, reason


class Checkpoints:
    """The checkpoints folder of a run, local or `gs://...`.

    Kept are the newest one, the `keep` newest of steps that are `scheduled`, those of steps that
    are multiples of `keep_every` (0: none) and the `keep_best` ones with the highest number
    measured. Frozen parameters are saved unless `adapters_only`. A folder that is opened
    `read_only` belongs to another run: it stays as it is.

    A checkpoint appears under its final name only when it is whole, so a run that is killed while
    saving resumes from the one before.
    """

    def __init__(
        self,
        folder: Folder,
        keep: int,
        adapters_only: bool = False,
        keep_every: int = 0,
        keep_best: int = 0,
        read_only: bool = False,
        scheduled: Callable[[int], bool] = lambda step: True,
    ):
        self._folder = epath.Path(folder if in_bucket(folder) else Path(folder).absolute())
        self._healthy = retention.NewestBefore(scheduled)
        newest = retention.Newest(keep, scheduled)
        self._policy = retention.policy(newest, keep_every, keep_best, self._healthy)
        self._adapters_only, self._read_only = adapters_only, read_only
        self._writing = 0

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        # Made when first needed, so that a run refused early leaves no folder behind.
        options = ocp.CheckpointManagerOptions(
            create=not self._read_only,
            read_only=self._read_only,
            save_interval_steps=int(not self._read_only),
            cleanup_tmp_directories=not self._read_only,  # of a run that was killed while saving
            preservation_policy=self._policy,
            best_fn=retention.measured,  # without it the metrics would not be written
        )
        logging.getLogger("absl").addFilter(_not_from_orbax)
        self._check_metrics()
        manager = ocp.CheckpointManager(self._folder, options=options, handler_registry=handlers())
        # Orbax takes what it cannot read in a bucket at the moment for something that is not there.
        if in_bucket(self._folder) and set(saved_steps(self._folder)) - set(manager.all_steps()):
            raise Outage(
                f"the checkpoints in {self._folder} could not all be read. They were left as they "
                "are: run the same command again."
            )
        return manager

    def latest(self) -> int | None:
        """The newest step saved, or None. Raises as `steps` does."""
        return max(self.steps(), default=None)

    def steps(self) -> list[int]:
        """The steps saved, in order.

        Raises:
            DamagedCheckpoint: as `restore` does, where damage shows without reading arrays.
            UserError: as `wait` does.
        """
        self.wait()
        return sorted(self._manager.all_steps()) if is_folder(self._folder) else []

    def save(
        self,
        step: int,
        state: TrainState,
        key: jax.Array,
        data: Mapping[str, Any],
        measured: float | None = None,
    ) -> None:
        """Save step `step`; returns when `state` may be donated, which is before it is on disk.

        One checkpoint at a time is written in the background. `measured` is the number by which
        the best ones are kept, None where the step was not evaluated.

        Raises:
            UserError: the folder cannot be written, for example because the disk is full. It may
                be the checkpoint before that was not written: the message names its step.
        """
        self.wait()
        params, others = items(state.params), rest(state, jax.random.key_data(key))
        kept = manifest.written({FOLDER: named(state.params), **others}, data)
        if self._adapters_only:
            del params[FOLDER]
        parts = {item: named(part) for item, part in params.items()} | {REST: others}
        args = ocp.args.Composite(
            **{item: ocp.args.PyTreeSave(part) for item, part in parts.items()},
            data=ocp.args.JsonSave(kept),
        )
        self._writing = step
        with self._reported():
            self._manager.save(step, args=args, metrics={retention.MEASURED: measured})

    def keep_before(self, step: int | None) -> None:
        """From now on keep the newest scheduled one from before a step as well; None: of none."""
        self._healthy.step = step

    def newest_before(self, step: int) -> int:
        """The newest scheduled step saved before another, 0 for none. Raises as `steps` does."""
        return self._healthy.of(self.steps(), step)

    def wait(self) -> None:
        """Return when all that was saved is on disk.

        Raises:
            UserError: a checkpoint could not be written; once for each.
        """
        if "_manager" in self.__dict__:
            with self._reported():
                self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not (isinstance(error, (OSError, ValueError)) or from_bucket(error)):
                raise
            with contextlib.suppress(OSError, ValueError):
                self._manager.reload()  # it has already forgotten what it was about to remove
            raise _cannot_write(self._folder, self._writing, error) from error

    def restore(
        self, state: TrainState, step: int | None = None
    ) -> tuple[TrainState, jax.Array, dict[str, Any]]:
        """A checkpoint as (state, key, data), laid out like `state`; by default the newest.

        `state` may hold shapes with shardings in place of arrays, of any mesh. Frozen parameters
        are not read: they come back as they are in `state`. What is read has the digests that were
        written with it; a checkpoint of an older version has none.

        Raises:
            DamagedCheckpoint: it cannot be read or has other digests. It was moved out of the way,
                so that `latest` is the one before; unless the folder is `read_only`.
            UserError: it was written by another model or optimiser, or cannot be read now.
        """
        step = self.latest() if step is None else step
        assert step is not None, f"{self._folder} has no checkpoint"
        wanted = rest(state, np.zeros(2, np.uint32))
        params, others, data = self._read(step, state.params, wanted)
        opt_state = jax.tree.unflatten(
            jax.tree.structure(state.opt_state), jax.tree.leaves(others["opt_state"])
        )
        state = dataclasses.replace(
            state,
            step=others["step"],
            params=params,
            opt_state=opt_state,
            entropy_coef=others["entropy_coef"],
        )
        return state, jax.random.wrap_key_data(others["key"]), data

    def restore_params(self, params: Params, step: int) -> Params:
        """The parameters alone of a checkpoint, as `restore` gives them and with its errors."""
        return self._read(step, params, {})[0]

    def close(self) -> None:
        """Wait as `wait` does, and release what saving and restoring have opened."""
        if "_manager" in self.__dict__:
            try:
                self.wait()
            finally:
                self._manager.close()

    # ---- reading

    def _read(
        self, step: int, params: Params, others: dict[str, Any]
    ) -> tuple[Params, dict[str, Any], dict[str, Any]]:
        """(parameters, others, data) like these shapes; empty `others` are not read."""
        self.wait()
        item, moving = next(iter(items(params).items()))
        parts = {item: named(moving)} | ({REST: others} if others else {})
        wanted = {name: restored_as(part) for name, part in parts.items()}
        with self._set_aside_if_damaged(step):
            kept = self._stored(step, data=ocp.args.JsonRestore())["data"]
            data, arrays = manifest.opened(kept)
        if arrays is None:
            read = self._unverified(step, wanted)
        else:
            self._check_fit(step, arrays, params, others)
            with self._set_aside_if_damaged(step):
                read = self._stored(step, **wanted)
                back = {FOLDER: read[item], **(read[REST] if others else {})}
                if names := manifest.altered(arrays, back):
                    raise manifest.Damage(f"{_few(names)} not as saved, by the digests")
        params = with_trained(params, filled(moving, read[item]))
        return params, read[REST] if others else {}, data

    def _stored(self, step: int, **wanted: Any) -> Any:
        """Items of a checkpoint. Raises Damage, or UserError where it may be whole."""
        try:
            try:
                return self._manager.restore(step, args=ocp.args.Composite(**wanted))
            except Exception:
                if not in_bucket(self._folder):
                    raise
                # See `_manager`: what is damaged is so the next time as well.
                return self._manager.restore(step, args=ocp.args.Composite(**wanted))
        except Exception as error:  # see reason_of
            cause, reason = error.__cause__ or error, reason_of(error) or repr(error)
            passing = isinstance(cause, (MemoryError, PermissionError, ImportError))
            if passing or from_bucket(cause) or _says(reason, PASSING):
                out = in_bucket(self._folder) and (from_bucket(cause) or _says(reason, OUT))
                kind = Outage if out and not _says(reason, (*DENIED, "Forbidden")) else UserError
                raise kind(
                    f"checkpoint {step} in {self._folder} cannot be read now: {reason}. It was "
                    "left as it is: remove the cause and run the same command again."
                ) from error
            raise manifest.Damage(reason) from error

    def _unverified(self, step: int, wanted: dict[str, Any]) -> Any:
        """Items of an older version's checkpoint, which does not say what it holds."""
        try:
            return self._stored(step, **wanted)
        except manifest.Damage as damage:
            raise UserError(
                f"checkpoint {step} in {self._folder} does not fit this run or is damaged: "
                f"{damage}. Remove the folder {self._folder / str(step)} to resume from "
                "the checkpoint before it, or choose another folder with --run-dir."
            ) from damage

    def _check_fit(
        self, step: int, arrays: manifest.Arrays, params: Params, others: dict[str, Any]
    ) -> None:
        """Raise UserError unless this model and this optimiser can have written the checkpoint."""
        if not others:
            arrays = {name: x for name, x in arrays.items() if name.startswith(f"{FOLDER}.")}
        problems = manifest.misfits(arrays, {FOLDER: named(params), **others})
        frozen = named(divided(params)[1])
        if not problems and all(isinstance(x, jax.Array) for x in frozen.values()):
            names = manifest.altered(arrays, {FOLDER: frozen})
            problems = [f"{name} is frozen and has other values" for name in names]
        if problems:
            remedy = "go back to the settings of model and optim that did, or choose another "
            remedy += "folder with --run-dir"
            if self._read_only:
                remedy = "give a run of the same model, and to keep its optimiser, of the same"
            raise UserError(
                f"checkpoint {step} in {self._folder} does not fit this run: {_few(problems)}. "
                f"Another model or optimiser wrote it: {remedy}."
            )

    # ---- damage

    @contextlib.contextmanager
    def _set_aside_if_damaged(self, step: int) -> Iterator[None]:
        try:
            yield
        except manifest.Damage as damage:
            if self._read_only:
                remedy = "Choose another checkpoint of the run, as RUN@STEP, or another run."
            else:
                remedy = self._set_aside(step, str(damage))
            raise DamagedCheckpoint(step, str(damage), self._folder, remedy) from damage

    def _set_aside(self, step: int, reason: str) -> str:
        """Move a checkpoint to a name that Orbax ignores; what comes next, in two sentences.

        Another process may have moved it already.
        """
        numbered = (f"damaged-{step}-{i}" for i in itertools.count(2))
        names = itertools.chain([f"damaged-{step}"], numbered)
        target = next(path for name in names if not (path := self._folder / name).exists())
        try:
            (self._folder / str(step)).rename(target)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise UserError(
                f"checkpoint {step} in {self._folder} is damaged: {reason}. It could not be moved "
                f"to {target}: {error}. Make the folder writable, or remove the checkpoint."
            ) from error
        if "_manager" in self.__dict__:
            self._manager.reload()
        left = saved_steps(self._folder)
        begins = f"resumes after step {left[-1]}" if left else "starts at step 0: no other is left"
        return f"It was moved to {target}. The same command {begins}."

    def _check_metrics(self) -> None:
        """Set aside a checkpoint whose metrics are damaged: Orbax opens no folder that has one."""
        for path in sorted(self._folder.glob("*/metrics/metrics")):
            if (step := path.parent.parent.name).isdigit():
                with self._set_aside_if_damaged(int(step)):
                    try:
                        retention.measured(json.loads(path.read_text()))
                    except (ValueError, TypeError, AttributeError) as error:
                        raise manifest.Damage(f"its metrics are unreadable ({error})") from error


def _not_from_orbax(record: logging.LogRecord) -> bool:
    """Whether to log it: what Orbax's threads log at length when a write fails, `wait` raises."""
    return "orbax" not in record.pathname


def _says(reason: str, signs: tuple[str, ...]) -> bool:
    return any(sign in reason for sign in signs)


def _few(problems: list[str]) -> str:
    more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
    return "; ".join(problems[:4]) + more


def _cannot_write(folder: Folder, step: int, error: Exception) -> UserError:
    what = f"checkpoint of step {step} could not be written to {folder}"
    if in_bucket(folder):
        then = "Earlier ones are untouched: the same command resumes from the newest."
        return refused(folder, error, what, then)
    full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
    reason = "the disk is full" if full else f"{type(error).__name__}: {error}"
    return UserError(
        f"{what}: {reason}. Earlier ones are untouched. Free some space (or start with --run-dir "
        "on another disk) and run the same command again: it resumes from the newest checkpoint."
    )
