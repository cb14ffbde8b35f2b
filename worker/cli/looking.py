"""`status` and `history`: where an import stands and how it came there, beside a run or after it."""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from worker.cli.forecasting import forecast
from worker.cli.loading import configure
from worker.cli.telling import placed, shown, tell
from worker.cluster import Cluster
from worker.config import Settings
from worker.ledger.opening import holders_of
from worker.ledger.view import Run, View
from worker.model import Sample
from worker.place import Place, Server
from worker.report import duration, group_lines, printable
from worker.state import Exit, State

if TYPE_CHECKING:
    from worker.ledger.crew import Fleet

_BAD = ("rejected", "parked", "failed", "errored", "missing")
_HEAD = ("RUN", "COMMAND", "STARTED", "ENDED", "REQUESTS", "CREATED", "BAD", "DOUBT", "RATE", "EXIT")
_SILENT_SECONDS = 5
_LEFT = 4
"""The first columns are text and stand at the left."""


# ---- status ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Standing:
    """What a ledger says now. holder: who works on it; sample: the newest of the last run, and when it was taken."""

    path: Place
    counts: dict[str, int]
    run: Run | None
    holder: str | None
    sample: tuple[int, Sample] | None
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
    path = found.ledger_path
    with View(path) as view:
        run = view.last_run()
        sample = view.last_sample(run.number) if run else None
        holder = ", ".join(holders_of(path)) or None
        standing = _Standing(path, view.counts(), run, holder, sample, _fleet(path))
        groups = placed(view.clusters())
    if json_wanted:
        tell(json.dumps(_as_object(standing)))
    elif not quiet or groups:
        tell(printable(_as_text(standing, groups, found.settings)))
    return Exit.DONE


def _fleet(place: Place) -> "Fleet | None":
    if not isinstance(place, Server):
        return None
    from worker.ledger.crew import look_at_fleet

    return look_at_fleet(place)


def _fleet_as_object(fleet: "Fleet") -> dict[str, object]:
    hosts, orders = ([one._asdict() for one in each] for each in (fleet.hosts, fleet.orders))
    return fleet._asdict() | {"hosts": hosts, "orders": orders}


def _fleet_lines(fleet: "Fleet") -> list[str]:
    lines = [f"queue        {fleet.queued:>11,} rows: {fleet.taken} chunks being sent, {fleet.waiting} waiting"]
    if fleet.left:
        lines.append(f"  {fleet.left:,} of them wait for the next enqueue: their channel had a row in doubt, say")
    for order in fleet.orders:
        what = order.command if order.rate is None else f"{order.rate:g}/s at most"
        lines.append(f"  {what}, as {order.by} says: for all workers, also those that join later")
    if not fleet.hosts:
        lines.append("no worker is at work: flex-import worker, on as many hosts as you like")
    for one in fleet.hosts:
        sample = one.sample
        rate = f"{sample.get('requests', 0):,} requests, {sample.get('in_flight', 0)} in flight"
        lines.append(f"  {one.host}, process {one.pid} (run {one.run}): {one.chunks} chunks, {rate}")
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


def _as_text(standing: _Standing, groups: Sequence[Cluster], settings: Settings) -> str:
    counts = standing.counts
    lines = [f"ledger {shown(str(standing.path))}"]
    for state in State:
        if counts.get(state):
            note = "   in flight" if state is State.STARTED else ""
            lines.append(f"  {state.value.replace('_', ' '):<12}{counts[state]:>11,}{note}")
    if not counts:
        lines.append("  no rows yet")
    if (fleet := standing.fleet) and (fleet.queued or fleet.hosts or fleet.orders):
        lines += _fleet_lines(fleet)
    else:
        lines += _run_lines(standing, settings)
    if groups:
        lines += ["", *group_lines(groups)]
    return "\n".join(lines)


def _run_lines(standing: _Standing, settings: Settings) -> list[str]:
    run, left = standing.run, standing.left
    if run is None:
        return ["no run yet"]
    if standing.at_work:
        lines = [f"run {run.number} ({run.command}) is at work since {_time(run.started_at)}: {standing.holder}"]
        return lines + ([_pace(run, *standing.sample)] if standing.sample else [])
    if run.ended_at is None:
        return [f"run {run.number} began {_time(run.started_at)} and has not ended, or was killed"]
    to_go = f", {left:,} rows of its input to go" if left else ""
    lines = [f"run {run.number} ended {_time(run.ended_at)}, exit {run.exit_code}: {run.reason}{to_go}"]
    if left:
        lines += [f"  {line}" for line in forecast(settings, left, 0, datetime.now().astimezone()).plan_lines()]
    return lines


def _pace(run: Run, at: int, sample: Sample) -> str:
    seconds = max((at - run.started_at) / 1000, 0.001)
    limit = "no limit" if sample.rate is None else f"{sample.rate:.3g}"
    ago = duration(max(0.0, time.time() - at / 1000))
    took = f", p99 {sample.p99:,.0f} ms" if sample.p99 is not None else ""
    return (
        f"  {ago} ago: {sample.requests:,} requests, {sample.requests / seconds:.1f}/s of {limit}, "
        f"{sample.in_flight} in flight, {sample.throttled:,} times 429{took}"
    )


# ---- history --------------------------------------------------------------------------------------------------------


def show_history(config: Path | None, ledger: Place | None, *, json_wanted: bool) -> int:
    """Print a line for each run; returns exit code 0. Raises LedgerRefusedError when there is no ledger."""
    found = configure(config, ledger, {})
    limits = found.settings.limits
    zone: tzinfo | None = ZoneInfo(limits.timezone) if limits.timetable else None
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
