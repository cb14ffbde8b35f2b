"""`resolve`: a person's decision about rows in doubt, recorded with when and by whom."""

import csv
import os
import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from worker.cli.telling import person, tell
from worker.cli.wiring import open_own_ledger
from worker.config import Config
from worker.credentials import read_credentials
from worker.errors import ConfigError
from worker.ledger import Decision, Entry, Settle
from worker.ledger.tables import Tables
from worker.ledger.view import View
from worker.model import Created, Exit, Failed, Settlement

_SID = re.compile(r"UT[0-9a-fA-F]{32}")


_NOT_CREATED = Failed("not_created", "a person decided that it was not created")


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What a person says of one row. where: for messages; sid: None when it was not created."""

    where: str
    key: str
    sid: str | None


def resolve_rows(
    keys: Sequence[str], config: Config, *, created: str | None, not_created: bool, file: Path | None
) -> int:
    """Record decisions about rows in doubt; all of them or none. Returns exit code 0.

    keys: whole keys, or beginnings that only one row in doubt has. Raises ConfigError naming the key or line.
    """
    verdicts = _from_file(file) if file else _from_words(keys, created, not_created=not_created)
    if file and (keys or created or not_created):
        raise ConfigError("--from: the file says which rows and what became of them; give no keys and no other option")
    with closing(open_own_ledger(config, read_credentials(os.environ))) as ledger:
        with View(ledger.path) as view:
            found = [(verdict, *_find(view, verdict)) for verdict in verdicts]
        _refuse_repeated(found)
        _record(ledger, found)
    for verdict, _, key in found:
        tell(f"{key}  {'created ' + verdict.sid if verdict.sid else 'not created; the next run sends it'}")
    return Exit.DONE


def _record(ledger: Tables, found: Sequence[tuple[_Verdict, int, str]]) -> None:
    by = person()
    ledger.start_run("resolve")
    entries: list[Entry] = []
    for verdict, number, key in found:
        decision = "created" if verdict.sid else "not_created"
        entries.append(Decision(number, by, decision, verdict.sid))
        outcome = (
            Created(verdict.sid) if verdict.sid else Failed("not_created", "a person decided that it was not made")
        )
        entries.append(Settle(number, Settlement(key, outcome, ends_doubt=True)))
    ledger.write(entries)
    ledger.end_run(Exit.DONE, f"{len(found)} rows resolved by {by}", "{}")


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


def _find(view: View, verdict: _Verdict) -> tuple[int, str]:
    matching = view.in_doubt(verdict.key) if verdict.key else []
    exact = [one for one in matching if one.key == verdict.key]
    if len(exact or matching) != 1:
        what = "several rows in doubt begin so; write more of the key" if matching else "no row in doubt has this key"
        raise ConfigError(f"{verdict.where}: {what}")
    if verdict.sid and (other := view.key_of(verdict.sid)):
        raise ConfigError(f"{verdict.where}: {verdict.sid} is the participant of row {other} already")
    return (exact or matching)[0].number, (exact or matching)[0].key


def _refuse_repeated(found: Sequence[tuple[_Verdict, int, str]]) -> None:
    for name, values in (("row", [key for _, _, key in found]), ("sid", [one.sid for one, _, _ in found if one.sid])):
        for value in values:
            if values.count(value) > 1:
                raise ConfigError(f"resolve: the {name} {value} is named twice")
