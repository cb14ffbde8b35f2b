"""From the options about time, and the timetable, to the hours of one run; refused at once when they are over."""

from datetime import UTC, datetime

from worker.cli.parameter import Window
from worker.config import Limits
from worker.errors import ClosedError, ConfigError
from worker.schedule import Hours
from worker.timetable import Timetable, parse_duration, parse_until, too_far


def hours_of(limits: Limits, window: Window, now: datetime | None = None) -> Hours:
    """Return when a run that begins now may send.

    Raises ConfigError for an option that cannot be understood, ClosedError when nothing may be sent now.
    """
    now = now or datetime.now(UTC)
    entries = () if window.ignore_timetable else limits.timetable
    timetable = Timetable(entries, limits.timezone)
    hours = Hours(timetable, _until(window.until, now, timetable), _seconds(window.max_duration), window.wait)
    if (closed := hours.closed(now)) and (not window.wait or timetable.reopens(now) is None):
        raise ClosedError(
            f"{closed} ({timetable.zone}), as limits.timetable says.\n"
            "  Sleep until then?  --wait      Send all the same?  --ignore-timetable"
        )
    return hours


def _until(text: str | None, now: datetime, timetable: Timetable) -> datetime | None:
    if text is None:
        return None
    try:
        until = parse_until(text, now, timetable.zone)
    except ValueError as exc:
        raise ConfigError(f"--until: {exc}") from None
    if too_far(until, now, text):
        away = round((until - now.astimezone(until.tzinfo)).total_seconds() / 3600)
        raise ClosedError(
            f"{text} has passed and the next one is {away} h away: the window is over.\n"
            f"  Longer on purpose?  --until {until:%Y-%m-%dT%H:%M}"
        )
    return until


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as exc:
        raise ConfigError(f"--max-duration: {exc}") from None
