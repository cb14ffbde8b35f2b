"""`enqueue`: files are checked, mapped and compared here, and queued for the workers of a fleet."""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial

import anyio.to_thread

from worker.cli.looping import run_loop
from worker.cli.repairing import find_rows
from worker.cli.telling import say, shown, tell
from worker.cli.together import open_fleet, server_in
from worker.cli.wiring import (
    LedgerChoice,
    binding_of,
    bound,
    credentials_for,
    open_lookups,
    provide_ledger,
    spare_collector,
)
from worker.config import Config
from worker.intake import Intake
from worker.ledger import SourceFile
from worker.ledger.fleet import FleetLedger
from worker.ledger.queue import Filling
from worker.ledger.survey import Survey, Surveyed
from worker.model import Exit, Row
from worker.pipeline import WHOLE_INPUT
from worker.report import next_lines
from worker.rules import Ruled, asked, assign
from worker.wording import plural


@dataclass(slots=True)
class Queued:
    """What became of an input's rows. queued: they are in the queue now. known: they already were.

    failed: rows that failed before and are queued once more, whatever the input. chunks: how many were handed out.
    """

    run: int
    input_rows: int | None
    read: int = 0
    queued: int = 0
    known: int = 0
    already_done: int = 0
    closed: int = 0
    duplicate: int = 0
    rejected: int = 0
    parked: int = 0
    waived: int = 0
    in_doubt: int = 0
    changed: int = 0
    repaired: int = 0
    warned: int = 0
    failed: int = 0
    chunks: int = 0

    @property
    def holds(self) -> bool:
        """Whether every row that was read is somewhere."""
        places = (self.queued, self.known, self.already_done, self.closed, self.duplicate, self.rejected)
        return self.read == sum(places) + self.parked + self.waived + self.in_doubt

    @property
    def exit_code(self) -> Exit:
        """As of a run: 1 when rows need a repair."""
        if not self.holds:
            return Exit.BUG
        if self.closed:
            return Exit.DOUBT
        return Exit.BAD_ROWS if self.rejected or self.parked else Exit.DONE


def enqueue_files(
    files: Sequence[str], config: Config, choice: LedgerChoice, *, profile: str | None, quiet: bool, json_wanted: bool
) -> int:
    """Queue files and print the account; returns the exit code. Raises WorkerError for what stops it."""
    server = server_in(config)
    with open_lookups(config) as lookups:
        inputs = assign(find_rows(files, quiet=quiet or json_wanted), config.settings, lookups.tables, profile)
        lookups.load(asked(inputs))
        spare_collector()
        binding = binding_of(config, credentials_for(config), inputs)
        provide_ledger(config, choice)
        ledger = bound(open_fleet(server), binding, choice)
        try:
            with closing(Filling(server)) as filling:
                found = run_loop(_fill, config, inputs, ledger, filling)
        finally:
            ledger.close()
    if json_wanted:
        tell(json.dumps(asdict(found) | {"identity_holds": found.holds, "exit_code": found.exit_code}))
    elif not quiet or found.exit_code is not Exit.DONE:
        tell(_as_text(found, config))
    return found.exit_code


async def _fill(config: Config, inputs: Sequence[Ruled], ledger: FleetLedger, filling: Filling) -> Queued:
    async with Intake(inputs, config.settings.source.min_rows) as intake:
        found = Queued(ledger.start_run("enqueue"), await intake.count())
        try:
            found.failed = await anyio.to_thread.run_sync(filling.resume)
            before = filling.queued, filling.known

            async def register(source: SourceFile) -> int:
                return await anyio.to_thread.run_sync(partial(ledger.register, source))

            sources: set[int] = set()
            with Survey(ledger.path, intake.names) as survey:
                async for batch in intake.rows(survey, register):
                    sources.add(batch.source)
                    await anyio.to_thread.run_sync(partial(_put, ledger, filling, batch))
                    _count(found, batch)
            await anyio.to_thread.run_sync(filling.finish)
            for source in sources:
                await anyio.to_thread.run_sync(partial(ledger.supersede, source, WHOLE_INPUT))
            found.queued, found.known = filling.queued - before[0], filling.known - before[1]
            found.chunks = filling.chunks
        except BaseException:
            say("what was queued so far is handed out by the same command again")
            raise
        ledger.end_run(found.exit_code, "queued", json.dumps(asdict(found)))
        return found


def _put(ledger: FleetLedger, filling: Filling, batch: Surveyed[Row]) -> None:
    if batch.findings or batch.repairs:
        ledger.write([*batch.findings, *batch.repairs])
    filling.put(batch.send)


def _count(found: Queued, batch: Surveyed[Row]) -> None:
    found.read += batch.read
    for name, count in batch.counts.items():
        setattr(found, name, getattr(found, name) + count)


def _as_text(found: Queued, config: Config) -> str:
    rows = [
        ("input", found.read, ""),
        ("queued", found.queued, ""),
        ("queued before", found.known, ""),
        ("already done", found.already_done, ""),
        ("closed", found.closed, "by undo; not sent"),
        ("duplicate", found.duplicate, ""),
        ("rejected", found.rejected, ""),
        ("parked", found.parked, ""),
        ("waived", found.waived, ""),
        ("in doubt", found.in_doubt, ""),
        ("changed", found.changed, "counted above: other content than the row that exists"),
        ("failed before", found.failed, "queued once more, beside the input"),
    ]
    return "\n".join(
        [
            f"Queued {plural(found.queued, 'row')} in {plural(found.chunks, 'chunk')} for workers.",
            "",
            *(f"  {name:<14}{count:>11,}   {note}".rstrip() for name, count, note in rows if count or name == "input"),
            f"  {'identity':<14}{'holds' if found.holds else 'BROKEN':>11}",
            "",
            f"  ledger  {shown(str(config.ledger_path))} (run {found.run})",
            "",
            *_next_lines(found, config),
        ]
    )


def _next_lines(found: Queued, config: Config) -> list[str]:
    type_next = config.given.command
    steps = []
    if found.queued or found.known or found.failed:
        steps.append((type_next("worker"), "on each host"))
    if found.closed:
        steps.append((type_next("retry", "--state closed"), "frees them; enqueue the files again"))
    if found.rejected or found.parked or found.in_doubt:
        steps.append((type_next("failures"), "says why, and what to do"))
    return next_lines(steps or [(type_next("status"), "where it stands")])
