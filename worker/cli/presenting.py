"""What `check` prints: one screen of 80 columns that ends with what to type next, or the same as an object."""

import re
import shlex
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from yarl import URL

from worker.cli.forecasting import UNBROKEN, Forecast
from worker.cli.repairing import REPAIR, as_line, patterns_of
from worker.cli.sifting import NOT_SENT, Findings, Group
from worker.cli.telling import masked, shown
from worker.config import is_loopback
from worker.headcount import CAP, NON_CHAT_CAP, Channels
from worker.ledger import SourceFile
from worker.model import Exit
from worker.place import Place
from worker.rejects import Written
from worker.report import duration, next_lines, printable, tolerable
from worker.wording import NOTHING_GIVEN, Given, plural

_COLUMNS = 80
_INDENT = 7
_NAME, _FIELD = 26, 18
"""How wide a column may become."""

_SHOWN_FILES, _SHOWN_GROUPS, _SHOWN_WARNINGS, _SHOWN_WORDS = 20, 20, 10, 10
_WHOLE = {"malformed": "record", "key_conflict": "source.key"}
"""Code → what stands in the column of fields where a reason names none."""

_NOTES = {
    "closed": "by undo, in earlier runs; retry --state closed frees them",
    "duplicate": "the same record again; the first one counts",
    "parked": "by the API, in earlier runs",
    "waived": "in earlier runs",
    "in_doubt": "in earlier runs; never sent again blindly",
    "changed": "since they were sent; the ledger keeps them as they were",
}


@dataclass(frozen=True, slots=True)
class File:
    """One input as it was read. name: as it was given. key: the template of its keys, "" for a digest."""

    name: str
    rows: int
    source: SourceFile
    compression: str
    key: str


@dataclass(frozen=True, slots=True)
class Checked:
    """All that a check has to say.

    words: of the command line, the files and then the options that a run needs too, and with them what was `given`.
    ledger: None when there is none. folder and written: where the rejects went, and what; None without. fix: a folder
    for rejects that does not exist yet.
    """

    findings: Findings
    files: Sequence[File]
    channels: Channels
    non_chat: Channels
    forecast: Forecast
    seconds: float
    words: tuple[Sequence[str], Sequence[str]]
    account: str | None
    ledger: Place | None
    folder: str | None
    written: Sequence[Written]
    given: Given = NOTHING_GIVEN
    fix: str = "fix/"

    @property
    def exit_code(self) -> Exit:
        """Whether all rows are well, or as many as `exit.tolerate_ratio` wants."""
        rows, ratio = sum(self.findings.read.values()), self.forecast.settings.exit.tolerate_ratio
        return Exit.DONE if tolerable(self.findings.rejected, rows, ratio) else Exit.BAD_ROWS


# ---- for programs ---------------------------------------------------------------------------------------------------


def as_object(checked: Checked) -> dict[str, object]:
    """Return what `check --json` prints."""
    found, channels = checked.findings, checked.channels
    told: dict[str, object] = {
        "read": sum(found.read.values()),
        "to_send": found.send,
        **{name: found.counts.get(name, 0) for name in NOT_SENT},
        "elapsed_seconds": round(checked.seconds, 3),
        "files": [_file(file) for file in checked.files],
        "channels": channels.number,
        "crowded": _crowded(channels, CAP),
        "crowded_non_chat": _crowded(checked.non_chat, NON_CHAT_CAP),
        "groups": [
            {"id": short, "code": code, "reason": reason, **group.as_object()}
            for short, code, reason, group in found.largest_first()
        ],
        "warnings": [{"warning": text, **group.as_object()} for text, group in _warnings(found)],
        **checked.forecast.as_object(),
        "exit_code": int(checked.exit_code),
    }
    if checked.folder is not None:
        told["rejects"] = [
            {"source": one.source.path, "path": str(one.path), "reasons": str(one.reasons), "records": one.records}
            for one in checked.written
        ]
    return told


def _crowded(channels: Channels, cap: int) -> dict[str, object]:
    return {
        "participants": cap,
        "channels": channels.crowded,
        "rows_beyond": channels.beyond,
        "fullest": channels.fullest if channels.crowded else None,
        "rows_of_fullest": channels.most if channels.crowded else 0,
    }


def _file(file: File) -> dict[str, object]:
    source = file.source
    return {
        "name": file.name,
        "rows": file.rows,
        "format": source.format,
        "encoding": source.encoding,
        "delimiter": source.delimiter or None,
        "compression": file.compression or None,
        "profile": source.profile or None,
        "key": file.key or "digest",
    }


