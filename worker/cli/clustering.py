"""`failures` and `retry --group`: rows that need attention, in groups that people name by their ids."""

import json
import shlex
import textwrap
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from worker.cli.loading import configure, new_folder, refuse_no_run
from worker.cli.telling import placed, say, shown, tell
from worker.cli.wiring import credentials_for, open_own_ledger
from worker.cluster import Cluster
from worker.config import Config
from worker.errors import ConfigError
from worker.ledger import FreePruned, Why
from worker.ledger.opening import exists
from worker.ledger.retrying import closed_channels, pruned
from worker.ledger.view import InDoubt, Run, View
from worker.model import Exit, State
from worker.place import Place
from worker.report import duration, printable
from worker.wording import Given, plural

_COLUMNS = 80
_LISTED = 10
_SENT_AGAIN = (State.REJECTED, State.PARKED, State.FAILED)
_TO_REPAIR = frozenset({State.REJECTED, State.PARKED})


# ---- failures -------------------------------------------------------------------------------------------------------


def show_failures(
    config: Path | None, ledger: Place | None, *, state: State | None, run: int | None, json_wanted: bool
) -> int:
    """Print what needs something, in clusters; rows in doubt one by one, with their candidates. Returns exit code 0.

    state, run: only rows in this state, or that this run brought to theirs.
    """
    found = configure(config, ledger, {})
    path = found.ledger_path
    with View(path) as view:
        last = view.last_run()
        refuse_no_run(run, last)
        if state is State.IN_DOUBT and not json_wanted:
            settle = found.settings.doubt.settle_seconds
            tell(printable("\n".join(_doubt_lines(view.in_doubt(run=run), found.given, time.time() - settle))))
            return Exit.DONE
        clusters = [one for one in placed(view.clusters(run)) if state is None or one.state == state]
    if json_wanted:
        tell(json.dumps([_as_object(one) for one in clusters]))
    elif not clusters:
        tell("no rows need attention" if run is None else f"no rows of run {run} need attention")
    else:
        about = f"ledger {shown(str(path))}, {_moment(last, run)}"
        tell(
            printable(
                "\n".join([*_head(clusters, about), *table(clusters, found.given), *_next_steps(clusters, found.given)])
            )
        )
    return Exit.DONE


def _as_object(cluster: Cluster) -> dict[str, object]:
    return {
        "id": cluster.id,
        "state": cluster.state,
        "code": cluster.code,
        "field": cluster.field,
        "problem": cluster.problem,
        "reason": cluster.reason,
        "rows": cluster.rows,
        "examples": [f"{path}:{line}" for path, line in cluster.places],
    }


def _moment(last: Run | None, run: int | None) -> str:
    if run is not None:
        return f"only of run {run}"
    if last is None:
        return "no run yet"
    return f"run {last.number} has not ended" if last.ended_at is None else f"after run {last.number}"


def _head(clusters: Sequence[Cluster], about: str) -> list[str]:
    rows = sum(one.rows for one in clusters)
    need = "needs" if rows == 1 else "need"
    head = f"{plural(rows, 'row')} {need} attention, in {plural(len(clusters), 'group')} ({about})"
    return [*textwrap.wrap(head, _COLUMNS), ""]


def table(clusters: Sequence[Cluster], given: Given) -> list[str]:
    """Return groups as lines of at most 80 columns: rows, state, why, what to do, the first places.

    given: what the commands below them repeat.
    """
    wide = max(len(one.short) for one in clusters)
    count = max(6, *(len(f"{one.rows:,}") for one in clusters))
    lines = [f"{'ID':<{wide}} {'ROWS':>{count}}  {'STATE':<8}  WHY, AND WHAT TO DO"]
    indent = " " * (wide + count + 13)
    for one in clusters:
        start = f"{one.short:<{wide}} {one.rows:>{count},}  {one.state.replace('_', ' '):<8}  "
        lines += folded(one.why, start, indent)
        both = f"{one.advice}; {one.where}"
        parts = [both] if len(indent + both) <= _COLUMNS else [one.advice, one.where]
        for part in parts:
            lines += folded(part, indent, indent)
        if command := one.command(given):
            lines.append(indent + printable(command))  # whole, however long: it is to be pasted
    return lines


