"""LeetCodeDataset rows as problems, in their two forms, and the real judge's verdicts on them."""

import pytest

from rlif_jax.config import Execution
from rlif_jax.data.formats.detect import problem_from_any
from rlif_jax.data.formats.leetcode import problem_from_leetcode
from rlif_jax.data.formats.livecodebench import problem_from_row, row_from_problem
from rlif_jax.data.prompts import prompt_messages
from rlif_jax.data.selection import date_filter
from rlif_jax.errors import UserError
from rlif_jax.execution.pool import Judge
from rlif_jax.problem import Problem, Test

PREAMBLE = """from typing import *
from collections import *
inf = float('inf')

class ListNode:
    def __init__(self, val=0, next=None):
        self.val = val
        self.next = next

def list_node(values: list):
    head = None
    for value in reversed(values):
        head = ListNode(value, head)
    return head

def is_same_list(p1, p2):
    return p1 is p2 or (p1.val == p2.val and is_same_list(p1.next, p2.next))

def close(a, b):
    return abs(a - b) < 1e-9
"""
STARTER = (
    "class Solution:\n    def mostCommon(self, nums: List[int], k: int) -> List[int]:\n        "
)
SOLUTION = f"{STARTER}return [n for n, _ in Counter(nums).most_common(k)] if k < inf else nums\n"
TEST = """def check(candidate):
    assert candidate(nums = [1,2,2], k = 1) == [2]
    assert candidate(k = 2, nums = [1,2,2]) == [2, 1]
"""
NEW = {
    "task_id": "most-common",
    "question_id": 9001,
    "difficulty": "Medium",
    "tags": ["Array", "Hash Table"],
    "problem_description": "Return the k most common numbers.\n\n\n",
    "starter_code": STARTER,
    "estimated_date": "2024-08-04",
    "prompt": PREAMBLE,
    "completion": SOLUTION,
    "entry_point": "Solution().mostCommon",
    "test": TEST,
    "input_output": [{"input": "nums = [1,2,2], k = 1", "output": "[2]"}],
    "query": f"You are an expert.\n\n### Question:\nReturn.\n```python\n{STARTER}\n```\n### Answer",
    "response": "...",
}
OLD = {
    "task_id": "most-common",
    "prompt": PREAMBLE,
    "completion": SOLUTION,
    "entry_point": "Solution().mostCommon",
    "test": TEST,
    "query": "Return the k most common numbers.\n\xa0\nPlease complete the following python code "
    f"precisely:\n```python\n{STARTER.rstrip()}\n```",
    "response": "...",
    "input_output": [],
    "meta": {"question_id": 9001, "difficulty": "Medium", "lang_code": STARTER.rstrip()},
}


def test_a_row_as_a_problem():
    assert problem_from_any(NEW) == Problem(
        id="most-common",
        prompt="Return the k most common numbers.",
        tests=(Test(f"{TEST}\ncheck(mostCommon)\n", "", "assert", private=True),),
        starter_code=STARTER,
        entry_point="mostCommon",
        metadata={
            "platform": "leetcode",
            "difficulty": "medium",
            "contest_date": "2024-08-04",
            "question_id": 9001,
            "tags": ["Array", "Hash Table"],
            "solution": f"{PREAMBLE}\n{SOLUTION}",
        },
        preamble=PREAMBLE,
    )


def test_the_first_form_has_the_statement_in_its_query():
    old, new = problem_from_any(OLD), problem_from_any(NEW)
    assert (old.prompt, old.starter_code) == (new.prompt, new.starter_code)
    assert (old.tests, old.preamble) == (new.tests, new.preamble)
    new_only = {"contest_date": "2024-08-04", "tags": ["Array", "Hash Table"]}
    assert new.metadata == old.metadata | new_only