# ---- for people -----------------------------------------------------------------------------------------------------


def as_text(checked: Checked) -> str:
    """Return the screen."""
    found, code = checked.findings, checked.exit_code
    rows = sum(found.read.values())
    head = f"{plural(rows, 'row')} in {plural(len(checked.files), 'file')}, read in {duration(checked.seconds)}."
    lines = [f"{head} No network used, nothing sent.", ""]
    lines += [*_file_lines(checked), "", *_count_lines(checked)]
    if found.groups:
        lines += ["", *_group_lines(found)]
    if warnings := _warning_lines(checked):
        lines += ["", *warnings]
    if checked.written:
        lines += ["", *map(as_line, checked.written), "", REPAIR]
    elif checked.folder is not None:
        lines += ["", "nothing is rejected: no files were made"]
    lines += ["", *_plan_lines(checked)]
    if commands := _commands(checked):
        lines += ["", *next_lines(commands)]
    if found.rejected:
        within = "" if code else ", no more than exit.tolerate_ratio"
        lines.append(f"exit {code:d}: {plural(found.rejected, 'row')} would be rejected{within}")
    return "\n".join(lines)


def _plan_lines(checked: Checked) -> list[str]:
    zone = f", times in {checked.forecast.timetable.zone}" if checked.forecast.settings.limits.timetable else ""
    account = masked(checked.account)
    host = URL(checked.forecast.settings.api.url).host_port_subcomponent
    target = f"{account}{' at ' if account else ''}{host}{zone}"
    lines = _block("Plan", [target, *checked.forecast.plan_lines()])
    return lines + _block("Doubt", checked.forecast.doubt_lines()) if checked.findings.send else lines


def _clean(text: str) -> str:
    """Return data for a line of ours: what it steers or breaks is made visible first, as that changes its width."""
    return printable(text.replace("\n", "\\n"))


def _clipped(text: str, width: int) -> str:
    """Return the end of a text, which tells more than its beginning."""
    return text if len(text) <= width else f"…{text[1 - width :]}"


def _file_lines(checked: Checked) -> list[str]:
    files = checked.files[:_SHOWN_FILES]
    names = [_clipped(_clean(shown(file.name)), _NAME) for file in files]
    facts = [
        (
            f"profile {file.source.profile or '-'}" if any(one.source.profile for one in checked.files) else "",
            file.source.encoding,
            f"csv {_clean({chr(9): 'tab'}.get(file.source.delimiter, file.source.delimiter))}"
            if file.source.format == "csv"
            else "ndjson",
            file.compression,
            f"key {_clean(file.key) or 'digest'}",
        )
        for file in files
    ]
    widths = [max(map(len, column)) for column in zip(*facts, strict=True)]
    width = max(14, *map(len, names))
    lines = []
    for file, name, told in zip(files, names, facts, strict=True):
        cells = "  ".join(f"{fact:<{wide}}" for fact, wide in zip(told, widths, strict=True) if wide)
        line = f"  {name:<{width}}{file.rows:>11,}  {cells}".rstrip()
        lines.append(line if len(line) <= _COLUMNS else f"{line[: _COLUMNS - 1]}…")
    if more := len(checked.files) - len(files):
        lines.append(f"  and {plural(more, 'more file')}")
    return lines


def _count_lines(checked: Checked) -> list[str]:
    found = checked.findings
    here = sum(group.rows for group in found.groups.values())
    groups = f"in {plural(len(found.groups), 'group')}" if found.groups else ""
    before = f"{found.rejected - here:,} by the API, in earlier runs" if found.rejected > here else ""
    ledger = _clean(shown(str(checked.ledger))) if checked.ledger else ""
    notes = {
        **_NOTES,
        "already_done": f"in ledger {ledger}",
        "rejected": "; ".join(filter(None, [groups, before])),
    }
    counts = [("to_send", found.send, f"in {plural(checked.channels.number, 'channel')}")]
    counts += [(name, count, notes[name]) for name in NOT_SENT if (count := found.counts.get(name))]
    return [f"  {name.replace('_', ' '):<14}{count:>11,}  {note}".rstrip() for name, count, note in counts]


