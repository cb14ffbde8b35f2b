"""The timetable: in which hours an import may send, and how many requests a second. It reads no clock.

An entry is `Mon-Fri 06:00-22:00 0`: days (or none, for every day), hours, and a rate. What counts is what a clock on
the wall of the timetable's zone shows. So when it is put back, an hour that it shows twice is in its entry twice; when
it jumps ahead, a time that it never shows is reached at the jump.

Python compares, adds and subtracts two times of the same zone by their labels, wrongly wherever the clock is changed.
So all arithmetic here is in UTC, and a label is only ever read.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from difflib import get_close_matches
from itertools import product
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

UNTIL_HOURS = 12
"""How far ahead a bare time of day may lie; see `too_far`."""

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")  # as `datetime.weekday` counts them
_DAY = 24 * 60  # minutes, as are all whole numbers here
_WEEK = 7 * _DAY
_MINUTE, _HOUR = timedelta(minutes=1), timedelta(hours=1)

_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_ISO = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}.*")
_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_RATE = re.compile(rf"{_NUMBER}(?:/([smh]))?")
_DURATION = re.compile(rf"(?:{_NUMBER}d)?(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?|{_NUMBER}")
_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1, "": 1}


class Timetable:
    """The rates of a week, by the clock of a zone.

    entries: see above; where they overlap, the least rate holds. timezone: a name of the tz database, `Europe/London`.
    Every time given must be aware, of whatever zone. Raises ValueError, with a sentence for people.
    """

    __slots__ = ("_edges", "_rates", "_zone")

    def __init__(self, entries: Sequence[str], timezone: str) -> None:
        self._zone = _zone_named(timezone)
        self._rates = [math.inf] * _WEEK  # one for each minute of the week
        for entry in entries:
            minutes, rate = _parsed(entry)
            for minute in minutes:
                self._rates[minute] = min(self._rates[minute], rate)
        self._edges = [minute for minute in range(_WEEK) if self._rates[minute] != self._rates[minute - 1]]

    @property
    def zone(self) -> ZoneInfo:
        """The zone whose clock counts."""
        return self._zone

    def rate(self, when: datetime) -> float:
        """Return the requests a second allowed at that instant: `math.inf` is no limit, 0 is closed."""
        return self._rates[_minute_of_week(_shown(when, self._zone))]

    def next_change(self, when: datetime) -> datetime | None:
        """Return the next instant after that one at which the rate differs, in this zone; None: it never does."""
        if not self._edges:
            return None
        rate, at = self.rate(when), _whole_minute(when, self._zone)
        while self.rate(at) == rate:  # ends: what one change of the clock swallows comes a week later
            at += self._stride(at)
        return at.astimezone(self._zone)

    def reopens(self, when: datetime) -> datetime | None:
        """Return the next instant, from that one on, at which anything may be sent; None: closed for ever."""
        return when if self.rate(when) > 0 else self.next_change(when)

    def _stride(self, at: datetime) -> timedelta:
        """Return how far one may go without passing a change: to the next edge, but by minutes where the clock jumps.

        An hour at most: two changes of the clock within a stride could undo each other, unseen. Some are days apart.
        """
        shown = at.astimezone(self._zone)
        minute = _minute_of_week(shown)
        edge = self._edges[bisect_right(self._edges, minute) % len(self._edges)]
        stride = min(_HOUR, (edge - minute) % _WEEK * _MINUTE)
        steady = (at + stride).astimezone(self._zone).utcoffset() == shown.utcoffset()
        return stride if steady else _MINUTE


def parse_until(text: str, now: datetime, zone: ZoneInfo) -> datetime:
    """Return the instant meant, after now, in that zone. Whether a bare time of day is too far: ask `too_far`.

    text: a time of day such as 06:00, which is the next one; or an ISO date-time, in that zone when it names none.
    Raises ValueError when it is neither, or in the past.
    """
    text = text.strip()
    if bare := _TIME.fullmatch(text):
        today = _shown(now, zone).date()
        clock = time(int(bare[1]), int(bare[2]))
        walls = (  # yesterday's too: the clock may be put back over midnight
            datetime.combine(today + timedelta(days=days), clock.replace(fold=fold), zone)
            for days, fold in product((-1, 0, 1), (0, 1))
        )
        return min(instant for instant in map(_instant, walls) if instant > _utc(now)).astimezone(zone)
    try:
        found = datetime.fromisoformat(text if _ISO.fullmatch(text) else "")  # which would take a mere date
        until = (_utc(found) if found.tzinfo else _instant(found.replace(tzinfo=zone))).astimezone(zone)
    except (ValueError, OverflowError):
        raise ValueError(f'"{text}" is no time; write a time of day like 06:00, or 2026-03-04T06:00') from None
    if _utc(until) <= _utc(now):
        raise ValueError(f'"{text}" is in the past: it is {_shown(now, zone):%Y-%m-%dT%H:%M} in {zone}')
    return until


def too_far(until: datetime, now: datetime, text: str) -> bool:
    """Tell whether a bare time of day lies so far ahead that it must have been meant to be over.

    A supervisor that restarts an import after its 06:00 would else have it run until tomorrow's. A date is never
    misunderstood so. text: what `until` was parsed from.
    """
    return bool(_TIME.fullmatch(text.strip())) and _utc(until) - _utc(now) > UNTIL_HOURS * _HOUR


def parse_duration(text: str) -> float:
    """Return the seconds, above 0, that 45s, 90m, 1h30m, 1d, or a plain number of seconds stand for.

    Raises ValueError when it is nothing of the kind.
    """
    found = _DURATION.fullmatch(text.strip().lower())
    parts = zip(_SECONDS.values(), found.groups(), strict=True) if found else ()
    seconds = sum(float(number) * unit for unit, number in parts if number)
    if not 0 < seconds < math.inf:
        raise ValueError(f'"{text}" is no duration above 0; write 45s, 90m, 1h30m, 1d, or a number of seconds')
    return seconds


# ---- instants and labels --------------------------------------------------------------------------------------------


def _utc(when: datetime) -> datetime:
    if when.tzinfo is None:  # Python would take the machine's own zone
        raise ValueError(f"an instant needs a time zone, and {when} has none")
    return when.astimezone(UTC)


def _shown(when: datetime, zone: ZoneInfo) -> datetime:
    """Return what the zone's clock shows. By way of UTC, or a label that it never shows would come back as it is."""
    return _utc(when).astimezone(zone)


