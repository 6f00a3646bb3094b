"""Builtin types and matches of `re` between a program and its test: verdicts as in plain Python."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.execution.judging import EXECUTION, assert_problem
from test_assert_attacks import says

from rlif_jax.execution.pool import Judge
from rlif_jax.problem import Verdict

PASSED, WRONG = Verdict.PASSED, Verdict.WRONG_ANSWER


def holds(program: str, source: str) -> bool:
    """Whether the test passes where both are one program of plain Python."""
    names: dict = {}
    try:
        exec(program, names)
        exec(source, names)
    except Exception:
        return False
    return True


TYPES = ("int", "float", "complex", "str", "bytes", "list", "tuple", "dict", "set", "frozenset",
         "bool", "range", "type", "type(None)")  # fmt: skip
# Python texts, of values in which types are side by side with the texts of their names.
TYPED = st.recursive(
    st.sampled_from([*TYPES, "1", "None", "'int'", "'type'"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(inner, max_size=2).map(lambda items: f"({''.join(f'{i}, ' for i in items)})")
        | st.sampled_from(TYPES).map("{{{}}}".format)
        | st.tuples(st.sampled_from([*TYPES, "1"]), inner).map(": ".join).map("{{{}}}".format)
    ),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_types_are_compared_as_in_one_process(judge, data):
    """As arguments, changed or not, and as results, equal or not."""
    given_, returned = data.draw(TYPED), data.draw(TYPED)
    expected = data.draw(st.just(returned) | TYPED)
    program = f"def f(x, y):\n    y.append(x)\n    return x, {returned}"
    source = f"y = []\nassert f({given_}, y) == ({given_}, {expected}) and y == [{given_}]"
    verdict = PASSED if holds(program, source) else WRONG
    assert judge.submit(assert_problem("f", source), program).result().verdict is verdict


@pytest.mark.parametrize("name", TYPES)
def test_each_type_is_itself_on_both_sides(run, name):
    program = f"def f(x): return {name} if x is {name} else 'another'"
    assert run(assert_problem("f", f"assert f({name}) is {name}"), program).passed
    assert run(assert_problem("f", f"assert f(object) is {name}"), program).verdict is WRONG


def test_a_function_that_is_told_a_type(run):
    program = "def f(values, kind): return [v for v in values if not isinstance(v, kind)]"
    source = "assert f((4, 'a', 5.5), int) == ['a', 5.5] and f([1, 'a'], kind=(int, str)) == []"
    assert run(assert_problem("f", source), program).passed
    wrong = program.replace("not ", "")
    assert run(assert_problem("f", source), wrong).verdict is WRONG


MATCHING = "import re\ndef f(x): return re.search('a', x)"
OTHERWISE = (
    "import re\ndef f(x): return re.search('b', x)",
    "def f(x): return 'a' in x",
    "def f(x): return 'ab' if 'a' in x else None",
    "def f(x): return None",
)
ABOUT_A_MATCH = (
    "assert f('ab')",
    "assert f('b') is None and f('ab') is not None",
    "assert not f('b') and not not f('ab')",
    "assert bool(f('ab')) == True",
    "assert f('ab') is True",
    "assert f('ab') == True or f('ab') == 'ab' or f('ab') in [1, 'a', None]",
    "assert f('ab') != f('ab')",
    "m = f('ab')\nassert m == m and m in [m] and {m: 1}[m] == 1",
    "assert len({f('ab'), f('ab')}) == 2",
    "assert type(f('ab')).__name__ == 'Match'",
    "assert 'ab' == f('ab')",
    "assert f('ab') < f('abc')",
    "assert len(f('ab'))",
    "assert 'a' in f('ab')",
    "assert list(f('ab'))",
    "assert f('ab') + 1",
    "f('ab').x = 1",
    "assert callable(f('ab'))",
)


@pytest.mark.parametrize("source", ABOUT_A_MATCH)
def test_a_match_is_true_and_no_more_as_in_one_process(run, source):
    for program in (MATCHING, *OTHERWISE):
        verdict = PASSED if holds(program, source) else WRONG
        assert run(assert_problem("f", source), program).verdict is verdict, program


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("assert f('ab').group() == 'a'", "has no attribute 'group'"),
        ("assert f('ab')[0] == 'a'", "is not subscriptable"),
        ("import re\nassert isinstance(f('ab'), re.Match)", "failed"),
        ("assert f(f('ab'))", "an argument is not plain data: Match"),
        ("import re\nassert f(re.match('a', 'a'))", "an argument is not plain data: Match"),
    ],
)
def test_what_is_not_known_of_a_match(run, source, words):
    program = "import re\ndef f(x): return re.search('a', x) if x else x"
    outcome = run(assert_problem("f", source), program)
    assert outcome.verdict is WRONG and words in outcome.detail


LIES = "    def __eq__(self, other): return True\n    def __hash__(self): return hash(int)\n"
UNTRUE = {
    "match inside": "def f(x): return [re.match('', '')]",
    "match as key": "def f(x): return {re.match('', ''): 1}",
    "match left in an argument": "def f(x): x.append(re.match('', ''))",
    "rebound match": "class M: pass\nre.Match = M\ndef f(x): return M()",
    "object of the class match": "class M: __class__ = re.Match\ndef f(x): return M()",
    "pattern": "def f(x): return re.compile('a')",
    "class match": "def f(x): return re.Match",
    "class named int": "class int: pass\ndef f(x): return int",
    "subclass named int": "int = type('int', (int,), {})\ndef f(x): return int",
    "lying metaclass": f"class Meta(type):\n{LIES}class int(metaclass=Meta): pass\n"
    "def f(x): return int",
    "lying metaclass of a type": f"class type(type):\n{LIES}def f(x): return type('int', (), {{}})",
    "object of the class type": f"class T:\n{LIES}    __class__ = type\n    __name__ = 'int'\n"
    "def f(x): return T()",
    "generic type": "def f(x): return list[int]",
    "union": "def f(x): return int | str",
    "exception": "def f(x): return ValueError",
}


@pytest.mark.parametrize("name", UNTRUE)
def test_what_only_looks_like_a_type_or_a_match_is_refused(name):
    """Though the test would take anything."""
    problem = assert_problem("f", "assert (f([1]), True)[1]")
    with Judge(EXECUTION) as judge:
        outcome = judge.submit(problem, f"import re\n{UNTRUE[name]}").result()
    assert outcome.verdict is WRONG and "returned a value that is not plain data" in outcome.detail


@pytest.mark.parametrize(
    "claim",
    [
        'result [[{{"match": []}}]]',
        'result [{{"tuple": [{{"match": []}}]}}]',
        'result [{{"dict": [[{{"match": []}}, 1]]}}]',
        'result [{{"match": [1]}}]',
        'result [{{"match": [], "type": "int"}}]',
        'result [1, [[[{{"match": []}}]], {{"dict": []}}]]',
        'result [{{"type": "object"}}]',
        'result [{{"type": "eval"}}]',
        'result [{{"type": []}}]',
    ],
)
def test_what_a_program_cannot_have_returned_is_not_rebuilt(run, claim):
    """A program that writes its answers itself, before a test that would take anything."""
    problem = assert_problem("f", "assert (f([1]), True)[1]")
    outcome = run(problem, says(claim))
    assert outcome.verdict is WRONG and "returned a value that cannot be read" in outcome.detail
    assert run(problem, says('result [{{"match": []}}]')).passed  # no more than a match does


@pytest.mark.parametrize(
    ("program", "verdicts"),
    [
        ("def f(x): return re.match('', '') if x else int", (PASSED, PASSED)),
        ("M, re.Match = re.Match, int\ndef f(x): return re.match('', '') if x else int",
         (PASSED, PASSED)),
        ("own = int\nint = re.Match = str\ndef f(x): return re.match('', '') if x else own",
         (PASSED, PASSED)),
        ("def f(x): return re.match('a', '') if x else str", (WRONG, WRONG)),
    ],
)  # fmt: skip
def test_replacing_them_changes_no_honest_result(program, verdicts):
    problem = assert_problem("f", "assert f(1) not in (None, 1, True, '')", "assert f(0) is int")
    with Judge(EXECUTION, run_all_tests=True) as judge:
        assert judge.submit(problem, f"import re\n{program}").result().results == verdicts
