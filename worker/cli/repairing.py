"""`export --rejects`, and how its folder is read when it is given to `run` or `check`."""

import os
import shlex
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from worker.cli.loading import configure, refuse_no_run
from worker.cli.telling import say, shown, tell
from worker.errors import ConfigError, SourceError
from worker.ledger.view import View
from worker.model import Exit
from worker.place import Place
from worker.rejects import REASONS, REASONS_SUFFIX, Written, write_rejects
from worker.report import printable
from worker.source import Input, find_inputs
from worker.wording import Given, plural

REPAIR = f"Repair  these records; what is wrong with each stands beside them, in *{REASONS_SUFFIX}"

_NAMED_ROWS = 3


def export_rejects(
    config: Path | None, ledger: Place | None, *, folder: str, run: int | None, with_reasons: bool = False
) -> int:
    """Write the records that wait for a repair into a folder, as they were; returns exit code 0.

    with_reasons: with columns that say what is wrong, and tie a repaired record to what it repairs.
    Raises ConfigError for a folder that is none, cannot be written or has such files, LedgerRefusedError without a
    ledger.
    """
    refuse_no_folder(folder)
    found = configure(config, ledger, {})
    with View(found.ledger_path) as view, closing(view.rejects(run)) as rejects:
        refuse_no_run(run, view.last_run())
        written = write_rejects(Path(folder), rejects, view.source, with_reasons=with_reasons)
    tell(printable("\n".join(_lines(folder, written, found.given))))
    return Exit.DONE


def refuse_no_folder(folder: str) -> None:
    """Raise ConfigError for what cannot be the folder of `--rejects`."""
    if not folder:
        raise ConfigError("--rejects: is empty: is a variable not set?")
    if folder == "-" or (os.path.lexists(folder) and not Path(folder).is_dir()):
        raise ConfigError(f"--rejects: {folder}: is no folder; name one, or one that is to be made")


def _lines(folder: str, written: Sequence[Written], given: Given) -> list[str]:
    if not written:
        return ["nothing is rejected, parked or failed: no files were made"]
    lines = [as_line(one) for one in written]
    if failed := sum(one.failed for one in written):
        lines += ["", f"{failed:,} of them failed: the next run sends those again as they are; do not change them"]
    if missing := sum(one.missing for one in written):
        places = [f"{shown(one.source.path)}:{line}" for one in written for line in one.missing_lines]
        more = ", …" if missing > len(places[:_NAMED_ROWS]) else ""
        lines += [
            "",
            f"{plural(missing, 'row')} skipped: their records have been pruned; the reasons still list them:",
            f"{', '.join(places[:_NAMED_ROWS])}{more}",
        ]
    if patterns := patterns_of(folder, written):
        lines += ["", REPAIR, f"Next    {given.command('run', patterns)}"]
    return lines


def patterns_of(folder: str, written: Sequence[Written]) -> str:
    """Return the words that mean all files of records in the folder, for a command; "" when there are none."""
    suffixes = sorted({one.path.suffix for one in written if one.path})
    return " ".join(f"{shlex.quote(str(Path(folder)))}/*{suffix}" for suffix in suffixes)


def as_line(one: Written) -> str:
    """Return what was written for one input, for a person."""
    rows = plural(one.records, "row")
    source = "stdin" if one.source.path == "-" else shown(one.source.path)
    return f"{rows:>14}  {shown(str(one.path or one.reasons))}   of {source}"


def find_rows(files: Sequence[str], *, quiet: bool) -> list[Input]:
    """Return the inputs, as `find_inputs` does, without the reasons that `export --rejects` puts beside its files.

    So `run fix/*.csv` means the records. Says what is left out, unless quiet. Raises SourceError.
    """
    found = find_inputs(files)
    reasons = [one for one in found if _holds_reasons(one)]
    rows = [one for one in found if one not in reasons]
    if not rows:
        raise SourceError(f"{reasons[0].name}: holds reasons, not rows; name the file that it stands beside")
    if reasons and not quiet:
        more = f" and {len(reasons) - 1:,} more" if reasons[1:] else ""
        say(f"left out: {shown(reasons[0].name)}{more}: reasons of `export --rejects`, not rows")
    return rows


def _holds_reasons(source: Input) -> bool:
    if source.path is None or not source.path.name.endswith(REASONS_SUFFIX):
        return False
    head = ",".join(REASONS).encode()
    with suppress(OSError), source.path.open("rb") as stream:  # whoever reads it next says what is wrong with it
        return stream.read(len(head) + 1).rstrip() == head
    return False
