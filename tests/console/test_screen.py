"""Lines and bars: who watches, what stays one line, what a text may hold."""

import io

import pytest
from rich.console import Console

from rlif_jax.console.meter import Phases
from rlif_jax.console.screen import Screen


def terminal(width=40):
    return Screen(Console(file=io.StringIO(), width=width, force_terminal=True, _environ={}))


def pipe(width=40):
    return Screen(Console(file=io.StringIO(), width=width, force_terminal=False, _environ={}))


def shown(screen):
    return screen.console.file.getvalue()


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "ci", "options", "watched"),
    [
        (Terminal(), "", {}, True),
        (Terminal(), "true", {}, False),
        (Terminal(), "", {"silent": True}, False),
        (io.StringIO(), "", {}, False),
    ],
)
@pytest.mark.parametrize("stderr", [False, True])
def test_a_person_watches_a_terminal_outside_of_ci(
    monkeypatch, stream, ci, options, watched, stderr
):
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    for name in ("TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.stderr" if stderr else "sys.stdout", stream)
    assert Screen(stderr=stderr, **options).watched is watched


def test_a_line_is_printed_as_it_is_and_never_broken():
    for screen in (terminal(), pipe()):
        screen.note("[red]a:cat:b" + 50 * " 12", 3, 7)
        assert shown(screen) == "[red]a:cat:b" + 50 * " 12" + " 3/7\n"


def test_a_silent_screen_shows_nothing(capsys):
    Screen(silent=True).note("line")
    Screen(stderr=True).note("other")
    assert capsys.readouterr() == ("", "other\n")


def phases(screen):
    now = [0.0]
    with Phases(screen, lambda: now[0]) as notice:
        for done in range(0, 100, 4):
            now[0] += 1.0
            notice("writing", done, 200)
        notice("closing")
        now[0] += 11.0
        notice("closing")
    return shown(screen)


def test_phases_are_a_line_now_and_then_in_a_pipe_and_a_bar_on_a_terminal():
    assert phases(pipe()).splitlines() == ["writing: 20%", "writing: 42%", "closing"]
    drawn = phases(terminal(80))  # again at regular intervals, and as it stands at the end
    assert "closing" in drawn and "━" in drawn
