"""The two axes of a chart: time without the hours between runs, and values from nothing to a round number."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from worker.page.series import COLUMNS, Stride
from worker.page.wording import Calendar, measure

WIDTH = 2000
"""What a chart is wide, in its own units; it is stretched to what there is."""

MOST_STRETCHES = 12
"""The last so many stretches are drawn: more would be too narrow to read."""

_FOLDED = 0.05
"""A pause is left out if it is longer than this part of all that is drawn."""

_GAP = 44.0
_NARROWEST = 0.03

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_STEPS = (
    *(1, 2, 5, 10, 15, 30),
    *(_MINUTE * minutes for minutes in (1, 2, 5, 10, 15, 30)),
    *(_HOUR * hours for hours in (1, 2, 3, 6, 12)),
    *(_DAY * days for days in (1, 2, 7, 14, 28, 91, 364, 3640)),
)
_MOST_TICKS = 12

_LONG = 10_000
_LETTERS = ((1e3, "k"), (1e6, "M"))

_APART = {"time": 0.06, "second": 0.095, "day": 0.095}
"""How far two labels are from each other at least, as a part of the width, on a wide screen ..."""
_APART_NARROW = {"time": 0.16, "second": 0.26, "day": 0.26}
"""... and on a telephone."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time that is drawn without a break, and where."""

    start: float
    end: float
    left: float
    width: float

    def x(self, at: float) -> float:
        """Return where a moment of it is."""
        return self.left + self.width * (min(max(at, self.start), self.end) - self.start) / (self.end - self.start)


