"""`rehearse`: a sample of the user's own files against a private service that is unkind, killed in the middle.

The import is the real command in processes of its own, on a ledger that is thrown away; nothing leaves this machine.
"""

import os
import shlex
import signal
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import anyio
from anyio.abc import Process

from worker.cli.emulating import behave
from worker.cli.forecasting import forecast
from worker.cli.loading import configure
from worker.cli.looping import run_loop
from worker.cli.progressing import Line
from worker.cli.repairing import find_rows
from worker.cli.telling import tell
from worker.cli.wiring import open_lookups
from worker.cluster import Cluster
from worker.config import Config
from worker.emulator import Behaviour, Emulator, serve
from worker.errors import ConfigError
from worker.ledger import SourceFile
from worker.ledger.view import COLUMNS, Reject, View
from worker.model import Exit
from worker.rejects import write_rejects
from worker.report import next_lines, printable
from worker.rules import Ruled, asked, assign
from worker.source import Reader, count

_RATE = 150
_ALLOWED_RATE = 120
_ALLOWED_AT_ONCE = 14
_FAULTS = 0.02
_KILL_AT = 0.4
"""After so much of the sample was made, the first process is killed."""

_FRAME_SECONDS = 0.25
_SHOWN_GROUPS = 5
_COLUMNS = 80
_BAD = (Exit.USAGE, Exit.HALTED, Exit.HELD, Exit.BUG)

_SETTINGS = {
    # what is the real import's own business, or would make an unkind service a slow one
    "API__PROXY": "",
    "API__READ_TIMEOUT_SECONDS": "3",
    "DOUBT__SETTLE_SECONDS": "2",
    "LIMITS__LIST_RATE_PER_SECOND": "inf",
    "LOG__FILE": "",
    "SOURCE__MIN_ROWS": "0",
}


@dataclass(frozen=True, slots=True)
class _Rehearsed:
    """What came of it. rows: in all of the input; sampled: of them in the sample.

    cut: rows in flight at the kill, None when it was done before. counts: state → rows at the end; made: participants
    in the service; twice, lost: of them, what must not be.
    """

    rows: int
    sampled: int
    killed_after: int
    cut: int | None
    code: int
    counts: Mapping[str, int]
    groups: Sequence[Cluster]
    made: int
    twice: int
    lost: int
    faults: int
    throttled: int

    @property
    def exit_code(self) -> int:
        """What the import would have ended with; a promise that was not kept is a bug."""
        return Exit.BUG if self.twice or self.lost else self.code


def rehearse_files(
    files: Sequence[str], config_file: Path | None, rows: int, profile: str | None, *, quiet: bool
) -> int:
    """Rehearse an import with a sample of its files and print what came of it; returns the import's exit code.

    Raises ConfigError for what cannot be rehearsed, SourceError for what cannot be read.
    """
    if rows < 1:
        raise ConfigError(f"--rows: {rows} is no number of rows; it must be at least 1")
    config = configure(config_file, None, {})
    with open_lookups(config) as lookups, tempfile.TemporaryDirectory(prefix="flex-import-rehearsal-") as name:
        inputs = assign(find_rows(files, quiet=quiet), config.settings, lookups.tables, profile)
        lookups.load(asked(inputs))
        if any(source.path is None for source, _ in inputs):
            raise ConfigError("rehearse: stdin cannot be rehearsed, as it is read twice; name a file")
        words = [*(["--config", str(config.path)] if config.path else []), *(["--profile", profile] if profile else [])]
        found = run_loop(_rehearse, inputs, rows, Path(name), words, Line(silent=quiet))
    if not quiet or found.exit_code:
        typed = [*map(shlex.quote, files), *(["--profile", shlex.quote(profile)] if profile else [])]
        tell(printable("\n".join(_lines(found, config, typed))))
    return found.exit_code


# ---- the sample -----------------------------------------------------------------------------------------------------


async def _sample(inputs: Sequence[Ruled], wanted: int, folder: Path) -> tuple[int, list[Path]]:
    """Write records from all over the inputs, as they stand there; returns the rows of the inputs, and the files."""
    counts = [(await count(source, rules.source)).records for source, rules in inputs]
    step = max(1.0, sum(counts) / wanted)
    paths = []
    for source, rules in inputs:
        with Reader(source, rules.source) as reader:
            place = str((source.path or Path()).absolute())
            mark = reader.byte_order_mark.hex()
            described = SourceFile(
                place, reader.format, reader.encoding, reader.delimiter, reader.header, byte_order_mark=mark
            )
            # under its whole path, by which a profile may know it
            inside = folder / Path(*Path(place).parent.parts[1:])
            written = write_rejects(inside, _every(reader, step), lambda _, one=described: one)  # type: ignore[misc]
            paths += [one.path for one in written if one.path]
    return sum(counts), paths


def _every(reader: Reader, step: float) -> Iterator[Reject]:
    """Yield the first record, and then one in `step`."""
    place, due = 0, 0.0
    for batch in reader:
        for record in batch:
            if place >= due:
                due += step
                yield Reject(1, record.line, None, "", "sampled", "", "", record.text)
            place += 1


# ---- the import -----------------------------------------------------------------------------------------------------


