"""`resolve`: a person's decision about rows in doubt, recorded with when and by whom."""

import csv
import re
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from worker.cli.telling import agreed, at_terminal, person, tell
from worker.cli.wiring import credentials_for, open_own_ledger
from worker.config import Config
from worker.errors import ConfigError
from worker.ledger import Decision, Entry, Settle
from worker.ledger.tables import Tables
from worker.ledger.view import View
from worker.model import Created, Exit, Failed, Settlement
from worker.report import duration
from worker.wording import Given, plural

_SID = re.compile(r"UT[0-9a-fA-F]{32}")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What a person says of one row. where: for messages; sid: None when it was not created."""

    where: str
    key: str
    sid: str | None


@dataclass(frozen=True, slots=True)
class _Decided:
    """A decision and the row that it is about. candidates: sids that may be the row's, from the last look at it."""

    where: str
    number: int
    key: str
    sid: str | None
    since: int
    candidates: tuple[str, ...]


def resolve_rows(
    keys: Sequence[str],
    config: Config,
    *,
    created: str | None,
    not_created: bool,
    file: Path | None,
    force: bool,
) -> int:
    """Record decisions about rows in doubt; all of them or none. Returns exit code 0.

    keys: whole keys, or beginnings that only one row in doubt has. force: a sid need not be a candidate of its row, and
    a row may be called not created before the settle time is over.
    Raises ConfigError naming the key or line.
    """
    verdicts = _from_file(file) if file else _from_words(keys, created, not_created=not_created)
    if file and (keys or created or not_created):
        raise ConfigError("--from: the file says which rows and what became of them; give no keys and no other option")
    with closing(open_own_ledger(config, credentials_for(config))) as ledger:
        with View(ledger.path) as view:
            found = [_find(view, verdict) for verdict in verdicts]
            _refuse_repeated(found)
            _refuse_taken(view, found)
        if not force:
            _refuse_early(found, config.settings.doubt.settle_seconds)
            _confirm(found, config.given)
        _record(ledger, found)
    for one in found:
        tell(f"{one.key}  {'created ' + one.sid if one.sid else 'not created; the next run sends it'}")
    return Exit.DONE


def _record(ledger: Tables, found: Sequence[_Decided]) -> None:
    by = person()
    ledger.start_run("resolve")
    entries: list[Entry] = []
    for one in found:
        entries.append(Decision(one.number, by, "created" if one.sid else "not_created", one.sid))
        outcome = Created(one.sid) if one.sid else Failed("not_created", "a person decided that it was not made")
        entries.append(Settle(one.number, Settlement(one.key, outcome, ends_doubt=True)))
    ledger.write(entries)
    ledger.end_run(Exit.DONE, f"{plural(len(found), 'row')} resolved by {by}", "{}")


def _from_words(keys: Sequence[str], created: str | None, *, not_created: bool) -> list[_Verdict]:
    if not keys:
        raise ConfigError("resolve: name the keys of rows in doubt, or a file with --from")
    if (created is None) == (not not_created):
        raise ConfigError("resolve: say either --created SID or --not-created")
    if created is not None and len(keys) > 1:
        raise ConfigError("--created: one sid is one row's; name one key, or use --from FILE for many")
    return [_Verdict(key, key, _checked(created, "--created")) for key in keys]


def _from_file(file: Path) -> list[_Verdict]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            if not {"key", "sid"} <= set(reader.fieldnames or ()):
                raise ConfigError(f'{file}: needs the columns "key" and "sid" (an empty sid: it was not created)')
            return [
                _Verdict(f"{file}:{reader.line_num}", line["key"], _checked(line["sid"], f"{file}:{reader.line_num}"))
                for line in reader
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise ConfigError(f"--from: {file}: cannot be read: {exc}") from exc


def _checked(sid: str | None, where: str) -> str | None:
    if not sid:
        return None
    if not _SID.fullmatch(sid):
        raise ConfigError(f'{where}: "{sid}" is no participant\'s sid (UT and 32 hexadecimal digits)')
    return sid


def _find(view: View, verdict: _Verdict) -> _Decided:
    matching = view.in_doubt(verdict.key) if verdict.key else []
    exact = [one for one in matching if one.key == verdict.key]
    if len(exact or matching) != 1:
        what = "several rows in doubt begin so; write more of the key" if matching else "no row in doubt has this key"
        raise ConfigError(f"{verdict.where}: {what}")
    [row] = exact or matching
    spelt = {sid.casefold(): sid for sid in row.candidates}  # the ledger gets a sid as the service writes it
    sid = verdict.sid and spelt.get(verdict.sid.casefold(), verdict.sid)
    return _Decided(verdict.where, row.number, row.key, sid, row.since, row.candidates)


def _refuse_repeated(found: Sequence[_Decided]) -> None:
    sids = [(one.sid, one.sid.casefold()) for one in found if one.sid]
    for name, values in (("row", [(one.key, one.key) for one in found]), ("sid", sids)):
        counted = Counter(value for _, value in values)
        for shown, value in values:
            if counted[value] > 1:
                raise ConfigError(f"resolve: the {name} {shown} is named twice")


def _refuse_taken(view: View, found: Sequence[_Decided]) -> None:
    """One participant is one row's, now and for ever: no option lets another row have it."""
    owners = view.owners([one.sid for one in found if one.sid])
    for one in found:
        if one.sid and (owner := owners.get(one.sid)):
            what = f"was the participant of row {owner.key}, and was closed by undo"
            taken = what if owner.closed else f"is the participant of row {owner.key} already"
            raise ConfigError(f"{one.where}: {one.sid} {taken}")


def _refuse_early(found: Sequence[_Decided], settle_seconds: float) -> None:
    """Refuse to call a row not created while the service may still be creating it."""
    now = time.time()
    for one in found:
        waited = max(0.0, now - one.since / 1000)
        if not one.sid and waited < settle_seconds:
            raise ConfigError(
                f"{one.where}: its request ended {duration(waited)} ago, and the service may still create it. Look at "
                f"the conversation again in {duration(settle_seconds - waited)} (doubt.settle_seconds); nothing was "
                "recorded. --force records it all the same"
            )


def _confirm(found: Sequence[_Decided], given: Given) -> None:
    """Ask about sids that no list showed as their row's; where nobody can be asked, refuse them."""
    unlisted = [one for one in found if one.sid and one.sid not in one.candidates]
    if not unlisted:
        return
    lines = [f"{one.where}: {one.sid} is not a candidate of this row: {_listed(one)}" for one in unlisted[:_SHOWN]]
    lines += [f"and {len(unlisted) - _SHOWN:,} more"] * (len(unlisted) > _SHOWN)
    plan = "\n".join(lines)
    if not at_terminal():
        hint = "Nothing was recorded. --force records it all the same; this lists the channels again:"
        raise ConfigError(f"{plan}\n  {hint}\n  {given.command('reconcile')}")
    if not agreed(plan, "Record it all the same?" if len(unlisted) == 1 else "Record them all the same?"):
        raise ConfigError("nothing was recorded")


def _listed(one: _Decided) -> str:
    if one.candidates:
        return f"the list of its channel showed {', '.join(one.candidates)}"
    return "no list of its channel has shown any"
