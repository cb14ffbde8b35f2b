"""When an import would be done, and what baselines would cost, for `check`."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from worker.config import Settings
from worker.plan import Plan, plan
from worker.report import duration
from worker.timetable import Timetable

UNBROKEN = "\xa0"
"""A space at which no line is to be folded."""

_SHOWN_CLOSINGS = 4
_WEEK = timedelta(days=6)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run that begins now has before it. creates, lists: when these are done; a baseline is a list."""

    settings: Settings
    timetable: Timetable
    now: datetime
    rows: int
    channels: int
    creates: Plan
    lists: Plan

    @property
    def baselines(self) -> bool:
        """Whether each channel is listed before its first create."""
        return self.settings.doubt.baseline and self.settings.doubt.policy == "reconcile"

    @property
    def done(self) -> datetime | None:
        """When all of it is done; None: never, or not within a hundred years."""
        ends = [self.creates.done, *([self.lists.done] if self.baselines else [])]
        return None if None in ends else max(filter(None, ends), key=datetime.timestamp)

    @property
    def seconds(self) -> float | None:
        """How long that is."""
        return None if self.done is None else self.done.timestamp() - self.now.timestamp()

    def plan_lines(self) -> list[str]:
        """Return the hours, and when it is done by them; nothing when nothing is to be sent."""
        limits, done = self.settings.limits, self.creates.done
        rate = rate_of(limits.rate_per_second)
        if not self.rows:
            return ["nothing to send"]
        if done is None:
            never = self.timetable.reopens(self.now) is None
            end = "never: limits.timetable has no open hours" if never else "not done within a hundred years"
            return [f"{rate}; {_hours(limits.timetable)}", end] if limits.timetable else [f"{rate}: {end}"]
        if not limits.timetable:
            least = duration(done.timestamp() - self.now.timestamp())
            return [f"{rate}: at least {least}; begun now, done {self._shown(done)}"]
        closings = self.creates.closings[:_SHOWN_CLOSINGS]
        stages = [f"{self._shown(one.at)}  {100 * one.sent / self.rows:.1f} %" for one in closings]
        stages += ["…"] * (len(self.creates.closings) > len(closings))
        stages = [stage.replace(" ", UNBROKEN) for stage in (*stages, f"{self._shown(done)}  done")]
        return [f"{rate}; {_hours(limits.timetable)}", "    ".join(stages)]

    def doubt_lines(self) -> list[str]:
        """Return what becomes of lost answers, and what it would cost to know more about them."""
        limits, doubt = self.settings.limits, self.settings.doubt
        if doubt.policy == "hold":
            return ['policy "hold": a lost answer waits for a person']
        requests = f"{self.channels:,} request{'s' * (self.channels != 1)}"
        rate = limits.list_rate_per_second
        cost = f"{requests}, {duration(self.channels / rate)} {rate_of(rate)}"
        if not self.baselines:
            return [
                "baseline off: a lost answer in a channel that already has participants",
                f"waits for a person. doubt.baseline=true: {cost}",
            ]
        lines = [f"baseline on: one list a channel, {cost}, beside the creates"]
        if self.done is not self.creates.done:
            end = f"all done {self._shown(self.done)}" if self.done else "not done within a hundred years"
            lines.append(f"which takes longer than they do: {end}")
        return lines

    def as_object(self) -> dict[str, object]:
        """Return both for `--json`."""
        limits = self.settings.limits
        return {
            "plan": {
                "rate_per_second": _finite(limits.rate_per_second),
                "timezone": str(self.timetable.zone),
                "timetable": list(limits.timetable),
                "closings": [{"at": one.at.isoformat(), "sent": int(one.sent)} for one in self.creates.closings],
                "finish": self.done and self.done.isoformat(timespec="seconds"),
                "seconds": None if self.seconds is None else round(self.seconds, 3),
            },
            "baselines": {
                "on": self.baselines,
                "requests": self.channels,
                "list_rate_per_second": _finite(limits.list_rate_per_second),
                "seconds": round(self.channels / limits.list_rate_per_second, 3),
            },
        }

    def _shown(self, when: datetime) -> str:
        zone = self.timetable.zone if self.settings.limits.timetable else self.now.tzinfo
        when = when.astimezone(zone)
        if when.timestamp() - self.now.timestamp() > _WEEK.total_seconds():
            return f"{when:%a %d %b %Y %H:%M}"  # the day of the week alone would be read as this week's
        return f"{when:%a %H:%M}"


def forecast(settings: Settings, rows: int, channels: int, now: datetime) -> Forecast:
    """Return what sending so many rows to so many channels would take. now: in this machine's zone."""
    limits = settings.limits
    timetable = Timetable(limits.timetable, limits.timezone)
    creates = plan(rows, limits.rate_per_second, timetable, now)
    lists = plan(channels, limits.list_rate_per_second, timetable, now)
    return Forecast(settings, timetable, now, rows, channels, creates, lists)


def rate_of(rate: float) -> str:
    """Return a limit of requests in words."""
    return "at no set rate" if math.isinf(rate) else f"at {rate:g}/s"


def _finite(rate: float) -> float | None:
    return None if math.isinf(rate) else rate


def _hours(entries: tuple[str, ...]) -> str:
    """Return a timetable in words."""
    words = [entry.rsplit(maxsplit=1) for entry in entries]
    return ", ".join(f"{hours} {'closed' if rate == '0' else f'at {rate}'}" for hours, rate in words)
