"""`status` and `history`: where an import stands and how it came there, beside a run or after it."""

import json
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from worker.cli.forecasting import forecast
from worker.cli.loading import configure
from worker.cli.telling import placed, shown, tell
from worker.cluster import Cluster
from worker.config import Config, Settings
from worker.ledger.opening import holders_of
from worker.ledger.steering import paused_by
from worker.ledger.view import Run, View
from worker.model import Sample
from worker.place import Place, Server
from worker.report import duration, group_lines, printable
from worker.state import Exit, State
from worker.wording import Given, clock, plural, share

if TYPE_CHECKING:
    from worker.ledger.crew import Fleet

_BAD = ("rejected", "parked", "failed", "errored", "missing")
_HEAD = ("RUN", "COMMAND", "STARTED", "ENDED", "REQUESTS", "CREATED", "BAD", "DOUBT", "RATE", "EXIT")
_SILENT_SECONDS = 5
_WATCH_SECONDS = 1.0
_SPAN_MILLISECONDS = 10_000
_LEFT = 4
"""The first columns are text and stand at the left."""


# ---- status ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Standing:
    """What a ledger says now. holder: who works on it; samples: of the last run, each with its time."""

    path: Place
    counts: dict[str, int]
    run: Run | None
    holder: str | None
    samples: Sequence[tuple[int, Sample]]
    paused_by: str = ""
    fleet: "Fleet | None" = None

    @property
    def at_work(self) -> bool:
        """Whether the last run goes on."""
        return self.holder is not None and self.run is not None and self.run.ended_at is None

    @property
    def left(self) -> int:
        """How many rows of its input the last run did not send."""
        summary = _summary(self.run)
        return int(summary.get("unread") or 0) + int(summary.get("not_sent") or 0)


def show_status(config: Path | None, ledger: Place | None, *, quiet: bool, json_wanted: bool) -> int:
    """Print where an import stands; returns exit code 0. Raises LedgerRefusedError when there is no ledger."""
    found = configure(config, ledger, {})
    standing, groups = _look(found)
    if json_wanted:
        tell(json.dumps(_as_object(standing)))
    elif not quiet or groups:
        tell(printable(_as_text(standing, groups, found)))
    return Exit.DONE


def watch_status(config: Path | None, ledger: Place | None) -> int:
    """Show where an import stands once a second until Ctrl-C: in place on a terminal, else one screen after the other.

    Returns exit code 0. Raises LedgerRefusedError when there is no ledger.
    """
    found = configure(config, ledger, {})
    in_place = sys.stdout is not None and sys.stdout.isatty()
    with suppress(KeyboardInterrupt, BrokenPipeError):
        while True:
            text = printable(_as_text(*_look(found), found))
            print(_redrawn(text) if in_place else f"{text}\n", flush=True)
            time.sleep(_WATCH_SECONDS)
    return Exit.DONE


def _redrawn(text: str) -> str:
    """Return a screen that replaces what is there: each line to its end, then what is below."""
    lines = text.splitlines()[: max(1, shutil.get_terminal_size().lines - 1)]
    return "\x1b[H" + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J"


def _look(config: Config) -> tuple[_Standing, list[Cluster]]:
    path = config.ledger_path
    with View(path) as view:
        run = view.last_run()
        samples = view.samples(run.number) if run else []
        holder = ", ".join(holders_of(path)) or None
        paused = paused_by(path, run.number) if run and run.ended_at is None and holder else ""
        standing = _Standing(path, view.counts(), run, holder, samples, paused, _fleet(path))
        return standing, placed(view.clusters())


def _fleet(place: Place) -> "Fleet | None":
    if not isinstance(place, Server):
        return None
    from worker.ledger.crew import look_at_fleet

    return look_at_fleet(place)


def _fleet_as_object(fleet: "Fleet") -> dict[str, object]:
    hosts, orders = ([one._asdict() for one in each] for each in (fleet.hosts, fleet.orders))
    return fleet._asdict() | {"hosts": hosts, "orders": orders}


