"""Results in the form of LiveCodeBench's own tools.

The form is that of its `*_eval_all.json` files (`CodeGenerationProblem.insert_output_evaluation` of
lcb_runner/benchmarks/code_generation.py). `lcb_runner.evaluation.compute_scores --eval_all_file`
reads it; `lcb_runner.runner.custom_evaluator --custom_output_file` grades its `code_list` again.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rlif_jax.problem import Problem


def official_output(
    problems: Sequence[Problem], rows_of: Sequence[Sequence[Mapping[str, Any]]]
) -> list[dict[str, Any]]:
    """One object a problem, in the order of ids, from its rows of the samples file.

    A sample without a program has an empty one, as upstream's extraction gives it.
    """
    found = [_one(problem, rows) for problem, rows in zip(problems, rows_of, strict=True)]
    return sorted(found, key=lambda one: one["question_id"])


def _one(problem: Problem, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    graded = [row["passed"] for row in rows]
    described = ("question_title", "platform", "contest_id", "contest_date", "difficulty")
    about = {name: problem.metadata.get(name, "") for name in described}
    return {
        "question_title": about["question_title"],
        "question_content": problem.prompt,
        "platform": about["platform"],
        "question_id": problem.id,
        "contest_id": about["contest_id"],
        "contest_date": about["contest_date"],
        "starter_code": problem.starter_code,
        "difficulty": about["difficulty"],
        "output_list": [row["completion"] for row in rows],
        "code_list": [row["code"] or "" for row in rows],
        "graded_list": graded,
        "pass@1": sum(graded) / len(graded),
        "metadata": [{"verdict": row["verdict"]} for row in rows],
    }
