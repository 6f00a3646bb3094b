"""EvalPlus's inputs as tests: HumanEval+ and MBPP+ (Liu et al. 2023, arXiv 2305.01210).

A row of the release files (github.com/evalplus/humanevalplus_release, mbppplus_release) has the
arguments of each call in `base_input` and `plus_input`, and no results: what the row's
`canonical_solution` returns is expected. It runs where the test's source runs, on a copy of the
arguments, in a separate namespace, so that no program sees the expected results.

The rules are those of `unsafe_execute` and `_special_oracle.py` in evalplus 0.3.1, written anew:
equal, or of one type and within rtol 1e-7 and the row's `atol`, which is 1e-6 where the row has 0
and a float, or a list or tuple of floats, is expected; a few tasks have rules of their own
(`_RULES`). Where evalplus 0.3.1 accepts any result of `are_equivalent`, the result must be right or
True here, as in its earlier versions. `atol` is chosen for each result by itself; in evalplus it
stays at 1e-6 once a float was expected. A list within a list is compared element by element, where
`numpy.allclose` broadcasts it and takes no rows of several lengths.

JSON knows no tuples, sets and complex numbers; which arguments of MBPP+ are meant as such, evalplus
keeps by the task's number in `mbpp_deserialize_inputs` (data/mbpp.py), and `_ARGUMENTS` here.

A row's `contract` states which inputs are valid; all of those in the files are, and it is not read.
MBPP+'s `assertion` states results of `base_input`, which are judged by these rules instead: as
text, some of them ask for one order of a set.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rlif_jax.data.formats.fields import list_or_json
from rlif_jax.errors import UserError, shown
from rlif_jax.problem import Test

RELEASES: Mapping[str, tuple[str, str]] = {
    "humanevalplus": ("HumanEval", "HumanEvalPlus.jsonl.gz of evalplus/humanevalplus_release"),
    "mbppplus": ("MBPP", "MbppPlus.jsonl.gz of evalplus/mbppplus_release"),
}
"""The family of a set by its name, and where its file is (GitHub, releases)."""
INPUT_FIELDS = ("base_input", "plus_input")
INPUTS_PER_TEST = 25
"""Calls of one test. EvalPlus gives each call the larger of 1 s and four times the reference's
time; here each test has a limit, which this number of calls makes about as strict."""

_SOURCE = """
import cmath
import copy
import math
from math import inf, nan

REFERENCE = {reference!r}
INPUTS = {inputs}
ATOL = {atol!r}


def close(out, exp):
    many = isinstance(exp, (list, tuple)) and len(exp) > 0
    floats = all(isinstance(item, float) for item in (exp if many else [exp]))
    atol = ATOL or (1e-6 if floats else 0)
    return atol != 0 and type(out) is type(exp) and near(out, exp, atol)


def near(out, exp, atol):
    if isinstance(exp, (list, tuple)):
        same_length = isinstance(out, (list, tuple)) and len(out) == len(exp)
        return same_length and all(near(o, e, atol) for o, e in zip(out, exp))
    if not isinstance(out, (int, float, complex)) or not isinstance(exp, (int, float, complex)):
        return False
    return out == exp or (cmath.isfinite(exp) and abs(out - exp) <= atol + 1e-7 * abs(exp))


def right(out, exp, given):
    return {rule}


reference = {{"__name__": "reference"}}
exec(REFERENCE, reference)
for number, given in enumerate(INPUTS, start={first}):
    exp = reference[{entry_point!r}](*copy.deepcopy(given))
    out = CANDIDATE(*copy.deepcopy(given))
    assert right(out, exp, given), f"{field}, element {{number}}"
