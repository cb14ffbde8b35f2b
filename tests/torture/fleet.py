"""Several workers on one PostgreSQL while everything goes wrong; then the truth. `python -m tests.torture.fleet`.

Each fault is a run of its own: real workers, a real database, the emulator with faults, and at the end a comparison of
what the service has with what there should be. It prints a table and exits 1 when something is true that must not be.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.commands import CREDENTIALS, finish, flex_import, start
from tests.postgres import Postgres, postgres
from tests.samples_of import sid
from tests.torture.audit import ROWS, Kept, audit
from tests.torture.phases import DOUBTFUL, FEW
from tests.torture.world import Wanted, unkindness
from worker.emulator import Behaviour, Emulator, Fault, serve
from worker.fleet import SILENT_SECONDS
from worker.place import Server

SETTLE_SECONDS = 3.0
HEADER = "id,interaction_sid,channel_sid,type,media_properties.address\n"
ROUNDS = 4
"""How often what is left is queued again, at most."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How large an ordeal is. rate: requests a second of all workers together; concurrency: at once, of each of them;
    minutes: when to give up. faults, list_faults: the share of creates and of lists that meet one; spared: those that
    happen to nobody.
    """  # noqa: D205 - one sentence

    rows: int
    channels: int
    rate: float
    workers: int = 3
    concurrency: int = 16
    minutes: float = 10.0
    faults: float = 0.03
    list_faults: float = 0.03
    spared: frozenset[Fault] = frozenset()


@dataclass(slots=True)
class Passed:
    """What came of one ordeal. problems: what must not be."""

    name: str
    blows: int = 0
    made: int = 0
    twice: int = 0
    lost: int = 0
    doubts: int = 0
    held: int = 0
    undecidable: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    in_a_channel: int = 0
    busiest: float = 0.0
    taken_over: float | None = None
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


class Fleet:
    """Workers of one import, and what surrounds them."""

    def __init__(self, scale: Scale, folder: Path, server: Postgres, emulator: Emulator, base_url: str) -> None:
        self.scale = scale
        self.folder = folder
        self.server = server
        self.place: Server = server.new_schema()
        self.schema = f"ledger_{server.schemas}"
        self.emulator = emulator
        self.base_url = base_url
        self.wanted = [
            Wanted(f"row:{one}", f"p{one}@example.com", sid("UO", one % scale.channels), "customer", None, open=True)
            for one in range(scale.rows)
        ]
        self.workers: list[Process] = []
        self.blows = 0
        self.taken_over: float | None = None
        self.env = {
            **CREDENTIALS,
            "FLEX_IMPORT__DOUBT__SETTLE_SECONDS": str(SETTLE_SECONDS),
            "FLEX_IMPORT__SOURCE__KEY": "{id}",
            "FLEX_IMPORT__LIMITS__LIST_RATE_PER_SECOND": "inf",
            "FLEX_IMPORT__API__READ_TIMEOUT_SECONDS": "2",
            "FLEX_IMPORT__STOP__MAX_IN_DOUBT": "0",
        }

    async def enqueue(self) -> None:
        """Queue rows, each with an address of its own."""
        scale = self.scale
        places = [f"{sid('KD', number)},{sid('UO', number)}" for number in range(scale.channels)]
        lines = [f"{one.key},{places[number % scale.channels]},{one.type},{one.address}\n"
                 for number, one in enumerate(self.wanted)]  # fmt: skip
        (self.folder / "rows.csv").write_text(HEADER + "".join(lines))
        ended = await self.command("enqueue", "rows.csv", "--json")
        if ended[0] != 0 or json.loads(ended[1])["queued"] != scale.rows:
            raise RuntimeError(f"enqueue: {ended}")

    async def conclude(self) -> None:
        """Until nothing is left, look for the rows in doubt with no worker there, and queue the rest again."""
        for _ in range(ROUNDS):
            await self.until_idle()
            [(left,)] = await asyncio.to_thread(self.ask, _LEFT) or [(0,)]
            if not left:
                return
            await self.finish()
            await self.command("reconcile")
            await self.command("enqueue", "rows.csv")
            await self.hire()
        await self.until_idle()

    async def command(self, *words: str) -> tuple[int, str, str]:
        """Run a command on the ledger."""
        target = ("--base-url", self.base_url) if words[0] in {"enqueue", "reconcile"} else ()
        ended = await flex_import(*words, *target, "--ledger", self.place, cwd=self.folder, env=self.env)
        return ended.code, ended.out, ended.err

    async def hire(
        self,
        *options: str,
        place: str | None = None,
        before: Sequence[str] = (),
        module: Sequence[str] = ("worker",),
    ) -> Process:
        """Start a worker. place: how it reaches the database; before, module: as of `start`."""
        words = ["worker", "--ledger", place or self.place, "--base-url", self.base_url]
        words += ["--rate", str(self.scale.rate), "--concurrency", str(self.scale.concurrency), "--json", "-q"]
        words += options
        process = await start(*words, cwd=self.folder, env=self.env, before=before, module=module)
        self.workers.append(process)
        return process

    def ask(self, query: str) -> list[Any]:
        """Ask the database; nothing while it is down."""
        try:
            with psycopg.connect(self.place, connect_timeout=2) as connection:
                return connection.execute(query.encode()).fetchall()
        except psycopg.Error:
            return []

    async def until_idle(self) -> None:
        """Wait until no chunk is left: what is still queued then waits for a row in doubt."""
        while True:
            if await asyncio.to_thread(self.ask, "SELECT count(*) FROM procrastinate_jobs") == [(0,)]:
                return
            await asyncio.sleep(0.25)

    async def finish(self) -> None:
        """End all workers, as kindly as they let one."""
        workers, self.workers = self.workers, []
        for process in workers:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
                    process.terminate()
        for process in workers:
            try:
                async with asyncio.timeout(40):
                    await finish(process)
            except TimeoutError:
                process.kill()
                await process.wait()


Torment = Callable[[Fleet], Awaitable[None]]


async def nothing(fleet: Fleet) -> None:
    """Only the service's own faults."""
    del fleet


