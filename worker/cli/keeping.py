"""`ledger info`, `backup`, `prune` and `copy`: the ledger as a whole."""

import json
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from worker.cli.loading import configure
from worker.cli.telling import agreed, at_terminal, masked, shown, tell
from worker.config import Config
from worker.errors import ConfigError
from worker.ledger.keeping import Info, back_up, copy_ledger, describe
from worker.ledger.opening import open_ledger, shrink
from worker.ledger.pruning import Pruned, prunable, prune
from worker.model import Exit
from worker.place import Place, server_of
from worker.report import printable

_MEGABYTE = 1_000_000
_NAMES = {
    "target": "belongs to",
    "account": "account",
    "key_template": "key",
    "canonical_version": "canonical form",
}


def show_info(config: Path | None, ledger: Place | None, *, json_wanted: bool) -> int:
    """Print what a ledger is and how large; returns exit code 0."""
    path = configure(config, ledger, {}).ledger_path
    info = describe(path)
    if json_wanted:
        told = info._asdict() | {"first_run_at": _time(info.first_run_at), "last_run_at": _time(info.last_run_at)}
        tell(json.dumps({"ledger": str(path), **told}))
    else:
        tell(printable("\n".join(_lines(path, info))))
    return Exit.DONE


def _lines(path: Place, info: Info) -> list[str]:
    runs = f"{info.runs:,}, {_time(info.first_run_at)} to {_time(info.last_run_at)}" if info.runs else "none yet"
    facts = [
        ("size", f"{info.bytes / _MEGABYTE:,.1f} MB, schema {info.schema}"),
        ("in use by", info.holder or "nobody"),
        ("rows", f"{info.rows:,} in {info.channels:,} channels, of {info.inputs:,} input{'s' * (info.inputs != 1)}"),
        ("records", f"{info.records:,} kept, to be sent again or repaired"),
        ("runs", runs),
    ]
    for field, value in info.binding.items():
        name, colon, profile = field.partition(":")
        if name != "mapping":  # as long as the mapping is
            text = value or ("the row's digest" if name == "key_template" else "not known")
            text = masked(value).removeprefix("account ") if name == "account" and value else text
            facts.append((f"{_NAMES[name]}{f' ({profile})' if colon else ''}", text))
    return [f"ledger {shown(str(path))}", *(f"  {name:<16}{value}" for name, value in facts)]


def _time(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def back_up_ledger(config: Path | None, ledger: Place | None, file: str) -> int:
    """Copy a ledger, beside a run or after it; returns exit code 0. Raises LedgerRefusedError for an existing file."""
    path = configure(config, ledger, {}).ledger_path
    copy = _place(file)
    if not isinstance(copy, Path):
        raise ConfigError("a backup is a file; flex-import ledger copy FROM TO copies into a database")
    rows = back_up(path, copy)
    tell(
        f"{shown(str(copy))}: {rows:,} rows, read through once\n"
        "A backup is a last resort: rows sent after it was made are not in it, and going on with\n"
        "it would send them again."
    )
    return Exit.DONE


def copy_whole_ledger(config: Path | None, source: str, target: str) -> int:
    """Copy a ledger on which nobody works to another place; returns exit code 0."""
    path, copy = (configure(config, _place(name), {}).ledger_path for name in (source, target))
    rows = copy_ledger(path, copy)
    tell(
        f"{shown(str(copy))}: {rows:,} rows, read through once\n"
        "There are two ledgers of one import now. Go on with one of them only, and move the other\n"
        "away: what one sends the other does not know."
    )
    return Exit.DONE


def _place(name: str) -> Place:
    if name in {"", "-"}:
        raise ConfigError("a ledger is a file, or the address of a database; name one")
    return server_of(name) or Path(name)


def prune_ledger(config_file: Path | None, ledger_file: Place | None, before: str, *, yes: bool) -> int:
    """Drop what was settled before a date and nobody needs, after asking; returns exit code 0.

    Raises ConfigError for what is no date in the past, and when nobody can be asked; LedgerHeldError beside a run.
    """
    config = configure(config_file, ledger_file, {})
    moment = _moment(before, config)
    milliseconds = int(moment.timestamp() * 1000)
    with closing(open_ledger(config.ledger_path)) as ledger:
        with ledger.transaction() as connection:
            found = prunable(connection, milliseconds)
        if not any(found):
            tell(f"there is nothing from before {moment:%Y-%m-%d %H:%M} that can be dropped")
            return Exit.DONE
        plan = f"{_told(found)}\nfrom before {moment:%Y-%m-%d %H:%M} would be dropped. No row is: none is sent again."
        if not yes:
            if not at_terminal():
                raise ConfigError(f"{plan}\n  Nobody can be asked here; add --yes")
            plan += "\nWhat is dropped cannot be sent again by retry, or exported to be repaired."
            if not agreed(plan, "Drop it?"):
                raise ConfigError("nothing was dropped")
        with ledger.transaction() as connection:
            prune(connection, milliseconds)
        shrink(config.ledger_path)
    tell(f"dropped: {_told(found)}")
    return Exit.DONE


def _told(found: Pruned) -> str:
    return (
        f"{found.records:,} records of rows that nobody has repaired, {found.findings:,} old findings, "
        f"{found.samples:,} samples, {found.baselines:,} baselines"
    )


def _moment(text: str, config: Config) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f'--before: "{text}" is no date; write it as 2026-03-01, or 2026-03-01T06:00') from None
    if moment.tzinfo is None:
        limits = config.settings.limits
        moment = moment.replace(tzinfo=ZoneInfo(limits.timezone)) if limits.timetable else moment.astimezone()
    if moment.timestamp() > datetime.now(UTC).timestamp():
        raise ConfigError(f"--before: {text} is not in the past")
    return moment
