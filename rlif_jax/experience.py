"""What a training step learns from: completions of its prompts, and what each of them is worth.

Dynamic sampling (DAPO, arXiv 2503.14476) is here as well: groups whose rewards are equal teach
nothing, so that further prompts may be drawn in their place.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from rlif_jax.batch import Array, Evidence, Rollout, TokenStats
from rlif_jax.config import Config
from rlif_jax.console.notice import Notice
from rlif_jax.data.generated_tests import with_proposed_tests
from rlif_jax.data.prompts import EncodedPrompt, opens_thinking
from rlif_jax.distributed import gathered
from rlif_jax.errors import NotFinite
from rlif_jax.gates import kept_rows, open_groups
from rlif_jax.groups import informative_groups
from rlif_jax.problem import Problem
from rlif_jax.rewards import combine, needs_execution
from rlif_jax.run.clock import Clock
from rlif_jax.sampler.draw import key_data, row_keys
from rlif_jax.sampler.engine import Usage
from rlif_jax.sampler.sample import RowsFinished
from rlif_jax.scoring import whole
from rlif_jax.submissions import Answers, Submissions

Draw = Callable[[Sequence[Sequence[int]], jax.Array, RowsFinished | None], tuple[Rollout, Usage]]
Certainty = Callable[[Rollout], tuple[TokenStats | None, TokenStats]]

# Apart from the rounds and from step._SELECTION, which fold the same key.
_TESTS, _TEACHER = 2**31 + 1, 2**31 + 2


@dataclass(frozen=True)
class Questions:
    """N problems, the prompts that pose them, and the judge's desk for their completions.

    `tests` ask for tests of the same problems, on which programs are to vote; None: these are not
    written by the policy. `teacher` is the desk for the completions of a teacher, None where no
    term needs one.
    """

    problems: Sequence[Problem]
    prompts: Sequence[EncodedPrompt]
    submissions: Submissions
    tests: "Questions | None" = None
    teacher: Submissions | None = None


Ask = Callable[[], Questions]


@dataclass(frozen=True)
class Experience:
    """Rows n * G + g of N problems, all on the host.

    `policy` [B, C] are the statistics in the trainer's numerics, None where rewards read the
    sampler's; `reward` and every term are float32 [B]. `keys` uint32 [B, 2] are the PRNG keys that
    the rows were drawn with, and `open` bool [N] are the groups that no gate closes. `taught` are a
    teacher's completions of the same prompts, which are not trained on; `usage` has what was drawn
    for them and for tests, too.
    """

    problems: tuple[Problem, ...]
    prompts: tuple[EncodedPrompt, ...]
    rollout: Rollout
    policy: TokenStats | None
    answers: Answers
    reward: np.ndarray
    terms: dict[str, np.ndarray]
    usage: Usage
    keys: np.ndarray
    open: np.ndarray
    taught: Answers | None = None


def experience(
    cfg: Config,
    draw: Draw,
    certainty: Certainty,
    ask: Ask,
    key: jax.Array,
    clock: Clock,
    notice: Notice,
    teach: Draw | None = None,
) -> Experience:
    """Ask, also for tests, sample, score, wait for the tests, reward: one round of it.

    `certainty(rollout)` gives the statistics in the trainer's numerics, if any, and those
    that rewards read. Tests of finished completions run while others are sampled and scored. A
    teacher, which `teach` draws from, comes first, so that its tests run meanwhile. Raises
    NotFinite, with what was drawn, for a reward that is not finite.
    """
    sample_key, reward_key = jax.random.split(key)
    questions, usages = ask(), []
    if questions.tests is not None:
        with clock("sample"):
            notice("asking for tests")
            tests_key, most = jax.random.fold_in(key, _TESTS), cfg.reward.generated_tests
            questions, used = with_generated_tests(questions, draw, tests_key, most)
            usages.append(used)
    tokens = [prompt.tokens for prompt in questions.prompts]
    with clock("sample"):
        notice("sampling")
        if teach is not None:
            assert questions.teacher is not None
            teacher_key = jax.random.fold_in(key, _TEACHER)
            usages.append(teach(tokens, teacher_key, questions.teacher.finished)[1])
        rollout, usage = draw(tokens, sample_key, questions.submissions.finished)
    with clock("score"):
        notice("scoring")
        policy, stats = certainty(rollout)
    with clock("execute"):
        answers = questions.submissions.collect()
        taught = None
        if teach is not None and questions.teacher is not None:
            taught = questions.teacher.collect()
    with clock("reward"):
        evidence = Evidence(
            stats=stats,
            mask=rollout.mask,
            truncated=rollout.truncated,
            key=reward_key,
            group_size=cfg.sampling.samples_per_prompt,
            outcomes=answers.outcomes if needs_execution(cfg.reward) else None,
            max_new_tokens=cfg.sampling.max_new_tokens,
            votes=answers.votes if needs_execution(cfg.reward) else None,
            teacher=None if taught is None else taught.votes or taught.outcomes,
            read=None if answers.parts is None else _columns(answers.parts, rollout.mask),
            settings=cfg.reward,
            texts=answers.texts,
            codes=answers.codes,
        )
        try:
            rewards = jax.device_get(combine(cfg.reward, evidence, cfg.loss.std_floor))
        except NotFinite as error:
            error.arrays = drawn_arrays(rollout, stats)
            raise
        reward_B, terms = gathered(rewards)[0]  # no process ever goes by other numbers
        made, N = cfg.reward.made_inputs, len(questions.problems)
        opened = open_groups(cfg.gates, answers.outcomes, answers.votes, N, made)
    problems, prompts = tuple(questions.problems), tuple(questions.prompts)
    return Experience(
        problems=problems,
        prompts=prompts,
        rollout=rollout,
        policy=policy,
        answers=answers,
        reward=reward_B,
        terms=terms,
        usage=total([*usages, usage]),
        keys=key_data(row_keys(sample_key, len(reward_B))),
        open=opened,
        taught=taught,
    )


def with_generated_tests(
    questions: Questions, draw: Draw, key: jax.Array, most: int
) -> tuple[Questions, Usage]:
    """The questions with programs to be run on tests that the policy writes now, and their cost.

    It writes as many answers for each problem as it writes programs, and is not trained on them:
    of what they propose `with_proposed_tests` takes `most` tests for each problem.
    """
    asked = questions.tests
    assert asked is not None
    _, usage = draw([prompt.tokens for prompt in asked.prompts], key, asked.submissions.finished)
    texts, N = asked.submissions.collect().texts, len(questions.problems)
    vote_on, generated = {}, {}
    for n, (problem, prompt) in enumerate(zip(questions.problems, asked.prompts, strict=True)):
        answers = texts[n * len(texts) // N : (n + 1) * len(texts) // N]
        thinking = opens_thinking(prompt.text)
        vote_on[n], generated[n] = with_proposed_tests(problem, answers, most, thinking)
    desks = questions.submissions, questions.teacher
    submissions, teacher = (desk and desk.voting_on(vote_on, generated) for desk in desks)
    given = {"submissions": submissions, "teacher": teacher, "tests": None}
    return dataclasses.replace(questions, **given), usage


def total(usages: Sequence[Usage]) -> Usage:
    """What all of these have cost."""
    counts = [dataclasses.astuple(usage) for usage in usages]
    return Usage(*map(sum, zip(*counts, strict=True)))


def kept_of(cfg: Config, seen: Experience) -> np.ndarray:
    """The rows of all that was drawn that the loss may see, bool [B]; see `gates`."""
    return kept_rows(cfg.gates, seen.policy or seen.rollout.stats, seen.rollout.mask)


def _columns(parts: Sequence[tuple[int, int]], mask_BC: Array) -> np.ndarray:
    """The tokens [first, end) of each row, bool [B, C]."""
    first_B, end_B = np.asarray(parts).T
    column_C = np.arange(mask_BC.shape[1])
    return (column_C >= first_B[:, None]) & (column_C < end_B[:, None])


def drawn_arrays(rollout: Rollout, stats: TokenStats, **more: np.ndarray) -> dict[str, np.ndarray]:
    """What was drawn, by name, to be looked at after a failure."""
    return {
        "prompt_tokens": np.asarray(rollout.prompts.tokens),
        "prompt_mask": np.asarray(rollout.prompts.mask),
        "tokens": np.asarray(rollout.tokens),
        "mask": np.asarray(rollout.mask),
        **{name: np.asarray(getattr(stats, name)) for name in TokenStats.__dataclass_fields__},
        **more,
    }


def informative_experience(
    cfg: Config, one_round: Callable[[jax.Array], Experience], key: jax.Array
) -> tuple[Experience, np.ndarray]:
    """As many rounds as it takes for N open groups that differ, at most 1 + data.max_refills.

    The second value are the N groups to train on, of all that were drawn: those whose rewards
    differ and that no gate closes, and others behind them where these are too few.
    """
    N, G = cfg.data.prompts_per_step, cfg.sampling.samples_per_prompt
    rounds, differ, most = [], np.zeros(0, bool), 1 + cfg.data.max_refills
    while not rounds or (differ.sum() < N and len(rounds) < most):
        # The first round's key is the step's, so that refills change nothing of it.
        rounds.append(one_round(jax.random.fold_in(key, len(rounds)) if rounds else key))
        own = informative_groups(rounds[-1].reward, G, cfg.loss.std_floor)
        differ = np.concatenate([differ, np.asarray(own) & rounds[-1].open])
    if len(rounds) == 1:
        return rounds[0], np.arange(N)
    order = np.concatenate([np.flatnonzero(differ), np.flatnonzero(~differ)])
    return joined(rounds), np.sort(order[:N])


def joined(rounds: Sequence[Experience]) -> Experience:
    """All rounds as one."""

    def in_order(field: str) -> tuple:
        return tuple(one for r in rounds for one in getattr(r, field))

    def answers_in_order(rounds: Sequence[Answers]) -> Answers:
        def field(name: str) -> Any:
            parts = [getattr(r, name) for r in rounds]
            return None if parts[0] is None else tuple(itertools.chain.from_iterable(parts))

        return Answers(**{each.name: field(each.name) for each in dataclasses.fields(Answers)})

    taught = [r.taught for r in rounds if r.taught is not None]
    return Experience(
        problems=in_order("problems"),
        prompts=in_order("prompts"),
        rollout=whole([r.rollout for r in rounds]),
        policy=None if rounds[0].policy is None else whole([r.policy for r in rounds]),
        answers=answers_in_order([r.answers for r in rounds]),
        reward=whole([r.reward for r in rounds]),
        terms=whole([r.terms for r in rounds]),
        usage=total([r.usage for r in rounds]),
        keys=whole([r.keys for r in rounds]),
        taught=answers_in_order(taught) if taught else None,
        open=whole([r.open for r in rounds]),
    )


def of_groups(tree: Any, groups_n: np.ndarray, group_size: int) -> Any:
    """The rows of these groups, of arrays [B, ...]."""
    rows = (groups_n[:, None] * group_size + np.arange(group_size)).reshape(-1)
    return jax.tree.map(lambda x: x[rows], tree)


def rollout_of_groups(rollout: Rollout, groups_n: np.ndarray, group_size: int) -> Rollout:
    """The rows of these groups, with their prompts."""
    prompts = jax.tree.map(lambda x: x[groups_n], rollout.prompts)
    rows = of_groups(dataclasses.replace(rollout, prompts=None), groups_n, group_size)
    return dataclasses.replace(rows, prompts=prompts)
