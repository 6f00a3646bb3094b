"""Replays of runs that skip batches, return to a checkpoint, refill, train adapters, use a mesh."""

import pytest
from support.replays import arguments, lines, rows
from support.several import ended, started

from rlif_jax import experience, replay, train
from rlif_jax.errors import NotFinite
from rlif_jax.step_record import Skipped


def not_finite_on_call(number: int):
    """A `combine` whose rewards are not finite on one of its calls."""
    calls, real = [], experience.combine

    def combine(*args):
        calls.append(args)
        if len(calls) == number:
            raise NotFinite("planted")
        return real(*args)

    return combine


def test_a_skipped_batch_is_skipped_again(flags, tmp_path, monkeypatch, capsys):
    """The first batch of the second step; what takes its place has another key."""
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(experience, "combine", not_finite_on_call(2))
        train.main(arguments(flags, folder))
    assert len(list((folder / "failures").iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr(experience, "combine", not_finite_on_call(2))
        assert replay.replay(folder, 1, 3, start=0) is None
    # Without the fault the second step has the batch that was skipped.
    found = replay.replay(folder, 2)
    assert (found.what, found.step) == ("key", 2)
    # And with one more that is skipped than a run allows, it cannot be repeated.
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(experience, "combine", lambda *args: not_finite_on_call(1)(*args))
        replay.main([str(folder), "--step", "2"])
    assert end.value.code == 2
    assert "step 2 cannot be repeated: 4 batches in a row" in capsys.readouterr().err


def test_steps_after_a_return_to_a_checkpoint(flags, tmp_path, monkeypatch):
    """The third step diverges once; after that the run has another key, as its checkpoints do."""
    folder, tries, real = tmp_path / "run", [], train.train_step

    def diverging(cfg, stages, state, *args):
        tries.append(int(state.step) + 1)
        if tries == [1, 2, 3]:
            return state, Skipped("planted", {})
        return real(cfg, stages, state, *args)

    with monkeypatch.context() as patch:
        patch.setattr(train, "train_step", diverging)
        more = ("--failures.skipped-batches=0", "--steps=4")
        train.main(arguments(flags, folder, *more))
    assert tries == [1, 2, 3, 3, 4]
    keys = [line["key"] for line in lines(folder)]
    assert keys[0] == keys[1] != keys[2] == keys[3]
    assert replay.replay(folder, 1, 4, start=0) is None
    assert replay.replay(folder, 3) is None  # from a checkpoint with the first key
    assert replay.replay(folder, 4) is None  # and from one with the other


def test_all_rounds_of_a_step_are_drawn_again(flags, tmp_path):
    folder = tmp_path / "run"
    train.main(arguments(flags, folder, "--data.max-refills=1", "--steps=2", name="constant"))
    drawn = rows(folder, 2)
    assert len(drawn) == 2 * 16 and len({tuple(row["key"]) for row in drawn}) == len(drawn)
    assert replay.replay(folder, 2) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ("--model.lora-rank=2", "--checkpoint.adapters-only"),
        ("--loss.kl-coef=0.1", "--loss.epochs=2", "--loss.mini-batches=2"),
        ("--mesh.data=2", "--mesh.fsdp=2", "--mesh.tensor=2", "--model.dtype=bfloat16"),
        (
            *("--model.lora-rank=2", "--optim.average-decay=0.5", "--loss.kl-coef=0.1"),
            *("--loss.kl-anchor=average", "--loss.mini-batches=2", "--data.max-refills=1"),
            *("--reward.terms", "self_certainty", "0.1", "teacher_vote", "1.0"),
        ),
    ],
    ids=["adapters", "KL", "mesh", "average"],
)
def test_kinds_of_training_are_identical(flags, tmp_path, more):
    folder = tmp_path / "run"
    train.main(arguments(flags, folder, *more))
    assert replay.replay(folder, 1, 3, start=0) is None
    assert replay.replay(folder, 3) is None


@pytest.mark.slow
def test_another_mesh_is_taken_and_may_round_differently(flags, tmp_path, capsys):
    folder = tmp_path / "run"
    train.main(arguments(flags, folder, "--steps=1"))
    with pytest.raises(SystemExit) as end:
        replay.main([str(folder), "--step", "1", "--mesh.fsdp", "2", "--mesh.tensor", "2"])
    assert end.value.code == 1
    # Every token and verdict is the same; a sum over heads is rounded in another order.
    said = capsys.readouterr().out
    assert any(f"step 1: the {what}" in said for what in ("reward", "advantage", "digest"))


@pytest.mark.slow
def test_two_processes_replay_what_two_have_trained(flags, tmp_path):
    folder, mesh = tmp_path / "run", ("--mesh.data=2", "--mesh.fsdp=2")
    pair = started(arguments(flags, folder, *mesh, "--steps=2"), 2)
    outputs = ended(pair)
    assert [process.returncode for process in pair] == [0, 0], "\n\n".join(outputs)
    for step, origin in (("1", "the start of the run"), ("2", "checkpoint 1")):
        pair = started([str(folder), "--step", step], 2, command="replay")
        first, second = ended(pair)
        assert [process.returncode for process in pair] == [0, 0], f"{first}\n\n{second}"
        assert f"from {origin}" in first and f"step {step}: identical" in first
        assert "identical" not in second
