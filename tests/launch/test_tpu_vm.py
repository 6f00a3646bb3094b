"""Commands for a TPU slice: stored transcripts against dry runs and against real calls."""

import shlex
import subprocess

import pytest
from support import ROOT
from support.stand_ins import StandIns, project_copy, transcripts

TRANSCRIPTS = transcripts("tpu_vm.txt")
KEEP = transcripts("tpu_vm_keep.txt")
SLICE = ("--name=paper", "--zone=us-west4-a")
RUN = ("--config=configs/tests_passed.py", "--run-dir=gs://bucket/run")


@pytest.fixture
def stand_ins(tmp_path):
    both = StandIns(tmp_path)
    both.add("gcloud")
    both.add("uv")
    return both


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    return project_copy(folder)


@pytest.mark.parametrize("line", [*TRANSCRIPTS, *KEEP])
def test_a_dry_run_prints_the_transcript(line, stand_ins, project):
    ran = stand_ins.run(*shlex.split(line), "--dry-run", cwd=project)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == (TRANSCRIPTS | KEEP)[line]
    assert stand_ins.calls == [] and not (project / "dist").exists()


@pytest.mark.parametrize("line", TRANSCRIPTS)
def test_the_transcript_is_what_is_called(line, stand_ins, project):
    ran = stand_ins.run(*shlex.split(line), cwd=project)
    assert ran.returncode == 0, ran.stderr
    printed = TRANSCRIPTS[line]
    assert stand_ins.calls == [one for one in printed if one.split()[0] in ("gcloud", "uv")]


@pytest.mark.parametrize("line", TRANSCRIPTS)
def test_a_transcript_can_be_pasted(line, stand_ins, project):
    """Pasted into a shell, it calls what the launcher would call."""
    pasted = stand_ins.run("bash", "-c", "\n".join(TRANSCRIPTS[line]), cwd=project)
    assert pasted.returncode == 0, pasted.stderr
    by_pasting = stand_ins.calls
    stand_ins.forget()
    stand_ins.run(*shlex.split(line), cwd=project)
    assert by_pasting == stand_ins.calls != []


def test_the_bundle(stand_ins, project):
    """All that a worker gets: configurations, scripts and the user's file, and nothing old."""
    (project / "mine.jsonl").write_text("{}")
    old = project / "dist/launch/paper/bundle/old-0-py3-none-any.whl"
    old.parent.mkdir(parents=True)
    old.touch()
    setup = ("launch/tpu_vm.sh", "setup", *SLICE, "--file=mine.jsonl")
    assert stand_ins.run(*setup, cwd=project).returncode == 0
    names = {path.name for path in (project / "dist/launch/paper/bundle").iterdir()}
    scripts = {"worker.sh", "until_finished.sh", "newest_checkpoint.py"}
    assert names == scripts | {"configs", "mine.jsonl"}  # the stand-in of uv makes nothing


def test_a_command_that_fails_ends_it(stand_ins, project):
    stand_ins.add("gcloud", 'case "$*" in *scp*) exit 5 ;; esac')
    ran = stand_ins.run("launch/tpu_vm.sh", "setup", *SLICE, cwd=project)
    assert ran.returncode == 5
    assert "scp" in stand_ins.calls[-1]


def test_it_works_from_any_folder(stand_ins, project, tmp_path):
    script = project / "launch" / "tpu_vm.sh"
    (tmp_path / "mine.jsonl").touch()
    words = (script, "setup", *SLICE, "--file=mine.jsonl")
    assert stand_ins.run(*words, cwd=tmp_path).returncode == 0
    assert (project / "dist/launch/paper/bundle/mine.jsonl").exists()


TOPOLOGIES = {
    "v5e:2x4": "v5litepod-8",
    "v5e:8x8": "v5litepod-64",
    "v6e:4x4": "v6e-16",
    "v5p:2x2x2": "v5p-16",
    "v4:2x2x1": "v4-8",
}


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_names_of_slices(topology, stand_ins):
    """v5e and v6e are named by chips, v4 and v5p by cores, of which a chip has two."""
    words = ("launch/tpu_vm.sh", "create", *SLICE, f"--topology={topology}", "--dry-run")
    printed = stand_ins.run(*words, cwd=ROOT).stdout
    assert f"--accelerator-type={TOPOLOGIES[topology]} " in printed


