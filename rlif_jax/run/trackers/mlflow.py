"""MLflow, by its client: pip install 'rlif_jax[mlflow]'."""

import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlif_jax.run.provenance import flat
from rlif_jax.run.trackers.tracked import (
    COLUMNS,
    PROJECT,
    TrackedRun,
    plain_key,
    table,
    write_again,
)

_MOST_PARAMS = 100
"""Parameters that one request may hold."""


class MLflow:
    """One run of MLflow for all processes of a run; see `Tracker`.

    It is in the store that MLFLOW_TRACKING_URI names, or in mlflow/mlflow.db of the run folder
    (`mlflow ui --backend-store-uri sqlite:///.../mlflow.db`). MLflow refuses the @ of keys, for
    which _ stands. Its parameters are the configuration of the first start, the artifact
    config.json that of the last.

    MLflow takes no step back. Where the run has other steps than are kept, a run of the same name
    takes its place, with the history as metrics.jsonl and rollouts/ have it; the earlier one is
    deleted, which `mlflow runs restore` undoes. Otherwise the run itself is continued.
    """

    def __init__(self, run: TrackedRun):
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # or a step waits for minutes
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # a new store tells of its tables
        logging.getLogger("alembic").setLevel(logging.WARNING)
        local = run.files("mlflow")
        store = os.environ.get("MLFLOW_TRACKING_URI")
        if not store:
            local.mkdir(parents=True, exist_ok=True)
        self._client = MlflowClient(store or f"sqlite:///{local / 'mlflow.db'}")
        artifacts = None if store else (local / "artifacts").as_uri()
        earlier = run.known("mlflow").get("run_id")
        recorded = self._steps(earlier) if earlier else None
        if earlier and recorded == run.steps:
            self._id = earlier
            self._client.update_run(self._id, status="RUNNING")
        else:
            self._id = self._new(run, artifacts)
            write_again(self, run.history(-1))
            run.keep("mlflow", run_id=self._id)
            if earlier and recorded is not None:
                self._client.delete_run(earlier)
        self._client.log_dict(self._id, dict(run.config), "config.json")
        shown = re.sub(r"//[^/]*@", "//", store) if store else local / "mlflow.db"  # no passwords
        self.where = f"run {self._id} of {shown}"

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        named = [Metric(plain_key(key), value, now, step) for key, value in values.items()]
        self._client.log_batch(self._id, metrics=named)

    def completions(self, step: int, records: Sequence[Mapping[str, Any]]) -> None:
        """See `Tracker`: as completions/step_NNNNNN.json, in the format of MLflow's tables."""
        shown = {"columns": list(COLUMNS), "data": table(records)}
        self._client.log_dict(self._id, shown, f"completions/step_{step:06d}.json")

    def artifact(self, path: Path) -> None:
        """See `Tracker`."""
        self._client.log_artifact(self._id, str(path))

    def close(self) -> None:
        """See `Tracker`."""
        self._client.set_terminated(self._id)

    def _new(self, run: TrackedRun, artifacts: str | None) -> str:
        """The id of a new run, with the configuration as its parameters."""
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        found = self._client.get_experiment_by_name(name)
        experiment = (
            found.experiment_id
            if found
            else self._client.create_experiment(name, artifact_location=artifacts)
        )
        made = self._client.create_run(experiment, run_name=run.name).info.run_id
        params = [Param(key, str(value)) for key, value in flat(run.config).items()]
        for at in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(made, params=params[at : at + _MOST_PARAMS])
        return made

    def _steps(self, run_id: str) -> set[int] | None:
        """The steps of a run's metrics; None if the store has no such run, or it is deleted."""
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        if run.info.lifecycle_stage != "active":
            return None
        history = self._client.get_metric_history
        return {point.step for key in run.data.metrics for point in history(run_id, key)}
