"""`check`: the whole input, row by row, without a network."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from worker.cli.previewing import Preview, written
from worker.cli.repairing import find_rows
from worker.cli.wiring import configure, open_lookups, shown, tell
from worker.config import Config
from worker.errors import ConfigError
from worker.intake import Intake
from worker.ledger import SourceFile
from worker.ledger.survey import Survey, Surveyed
from worker.model import Exit
from worker.payload import Mapper
from worker.report import duration, printable
from worker.source import Input

_EXAMPLES = 3
_NOT_SENT = ("already_done", "duplicate", "rejected", "parked", "waived", "in_doubt", "changed")
_SHOWN_GROUPS = 20


@dataclass(slots=True)
class _Group:
    """Rejected records with one reason. examples: `file:line` of the first few."""

    rows: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Findings:
    """What a check found, in rows. wanted: how many of those to send are to be shown."""

    wanted: int = 0
    read: int = 0
    send: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    groups: dict[tuple[str, str], _Group] = field(default_factory=dict)
    previews: list[Preview] = field(default_factory=list)

    def take(self, batch: Surveyed, names: dict[int, str]) -> None:
        """Add a batch. names: the number of an input → how it is called."""
        self.read += batch.read
        self.send += len(batch.send)
        for row in batch.send[: self.wanted - len(self.previews)]:
            self.previews.append(Preview(shown(names[row.source]), row))
        for name, count in batch.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
        for finding in batch.findings:
            if finding.kind == "rejected":
                group = self.groups.setdefault((finding.code, finding.reason), _Group())
                group.rows += 1
                if len(group.examples) < _EXAMPLES:
                    group.examples.append(f"{shown(names[finding.source])}:{finding.line}")


def check_files(
    files: Sequence[str],
    config_file: Path | None,
    ledger: Path | None,
    *,
    show: int | None,
    quiet: bool,
    json_wanted: bool,
) -> int:
    """Look at every row and print what a run would do; returns 0, or 1 when rows would be rejected.

    show: how many of the rows that would be sent are printed, with their values, even when quiet. Raises WorkerError
    for what would stop a run before anything is sent.
    """
    if show is not None and show < 1:
        raise ConfigError(f"--show: {show} is no number of rows to show; it must be at least 1")
    config = configure(config_file, ledger, {})
    settings = config.settings
    with open_lookups(config) as lookups:
        mapper = Mapper(settings.mapping, settings.source.key, maps=settings.map, lookups=lookups.tables)
        inputs = find_rows(files, quiet=quiet or json_wanted)
        lookups.load(mapper.asked())
        path = config.ledger_path if config.ledger_path.exists() else None
        found = anyio.run(_check, config, mapper, inputs, path, show or 0)
    code = Exit.BAD_ROWS if found.counts.get("rejected") else Exit.DONE
    if json_wanted:
        previews = {} if show is None else {"show": [preview.as_object() for preview in found.previews]}
        tell(json.dumps(_as_object(found, code) | previews))
        return code
    text = written(found.previews)
    if not quiet or code:
        text += _as_text(found, config, inputs, path, code)
    if text:
        tell(printable(text.rstrip()))
    return code


async def _check(config: Config, mapper: Mapper, inputs: Sequence[Input], ledger: Path | None, show: int) -> _Findings:
    numbers: dict[SourceFile, int] = {}

    async def register(source: SourceFile) -> int:
        return numbers.setdefault(source, -len(numbers) - 1)  # no number of the ledger's own

    found = _Findings(show)
    async with Intake(inputs, config.settings.source, mapper) as intake:
        await intake.check_headers()
        with Survey(ledger, intake.names) as survey:
            async for batch in intake.read(survey, register):
                found.take(batch, intake.names)
    return found


def _as_object(found: _Findings, code: int) -> dict[str, object]:
    return {
        "read": found.read,
        "to_send": found.send,
        **{name: found.counts.get(name, 0) for name in _NOT_SENT},
        "groups": [
            {"code": code_, "reason": reason, "rows": group.rows, "examples": group.examples}
            for (code_, reason), group in _largest_first(found)
        ],
        "exit_code": int(code),
    }


def _as_text(found: _Findings, config: Config, inputs: Sequence[Input], ledger: Path | None, code: int) -> str:
    files = f"{len(inputs)} file{'' if len(inputs) == 1 else 's'}"
    notes = {
        "already_done": f"in ledger {shown(str(ledger))}",
        "duplicate": "the same record again; the first one counts",
        "rejected": f"in {len(found.groups)} group{'s' if len(found.groups) > 1 else ''}"
        if found.groups
        else "by the API, in earlier runs",
        "in_doubt": "in earlier runs; never sent again blindly",
        "changed": "since they were sent; the ledger keeps them as they were",
    }
    lines = [
        f"{found.read:,} rows in {files}. No network used, nothing sent.",
        "",
        f"  {'to send':<14}{found.send:>11,}",
    ]
    lines += [
        f"  {name.replace('_', ' '):<14}{count:>11,}   {notes.get(name, '')}".rstrip()
        for name in _NOT_SENT
        if (count := found.counts.get(name))
    ]
    if found.groups:
        lines.append("")
        for (_, reason), group in _largest_first(found)[:_SHOWN_GROUPS]:
            lines += [f"  {group.rows:>7,}  {reason}", f"           {', '.join(group.examples)}"]
    rate = config.settings.limits.rate_per_second
    lines += ["", f"Plan   {config.settings.api.url} at {rate:g}/s: at least {duration(found.send / rate)}"]
    if found.send:
        words = " ".join(shown(source.name) for source in inputs[:2]) + (" ..." if len(inputs) > 2 else "")  # noqa: PLR2004
        lines.append(f"Next   flex-import run {words}")
    if code:
        lines.append(f"exit {code:d}: {found.counts['rejected']:,} rows would be rejected")
    return "\n".join(lines)


def _largest_first(found: _Findings) -> list[tuple[tuple[str, str], _Group]]:
    return sorted(found.groups.items(), key=lambda item: -item[1].rows)
