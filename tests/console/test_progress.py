"""What is drawn on a terminal and what is written to a pipe."""

import io
import os
import pty
import re
import subprocess
import sys

import pytest
from rich.console import Console

from rlif_jax.console.progress import Progress, evaluation_lines
from rlif_jax.console.screen import Screen, format_duration

METRICS = {
    "reward/mean": 0.4119,
    "exec/pass_rate": 0.375,
    "rollout/response_length": 54.4,
    "stats/probability_disparity": 0.7123,
    "throughput/sample_tokens_per_s": 1234.4,
    "time/step": 21.34,
    "stats/token_entropy": 0.567,
    "rollout/truncated_fraction": 0.25,
    "grad/norm": 1.5,
}
EVALUATION = {
    "eval/a/b/avg@4": 0.4123,
    "eval/a/b/avg@4_low": 0.31,
    "eval/a/b/avg@4_high": 0.5149,
    "eval/a/b/pass@2": 0.5,
    "eval/a/b/response_length": 61.54,
    "eval/c/avg@1": 1.0,
}
EVALUATION_LINES = [
    "eval a/b: avg@4 0.412 (95% 0.310 to 0.515), pass@2 0.500, length 61.5",
    "eval c: avg@1 1.000",
]


class Clock:
    """Seconds that pass only when told."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def console(width: int, terminal: bool) -> Console:
    # Empty environment: FORCE_COLOR, COLUMNS, TERM and CI of the machine must not decide here.
    return Console(file=io.StringIO(), width=width, height=24, force_terminal=terminal, _environ={})


def plain_run(width: int = 80) -> list[str]:
    output, clock = console(width, terminal=False), Clock()
    with Progress(10, 2, Screen(output), clock) as progress:
        progress.note("resuming [bold] from step 2")
        progress.phase("loading model ...")
        for done in (0, 5, 9):
            progress.phase("sampling", done, 9)
        progress.phase("updating")
        clock.now += 100
        progress.step(3, METRICS)
        progress.phase("sampling", 0, 9)
        clock.now += 20
        progress.step(4, {"reward/mean": -1.0, "time/step": 20.0} | EVALUATION)
        progress.phase("updating")
        clock.now += 40
        progress.step(5, METRICS)
    return output.file.getvalue().split("\n")


def test_a_pipe_gets_one_line_a_step_and_one_a_phase_of_the_start():
    step = "reward 0.412  pass 0.38  length 54  disparity 0.712  1234 tok/s  21.3 s"
    assert plain_run() == [
        "resuming [bold] from step 2",
        "loading model ...",
        "sampling ...",
        "updating ...",
        f"step 3/10  {step}  left 2m29s",  # 7 steps of 21.34 s: the 100 s had loading in them
        "step 4/10  reward -1.000  pass -  length -  disparity -  - tok/s  20.0 s  left 2m00s",
        *[f"  {line}" for line in EVALUATION_LINES],
        f"step 5/10  {step}  left 2m30s",  # 5 steps of (20 + 40) / 2 s
        "",
    ]


def test_a_line_in_a_pipe_is_never_broken_or_coloured():
    assert plain_run(width=20) == plain_run(width=200)
    assert "\x1b" not in "".join(plain_run())


def rows_drawn(text: str) -> list[str]:
    """The lines that a terminal keeps: control sequences taken out, blanks at the end too."""
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r", "\n")
    return [line.rstrip() for line in text.split("\n") if line.strip()]


def live_run(width: int) -> list[str]:
    output, clock = console(width, terminal=True), Clock()
    with Progress(10, 0, Screen(output), clock) as progress:
        progress.phase("scoring")
        progress.phase("sampling", 37, 64)
        clock.now += 65
        progress.step(1, METRICS | EVALUATION)
        progress.phase("updating")
        clock.now += 30
        progress.step(2, METRICS)
        progress.note("saved [red]")
    return rows_drawn(output.file.getvalue())


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_gets_a_table_and_a_bar_within_its_width(width):
    rows = live_run(width)
    assert max(map(len, rows)) <= width
    wide = width >= 100
    header = " step  reward  pass length disparity  tok/s seconds"
    first = " 1/10   0.412  0.38     54     0.712   1234    21.3"
    assert rows.count(header + " entropy cut off grad norm" * wide) == 1
    assert rows.count(first + "   0.567    0.25     1.500" * wide) == 1
    assert rows.count(first.replace(" 1/10", " 2/10") + "   0.567    0.25     1.500" * wide) == 1
    assert [row.strip() for row in rows if "eval" in row] == EVALUATION_LINES
    assert "saved [red]" in rows
    bars = [row for row in rows if "elapsed" in row]
    # The bar is drawn again for every change, and last below everything that was printed.
    assert re.fullmatch(r"step 0/10 .*━ 0s elapsed, - left", bars[0])
    assert any(re.fullmatch(r"step 1/10 .*━ 1m05s elapsed, 3m12s left", bar) for bar in bars)
    assert re.fullmatch(r"step 2/10 .*━ 1m35s elapsed, 4m00s left", bars[-1])
    assert any(row.endswith(" updating") for row in rows)


def test_a_narrow_terminal_crops_the_table():
    rows = live_run(30)
    # Notes and evaluations are kept whole: the terminal breaks them.
    assert max(len(row) for row in rows if "eval" not in row) <= 30
    assert " 1/10   0.412  0.38     54" in rows


SCRIPT = """
from rlif_jax.console.progress import Progress
with Progress(2) as progress:
    progress.phase("loading model")
    progress.step(1, {"reward/mean": 0.5})
"""


def environment(**extra: str) -> dict[str, str]:
    decisive = ("CI", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS")
    kept = {name: value for name, value in os.environ.items() if name not in decisive}
    return kept | {"TERM": "xterm"} | extra


def output_on_a_terminal(**extra: str) -> str:
    primary, secondary = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=secondary, env=environment(**extra)
    ):
        os.close(secondary)
        drawn = b""
        while True:
            try:
                block = os.read(primary, 65536)
            except OSError:  # how Linux says that the other side is closed
                block = b""
            if not block:
                break
            drawn += block
    os.close(primary)
    return drawn.decode()


def test_standard_output_decides():
    assert "━" in output_on_a_terminal()
    in_ci = output_on_a_terminal(CI="true")
    assert "━" not in in_ci and in_ci.startswith("loading model ...")
    piped = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        env=environment(FORCE_COLOR="1"),
        check=True,
    ).stdout
    assert piped.splitlines()[0] == "loading model ..."
    assert piped.splitlines()[1].startswith("step 1/2  reward 0.500  pass -")
    assert "━" not in piped


def test_durations():
    seconds = [0, 59.4, 59.6, 160, 3599.7, 11100, -1]
    assert [format_duration(s) for s in seconds] == [
        *["0s", "59s", "1m00s", "2m40s", "1h00m", "3h05m", "0s"]
    ]


def test_evaluation_lines():
    assert evaluation_lines(METRICS | EVALUATION) == EVALUATION_LINES
    assert evaluation_lines(METRICS) == []
