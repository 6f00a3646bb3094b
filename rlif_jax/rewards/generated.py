"""Rewards from tests that the policy writes: which programs, and which tests, are to be believed.

E_ij = 1 if program i of a group passes test j of its problem. The tests are those of
reward.vote_inputs=model: the examples of the statement, which are known to be right, and the tests
that the policy has proposed, of which any may be wrong. The problem's own tests play no part. A row
without a program passes none.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from scipy.special import betaln

from rlif_jax.batch import Array, Evidence
from rlif_jax.errors import UserError
from rlif_jax.problem import Verdict
from rlif_jax.rewards.registry import reward

B4_ALPHA = 1e3
"""Prior a of `b4` for programs and tests: most of either are right. In the authors' experiments it
is alpha_xy = 1e3 (arXiv 2409.08692; main.py of ZJU-CTAG/B4)."""
B4_BETA = 1e5
"""Prior b0 of `b4`: a wrong program hardly ever passes a wrong test. The authors' experiments have
beta_0 of 1e4, 1e5 and 1e6; this is the middle one."""

_NEAR = 1e-8  # scores of that distance are equal: betaln rounds its logarithms


@reward(needs="exec", all_tests=True)
def generated_tests(ev: Evidence) -> Array:
    """Share of the tests that the row's program passes, mean_j E_ij; 0 without a test.

    What CURE (arXiv 2506.03136) gives to programs, there over tests that are known to be right.
    """
    passed = [E_GM.mean(axis=1) if E_GM.shape[1] else E_GM.sum(axis=1) for E_GM in passes(ev)]
    return jnp.asarray(np.concatenate(passed), jnp.float32)


@reward(needs="exec", all_tests=True)
def codet(ev: Evidence) -> Array:
    """1 to the programs of the class with the largest (tests passed) * sqrt(programs), else 0.

    Programs that pass the same tests are a class. Of several best ones each counts; programs that
    pass no test are in none. Source: CodeT, arXiv 2207.10397, with the root that its authors take
    of the number of programs.
    """
    return _best_classes(ev, codet_score)


@reward(needs="exec", all_tests=True)
def b4(ev: Evidence) -> Array:
    """1 to the programs of the class that is most probably the right one, else 0.

    As `codet`, with the score of B4 (arXiv 2409.08692), see `b4_score`.
    """
    return _best_classes(ev, b4_score)


def passes(ev: Evidence) -> list[np.ndarray]:
    """E of each group, bool [G, M]; M is the number of tests of its problem and may be 0.

    Raises:
        UserError: the policy was not asked for tests.
    """
    inputs = ev.settings.vote_inputs
    if ev.votes is None or inputs != "model":
        raise UserError(
            f"reward.vote_inputs={inputs} has no tests of the policy, and this reward reads which "
            "of them a program passes: set reward.vote_inputs=model."
        )
    groups = []
    for start in range(0, len(ev.votes), ev.group_size):
        group = ev.votes[start : start + ev.group_size]
        E_GM = np.zeros((len(group), max(outcome.tests_total for outcome in group)), bool)
        for i, outcome in enumerate(group):
            ran = len(outcome.results)  # fewer where it does not compile
            E_GM[i, :ran] = [verdict is Verdict.PASSED for verdict in outcome.results]
        groups.append(E_GM)
    return groups


def codet_score(E_GM: np.ndarray, class_G: np.ndarray) -> float:
    """Tests that the class passes, times the root of its size. `class_G` bool [G]: its programs."""
    return float(E_GM[class_G][0].sum() * np.sqrt(class_G.sum()))


def b4_score(E_GM: np.ndarray, class_G: np.ndarray) -> float:
    """Log-posterior that a class is right, its programs and the tests they pass, and nothing else.

    ln B(n_y + a, M - n_y + 1) + ln B(n_x + a, N - n_x + 1)
    + ln B(k1 + 1, K1 - k1 + 1) + ln B(k0 + 1, K0 - k0 + b0), up to what all classes share, with M
    tests of which it passes n_y, N programs of which n_x are in it, and, of the K1 runs of the
    other programs on the tests that it passes, and of their K0 runs on the others, k1 and k0
    passed. Source: arXiv 2409.08692, as strategy.py of ZJU-CTAG/B4 has it.
    """
    y_M = E_GM[class_G][0]
    others_1, others_0 = E_GM[~class_G][:, y_M], E_GM[~class_G][:, ~y_M]
    score = (
        _log_beta(y_M, B4_ALPHA, 1)
        + _log_beta(class_G, B4_ALPHA, 1)
        + _log_beta(others_1, 1, 1)
        + _log_beta(others_0, 1, B4_BETA)
    )
    return float(score)


def _log_beta(cells: np.ndarray, alpha: float, beta: float) -> float:
    """ln B(ones + alpha, zeros + beta) of cells that are one or zero."""
    ones = cells.sum()
    return betaln(ones + alpha, cells.size - ones + beta)


def _best_classes(ev: Evidence, score: Callable[[np.ndarray, np.ndarray], float]) -> Array:
    """1 in the classes of the largest score of a group, float32 [B]."""
    best = []
    for E_GM in passes(ev):
        classes = [(row_M == E_GM).all(axis=1) for row_M in np.unique(E_GM, axis=0) if row_M.any()]
        scores = [score(E_GM, class_G) for class_G in classes]
        chosen_G = np.zeros(len(E_GM), bool)
        for class_G, its in zip(classes, scores, strict=True):
            chosen_G |= class_G & (its >= max(scores) - _NEAR)
        best.append(chosen_G)
    return jnp.asarray(np.concatenate(best), jnp.float32)
