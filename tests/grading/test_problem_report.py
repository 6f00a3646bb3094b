"""What the check of a file of problems prints: a table on a terminal, lines elsewhere."""

import io

from rich.console import Console

from rlif_jax.console.screen import Screen
from rlif_jax.data.findings import Contents, Fault
from rlif_jax.grading.problem_report import Report, printable, show


def shown(report: Report, terminal: bool) -> str:
    console = Console(
        file=io.StringIO(), force_terminal=terminal, color_system=None, width=70, _environ={}
    )
    show(report, Screen(console))
    return console.file.getvalue()


def test_table_on_a_terminal_and_lines_elsewhere():
    faults = [
        Fault(7, "a[b]", "bad row", "field x is '[red]'; " + "write it otherwise " * 5),
        Fault(12, "", "bad row", "\x1b[2Jno JSON"),
    ]
    report = Report("f.jsonl", faults, Contents(rows=2))
    plain = shown(report, terminal=False).splitlines()
    assert plain[0] == f"f.jsonl line 7 (id 'a[b]'): bad row: {faults[0].message}"
    assert plain[1] == "f.jsonl line 12: bad row: \\x1b[2Jno JSON"
    assert plain[2:] == ["0 problems in 2 rows of f.jsonl", "solutions: 0", "faults: bad row 2"]
    table = shown(report, terminal=True)
    assert "a[b]: " in table and "'[red]'" in table and "\\x1b[2Jno JSON" in table
    assert max(len(line) for line in table.splitlines()) <= 70


def test_equal_faults_of_many_rows_are_one_line():
    faults = [Fault(n, f"p{n}", "bad row", f"field x is {n}, not text.") for n in range(1, 400)]
    faults += [
        Fault(400, "", "bad row", "field y is missing."),
        Fault(401, "", "bad row", "field y is missing."),
        Fault(402, "s", "solution", "it fails 1 of 2 tests."),
        Fault(403, "t", "solution", "it fails 1 of 3 tests."),  # another fault: values count here
    ]
    warnings = [Fault(n, "", "warning", "only some tests.") for n in (2, 3)]
    report = Report("f", faults, Contents(rows=403, warnings=warnings))
    lines = shown(report, terminal=False).splitlines()
    assert lines == [
        "f line 1 (id 'p1') and 398 more rows (line 2, id 'p2'; line 3, id 'p3'; line 4, id 'p4'; "
        "...): bad row: field x is 1, not text.",
        "f line 400 and 1 more row (line 401): bad row: field y is missing.",
        "f line 402 (id 's'): solution: it fails 1 of 2 tests.",
        "f line 403 (id 't'): solution: it fails 1 of 3 tests.",
        "f line 2 and 1 more row (line 3): warning: only some tests.",
        "0 problems in 403 rows of f",
        "solutions: 0",
        "faults: bad row 401, solution 2",
    ]
    assert len(report.as_json()["faults"]) == 403
    assert len(report.as_json()["warnings"]) == 2
    table = shown(report, terminal=True)
    assert "p1 and 398 more" in table
    assert table.count("p1 and ") == 1 and "p2: " not in table and "only some tests." in table


def test_printable():
    assert printable("é\t\x1b[0m\ud800") == "é\\t\\x1b[0m\\ud800"
