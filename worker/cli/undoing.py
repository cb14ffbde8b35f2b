"""`undo`: closes the participants that a run created, as fast as the limits allow; again finishes what is left."""

import json
import sys
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import groupby, islice
from math import isfinite

import anyio
import structlog
from yarl import URL

from worker.api import Api
from worker.cli.importing import SWITCH_SECONDS, api_of, logged
from worker.cli.loading import refuse_no_run
from worker.cli.looping import run_loop
from worker.cli.parameter import Window
from worker.cli.progressing import Line
from worker.cli.telling import agreed, at_terminal, masked, say, shown, tell
from worker.cli.windowing import hours_of
from worker.cli.wiring import credentials_for, open_own_ledger
from worker.config import Config
from worker.credentials import Credentials
from worker.errors import ConfigError, LedgerError
from worker.journal import Journal
from worker.ledger import Free
from worker.ledger.steering import Orders
from worker.ledger.tables import Tables
from worker.ledger.view import Reversible, View
from worker.logs import LogObserver
from worker.model import Cause, Exit, State
from worker.report import duration, most_serious, next_lines, printable
from worker.schedule import Hours, Schedule
from worker.stopping import Stop, conduct, final_causes
from worker.traffic import Traffic
from worker.undo import CLOSABLE, FIRST_REFUSED, Reversal, Undoer, Undone
from worker.wording import plural