CREATE, START = ("create", *SLICE), ("run", *SLICE)
WRONG = [
    ((), "no verb is not one of create"),
    (("make",), "make is not one of create"),
    ((*CREATE, "--topology=v5e:4x4", "--bad=1"), "--bad=1 is not a flag of tpu_vm.sh"),
    (("create", "--zone=a", "--topology=v5e:4x4"), "--name=''"),
    (("create", "--zone=a", "--name=Big_One", "--topology=v5e:4x4"), "--name='Big_One'"),
    (("create", "--name=a", "--topology=v5e:4x4"), "--zone=ZONE is missing"),
    (CREATE, "--topology=KIND:SHAPE is missing"),
    ((*CREATE, "--topology=4x4"), "--topology=4x4 is not of the form v5e:4x4"),
    ((*CREATE, "--topology=v9:4x4"), "v9 is not one of v4, v5e, v5p, v6e"),
    ((*CREATE, "--topology=v5e:4x4", "--type=v4-8"), "either --type or --topology"),
    ((*CREATE, "--type=tpu7x-8"), "--version=VERSION is missing"),
    ((*CREATE, "--type=v4-8", *RUN), "is a flag of run"),
    (("setup", *SLICE, "--file=absent.jsonl"), "--file=absent.jsonl does not exist"),
    (("logs", *SLICE, "--worker=x"), "--worker=x is neither a number nor all"),
    (START, "--config=FILE is missing"),
    ((*START, "--config=a.py"), "give a folder in a bucket"),
    ((*START, "--config=a.py", "--run-dir=runs/a"), "--run-dir='runs/a'"),
    ((*START, "--keep", *RUN), "--topology=KIND:SHAPE is missing"),
    ((*START, "--keep", "--poll=soon", "--type=v4-8", *RUN), "--poll=soon is not"),
    ((*START, "--steps=3", *RUN), "the trainer's flags come after --config"),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[message for _, message in WRONG])
def test_wrong_flags(words, message, stand_ins, project):
    ran = stand_ins.run("launch/tpu_vm.sh", *words, cwd=project)
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: ") and message in ran.stderr and "usage: " in ran.stderr
    assert stand_ins.calls == []


def test_a_configuration_that_no_worker_has(stand_ins, project):
    assert stand_ins.run("launch/tpu_vm.sh", "setup", *SLICE, cwd=project).returncode == 0
    stand_ins.forget()
    words = ("launch/tpu_vm.sh", *START, "--config=mine.py", "--run-dir=gs://bucket/run")
    ran = stand_ins.run(*words, cwd=project)
    assert ran.returncode == 2 and "run setup again, with --file=mine.py" in ran.stderr
    assert stand_ins.calls == []


def test_without_uv(stand_ins, project):
    (stand_ins.folder / "stand_ins" / "uv").unlink()
    path = f"{stand_ins.folder / 'stand_ins'}:/usr/bin:/bin"
    ran = stand_ins.run("launch/tpu_vm.sh", "setup", *SLICE, cwd=project, more={"PATH": path})
    assert ran.returncode == 2 and "pip install uv" in ran.stderr


@pytest.mark.parametrize("place", ["last", "before"])
def test_a_dry_run_is_one_wherever_it_is_said(place, stand_ins, project):
    words = [*START, *RUN, "--dry-run"] if place == "last" else [*START, "--dry-run", *RUN]
    ran = stand_ins.run("launch/tpu_vm.sh", *words, cwd=project)
    assert ran.returncode == 0 and stand_ins.calls == []
    assert "--dry-run" not in ran.stdout


def test_help():
    ran = subprocess.run([ROOT / "launch/tpu_vm.sh", "--help"], capture_output=True, text=True)
    assert ran.returncode == 0 and ran.stdout.startswith("usage: ") and ran.stderr == ""


def test_a_file_that_no_worker_has(stand_ins, project):
    """The bundle is of setup: a file that was named or changed since would not be there."""
    mine = project / "mine.jsonl"
    mine.write_text("{}")
    where = ("--name=paper", "--zone=us-west4-a")
    stand_ins.run("launch/tpu_vm.sh", "setup", *where, cwd=project)
    run = ("launch/tpu_vm.sh", "run", *where, "--file=mine.jsonl")
    run += ("--config=configs/tests_passed.py", "--run-dir=gs://bucket/run")
    refused = stand_ins.run(*run, cwd=project)
    assert refused.returncode == 2
    assert "--file=mine.jsonl is not in the bundle of setup, or was changed since" in refused.stderr
    stand_ins.run("launch/tpu_vm.sh", "setup", *where, "--file=mine.jsonl", cwd=project)
    assert stand_ins.run(*run, cwd=project).returncode == 0
    mine.write_text("{}\n")
    assert stand_ins.run(*run, cwd=project).returncode == 2
