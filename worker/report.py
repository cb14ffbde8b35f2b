"""The account of a run: as text for people, as JSON for programs, as one exit code. Pure.

The identity: input = the sum of all outcomes + unread. A run in which it does not hold has a bug, and says so.
"""

import re
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worker.cluster import Cluster
from worker.model import BUCKETS, Cause, Exit, State, Tally
from worker.wording import NOTHING_GIVEN, Given, plural, share

_PRECEDENCE = (
    Exit.BUG,
    Exit.USAGE,
    Exit.HELD,
    Exit.HALTED,
    Exit.SIGHUP,
    Exit.SIGINT,
    Exit.SIGTERM,
    Exit.STOPPED,
    Exit.DOUBT,
    Exit.BAD_ROWS,
)

_MINUTE = 60
_SECONDS_TELL = 600
_COLUMNS = 80
_INDENT = 7
_SHOWN_GROUPS = 5

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

_BAD = (State.REJECTED, State.PARKED, State.FAILED)

_NOTES = {
    "rejected": "a definite no; the groups below say why",
    "existed": "were members already",
    "already_done": "by earlier runs",
    "closed": "by undo; not sent",
    "duplicate": "the same record again; the first one counts",
    "parked": "not sent: their channel is closed, gone or full",
    "failed": "surely not created; sent again next time",
    "in_doubt": "may exist; never sent again blindly",
    "not_sent": "read, not sent",
}


@dataclass(frozen=True, slots=True)
class Account:
    """A finished run. causes: of an early end. recorded: the ledger's own count by state.

    last_request_at: RFC 3339, UTC, or None when nothing was sent. ledger: its path as people may type it.
    tolerate_ratio: as in `tolerable`. command: which one it was. given: options that the next command needs, too.
    folder: one for rejects that does not exist yet. unsendable: rows that a retry leaves, as they were rejected before
    they were sent.
    """

    run: int
    tally: Tally
    recorded: Mapping[State, int]
    elapsed_seconds: float
    ledger: str
    inputs: int
    last_request_at: str | None = None
    causes: Sequence[Cause] = ()
    ledger_broke: bool = False
    groups: Sequence[Cluster] = ()
    tolerate_ratio: float = 0.0
    command: str = "run"
    given: Given = NOTHING_GIVEN
    folder: str = "fix/"
    unsendable: int = 0

    @property
    def of_earlier_runs(self) -> bool:
        """Whether it read no input, so that it is about rows of earlier runs alone."""
        return self.command in {"reconcile", "retry"}

    @property
    def identity_holds(self) -> bool:
        """Every row read is in exactly one place, and the ledger, counted by itself, says the same.

        Rows stay unread only for a cause.
        """
        explained = not self.tally.unread or bool(self.causes)
        return self.tally.holds() and explained and dict(self.recorded) == self.tally.settled

    @property
    def exit_code(self) -> Exit:
        """The most serious thing that is true, in the contract's order."""
        tally = self.tally
        true = {cause.exit for cause in self.causes}
        if not self.identity_holds:
            true.add(Exit.BUG)
        earlier = tally.earlier
        if self._in_doubt or (tally.closed and not self.causes):
            true.add(Exit.DOUBT)
        rows = tally.read + tally.unread + sum(earlier.values()) + self.unsendable
        if not tolerable(self._bad, rows, self.tolerate_ratio):
            true.add(Exit.BAD_ROWS)
        return most_serious(true)

    @property
    def _bad(self) -> int:
        earlier = (self.tally.earlier.get(state, 0) for state in _BAD)
        return self.tally.rejected + self.tally.parked + self.tally.failed + sum(earlier) + self.unsendable

    @property
    def reason(self) -> str:
        """One sentence for the exit code."""
        code = self.exit_code
        if code is Exit.DONE and self._bad:
            return f"finished; {plural(self._bad, 'row')} rejected, parked or failed, no more than exit.tolerate_ratio"
        if code is Exit.DOUBT and self.tally.closed and not self._in_doubt:
            return f"finished; {plural(self.tally.closed, 'row')} closed by undo and not sent"
        if code is Exit.DONE and self.of_earlier_runs:
            return "finished, no row is in doubt" if self.command == "reconcile" else "finished, no row was refused"
        return next((cause.reason for cause in self.causes if cause.exit is code), code.meaning)

    @property
    def _in_doubt(self) -> bool:
        """Whether rows are in doubt, or not sent because their channel has one."""
        tally = self.tally
        waiting = tally.not_sent and not self.causes
        return bool(tally.in_doubt or tally.earlier.get(State.IN_DOUBT) or waiting)


def most_serious(codes: Collection[Exit]) -> Exit:
    """Return the exit code when all of these are true."""
    return next((code for code in _PRECEDENCE if code in codes), Exit.DONE)


def tolerable(bad: int, rows: int, ratio: float) -> bool:
    """Tell whether so many bad rows are no more than this share of all."""
    return not bad or bad / rows <= ratio


