"""What is done on one machine of a run, for real but for uv and the trainer."""

import re

import pytest
from support import ROOT
from support.stand_ins import StandIns
from support.workers import TRAINS, UV, Machine, wait_until


class Worker(Machine):
    def __init__(self, folder):
        super().__init__(folder / "rlif_jax")
        self.stand_ins = StandIns(folder)
        self.stand_ins.add("uv", UV)
        self.trainer = folder / "trainer"
        self.trainer.write_text(TRAINS)
        self.environment = {"RLIF_HOME": str(self.home), "TRAINER": str(self.trainer)}
        self.runs = folder / "runs of mine"
        self.flags = ("--config=configs/tests_passed.py", f"--run-dir={self.runs / 'x'}")
        self.bundle = self.home / "bundle"
        self.bundle.mkdir(parents=True)
        for name in ("worker.sh", "until_finished.sh", "newest_checkpoint.py"):
            (self.bundle / name).write_bytes((ROOT / "launch" / name).read_bytes())
        (self.bundle / "rlif_jax-0-py3-none-any.whl").touch()

    def call(self, *words):
        script = self.bundle / "worker.sh"
        return self.stand_ins.run("bash", script, *words, cwd=self.home, more=self.environment)

    def ok(self, *words) -> str:
        ran = self.call(*words)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    @property
    def status(self) -> str:
        return self.ok("status").strip()


@pytest.fixture
def worker(tmp_path):
    one = Worker(tmp_path)
    yield one
    one.kill()


@pytest.fixture
def installed(worker):
    worker.ok("install", "tpu,gcs", "3.13")
    return worker


def test_installing(worker):
    assert worker.status == "bare"
    worker.ok("install", "tpu,gcs", "3.13")
    venv, bundle = worker.home / "venv", worker.bundle
    assert worker.stand_ins.calls == [
        f"uv venv --quiet --python 3.13 {venv}",
        f"uv pip install --quiet --python {venv}/bin/python "
        f"--constraint {bundle}/requirements.txt "
        f"'{bundle}/rlif_jax-0-py3-none-any.whl[tpu,gcs]'",
    ]
    assert worker.status == "idle"


def test_an_installation_that_fails_leaves_a_bare_machine(installed):
    installed.stand_ins.add("uv", "exit 1")
    assert installed.call("install", "tpu,gcs", "3.13").returncode == 1
    assert installed.status == "bare"
    ran = installed.call("run", *installed.flags)
    assert ran.returncode == 2 and "nothing is installed" in ran.stderr


def test_a_run_to_its_end(installed):
    assert "started" in installed.ok("run", *installed.flags)
    wait_until(lambda: installed.starts, "a start")
    assert installed.status == "alive"
    assert installed.starts == [f"-m rlif_jax.train {' '.join(installed.flags)}"]
    installed.exit_with(0)
    assert installed.wait_for_end() == "0"
    assert installed.status == "ended 0"
    assert "finished" in (installed.home / "run.log").read_text()


def test_a_living_run_is_left_alone(installed):
    installed.ok("run", *installed.flags)
    for words in (("run", *installed.flags), ("install", "tpu,gcs", "3.13")):
        ran = installed.call(*words)
        assert ran.returncode == 2 and "a run is alive" in ran.stderr
    installed.ok("revive", *installed.flags)
    assert installed.status == "alive"
    wait_until(lambda: installed.starts, "a start")
    assert len(installed.starts) == 1


def test_the_status_of_a_run_with_these_flags(installed):
    other = ("status", *installed.flags, "--seed=2")
    installed.ok("run", *installed.flags)
    assert installed.ok("status", *installed.flags) == "alive\n"
    assert installed.ok(*other) == "alive-other\n"
    installed.exit_with(0)
    installed.wait_for_end()
    assert installed.ok("status", *installed.flags) == "ended 0\n"
    assert installed.ok(*other) == "idle\n"


def test_stopping(installed):
    assert installed.call("stop").returncode == 2
    installed.ok("run", *installed.flags)
    wait_until(lambda: installed.starts, "a start")
    installed.ok("stop")
    assert installed.status == "stopped"
    assert installed.wait_for_end() == "130"
    installed.ok("run", *installed.flags)
    assert installed.status == "alive", "a stopped run can be started again"


def test_a_machine_that_went_down(installed):
    installed.ok("run", *installed.flags)
    wait_until(lambda: installed.starts, "a start")
    installed.kill()
    assert installed.status == "interrupted"
    installed.ok("revive", *installed.flags)
    assert installed.status == "alive"


def test_new_checkpoints_are_progress(installed):
    """Each start saves a further one; with a bound of 1, six starts need progress."""
    installed.trainer.write_text(
        f"cd '{installed.runs}'; "
        'n=$(wc -l < "$RLIF_HOME/starts"); mkdir -p "x/checkpoints/${n}0.tmp" "x/checkpoints/$n"; '
        '[ "$n" = 6 ]'
    )
    installed.runs.mkdir()
    bundle = installed.bundle
    loop = (bundle / "until_finished.sh").read_text()
    (bundle / "until_finished.sh").write_text(loop.replace("pause=15", "pause=0"))
    installed.ok("run", "--restarts=1", *installed.flags)
    assert installed.wait_for_end() == "0"
    assert len(installed.starts) == 6
    assert "--restarts" not in installed.starts[0]


def test_the_log(installed):
    installed.ok("run", *installed.flags)
    script = installed.bundle / "worker.sh"
    ran = installed.stand_ins.run(
        "timeout", "2", "bash", script, "log", "5", cwd=installed.home, more=installed.environment
    )
    installed.exit_with(2)
    assert installed.wait_for_end() == "2"
    assert ran.returncode == 124, "it follows the log"
    assert re.search("the input is bad", (installed.home / "run.log").read_text())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no verb is not one of"),
        (["nonsense"], "nonsense is not one of"),
        (["install", "tpu"], "install takes extras and a version of Python"),
        (["run", "--run-dir=x"], "--config=FILE is missing"),
        (["run", "--config=x"], "--run-dir='': give a folder from / on"),
        (["run", "--config=x", "--run-dir=runs/x"], "--run-dir='runs/x': give a folder from / on"),
    ],
)
def test_wrong_words(installed, words, message):
    ran = installed.call(*words)
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: ") and message in ran.stderr and "usage: " in ran.stderr
