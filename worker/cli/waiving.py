"""`waive`, `unwaive` and `failures --state waived`: groups that people sign off, and take back."""

import json
import textwrap
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from worker.cli.clustering import find, folded, rows_of, table
from worker.cli.loading import configure
from worker.cli.telling import agreed, at_terminal, person, placed, say, shown, tell
from worker.cluster import Cluster
from worker.errors import ConfigError
from worker.ledger import Entry, Unwaive, Waive, Why
from worker.ledger.opening import open_ledger, open_readonly
from worker.ledger.view import View
from worker.ledger.waiving import Waived, waived_groups
from worker.model import Exit, State
from worker.place import Place
from worker.report import printable
from worker.wording import Given

_COLUMNS = 80
_LISTED = 10


# ---- waive ----------------------------------------------------------------------------------------------------------


def waive_groups(config: Path | None, ledger: Place | None, *, groups: Sequence[str], reason: str, yes: bool) -> int:
    """Sign groups off, all of them or none, after asking; who, when and the reason are recorded. Returns exit code 0.

    Raises ConfigError for an id that is not one group's, or is that of rows in doubt, and when nobody can be asked or
    the answer is no; LedgerRefusedError without a ledger, LedgerHeldError beside a run.
    """
    if not reason.strip():
        raise ConfigError("--reason: is empty; say why these rows need nothing more")
    settings = configure(config, ledger, {})
    path, given = settings.ledger_path, settings.given
    by = person()
    with closing(open_ledger(path)) as writer:
        with View(path) as view:
            standing = view.clusters()
        found = list(dict.fromkeys(find(standing, one, given) for one in groups))
        for one in found:
            if one.state == State.IN_DOUBT:
                raise ConfigError(
                    f"--group: {one.short}: {rows_of(one.rows)} in doubt, so they may exist and cannot be waived.\n"
                    f"  See which:  {one.command(given)}"
                )
        if not yes:
            _ask(found, reason, given)
        writer.start_run("waive")
        entries: list[Entry] = [Waive(State(one.state), Why(one.code, one.reason), by, reason) for one in found]
        counts = [answer for answer in writer.write(entries) if isinstance(answer, int)]
        writer.end_run(Exit.DONE, f"{rows_of(sum(counts))} waived by {by}: {reason}", "{}")
    for one, count in zip(found, counts, strict=True):
        tell(printable(f"{one.short}  {rows_of(count)} waived, {one.state} until now: {one.why}"))
    say(f"Take back  {given.command('unwaive', 'ID')}     {given.command('failures', '--state waived')} shows them")
    return Exit.DONE


def _ask(found: Sequence[Cluster], reason: str, given: Given) -> None:
    rows = rows_of(sum(one.rows for one in found))
    head = textwrap.wrap(f"{rows} would be signed off, and not sent any more: {reason}", _COLUMNS)
    plan = printable("\n".join([*head, "", *table(placed(found), given), ""]))
    if not at_terminal():
        raise ConfigError(f"{plan}\n  Nobody can be asked here; add --yes")
    if not agreed(plan, f"Sign off {rows}?"):
        raise ConfigError("nothing was signed off")


# ---- unwaive --------------------------------------------------------------------------------------------------------


def unwaive_group(config: Path | None, ledger: Place | None, beginning: str) -> int:
    """Take the waivers of a group back, with who and when; returns exit code 0.

    Raises ConfigError for an id that is not one waived group's, LedgerRefusedError without a ledger, LedgerHeldError
    beside a run.
    """
    path = configure(config, ledger, {}).ledger_path
    by = person()
    with closing(open_ledger(path)) as writer:
        one = _find(_waived(path), beginning)
        writer.start_run("unwaive")
        state = State(one.state)
        [count] = writer.write([Unwaive(state, Why(one.code, one.reason), by)])
        assert isinstance(count, int)  # noqa: S101 - as the ledger promises
        writer.end_run(Exit.DONE, f"{rows_of(count)} unwaived by {by}: {_why(one)}", "{}")
    tell(printable(f"{one.short}  {rows_of(count)} {one.state} again: {_why(one)}"))
    step = "run with the files that hold them" if state is State.FAILED else "failures"
    what = "sends them" if state is State.FAILED else "shows what to do about them"
    tell(f"Next  flex-import {step}     {what}")
    return Exit.DONE