def _fleet_lines(fleet: "Fleet", given: Given) -> list[str]:
    lines = [
        f"queue: {plural(fleet.queued, 'row')}, {plural(fleet.taken, 'chunk')} being sent, {fleet.waiting:,} waiting"
    ]
    if fleet.left:
        lines.append(f"  {fleet.left:,} of them wait for the next enqueue: it was cut off, or a doubt is before them")
    for order in fleet.orders:
        what = order.command if order.rate is None else f"{order.rate:g}/s at most"
        lines.append(f"  {what}, as {order.by} says: for all workers, also those that join later")
    if not fleet.hosts:
        lines.append(f"no worker is running; start as many as you like:  {given.command('worker')}")
    for one in fleet.hosts:
        sample = one.sample
        rate = f"{plural(sample.get('requests', 0), 'request')}, {sample.get('in_flight', 0)} in flight"
        lines.append(f"  {one.host}, process {one.pid} (run {one.run}): {plural(one.chunks, 'chunk')}, {rate}")
        if held := sample.get("held"):
            lines.append(f"    {held}")
        if one.silent_seconds > _SILENT_SECONDS:
            lines.append(f"    not heard of for {one.silent_seconds:.0f} s: its chunks go to others")
    return lines


def _as_object(standing: _Standing) -> dict[str, object]:
    run = standing.run
    return {
        "ledger": str(standing.path),
        **{state.value: standing.counts.get(state, 0) for state in State},
        "last_run": None if run is None else _run_as_object(run),
        "at_work": standing.holder if standing.at_work else None,
        "fleet": standing.fleet and _fleet_as_object(standing.fleet),
    }


def _as_text(standing: _Standing, groups: Sequence[Cluster], config: Config) -> str:
    counts = standing.counts
    fleet = standing.fleet
    if fleet and (fleet.queued or fleet.hosts or fleet.orders):
        lines = _fleet_lines(fleet, config.given)
    else:
        lines = _run_lines(standing, config)
    lines.append(f"ledger {shown(str(standing.path))}")
    for state in State:
        if counts.get(state):
            note = "   in flight" if state is State.STARTED else ""
            lines.append(f"  {state.value.replace('_', ' '):<12}{counts[state]:>11,}{note}")
    if not counts:
        lines.append("  no rows yet")
    if groups:
        lines += ["", *group_lines(groups, config.given)]
    return "\n".join(lines)


def _run_lines(standing: _Standing, config: Config) -> list[str]:
    run, left = standing.run, standing.left
    if run is None:
        return ["no run yet"]
    zone = zone_of(config.settings)
    now = datetime.now(zone).astimezone(zone)
    began = clock(_at(run.started_at, zone), now)
    if standing.at_work:
        lines = [_progress(run, standing.samples, now)]
        lines.append(f"  {run.command}, running since {began}: {standing.holder}")
        lines += [_pace(*standing.samples[-1])] if standing.samples else []
        if standing.paused_by:
            lines.append(f"  paused by {standing.paused_by}; to go on:  {config.given.command('control', 'resume')}")
        return lines
    if run.ended_at is None:
        return [f"run {run.number} began {began} and has not ended, or was killed"]
    to_go = f"; {plural(left, 'row')} of its input to go" if left else ""
    ended = clock(_at(run.ended_at, zone), now)
    lines = [f"run {run.number} ({run.command}) ended {ended}, exit {run.exit_code}: {run.reason}{to_go}"]
    if left:
        lines += [f"  {line}" for line in forecast(config.settings, left, 0, now).plan_lines()]
    return lines


