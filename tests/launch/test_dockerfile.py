"""The Dockerfile: its targets, and its cpu target built step by step in a clean folder."""

import json
import re
import shutil
import tomllib

import pytest
from support import ROOT
from support.dockerfile import Build, stages
from support.tiny import write_problems

DOCKERFILE = ROOT / "launch" / "Dockerfile"
STAGES = stages(DOCKERFILE.read_text())
TARGETS = {"cpu": ["gcs"], "tpu": ["tpu", "gcs"], "cuda": ["cuda", "gcs"]}


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_installs_its_extras_and_is_not_root(target):
    stage = STAGES[target]
    assert stage.base == "base" and STAGES["base"].base == STAGES["wheel"].base
    (line,) = [rest for word, rest in stage.lines if word == "RUN"]
    (extras,) = re.findall(r"whl\)\[([\w,]+)\]", line)
    assert extras.split(",") == TARGETS[target]
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras.split(",")) <= set(declared["optional-dependencies"])
    assert stage.lines[-1] == ("USER", "rlif")
    assert ("RUN", "useradd --create-home rlif") in STAGES["base"].lines


def test_the_head_of_the_file_says_how():
    head = DOCKERFILE.read_text().split("ARG ")[0]
    for option in ("seccomp", "apparmor", "systempaths"):
        assert f"--security-opt {option}=unconfined" in head
    assert set(re.findall(r"--target (\w+)", head)) <= set(TARGETS)


@pytest.mark.slow
def test_the_cpu_target(tmp_path, tiny_path, request):
    """Built in a clean folder, the image trains a very small model for two steps, and resumes."""
    request.addfinalizer(lambda: shutil.rmtree(tmp_path))  # it is large
    image = Build(DOCKERFILE, ROOT, tmp_path).build("cpu")
    assert image.user == "rlif"
    where = image.run('python -c "import rlif_jax; print(rlif_jax.__file__)"').stdout
    assert str(tmp_path) in where and "site-packages" in where
    assert "--run-dir" in image.run("python -m rlif_jax.train --help").stdout
    assert "--problems" in image.run("python -m rlif_jax.grade --help").stdout
    image.run("python -m rlif_jax.evaluate --help")

    image.path("tiny.gguf").write_bytes(tiny_path.read_bytes())
    write_problems(image.path("adding.jsonl"))
    train = (
        "bash launch/until_finished.sh --restarts=0 "
        '--progress="python launch/newest_checkpoint.py runs/tiny" -- '
        "python -m rlif_jax.train --config=configs/tests_passed.py --run-dir=runs/tiny "
        "--model.source=tiny.gguf --data.name=jsonl:adding.jsonl --eval.every=0 "
        "--data.prompts-per-step=2 --sampling.samples-per-prompt=2 --sampling.max-new-tokens=8"
    )
    for steps in (1, 2):
        said = image.run(f"{train} --steps={steps} --checkpoint.every=1").stderr
        assert said.endswith("until_finished: finished\n"), said
        newest = image.run("python launch/newest_checkpoint.py runs/tiny").stdout
        assert newest == f"{steps}\n"
    rows = image.path("runs/tiny/metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [1, 2]
