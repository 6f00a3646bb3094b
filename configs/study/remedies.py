"""What may keep certainty from collapsing, each alone, beside certainty as it is.

    python -m rlif_jax.study --suite configs/study/remedies.py [--dry-run]

Everything is as in laptop.py. `then_tests` gives the weight of certainty to the tests between steps
5 and 15; `kl` anchors the policy to its start; `least_window` rewards the least certain 16 tokens,
`code` those of the program alone; `long_enough` takes reward from responses of fewer than 24.
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
        "kl": {**CERTAINTY, "loss.kl_coef": 0.05},
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