def _minute_of_week(shown: datetime) -> int:
    return shown.weekday() * _DAY + shown.hour * 60 + shown.minute


def _whole_minute(when: datetime, zone: ZoneInfo) -> datetime:
    """Return the instant, in UTC, at which the zone's clock began to show this minute."""
    shown = _shown(when, zone)
    return _utc(when) - timedelta(seconds=shown.second, microseconds=shown.microsecond)


def _instant(wall: datetime) -> datetime:
    """Return the instant, in UTC, at which the clock shows this, or jumps over it. wall: its zone is a ZoneInfo."""
    instant = wall.astimezone(UTC)
    if instant.astimezone(wall.tzinfo).replace(tzinfo=None) == wall.replace(tzinfo=None):
        return instant
    instant = wall.replace(second=0, microsecond=0, fold=0).astimezone(UTC)  # as long after the jump as it never was
    after = instant.astimezone(wall.tzinfo).utcoffset()
    while (earlier := instant - _MINUTE).astimezone(wall.tzinfo).utcoffset() == after:
        instant = earlier
    return instant


def _zone_named(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder, such as Europe
        zones = sorted(available_timezones())
    known = {zone.rpartition("/")[2].lower(): zone for zone in zones} | {zone.lower(): zone for zone in zones}
    close = get_close_matches(name.lower(), known, n=1)
    hint = f'did you mean "{known[close[0]]}"?' if close else 'write one like "Europe/London"'
    raise ValueError(f'there is no time zone "{name}"; {hint}')


# ---- entries --------------------------------------------------------------------------------------------------------


def _parsed(entry: str) -> tuple[list[int], float]:
    """Return the minutes of the week that an entry is about, and its rate."""
    parts = entry.split()
    if len(parts) not in {2, 3} or ":" in parts[-1]:
        raise ValueError(
            f'the entry "{entry}" is not days (or none, for every day), hours and a rate, each without spaces; '
            'write it like "Mon-Fri 06:00-22:00 0"'
        )
    *days, hours, rate = parts
    try:
        start, length = _hours(hours)
        begins = [day * _DAY + start for day in (_days(days[0]) if days else range(7))]
        return [(begin + minute) % _WEEK for begin in begins for minute in range(length)], _rate(rate)
    except ValueError as error:
        raise ValueError(f'the entry "{entry}" is wrong: {error}') from None


def _days(text: str) -> list[int]:
    found = list[int]()
    for piece in text.lower().split(","):
        first, dash, last = piece.partition("-")
        if first not in _DAYS or (dash and last not in _DAYS):
            raise ValueError(f'"{piece}" is no day; write Mon, Tue, Wed, Thu, Fri, Sat, Sun, Mon-Fri, or Sat,Sun')
        begin = _DAYS.index(first)
        count = (_DAYS.index(last) - begin) % 7 + 1 if dash else 1
        found += [(begin + day) % 7 for day in range(count)]
    return found


def _hours(text: str) -> tuple[int, int]:
    """Return the minute of the day at which hours begin, and how many minutes they last."""
    first, _, last = text.partition("-")
    begin, end = _TIME.fullmatch(first), _TIME.fullmatch(last)
    if not begin or not (end or last == "24:00"):
        raise ValueError(f'"{text}" is no range of hours; write HH:MM-HH:MM, from 00:00 to 24:00, like 06:00-22:00')
    start = int(begin[1]) * 60 + int(begin[2])
    stop = int(end[1]) * 60 + int(end[2]) if end else _DAY
    if start == stop:
        raise ValueError(f'"{text}" ends when it starts; write 00:00-24:00 for the whole day')
    return start, (stop - start) if stop > start else _DAY + stop - start


def _rate(text: str) -> float:
    """Return requests a second."""
    if text.lower() == "inf":
        return math.inf
    found = _RATE.fullmatch(text.lower())
    rate = float(found[1]) / _SECONDS[found[2] or ""] if found else math.inf
    if math.isinf(rate):
        raise ValueError(f'"{text}" is no rate; write 0 (closed), 5 or 5/s, 300/m, 3600/h, or inf (no limit)')
    return rate
