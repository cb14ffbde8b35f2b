"""`check`: the whole input, row by row, without a network."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from worker.cli.forecasting import forecast
from worker.cli.loading import configure, new_folder
from worker.cli.looping import run_loop
from worker.cli.presenting import Checked, File, as_object, as_text
from worker.cli.previewing import written
from worker.cli.progressing import Progress
from worker.cli.repairing import find_rows, refuse_no_folder
from worker.cli.sifting import Findings
from worker.cli.telling import tell
from worker.cli.wiring import open_lookups, spare_collector
from worker.errors import ConfigError
from worker.headcount import Channels, Headcount
from worker.intake import Intake
from worker.ledger import SourceFile
from worker.ledger.opening import exists
from worker.ledger.survey import Survey
from worker.place import Place
from worker.rejects import Spool, Written, write_rejects
from worker.report import printable
from worker.rules import Ruled, asked, assign
from worker.scratch import scratch


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asks of a check.

    show: how many of the rows that would be sent are printed, with their values, even when quiet. rejects: the folder
    for the records that would be rejected. profile: the one for all files. rate: that of the plan.
    """

    show: int | None = None
    rejects: str | None = None
    profile: str | None = None
    strict: bool = False
    quiet: bool = False
    json_wanted: bool = False
    rate: str | None = None


@dataclass(frozen=True, slots=True)
class _Read:
    """What reading came to."""

    findings: Findings
    files: Sequence[File]
    channels: Channels
    non_chat: Channels
    written: Sequence[Written]


def check_files(files: Sequence[str], config_file: Path | None, ledger: Place | None, wish: Wish) -> int:
    """Look at every row and print what a run would do; returns 0, or 1 when rows would be rejected.

    Raises WorkerError for what would stop a run before anything is sent.
    """
    if wish.show is not None and wish.show < 1:
        raise ConfigError(f"--show: {wish.show} is no number of rows to show; it must be at least 1")
    if wish.rejects is not None:
        refuse_no_folder(wish.rejects)
    began = time.monotonic()
    source, limits = {"strict": wish.strict or None}, {"rate_per_second": wish.rate}
    config = configure(config_file, ledger, {"source": source, "limits": limits})
    path = config.ledger_path if exists(config.ledger_path) else None
    with open_lookups(config) as lookups:
        found = find_rows(files, quiet=wish.quiet or wish.json_wanted)
        inputs = assign(found, config.settings, lookups.tables, wish.profile)
        lookups.load(asked(inputs))
        spare_collector()
        read = run_loop(_read, inputs, path, wish, config.settings.source.min_rows)
    options = [
        *(["--profile", wish.profile] if wish.profile is not None else []),
        *(["--strict"] if wish.strict else []),
        *(["--rate", wish.rate] if wish.rate is not None else []),
    ]
    checked = Checked(
        read.findings,
        read.files,
        read.channels,
        read.non_chat,
        forecast(config.settings, read.findings.send, read.channels.number, datetime.now().astimezone()),
        time.monotonic() - began,
        (files, options),
        os.environ.get("TWILIO_ACCOUNT_SID"),
        path,
        wish.rejects,
        read.written,
        config.given,
        new_folder(),
    )
    _print(checked, wish)
    return checked.exit_code


def _print(checked: Checked, wish: Wish) -> None:
    previews = checked.findings.previews
    if wish.json_wanted:
        shown = {} if wish.show is None else {"show": [preview.as_object() for preview in previews]}
        tell(json.dumps(as_object(checked) | shown))
        return
    text = written(previews)
    if not wish.quiet or checked.exit_code:
        text += as_text(checked)
    if text:
        tell(printable(text.rstrip()))


async def _read(inputs: Sequence[Ruled], ledger: Place | None, wish: Wish, min_rows: int) -> _Read:
    numbers: dict[SourceFile, int] = {}
    keys = {rules.profile: rules.source.key for _, rules in inputs}
    found = Findings(wish.show or 0)
    with scratch("the input's channels and rejected records") as connection:
        headcount = Headcount(connection)
        spool = Spool(connection) if wish.rejects is not None else None
        progress = Progress([source for source, _ in inputs], silent=wish.quiet or wish.json_wanted)
        async with Intake(inputs, min_rows) as intake:
            await intake.check_headers()
            with Survey(ledger, intake.names) as survey, progress:

                async def register(source: SourceFile) -> int:
                    # the ledger's own number makes what is done known at once; another one is none of its numbers
                    return numbers.setdefault(source, survey.number_of(source) or -len(numbers) - 1)

                async for batch in intake.drafts(survey, register):
                    found.take(batch, intake.names)
                    headcount.add(batch.send)
                    if spool:
                        spool.add(batch.findings)
                    if progress.due:
                        progress.show(intake.names[batch.source], sum(found.read.values()), intake.bytes_read)
        sources = {number: source for source, number in numbers.items()}
        files = [
            File(
                intake.names[number],
                found.read.get(number, 0),
                source,
                intake.compressions[number],
                keys[source.profile],
            )
            for number, source in sources.items()
        ]
        rejected = write_rejects(Path(wish.rejects or ""), spool.rejects(), sources.__getitem__) if spool else []
        return _Read(found, files, headcount.channels(), headcount.non_chat(), rejected)
