"""The batch script under stand-ins for Slurm: srun really runs what it is given."""

import os
import re
import shlex
import signal
import subprocess

import pytest
from support import ROOT
from support.stand_ins import StandIns, project_copy, transcripts
from support.workers import WITHIN_S, wait_until

((LINE, PRINTED),) = transcripts("slurm.txt").items()
SRUN = """
echo $$ > "$SLURM_SUBMIT_DIR/step"
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
SCANCEL = 'kill -TERM "$(cat "$SLURM_SUBMIT_DIR/step")"'
TRAINER = """#!/usr/bin/env bash
[ "$1" = -m ] || exit 1
trap 'touch saved; exit 130' TERM
env > started
until [ -e exit ]; do sleep 0.05; done
exit "$(cat exit)"
"""


class Job:
    def __init__(self, folder):
        self.folder = project_copy(folder)
        self.stand_ins = StandIns(folder)
        self.stand_ins.environment |= {
            "SLURM_SUBMIT_DIR": str(folder),
            "SLURM_JOB_ID": "42",
            "SLURM_GPUS_ON_NODE": "8",
            "SLURM_CPUS_ON_NODE": "96",
        }
        for name in ("XLA_CLIENT_MEM_FRACTION", "JAX_LOCAL_DEVICE_IDS"):
            self.stand_ins.environment.pop(name, None)
        for name, answer in (("srun", SRUN), ("scancel", SCANCEL), ("scontrol", "")):
            self.stand_ins.add(name, answer)
        python = folder / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(TRAINER)
        python.chmod(0o755)

    def start(self):
        """Start the script as Slurm does: a copy of it, in another folder."""
        spooled = self.folder / "spool" / "slurm_script"
        spooled.parent.mkdir()
        spooled.write_bytes((ROOT / "launch/slurm.sbatch").read_bytes())
        words = ["bash", str(spooled), *shlex.split(LINE)[2:]]
        process = subprocess.Popen(words, cwd=spooled.parent, env=self.stand_ins.environment)
        wait_until((self.folder / "started").exists, "a start of the trainer")
        return process

    @property
    def trainer_environment(self):
        lines = (self.folder / "started").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path)


def test_a_dry_run_prints_the_transcript(job):
    ran = job.stand_ins.run(*shlex.split(LINE), "--dry-run", cwd=job.folder)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == PRINTED
    assert job.stand_ins.calls == []


@pytest.mark.parametrize("status", [0, 2])
def test_a_job_to_its_end(job, status):
    process = job.start()
    (job.folder / "exit").write_text(str(status))
    assert process.wait(WITHIN_S) == status
    assert job.stand_ins.calls == [PRINTED[-1]]
    for line in PRINTED[:-1]:
        name, value = line.removeprefix("export ").split("=")
        assert job.trainer_environment[name] == value


def test_at_the_time_limit_the_run_saves_and_the_job_is_queued_again(job):
    process = job.start()
    os.kill(process.pid, signal.SIGUSR1)
    assert process.wait(WITHIN_S) == 130
    assert (job.folder / "saved").exists()
    assert job.stand_ins.calls[1:] == ["scancel --signal=TERM 42", "scontrol requeue 42"]


def test_a_job_that_is_told_to_stop_saves_and_is_not_queued_again(job):
    process = job.start()
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(WITHIN_S) == 130
    assert (job.folder / "saved").exists()
    assert job.stand_ins.calls[1:] == ["scancel --signal=TERM 42"]


def test_a_run_that_finishes_at_the_time_limit_is_finished(job):
    python = job.folder / ".venv" / "bin" / "python"
    python.write_text(TRAINER.replace("exit 130", "exit 0"))
    process = job.start()
    os.kill(process.pid, signal.SIGUSR1)
    assert process.wait(WITHIN_S) == 0
    assert "scontrol requeue 42" not in job.stand_ins.calls


def test_what_slurm_is_asked_for():
    asked = re.findall(r"^#SBATCH --(\S+)", (ROOT / "launch/slurm.sbatch").read_text(), re.M)
    assert {"requeue", "ntasks-per-node=1", "open-mode=append", "signal=B:USR1@90"} <= set(asked)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--run-dir=x"], "--config=FILE is missing"),
        (["--config=x"], "--run-dir=DIR is missing"),
        (["--config=x", "--run-dir=y"], "absent/python is not there"),
    ],
)
def test_wrong_flags(words, message, job):
    more = {"RLIF_PYTHON": "absent/python"}
    ran = job.stand_ins.run("bash", "launch/slurm.sbatch", *words, cwd=job.folder, more=more)
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: ") and message in ran.stderr and "usage: " in ran.stderr
    assert job.stand_ins.calls == []