_FRAME_SECONDS = 0.25
_LINE_SECONDS = 60.0
_CHANNELS_AT_ONCE = 64
_SHOWN_ERRORS = 5
_COUNTABLE = frozenset({"customer", "supervisor"})
_REASONS = {Exit.DONE: "finished, everything is closed", Exit.BAD_ROWS: "finished; some could not be closed"}


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asks of an undo. run: whose rows; None for all."""

    run: int | None
    yes: bool
    quiet: bool
    json_wanted: bool

    @property
    def silent(self) -> bool:
        """Whether nothing is said while it works."""
        return self.quiet or self.json_wanted

    @property
    def whose(self) -> str:
        """What is undone, in words."""
        return "all runs" if self.run is None else f"run {self.run}"


def undo_runs(config: Config, window: Window, wish: Wish) -> int:
    """Close what was created, after asking, and print the account; returns the exit code.

    Raises ConfigError when nobody can be asked or the answer is no, LedgerRefusedError without a ledger.
    """
    credentials = credentials_for(config)
    hours = hours_of(config.settings.limits, window)
    api = api_of(config, credentials)
    with closing(open_own_ledger(config, credentials)) as ledger, logged(config, quiet=wish.quiet):
        with View(ledger.path) as view:
            found, last = view.reversible(wish.run), view.last_run()
        refuse_no_run(wish.run, last)
        if found.created and not wish.yes:
            _ask(config, credentials, wish, found)
        elif not wish.silent:
            for line in _type_lines(found):
                say(line)
        sys.setswitchinterval(SWITCH_SECONDS)
        undoing = _Undoing(config, ledger, hours, wish, found)
        return run_loop(undoing.carry_out, api)


def free_closed_rows(config: Config, cluster: str | None) -> int:
    """Let what was undone be sent again, once an input has it; returns exit code 0.

    A created row's record is not kept, so there is nothing to send it from. Raises ConfigError when a cluster is named.
    """
    if cluster is not None:
        raise ConfigError("--group: closed rows are in no group; leave it out")
    with closing(open_own_ledger(config, credentials_for(config))) as ledger:
        ledger.start_run("retry")
        [freed] = ledger.write([Free()])
        count = freed if isinstance(freed, int) else 0
        ledger.end_run(Exit.DONE, f"{plural(count, 'closed row')} may be sent again", "{}")
    rows = f"{plural(count, 'row')} closed by undo"
    tell(f"{rows}: free to be sent again, by flex-import run with the files that hold them")
    return Exit.DONE


def _ask(config: Config, credentials: Credentials, wish: Wish, found: Reversible) -> None:
    rate = config.settings.limits.rate_per_second
    account = masked(credentials.account_sid)
    channels = plural(found.channels, "channel")
    plan = "\n".join(
        [
            f"{plural(found.created, 'participant')} that {wish.whose} created would be closed, in {channels}",
            f"at {URL(config.settings.api.url).host_port_subcomponent}{', ' if account else ''}{account}.",
            f"That takes {duration(found.created / rate)} at least, and takes people out of their conversations.",
            *_type_lines(found),
            *_kept_lines(found),
        ]
    )
    if not at_terminal():
        raise ConfigError(f"{plan}\n  Nobody can be asked here; add --yes")
    if not agreed(plan, f"Close {plural(found.created, 'participant')}?"):
        raise ConfigError("nothing was closed")


def _type_lines(found: Reversible) -> list[str]:
    """Say which of them can be closed; nothing when all can."""
    others = {type_: count for type_, count in sorted(found.types.items()) if type_ != CLOSABLE}
    if not others:
        return []
    agents = found.types.get(CLOSABLE, 0)
    named = [f"{count:,} {type_}{'s' * (count != 1 and type_ in _COUNTABLE)}" for type_, count in others.items()]
    return [
        f"Only agents can be closed, as Twilio documents it: {plural(agents, 'agent')} can be closed;",
        f"{', '.join(named)} cannot. Those are tried all the same, and kept once {FIRST_REFUSED} were refused.",
    ]


def _kept_lines(found: Reversible) -> list[str]:
    lines = []
    if found.unproven:
        lines.append(f"{found.unproven:,} are kept: adopted without a baseline, so they may be somebody else's")
    if found.existed:
        lines.append(f"{found.existed:,} are kept: they were members before")
    return lines


class _Undoing:
    """One undo on an open ledger."""

    def __init__(self, config: Config, ledger: Tables, hours: Hours, wish: Wish, found: Reversible) -> None:
        self._settings = config.settings
        self._given = config.given
        self._ledger = ledger
        self._wish = wish
        self._found = found
        self._stop = Stop()
        self._undone = Undone()
        self._number = ledger.start_run("undo")
        self._observer = LogObserver(self._number)
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

    @property
    def _left(self) -> int:
        return self._found.created - self._undone.closed - self._undone.errored - self._undone.spared

    async def carry_out(self, api: Api) -> int:
        """Undo, record how it ended, tell it, and return the exit code."""
        began = time.monotonic()
        if self._found.created:
            await self._close_all(api)
        return self._end(time.monotonic() - began)

    async def _close_all(self, api: Api) -> None:
        try:
            with View(self._ledger.path) as view, closing(Orders(self._ledger.path, self._number)) as self._orders:
                async with Journal(self._ledger) as journal, api, aclosing(self._channels(view)) as channels:
                    undoer = Undoer(
                        api,
                        self._traffic,
                        journal,
                        self._undone,
                        self._stop,
                        settle_seconds=self._settings.doubt.settle_seconds,
                        on_error=self._observer.row_kept,
                    )
                    await conduct(
                        partial(undoer.run, channels, self._settings.limits.concurrency),
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

    async def _channels(self, view: View) -> AsyncGenerator[Sequence[Reversal], None]:
        """Yield the participants of each channel, read off the loop."""

        def grouped() -> Iterator[list[Reversal]]:
            rows = map(Reversal._make, view.created(self._wish.run))
            for _, found in groupby(rows, key=lambda one: one.channel_sid.lower()):
                yield list(found)

        channels = grouped()
        while some := await anyio.to_thread.run_sync(lambda: list(islice(channels, _CHANNELS_AT_ONCE))):
            for channel in some:
                yield channel

    async def _withdraw(self) -> None:
        await self._stop.draining.wait()
        self._traffic.withdraw()

    async def _show(self) -> None:
        line = Line(silent=self._wish.silent)
        began = time.monotonic()
        try:
            while True:
                await anyio.sleep(_FRAME_SECONDS if line.shows else _LINE_SECONDS)
                done = self._undone
                rate = done.requests / max(time.monotonic() - began, 0.001)
                limit = self._traffic.creates.rate
                doing = self._traffic.held_by or (f"{rate:.1f}/s" + (f" of {limit:.3g}" if isfinite(limit) else ""))
                text = (
                    f"{datetime.now().astimezone():%H:%M} undo of {self._wish.whose}: {done.closed:,} of "
                    f"{self._found.created:,} closed, {plural(done.errored, 'error')}, {doing}"
                )
                if line.shows:
                    line.draw(text)
                elif not self._wish.silent:
                    say(text)
        finally:
            line.clear()

    def _say_stopping(self) -> None:
        if not self._wish.silent:
            say(f"Stopping: {plural(self._undone.in_flight, 'request')} in flight. Press Ctrl-C again to abort them.")

    def _give_up(self, reason: str) -> None:
        limit = duration(self._settings.stop.outage_seconds)
        self._stop.drain(Cause(Exit.HALTED, f"halted: the service was down for {limit} ({reason})"))

    def _end(self, seconds: float) -> int:
        recorded = self._undone.closed
        try:
            recorded = self._ledger.settled_by_run().get(State.CLOSED, 0)
        except LedgerError as exc:
            self._stop.end(Cause(Exit.HALTED, f"halted: {exc}"))
        causes = final_causes(self._stop.causes, self._undone.requests)
        holds = recorded == self._undone.closed and (not self._left or bool(causes))
        true = {cause.exit for cause in causes}
        true |= {Exit.BAD_ROWS} if self._undone.errored else set()
        code = most_serious(true if holds else {*true, Exit.BUG})
        reasons = [cause.reason for cause in causes if cause.exit is code]
        reason = reasons[0] if reasons else _REASONS.get(code, code.meaning)
        if not self._found.created:
            reason = f"nothing to close: {self._wish.whose} created no participant that is still there"
        account = {
            "run": self._number,
            "undone": self._wish.run,
            "created": self._found.created,
            "types": self._found.types,
            "closed": self._undone.closed,
            "kept": self._found.unproven + self._found.existed,
            "errored": self._undone.errored,
            "spared": self._undone.spared,
            "left": self._left,
            "requests": self._undone.requests,
            "retries": self._undone.retries,
            "throttled": self._undone.throttled,
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
            tell(json.dumps(account))
        elif not self._wish.quiet or code is not Exit.DONE:
            tell(printable("\n".join(self._lines(code, reason, seconds))))
        return code

    def _lines(self, code: Exit, reason: str, seconds: float) -> list[str]:
        done, found, left = self._undone, self._found, self._left
        again = self._given.command("undo", "--all" if self._wish.run is None else f"--run {self._wish.run}")
        lines = [f"{reason[:1].upper()}{reason[1:]}.", ""]
        lines.append(_line("created", found.created, f"by {self._wish.whose}, and still there"))
        lines.append(_line("closed", done.closed, ""))
        if done.errored:
            lines.append(_line("errors", done.errored, "not closed:"))
            most = sorted(done.errors.items(), key=lambda item: -item[1][0])
            lines += [
                f"{'':<28}{rows:,} x {kind} {why}, first {key}" for (kind, why), (rows, key) in most[:_SHOWN_ERRORS]
            ]
        if done.spared:
            lines.append(_line("not tried", done.spared, "only agents can be closed, as the refusals above show"))
        if left:
            lines.append(_line("left", left, ""))
        lines += [f"  {'kept':<12}{'':>11}   {text}" for text in _kept_lines(found)]
        lines.append(
            f"  effort      {duration(seconds)}, {plural(done.requests, 'request')}, {done.throttled:,} times 429"
        )
        lines.append(f"  ledger      {shown(str(self._ledger.path))} (run {self._number})")
        equation = f"{found.created:,} created = {done.closed:,} closed + {done.errored:,} errors + {left:,} left"
        equation += f" + {done.spared:,} not tried" if done.spared else ""
        steps = ["", *next_lines([(again, "closes what is left")])] if left else []
        return [*lines, *steps, "", f"undo of {self._wish.whose} ended, exit {code:d}: {equation}"]


def _line(name: str, count: int, note: str) -> str:
    return f"  {name:<12}{count:>11,}   {note}".rstrip()
