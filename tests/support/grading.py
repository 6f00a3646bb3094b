"""Rows of problems for grading, and the command on files of them."""

import base64
import json
import pickle
import zlib

from rlif_jax.grade import main

ECHO = "print(input())"


def sample(name, *pairs, fn_name=None, **fields):
    """An evaluation sample with pairs of input and output."""
    cases = {"inputs": [i for i, _ in pairs], "outputs": [o for _, o in pairs]}
    if fn_name:
        cases["fn_name"] = fn_name
    return {"id": name, "input_output": json.dumps(cases)} | fields


def official(name, private, func_name=None, **fields):
    """A dataset row with one public test that echoes 1."""
    kind = "functional" if func_name else "stdin"
    return {
        "question_id": name,
        "question_content": "?",
        "starter_code": "",
        "public_test_cases": json.dumps([{"input": "1", "output": "1", "testtype": kind}]),
        "private_test_cases": private,
        "metadata": json.dumps({"func_name": func_name} if func_name else {}),
    } | fields


def packed(value):
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


GOOD = sample("good", ("1", "1"))


class Grading:
    """Files of one grading, and the command on them."""

    def __init__(self, folder, capsys):
        self.problems, self.completions = folder / "problems.jsonl", folder / "completions.jsonl"
        self.out = folder / "graded.jsonl"
        self.capsys = capsys
        self.shown = self.errors = ""

    def write(self, problems=None, completions=None):
        for path, rows in ((self.problems, problems), (self.completions, completions)):
            if rows is not None:
                path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def arguments(self, *flags):
        files = (self.problems, self.completions, self.out)
        names = ("--problems", "--completions", "--out")
        pairs = [text for pair in zip(names, map(str, files), strict=True) for text in pair]
        return [*pairs, "--execution.workers=2", "--execution.allow-weak-isolation", *flags]

    def __call__(self, *flags):
        """Run the command; return its exit status."""
        status = 0
        try:
            main(self.arguments(*flags))
        except SystemExit as end:
            status = end.code
        self.shown, self.errors = self.capsys.readouterr()
        return status

    @property
    def rows(self):
        return [json.loads(line) for line in self.out.read_text().splitlines()]

    def column(self, name):
        return [row.get(name) for row in self.rows]
