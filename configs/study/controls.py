"""What a reward does that says nothing: a coin, a constant, shuffled tests, brevity.

    python -m rlif_jax.study --suite configs/study/controls.py [--dry-run]

Whether the reward causes a collapse, or the optimiser: everything is as in laptop.py but for the
reward.
"""

from dataclasses import replace

from configs.study.laptop import rewarded, suite

suite = replace(
    suite,
    name="controls",
    methods={name: rewarded(name) for name in ("random", "constant", "shuffled", "length")},
    seeds={"": 3},
    stages=(),
)