async def kill(fleet: Fleet) -> None:
    """Kill a worker every few seconds, and start another one."""
    while True:
        await asyncio.sleep(random.uniform(3, 6))
        victim = random.choice([one for one in fleet.workers if one.returncode is None])
        with suppress(ProcessLookupError):
            victim.kill()
        await victim.wait()
        fleet.blows += 1
        await fleet.hire()


async def die(fleet: Fleet) -> None:
    """Kill one worker for good, and see how long its chunks wait."""
    await asyncio.sleep(4)
    victim = fleet.workers[0]
    of_victim = f"(SELECT worker_id FROM crew JOIN runs ON runs.id = run_id WHERE pid = {victim.pid})"
    holds = f"SELECT id, attempts FROM procrastinate_jobs WHERE status = 'doing' AND worker_id = {of_victim}"
    held = await asyncio.to_thread(fleet.ask, holds)
    victim.kill()
    began = time.monotonic()
    await victim.wait()
    fleet.blows += 1
    while held:
        jobs = ", ".join(str(job) for job, _ in held)
        found = await asyncio.to_thread(fleet.ask, f"SELECT id, attempts FROM procrastinate_jobs WHERE id IN ({jobs})")
        if not set(held) & set(found):
            break
        await asyncio.sleep(0.1)
    fleet.taken_over = time.monotonic() - began


async def freeze(fleet: Fleet) -> None:
    """Freeze a worker for 20 seconds, let it go on, and do it again with another one."""
    while True:
        await asyncio.sleep(3)
        victim = random.choice([one for one in fleet.workers if one.returncode is None])
        victim.send_signal(signal.SIGSTOP)
        await asyncio.sleep(20)
        with suppress(ProcessLookupError):
            victim.send_signal(signal.SIGCONT)
        fleet.blows += 1


async def freeze_as_it_leaves(fleet: Fleet, seconds: float) -> None:
    """Freeze a worker between the last look at its lease and the socket."""
    note = fleet.folder / "frozen"
    await fleet.hire(module=("tests.torture.frozen", str(note)))
    while True:
        if note.exists() and note.read_text():
            break
        await asyncio.sleep(0.05)
    await asyncio.sleep(seconds)
    os.kill(int(note.read_text()), signal.SIGCONT)
    fleet.blows += 1
    await asyncio.sleep(SETTLE_SECONDS)


async def within(fleet: Fleet) -> None:
    """Longer than it takes to lose its chunks, but not than the settle time after that."""
    await freeze_as_it_leaves(fleet, SILENT_SECONDS + SETTLE_SECONDS / 3)


async def beyond(fleet: Fleet) -> None:
    """Longer than both together: the gap that is left, and documented."""
    await freeze_as_it_leaves(fleet, SILENT_SECONDS + 4 * SETTLE_SECONDS)


async def restart(fleet: Fleet) -> None:
    """Crash the database, and start it again; later stop it for 15 seconds."""
    for how, pause in ((signal.SIGQUIT, 1.0), (signal.SIGINT, 15.0)):
        await asyncio.sleep(6)
        await asyncio.to_thread(fleet.server.stop, how)
        await asyncio.sleep(pause)
        await asyncio.to_thread(fleet.server.start)
        fleet.blows += 1


