"""Answers and the program that each one holds, by CommonMark's rules for fences."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlif_jax.data.extract import extract_code

ANSWERS = {
    "plain": ("```python\nx = 1\n```", "x = 1"),
    "prose around": ("Sure!\n\n```python\nx = 1\n```\nThis sets x.", "x = 1"),
    "short label": ("```py\nx = 1\n```", "x = 1"),
    "no label": ("```\nx = 1\n```", "x = 1"),
    "label with words": ("``` python title=a.py\nx = 1\n```", "x = 1"),
    "other language": ("```cpp\nint x;\n```", "int x;"),
    "tildes": ("~~~python\nx = 1\n~~~", "x = 1"),
    "tildes may have backticks in the label": ("~~~ `py`\nx = 1\n~~~", "x = 1"),
    "longer closing fence": ("```\nx = 1\n`````", "x = 1"),
    "shorter fence inside": ("````\na = '''\n```\n'''\n````", "a = '''\n```\n'''"),
    "other character inside": ("```\nx = 1\n~~~\n```", "x = 1\n~~~"),
    "closing fence with spaces after": ("```\nx = 1\n```  \t", "x = 1"),
    "fence with text after does not close": ("```\nx = 1\n``` done\n```", "x = 1\n``` done"),
    "windows line ends": ("```python\r\nif x:\r\n  y\r\n```\r\n", "if x:\n  y"),
    "blank lines and trailing spaces stay": ("```\n\nx = 1   \n\n```", "\nx = 1   \n"),
    "indented fence": ("1. So:\n   ```python\n   if x:\n       y\n  z\n   ```", "if x:\n    y\nz"),
    "indent of one": (" ```\n x\n```", "x"),
    "four spaces are no fence": ("    ```\n    x = 1\n    ```", None),
    "four spaces do not close": ("```\nx = '''\n    ```\n'''\n```", "x = '''\n    ```\n'''"),
    "two blocks": ("```\na = 1\n```\nor\n```python\nb = 2\n```", "b = 2"),
    "sample output in a block of its own": (
        "```python\nprint(1)\n```\nIt prints\n```\n1\n```",
        "1",
    ),
    "last block cut off": ("```python\na = 1\n```\nBetter:\n```python\nb =", None),
    "only block cut off": ("```python\na = 1", None),
    "last block barely opened": ("```python\na = 1\n```\nBetter:\n```", None),
    "code on one line is no fence": ("Use ```x``` here", None),
    "code on one line before a block": ("```x``` it is:\n```\ny = 2\n```", "y = 2"),
    "backticks amid prose": ("```python\nx = 1\n```\nthe ``` fence closes it", "x = 1"),
    "no fence": ("x = 1\nprint(x)", None),
    "tags": ("[PYTHON]\nx = 1\n[/PYTHON]", None),
    "empty block": ("```python\n```", None),
    "blank block": ("```python\n  \n\n```", None),
    "empty": ("", None),
    "after thinking": ("<think>\n```\na = 1\n```\n</think>\n```\nb = 2\n```", "b = 2"),
    "thinking begun in the prompt": ("hm\n```\na = 1\n```\n</think>```\nb = 2\n```", "b = 2"),
    "nothing after thinking": ("<think>\n```\na = 1\n```\n</think>\nDone.", None),
    "thinking cut off": ("<think>\nTry\n```\na = 1\n```\nNo,", None),
    "thinking again, cut off": ("</think>\n```\na = 1\n```\n<think>\nWait", None),
    "fence left open while thinking": ("<think>```py\na =</think>\n```\nb = 2\n```", "b = 2"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers(name):
    answer, code = ANSWERS[name]
    assert extract_code(answer) == code


# Answers on which LiveCodeBench's own extraction was run, in tests/execution/cases: our code, and
# the reason where it is another. The official rule of chat models takes what stands between the
# last two lines that contain three backticks, "" without two.
OFFICIAL = {
    "ex_no_fence": (None, None),
    "ex_three_fences_unclosed_last": (None, "the prose between two blocks is no program"),
    "ex_inline_fence_line": ("print(1)", None),
    "ex_fence_in_prose_after": ("print(1)", "backticks within a line are no fence"),
    "ex_lang_py": ("print(1)", None),
    "ex_lang_cpp": ("int main(){}", None),
    "ex_tilde_fence": ("print(1)", "tildes are fences too"),
    "ex_quad_fence": ("print(1)", None),
    "ex_crlf": ("print(1)", "a carriage return is part of the line's end"),
    "ex_answer_then_sample_output_block": ("1", None),
    "ex_empty_block": (None, None),
    "ex_python_tag": (None, None),
    "ex_python_tag_and_fence": ("print(2)", None),
    "ex_trailing_ws_kept": ("\nprint(1)   \n", None),
}


@pytest.fixture(scope="module")
def official_rows():
    cases = Path(__file__).parents[1] / "execution" / "cases" / "extract_cases.jsonl"
    rows = [json.loads(line) for line in cases.read_text().splitlines()]
    return {row["id"]: row for row in rows}


@pytest.mark.parametrize("name", OFFICIAL)
def test_answers_that_the_official_extraction_saw(official_rows, name):
    code, reason = OFFICIAL[name]
    row = official_rows[name]
    assert extract_code(row["model_output"]) == code
    # No code and empty code are one failure there.
    assert ((code or "") != row["official"]) == (reason is not None)


def test_no_answer_of_the_official_extraction_is_left_out(official_rows):
    assert set(OFFICIAL) == set(official_rows)


LINE = st.text(st.characters(exclude_characters="\n\r"), max_size=20)
CODE = (
    st.lists(LINE, min_size=1, max_size=6)
    .map("\n".join)
    .filter(lambda code: code.strip() and "think>" not in code)
)
# Prose without the two characters of fences and without the tags of thinking.
PROSE = st.text(st.characters(exclude_characters="`~<\r"), max_size=40)


@settings(deadline=None)
@given(
    code=CODE, before=PROSE, after=PROSE, character=st.sampled_from("`~"), label=st.text("pyton3")
)
def test_any_code_comes_back_whole(code, before, after, character, label):
    """A fence one longer than any run of its character in the code always gives the code back."""
    longest = max(map(len, re.findall(re.escape(character) + "+", code)), default=0)
    fence = character * max(3, longest + 1)
    answer = f"{before}\n{fence}{label}\n{code}\n{fence}\n{after}"
    assert extract_code(answer) == code
    assert extract_code(f"{answer}\n{fence}{label}\n{code}") is None
    assert extract_code(f"<think>{answer}") is None
    assert extract_code(f"<think>{answer}</think>{before}") is None


@settings(deadline=None)
@given(st.text("`~ \npx<think/>", max_size=60))
def test_any_text_gives_code_or_none(text):
    """Whatever comes out was in the answer and is not blank."""
    code = extract_code(text)
    assert code is None or (code.strip() and all(line in text for line in code.split("\n")))