def as_json(account: Account) -> dict[str, Any]:
    """Return the object that `run --json` prints."""
    tally = account.tally
    seconds = account.elapsed_seconds
    return {
        "run": account.run,
        "input_rows": tally.input_rows,
        "read": tally.read,
        **{name: getattr(tally, name) for name in BUCKETS},
        "unread": tally.unread,
        "changed": tally.changed,
        "identity_holds": account.identity_holds,
        "requests": tally.requests,
        "retries": tally.retries,
        "throttled": tally.throttled,
        "elapsed_seconds": round(seconds, 3),
        "rows_per_second": round(tally.created / seconds, 2) if seconds > 0 else 0.0,
        "last_request_at": account.last_request_at,
        "exit_code": int(account.exit_code),
        "reason": account.reason,
    }


def _note(name: str, tally: Tally, total: int) -> str:
    if name == "created" and total:
        return share(tally.created, total)
    repaired = f"; {tally.repaired:,} of them repaired" if name == "already_done" and tally.repaired else ""
    return _NOTES.get(name, "") + repaired


def as_text(account: Account) -> str:
    """Return the summary that a run ends with; its last line alone says how it ended."""
    tally = account.tally
    total = tally.read + tally.unread
    lines = [*_folded(_headline(account)), ""]
    rows = "row" if total == 1 else "rows"
    if account.of_earlier_runs:
        lines += [_line(state.replace("_", " "), count, _NOTES.get(state, "")) for state, count in _left_over(account)]
    else:
        lines.append(_line("input", total, f"{rows} in {plural(account.inputs, 'file')}" if account.inputs else rows))
    for name in () if account.of_earlier_runs else BUCKETS:
        count = getattr(tally, name)
        if count or name == "created":
            lines.append(_line(name.replace("_", " "), count, _note(name, tally, total)))
    if tally.unread:
        lines.append(_line("unread", tally.unread, ""))
    lines.append(f"  {'identity':<12}{'holds' if account.identity_holds else 'DOES NOT HOLD':>11}   {_sum(account)}")
    lines.append("")
    left_over = [f"{count:,} {state.value.replace('_', ' ')}" for state, count in _left_over(account)]
    if account.unsendable:
        text = f"{plural(account.unsendable, 'row')} rejected before being sent: repair them"
        lines += _folded(f"  unsent      {text}", indent=14)
    if left_over and not account.of_earlier_runs:
        lines += _folded(
            f"  earlier     {', '.join(left_over)}: rows that earlier runs left in doubt or failed", indent=14
        )
    if tally.changed:
        changed = f"  {plural(tally.changed, 'row')} changed after being sent; the ledger keeps what was sent"
        lines += _folded(changed, indent=2)
    if tally.warned:
        warned = f"  {plural(tally.warned, 'row')} sent with a warning: check their files to see it"
        lines += _folded(warned, indent=2)
    lines += _folded(_effort(account), indent=14)
    lines += _folded(_to_go(account), indent=14)
    lines.append(f"  ledger      {account.ledger} (run {account.run})")
    if account.groups:
        lines += ["", *group_lines(account.groups, account.given)]
    lines += ["", *_next_lines(account), _last_line(account)]
    return printable("\n".join(lines))


def printable(text: str) -> str:
    """Return a text with its control characters made visible: data must not steer a terminal."""
    return _CONTROL.sub(lambda found: repr(found.group())[1:-1], text)


def _headline(account: Account) -> str:
    nothing_lost = " Nothing lost." if account.identity_holds and not account.ledger_broke else ""
    if account.causes:
        reason = account.reason
        return f"{reason[:1].upper()}{reason[1:]}{'' if reason.endswith(('.', '?', '!')) else '.'}{nothing_lost}"
    tally = account.tally
    if account.of_earlier_runs and (line := _of_earlier(account)):
        return line
    left = tally.not_sent + tally.in_doubt + tally.failed + tally.closed
    if tally.already_done and not tally.requests and not left:
        return "Everything was already done; nothing was sent."
    return f"Finished.{nothing_lost}"


def _of_earlier(account: Account) -> str:
    """Return the first line of a reconcile, or of a retry that found nothing to do."""
    earlier = account.tally.earlier
    total, doubts = sum(earlier.values()), earlier.get(State.IN_DOUBT, 0)
    if account.command == "retry":
        return "" if total else "No rows to send again."
    if not total:
        return "No rows are in doubt."
    need = "needs" if doubts == 1 else "need"
    return f"Looked at {plural(total, 'row')} in doubt: {total - doubts:,} settled, {doubts:,} {need} you."


def _line(name: str, count: int, note: str) -> str:
    return f"  {name:<12}{count:>11,}   {note}".rstrip()


def _left_over(account: Account) -> list[tuple[State, int]]:
    """Return what became of rows of earlier runs, by the state that they are in now."""
    return [(state, count) for state in State if (count := account.tally.earlier.get(state))]


