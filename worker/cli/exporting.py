"""`export`: the crosswalk, and every other column, streamed out of a ledger."""

import csv
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TextIO

from worker.cli.loading import configure, refuse_no_run
from worker.cli.telling import say
from worker.errors import ConfigError
from worker.ledger.view import COLUMNS, View
from worker.model import Exit
from worker.place import Place
from worker.wording import plural

_BEGINS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that a spreadsheet may take for a formula [OWASP, CSV injection]."""


def export_rows(
    config: Path | None,
    ledger: Place | None,
    *,
    states: Sequence[str],
    run: int | None,
    form: str,
    output: str,
    for_excel: bool,
) -> int:
    """Write the rows of a ledger as CSV or NDJSON, streaming; returns exit code 0.

    for_excel: with a byte-order mark, so that it is read as UTF-8, and without formulas; for people, not for programs.
    Raises ConfigError for an unknown format or a file that cannot be written, LedgerRefusedError without a ledger.
    """
    if for_excel and form != "csv":
        raise ConfigError(f"--for-excel: a spreadsheet opens CSV; leave out --format {form}, or --for-excel")
    if form not in {"csv", "ndjson"}:
        raise ConfigError(f'--format: "{form}" is not one of csv, ndjson')
    if not output:
        raise ConfigError("--output: is empty: is a variable not set?")
    path = configure(config, ledger, {}).ledger_path
    refuse_ledger(output, path)
    with View(path) as view, closing(view.export(states, run)) as rows:
        refuse_no_run(run, view.last_run())
        with opened(output) as stream:
            count = _write(stream, rows, form, for_excel=for_excel)
    if output != "-":
        say(f"{plural(count, 'row')} → {output}")
    return Exit.DONE


def _write(stream: TextIO, rows: Iterable[tuple[Any, ...]], form: str, *, for_excel: bool) -> int:
    """Write the rows in a form and return how many there were."""
    count = 0
    if form == "csv":
        stream.write("\ufeff" * for_excel)
        writer = csv.writer(_Lines(stream), lineterminator="\r\n")
        writer.writerow(COLUMNS)
        for row in rows:
            count += 1
            writer.writerow(_without_formulas(row) if for_excel else row)
    else:
        flag = COLUMNS.index("reconciled")
        for row in rows:
            count += 1
            item = dict(zip(COLUMNS, row, strict=True))
            item["reconciled"] = bool(row[flag])
            stream.write(json.dumps(item, ensure_ascii=False) + "\n")
    return count


class _Lines:
    """Ends lines with a line feed alone. The writer is told otherwise, as only then does it quote a carriage return."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, line: str) -> None:
        self._stream.write(line.removesuffix("\r\n") + "\n")


def _without_formulas(row: Sequence[object]) -> list[object]:
    """Return a row in which a spreadsheet runs nothing: a text that could be a formula is marked as text."""
    return [f"'{cell}" if isinstance(cell, str) and cell.startswith(_BEGINS_A_FORMULA) else cell for cell in row]


def refuse_ledger(output: str, ledger: Place) -> None:
    """An export that replaces the ledger would be the end of every promise."""  # noqa: D401
    if not isinstance(ledger, Path):
        return
    target, kept = os.path.realpath(output), os.path.realpath(ledger)
    if output != "-" and target in {f"{kept}{suffix}" for suffix in ("", "-wal", "-shm", "-journal", ".lock")}:
        raise ConfigError(f"--output: {output}: is the ledger, or belongs to it; name another file")


@contextmanager
def _stdout() -> Iterator[TextIO]:
    """Yield stdout for an export; whoever stops reading, as `| head` does, has what was wanted."""
    if sys.stdout is None:
        raise ConfigError("--output: stdout is closed; name a file")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="strict")  # as in a file, whatever the terminal's is
    try:
        yield sys.stdout
        sys.stdout.flush()
    except BrokenPipeError:
        return
    except OSError as exc:
        raise ConfigError(f"--output: stdout cannot be written: {exc.strerror}") from exc


@contextmanager
def opened(output: str) -> Iterator[TextIO]:
    """Open the output; a file appears under its name only when it is whole."""
    if output == "-":
        with _stdout() as stream:
            yield stream
        return
    given, path = Path(output), Path(os.path.realpath(output))
    if given.exists() and not given.is_file():
        try:
            with given.open("w", encoding="utf-8", newline="") as stream:
                yield stream
        except OSError as exc:
            raise ConfigError(f"--output: {output}: cannot be written: {exc.strerror}") from exc
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("x", encoding="utf-8", newline="") as stream:
            temporary.chmod(0o600)
            yield stream
        temporary.replace(path)
    except OSError as exc:
        raise ConfigError(f"--output: {output}: cannot be written: {exc.strerror}") from exc
    finally:
        temporary.unlink(missing_ok=True)