async def _rehearse(inputs: Sequence[Ruled], wanted: int, folder: Path, words: Sequence[str], line: Line) -> _Rehearsed:
    rows, paths = await _sample(inputs, wanted, folder / "sample")
    ledger = folder / "rehearsal.db"
    emulator = Emulator(_unkind())
    async with serve(emulator) as base_url:
        command = [
            *(sys.executable, "-m", "worker", "run", *map(str, paths), "--base-url", base_url),
            *("--ledger", str(ledger), "--rate", str(_RATE), "--ignore-timetable", "-q", *words),
        ]
        sampled = min(rows, wanted)
        async with anyio.create_task_group() as aside:
            aside.start_soon(_show, emulator, sampled, line)
            killed_after, cut = await _kill_in_the_middle(command, emulator, sampled, ledger)
            code = await _finish(command)
            aside.cancel_scope.cancel()
    with View(ledger) as view:
        counts, groups = view.counts(), view.clusters()
        place = COLUMNS.index("sid")
        known = {row[place] for row in view.export(("created",))}
    made = set(emulator.truth.participants)
    unknown = len(made - known) - counts.get("in_doubt", 0)
    stats = emulator.stats
    return _Rehearsed(
        rows,
        sampled,
        killed_after,
        cut,
        code,
        counts,
        groups,
        len(made),
        max(0, unknown),
        len(known - made),
        sum(stats.faults.values()),
        stats.throttled,
    )


def _unkind() -> Behaviour:
    """Return a service that throttles, and lets clients down in all ways it knows."""
    kind: dict[str, Any] = {"latency_seconds": 0.02, "latency_jitter_seconds": 0.06, "hang_seconds": 5.0}
    ways = behave(0.0, _ALLOWED_RATE, _ALLOWED_AT_ONCE, _FAULTS)
    return Behaviour(
        rate_per_second=ways.rate_per_second,
        concurrency=ways.concurrency,
        faults_before=ways.faults_before,
        faults_after=ways.faults_after,
        **kind,
    )


def _environment() -> dict[str, str]:
    """Return what the import is to find: no credentials of anybody's, and nothing that waits for a real service."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TWILIO_")}
    settings = {f"FLEX_IMPORT__{name}": value for name, value in _SETTINGS.items()}
    return {**kept, **settings, "TWILIO_ACCOUNT_SID": "AC" + "0" * 32, "TWILIO_AUTH_TOKEN": "rehearsal"}


async def _start(command: Sequence[str]) -> Process:
    return await anyio.open_process(command, stdin=DEVNULL, stdout=DEVNULL, stderr=None, env=_environment())


async def _kill_in_the_middle(
    command: Sequence[str], emulator: Emulator, rows: int, ledger: Path
) -> tuple[int, int | None]:
    """Start the import and kill it; returns after how many rows, and how many were in flight by its ledger."""
    goal = _KILL_AT * rows
    async with await _start(command) as process, anyio.create_task_group() as waiting:

        async def end_waiting() -> None:
            await process.wait()
            waiting.cancel_scope.cancel()

        waiting.start_soon(end_waiting)
        await emulator.until(lambda: emulator.stats.created >= goal)
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
    if process.returncode != -signal.SIGKILL:
        return emulator.stats.created, None
    with View(ledger) as view:
        return emulator.stats.created, sum(one.rows for one in view.clusters() if one.code == "crash")


async def _finish(command: Sequence[str]) -> int:
    async with await _start(command) as process:
        return await process.wait()


async def _show(emulator: Emulator, rows: int, line: Line) -> None:
    try:
        while True:
            line.draw(f"rehearsing: {emulator.stats.created:,} participants made of {rows:,} rows")
            await anyio.sleep(_FRAME_SECONDS)
    finally:
        line.clear()


def _group(one: Cluster) -> list[str]:
    """Return a group without its places, which are those of the sample."""
    start = f"  {one.rows:>9,}  {one.state.replace('_', ' '):<9} "
    return textwrap.wrap(one.why, _COLUMNS, initial_indent=start, subsequent_indent=" " * len(start))


# ---- what is told ---------------------------------------------------------------------------------------------------


def _lines(found: _Rehearsed, config: Config, words: Sequence[str]) -> list[str]:
    lines = [
        f"Rehearsed with {found.sampled:,} of {found.rows:,} rows, on this machine, with a service that throttled",
        f"{found.throttled:,} requests and let {found.faults:,} others down. Nothing else was sent anywhere.",
        "",
    ]
    if found.code in _BAD:
        return [*lines, f"The import ended with exit {found.code}: what it said stands above."]
    lines += [f"  {state.replace('_', ' '):<12}{rows:>9,}" for state, rows in found.counts.items()]
    if found.cut is None:
        lines.append("  crash        none: it was done before it could be killed")
    else:
        cut = f"with {found.cut:,} in flight, and run again"
        lines.append(f"  crash        killed after {found.killed_after:,} rows {cut}")
    lines.append(f"  made twice {found.twice:>9,}   the service has {found.made:,} participants")
    lines.append(f"  lost       {found.lost:>9,}")
    if found.groups:
        lines += ["", *(line for one in found.groups[:_SHOWN_GROUPS] for line in _group(one))]
    bad = found.counts.get("rejected", 0)
    fit = round(found.rows * (1 - bad / found.sampled)) if found.sampled else 0
    plan = forecast(config.settings, fit, 0, datetime.now().astimezone()).plan_lines()
    lines += ["", f"Time   the whole input, some {fit:,} rows:", *(f"       {line}" for line in plan)]
    type_next = config.given.command
    lines += ["", *next_lines([(type_next("check", *words), "every row, not just these"), (type_next("doctor"), "")])]
    return [*lines, f"exit {found.exit_code:d}: {Exit(found.exit_code).meaning}"]
