"""What made a run: another configuration is refused, and the revision of the code is found."""

import dataclasses
import json
import math
import runpy
import subprocess
from pathlib import Path

import pytest
from support import ROOT
from support.run_folders import write_steps

from rlif_jax.config import Checkpoint, Config, Data, Execution, Loss, Mesh, Model, Optim, Reward
from rlif_jax.errors import UserError
from rlif_jax.run.log import RunLog
from rlif_jax.run.provenance import (
    check_same_config,
    differing_fields,
    git_revision,
    recorded_config,
    resolved,
)

# --- another configuration


def test_another_configuration_is_refused_with_the_fields_named(tmp_path):
    write_steps(tmp_path, 1)
    other = Config(
        seed=3,
        optim=Optim(learning_rate=1e-5),
        reward=Reward(terms=(("self_certainty", 1.0),)),
    )
    with pytest.raises(UserError) as refusal:
        check_same_config(tmp_path, other)
    message = str(refusal.value)
    assert "seed was 0 and is now 3" in message
    assert "optim.learning_rate was 1e-06 and is now 1e-05" in message
    assert (
        "reward.terms was [['tests_passed', 1.0]] and is now [['self_certainty', 1.0]]" in message
    )
    assert message.count(" was ") == 3
    assert str(tmp_path) in message and "--run-dir" in message


def test_a_resume_may_go_on_for_longer_and_save_elsewhere(tmp_path):
    write_steps(tmp_path, 1)
    check_same_config(tmp_path, Config())
    check_same_config(
        tmp_path,
        Config(
            name="other",
            run_dir=str(tmp_path),
            steps=99,
            resume=False,
            checkpoint=Checkpoint(every=1, keep=9),
            execution=Execution(workers=64),
            model=Model(remat="attention"),
        ),
    )
    with pytest.raises(UserError, match=r"execution.time_limit_s was 2.0 and is now 9"):
        check_same_config(tmp_path, Config(execution=Execution(time_limit_s=9)))


def change_config(folder: Path, change) -> None:
    """Write a run folder's config.json as another version would have written it."""
    path = folder / "config.json"
    saved = json.loads(path.read_text())
    change(saved["config"])
    path.write_text(json.dumps(saved))


def test_a_field_that_an_older_run_lacks_counts_as_its_default(tmp_path):
    def older(config):
        del config["loss"]["kl_coef"], config["seed"], config["optim"], config["checkpoint"]

    write_steps(tmp_path, 1)
    change_config(tmp_path, older)
    check_same_config(tmp_path, Config())
    check_same_config(tmp_path, Config(checkpoint=Checkpoint(every=1), mesh=Mesh(fsdp=2)))
    with pytest.raises(UserError) as refusal:
        check_same_config(tmp_path, Config(loss=Loss(kl_coef=0.1), optim=Optim(learning_rate=1e-5)))
    message = str(refusal.value)
    assert "loss.kl_coef was 0.0 and is now 0.1; optim.learning_rate was 1e-06 and is" in message
    assert message.count(" was ") == 2


@pytest.mark.parametrize("remat", [True, False])
def test_a_run_of_the_version_in_which_remat_was_a_flag_resumes(tmp_path, remat):
    write_steps(tmp_path, 1)
    change_config(tmp_path, lambda config: config["model"].update(remat=remat))
    check_same_config(tmp_path, Config())


def test_a_field_that_this_version_lacks_is_named(tmp_path):
    """Nobody knows what it did, so the run is one of the version that wrote it."""

    def other(config):
        config["loss"]["removed"] = 0.25
        config["section"] = {"gone": "x"}
        config["checkpoint"]["removed"] = 1  # how often to save may change anyway

    write_steps(tmp_path, 1)
    revision = json.loads((tmp_path / "config.json").read_text())["revision"]
    change_config(tmp_path, other)
    with pytest.raises(UserError) as refusal:
        check_same_config(tmp_path, Config())
    message = str(refusal.value)
    assert "does not have: loss.removed=0.25, section.gone='x'. Resume it" in message
    assert f"(revision {revision})" in message


