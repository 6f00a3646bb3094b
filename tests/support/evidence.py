"""Evidence of four rows of up to three tokens, made by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from rlif_jax.batch import Evidence, TokenStats
from rlif_jax.problem import Outcome, Verdict

P, CRASH = Verdict.PASSED, Verdict.RUNTIME_ERROR
OUTCOMES = (
    Outcome(P, (P, P, P, P), 4, 0.1, answers=("a", "b", "c", "d")),
    Outcome(CRASH, (P, CRASH), 4, 0.1, answers=("a", None)),
    Outcome(Verdict.NO_CODE, (), 4, 0.0),
    Outcome(P, (P,), 1, 0.1, answers=("a",)),
)
CODES = ("print(1)", "1 / 0", None, "x = 1")
TEXTS = ("<confidence>0.9</confidence>", "<confidence>20%</confidence>", "", "none")
MASK = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]], bool)
NAN = np.nan  # outside the mask


def evidence(group_size=2, outcomes=OUTCOMES, key=0, mask=MASK, **stats):
    fields = dict.fromkeys(("logprob", "entropy", "self_certainty", "top1", "top2"), MASK * 0.0)
    arrays = {k: jnp.asarray(v, jnp.float32) for k, v in (fields | stats).items()}
    return Evidence(
        stats=TokenStats(**arrays),
        mask=jnp.asarray(mask),
        truncated=jnp.zeros(len(mask), bool),
        key=jax.random.key(key),
        group_size=group_size,
        outcomes=outcomes,
        teacher=outcomes,
        texts=TEXTS,
        codes=CODES,
    )
