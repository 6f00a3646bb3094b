"""A run whose folder is in a bucket has the files of a local one, and is used like a local one."""

import json
import re
import signal
import time
from dataclasses import replace

import pytest
from support.buckets import pointed_at
from support.servers import BucketServer
from support.several import ended, started
from support.small_evaluations import flags as evaluation_flags
from support.small_evaluations import small_arguments
from support.small_runs import TIMES, config, long_run, numbers, process, refused

from rlif_jax import convert, evaluate, replay
from rlif_jax.run.checkpoint import Checkpoints
from rlif_jax.storage.folder import folder_at
from rlif_jax.train import main

pytestmark = pytest.mark.slow

RUN = "gs://runs/some/run"


@pytest.fixture(scope="module")
def local(flags, tmp_path_factory):
    """The folder of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("local") / "run"
    main([*long_run(flags), f"--run-dir={folder}"])
    return folder


@pytest.fixture(scope="module")
def bucket():
    with BucketServer("runs", {}, page_size=50) as server, pytest.MonkeyPatch.context() as patch:
        pointed_at(patch, server.url)
        yield server


@pytest.fixture(scope="module")
def files(flags, bucket):
    """The objects of the same run in the bucket, killed after a checkpoint and resumed."""
    arguments = [*long_run(flags), f"--run-dir={RUN}"]
    victim = process(arguments)
    deadline = time.monotonic() + 300
    while "some/run/checkpoints/2/commit_success.txt" not in bucket.files:
        assert time.monotonic() < deadline and victim.poll() is None, victim.communicate()[0]
        time.sleep(0.01)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert "some/run/checkpoints/6/commit_success.txt" not in bucket.files
    main(arguments)
    return {name.removeprefix("some/run/"): data for name, data in bucket.files.items()}


def test_a_killed_run_resumes_to_the_files_of_a_local_one(files, local):
    rows = [json.loads(line) for line in files["metrics.jsonl"].decode().splitlines()]
    untimed = [{k: v for k, v in row.items() if not k.startswith(TIMES)} for row in rows]
    assert untimed == numbers(local)
    paths = [local / "provenance.jsonl", *local.glob("rollouts/*"), *local.glob("model/*")]
    names = {path.relative_to(local).as_posix() for path in paths}
    assert len(names) > 10
    assert {name: files[name] for name in names} == {
        name: (local / name).read_bytes() for name in names
    }
    folders = {name.partition("/")[0] for name in files}
    assert folders == {path.name for path in local.iterdir()} - {"lock"}
    steps = {name.split("/")[1] for name in files if name.startswith("checkpoints/")}
    assert steps == {path.name for path in (local / "checkpoints").iterdir()}
    mine, its = json.loads(files["config.json"]), json.loads((local / "config.json").read_text())
    assert mine["config"].pop("run_dir") == RUN and its["config"].pop("run_dir") == str(local)
    assert mine == its


def test_it_is_replayed_as_identical(files, bucket, capsys):
    before = bucket.files.copy()
    with pytest.raises(SystemExit) as end:
        replay.main([RUN, "--step", "6"])
    said = capsys.readouterr().out
    assert end.value.code == 0, said
    assert ", from checkpoint 4" in said and "step 6: identical" in said
    assert bucket.files == before


def test_it_is_evaluated_as_a_local_one(files, local, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def samples(model: str, name: str) -> list[dict]:
        asked = replace(small_arguments(model, tmp_path), out=f"{name}.json")
        evaluate.main(evaluation_flags(asked))
        rows = (tmp_path / f"{name}.samples.jsonl").read_text().splitlines()[1:]
        return [json.loads(row) for row in rows]

    assert samples(RUN, "remote") == samples(str(local), "local")


@pytest.mark.parametrize("step", ["", "/checkpoints/4"])
def test_it_is_converted_as_a_local_one(files, local, tmp_path, step):
    folders = [convert.convert(convert.Arguments(f"{run}{step}", str(tmp_path / out)))
               for run, out in ((RUN, "remote"), (local, "local"))]  # fmt: skip
    remote, mine = ({p.name: p.read_bytes() for p in folder.iterdir()} for folder in folders)
    assert remote == mine and "model.safetensors" in mine


def test_another_run_starts_from_it_as_from_a_local_one(files, flags, local, tmp_path):
    def started(origin: str) -> list[dict]:
        folder = tmp_path / re.sub(r"\W", "_", origin)
        more = [f"--init-from={origin}@4", "--steps=1", f"--run-dir={folder}"]
        main([config("hybrid"), *flags, *more])
        return numbers(folder)

    assert started(RUN) == started(str(local))


def test_another_configuration_is_refused(files, flags, capsys):
    text = refused([*long_run(flags), f"--run-dir={RUN}", "--seed=9"], capsys)
    assert f"{RUN} holds a run with another configuration: seed was 0 and is now 9" in text


def test_a_checkpoint_that_is_damaged_is_set_aside(files, flags, bucket, local, capsys):
    bucket.files.pop("some/run/checkpoints/6/rest/manifest.ocdbt")
    main([*long_run(flags), f"--run-dir={RUN}", "--steps=7"])
    shown = capsys.readouterr()
    assert f"checkpoint 6 in {RUN}/checkpoints is damaged" in shown.err
    assert "resumes after step 4." in shown.err
    rollouts = (local / "rollouts/step_000006.jsonl").read_bytes()
    assert bucket.files["some/run/rollouts/step_000006.jsonl"] == rollouts
    assert any(name.startswith("some/run/checkpoints/damaged-6/") for name in bucket.files)


def test_two_processes_share_it_and_one_resumes(flags, bucket):
    arguments = [config("hybrid"), *flags, "--run-dir=gs://runs/two", "--mesh.data=2"]
    arguments += ["--mesh.fsdp=2", "--eval.every=0", "--checkpoint.every=1", "--checkpoint.keep=3"]
    processes = started([*arguments, "--steps=2"], 2)
    outputs = ended(processes)
    assert [process.returncode for process in processes] == [0, 0], "\n\n".join(outputs)
    ended(resumed := started([*arguments, "--steps=3"], 1))
    assert resumed[0].returncode == 0
    rows = [json.loads(line) for line in bucket.files["two/metrics.jsonl"].splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    rows = bucket.files["two/rollouts/step_000002.jsonl"].splitlines()
    assert len(rows) == 16
    for step in (1, 2, 3):
        assert f"two/checkpoints/{step}/commit_success.txt" in bucket.files
    opened = Checkpoints(folder_at("gs://runs/two/checkpoints"), keep=3, read_only=True)
    assert opened.steps() == [1, 2, 3]


def test_a_bucket_that_refuses_gives_one_sentence(flags, bucket, monkeypatch, capsys):
    monkeypatch.setattr(bucket, "status", 403)
    text = refused([*long_run(flags), "--run-dir=gs://runs/new"], capsys)
    assert text.startswith("error: gs://runs/new cannot be used: the bucket refuses access")
    assert "Storage Object User" in text and text.endswith("on gs://runs. ")


def test_a_bucket_that_is_not_there_is_named(flags, bucket, capsys):
    text = refused([*long_run(flags), "--run-dir=gs://absent/new"], capsys)
    assert "there is no bucket gs://absent" in text
    assert "gcloud storage buckets create gs://absent" in text


def test_a_server_that_cannot_be_reached_gives_one_sentence(flags, monkeypatch, capsys):
    """With the status of what may succeed later, for launchers."""
    pointed_at(monkeypatch, "http://127.0.0.1:9")
    text = refused([*long_run(flags), "--run-dir=gs://runs/new"], capsys, status=1)
    assert text.startswith("error: gs://runs/new cannot be used: a request failed")
