"""Runs of the real pipeline, each in a process of its own, that kill themselves exactly between two steps.

`python -m tests.torture.crashing` reads one order a line (JSON) and answers each with how its process ended. It forks
for each order, so that a crash costs milliseconds. The service keeps its truth in a file, where no crash reaches it.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import anyio

from tests.fakes import LOST, FakeService, created
from tests.samples_of import row, sid
from tests.test_pipeline import Bench
from worker.config import Doubt as DoubtSettings
from worker.ledger import Asked, Baseline, Entry, Intent, Known, Reopen, Settle
from worker.ledger.sqlite import SqliteLedger
from worker.ledger.tables import Tables
from worker.model import Answer, Listed, Listing, Reply, Row, Unlisted
from worker.submit import Submission
from worker.traffic import LaneDeparture

SETTLE_SECONDS = 0.02
ROWS = (row(1), row(2, 1), row(3))
"""Two rows of one channel, and one of another."""

FOREIGN = Listed(sid("UT", "foreign"), "customer", None)
"""Was in every channel before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One run.

    script: what the service does to the attempts at row 1: `made`, `lost` (made, no answer) or `gone` (neither).
    point, nth: die when this step of this row, such as `left 1`, is reached for the n-th time; `any` counts all steps;
    empty: never.
    """

    folder: str
    script: tuple[str, ...] = ()
    point: str = ""
    nth: int = 1


@dataclass(slots=True)
class Blade:
    """Kills this process at one step. steps: those that it passed."""

    point: str
    left: int
    steps: list[str] = field(default_factory=list)

    def pass_by(self, step: str) -> None:
        """Go on, or die."""
        self.steps.append(step)
        self.left -= self.point in {step, "any"}
        if not self.left and self.point:
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class FileService(FakeService):
    """A service whose truth is a file: what it made, and who asked."""

    file: Path = Path()
    script: Sequence[str] = ()
    blade: Blade = field(default_factory=lambda: Blade("", 0))

    async def create(self, row: Row, departure: Submission) -> Answer:
        """Take a row as the script says."""
        self.blade.pass_by(f"create.asked {_number(row.key)}")
        await departure.ready()
        departure.left()
        attempts = sum(one == ["asked", row.key] for one in told(self.file))
        self._note("asked", row.key)
        self.blade.pass_by(f"left {_number(row.key)}")
        does = self.script[attempts] if row == ROWS[0] and attempts < len(self.script) else "made"
        answer = created(row)
        if does != "gone":
            name = sid("UT", f"{row.key}{attempts}")
            answer = Reply(201, json.dumps({"sid": name}).encode())
            self._note("made", row.key, row.channel_sid, name)
            self.blade.pass_by(f"made {_number(row.key)}")
        return answer if does == "made" else LOST

    async def list(self, interaction_sid: str, channel_sid: str, departure: LaneDeparture) -> Listing | Unlisted:
        """List what the file has of a channel."""
        del interaction_sid
        channel = next(number for number, one in enumerate(ROWS, start=1) if one.channel_sid == channel_sid)
        self.blade.pass_by(f"list.asked {channel}")
        await departure.ready()
        here = [one[3] for one in told(self.file) if one[0] == "made" and one[2] == channel_sid]
        self.blade.pass_by(f"list.given {channel}")
        return Listing((FOREIGN, *(Listed(name, "customer", None) for name in here)))

    def _note(self, *words: str) -> None:
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(words) + "\n")


def told(file: Path) -> list[list[str]]:
    """Return what happened at the service: `asked KEY` and `made KEY CHANNEL SID`, in order."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


class _Mortal(SqliteLedger):
    """A ledger that may die before, inside or after each of its transactions."""

    blade: Blade

    def write(self, group: Sequence[Entry]) -> list[int | Known | Asked | None]:
        """Write, if nothing comes between."""
        names = [_name(entry) for entry in group]
        for name in names:
            self.blade.pass_by(f"before {name}")
        answers = super().write(group)
        for name in names:
            self.blade.pass_by(f"after {name}")
        return answers

    def _enter(self, entry: Entry, now: int) -> int | Known | Asked | None:
        answer = super()._enter(entry, now)
        self.blade.pass_by(f"inside {_name(entry)}")
        return answer


def _name(entry: Entry) -> str:
    match entry:
        case Settle(_, settlement):
            return f"{type(settlement.outcome).__name__} {_number(settlement.key)}"
        case Intent(row) | Baseline(row) | Reopen(_, row):
            return f"{type(entry).__name__} {_number(row.key)}"
        case _:
            return type(entry).__name__


def _number(key: str) -> int:
    return [one.key for one in ROWS].index(key) + 1


def obey(order: Order) -> dict[str, Any]:
    """Run an import as ordered, in this process."""
    folder = Path(order.folder)
    blade = Blade(order.point, order.nth)

    def wrap(ledger: Tables) -> Tables:
        ledger.__class__ = _Mortal
        ledger.blade = blade  # type: ignore[attr-defined]  # it is one of these now
        return ledger

    service = FileService(file=folder / "service", script=order.script, blade=blade)
    doubt = DoubtSettings(settle_seconds=SETTLE_SECONDS)
    bench = Bench(folder / "imports.db", service=service, wrap=wrap, doubt=doubt)

    async def run() -> None:
        await bench.run(ROWS, concurrency=1)

    anyio.run(run)
    return {"adds_up": bench.adds_up(), "created": bench.tally.created, "steps": blade.steps}


def _fork(order: Order) -> dict[str, Any]:
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(theirs, json.dumps(obey(order)).encode())
        except BaseException:  # noqa: BLE001 - whatever it is, it is shown, and this process is over
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as stream:
        said = stream.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {"code": code, **(json.loads(said) if said else {})}


def main() -> None:
    """Obey order after order."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_fork(Order(**json.loads(line)))) + "\n")
        sys.stdout.flush()


def to_line(order: Order) -> str:
    """Return an order as `main` reads it."""
    return json.dumps(asdict(order)) + "\n"


if __name__ == "__main__":
    main()
