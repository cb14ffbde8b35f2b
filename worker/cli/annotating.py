"""`annotate`: the input again, each record with what became of it."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from worker.added import AddedColumns
from worker.cli.loading import configure
from worker.cli.looping import run_loop
from worker.cli.progressing import Progress
from worker.cli.repairing import find_rows
from worker.cli.telling import shown, tell
from worker.cli.wiring import open_lookups, spare_collector
from worker.errors import ConfigError
from worker.intake import check_columns, describe
from worker.ledger.fate import Fates
from worker.model import Exit, Record
from worker.place import Place
from worker.rejects import RecordFile, explained, names_in, part_of, publish
from worker.report import printable
from worker.rules import Ruled, asked, assign
from worker.source import batches, open_reader

ANNOTATED = ("flex_state", "flex_sid", "flex_code", "flex_reason")
"""The columns that say what became of a record. Part of the contract."""

_OPTION = "--output"


@dataclass(frozen=True, slots=True)
class _Annotated:
    """What was written for one input. states: of its records, how many there are of each."""

    name: str
    path: Path
    states: Counter[str] = field(default_factory=Counter)


def annotate_files(
    files: Sequence[str],
    config_file: Path | None,
    ledger: Place | None,
    *,
    output: str,
    profile: str | None,
    quiet: bool,
    json_wanted: bool,
) -> int:
    """Write each input again with what the ledger says of each record; returns exit code 0.

    Raises ConfigError for a folder that cannot be written or has such files, SourceError for an input that cannot be
    read, LedgerRefusedError without a ledger.
    """
    if not output or output == "-" or (os.path.lexists(output) and not Path(output).is_dir()):
        raise ConfigError(f'{_OPTION}: "{output}" is not a directory; name an existing or a new one')
    config = configure(config_file, ledger, {})
    with open_lookups(config) as lookups, Fates(config.ledger_path) as fates:
        found = find_rows(files, quiet=quiet or json_wanted)
        inputs = assign(found, config.settings, lookups.tables, profile)
        lookups.load(asked(inputs))
        spare_collector()
        progress = Progress([source for source, _ in inputs], silent=quiet or json_wanted)
        with explained(Path(output), _OPTION), _Annotator(fates, Path(output)) as annotator, progress:
            written = run_loop(_write_all, inputs, annotator, progress)
    if json_wanted:
        tell(json.dumps([{"source": one.name, "path": str(one.path), "states": one.states} for one in written]))
    elif not quiet:
        tell(printable("\n".join(map(_as_line, written))))
    return Exit.DONE


class _Annotator:
    """Writes inputs into temporary files, and gives those their names once all are whole."""

    def __init__(self, fates: Fates, folder: Path) -> None:
        self._fates = fates
        self._folder = folder
        self._taken: set[str] = set()
        self._parts: list[tuple[Path, Path]] = []

    def __enter__(self) -> Self:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                publish(self._parts, _OPTION)
        finally:
            for part, _ in self._parts:
                part.unlink(missing_ok=True)

    async def write(self, ruled: Ruled, progress: Progress) -> _Annotated:
        """Write one input."""
        given, rules = ruled
        async with AsyncExitStack() as stack:
            reader = await stack.enter_async_context(open_reader(given, rules.source))
            check_columns(reader, rules)
            source = describe(reader, rules.profile)
            done = _Annotated(given.name, self._folder / names_in(source, self._taken)[0])
            number, added = self._fates.number_of(source), AddedColumns(source, ANNOTATED)
            stream = stack.enter_context(part_of(done.path, self._parts, _OPTION).open("wb"))
            out = RecordFile(stream, source._replace(header=added.header))

            def annotate(records: list[Record]) -> None:
                items = [rules.mapper.map(record, number) for record in records]
                for record, fate in zip(records, self._fates.of(items), strict=True):
                    out.put(added.record(record.text, fate))
                    done.states[fate.state] += 1

            async with aclosing(batches(reader, annotate)) as steps:
                async for _ in steps:
                    if progress.due:
                        progress.show(given.name, done.states.total(), reader.offset if reader.stamp else 0)
            out.end()
        return done


async def _write_all(inputs: Sequence[Ruled], annotator: _Annotator, progress: Progress) -> list[_Annotated]:
    return [await annotator.write(ruled, progress) for ruled in inputs]


def _as_line(one: _Annotated) -> str:
    states = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in one.states.most_common())
    return f"{shown(str(one.path))}: {states or 'no records'}"
