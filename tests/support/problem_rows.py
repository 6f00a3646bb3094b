"""Rows and tokenizers small enough to check by eye, as fixtures.

transformers is imported by the tests that need it: pytest's controller, which runs none, does not.
"""

import json
from collections.abc import Callable

import pytest


@pytest.fixture
def make_row() -> Callable[..., dict]:
    """A maker of valid dataset rows: `make_row(id)` a stdin one, with `func_name` a function."""

    def make(question_id: str = "p0", func_name: str | None = None, **fields) -> dict:
        kind = "functional" if func_name else "stdin"
        tests = [{"input": "3\n4", "output": "7", "testtype": kind}]
        private = [{"input": "-1\n1", "output": "0", "testtype": kind}]
        return {
            "question_title": "Sum",
            "question_content": f"Add two numbers ({question_id}).",
            "platform": "example",
            "question_id": question_id,
            "contest_id": "c1",
            "contest_date": "2025-01-01T00:00:00",
            "starter_code": f"def {func_name}(a, b):\n    " if func_name else "",
            "difficulty": "easy",
            "public_test_cases": json.dumps(tests),
            "private_test_cases": json.dumps(private),
            "metadata": json.dumps({"func_name": func_name} if func_name else {}),
        } | fields

    return make


@pytest.fixture(scope="session")
def tokenizer():
    from support.small_tokenizers import byte_tokenizer

    return byte_tokenizer()


@pytest.fixture(scope="session")
def family_tokenizers():
    from support.small_tokenizers import family_tokenizers

    return family_tokenizers()