"""

_EQUAL = "out == exp or close(out, exp)"
_AS_SETS = "set(out) == set(exp) or close(out, exp)"
_NOT_NONE = "(out if isinstance(out, bool) else out is not None) == (exp is not None)"
_RULES: Mapping[str, Mapping[str, str]] = {
    "HumanEval": {
        "find_zero": "abs(sum(c * math.pow(out, i) for i, c in enumerate(given[0]))) <= ATOL",
    },
    "MBPP": {
        "are_equivalent": f"out is True or {_EQUAL}",
        "sum_div": f"out == 0 or {_EQUAL}",
        "surface_Area": (  # with the height of the pyramid itself, where the reference has a slant
            f"{_EQUAL} or abs(out - round(given[0] ** 2 + 2 * (given[0] * math.sqrt("
            "(given[0] / 2) ** 2 + given[1] ** 2)))) <= ATOL"
        ),
        "digit_distance_nums": (  # with zeros before the shorter number
            f"{_EQUAL} or out == sum(abs(int(a) - int(b)) for a, b in zip(*("
            "str(n).zfill(max(len(str(n)) for n in given)) for n in given)))"
        ),
        **dict.fromkeys(
            (
                "similar_elements",
                "find_char_long",
                "common_in_nested_lists",
                "extract_singly",
                "larg_nnum",
                "intersection_array",
                "find_dissimilar",
                "Diff",
            ),
            _AS_SETS,
        ),
        **dict.fromkeys(("check_str", "text_match_three", "text_starta_endb"), _NOT_NONE),
    },
}
"""What is right, where that is not `_EQUAL`: an expression of `out`, `exp` and the arguments."""


def is_evalplus(name: str) -> bool:
    """Whether a problem set's name means one of EvalPlus's."""
    return name.partition("@")[0] in RELEASES


def release_path(name: str) -> Path:
    """The file of `humanevalplus@FILE` or `mbppplus@FILE`; UserError where the name has none."""
    text, _, path = name.partition("@")
    if not path:
        raise UserError(
            f"{name!r} names no file; write {text}@FILE, where FILE is {RELEASES[text][1]}, or the "
            f"rows of evalplus/{text} on the Hugging Face Hub as JSONL."
        )
    return Path(path).expanduser()


def check_release_row(row: Mapping[str, Any], is_function: bool, name: str, where: str) -> None:
    """Raise UserError for a row that is not of the set `name` or has only the base tests.

    `is_function` says whether its prompt is a function to complete, as HumanEval's.
    """
    text = name.partition("@")[0]
    family, source = RELEASES[text]
    plus = row.get("plus_input") is not None
    plus = plus or re.search(r"^\s*inputs = ", str(row.get("test")), re.MULTILINE)
    if not plus or is_function != (family == "HumanEval"):
        raise UserError(
            f"{where}: not a row of {family}+, which has more inputs in plus_input or test; use "
            f"{source}, or name the file as jsonl:PATH to use its rows unchecked."
        )


def _tuples(values: list) -> list:
    return [tuple(value) for value in values]


def _tuples_throughout(value: Any) -> Any:
    return tuple(map(_tuples_throughout, value)) if isinstance(value, list) else value


def _by_task(arguments: Callable[[list], Any], *tasks: int) -> dict[int, Callable[[list], Any]]:
    return dict.fromkeys(tasks, arguments)


_ARGUMENTS: Mapping[int, Callable[[list], Any]] = {
    **_by_task(
        _tuples,
        *(2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630),
        *(726, 740, 744, 809),
    ),
    **_by_task(
        lambda given: list(map(_tuples, given)),
        *(63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780),
    ),
    **_by_task(lambda given: [_tuples(given[0]), given[1]], 75, 413, 444, 753),
    **_by_task(lambda given: [given[0], tuple(given[1])], 106, 750),
    **_by_task(
        lambda given: [[set(v) if isinstance(v, list) and v else {} for v in given[0]]], 115
    ),
    **_by_task(lambda given: [float(given[0]), complex(given[1])], 124),
    **_by_task(lambda given: [tuple(given[0]), *given[1:]], 250, 307, 405, 446, 617, 720, 763, 808),
    **_by_task(lambda given: [complex(given[0])], 252),
    **_by_task(lambda given: [tuple(_tuples(value)) for value in given], 259, 401, 445),
    **_by_task(
        lambda given: [tuple(tuple(v) if isinstance(v, list) else v for v in given[0])], 278
    ),
    **_by_task(lambda given: list(map(_tuples_throughout, given)), 580, 615, 791),
    **_by_task(lambda given: [{name: tuple(v) for name, v in given[0].items()}, *given[1:]], 722),
}
"""The arguments that are meant by those in JSON, by the number of the task of MBPP+."""


def has_inputs(row: Mapping[str, Any]) -> bool:
    """Whether a row has a field of EvalPlus's inputs, even an empty one."""
    return any(row.get(field) is not None for field in INPUT_FIELDS)


def evalplus_tests(
    row: Mapping[str, Any],
    family: str,
    reference: str,
    entry_point: str,
    where: str,
) -> tuple[Test, ...]:
    """Private assert tests of a row's `base_input`, then `plus_input`; () when it has neither.

    `family`, "HumanEval" or "MBPP", has the rules; `reference` is a whole program.

    Raises UserError, with `where`, the field and the remedy, for invalid arguments, for an invalid
    `atol`, and for a missing reference.
    """
    if not has_inputs(row):
        return ()
    if not reference.strip():
        raise UserError(
            f"{where}: field {' or '.join(INPUT_FIELDS)} has inputs, and field canonical_solution, "
            "which gives their results, is missing; add it or remove the row."
        )
    atol = row.get("atol") or 0
    if type(atol) not in (int, float) or not 0 <= atol < math.inf:
        raise UserError(f"{where}: field atol is {shown(atol)}; write a number, 0 or more.")
    convert = _ARGUMENTS.get(_number(row), list) if family == "MBPP" else list
    tests = []
    for field in INPUT_FIELDS:
        inputs = list(_inputs(row, field, convert, where))
        for start in range(0, len(inputs), INPUTS_PER_TEST):
            source = _SOURCE.format(
                reference=reference,
                inputs=inputs[start : start + INPUTS_PER_TEST],
                atol=atol,
                rule=_RULES[family].get(entry_point, _EQUAL),
                first=start + 1,
                entry_point=entry_point,
                field=field,
            )
            # First of all, as the names below may be the function's.
            tests.append(Test(f"CANDIDATE = {entry_point}{source}", "", "assert", private=True))
    return tuple(tests)


def _number(row: Mapping[str, Any]) -> int:
    """The number of an MBPP task, as 2 or "Mbpp/2"; 0 for any other id."""
    match = re.fullmatch(r"(?:mbpp/)?(\d+)", str(row.get("task_id")), re.IGNORECASE)
    return int(match[1]) if match else 0


def _inputs(
    row: Mapping[str, Any], field: str, convert: Callable[[list], Any], where: str
) -> Iterator[Any]:
    """The arguments of each call."""
    values = row.get(field)
    for number, given in enumerate(list_or_json([] if values is None else values, field, where), 1):
        try:
            if not isinstance(given, list):
                raise TypeError
            yield convert(given)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise UserError(
                f"{where}: field {field}, element {number} is {shown(given)}; it must be the list "
                "of the arguments of one call, as EvalPlus writes those of this task."
            ) from error
