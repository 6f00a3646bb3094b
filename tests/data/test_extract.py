"""Answers and the program that each one holds, by CommonMark or the official rule."""

import itertools
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import CASES

from rlif_jax.data.extract import extract_code, find_code, find_thought

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
    "fence indented by four": ("    ```\n    x = 1\n    ```", "x = 1"),
    "fence indented by a tab": ("\t```\n\tif x:\n\t\ty\n\t```", "if x:\n\ty"),
    "fence indented by a tab, program by spaces": (
        "\t```\n    if x:\n      y\n\t```",
        "if x:\n  y",
    ),
    "fence indented, program not": ("   ```\nif x:\n  y\n   ```", "if x:\n  y"),
    "closing fence indented": ("So: ```\n  if x:\n    y\n  ```", "if x:\n  y"),
    "in a list item": ("10. So:\n    ```py\n    if x:\n        y\n    ```", "if x:\n    y"),
    "opening a list item": ("- 1. ```py\n     if x:\n       y\n     ```", "if x:\n  y"),
    "opening a list item, closed outside": ("1. ```py\n   if x:\n     y\n```", "if x:\n  y"),
    "after words in a list item": ("1. So: ```py\n   if x:\n     y\n   ```", "if x:\n  y"),
    "in a quote": ("> So:\n> ```py\n> if x:\n>   y\n>\n> z > 1\n> ```", "if x:\n  y\n\nz > 1"),
    "in a quote in a list": ("- > ```py\n  > if x:\n  >   y\n  > ```\n", "if x:\n  y"),
    "after words in a quote": ("> So: ```py\n> x = 1\n> ```", "x = 1"),
    "in a quote that the program leaves": ("> ```py\nx = 1\n```", "x = 1"),
    "in tags": ("<answer>```python\nx = 1\n```</answer>", "x = 1"),
    "in tags, then a sample output": (
        "<answer>```python\nx = 1\n```</answer>\n```\n1\n```",
        "1",
    ),
    "in tags twice": (
        "<answer>```py\na = 1\n```</answer> or <answer>```py\nb = 2\n```</answer>",
        "b = 2",
    ),
    "in bold": ("**```python\nx = 1\n```**", "x = 1"),
    "after words": ("So: ```python\nx = 1\n```", "x = 1"),
    "after words, without a label": ("So: ```\nx = 1\n```\n", "x = 1"),
    "after words, cut off": ("```\na = 1\n```\nBetter: ```python\nb = 2", None),
    "after words, a longer fence": (
        "So: ````py\na = '''\n```\n'''\n````",
        "a = '''\n```\n'''",
    ),
    "after words, then another": ("One: ```\na = 1\n```\nTwo:\n```py\nb = 2\n```", "b = 2"),
    "words about a fence, then a block": (
        "Wrap it in ```\nlike so:\n```py\nx = 1\n```",
        "x = 1",
    ),
    "words about a fence after a block": (
        "```py\nx = 1\n```\nIt is wrapped in ```\nHm.",
        "x = 1",
    ),
    "words about a fence, then one after words": ("As ```\nwith: ```py\nx = 1\n```", "x = 1"),
    "text after the last fence": ("```python\nx = 1\n``` done", "x = 1"),
    "a block that another one interrupts": ("```py\na =\nNo:\n```py\nb = 2\n```", "b = 2"),
    "a block that another one interrupts, cut off": ("```py\na = 1\n```py\nb =", None),
    "fences of four around three": ("````md\n```py\nx\n```\n````", "```py\nx\n```"),
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
    "two thoughts": (
        "<think>a</think>\n<think>\n```\na\n```</think>```\nb = 2\n```",
        "b = 2",
    ),
    "a thought after the answer": (
        "<think>a</think>```\nb = 2\n```\n<think>ok</think> Yes.",
        "b = 2",
    ),
    "a thought amid words": ("So <think>\n```\na = 1\n```\n</think> no.", None),
    "a thought amid words, cut off": ("So <think>maybe\n```\na = 1\n```\nor", None),
    "a tag amid words after a block": ("```\nx = 1\n```\nIt prints <think> first.", "x = 1"),
    "opening tag in the program": (
        "<think>a</think>\n```\nx = '<think>'\n```",
        "x = '<think>'",
    ),
    "closing tag in the program": ("```\nx = 'a</think>'\n```", "x = 'a</think>'"),
    "closing tag in the program, after a thought": (
        "<think>a</think>\n```\nx = 'a</think>'\n```",
        "x = 'a</think>'",
    ),
    "tags on lines of the program": (
        "<think>a</think>\n```\nx = '''\n<think>\n</think>\n'''\n```",
        "x = '''\n<think>\n</think>\n'''",
    ),
    "closing tag in later words": ("```\nx = 1\n```\nIt ends with </think> as asked.", "x = 1"),
    "tags in quotes": ("I print `<think>`:\n```\nx = 1\n```\nand `</think>`.", "x = 1"),
    "tag in quotes in a thought": ("<think>I print '</think>':\n```\na = 1\n```\nor", None),
    "tags in quotes in a finished thought": (
        "<think>'</think>'\n```\na\n```\n</think>\n```\nb = 2\n```",
        "b = 2",
    ),
    "tag in the block of a thought": (
        "<think>\n```\nx = 'a</think>'\n```\n</think>\n```\nb = 2\n```",
        "b = 2",
    ),
    "prompted thought, answer cut off": ("hm\n```py\na =\n</think>\n```py\nb =", None),
    "fence left open in a prompted thought": (
        "```py\na =\n</think>\n\n```py\nb = 2\n```",
        "b = 2",
    ),
    "answer in tags after a thought": (
        "<think>a</think><answer>```py\nx = 1\n```</answer>",
        "x = 1",
    ),
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


