"""What a page says of configurations: differences, what made runs, and sweeps."""

import json

import pytest
from support.reported_runs import arc, methods_in, write_run

from rlif_jax.reporting.compared import (
    Maker,
    SweptField,
    differences,
    makers,
    rewarded,
    sweeps,
)
from rlif_jax.reporting.recorded_runs import methods_of, read_runs


@pytest.fixture
def methods(tmp_path):
    return methods_in(tmp_path)


def test_differences_leave_out_seeds_and_names(methods):
    found = differences(methods[:2])
    assert found.fields == {"reward.terms": ["self_certainty, 1", "random, 1"]}
    assert found.shared["sampling.temperature"] == "1"
    assert found.shared["reward.vote_entropy_max"] == "none"
    assert found.shared["execution.monitor"] == "yes"
    assert (found.shared["loss.epochs"], found.shared["model.lora_rank"]) == ("1", "0")
    assert not {"seed", "name", "run_dir"} & found.shared.keys()


def test_a_sweep_is_one_number_at_several_values(tmp_path):
    def run(name, end, **fields):
        return write_run(tmp_path / name, arc(0.3, end), **fields)

    folders = [
        run("high", 0.2, loss__kl_coef=0.1),
        run("none", 0.05),
        run("low", 0.1, loss__kl_coef=0.01),
        run("other", 0.1, loss__kl_coef=0.5, reward__terms=[["random", 1.0]]),
    ]
    (found,) = sweeps(methods_of(read_runs(folders)))
    assert found == SweptField(
        "loss.kl_coef",
        ["none", "low", "high"],
        ["0", "0.01", "0.1"],
        [0.3, 0.3, 0.3],
        [0.05, 0.1, 0.2],
    )


def test_runs_are_listed_by_what_made_them(methods):
    runs = [run for method in methods for run in method.runs]
    assert makers(runs) == {Maker("unknown", "unknown", "1 x cpu", ""): [run.name for run in runs]}


def test_rewards_are_explained(methods):
    found = rewarded(methods)
    assert list(found) == ["self_certainty", "random", "tests_passed"]
    assert found["random"] == ("a fair coin", "control")


def test_a_field_that_an_older_version_did_not_have_is_its_default(tmp_path):
    folders = [write_run(tmp_path / f"one-s{seed}", arc(0.3, 0.2), seed=seed) for seed in (0, 1)]
    path = folders[0] / "config.json"
    record = json.loads(path.read_text())
    del record["config"]["guard"]
    path.write_text(json.dumps(record))
    (method,) = methods_of(read_runs(folders))
    assert [run.seed for run in method.runs] == [0, 1]


def test_changed_code_is_no_commit(tmp_path):
    folder = write_run(tmp_path / "one", arc(0.3, 0.2))
    path = folder / "config.json"
    revision = "0123456789abcdef" * 2 + "01234567"
    for suffix in ("", "+dirty"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"revision": revision + suffix}))
        (maker,) = makers(read_runs([folder]))
        assert maker.revision == "0123456789ab" + suffix
