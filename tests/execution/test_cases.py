"""Every case against the official checker's verdict; where ours differs, why.

The checker runs programs inside a harness (mock input, one function around the program, an alarm
in the program's own process). Where its verdict comes from the harness, ours is what a judge that
runs the program as a process of its own says.
"""

import pytest
from support.execution.official import problem_of, read_rows

from rlif_jax import config
from rlif_jax.errors import UserError
from rlif_jax.execution.pool import Judge
from rlif_jax.problem import Verdict

CASES = read_rows("cases.jsonl")
ARTEFACTS = {"quirk", "falseneg", "falsepos", "timing_dependent", "thirdparty"}
# These have no such tag. The cause of two is that of in_os_read0, which has one: the checker's
# standard input is /dev/null below its mock. The checker takes quit() away from programs, but not
# exit().
UNTAGGED = {"in_open0_star", "in_io_open0", "quit_builtin"}
REFUSED = "refused"  # the problem, whatever the program

PASSED = Verdict.PASSED
DIFFERENCES = {
    "in_readlines_len": (PASSED, "readlines() gives the lines, without an empty one at the end"),
    "in_iter_stdin": (PASSED, "standard input can be iterated over"),
    "in_map_stdin": (PASSED, "standard input can be iterated over"),
    "in_buffer_readline": (PASSED, "buffer.readline() goes on to the next line"),
    "in_buffer_read_twice": (PASSED, "a second read() finds the end of the input"),
    "in_readline_then_read": (PASSED, "read() gives what readline() left"),
    "in_input_then_readlines": (PASSED, "readlines() gives what input() left"),
    "in_from_stdin_readline_newline": (PASSED, "readline() keeps the newline"),
    "in_from_stdin_iter": (PASSED, "an imported stdin is the real one"),
    "in_from_stdin_buffer": (PASSED, "an imported stdin is the real one"),
    "in_open0_star": (PASSED, "descriptor 0 is the input"),
    "in_os_read0": (PASSED, "descriptor 0 is the input"),
    "in_io_open0": (PASSED, "descriptor 0 is the input"),
    "in_stdin_reconfigure": (PASSED, "standard input is a real text stream"),
    "in_textiowrapper": (PASSED, "standard input has a real buffer"),
    "in_dunder_stdin": (PASSED, "sys.__stdin__ is standard input"),
    "main_guard_reversed": (PASSED, "the program is __main__, however it asks"),
    "main_guard_and_true": (PASSED, "the program is __main__, however it asks"),
    "main_guard_not_last": (PASSED, "the program is __main__, wherever it asks"),
    "main_guard_in": (PASSED, "the program is __main__, however it asks"),
    "name_printed": (PASSED, "the program is __main__"),
    "global_stmt_nested": (PASSED, "the program's names are a module's, not a function's"),
    "globals_dict": (PASSED, "the program's names are a module's, not a function's"),
    "star_import_in_try": (PASSED, "at the top level of a module it is allowed"),
    "import_hoist_shadowed_var": (PASSED, "imports run where they stand"),
    "class_solution_in_string_stdin": (PASSED, "text is not searched for a class"),
    "out_stdout_buffer": (PASSED, "standard output has a buffer"),
    "out_print_file_stdout_from": (PASSED, "an imported stdout is the real one"),
    "out_stdout_replaced_flush_atexit": (PASSED, "atexit functions still print"),
    "quit_builtin": (PASSED, "quit() ends a program as exit() does"),
    "tle_caught_quiet": (Verdict.TIME_LIMIT, "a limit is no exception that can be caught"),
    "empty_test_list": (REFUSED, "nothing was tested"),
    "input_output_null": (REFUSED, "there are no tests, which is not the program's fault"),
    "f_output_not_json": (REFUSED, "no answer can be right, which is not the program's fault"),
    "f_input_trailing_newline": (PASSED, "a newline at the end is no further argument"),
    "f_missing_toplevel": (Verdict.RUNTIME_ERROR, "the prelude's add is not the program's"),
    "f_empty_code_prelude_fn": (Verdict.NO_CODE, "the prelude's gcd is not the program's"),
}
# What our verdict may be where the official one is a failure with this code.
FAILURES = {
    -2: {Verdict.WRONG_ANSWER},
    -3: {Verdict.TIME_LIMIT},
    -4: {Verdict.RUNTIME_ERROR, Verdict.COMPILE_ERROR, Verdict.MEMORY_LIMIT, Verdict.NO_CODE},
    -5: {Verdict.RUNTIME_ERROR},
}
# Failures for both, by different names.
OTHER_FAILURES = {
    "exc_msg_timeoutexception": ({Verdict.RUNTIME_ERROR}, "a word in a message is no time limit"),
    "tle_sigalrm_ignored": ({Verdict.TIME_LIMIT}, "the limit over all tests ended it"),
    "tle_print_flood_bounded": ({Verdict.OUTPUT_LIMIT}, "it floods for as long as it is let"),
    "open_source_reads_input": (
        {Verdict.RUNTIME_ERROR, Verdict.WRONG_ANSWER},
        "a file of the system, if it can be seen at all, does not hold the input",
    ),
    "f_tle_toplevel": ({Verdict.TIME_LIMIT}, "time is limited at the top level too"),
    "dunder_file": ({Verdict.WRONG_ANSWER}, "the program has a file name"),
    "cmp_snan": ({Verdict.WRONG_ANSWER}, "it is the comparison that raises"),
    "f_bad_repr_wa": ({Verdict.WRONG_ANSWER}, "the value is not shown to compare it"),
}


@pytest.fixture(scope="module")
def endings():
    """Id -> the future of an Outcome, or the UserError that refused the problem."""
    endings = {}
    # Every case has a limit of its own below this one.
    execution = config.Execution(workers=2, time_limit_s=6.0, memory_mb=1024)
    with Judge(execution) as judge:
        for name, row in CASES.items():
            try:
                endings[name] = judge.submit(problem_of(row), row["code"])
            except UserError as error:
                endings[name] = error
        yield endings


@pytest.mark.parametrize("name", CASES)
def test_case(endings, name):
    row, ending = CASES[name], endings[name]
    officially_passed = row["error_code"] is None
    if isinstance(ending, UserError):
        assert DIFFERENCES[name][0] == REFUSED, ending
        return
    outcome = ending.result(timeout=300)
    if name in DIFFERENCES:
        assert outcome.verdict == DIFFERENCES[name][0], outcome
        assert outcome.passed != officially_passed, "it agrees, so it is no difference"
        return
    if name in OTHER_FAILURES:
        allowed = OTHER_FAILURES[name][0]
    else:
        allowed = {PASSED} if officially_passed else FAILURES[row["error_code"]]
    assert outcome.verdict in allowed, outcome
    # The same test was the first to fail.
    passed_first = [result for result in row["expected"] if result is True]
    assert outcome.results.count(PASSED) == len(passed_first), outcome


def test_only_artefacts_of_the_official_harness_differ():
    tagged = {name for name, row in CASES.items() if ARTEFACTS & set(row["tags"])}
    assert set(DIFFERENCES) - tagged == UNTAGGED
