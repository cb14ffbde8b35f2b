"""`verify`: lists the channels of created rows and reports which of their participants are there."""

import json
import os
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice

import anyio
import structlog

from worker.api import Api
from worker.cli.importing import SWITCH_SECONDS, api_of, logged
from worker.cli.loading import refuse_no_run
from worker.cli.looping import run_loop
from worker.cli.parameter import Window
from worker.cli.progressing import Line
from worker.cli.telling import say, shown, tell
from worker.cli.windowing import hours_of
from worker.cli.wiring import open_own_ledger
from worker.config import Config
from worker.credentials import read_credentials
from worker.errors import ConfigError, LedgerError
from worker.journal import Journal
from worker.ledger import Member, Verified
from worker.ledger.steering import Orders
from worker.ledger.tables import Tables
from worker.ledger.verifying import CreatedRows, Extent, Scope
from worker.ledger.view import View
from worker.logs import LogObserver
from worker.model import Cause, Exit, Listing, Unlisted
from worker.reconcile import Reconciler
from worker.report import duration, most_serious, printable
from worker.schedule import Hours, Schedule
from worker.stopping import Stop, conduct, final_causes, ignore_requests
from worker.traffic import LaneDeparture, Traffic
from worker.verify import Findings, Verifier

_FRAME_SECONDS = 0.25
_LINE_SECONDS = 60.0
_CHANNELS_AT_ONCE = 64
_SHOWN = 10
_REASONS = {
    Exit.DONE: "finished; every participant is in its channel",
    Exit.BAD_ROWS: "finished; some participants are missing",
    Exit.DOUBT: "finished; some channels could not be listed",
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asks of a verification. run: whose rows; sample: how many channels; None for all."""

    run: int | None
    sample: int | None
    quiet: bool
    json_wanted: bool

    @property
    def silent(self) -> bool:
        """Whether nothing is said while it works."""
        return self.quiet or self.json_wanted

    @property
    def whose(self) -> str:
        """What is verified, in words."""
        return "all runs" if self.run is None else f"run {self.run}"

    @property
    def command(self) -> str:
        """The same command again."""
        words = ["flex-import verify"]
        words += [] if self.run is None else [f"--run {self.run}"]
        words += [] if self.sample is None else [f"--sample {self.sample}"]
        return " ".join(words)


def verify_runs(config: Config, window: Window, wish: Wish) -> int:
    """List the channels of created rows, record and print what that shows; returns the exit code.

    Raises ConfigError for a run that does not exist or an empty sample, LedgerRefusedError without a ledger.
    """
    if wish.sample is not None and wish.sample < 1:
        raise ConfigError(f"--sample: {wish.sample}: name at least one channel")
    credentials = read_credentials(os.environ)
    hours = hours_of(config.settings.limits, window)
    api = api_of(config, credentials)
    with closing(open_own_ledger(config, credentials)) as ledger, logged(config, quiet=wish.quiet):
        with View(ledger.path) as view:
            last = view.last_run()
        refuse_no_run(wish.run, last)
        number = ledger.start_run("verify")
        with closing(CreatedRows(ledger.path, Scope(number, wish.run, wish.sample))) as rows:
            sys.setswitchinterval(SWITCH_SECONDS)
            ignore_requests()
            return run_loop(_Verifying(config, ledger, hours, wish, rows).carry_out, api)


class _Lists:
    """The API's lists, counted."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.requests = 0
        self.throttled = 0

    async def list(self, interaction_sid: str, channel_sid: str, departure: LaneDeparture) -> Listing | Unlisted:
        """List all participants of a channel."""
        found = await self._api.list(interaction_sid, channel_sid, _Counted(departure, self))
        self.throttled += isinstance(found, Unlisted) and found.throttled
        return found


class _Counted:
    """The departure of a list, whose pages are counted."""

    def __init__(self, departure: LaneDeparture, lists: _Lists) -> None:
        self._departure = departure
        self._lists = lists

    async def ready(self) -> None:
        """Wait until a page may be asked for."""
        await self._departure.ready()

    def left(self) -> None:
        """Take note that the page is asked for."""
        self._lists.requests += 1
        self._departure.left()


class _Verifying:
    """One verification on an open ledger."""

    def __init__(self, config: Config, ledger: Tables, hours: Hours, wish: Wish, rows: CreatedRows) -> None:
        self._settings = config.settings
        self._ledger = ledger
        self._wish = wish
        self._number = number = rows.number
        self._rows = rows
        self._extent: Extent = rows.extent()
        self._stop = Stop()
        self._findings = Findings()
        self._lists: _Lists | None = None
        self._observer = LogObserver(number)
        self._settling = False
        self._traffic = Traffic(
            self._settings.limits,
            self._settings.retry,
            self._stop.draining,
            outage_seconds=self._settings.stop.outage_seconds,
            on_change=self._observer.limits_changed,
            on_outage=self._give_up,
        )
        self._orders: Orders | None = None
        self._schedule = Schedule(
            hours,
            self._traffic,
            self._stop,
            lambda: self._orders.next() if self._orders else [],
            tell=self._observer.limits_changed,
            on_stop=self._observer.run_stopping,
            wall=time.time,
        )

    async def carry_out(self, api: Api) -> int:
        """Verify, record how it ended, print that, and return the exit code."""
        began = time.monotonic()
        if self._extent.rows:
            await self._verify_all(api)
        return self._end(time.monotonic() - began)

    async def _verify_all(self, api: Api) -> None:
        lists = self._lists = _Lists(api)
        try:
            with closing(Orders(self._ledger.path, self._number)) as self._orders:
                async with Journal(self._ledger) as journal, api:
                    reconciler = Reconciler(
                        lists,
                        self._traffic,
                        self._settings.doubt,
                        self._stop.draining,
                        on_refused=lambda _: None,
                        on_misconfigured=lambda reason: self._stop.drain(Cause(Exit.USAGE, reason)),
                    )
                    verifier = Verifier(reconciler, journal, self._findings, self._stop)
                    await conduct(
                        partial(self._look_twice, verifier),
                        self._stop,
                        grace_seconds=self._settings.stop.grace_seconds,
                        on_first=self._say_stopping,
                        beside=[self._schedule.keep, self._traffic.watch_outage, self._withdraw, self._show],
                    )
        except* LedgerError as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            self._stop.drain(Cause(Exit.HALTED, f"halted: {error}"))

    async def _look_twice(self, verifier: Verifier) -> None:
        concurrency = self._settings.limits.concurrency
        await verifier.look(partial(self._channels, self._rows.left), concurrency)
        if not self._findings.counts[Verified.ABSENT]:
            return
        self._settling = True
        with anyio.move_on_after(self._settings.doubt.settle_seconds):
            await self._stop.draining.wait()
        self._settling = False
        if not self._stop.draining.is_set():
            await verifier.look(partial(self._channels, self._rows.absent), concurrency, again=True)

    async def _channels(self, read: Callable[[], Iterator[list[Member]]]) -> AsyncGenerator[Sequence[Member], None]:
        """Yield the rows of each channel, read off the loop."""
        channels = read()
        while some := await anyio.to_thread.run_sync(lambda: list(islice(channels, _CHANNELS_AT_ONCE))):
            for channel in some:
                yield channel

    async def _withdraw(self) -> None:
        await self._stop.draining.wait()
        self._traffic.withdraw()

    async def _show(self) -> None:
        line = Line(silent=self._wish.silent)
        try:
            while True:
                await anyio.sleep(_FRAME_SECONDS if line.shows else _LINE_SECONDS)
                counts = self._counts()
                looked = sum(counts.values())
                doing = self._traffic.held_by or f"at most {self._traffic.lists.rate:.3g} lists/s"
                if self._settling:
                    doing = f"waiting {duration(self._settings.doubt.settle_seconds)} before the second look"
                text = (
                    f"{datetime.now().astimezone():%H:%M} verify of {self._wish.whose}: {looked:,} of "
                    f"{self._extent.rows:,} rows, {counts[Verified.CONFIRMED]:,} confirmed, {doing}"
                )
                if line.shows:
                    line.draw(text)
                elif not self._wish.silent:
                    say(text)
        finally:
            line.clear()

    def _say_stopping(self) -> None:
        if not self._wish.silent:
            say("Stopping: waiting for the lists in flight. Press Ctrl-C again to abort them.")

    def _give_up(self, reason: str) -> None:
        limit = duration(self._settings.stop.outage_seconds)
        self._stop.drain(Cause(Exit.HALTED, f"halted: the service was down for {limit} ({reason})"))

    def _counts(self) -> dict[Verified, int]:
        """Return the rows by result; those that an unfinished `verify` found are among them."""
        counts = dict(self._findings.counts)
        counts[Verified.CONFIRMED] += self._extent.confirmed
        counts[Verified.DEPARTED] += self._extent.departed
        return counts

    def _end(self, seconds: float) -> int:
        counts = self._counts()
        requests = self._lists.requests if self._lists else 0
        holds = True
        try:
            recorded = self._rows.results()
            holds = all(recorded.get(result, 0) == count for result, count in self._findings.counts.items())
        except LedgerError as exc:
            self._stop.end(Cause(Exit.HALTED, f"halted: {exc}"))
        left = self._extent.rows - sum(counts.values()) + counts[Verified.ABSENT]
        causes = final_causes(self._stop.causes, 0)
        true = {cause.exit for cause in causes}
        true |= {Exit.BAD_ROWS} if counts[Verified.MISSING] else set()
        true |= {Exit.DOUBT} if counts[Verified.NOT_LISTABLE] else set()
        code = most_serious(true if holds and (not left or causes) else {*true, Exit.BUG})
        reasons = [cause.reason for cause in causes if cause.exit is code]
        reason = reasons[0] if reasons else _REASONS.get(code, code.meaning)
        if not self._extent.rows:
            reason = f"nothing to verify: {self._wish.whose} created no participant that undo has not closed"
        account: dict[str, object] = {
            "run": self._number,
            "verified_run": self._wish.run,
            "sample": self._wish.sample,
            "rows": self._extent.rows,
            "channels": self._extent.channels,
            "confirmed": counts[Verified.CONFIRMED],
            "departed": counts[Verified.DEPARTED],
            "missing": counts[Verified.MISSING],
            "not_listable": counts[Verified.NOT_LISTABLE],
            "left": left,
            "reasons": [
                {"reason": why, "rows": rows, "channels": channels}
                for why, (rows, channels) in self._findings.unlisted.items()
            ],
            "requests": requests,
            "throttled": self._lists.throttled if self._lists else 0,
            "elapsed_seconds": round(seconds, 3),
            "exit_code": int(code),
            "reason": reason,
        }
        try:
            self._ledger.end_run(code, reason, json.dumps(account))
        except LedgerError as exc:
            structlog.get_logger().error("run.unrecorded", reason=str(exc))
        structlog.get_logger().info("run.finished", **account)
        if self._wish.json_wanted:
            missing = [
                {"key": one.key, "place": one.place, "sid": one.sid, "channel_sid": one.channel_sid}
                for one in self._findings.missing
            ]
            tell(json.dumps({**account, "missing_rows": missing}))
        elif not self._wish.quiet or code is not Exit.DONE:
            lines = self._lines(reason, counts, left)
            effort = f"{duration(seconds)}, {requests:,} requests"
            lines += [_line("effort", None, effort), _line("ledger", None, f"{self._where} (run {self._number})")]
            tell(printable("\n".join([*lines, "", self._equation(code, counts, left), *self._next(counts, left)])))
        return code

    @property
    def _where(self) -> str:
        return shown(str(self._ledger.path))

    def _lines(self, reason: str, counts: dict[Verified, int], left: int) -> list[str]:
        extent = self._extent
        sample = "" if self._wish.sample is None else ", which were drawn from all channels"
        lines = [f"{reason[:1].upper()}{reason[1:]}.", ""]
        lines.append(_line("created", extent.rows, f"by {self._wish.whose}, in {_channels(extent.channels)}{sample}"))
        found = extent.confirmed + extent.departed
        earlier = f"; {found:,} of these found by a verify that was stopped" if found else ""
        lines.append(_line("confirmed", counts[Verified.CONFIRMED], f"listed in their channels{earlier}"))
        if counts[Verified.DEPARTED]:
            lines.append(_line("departed", counts[Verified.DEPARTED], "listed, with a status that says they have left"))
        if counts[Verified.MISSING]:
            lines.append(_line("missing", counts[Verified.MISSING], "not in two lists of their channels:"))
            named = self._findings.missing[:_SHOWN]
            lines += [f"    {shown(one.place)}  {one.channel_sid}  {one.key}" for one in named]
            if more := counts[Verified.MISSING] - len(named):
                lines.append(f"    and {more:,} more: table verifications of the ledger, see docs/ledger.md")
        if counts[Verified.NOT_LISTABLE]:
            lines.append(_line("not listable", counts[Verified.NOT_LISTABLE], "nothing can be said about these:"))
            most = sorted(self._findings.unlisted.items(), key=lambda item: -item[1][0])
            lines += [f"    {rows:,} in {_channels(channels)}: {why}" for why, (rows, channels) in most[:_SHOWN]]
        if left:
            once = f"; {counts[Verified.ABSENT]:,} of them were not in a first list" if counts[Verified.ABSENT] else ""
            lines.append(_line("left", left, f"not verified{once}"))
        return lines

    def _equation(self, code: Exit, counts: dict[Verified, int], left: int) -> str:
        names = {Verified.CONFIRMED: "confirmed", Verified.DEPARTED: "departed", Verified.MISSING: "missing"}
        parts = [f"{counts[result]:,} {name}" for result, name in names.items()]
        parts += [f"{counts[Verified.NOT_LISTABLE]:,} not listable", f"{left:,} left"]
        return f"verify of {self._wish.whose} ended, exit {code:d}: {self._extent.rows:,} created = {' + '.join(parts)}"

    def _next(self, counts: dict[Verified, int], left: int) -> list[str]:
        steps = []
        if counts[Verified.MISSING]:
            steps.append(("look these conversations up in Flex", "is the person there?"))
            steps += [] if left else [(self._wish.command, "again later: lists may be late")]
        if left:
            steps.append((self._wish.command, "goes on where this one stopped"))
        if counts[Verified.NOT_LISTABLE]:
            steps.append(("flex-import doctor", "shows whether this account may list participants"))
        if not steps and self._wish.sample is not None and self._extent.rows:
            steps.append(("flex-import verify", "lists all channels"))
        if not steps:
            steps.append(("flex-import report -o report.html", "the whole import on one page"))
        wide = max(len(command) for command, _ in steps)
        return ["", *(f"{'Next' if not n else '':<6} {step:<{wide}}   {why}" for n, (step, why) in enumerate(steps))]


def _channels(count: int) -> str:
    return f"{count:,} channel{'s' * (count != 1)}"


def _line(name: str, count: int | None, note: str) -> str:
    return f"  {name:<12}{note}" if count is None else f"  {name:<12}{count:>11,}   {note}".rstrip()
