"""Contest days and windows of them."""

from datetime import date, datetime

from rlif_jax.errors import UserError, shown
from rlif_jax.problem import Problem

Window = tuple[date | None, date | None]
"""First and last day, both included; None is open."""


def parse_window(text: str) -> Window:
    """The window in FROM..TO; both are days as 2024-08-01, and either may be left out.

    Raises UserError for any other text, and when FROM comes after TO.
    """
    first_text, dots, last_text = text.partition("..")
    if not dots or not (first_text or last_text):
        raise UserError(
            f"{shown(text)} is not a window of dates; write FROM..TO with days as "
            "2024-08-01..2025-02-01, or leave one of them out."
        )
    first, last = _day(first_text, text), _day(last_text, text)
    if first is not None and last is not None and first > last:
        raise UserError(f"The window of dates {shown(text)} ends before it begins; swap the days.")
    return first, last


def contest_day(contest_date_text: str) -> date:
    """The day of a contest_date, an ISO 8601 day with or without a time, as the text gives it.

    Raises UserError for a text that is not a date.
    """
    try:
        return datetime.fromisoformat(contest_date_text).date()
    except (TypeError, ValueError):
        raise UserError(
            f"contest_date is {shown(contest_date_text)}, which is not a date; write "
            "2024-08-01 or 2024-08-01T00:00:00."
        ) from None


def check_contest_date(problem: Problem, where: str) -> None:
    """Raise UserError, which begins with `where`, for an invalid `contest_date` in the metadata."""
    if (text := problem.metadata.get("contest_date")) is not None:
        try:
            contest_day(text)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error


def in_window(contest_date_text: str, window: Window) -> bool:
    """Whether the day of a problem's contest_date is in the window.

    A problem without a date ("") is in no window. Raises UserError for a text that is not a date.
    """
    if not contest_date_text:
        return False
    day = contest_day(contest_date_text)
    first, last = window
    return (first is None or first <= day) and (last is None or day <= last)


def _day(text: str, window: str) -> date | None:
    if not text:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise UserError(
            f"{shown(text)} in the window of dates {shown(window)} is not a day; write days as "
            "2024-08-01."
        ) from None