def folded(text: str, start: str, indent: str) -> list[str]:
    """Return a text in lines of at most 80 columns."""
    return textwrap.wrap(
        printable(text),
        _COLUMNS,
        initial_indent=start,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _next_steps(clusters: Sequence[Cluster], given: Given) -> list[str]:
    lines = [""]
    if any(one.state in _TO_REPAIR for one in clusters):
        command = given.command("export", f"--rejects {new_folder()}")
        note = "     original records, reasons beside"
        lines.append(f"Repair   {command}{note if len(command + note) <= _COLUMNS - 9 else ''}")
    if any(one.state in _SENT_AGAIN for one in clusters):
        lines.append('Give up  waive --group ID --reason "…"     asks before it signs off')
    return [printable(line) for line in lines] if lines[1:] else []


def _doubt_lines(doubts: Sequence[InDoubt], given: Given, settled_before: float) -> list[str]:
    if not doubts:
        return ["no rows are in doubt"]
    lines = [f"{plural(len(doubts), 'row')} in doubt: they may exist, and nothing more is sent to their channels"]
    for one in doubts:
        lines += [
            "",
            f"{one.key}  {one.type}, {shown(one.place)}",
            f"  {one.interaction_sid} {one.channel_sid}",
            f"  {one.reason}",
            *(f"  may be {sid}" for sid in one.candidates),
        ]
    lines += ["", f"Look again  {given.command('reconcile')}"]
    first = doubts[0]
    key = shlex.quote(first.key)
    decide = [given.command("resolve", key, f"--created {sid}") for sid in first.candidates]
    if (wait := first.since / 1000 - settled_before) <= 0:
        decide.append(given.command("resolve", key, "--not-created"))
    else:
        decide.append(f"not before {duration(wait)}: until then the service may still create it")
    return lines + [f"{'' if number else 'Decide':<12}{line}" for number, line in enumerate(decide)]


# ---- retry ----------------------------------------------------------------------------------------------------------


def to_send_again(
    config: Config, states: Sequence[State] | None, cluster: str | None
) -> tuple[list[State], Why | None]:
    """Return the states whose rows a retry sends again, and the cluster that they must be of, if one is named.

    states: as the options say; with a cluster both must hold. Raises ConfigError for what cannot be sent again,
    LedgerRefusedError when a cluster is named and there is no ledger.
    """
    if unfit := [one.value for one in states or () if one not in _SENT_AGAIN]:
        raise ConfigError(f"--state: {unfit[0]}: only rejected, parked, failed and closed rows can be sent again")
    if cluster is None:
        return list(states or _SENT_AGAIN), None
    with View(config.ledger_path) as view:
        found = find(view.clusters(), cluster, config.given)
    if found.local:
        raise ConfigError(
            f"--group: {found.short}: nothing can be sent again: {rows_of(found.rows)} rejected before being sent\n"
            f"  ({found.reason}). Export the records, repair them, and run the repaired files:\n"
            f"  {config.given.command('export', f'--rejects {new_folder()}')}"
        )
    if found.state == State.IN_DOUBT:
        raise ConfigError(
            f"--group: {found.short}: {rows_of(found.rows)} in doubt: they may exist, so they are not sent again.\n"
            f"  See which:  {found.command(config.given)}"
        )
    if states and found.state not in states:
        raise ConfigError(f"--state: {states[0].value}: the rows of group {found.short} are {found.state}")
    return [State(found.state)], Why(found.code, found.reason)


def prepare_retry(config: Config, states: Sequence[State], why: Why | None) -> list[Why]:
    """Look at the ledger before a retry; returns the reasons for which rejected rows are sent with the parked ones.

    A channel that is full rejects the row that meets it, and parks those behind it: they belong together. Rows whose
    records were pruned are freed, to be sent when an input has them, and that is said on stderr.
    """
    if not exists(config.ledger_path):
        return []  # the retry says so
    entry = FreePruned(states, why)
    with closing(open_own_ledger(config, credentials_for(config))) as ledger:
        with ledger.transaction() as connection:
            count = pruned(connection, entry)
            wanted = why is None and State.PARKED in states and State.REJECTED not in states
            also = closed_channels(connection) if wanted else []
        if count:
            ledger.start_run("retry")
            ledger.write([entry])
            ledger.end_run(Exit.DONE, f"{rows_of(count)} without a record: free to be sent again", "{}")
            say(
                f"{rows_of(count)} cannot be sent from the ledger: the records have been pruned. To send them, give\n"
                "the files that hold them to flex-import run once more"
            )
    return also


def find(clusters: Sequence[Cluster], beginning: str, given: Given) -> Cluster:
    """Return the group whose id begins so. Raises ConfigError when it is not exactly one."""
    if not beginning:
        raise ConfigError("--group: is empty: is a variable not set?")
    if not clusters:
        raise ConfigError(f"--group: {beginning}: no group has this id, as no rows need attention")
    matching = [one for one in clusters if one.id.startswith(beginning)]
    if len(matching) == 1:
        return matching[0]
    what = "several groups begin so; write more of it" if matching else "no group has this id; there are"
    listed = matching or clusters
    lines = [f"--group: {beginning}: {what}:"]
    for one in listed[:_LISTED]:
        line = f"{one.short} {one.state.replace('_', ' ')}, {rows_of(one.rows)}: {one.why}"
        lines.append(textwrap.shorten(line, _COLUMNS - 2, placeholder=" …"))
    if len(listed) > _LISTED:
        lines.append(f"and {len(listed) - _LISTED:,} more; all of them: {given.command('failures')}")
    raise ConfigError("\n  ".join(lines))


def rows_of(count: int) -> str:
    """Return a number of rows in words."""
    return plural(count, "row")