def _progress(run: Run, samples: Sequence[tuple[int, Sample]], now: datetime) -> str:
    """Return how far a run is, how fast, and when it is done."""
    if not samples or samples[-1][1].accounted is None:
        return f"run {run.number}: at work"
    at, sample = samples[-1]
    done, rows = sample.accounted or 0, sample.input_rows
    since = next((one for one in reversed(samples[:-1]) if at - one[0] >= _SPAN_MILLISECONDS), samples[0])
    span = (at - since[0]) / 1000
    pace = (sample.settled - since[1].settled) / span if span else 0.0
    parts = [f"{done:,} of {rows:,} ({share(done, rows, 0)})" if rows else plural(done, "row")]
    parts.append(f"{pace:.3g}/s")
    if rows and pace and done < rows:
        parts.append(f"done {clock(now + timedelta(seconds=(rows - done) / pace), now)}")
    return f"run {run.number}: {', '.join(parts)}"


def _pace(at: int, sample: Sample) -> str:
    limit = "no limit" if sample.rate is None else f"limit {sample.rate:.3g}/s"
    ago = duration(max(0.0, time.time() - at / 1000))
    took = f", p99 {sample.p99:,.0f} ms" if sample.p99 is not None else ""
    sent = f"{plural(sample.requests, 'request')}, {sample.in_flight} in flight, {sample.throttled:,} times 429"
    return f"  {limit}; {sent}{took} ({ago} ago)"


def _at(milliseconds: int, zone: tzinfo | None) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).astimezone(zone)


def zone_of(settings: Settings) -> tzinfo | None:
    """Return the zone in which people are told times: the timetable's, or this machine's (None)."""
    return ZoneInfo(settings.limits.timezone) if settings.limits.timetable else None


# ---- history --------------------------------------------------------------------------------------------------------


def show_history(config: Path | None, ledger: Place | None, *, json_wanted: bool) -> int:
    """Print a line for each run; returns exit code 0. Raises LedgerRefusedError when there is no ledger."""
    found = configure(config, ledger, {})
    zone = zone_of(found.settings)
    with View(found.ledger_path) as view:
        if json_wanted:
            tell(json.dumps([_run_as_object(run) for run in view.runs()]))
            return Exit.DONE
        lines = _table(view.runs(), zone, datetime.now(zone).astimezone(zone))
    tell("\n".join(lines) if lines[1:] else "no run yet")
    return Exit.DONE


def _table(runs: Iterable[Run], zone: tzinfo | None, now: datetime) -> list[str]:
    rows = [_HEAD, *(_cells(run, zone, now) for run in runs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{cell:<{width}}" if 0 < place < _LEFT else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _cells(run: Run, zone: tzinfo | None, now: datetime) -> tuple[str, ...]:
    started = datetime.fromtimestamp(run.started_at / 1000, UTC).astimezone(zone)
    began = f"{started:%d %b %H:%M}" if started.year == now.year else f"{started:%d %b %Y}"
    if run.ended_at is None:
        return (str(run.number), run.command, began, "", *[""] * 5, "-")
    ended = datetime.fromtimestamp(run.ended_at / 1000, UTC).astimezone(zone)
    end = f"{ended:%H:%M}" if ended.date() == started.date() else f"{ended:%a %H:%M}"
    summary = _summary(run)
    if "requests" not in summary:  # a decision, which sends nothing
        return (str(run.number), run.command, began, end, *[""] * 5, str(run.exit_code))
    bad = sum(int(summary.get(name, 0)) for name in _BAD)
    made = f"-{summary['closed']:,}" if run.command == "undo" else f"{summary.get('created', 0):,}"
    seconds = float(summary["elapsed_seconds"])
    rate = f"{summary['requests'] / seconds:,.1f}" if seconds >= 1 else ""
    counts = (f"{summary['requests']:,}", made, f"{bad:,}", f"{summary.get('in_doubt', 0):,}", rate)
    return (str(run.number), run.command, began, end, *counts, str(run.exit_code))


def _run_as_object(run: Run) -> dict[str, object]:
    return {
        "run": run.number,
        "command": run.command,
        "started_at": _time(run.started_at),
        "ended_at": _time(run.ended_at),
        "exit_code": run.exit_code,
        "reason": run.reason,
        "summary": _summary(run) or None,
    }


def _summary(run: Run | None) -> dict[str, int]:
    return json.loads(run.summary) if run and run.summary else {}


def _time(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