def test_only_a_used_folder_is_checked(tmp_path):
    other = dataclasses.replace(Config(), seed=1)
    check_same_config(tmp_path / "not_there", other)
    write_steps(tmp_path)  # died before its first step
    check_same_config(tmp_path, other)
    (tmp_path / "checkpoints/1").mkdir(parents=True)
    with pytest.raises(UserError, match="seed was 0 and is now 1"):
        check_same_config(tmp_path, other)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"config": 3}', "\xff"])
def test_an_unreadable_config_is_refused(tmp_path, text):
    write_steps(tmp_path, 1)
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"config.json cannot be read"):
        check_same_config(tmp_path, Config())


# --- the configuration of a run folder


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs").rglob("*.py")), ids=lambda p: f"{p.parent.name}/{p.stem}"
)
def test_a_recorded_configuration_is_read_back(tmp_path, path):
    config = runpy.run_path(str(path)).get("config")
    if config is None:
        pytest.skip("a base of others")
    with RunLog(tmp_path, config):
        assert recorded_config(tmp_path) == config


def test_pairs_and_absent_fields_of_a_recorded_configuration(tmp_path):
    config = Config(
        seed=4,
        data=Data(mix=(("starter", 1.0), ("humaneval", 0.5))),
        execution=Execution(time_limit_s=math.inf),
    )
    with RunLog(tmp_path, config):
        pass

    def older(saved):
        del saved["failures"], saved["loss"]["kl_coef"]
        saved["checkpoint"]["gone"] = 1  # of another version, and without effect on a step

    change_config(tmp_path, older)
    assert recorded_config(tmp_path) == config
    change_config(tmp_path, lambda saved: saved.update(seed="four"))
    with pytest.raises(UserError, match=r"seed='four' must be of type int. Use the version"):
        recorded_config(tmp_path)
    change_config(tmp_path, lambda saved: saved["loss"].update(removed=0.25))
    with pytest.raises(UserError, match=r"does not have: loss.removed=0.25"):
        recorded_config(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match=r"is not a run folder: it has no config.json"):
        recorded_config(tmp_path)


# --- revision


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_git_revision(tmp_path):
    package = tmp_path / "checkout/rlif_jax"
    package.mkdir(parents=True)
    assert git_revision(package) is None
    git(tmp_path / "checkout", "init", "-q")
    assert git_revision(package) is None  # no commit yet
    (package / "a.py").write_text("1")
    git(package, "add", ".")
    git(package, "commit", "-q", "-m", "one")
    revision = git(package, "rev-parse", "HEAD")
    assert git_revision(package) == revision
    (package / "untracked.txt").write_text("")
    assert git_revision(package) == revision
    (package / "a.py").write_text("2")
    assert git_revision(package) == revision + "+dirty"
    installed = tmp_path / "checkout/.venv/site-packages/rlif_jax"
    installed.mkdir(parents=True)
    assert git_revision(installed) is None


# --- a study whose folders have moved


def started(folder: str, origin: str) -> Config:
    return Config(name="second", run_dir=folder and f"{folder}/second", init_from=origin)


@pytest.mark.parametrize(
    ("folder", "origin", "same"),
    [
        ("runs/study", "runs/study/first@20", True),
        ("runs/study/", "runs/study//first@20", True),
        ("/moved/study", "/moved/study/first@20", True),
        ("gs://bucket/study", "gs://bucket/study/first@20", True),
        ("/moved/study", "/moved/study/first@40", False),
        ("/moved/study", "/moved/study/third@20", False),
        ("/moved/study", "/moved/other/first@20", False),
        ("/moved/study", "runs/study/first@20", True),
        ("/moved/study", "study/first@20", False),  # not known where that is
        ("gs://bucket/study", "gs://other/study/first@20", False),
        ("runs/study", "", False),
    ],
)
def test_runs_that_moved_together_start_from_the_same(folder, origin, same):
    was = resolved(started("runs/study", "runs/study/first@20"))
    found = differing_fields(was, started(folder, origin))
    assert [one.split(" was ")[0] for one in found] == ([] if same else ["init_from"])
