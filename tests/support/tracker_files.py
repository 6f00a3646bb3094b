"""What trackers have of a run, read by the packages of these trackers.

Each reader gives the metrics as {step: {key: value}}, the configuration, the completions as
{step: rows} and the names of the files that were sent.
"""

import json
import struct
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple


class Tracked(NamedTuple):
    """What one tracker has of a run."""

    name: str
    metrics: dict[int, dict[str, float]]
    config: dict[str, Any]
    completions: dict[int, list[list[Any]]]
    files: list[str]


def read(tracker: str, folder: Path) -> Tracked:
    """What a tracker has of the run in a folder."""
    return {"wandb": _wandb, "mlflow": _mlflow, "trackio": _trackio}[tracker](folder)


def _wandb(folder: Path) -> Tracked:
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 20
    while not any(record.HasField("exit") for record in _wandb_records(path)):
        assert time.monotonic() < deadline, f"{path} has no end"
        time.sleep(0.05)  # wandb's own process writes it
    records = _wandb_records(path)
    config, metrics, completions, files = {}, defaultdict(dict), {}, []
    for record in records:
        for item in record.run.config.update:
            config[item.key] = json.loads(item.value_json)
        if record.HasField("artifact"):
            files += [entry.path for entry in record.artifact.manifest.contents]
        values = {}
        for item in record.history.item:
            values["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
        if values:
            step = values["_step"]
            if shown := values.get("completions/path"):
                completions[step] = json.loads((path.parent / "files" / shown).read_text())["data"]
            plain = {k: v for k, v in values.items() if not k.startswith(("_", "completions/"))}
            assert not metrics[step].keys() & plain.keys(), f"step {step} stands twice"
            metrics[step] |= plain
    (run,) = [record.run for record in records if record.HasField("run")][:1]
    config.pop("_wandb", None)
    files = [name for name in files if "completions" not in name]
    return Tracked(run.display_name, _filled(metrics), config, completions, files)


def _wandb_records(path: Path) -> list[Any]:
    """The messages of an offline file, which `wandb sync` sends.

    wandb's reader is no part of its Python package: this one follows the log format of LevelDB.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    data, records, whole = path.read_bytes(), [], b""
    at = 7  # after the file's own head
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:  # a head does not reach across blocks
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        if at + 7 + size > len(data):  # it is still being written
            break
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # all of a record, or the last part of it
            records.append(Record.FromString(whole))
            whole = b""
    return records


def _mlflow(folder: Path) -> Tracked:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow/mlflow.db'}")
    experiment = client.get_experiment_by_name("rlif_jax")
    (run,) = client.search_runs([experiment.experiment_id])
    metrics = defaultdict(dict)
    for key in run.data.metrics:
        for point in client.get_metric_history(run.info.run_id, key):
            assert key not in metrics[point.step], f"step {point.step} stands twice"
            metrics[point.step][key] = point.value
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    completions = {}
    for file in sorted(artifacts.glob("completions/*.json")):
        shown = json.loads(file.read_text())
        completions[int(file.stem.removeprefix("step_"))] = shown["data"]
    config = json.loads((artifacts / "config.json").read_text())
    assert run.data.params["sampling.temperature"] == str(config["sampling"]["temperature"])
    names = [file.path for file in client.list_artifacts(run.info.run_id)]
    files = [name for name in names if name not in ("completions", "config.json")]
    return Tracked(run.info.run_name, _filled(metrics), config, completions, files)


def _trackio(folder: Path) -> Tracked:
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    name = json.loads((folder / "trackers.json").read_text())["trackio"]["id"]
    (run,) = [run for run in trackio.Api().runs("rlif_jax") if run.name == name]
    metrics, completions = defaultdict(dict), {}
    for row in SQLiteStorage.get_logs("rlif_jax", run.name, run_id=run.id):
        step, _ = row.pop("step"), row.pop("timestamp")
        if "completions" in row:
            shown = row.pop("completions")["_value"]
            completions[step] = [list(cells.values()) for cells in shown]
        assert not metrics[step].keys() & row.keys(), f"step {step} stands twice"
        metrics[step] |= row
    config = {key: value for key, value in run.config.items() if key[0] != "_"}
    artifacts = SQLiteStorage.get_run_artifacts("rlif_jax", run.name, run_id=run.id)
    files = sorted({link["name"].replace(f"-{run.name}", "") for link in artifacts["output"]})
    return Tracked(run.name.rpartition("-")[0], _filled(metrics), config, completions, files)


def _filled(metrics: dict[int, dict[str, float]]) -> dict[int, dict[str, float]]:
    return {step: values for step, values in metrics.items() if values}
