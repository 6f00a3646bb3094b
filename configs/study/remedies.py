"""What may keep certainty from collapsing, each alone, beside certainty as it is.

    python -m rlif_jax.study --suite configs/study/remedies.py [--dry-run]

Everything is as in laptop.py. `then_tests` gives the weight of certainty to the tests between steps
5 and 15; `guarded` gives it to them where the guard tells a collapse, from the last checkpoint
before; `kl` anchors the policy to its start and `kl_average` to the average of its last steps;
`entropy` has a bonus that keeps it at 0.4 nats a token; `least_window` rewards the least certain 16
tokens, `code` those of the program alone; `long_enough` takes reward from responses of fewer than
24. `compiling`, `two_behaviours` and `spread_votes` are gates on the data, and `without_certain`
leaves rows of outlying low entropy out of the loss.
"""

from dataclasses import replace

from configs.study.laptop import rewarded, suite

CERTAINTY = rewarded("probability_disparity")

suite = replace(
    suite,
    name="remedies",
    methods={
        "certainty": CERTAINTY,
        "then_tests": {
            "reward.terms": (("probability_disparity", 1.0), ("tests_passed", 0.0)),
            "reward.ramps": (
                ("probability_disparity", 5, 15, 0.0),
                ("tests_passed", 5, 15, 1.0),
            ),
        },
        "guarded": {
            **CERTAINTY,
            "guard.action": "rollback",
            "guard.terms": (("tests_passed", 1.0),),
            "checkpoint.every": 2,
        },
        "kl": {**CERTAINTY, "loss.kl_coef": 0.05},
        "kl_average": {
            **CERTAINTY,
            "loss.kl_coef": 0.05,
            "loss.kl_anchor": "average",
            "optim.average_decay": 0.9,
        },
        "entropy": {**CERTAINTY, "loss.entropy_target": 0.4},
        "compiling": {**CERTAINTY, "gates.min_compiling": 0.5},
        "two_behaviours": {**CERTAINTY, "gates.min_behaviours": 2},
        "spread_votes": {**CERTAINTY, "gates.vote_entropy": (0.1, 1.5)},
        "without_certain": {**CERTAINTY, "gates.low_entropy_iqr": 0.75},
        "least_window": {**CERTAINTY, "reward.over": "lowest_window(16)"},
        "code": {**CERTAINTY, "reward.over": "code"},
        "long_enough": {
            **CERTAINTY,
            "reward.short_length_tokens": 24,
            "reward.short_length_penalty": 0.5,
        },
    },
    seeds={"": 2},
    stages=(),
)
