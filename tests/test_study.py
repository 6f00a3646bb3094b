"""A suite from the command line: run, stopped, killed, resumed, and never run twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from support import ROOT
from support.small_runs import metrics, numbers, wait_for_step

from rlif_jax.study import main

SUITE = """
from dataclasses import replace
from rlif_jax.config import Checkpoint, Config, Data, Eval, Model, Sampling, Stage, Suite

suite = Suite(
    name="small",
    base=Config(
        steps=9,
        model=Model(source={model!r}),
        data=Data(name={data!r}, prompts_per_step=2),
        sampling=Sampling(samples_per_prompt=4, max_new_tokens=12),
        eval=Eval(every=0),
        checkpoint=Checkpoint(every=2, keep=1, keep_every=2),
    ),
    methods={{name: {{"reward.terms": ((name, 1.0),)}} for name in ("random", "token_entropy")}},
    stages=(Stage("random", after="token_entropy", at=(2,)),),
    step_s=1800.0,
)
"""
RUNS = ["random-s0", "token_entropy-s0", "random-from-token_entropy@2-s0"]


@pytest.fixture(scope="module")
def suite(flags, tmp_path_factory):
    named = dict(flag.removeprefix("--").split("=") for flag in flags)
    path = tmp_path_factory.mktemp("suite") / "small.py"
    path.write_text(SUITE.format(model=named["model.source"], data=named["data.name"]))
    return path


def study(suite, out, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "rlif_jax.study", "--suite", str(suite), "--out", str(out)]
    return subprocess.Popen(
        [*command, *more], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.fixture(scope="module")
def finished(suite, tmp_path_factory):
    """A study that was killed within its second run, stopped in it again, and then completed."""
    out = tmp_path_factory.mktemp("study")
    killed = study(suite, out)
    wait_for_step(out / RUNS[1], 1)
    killed.kill()
    killed.wait()
    gone_by = time.monotonic() + 60
    while _in_use(out / RUNS[1]) and time.monotonic() < gone_by:
        time.sleep(0.2)  # the run stops by itself, now that the study has gone
    first = (out / RUNS[0] / "metrics.jsonl").stat()
    recorded = metrics(out / RUNS[1])[-1]["step"]
    stopped = study(suite, out)
    wait_for_step(out / RUNS[1], recorded + 1)
    stopped.send_signal(signal.SIGINT)
    assert stopped.wait(120) == 130
    last = study(suite, out)
    text, _ = last.communicate(timeout=400)
    assert last.returncode == 0, text
    assert (out / RUNS[0] / "metrics.jsonl").stat() == first  # it was not run again
    return out, text


def _in_use(folder) -> bool:
    import fcntl

    with open(folder / "lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_what_is_missing_is_run(finished):
    out, text = finished
    assert f"run 1 of 3: {RUNS[0]}" not in text and f"run 3 of 3: {RUNS[2]}, about" in text
    for name in RUNS:
        assert [one["step"] for one in metrics(out / name)] == [*range(1, 10)]


def test_it_is_as_if_nothing_had_happened(finished, suite, tmp_path):
    """The run that was killed and stopped has the numbers of one that ran at once."""
    out, _ = finished
    alone = study(suite, tmp_path, "--only", "token*")
    text, _ = alone.communicate(timeout=300)
    assert alone.returncode == 0, text
    assert numbers(tmp_path / RUNS[1]) == numbers(out / RUNS[1])
    assert not os.path.exists(tmp_path / RUNS[0])


def test_nothing_is_repeated(finished, suite, capsys):
    out, _ = finished
    before = {name: (out / name / "metrics.jsonl").stat() for name in RUNS}
    main(["--suite", str(suite), "--out", str(out)])
    assert capsys.readouterr().out == ""
    assert {name: (out / name / "metrics.jsonl").stat() for name in RUNS} == before


def test_a_dry_run_lists_runs_and_hours(suite, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    main(["--suite", str(suite), "--out", str(tmp_path), "--dry-run"])
    *rows, total = capsys.readouterr().out.splitlines()[1:]
    assert [row.split()[0] for row in rows if row.strip()] == RUNS
    assert all(row.split()[-1] == "4.50" for row in rows if row.strip())
    assert total.split() == ["3", "runs", "13.50"]
    assert not any(tmp_path.iterdir())


def test_the_hours_are_those_of_measured_steps(finished, suite, capsys):
    out, _ = finished
    (out / "extra").mkdir(exist_ok=True)
    main(["--suite", str(suite), "--out", str(out), "--dry-run", "--only", "random-s0"])
    text = capsys.readouterr().out
    assert "finished" in text and "0.00" in text


def test_the_hours_on_a_slice_are_those_of_its_plan(suite, tmp_path):
    """Of runs that differ in their rewards alone, which are planned once."""
    text = suite.read_text().replace("steps=9,", "steps=1_000_000, mesh=Mesh(fsdp=4),")
    text = text.replace("prompts_per_step=2)", "prompts_per_step=4, max_prompt_tokens=60)")
    path = tmp_path / "on_pods.py"
    path.write_text(f"{text}\nconfig = suite.base\n".replace("Eval, Model", "Eval, Mesh, Model"))
    on_slice = ["--topology", "v5e:2x2"]
    arguments = ["rlif_jax.study", "--suite", path, "--out", tmp_path / "runs", "--dry-run"]
    listed = _said(*arguments, *on_slice, "--only", "random-s0", "token*")
    plan = json.loads(_said("rlif_jax.plan", "--config", path, *on_slice, "--json"))
    assert plan["run_hours"] > 0.1
    hours = [line.split()[-1] for line in listed.splitlines() if "not begun" in line]
    assert hours == [f"{plan['run_hours']:.2f}"] * 2


def _said(*command) -> str:
    """What a command prints, in a process of its own: it settles for which devices JAX compiles."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_hours_on_devices_of_unknown_speed_are_refused(suite, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--suite", str(suite), "--out", str(tmp_path), "--dry-run", "--topology", "cpu:4"])
    assert stop.value.code == 2
    assert "it is not known how fast cpu:4 is" in capsys.readouterr().err