class Tick(NamedTuple):
    """A label of the time axis. kind: time, second or day. wide: whether only a wide screen has room for it."""

    x: float
    text: str
    kind: str
    wide: bool


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """Stretches from left to right, in the order of time."""

    stretches: tuple[Stretch, ...]
    calendar: Calendar

    @classmethod
    def of(cls, strides: Sequence[Stride], calendar: Calendar) -> "TimeAxis":
        """Return the axis on which these can be drawn, the last ones at least; there must be some."""
        times = _stretched(strides)[-MOST_STRETCHES:]
        total = sum(end - start for start, end in times)
        parts = [max((end - start) / total, _NARROWEST) for start, end in times]
        room = (WIDTH - _GAP * (len(times) - 1)) / sum(parts)
        left, placed = 0.0, []
        for (start, end), part in zip(times, parts, strict=True):
            placed.append(Stretch(start, end, left, part * room))
            left += part * room + _GAP
        return cls(tuple(placed), calendar)

    @property
    def start(self) -> float:
        """From when on there is a place."""
        return self.stretches[0].start

    @property
    def seconds(self) -> float:
        """How long all stretches are."""
        return sum(stretch.end - stretch.start for stretch in self.stretches)

    def x(self, at: float) -> float:
        """Return where a moment is."""
        return next((one for one in self.stretches if at <= one.end), self.stretches[-1]).x(at)

    def column(self, at: float) -> int:
        """Return in which of the columns a moment is."""
        return min(int(self.x(at) * COLUMNS / WIDTH), COLUMNS - 1)

    def step(self, most: int) -> int:
        """Return a round number of seconds that fits into the axis no more than so often."""
        return next((step for step in _STEPS if self.seconds / step <= most), _STEPS[-1])

    def marks(self) -> list[tuple[float, float]]:
        """Return round times, by the clock on the wall, as (where, when)."""
        step = self.step(_MOST_TICKS)
        return [(one.x(at), at) for one in self.stretches for at in self._round_times(one, step)]

    def ticks(self) -> list[Tick]:
        """Return the labels for which there is room: times, and below them the days, one for each stretch at least."""
        step = self.step(_MOST_TICKS)
        kind, written = ("second", self.calendar.second) if step < _MINUTE else ("time", self.calendar.time)
        times, days = list[tuple[float, str]](), list[tuple[float, str]]()
        for stretch in self.stretches:
            marked = [(stretch.x(at), at) for at in self._round_times(stretch, step)]
            day = ""
            for x, at in marked or [(stretch.left + stretch.width / 2, stretch.start)]:
                times.append((x, written(at)))
                if day != (day := self.calendar.day(at)):
                    days.append((x, day))
        if step >= _DAY:
            return _with_room("day", days)
        shown = _with_room("day", days)
        begins = {tick.x for tick in shown if not tick.wide}
        return [*_with_room(kind, sorted(times, key=lambda time: time[0] not in begins)), *shown]

    def _round_times(self, stretch: Stretch, step: int) -> Iterable[float]:
        local = self.calendar.local(stretch.start)
        if local is None:
            return
        midnight = datetime(local.year, local.month, local.day)  # noqa: DTZ001 - the wall's clock
        if step >= _DAY:
            midnight -= timedelta(days=midnight.toordinal() % (step // _DAY))
        of_day = (local.hour * _HOUR + local.minute * _MINUTE + local.second) // step * step if step < _DAY else 0
        wall, before = midnight + timedelta(seconds=of_day), -math.inf
        while (at := wall.replace(tzinfo=self.calendar.zone).timestamp()) <= stretch.end:
            if at >= stretch.start and at > before:
                yield at
                before = at
            wall += timedelta(seconds=step)


def _stretched(strides: Sequence[Stride]) -> list[tuple[float, float]]:
    pieces: dict[int, tuple[float, float]] = {}
    for one in strides:
        start, end = pieces.get(one.piece, (one.start, one.end))
        pieces[one.piece] = (min(start, one.start), max(end, one.end))
    longest = _FOLDED * sum(end - start for start, end in pieces.values())
    made: list[tuple[float, float]] = []
    for start, end in sorted(pieces.values()):
        if made and start - made[-1][1] <= longest:
            made[-1] = (made[-1][0], max(made[-1][1], end))
        else:
            made.append((start, end))
    return made


def _with_room(kind: str, labels: Iterable[tuple[float, str]]) -> list[Tick]:
    """Return those that do not touch each other; the first come first."""
    made = list[Tick]()
    for x, text in labels:
        if all(abs(x - other.x) >= _APART[kind] * WIDTH for other in made):
            wide = any(abs(x - other.x) < _APART_NARROW[kind] * WIDTH for other in made if not other.wide)
            made.append(Tick(x, text, kind, wide))
    return made


@dataclass(frozen=True, slots=True)
class ValueAxis:
    """Values from the bottom (nothing, unless it is logarithmic) to the top, with round ticks."""

    bottom: float
    top: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    @classmethod
    def linear(cls, highest: float, *, least_step: float = 0.0) -> "ValueAxis":
        """Return the axis for values up to the highest."""
        quarter = highest / 4
        step = max(_round_up(quarter), least_step) if quarter > 0 else max(0.5, least_step)
        steps = max(math.ceil((highest or 1.0) / step * (1 - 1e-9)), 1)
        return cls(0.0, steps * step, tuple(step * number for number in range(steps + 1)))

    @classmethod
    def decades(cls, lowest: float, highest: float) -> "ValueAxis":
        """Return an axis on which ten times as much is as far everywhere. lowest: more than nothing."""
        bottom, top = _round_down(lowest), _round_up(highest)
        powers = range(math.floor(math.log10(bottom)), math.ceil(math.log10(top)) + 1)
        ticks = [10.0**power * digit for power in powers for digit in (1, 2, 5)]
        inside = [tick for tick in ticks if bottom * 0.99 <= tick <= top * 1.01]
        if len(inside) > 7:  # noqa: PLR2004 - more would be a thicket
            inside = [tick for tick in inside if round(math.log10(tick), 6).is_integer()]
        return cls(bottom, top, tuple(inside), logarithmic=True)

    def part(self, value: float) -> float:
        """Return how high a value is: 0 at the bottom, 1 at the top."""
        value = min(max(value, self.bottom), self.top)
        if self.logarithmic:
            return math.log(value / self.bottom) / math.log(self.top / self.bottom)
        return value / self.top

    def label(self, tick: float) -> str:
        """Return a tick's number: short, with as many digits as its neighbours need."""
        for size, letter in _LETTERS:
            if size <= tick < 1000 * size and tick >= _LONG:
                return f"{tick / size:g}{letter}"
        if tick >= _LONG:
            return f"{tick:.0e}".replace("e+", "e")
        if self.logarithmic or not tick:
            return measure(tick)
        return f"{tick:,.{max(0, -math.floor(math.log10(self.ticks[1]) + 1e-9))}f}"


def _round_up(number: float) -> float:
    power = 10.0 ** math.floor(math.log10(number))
    return next(digit * power for digit in (1, 2, 5, 10) if number <= digit * power * (1 + 1e-9))


def _round_down(number: float) -> float:
    power = 10.0 ** math.floor(math.log10(number))
    return next(digit * power for digit in (5, 2, 1) if number >= digit * power * (1 - 1e-9))