def _group_lines(found: Findings) -> list[str]:
    groups = found.largest_first()
    told = [
        (short, f"{group.rows:,}", *_parted(code, reason, group), ", ".join(map(_clean, group.examples)))
        for short, code, reason, group in groups[:_SHOWN_GROUPS]
    ]
    heads = ("ID", "ROWS", "FIELD", "PROBLEM, AND WHERE", "")
    ids, rows, fields, *_ = (max(map(len, column)) for column in zip(heads, *told, strict=True))
    indent = " " * (8 + ids + rows + fields)
    lines = []
    for short, count, field, problem, places in (heads, *told):
        start = f"  {short:<{ids}}  {count:>{rows}}  {field:<{fields}}  "
        for text, begins in ((problem, start), (places, indent)):
            lines += textwrap.wrap(
                text,
                _COLUMNS,
                initial_indent=begins,
                subsequent_indent=indent,
                break_long_words=len(indent) + len(text.split(" ")[0]) <= _COLUMNS,
                break_on_hyphens=False,
            )
    if more := len(groups) - len(told):
        lines.append(f"  and {plural(more, 'more group')}; --json has all of them")
    return lines


def _parted(code: str, reason: str, group: Group) -> tuple[str, str]:
    """Return the field that a reason begins with, and what is wrong with it."""
    field, problem, others = _WHOLE.get(code, ""), reason, 0
    if not field:
        first, *rest = reason.split("; ")
        others = sum(": " in one for one in rest)
        field, colon, problem = (first if others else reason).partition(": ")
        if not colon:
            field, problem = _WHOLE["malformed"], reason
    field, *more = re.split(", | and ", field)  # one value may break several fields
    field += f" +{len(more)}" if more else ""
    field, problem = _clean(field), _clean(problem) + (f"; +{others} more" if others else "")
    if group.detail:
        problem += f" ({_clean(group.detail)})"
    if len(field) > _FIELD and "." in field:
        field = f"…{field.rpartition('.')[2]}"
    return _clipped(field, _FIELD), problem


def _warnings(found: Findings) -> list[tuple[str, Group]]:
    return sorted(found.warnings.items(), key=lambda item: -item[1].rows)


def _warning_lines(checked: Checked) -> list[str]:
    warnings = _warnings(checked.findings)
    told = [
        f"{plural(channels.crowded, 'channel')} get{'s' * (channels.crowded == 1)} more than {cap} {whom} "
        f"({plural(channels.beyond, 'row')}, may be {code}); {channels.fullest} gets {channels.most:,}"
        for channels, cap, whom, code in (
            (checked.channels, CAP, "participants", "50417"),
            (checked.non_chat, NON_CHAT_CAP, "non-chat participants", "50418"),
        )
        if channels.crowded
    ]
    told += [
        f"{_clean(text)}: {plural(group.rows, 'row')}, first {_clean(group.examples[0])}"
        for text, group in warnings[:_SHOWN_WARNINGS]
    ]
    if more := len(warnings) - _SHOWN_WARNINGS:
        told += [f"and {plural(more, 'more kind')}; --json has all of them"] * (more > 0)
    return [line for text in told for line in _folded(f"  warning: {text}", 11)]


def _folded(text: str, indent: int) -> list[str]:
    lines = textwrap.wrap(text, _COLUMNS, subsequent_indent=" " * indent, break_on_hyphens=False)
    return [line.replace(UNBROKEN, " ") for line in lines]


def _block(name: str, lines: Sequence[str]) -> list[str]:
    told = [folded for line in lines for folded in _folded(" " * _INDENT + line, _INDENT)]
    return [f"{name:<{_INDENT}}{told[0].lstrip()}", *told[1:]]


def _commands(checked: Checked) -> list[tuple[str, str]]:
    """Return what to type next, each with what it is for."""
    found, (files, options) = checked.findings, checked.words
    here = sum(group.rows for group in found.groups.values())
    type_next, settings = checked.given.command, checked.forecast.settings
    options = [*map(shlex.quote, options)]
    typed = [*map(shlex.quote, files), *options]
    first = checked.ledger is None and not is_loopback(URL(settings.api.url).host or "")
    sending = [*(["--new-ledger"] * first), *(["--wait"] * bool(settings.limits.timetable))]
    commands = []
    if checked.written:
        words = [patterns_of(checked.folder or "", checked.written), *options, *sending]
        commands.append((type_next("run", *words), f"the {here:,}, repaired"))
        sending = [word for word in sending if word != "--new-ledger"]  # the first of the two has made it
    elif here and len(files) <= _SHOWN_WORDS:
        commands.append((type_next("check", *typed, f"--rejects {checked.fix}"), f"the {here:,} to repair"))
    if found.send and len(files) <= _SHOWN_WORDS:
        commands.append((type_next("run", *typed, *sending), f"send the {found.send:,}"))
    elif found.send:
        commands.append((f"the same {len(files):,} files with run instead of check", f"send the {found.send:,}"))
    return commands
