"""launch/README.md: its commands can be run, its costs are the plan's, its claims hold here."""

import json
import os
import re
import subprocess
import sys

import pytest
from support import ROOT
from support.stand_ins import StandIns, project_copy

from rlif_jax.config import load
from rlif_jax.config.validate import validate
from rlif_jax.rewards import known_rewards

LAUNCH = ROOT / "launch"
README = (LAUNCH / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
CODE = "".join(BLOCKS).splitlines()
PRICES = {name: float(price) for name, price in re.findall(r"(v\d\w) (\d\.\d\d)", README)}


def test_it_is_short():
    lines = README.splitlines()
    assert len(lines) < 200
    prose = re.sub(r"^```.*?^```", "", README, flags=re.DOTALL | re.MULTILINE).splitlines()
    assert [line for line in prose if len(line) > 120 and not line.startswith("|")] == []


def test_every_launcher_is_named():
    inside = {
        "bundle.sh",
        "worker.sh",
        "newest_checkpoint.py",
        "Dockerfile.dockerignore",
        "README.md",
    }
    files = {path.name for path in LAUNCH.iterdir() if path.is_file()}
    assert {name for name in files if f"]({name})" in README} == files - inside


def test_the_bound_on_restarts_is_the_scripts():
    (bound,) = re.findall(r"gives up after (\d+) restarts", README)
    assert f"restarts={bound} " in (LAUNCH / "until_finished.sh").read_text()


def test_costs_are_those_of_the_plans():
    plans = json.loads((ROOT / "benchmarks/paper_plans.json").read_text())
    assert set(PRICES) == {"v5e", "v6e", "v5p"}
    rows = re.findall(r"^\| (\w+_\w+) \| (.*) \|$", README, re.M)
    assert [name for name, _ in rows] == list(plans)
    for name, row in rows:
        cells = row.split(" | ")
        for chip, start in (("v5e", 0), ("v6e", 4), ("v5p", 8)):
            shape, hours, chip_hours, dollars = cells[start : start + 4]
            plan = plans[name][f"{chip}:{shape}"]
            assert hours == f"{plan['run_hours']:.1f}"
            assert chip_hours == f"{plan['chip_hours']:.0f}"
            assert dollars == f"{plan['chip_hours'] * PRICES[chip]:.0f}"


COMMANDS = [line for line in CODE if line.startswith(("launch/", "sbatch "))]


@pytest.mark.parametrize("line", COMMANDS)
def test_launchers_accept_the_commands(line, tmp_path):
    """Each command as a dry run, with the variables that the page sets before it."""
    project = project_copy(tmp_path)
    (project / "paper_problems.jsonl").touch()
    settings = [one for one in CODE if one.startswith(("export ", "SLICE="))]
    script = "\n".join([*settings, f"{line.partition(' #')[0]} --dry-run"])
    stand_ins = StandIns(tmp_path)
    stand_ins.add("sbatch", 'while [[ $1 == --* ]]; do shift; done; exec bash "$@"')
    ran = stand_ins.run("bash", "-euc", script, cwd=project)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout


def test_the_commands_cover_all_verbs():
    verbs = {line.split()[1] for line in COMMANDS if "tpu_vm" in line}
    assert verbs == {"run", "status", "logs", "stop", "delete"}
    assert re.search("step by step: `create`, `setup`, `run`", README)


TRAININGS = re.findall(r"--config=configs/[^\n`]*", "\n".join(CODE))


@pytest.mark.parametrize("flags", TRAININGS)
def test_trainings_are_valid(flags):
    words = flags.replace("$BUCKET", "gs://b").replace('"', "").split()
    plan_only = {"--topology", "--price"}
    at = [n for n, word in enumerate(words) if word in plan_only]
    kept = [word for n, word in enumerate(words) if n not in at and n - 1 not in at]
    validate(load(kept), known_rewards())


JUDGE = """
import dataclasses, sys
from rlif_jax.config import Execution
from rlif_jax.execution.pool import Judge
with Judge(dataclasses.replace(Execution(), workers=1, allow_weak_isolation=True)) as judge:
    print(judge.isolation["namespaces"])
"""
COVER = "mount --bind /proc/sys /proc/sys"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount over /proc")
@pytest.mark.parametrize("masked", [False, True])
def test_masks_over_proc_stand_in_the_way_of_namespaces(masked):
    """One of Docker's mounts over /proc is enough, so systempaths=unconfined is needed."""
    first = COVER if masked else "true"
    shell = ["bash", "-euc", f'{first}; exec "$@"', "bash", sys.executable, "-c", JUDGE]
    own = ["unshare", "--mount", "--propagation", "private", *shell]
    ran = subprocess.run(own, cwd=ROOT, capture_output=True, text=True, timeout=60)
    if "unshare" in ran.stderr:
        pytest.skip(f"this machine makes no mount namespaces: {ran.stderr}")
    assert ran.returncode == 0, ran.stderr
    assert ("mount proc" in ran.stdout) == masked
    assert ran.stdout.startswith("none (") == masked
