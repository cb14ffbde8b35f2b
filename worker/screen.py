"""What a run shows while it works: a display in place on a terminal, a plain line a minute in a pipe. On stderr.

rich draws the terminal; into a pipe it would print almost nothing, so those lines are our own.
"""

import sys
import textwrap
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import isinf

import anyio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from worker.model import Change, Tally
from worker.wording import plural, share

FRAME_SECONDS = 0.25
LINE_SECONDS = 60.0
_SPAN_SECONDS = 10.0
_COLUMNS = 80
_WEEK = timedelta(days=6)


@dataclass(frozen=True, slots=True)
class Moment:
    """A run at one moment.

    rate: the limit in requests a second, ceiling: the one that was set; slots and concurrency likewise, for requests at
    once. waiting: rows whose channel is busy. held: what keeps anything from being sent, if something does. stops: when
    the hours or an option end the run, if they do. took: seconds within which half and 99 of 100 answers came lately.
    throttled_at: when the last 429 came, in seconds since 1970. queue: what workers have before them.
    """

    run: int
    tally: Tally
    rate: float
    ceiling: float
    slots: int
    concurrency: int
    in_flight: int
    waiting: int
    held: str = ""
    stops: str = ""
    stopping: bool = False
    took: tuple[float, float] | None = None
    throttled_at: float | None = None
    queue: str = ""

    @property
    def limit(self) -> str:
        """The rate's limit in words."""
        return f"{self.rate:.3g}" + (f" (found, set {self.ceiling:g})" if self.rate < self.ceiling else "")

    def speed(self, pace: float) -> str:
        """Return the pace and its limit in words."""
        return f"{pace:.1f}/s, no limit" if isinf(self.rate) else f"{pace:.1f}/s of {self.limit}"


