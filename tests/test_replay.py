"""Replays of real runs: identical where nothing was changed, else the first thing that differs."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import pytest
from support.replays import SEED, arguments, lines, rows
from support.small_runs import metrics

from rlif_jax import prepare, replay, step, train
from rlif_jax.errors import UserError
from rlif_jax.run.digest import digest_of, digests
from rlif_jax.sampler.sync import make_sync
from rlif_jax.weights.source import open_model


@pytest.fixture(scope="module")
def honest(flags, tmp_path_factory):
    folder = tmp_path_factory.mktemp("honest") / "run"
    train.main(arguments(flags, folder))
    return folder


# --- what is recorded


def test_a_record_says_what_drew_it(honest, tiny_path):
    """Key, tokens and policy of each row; of the second step, the parameters after the first."""
    opened = open_model(str(tiny_path))
    run_key = jax.random.key(SEED)
    for number in (1, 2, 3):
        sample_key, _ = jax.random.split(jax.random.fold_in(run_key, number))
        for row, record in enumerate(rows(honest, number)):
            key = jax.random.key_data(jax.random.fold_in(sample_key, row))
            assert record["key"] == key.tolist()
            assert len(record["tokens"]) == record["length"]
            ended = record["tokens"][-1] in opened.cfg.eos_ids
            said = record["tokens"][: -1 if ended else None]
            assert opened.tokenizer.decode(said) == record["completion"]
            assert record["policy"]["step"] == number - 1
    first, second, third = lines(honest)
    assert [first["step"], second["step"], third["step"]] == [1, 2, 3]
    for line in (first, second, third):
        assert line["key"] == jax.random.key_data(run_key).tolist()
        assert line["problems"] == [row["problem"] for row in rows(honest, line["step"])][::4]
        assert {row["policy"]["digest"] for row in rows(honest, line["step"])} == {
            line["policy"]["digest"]
        }
    assert digest_of(first["parameters"]) == second["policy"]["digest"]  # in float32
    assert digest_of(second["parameters"]) == third["policy"]["digest"]
    assert first["policy"]["digest"] != second["policy"]["digest"]
    assert first["position"] != second["position"]


# --- nothing was changed


def contents(folder: Path) -> dict[str, tuple]:
    paths = sorted(folder.rglob("*"))
    return {str(p): (p.stat().st_mtime_ns, p.is_file() and p.read_bytes()) for p in paths}


def test_an_honest_run_is_identical_from_its_start(honest, capsys):
    before = contents(honest)
    assert replay.replay(honest, 1, 3, start=0) is None
    said = capsys.readouterr().out
    for number in (1, 2, 3):
        assert f"step {number}: identical" in said
    assert contents(honest) == before


@pytest.mark.parametrize(("number", "origin"), [(2, "checkpoint 1"), (3, "checkpoint 2")])
def test_an_honest_run_is_identical_from_a_checkpoint(honest, capsys, number, origin):
    with pytest.raises(SystemExit) as end:
        replay.main([str(honest), "--step", str(number)])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert f", from {origin}" in said and f"step {number}: identical" in said


# --- planted faults, replayed against the honest run


def test_shifted_logits_change_a_token(honest, monkeypatch):
    def hotter(graphdef, *, batching, temperature):
        return step_engine(graphdef, batching=batching, temperature=1.2 * temperature)

    step_engine = step.Engine
    monkeypatch.setattr(step, "Engine", hotter)
    found = replay.replay(honest, 2)
    assert found.what == "token" and found.step == 2
    recorded = rows(honest, 2)
    words = found.sentence.split()  # token T of row R (sample S of ID) was A and is now B
    at, row, was, now = int(words[1]), int(words[4]), words[10], words[14]
    assert recorded[row]["tokens"][at] == int(was) != int(now)


def test_a_changed_seed_changes_the_key(honest):
    other = dataclasses.replace(replay.configuration_of(honest), seed=SEED + 1)
    found = replay.replay(honest, 1, config=other)
    assert found.what == "key"
    assert str(found) == (
        f"step 1: the random key of the run was [0, {SEED}] and is now [0, {SEED + 1}]"
    )


def test_a_flipped_verdict_is_named(honest, tmp_path, capsys):
    flipped = tmp_path / "run"
    shutil.copytree(honest, flipped)
    records = rows(flipped, 2)
    was = records[5]["verdict"]
    records[5]["verdict"] = "passed"
    (flipped / "rollouts/step_000002.jsonl").write_text(
        "".join(f"{json.dumps(record)}\n" for record in records)
    )
    with pytest.raises(SystemExit) as end:
        replay.main([str(flipped), "--step", "2", "--step-to", "3"])
    assert end.value.code == 1
    said = capsys.readouterr().out
    assert (
        f"step 2: the verdict of row 5 (sample 1 of {records[5]['problem']}) was 'passed' and is "
        f"now '{was}'"
    ) in said
    assert was != "passed" and "step 3" not in said.split("step 2:")[1]


def test_a_skipped_problem_is_named(honest, monkeypatch):
    def one_further(batches, mixture, position):
        restore(batches, mixture, position)
        next(batches)

    restore = prepare.restore_position
    monkeypatch.setattr(prepare, "restore_position", one_further)
    found = replay.replay(honest, 2)
    first = rows(honest, 2)[0]["problem"]
    assert found.what == "problem"
    assert found.sentence.startswith(f"the problem of row 0 (sample 0 of {first}) was '{first}'")


def stale_sync(graphdef):
    """A sync that keeps the first parameters it was given."""
    sync, kept = make_sync(graphdef), []

    def stale(params):
        if not kept:  # a copy: the update uses up the trainer's own
            kept.append(jax.tree.map(lambda x: x.copy(), sync(params)))
        return kept[0]

    return stale


def test_a_stale_sampler_changes_a_token(honest, monkeypatch):
    """With the alarm off, which would find it first."""
    monkeypatch.setattr(step, "make_sync", stale_sync)
    monkeypatch.setattr(step, "digest_of_copy", lambda copy, params, *_: digest_of(digests(params)))
    found = replay.replay(honest, 1, 3, start=0)
    assert (found.what, found.step) == ("token", 2)


# --- a run whose sampler keeps the initial parameters


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_training_with_a_stale_sampler_stops_before_it_draws(
    flags, tmp_path, monkeypatch, capsys, dtype
):
    monkeypatch.setattr(step, "make_sync", stale_sync)
    folder = tmp_path / "run"
    with pytest.raises(SystemExit) as end:
        train.main(arguments(flags, folder, f"--model.dtype={dtype}"))
    assert end.value.code == 2
    assert "the sampler draws with parameters that are not the trainer's" in capsys.readouterr().err
    assert [row["step"] for row in metrics(folder)] == [1]
    assert [line["step"] for line in lines(folder)] == [1]
    assert not (folder / "rollouts/step_000002.jsonl").exists()
    assert (folder / "checkpoints/1").is_dir()


def test_without_that_alarm_the_drift_stops_it_and_a_replay_names_it(
    flags, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(step, "make_sync", stale_sync)
        patch.setattr(step, "digest_of_copy", lambda copy, params, *_: digest_of(digests(copy)))
        with pytest.raises(SystemExit) as end:
            train.main(arguments(flags, folder, "--failures.max-drift=0.3"))
    assert end.value.code == 2
    said = capsys.readouterr().err
    first, second = metrics(folder)  # the step is recorded, and no checkpoint has it
    assert first["drift/sampler_logprob"] < 1e-4 and second["drift/sampler_logprob"] > 0.3
    assert f"{second['drift/sampler_logprob']:.3g} nats a token" in said
    assert "failures.max_drift is 0.3" in said and "--failures.max-drift" in said
    assert not (folder / "checkpoints/2").exists()
    initial = lines(folder)[0]["policy"]["digest"]
    assert lines(folder)[1]["policy"] == {"step": 1, "digest": initial}

    found = replay.replay(folder, 2)
    assert (found.what, found.step) == ("policy", 2)
    assert f"digest {initial} and are now those of step 1" in found.sentence


# --- input that cannot be used


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--step", "0"], "steps count from 1"),
        (["--step", "3", "--step-to", "2"], "--step-to comes after --step"),
        (["--step", "4"], "no complete record of step 4: provenance.jsonl has steps 1 to 3"),
        (["--step", "2", "--from", "2"], "can be replayed from 0, 1 (0: the start of the run)"),
        (["--step", "2", "--seed", "9"], f"seed was {SEED} and is now 9"),
    ],
)
def test_bad_input_is_refused_with_the_remedy(honest, capsys, given, message):
    with pytest.raises(SystemExit) as end:
        replay.main([str(honest), *given])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        replay.main([str(tmp_path), "--step", "1"])
    assert end.value.code == 2
    assert "is not a run folder: it has no config.json" in capsys.readouterr().err


def test_a_step_that_an_older_version_recorded_is_refused(honest, tmp_path):
    older = tmp_path / "run"
    shutil.copytree(honest, older)
    path = older / "rollouts/step_000002.jsonl"
    records = [{k: v for k, v in row.items() if k != "tokens"} for row in rows(older, 2)]
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    with pytest.raises(UserError, match=r"step 2: .* its completions are not all there"):
        replay.replay(older, 2)


def test_replay_and_training_prepare_alike():
    """One page prepares both; a copy of it would drift away from what training does."""
    assert replay.begin is train.begin is prepare.begin
    assert replay.train_step is train.train_step is step.train_step
