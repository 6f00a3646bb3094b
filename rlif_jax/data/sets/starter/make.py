"""Write problems.jsonl and solutions.jsonl from the sources beside this file.

    python -m rlif_jax.data.sets.starter.make [--out DIR]

Every expected output comes from running the reference solution. A problem whose wrong solution
passes all its tests, or whose reference fails, is refused.
"""

import argparse
import contextlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from rlif_jax.data.sets.starter import (
    easy_functions,
    easy_programs,
    easy_sequence_functions,
    hard_dynamic_programs,
    hard_functions,
    hard_list_functions,
    hard_programs,
    medium_functions,
    medium_programs,
)
from rlif_jax.data.sets.starter.source import Function, Program
from rlif_jax.errors import UserError, exit_on_user_error

SOURCES = (
    ("easy", easy_functions),
    ("easy", easy_sequence_functions),
    ("easy", easy_programs),
    ("medium", medium_functions),
    ("medium", medium_programs),
    ("hard", hard_functions),
    ("hard", hard_list_functions),
    ("hard", hard_programs),
    ("hard", hard_dynamic_programs),
)
CONTEST_DATE = "2025-01-01T00:00:00"


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the starter set's two JSONL files.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="target folder")
    folder = parser.parse_args().out
    with exit_on_user_error():
        for name, text in files().items():
            (folder / name).write_text(text, encoding="utf-8")


def files() -> dict[str, str]:
    """The text of each generated file by its name."""
    problems, solutions = [], []
    for difficulty, split, source in in_order():
        row = make_row(source, difficulty, split)
        problems.append(row)
        solutions.append(
            {
                "question_id": row["question_id"],
                "reference": source.program(source.reference),
                "wrong": source.program(source.wrong),
            }
        )
    return {
        name: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        for name, rows in (("problems.jsonl", problems), ("solutions.jsonl", solutions))
    }


def in_order() -> Iterator[tuple[str, str, Function | Program]]:
    """(difficulty, split, problem) of all problems, so that any stretch of a split has its mix."""
    for split in ("TRAIN", "VALIDATION"):
        groups: dict[str, list[Any]] = {}
        for difficulty, module in SOURCES:
            labelled = [(difficulty, split.lower(), problem) for problem in getattr(module, split)]
            groups.setdefault(difficulty, []).append(labelled)
        yield from spread([spread(group) for group in groups.values()])


def spread(groups: Sequence[Sequence[Any]]) -> list[Any]:
    """All members of all groups in one list, each group spread evenly over it."""
    placed = [
        ((i + 0.5) / len(group), member) for group in groups for i, member in enumerate(group)
    ]
    return [member for _, member in sorted(placed, key=lambda entry: entry[0])]


def make_row(source: Function | Program, difficulty: str, split: str) -> dict[str, str]:
    """One LiveCodeBench row plus `split`; raises UserError if the tests let `wrong` pass."""
    kind = "functional" if isinstance(source, Function) else "stdin"
    outputs = [run(source, source.reference, entry) for entry in source.inputs]
    if outputs == [run_wrong(source, entry) for entry in source.inputs]:
        raise UserError(f"{source.title!r}: its wrong solution passes every test; add an input.")
    tests = [
        {"input": write_input(source, entry), "output": output, "testtype": kind}
        for entry, output in zip(source.inputs, outputs, strict=True)
    ]
    slug = re.sub(r"[^a-z0-9]+", "_", source.title.lower()).strip("_")
    return {
        "question_title": source.title,
        "question_content": question(source, outputs[0]),
        "platform": "rlif_starter",
        "question_id": f"starter_{difficulty}_{slug}",
        "contest_id": f"starter_{difficulty}",
        "contest_date": CONTEST_DATE,
        "starter_code": source.starter_code if isinstance(source, Function) else "",
        "difficulty": difficulty,
        "public_test_cases": json.dumps(tests[: source.public], ensure_ascii=False),
        "private_test_cases": json.dumps(tests[source.public :], ensure_ascii=False),
        "metadata": json.dumps({"func_name": source.name} if isinstance(source, Function) else {}),
        "split": split,
    }


def question(source: Function | Program, first_output: str) -> str:
    """The question as a model reads it, with the first test as its example."""
    if isinstance(source, Program):
        given, printed = source.inputs[0], first_output.rstrip("\n")
        if source.begin:
            lines = given.replace("\n", " and ")
            return (
                f"Complete this program:\n```python\n{source.begin}\n```\n{source.text} "
                f"For the input {lines} it prints {printed}."
            )
        if "\n" in given + printed:
            return f"{source.text}\n\nExample input:\n{given}\nExample output:\n{printed}"
        return f"{source.text}\nExample: the input {given} prints {printed}."
    call = f"{source.name}({', '.join(source.parameters)})"
    values = ", ".join(repr(value) for value in arguments(source, source.inputs[0]))
    what = "method" if source.in_class else "Python function"
    return (
        f"Write a {what} `{call}` that {source.text}\n"
        f"Example: {source.name}({values}) returns {json.loads(first_output)!r}."
    )


def arguments(source: Function, entry: Any) -> tuple[Any, ...]:
    """The positional arguments of one test."""
    return (entry,) if len(source.parameters) == 1 else entry


def write_input(source: Function | Program, entry: Any) -> str:
    """One test's input: standard input, or one JSON value per line."""
    if isinstance(source, Program):
        return entry + "\n"
    values = arguments(source, entry)
    return "\n".join(json.dumps(value, ensure_ascii=False) for value in values)


def run(source: Function | Program, body: str, entry: Any) -> str:
    """The output of `body` on one input, in this process: only for the sources' own solutions."""
    space: dict[str, Any] = {"__name__": "__main__"}
    code = source.program(body)
    if isinstance(source, Program):
        printed = io.StringIO()
        stdin = io.StringIO(write_input(source, entry))
        with mock.patch("sys.stdin", stdin), contextlib.redirect_stdout(printed):
            exec(code, space)
        return printed.getvalue()
    exec(code, space)
    answer = getattr(space["Solution"](), source.name) if source.in_class else space[source.name]
    # A copy through JSON, so that a solution that changes its arguments leaves the source alone.
    values = json.loads(json.dumps(arguments(source, entry)))
    return json.dumps(answer(*values), ensure_ascii=False)


def run_wrong(source: Function | Program, entry: Any) -> str | None:
    """The output of the wrong solution on one input, None where it crashes."""
    try:
        return run(source, source.wrong, entry)
    except Exception:
        return None


if __name__ == "__main__":
    main()