def _sum(account: Account) -> str:
    tally = account.tally
    total = sum(tally.earlier.values()) if account.of_earlier_runs else tally.read + tally.unread
    return f"{total:,} = the sum of the lines above"


def _effort(account: Account) -> str:
    tally = account.tally
    seconds = account.elapsed_seconds
    rate = f", {tally.requests / seconds:,.1f}/s" if seconds >= 1 and tally.requests else ""
    answers = f"{plural(tally.retries, 'retry', 'retries')}, {tally.throttled:,} times 429"
    return f"  effort      {duration(seconds)}, {plural(tally.requests, 'request')}{rate}, {answers}"


def _to_go(account: Account) -> str:
    """Say how much is left, and how long it would take as this run went; nothing when nothing is."""
    tally = account.tally
    left = tally.unread + tally.not_sent
    if not left or not account.causes:
        return ""
    took = account.elapsed_seconds
    done = sum(tally.settled.values())
    pace = f", some {duration(left * took / done)} at this pace" if done and took >= 1 else ""
    return f"  to go       {plural(left, 'row')}{pace}"


def _next_lines(account: Account) -> list[str]:
    """Return what to type next: for what is left, what is in doubt, what is bad, or for the crosswalk."""
    code, tally = account.exit_code, account.tally
    type_next = account.given.command
    steps = []
    if code is Exit.BUG:
        steps.append((type_next("status"), "keep log and ledger, and report this"))
    if account.causes and code is not Exit.BUG:
        steps.append(("the same command", "goes on where this run ended"))
    if tally.in_doubt or tally.earlier.get(State.IN_DOUBT):
        if account.command == "reconcile" and not account.causes:  # it has just looked
            steps.append((type_next("failures", "--state in_doubt"), "each with its candidates"))
        else:
            steps.append((type_next("reconcile"), "looks for what is in doubt"))
    if tally.closed:
        steps.append((type_next("retry", "--state closed"), "frees them; run the files again"))
    if tally.rejected or tally.parked or account.unsendable:
        steps.append((type_next("export", f"--rejects {account.folder}"), "the records, to repair"))
    if not steps:
        steps.append((type_next("export", "--state created -o ids.csv"), "your key → sid"))
    return next_lines(steps)


def next_lines(steps: Sequence[tuple[str, str]]) -> list[str]:
    """Return commands to type next, whole, each with what it is for where a line has room for it."""
    steps = [(printable(command), why) for command, why in steps]
    width = max(len(command) for command, _ in steps)
    if _INDENT + width + 4 + max(len(why) for _, why in steps) > _COLUMNS:
        width = 0  # not all have room: those that do need not stand in a column
    lines = []
    for number, (command, why) in enumerate(steps):
        bare = f"{'' if number else 'Next':<{_INDENT}}{command:<{width}}"
        lines.append(f"{bare}    {why}" if len(bare) + 4 + len(why) <= _COLUMNS else bare)
    return lines


def duration(seconds: float) -> str:
    """Return a time span the way people say it."""
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    minutes = round(seconds / _MINUTE)
    if seconds < _SECONDS_TELL and (left := round(seconds) % _MINUTE):
        return f"{round(seconds) // _MINUTE} min {left:02} s"
    return f"{minutes} min" if minutes < _MINUTE else f"{minutes // _MINUTE} h {minutes % _MINUTE:02} min"


def group_lines(groups: Sequence[Cluster], given: Given) -> list[str]:
    """Return the largest groups of rows that need something, with the ids by which people name them."""
    shown = groups[:_SHOWN_GROUPS]
    head = f"{len(groups)} groups need attention, top {len(shown)}" if groups[1:] else "1 group needs attention"
    lines = [f"{head}; what to do: {given.command('failures')}"]
    width = max((len(one.short) for one in shown), default=0)
    for one in shown:
        start = f"  {one.short:<{width}} {one.rows:>9,}  {one.state.replace('_', ' '):<9} "
        lines += _folded(start + one.why, indent=len(start))
        lines += _folded(one.where, first=" " * len(start), indent=len(start))
    return lines


def _folded(text: str, *, first: str = "", indent: int = 0) -> list[str]:
    return textwrap.wrap(
        text,
        _COLUMNS,
        initial_indent=first,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _last_line(account: Account) -> str:
    tally = account.tally
    verb = "stopped" if account.causes else "finished"
    parts = [f"{getattr(tally, name):,} {name.replace('_', ' ')}" for name in BUCKETS if getattr(tally, name)]
    total = tally.read + tally.unread
    if account.of_earlier_runs:
        parts = [f"{count:,} {state.replace('_', ' ')}" for state, count in _left_over(account)]
        total = sum(tally.earlier.values())
    unread = f" + {tally.unread:,} unread" if tally.unread else ""
    holds = "identity holds" if account.identity_holds else "identity DOES NOT HOLD"
    equation = f"{plural(total, 'row')} = {' + '.join(parts) or '0'}{unread}"
    return f"run {account.run} {verb}, exit {account.exit_code}: {equation}; {holds}"
