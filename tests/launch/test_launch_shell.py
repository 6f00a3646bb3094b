"""Every launcher is sound shell, and says how it is used."""

import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

LAUNCH = ROOT / "launch"
SCRIPTS = [*sorted(LAUNCH.glob("*.sh")), LAUNCH / "slurm.sbatch"]
each_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
SHELLCHECK = Path(sys.executable).with_name("shellcheck")


@each_script
def test_bash_can_parse_it(script):
    ran = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


@each_script
def test_shellcheck_finds_nothing(script):
    command = [SHELLCHECK, "--external-sources", script.relative_to(ROOT)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "")


@each_script
def test_its_form(script):
    """It stops at the first error, its lines are short, and it can be run if it is to be run."""
    lines = script.read_text().splitlines()
    assert [line for line in lines if len(line) > 120] == []
    if script.name == "bundle.sh":  # sourced
        return
    assert lines[0] == "#!/usr/bin/env bash" and "set -euo pipefail" in lines
    assert script.suffix == ".sbatch" or script.stat().st_mode & 0o100