def test_stored_and_asked():
    problem = problem_from_any(NEW, time_limit_s=4.0)
    assert problem.time_limit_s == 4.0
    assert problem_from_row(row_from_problem(problem)) == problem
    (message,) = prompt_messages(problem)
    assert STARTER.rstrip() in message["content"] and "ListNode" not in message["content"]
    assert date_filter("2024-08-01..").keeps(problem)
    assert not date_filter("2024-08-05..").keeps(problem)


def test_the_judge_runs_the_preamble_and_passes_keywords_on():
    problem = problem_from_any(NEW)
    programs = {
        problem.metadata["solution"]: True,
        SOLUTION: True,  # its imports are those of the preamble
        SOLUTION.replace("most_common(k)", "most_common(ListNode(k).val)"): True,  # and its classes
        SOLUTION.replace("most_common(k)", "most_common(1)"): False,
        SOLUTION.replace("nums: List[int], k: int", "nums, number"): False,
        "def mostCommon(nums, k):\n    return sorted(set(nums), key=nums.count)[::-1][:k]": True,
    }
    with Judge(Execution(workers=1)) as judge:
        passed = [judge.submit(problem, program).result(60).passed for program in programs]
    assert passed == list(programs.values())


def test_a_method_of_a_name_that_the_preamble_imports():
    row = NEW | {
        "prompt": "from heapq import *\nfrom heapq import merge\n",
        "entry_point": "Solution().merge",
        "test": "def check(candidate):\n    assert candidate(a = [3], b = [1]) == [3, 1]\n",
    }
    right = "class Solution:\n    def merge(self, a, b):\n        return a + b"
    with Judge(Execution(workers=1)) as judge:
        outcomes = [
            judge.submit(problem_from_any(row), program).result(60)
            for program in (right, right.replace("a + b", "list(merge(a, b))"))
        ]
    assert [outcome.passed for outcome in outcomes] == [True, False]


@pytest.mark.parametrize(
    ("test", "helper"),
    [
        ("assert is_same_list(candidate(head = list_node([1])), list_node([1]))", "list_node"),
        ("assert candidate(ListNode(1)) == 1", "ListNode"),
    ],
)
def test_tests_that_make_objects_are_refused(test, helper):
    row = NEW | {"test": f"def check(candidate):\n    {test}\n    assert candidate(1) == 2"}
    with pytest.raises(UserError) as refusal:
        problem_from_any(row, "f line 2")
    assert str(refusal.value) == (
        f"f line 2 (id 'most-common'): its test calls {helper} of the field prompt, which needs "
        "the class ListNode; objects of a class are not plain data and cannot be passed to a "
        "program in another process, so remove the row."
    )


def test_helpers_without_objects_may_be_used():
    test = "def check(candidate):\n    assert close(candidate([1], 1)[0], 1)"
    problem = problem_from_any(NEW | {"test": test})
    with Judge(Execution(workers=1)) as judge:
        assert judge.submit(problem, SOLUTION).result(60).passed


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task_id": None}, "field task_id is missing"),
        ({"entry_point": "Solution().a.b"}, r"entry_point has 'Solution\(\)\.a\.b', which is not"),
        ({"entry_point": "LRUCache()"}, "which is not the name of a function"),
        ({"test": "def check(candidate): assert ("}, "field test or prompt is not Python"),
        ({"prompt": "from"}, "field test or prompt is not Python"),
        ({"problem_description": " "}, "field problem_description is empty"),
        ({"test": "def check(candidate): pass"}, "passes every program"),
        ({"estimated_date": "soon"}, "contest_date is 'soon', which is not a date"),
        ({"completion": 5}, "field completion is 5, not text"),
        ({"time_limit_s": 0}, "field time_limit_s is 0"),
    ],
)
def test_bad_rows_are_refused(fields, message):
    with pytest.raises(UserError, match=rf"^f line 2.*{message}"):
        problem_from_any(NEW | fields, "f line 2")


def test_a_function_outside_of_a_class():
    problem = problem_from_leetcode(NEW | {"entry_point": "mostCommon"})
    assert problem.entry_point == "mostCommon"