@pytest.mark.parametrize("name", ANSWERS)
def test_where_the_program_is(name):
    """Its block holds every line of it, in order, and nothing but blanks and marks beside."""
    answer, code = ANSWERS[name]
    found = find_code(answer)
    assert (found and found.text) == code
    if found is None:
        return
    block = answer[found.start : found.end].splitlines()
    assert "```" not in "".join(block) or "```" in found.text
    for line, inside in itertools.zip_longest(found.text.splitlines(), block, fillvalue=""):
        assert inside.endswith(line.lstrip()) and not inside.removesuffix(line.lstrip()).strip(
            " \t>"
        )


@pytest.mark.parametrize(
    ("text", "thinking_open", "thought"),
    [
        ("<think>hm</think>yes", False, "hm"),
        ("  <think>hm</think>a</think>b", False, "hm</think>a"),
        ("hm</think>yes", True, "hm"),
        ("hm</think>yes", False, "hm"),  # as if the prompt had opened it
        ("<think>hm", False, "hm"),
        ("hm", True, "hm"),
        ("yes", False, None),
        ("It is '</think>'", False, None),
    ],
)
def test_where_the_thought_is(text, thinking_open, thought):
    found = find_thought(text, thinking_open)
    assert (found and text[slice(*found)]) == thought


def test_a_thought_that_the_prompt_opened():
    draft, answer = "a\n```\nx = 1\n```\n", "```\nx = 2\n```"
    assert extract_code(draft, thinking_open=True) is None
    assert extract_code(f"{draft}</think>{answer}", thinking_open=True) == "x = 2"
    assert extract_code(f"{draft}</think>Done.", thinking_open=True) is None
    assert extract_code(f"{draft}It prints '</think>'. Or\n{answer}", thinking_open=True) is None
    assert extract_code(f"<think>{draft}</think>{answer}", thinking_open=True) == "x = 2"


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
    cases = CASES / "extract_cases.jsonl"
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


FORMS = {
    "after words": "So: ```python\n{}\n```\nDone.",
    "after words, bare": "So: ```\n{}\n```\nDone.",
    "in tags": "<answer>```python\n{}\n```</answer>",
    "in a list item": "10. So:\n    ```python\n{:    }\n    ```\n11. Done.",
    "opening a list item": "10. ```python\n{:    }\n    ```",
    "in a quote": "> ```python\n{:> }\n> ```\n\nDone.",
    "by a tab": "\t```python\n{:\t}\n\t```",
    "windows": "```python\r\n{}\r\n```\r\n",
    "text after": "```python\n{}\n``` Done.",
    "second": "```python\nno\n```\nBetter: ```python\n{}\n```",
    "after a thought": "<think>\n```python\nno\n``` hm</think>\n```python\n{}\n```",
    "before words about tags": "```python\n{}\n```\nIt prints <think> and </think> so.",
}


class Indented(str):
    """A text of which each line can be begun with what a format asks for."""

    def __format__(self, begin):
        return "\n".join(begin + line for line in self.split("\n"))


UNFENCED = CODE.filter(lambda code: "`" not in code and "~" not in code)


@pytest.mark.parametrize("form", FORMS)
@given(code=UNFENCED)
def test_a_program_comes_back_exact_in_every_form(form, code):
    answer = FORMS[form].format(Indented(code))
    assert extract_code(answer) == code
    assert extract_code(answer, thinking_open=True) == (code if "</think>\n" in answer else None)
    assert extract_code(f"<think>{answer.replace('</think>', '')}") is None
    assert extract_code(f"{answer}\nOr:\n```python\n{code}") is None


@pytest.mark.parametrize("tag", ["<think>", "</think>"])
@given(code=UNFENCED, data=st.data())
def test_a_program_may_hold_a_tag(tag, code, data):
    """Wherever it is in the program, after a thought and without one."""
    at = data.draw(st.integers(0, len(code)))
    code = code[:at] + tag + code[at:]
    assert extract_code(f"```python\n{code}\n```\nDone.") == code
    assert extract_code(f"<think>So.</think>\n```python\n{code}\n```") == code


@settings(deadline=None)
@given(st.text("`~ \npx<think/>", max_size=60))
def test_any_text_gives_code_or_none(text):
    """Whatever comes out was in the answer and is not blank."""
    code = extract_code(text)
    assert code is None or (code.strip() and all(line in text for line in code.split("\n")))