def _waived(path: Place) -> list[Waived]:
    with closing(open_readonly(path)) as connection:
        return waived_groups(connection)


def _find(waived: Sequence[Waived], beginning: str) -> Waived:
    if not beginning:
        raise ConfigError("unwaive: the group is empty: is a variable not set?")
    if not waived:
        raise ConfigError(f"unwaive: {beginning}: no group has this id, as nothing is signed off")
    groups = {one.id: one for one in waived}
    matching = [one for id_, one in groups.items() if id_.startswith(beginning)]
    if len(matching) == 1:
        return matching[0]
    what = "several groups begin so; write more of it" if matching else "no waived group has this id; there are"
    listed = matching or list(groups.values())
    lines = [f"unwaive: {beginning}: {what}:"]
    for one in listed[:_LISTED]:
        line = f"{one.short} {one.state}, {rows_of(one.rows)}: {_why(one)}"
        lines.append(textwrap.shorten(line, _COLUMNS - 2, placeholder=" …"))
    if len(listed) > _LISTED:
        lines.append(f"and {len(listed) - _LISTED:,} more: flex-import failures --state waived shows all")
    raise ConfigError("\n  ".join(lines))


def _why(one: Waived) -> str:
    return f"{one.code} {one.reason}" if one.code.isdigit() else one.reason


# ---- failures --state waived ----------------------------------------------------------------------------------------


def show_waived(config: Path | None, ledger: Place | None, *, run: int | None, json_wanted: bool) -> int:
    """Print the groups that are signed off, with who, when and why. Returns exit code 0. run: only of this waiver."""
    path = configure(config, ledger, {}).ledger_path
    waived = [one for one in _waived(path) if run is None or one.run == run]
    if json_wanted:
        tell(json.dumps([_as_object(one) for one in waived]))
    elif not waived:
        tell("nothing is signed off" if run is None else f"nothing that run {run} signed off is still signed off")
    else:
        tell(printable("\n".join(_lines(waived, shown(str(path))))))
    return Exit.DONE


def _as_object(one: Waived) -> dict[str, object]:
    return {
        "id": one.id,
        "state": "waived",
        "state_before": one.state,
        "code": one.code,
        "reason": one.reason,
        "rows": one.rows,
        "examples": [one.example] if one.example else [],
        "waived_at": datetime.fromtimestamp(one.at / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "waived_by": one.by,
        "waiver_reason": one.words,
        "run": one.run,
    }


def _lines(waived: Sequence[Waived], ledger: str) -> list[str]:
    rows = sum(one.rows for one in waived)
    groups = len({one.id for one in waived})
    head = f"{rows_of(rows)} signed off, in {groups:,} group{'s' * (groups != 1)} (ledger {ledger})"
    wide = max(len(one.short) for one in waived)
    count = max(6, *(len(f"{one.rows:,}") for one in waived))
    indent = " " * (wide + count + 13)
    columns = f"{'ID':<{wide}} {'ROWS':>{count}}  {'WAS':<8}  WHY, AND WHO SIGNED OFF"
    lines = [*textwrap.wrap(head, _COLUMNS), "", columns]
    for one in waived:
        lines += folded(_why(one), f"{one.short:<{wide}} {one.rows:>{count},}  {one.state:<8}  ", indent)
        moment = datetime.fromtimestamp(one.at / 1000, UTC).astimezone()
        where = f"; {shown(one.example)}" if one.example else ""
        lines += folded(f"{one.words} ({one.by}, {moment:%d %b %Y %H:%M}, run {one.run}){where}", indent, indent)
    return [*lines, "", "Take back  flex-import unwaive ID"]