def test_a_summary_needs_evaluations(finished, suite, capsys):
    out, _ = finished
    with pytest.raises(SystemExit) as stop:
        main(["--suite", str(suite), "--out", str(out), "--summary"])
    assert stop.value.code == 2
    assert "evaluated before and after training" in capsys.readouterr().err


def test_commands_for_another_launcher(suite, tmp_path, capsys):
    main(["--suite", str(suite), "--out", str(tmp_path), "--commands", "--only", "random-s0"])
    (line,) = capsys.readouterr().out.splitlines()
    assert line == f"python -m rlif_jax.study --suite {suite} --out {tmp_path} --run random-s0"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "other*"], "no run matches --only other*; the suite has random-s0"),
        (["--run", "other"], "--run other is not in the suite; it has random-s0"),
    ],
)
def test_runs_that_are_not_there(suite, tmp_path, arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--suite", str(suite), "--out", str(tmp_path), *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_suite_that_was_changed_is_refused(finished, suite, tmp_path, capsys):
    out, _ = finished
    changed = tmp_path / "changed.py"
    changed.write_text(suite.read_text().replace("max_new_tokens=12", "max_new_tokens=13"))
    with pytest.raises(SystemExit) as stop:
        main(["--suite", str(changed), "--out", str(out)])
    assert stop.value.code == 2
    text = capsys.readouterr().err
    assert "another configuration" in text and "sampling.max_new_tokens" in text


def test_a_run_that_cannot_start_leaves_those_behind_it(suite, tmp_path):
    """token_entropy's folder cannot be written; the others run, but for the one that needs it."""
    (tmp_path / RUNS[1]).write_text("in the way")
    text, _ = (one := study(suite, tmp_path)).communicate(timeout=300)
    assert one.returncode == 1
    assert f"{RUNS[1]} is not finished" in text
    assert f"{RUNS[2]} is left out, because it starts from {RUNS[1]}" in text
    assert "2 of 3 runs are not finished; the same command resumes" in text
    assert metrics(tmp_path / RUNS[0])[-1]["step"] == 9


def test_a_run_whose_checkpoint_was_not_passed_on_is_left_out(finished, suite, tmp_path, capsys):
    out, _ = finished
    for name in RUNS[:2]:
        shutil.copytree(out / name, tmp_path / name, ignore=shutil.ignore_patterns("checkpoints"))
    with pytest.raises(SystemExit) as stop:
        main(["--suite", str(suite), "--out", str(tmp_path)])
    assert stop.value.code == 1
    text = " ".join(capsys.readouterr().out.split())
    assert f"{RUNS[1]} has no checkpoint 2 here" in text
    assert f"remove {tmp_path / RUNS[1]} to have it run again" in text


def test_a_run_waits_for_the_one_that_it_starts_from(suite, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--suite", str(suite), "--out", str(tmp_path), "--only", RUNS[2]])
    assert stop.value.code == 1
    text = " ".join(capsys.readouterr().out.split())
    assert f"{RUNS[1]} has no checkpoint 2 yet (not begun); run it first, or wait for it" in text
    assert "remove" not in text


def test_a_run_that_has_begun_needs_its_start_no_more(finished, suite, tmp_path, capsys):
    """It has a checkpoint of its own, and goes on from there."""
    out, _ = finished
    shutil.copytree(out / RUNS[1], tmp_path / RUNS[1], ignore=shutil.ignore_patterns("checkpoints"))
    shutil.copytree(out / RUNS[2], tmp_path / RUNS[2])
    shutil.rmtree(tmp_path / RUNS[2] / "checkpoints" / "9")
    one = study(suite, tmp_path, "--only", RUNS[2])
    text, _ = one.communicate(timeout=300)
    assert one.returncode == 0, text
    assert numbers(tmp_path / RUNS[2]) == numbers(out / RUNS[2])
