"""The plan: when an import will be done, and how far it will be each time its hours close. It reads no clock.

Time goes by in stretches of one pace, from one change of the timetable to the next. What is far away is not walked
through: a week in which the clock is not changed lets through as much as any other one, wherever it begins.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from worker.timetable import Timetable

HORIZON_WEEKS = 5_218
"""A hundred years: what takes longer is not planned."""

_NEAR_WEEKS = 2
"""How far ahead closings are told one by one."""

_CRUMB = 1e-6
"""Less of a request than this is a rounding error."""

_HOUR, _WEEK = timedelta(hours=1), timedelta(weeks=1)


@dataclass(frozen=True, slots=True)
class Closing:
    """The hours close while requests are left. at: in the timetable's zone; sent: how many have left by then."""

    at: datetime
    sent: float


@dataclass(frozen=True, slots=True)
class Plan:
    """When an import will be done, at the earliest. done: in the timetable's zone; None: not within the horizon.

    closings: those of the next two weeks that come before that.
    """

    closings: tuple[Closing, ...]
    done: datetime | None


def plan(requests: int, rate: float, timetable: Timetable, now: datetime) -> Plan:
    """Return when so many requests will have left, at this rate a second and within these hours, if they begin now."""
    start = now.astimezone(UTC)
    walk = _Walk(requests, rate, timetable)
    done = walk.go(start, _NEAR_WEEKS * _WEEK)
    closings = tuple(walk.closings)
    week = _NEAR_WEEKS if timetable.reopens(now) else HORIZON_WEEKS  # closed for ever: no week is worth a look
    while done is None and week < HORIZON_WEEKS:
        done = walk.go_on(start + week * _WEEK)
        week += 1
    return Plan(closings, done.astimezone(timetable.zone) if done else None)


class _Walk:
    """Goes through time and sends as fast as the hours allow. All times are in UTC, where they can be reckoned with."""

    def __init__(self, requests: int, rate: float, timetable: Timetable) -> None:
        self._left = float(requests)
        self._requests = requests
        self._rate = rate
        self._timetable = timetable
        self._in_a_week = 0.0
        self.closings: list[Closing] = []

    def go(self, start: datetime, length: timedelta) -> datetime | None:
        """Send in this span and return when nothing was left, or None when something is; remember the closings."""
        open_before = False
        for begin, end, pace in self._stretches(start, start + length):
            if open_before and not pace:
                self.closings.append(Closing(begin.astimezone(self._timetable.zone), self._requests - self._left))
            if self._left <= _CRUMB:
                return begin
            possible = pace * (end - begin).total_seconds()
            if self._left <= possible + _CRUMB:
                return min(end, begin + timedelta(seconds=self._left / pace))
            self._left -= possible
            open_before = pace > 0
        return None

    def go_on(self, start: datetime) -> datetime | None:
        """Send in the week that begins here, without walking through it when it is like any other one."""
        if not self._is_steady(start):
            return self.go(start, _WEEK)
        if not self._in_a_week:
            stretches = self._stretches(start, start + _WEEK)
            self._in_a_week = sum(pace * (end - begin).total_seconds() for begin, end, pace in stretches)
        if self._left <= self._in_a_week + _CRUMB:
            return self.go(start, _WEEK)
        self._left -= self._in_a_week
        return None

    def _stretches(self, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime, float]]:
        """Yield when each stretch begins and ends, and its requests a second."""
        while start < end:
            change = self._timetable.next_change(start)
            until = min(change.astimezone(UTC), end) if change else end
            yield start, until, min(self._rate, self._timetable.rate(start))
            start = until

    def _is_steady(self, start: datetime) -> bool:
        """Tell whether the clock is not changed in the week from here; by the hour, as two changes may undo another."""
        zone, hours = self._timetable.zone, _WEEK // _HOUR
        offset = start.astimezone(zone).utcoffset()
        return all((start + hour * _HOUR).astimezone(zone).utcoffset() == offset for hour in range(1, hours + 1))
