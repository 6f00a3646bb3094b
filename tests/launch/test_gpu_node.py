"""One machine with GPUs: the transcript, the driver check, and a run from setup to its end."""

import shlex

import pytest
from support import ROOT
from support.stand_ins import StandIns, project_copy, transcripts
from support.workers import TRAINS, UV, Machine, wait_until

TRANSCRIPTS = transcripts("gpu_node.txt")
GPUS = "for gpu in 1 2; do echo 'NVIDIA H100 80GB HBM3, {driver}'; done"


class Node(Machine):
    def __init__(self, folder):
        super().__init__(folder / "rlif_jax")
        self.project = folder / "project"
        self.project.mkdir()
        project_copy(self.project)
        (folder / "trainer").write_text(TRAINS)
        self.stand_ins = StandIns(folder)
        environment = {"HOME": str(folder), "TRAINER": str(folder / "trainer")}
        self.stand_ins.environment |= environment | {"RLIF_HOME": str(self.home)}
        for name in ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"):
            self.stand_ins.environment.pop(name, None)
        self.stand_ins.add("uv", UV)
        self.driver("580.65.06")

    def driver(self, version):
        self.stand_ins.add("nvidia-smi", GPUS.format(driver=version))

    def call(self, *words, more=None):
        return self.stand_ins.run(*words, cwd=self.project, more=more)


@pytest.fixture
def node(tmp_path):
    one = Node(tmp_path)
    yield one
    one.kill()


@pytest.mark.parametrize("line", TRANSCRIPTS)
def test_a_dry_run_prints_the_transcript(line, node, tmp_path):
    ran = node.call(*shlex.split(line), "--dry-run")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.replace(str(tmp_path), "HOME").splitlines() == TRANSCRIPTS[line]
    assert node.stand_ins.calls == [] and not node.home.exists()


def test_from_setup_to_the_end(node, tmp_path):
    setup, run = list(TRANSCRIPTS)[:2]
    assert node.call(*shlex.split(setup)).returncode == 0
    called = [line.replace(str(tmp_path), "HOME") for line in node.stand_ins.calls]
    printed = [line for line in TRANSCRIPTS[setup] if line.split()[0] in ("nvidia-smi", "uv")]
    assert called[: len(printed)] == printed
    assert called[-1].endswith("rlif_jax-0-py3-none-any.whl[cuda,gcs]'")
    (tmp_path / "trainer").write_text(
        f'echo "$XLA_CLIENT_MEM_FRACTION" > "$RLIF_HOME/share"\n{TRAINS}'
    )
    assert node.call(*shlex.split(run)).returncode == 0
    wait_until(lambda: node.starts, "a start")
    called = TRANSCRIPTS[run][-1].partition(" run ")[2].replace("HOME", str(tmp_path))
    assert node.starts == [f"-m rlif_jax.train {called}"]
    assert node.call("launch/gpu_node.sh", "status").stdout == "alive\n"
    again = node.call(*shlex.split(setup))
    assert again.returncode == 2 and "stop it before setup" in again.stderr
    assert (node.home / "bundle" / "worker.sh").exists()  # which the run needs when it restarts
    node.exit_with(0)
    assert node.wait_for_end() == "0"
    assert (node.home / "share").read_text() == "0.9\n"
    assert node.call("launch/gpu_node.sh", "status").stdout == "ended 0\n"


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("570.86.15", "driver 570.86.15 is too old for CUDA 13; install 580 or newer"),
        ("[N/A]", "names no driver"),
    ],
)
def test_a_driver_that_will_not_do(version, message, node):
    node.driver(version)
    ran = node.call("launch/gpu_node.sh", "setup")
    assert ran.returncode == 2 and message in ran.stderr
    assert len(node.stand_ins.calls) == 1, "nothing is built or installed"


def test_no_driver(node):
    node.stand_ins.add("nvidia-smi", "exit 9")
    ran = node.call("launch/gpu_node.sh", "setup")
    assert ran.returncode == 2 and "nvidia-smi fails; install" in ran.stderr


def test_a_share_of_memory_of_ones_own(node):
    words = ("launch/gpu_node.sh", "run", "--config=a", "--run-dir=b", "--dry-run")
    printed = node.call(*words, more={"XLA_CLIENT_MEM_FRACTION": "0.5"}).stdout
    assert printed.startswith("export XLA_CLIENT_MEM_FRACTION=0.5\n")
    ran = node.call(*words, more={"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.5"})
    assert ran.returncode == 2 and "call it XLA_CLIENT_MEM_FRACTION" in ran.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no verb is not one of setup"),
        (["make"], "make is not one of setup"),
        (["status", "--bad"], "--bad is not a flag of gpu_node.sh status"),
        (["setup", "--file=absent"], "--file=absent does not exist"),
        (["run", "--run-dir=x"], "--config=FILE is missing"),
        (["run", "--config=x"], "--run-dir=DIR is missing"),
    ],
)
def test_wrong_flags(words, message, node):
    ran = node.call(ROOT / "launch/gpu_node.sh", *words)
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: ") and message in ran.stderr and "usage: " in ran.stderr
    assert node.stand_ins.calls == []