class Pace:
    """Requests a second over the last ten seconds, or since the last point when that is longer ago."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque()

    def at(self, now: float, requests: int) -> float:
        """Take a point and return the pace. now: seconds on any clock that does not jump."""
        self._points.append((now, requests))
        while len(self._points) > 1 and now - self._points[1][0] >= _SPAN_SECONDS:
            self._points.popleft()
        then, before = self._points[0]
        return (requests - before) / (now - then) if now > then else 0.0


def as_line(moment: Moment, pace: float, now: datetime) -> str:
    """Return a run at one moment as one plain line, folded where it would be too wide. now: local time."""
    tally = moment.tally
    total = f"/{tally.input_rows:,}" if tally.input_rows is not None else ""
    parts = [f"{tally.accounted:,}{total} rows", f"{tally.created:,} created"]
    parts += [f"{count:,} {name}" for name, count in _worth_saying(tally)]
    parts.append(moment.held or moment.speed(pace))
    if moment.queue:
        parts.append(moment.queue)
    if moment.stops:
        parts.append(f"stops {moment.stops}")
    if finish := _finish(tally, pace, now):
        parts.append(f"all done {finish}")
    return textwrap.fill(f"{now:%H:%M} run {moment.run}: {', '.join(parts)}", _COLUMNS, break_long_words=False)


def _worth_saying(tally: Tally) -> list[tuple[str, int]]:
    counts = (
        ("already done", tally.already_done),
        ("closed", tally.closed),
        ("rejected", tally.rejected),
        ("parked", tally.parked),
        ("failed", tally.failed),
        ("in doubt", tally.in_doubt),
    )
    return [(name, count) for name, count in counts if count]


def _finish(tally: Tally, pace: float, now: datetime) -> str:
    if tally.input_rows is None or pace <= 0:
        return ""
    left = tally.input_rows - tally.accounted
    if left <= 0:
        return ""
    end = now + timedelta(seconds=left / pace)
    if end - now > _WEEK:  # the day of the week alone would be read as this week's
        return f"{end:%a %d %b %Y}"
    return f"{end:%H:%M}" if end.date() == now.date() else f"{end:%a %H:%M}"


def as_panel(moment: Moment, pace: float, now: datetime) -> RenderableType:
    """Return the display of a terminal: the bar, the account, what it is doing, what Ctrl-C does."""
    tally = moment.tally
    head = Table.grid(padding=(0, 2))
    done = tally.accounted
    if tally.input_rows:
        bar = ProgressBar(total=tally.input_rows, completed=done, width=32)
        how_far = f"{done:,} of {plural(tally.input_rows, 'row')}  {share(done, tally.input_rows)}"
        head.add_row(f"run {moment.run}", bar, how_far)
    else:
        head.add_row(f"run {moment.run}", plural(done, "row"))
    counts = Table.grid(padding=(0, 2))
    for names in (("created", "existed", "duplicate", "already_done"), ("rejected", "parked", "failed", "in_doubt")):
        cells = ((f"  {name.replace('_', ' ')}", f"{getattr(tally, name):,}") for name in names)
        counts.add_row(*(cell for pair in cells for cell in pair))
    finish = _finish(tally, pace, now)
    took, since = _took(moment), _since(moment, now)
    doing = [f"  {moment.queue}"] if moment.queue else []
    doing += [f"  all done {finish}"] if finish else []
    doing += [f"  stops {moment.stops}"] if moment.stops else []
    doing += [
        f"  {moment.held}"
        if moment.held
        else f"  sending {moment.speed(pace)}   in flight {moment.in_flight} of {moment.slots}{took}",
        f"  waiting for a channel {moment.waiting:,}   retries {tally.retries:,}   429s {tally.throttled:,}{since}",
        "  Ctrl-C: cut what is in flight; it would be in doubt"
        if moment.stopping
        else "  Ctrl-C: finish what is in flight and stop; run it again to go on",
    ]
    return Group(head, counts, *(Text(line, no_wrap=True, overflow="ellipsis") for line in doing))


def _took(moment: Moment) -> str:
    if moment.took is None:
        return ""
    half, most = (f"{1000 * took:.0f} ms" if took < 1 else f"{took:.1f} s" for took in moment.took)
    return f"   {half}, p99 {most}"


def _since(moment: Moment, now: datetime) -> str:
    if moment.throttled_at is None:
        return ""
    minutes = int((now.timestamp() - moment.throttled_at) / 60)
    return f", none for {minutes} min" if minutes > 0 else ""


class News:
    """What happens to the limits, in a line each, when it happens; one that is found over and over once a minute."""

    def __init__(self) -> None:
        self._said_at: dict[str, float] = {}

    def line(self, change: Change, now: datetime) -> str | None:
        """Return what to say about a change, or None when that was said just now. now: local time."""
        if change.event == "limit.adapted":
            limit, seconds = str(change.facts["limit"]), now.timestamp()
            if seconds - self._said_at.get(limit, -LINE_SECONDS) < LINE_SECONDS:
                return None
            self._said_at[limit] = seconds
        return textwrap.fill(f"{now:%H:%M} {change.sentence}", _COLUMNS)


async def show(look: Callable[[], Moment], *, interactive: bool) -> None:
    """Show a run until cancelled. interactive: in place on a terminal, otherwise a line a minute on stderr."""
    pace = Pace()
    live = Live(console=Console(stderr=True), auto_refresh=False, transient=True) if interactive else None
    frame = FRAME_SECONDS if live else LINE_SECONDS
    holder: AbstractContextManager[object] = live or nullcontext()
    pace.at(anyio.current_time(), look().tally.requests)
    with suppress(OSError, ValueError), holder:  # nobody is left who wants to know: the run goes on
        while sys.stderr is not None:
            await anyio.sleep(frame)
            moment = look()
            now = datetime.now().astimezone()
            speed = pace.at(anyio.current_time(), moment.tally.requests)
            if live:
                live.update(as_panel(moment, speed, now), refresh=True)
            else:
                print(as_line(moment, speed, now), file=sys.stderr, flush=True)  # noqa: T201 - the display is its job
