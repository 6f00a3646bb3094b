"""The study on a laptop: SmolLM2-135M on the starter problems, long enough to show the whole arc.

    python -m rlif_jax.study --suite configs/study/laptop.py [--dry-run]

Eight rewards, four of them with three seeds; the vote on hidden tests and on inputs made from the
examples; two remedies, self-certainty that gives way to tests by plan and where the guard tells a
collapse; and a run from tests that starts where a certainty reward has been for 20 steps. The
learning rate is that of the other laptop runs: at twice it self-certainty collapses within six
steps, before an evaluation could see its gain.
"""

from dataclasses import replace

from configs.base import BASE
from rlif_jax.config import Checkpoint, Eval, Stage, Suite

START = "trajectory_entropy"
"""Whose checkpoint a run from tests starts from; it takes 1.6 GB."""


def rewarded(name: str) -> dict:
    """A method with this reward alone."""
    return {"reward.terms": ((name, 1.0),)}


suite = Suite(
    name="laptop",
    base=replace(
        BASE,
        steps=40,
        eval=Eval(every=5),
        checkpoint=Checkpoint(every=20, keep=1),
    ),
    methods={
        "self_certainty": rewarded("self_certainty"),
        "probability_disparity": rewarded("probability_disparity"),
        "tests_passed": rewarded("tests_passed"),
        "random": rewarded("random"),
        "token_entropy": rewarded("token_entropy"),
        START: {**rewarded(START), "checkpoint.keep_every": 20},
        "majority_vote": rewarded("majority_vote"),
        "majority_vote_fuzz": {**rewarded("majority_vote"), "reward.vote_inputs": "fuzz"},
        "constant": rewarded("constant"),
        "certainty_then_tests": {
            "reward.terms": (("self_certainty", 1.0), ("tests_passed", 0.0)),
            "reward.ramps": (("self_certainty", 5, 15, 0.0), ("tests_passed", 5, 15, 1.0)),
        },
        "certainty_guarded": {
            **rewarded("self_certainty"),
            "guard.action": "rollback",
            "guard.terms": (("tests_passed", 1.0),),
            "checkpoint.every": 2,
        },
    },
    seeds={
        "self_certainty": 3,
        "probability_disparity": 3,
        "tests_passed": 3,
        "random": 3,
        "": 1,
    },
    stages=(Stage("tests_passed", after=START, at=(20,)),),
    step_s=40.0,  # two cores with AVX2
)