async def cut(fleet: Fleet) -> None:
    """Cut one more worker off from the database for 25 seconds: the link of its network namespace goes down."""
    async with _namespace(fleet) as place:
        process = await fleet.hire(place=place, before=_IN_NAMESPACE)
        await asyncio.sleep(6)
        await _ip("link", "set", "fleet-db", "down")
        fleet.blows += 1
        await asyncio.sleep(25)
        await _ip("link", "set", "fleet-db", "up")
        await asyncio.sleep(5)
        process.terminate()
        await process.wait()


_IN_NAMESPACE = ("ip", "netns", "exec", "fleet")
_OUTSIDE, _INSIDE = "10.77.1.1", "10.77.1.2"
_FORWARD = """
import asyncio, sys
async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
async def serve(reader, writer):
    there = await asyncio.open_unix_connection(sys.argv[1])
    await asyncio.gather(pump(reader, there[1]), pump(there[0], writer), return_exceptions=True)
async def main():
    async with await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[2])) as server:
        await server.serve_forever()
asyncio.run(main())
"""


async def _ip(*words: str) -> bool:
    process = await asyncio.create_subprocess_exec("ip", *words, stderr=asyncio.subprocess.DEVNULL)
    return await process.wait() == 0


@asynccontextmanager
async def _namespace(fleet: Fleet) -> AsyncIterator[str]:
    """Make a namespace that reaches the database over a link, and the service over a socket in a folder."""
    path, port = f"{fleet.folder}/service", int(fleet.base_url.rpartition(":")[2])
    await asyncio.to_thread(fleet.server.stop)
    await _ip("netns", "add", "fleet")
    try:
        await _ip("link", "add", "fleet-db", "type", "veth", "peer", "name", "fleet-in", "netns", "fleet")
        await _ip("addr", "add", f"{_OUTSIDE}/24", "dev", "fleet-db")
        await _ip("link", "set", "fleet-db", "up")
        for words in ("addr add 127.0.0.1/8 dev lo", f"addr add {_INSIDE}/24 dev fleet-in", "link set lo up",
                      "link set fleet-in up"):  # fmt: skip
            await _ip("-n", "fleet", *words.split())
        fleet.server.listen(_OUTSIDE)
        await asyncio.to_thread(fleet.server.start)

        async def serve_socket(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there = await asyncio.open_connection("127.0.0.1", port)
            pumps = (_pump(reader, there[1]), _pump(there[0], writer))
            await asyncio.gather(*pumps, return_exceptions=True)

        async with await asyncio.start_unix_server(serve_socket, path):
            forwarding = (*_IN_NAMESPACE, sys.executable, "-c", _FORWARD, path, str(port))
            forward = await asyncio.create_subprocess_exec(*forwarding)
            try:
                yield fleet.place.replace("127.0.0.1", _OUTSIDE)
            finally:
                forward.kill()
                await forward.wait()
    finally:
        await _ip("netns", "del", "fleet")


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


def namespaces() -> str:
    """Return why no namespace can be made here; nothing where it can be."""
    if shutil.which("ip") is None:
        return "there is no `ip`"
    made = subprocess.run(["ip", "netns", "add", "fleet-try"], capture_output=True, text=True, check=False)
    if made.returncode:
        return made.stderr.strip()
    subprocess.run(["ip", "netns", "del", "fleet-try"], check=True)
    return ""


ORDEALS: dict[str, Torment] = {
    "faults of the service": nothing,
    "kill -9 every few seconds": kill,
    "one dies for good": die,
    "frozen for 20 s": freeze,
    "the database restarts": restart,
    "one is cut off from it": cut,
    "frozen as a row leaves": within,
    "the same, for too long": beyond,
}


async def undergo(name: str, torment: Torment, scale: Scale, folder: Path) -> Passed:
    """Go through one ordeal, and compare."""
    passed = Passed(name)
    emulator = Emulator(
        Behaviour(
            latency_seconds=0.02,
            latency_jitter_seconds=0.05,
            hang_seconds=3.0,
            late_seconds=0.5,
            list_lag_seconds=0.3,
            **unkindness(scale.faults, scale.list_faults, 0.0, scale.spared),
        )
    )
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        server = stack.enter_context(postgres())
        base_url = await stack.enter_async_context(serve(emulator))
        fleet = Fleet(scale, folder, server, emulator, base_url)
        await fleet.enqueue()
        for _ in range(scale.workers):
            await fleet.hire()
        tormenting = asyncio.ensure_future(torment(fleet))
        try:
            async with asyncio.timeout(60 * scale.minutes):
                await fleet.until_idle()
                if torment in {die, restart, cut, within, beyond}:
                    await tormenting
                tormenting.cancel()
                await asyncio.wait([tormenting])
                await fleet.conclude()
        except TimeoutError:
            passed.problems.append(f"not over after {scale.minutes} minutes")
        tormenting.cancel()
        await asyncio.wait([tormenting])
        await fleet.finish()
        await emulator.settled()
        _compare(fleet, passed, twice=int(torment is beyond))
    passed.blows, passed.taken_over, passed.seconds = fleet.blows, fleet.taken_over, time.monotonic() - began
    return passed


def _compare(fleet: Fleet, passed: Passed, *, twice: int) -> None:
    """Find out what must not be. twice: so many rows are made a second time, as the docs say."""
    scale, stats = fleet.scale, fleet.emulator.stats
    found = audit(fleet, {one[0]: Kept(*one) for one in fleet.ask(ROWS)})
    left = fleet.ask("SELECT (SELECT count(*) FROM procrastinate_jobs), (SELECT count(*) FROM crew)")
    passed.made, passed.twice, passed.lost, passed.doubts = found.made, found.duplicates, found.lost, found.in_doubt
    passed.held, passed.undecidable, passed.reasons = found.held, found.undecidable, found.reasons
    passed.in_a_channel = stats.max_in_flight_in_a_channel
    passed.busiest = stats.busiest_second_arrived / scale.rate
    expected = {
        "rows made twice that should not be, or the other way round": abs(passed.twice - twice),
        "rows in doubt": found.in_doubt if found.in_doubt > max(FEW, scale.rows * DOUBTFUL) else 0,
        "jobs left": left[0][0] if left else -1,
        "more than one at once in a channel": int(passed.in_a_channel > 1),
    }
    passed.problems += [f"{what}: {count}" for what, count in expected.items() if count]
    passed.problems += [one for one in found.problems if not (twice and one.startswith("duplicates"))]


_LEFT = """
SELECT (SELECT count(*) FROM queued) + (SELECT count(*) FROM rows WHERE state IN ('in_doubt', 'failed', 'started'))
"""


def show(passed: list[Passed]) -> None:
    """Print the table."""
    print(f"{'':<28}{'blows':>6}{'made':>8}{'twice':>6}{'lost':>6}{'doubt':>6}{'held':>6}{'undecidable':>13}{'busiest':>9}"
          f"{'taken over':>12}{'s':>6}")  # fmt: skip
    for one in passed:
        over = f"{one.taken_over:.1f} s" if one.taken_over is not None else ""
        print(f"{one.name:<28}{one.blows:>6}{one.made:>8,}{one.twice:>6}{one.lost:>6}{one.doubts:>6}{one.held:>6}"
              f"{one.undecidable.total():>13}{one.busiest:>9.3f}{over:>12}{one.seconds:>6.0f}")  # fmt: skip
        for reason, rows in one.undecidable.items():
            print(f"  no client can know: {reason}: {rows}")
        for reason, rows in one.reasons.items():
            print(f"  in doubt: {reason}: {rows}")
        for problem in one.problems:
            print(f"  PROBLEM {problem}")


async def main(arguments: argparse.Namespace, folder: Path) -> list[Passed]:
    """Go through those that were asked for."""
    scale = Scale(arguments.rows, arguments.channels, arguments.rate, spared=frozenset(arguments.spare))
    passed: list[Passed] = []
    for name, torment in ORDEALS.items():
        if not arguments.only or name.startswith(tuple(arguments.only)):
            if torment is cut and (why := namespaces()):
                print(f"{name}: left out, as no network namespace can be made here: {why}")
                continue
            place = folder / str(len(passed))
            place.mkdir()
            passed.append(await undergo(name, torment, scale, place))
            if passed[-1].busiest > 1.05:  # not in a test: on a busy machine what left in time arrives in heaps
                passed[-1].problems.append(f"a second at {passed[-1].busiest:.3f} of the ceiling")
            show(passed[-1:])
            sys.stdout.flush()
    return passed


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.fleet", description="Torture a fleet.")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--channels", type=int, default=1_000)
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second of all workers")
    parser.add_argument("--only", nargs="*", default=[], help="beginnings of names")
    parser.add_argument("--spare", nargs="*", type=Fault, default=[], metavar="FAULT", help="faults that do not happen")
    return parser.parse_args()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        found = asyncio.run(main(parse(), Path(name)))
    print()
    show(found)
    sys.exit(any(one.problems for one in found))
