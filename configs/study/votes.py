"""Rewards from what programs of a group say together, and on which inputs they say it.

    python -m rlif_jax.study --suite configs/study/votes.py [--dry-run]

Everything is as in laptop.py. The vote of the largest class on the problem's inputs, on examples,
on inputs made from them and on tests of the policy; on made inputs its soft, gated and
novelty-seeking forms and the vote of an averaged teacher; and what reads tests of the policy.
"""

from dataclasses import replace

from configs.study.laptop import rewarded, suite


def on(name: str, inputs: str) -> dict:
    """A reward from votes on these inputs."""
    return {**rewarded(name), "reward.vote_inputs": inputs}


INPUTS = ("problem", "examples", "fuzz", "model")

suite = replace(
    suite,
    name="votes",
    methods={f"majority_vote_{inputs}": on("majority_vote", inputs) for inputs in INPUTS}
    | {name: on(name, "fuzz") for name in ("vote_fraction", "soft_vote", "evol")}
    | {"behaviour_entropy": on("behaviour_entropy", "fuzz") | {"reward.vote_entropy_max": 1.0}}
    | {"teacher_vote": on("teacher_vote", "fuzz") | {"optim.average_decay": 0.9}}
    | {name: on(name, "model") for name in ("codet", "b4", "generated_tests")},
    seeds={"": 2},
    stages=(),
)
