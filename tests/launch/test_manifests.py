"""The YAML files: they parse, and their values agree with each other and with the scripts."""

import re
import shlex
import shutil
import subprocess

import pytest
import yaml
from support import ROOT
from support.stand_ins import StandIns

from configs.paper.machines import MACHINES
from rlif_jax.config import load
from rlif_jax.config.validate import validate
from rlif_jax.rewards import known_rewards

LAUNCH = ROOT / "launch"
JOBSET = LAUNCH / "gke_jobset.yaml"
DOCKERFILE = (LAUNCH / "Dockerfile").read_text()
EXPORTS = re.findall(r"^#   (export .*)$", JOBSET.read_text(), re.M)
(APPLY,) = re.findall(r"^#   (envsubst .*)$", JOBSET.read_text(), re.M)


@pytest.fixture(scope="module")
def applied(tmp_path_factory):
    """What the commands in the file's head give to kubectl, and how they call it."""
    if not shutil.which("envsubst"):
        pytest.skip("envsubst is not installed: apt-get install gettext-base")
    folder = tmp_path_factory.mktemp("kubectl")
    stand_ins = StandIns(folder)
    stand_ins.add("kubectl", f"cat > {folder}/applied")
    ran = stand_ins.run("bash", "-euc", "\n".join([*EXPORTS, APPLY]), cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    return stand_ins.calls, (folder / "applied").read_text()


@pytest.fixture
def jobset(applied):
    return yaml.safe_load(applied[1])


@pytest.fixture
def job(jobset):
    (replicated,) = jobset["spec"]["replicatedJobs"]
    return replicated["template"]["spec"]


@pytest.fixture
def container(job):
    (one,) = job["template"]["spec"]["containers"]
    return one


def test_kubectl_gets_a_whole_jobset(applied, jobset):
    calls, text = applied
    assert calls == ["kubectl apply -f -"]
    body = [line for line in text.splitlines() if not line.startswith("#")]
    assert "$" not in "".join(body) and None not in jobset["metadata"].values()
    assert (jobset["kind"], jobset["apiVersion"]) == ("JobSet", "jobset.x-k8s.io/v1alpha2")


def test_every_variable_is_set_and_used():
    used = set(re.findall(r"\$\{(\w+)\}", JOBSET.read_text()))
    words = shlex.split(" ".join(EXPORTS))
    assert {word.partition("=")[0] for word in words if "=" in word} == used


def test_the_slice_is_whole(job, container):
    """One pod a host, on hosts that have all the chips of the topology together."""
    selector = job["template"]["spec"]["nodeSelector"]
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert container["resources"]["requests"] == {"google.com/tpu": chips}
    sides = [int(side) for side in selector["cloud.google.com/gke-tpu-topology"].split("x")]
    assert sides[0] * sides[1] == job["parallelism"] * chips == 16
    assert job["parallelism"] == job["completions"] and job["completionMode"] == "Indexed"
    assert "v5e:4x4" in MACHINES["r1_1p5b_8k"], "the machine of the configuration in the example"


def test_the_hosts_find_each_other(jobset):
    network = jobset["spec"]["network"]
    assert network["enableDNSHostnames"] and network["subdomain"] == jobset["metadata"]["name"]


def test_bad_input_fails_and_all_else_restarts(jobset, job, container):
    policy = jobset["spec"]["failurePolicy"]
    (rule,) = policy["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    (pod_rule,) = job["podFailurePolicy"]["rules"]
    assert pod_rule["action"] == "FailJob"
    codes = {"containerName": container["name"], "operator": "In", "values": [2]}
    assert pod_rule["onExitCodes"] == codes
    assert policy["maxRestarts"] > 0 and job["backoffLimit"] == 0
    assert job["template"]["spec"]["restartPolicy"] == "Never"


def test_there_is_time_to_save(job):
    assert job["template"]["spec"]["terminationGracePeriodSeconds"] > 30


def test_the_pod_can_judge_and_open_the_chips(container):
    assert container["securityContext"] == {"runAsUser": 0, "privileged": True}


def test_the_trainers_command_is_one(container, tmp_path):
    """It is a dry run of until_finished.sh away, and its configuration is one."""
    command = [*container["command"], *container["args"]]
    assert command[:2] == ["bash", "launch/until_finished.sh"]
    dry = [*command[:2], "--dry-run", *command[2:]]
    printed = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    words = shlex.split(printed)
    assert words[:3] == ["python", "-m", "rlif_jax.train"]
    config = load(words[3:])
    validate(config, known_rewards())
    assert config.run_dir.startswith("gs://")
    (progress,) = [a for a in container["args"] if a.startswith("--progress=")]
    assert progress.endswith(f"launch/newest_checkpoint.py {config.run_dir}")


def test_the_image_has_what_the_pod_runs(container):
    assert "launch/until_finished.sh launch/newest_checkpoint.py launch/" in DOCKERFILE
    assert container["image"].endswith(":tpu") and "FROM base AS tpu" in DOCKERFILE


@pytest.fixture
def sky():
    return yaml.safe_load((LAUNCH / "sky.yaml").read_text())


def test_sky_trains_what_it_is_told(sky, tmp_path):
    """Its commands, run with stand-ins: the wheel of this folder, the right slice, the flags."""
    stand_ins = StandIns(tmp_path)
    for name in ("uv", "curl"):
        stand_ins.add(name)
    envs = sky["envs"] | {"RUN_DIR": "gs://bucket/run", "HOME": str(tmp_path)}
    ran = stand_ins.run("bash", "-c", sky["setup"], cwd=ROOT, more=envs)
    assert ran.returncode == 0, ran.stderr
    venv = tmp_path / "venv"
    assert stand_ins.calls == [
        f"uv venv --quiet --python 3.13 {venv}",
        f"uv pip install --quiet --python {venv}/bin/python '.[tpu,gcs]'",
    ]
    python = venv / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/ran\n')
    python.chmod(0o755)
    ran = stand_ins.run("bash", "-c", sky["run"], cwd=ROOT, more=envs)
    assert ran.returncode == 0, ran.stderr
    (train,) = (tmp_path / "ran").read_text().splitlines()
    assert "python launch/newest_checkpoint.py $RUN_DIR" in sky["run"]
    config = load(train.removeprefix("-m rlif_jax.train ").split())
    machine = MACHINES["r1_1p5b_8k"]["v6e:2x4"]
    assert config == machine.applied(config) and config.run_dir == "gs://bucket/run"
    assert sky["resources"]["accelerators"] == "tpu-v6e-8"


def test_sky_needs_a_run_folder(sky, tmp_path):
    ran = StandIns(tmp_path).run("bash", "-c", sky["setup"], cwd=ROOT, more=sky["envs"])
    assert ran.returncode == 2 and "RUN_DIR=gs://BUCKET/FOLDER is missing" in ran.stdout


def test_sky_recovers_what_a_signal_stopped(sky):
    recovery = sky["resources"]["job_recovery"]
    assert set(recovery["recover_on_exit_codes"]) == {130, 143} and sky["resources"]["use_spot"]


def test_the_image_of_workers_is_one_everywhere(sky):
    """The default image of tpu_vm.sh for a slice is SkyPilot's, too."""
    words = ["launch/tpu_vm.sh", "create", "--name=a", "--zone=b", "--topology=v6e:2x4"]
    ran = subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True)
    version = sky["resources"]["accelerator_args"]["runtime_version"]
    assert f"--version={version} " in ran.stdout


def test_python_is_one_everywhere(sky):
    """The version of Python, in four places."""
    (bundle,) = re.findall(r"^python_version=(.*)$", (LAUNCH / "bundle.sh").read_text(), re.M)
    (image,) = re.findall(r"^ARG PYTHON=(.*)$", DOCKERFILE, re.M)
    assert bundle == image and f"--python {bundle} " in sky["setup"]
