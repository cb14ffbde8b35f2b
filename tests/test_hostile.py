"""The real command in an unkind world: streams that break, files that vanish, a server that lies, people in a hurry."""

import asyncio
import csv
import io
import json
import os
import pty
import re
import shutil
import signal
import sqlite3
import stat
import sys
import threading
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import anyio
import pytest

from tests.commands import CREDENTIALS, HOLDING, QUICK, ROOT, Ended, finish, flex_import, start
from tests.samples_of import row, sid
from worker.api import Api
from worker.cli import call
from worker.emulator import Answer, Emulator, serve
from worker.ledger.opening import create_ledger
from worker.ledger.survey import Survey
from worker.model import Draft, Lost, Misfit, NotSent, Reply, Unlisted

HEADER = "interaction_sid,channel_sid,type,media_properties.address\n"
THERE = "https://flex.example.com"
ESCAPES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
STALE = b'HTTP/1.1 429 Too Many Requests\r\nContent-Length: 15\r\n\r\n{"code": 20429}'


def csv_of(rows: int) -> str:
    """Return a file of well-formed rows, each in a channel of its own."""
    lines = (f"{sid('KD', number)},{sid('UO', number)},customer,p{number}@example.com\n" for number in range(rows))
    return HEADER + "".join(lines)


@pytest.fixture
async def service() -> AsyncIterator[tuple[Emulator, str]]:
    """An emulated service on loopback."""
    emulator = Emulator()
    async with serve(emulator) as base_url:
        yield emulator, base_url


def words(base_url: str, *more: str | Path) -> tuple[str | Path, ...]:
    """Return the words of an import at full speed."""
    return ("run", *more, "--base-url", base_url, "--rate", "inf")


async def shell(script: str, *, cwd: Path, env: Mapping[str, str] = HOLDING) -> Ended:
    """Run a line of shell in which $flex is the command; 7 is what it says of the command alone."""
    inherited = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "COVERAGE", "LANG"))}
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", script),
        cwd=cwd,
        env={**inherited, "PYTHONPATH": str(ROOT), "flex": f"{sys.executable} -m worker", **env},
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
    )
    return await finish(process)


def query(ledger: Path, sql: str) -> list[tuple[Any, ...]]:
    """Read from a ledger's file."""
    connection = sqlite3.connect(ledger)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def account_of(out: str) -> dict[str, int]:
    """Return the account that a run printed: name → rows."""
    found = re.findall(r"^  ([a-z ]+?) +([\d,]+)", out, re.MULTILINE)
    return {"in doubt": 0, **{name: int(count.replace(",", "")) for name, count in found}}


async def read_until(process: Process, text: bytes) -> None:
    """Read stderr until a line with this text."""
    assert process.stderr is not None
    while text not in (line := await process.stderr.readline()):
        assert line, "it ended without saying so"


# ---- a server that talks before it is asked -------------------------------------------------------------------------


class Prompted:
    """A departure that leaves once the server has said what nobody asked for."""

    def __init__(self, server: "Talkative") -> None:
        self._server = server
        self.departures = 0

    async def ready(self) -> None:
        """Wait for the server's unasked words."""
        await self._server.spoken.acquire()

    def left(self) -> None:
        """Count."""
        self.departures += 1


class Eager:
    """A departure that lets every row go."""

    async def ready(self) -> None:
        """Wait for nothing."""

    def left(self) -> None:
        """Take note of nothing."""


class Talkative:
    """A server that begins its first connections with an answer to nothing, and then answers whoever asks."""

    def __init__(self, unasked: int) -> None:
        self.spoken = asyncio.Semaphore(0)
        self.asked: list[str] = []
        self._unasked = unasked

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Talk on one connection."""
        if self._unasked:
            self._unasked -= 1
            writer.write(STALE)
        self.spoken.release()
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(re.findall(rb"Content-Length: (\d+)", head)[0])
                form = parse_qs((await reader.readexactly(length)).decode())
                self.asked.append(form["MediaProperties"][0])
                writer.write(self.answer(self.asked[-1]))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def answer(self, media: str) -> bytes:
        """Return the participant that was made, named after what was asked."""
        body = json.dumps({"sid": sid("UT", media)}).encode()
        return b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


class Stammering(Talkative):
    """A server that adds somebody else's answer to each of its own."""

    def answer(self, media: str) -> bytes:
        """Return one answer too many."""
        return super().answer(media) + super().answer("somebody else")


class Dirty(Talkative):
    """A server whose answers have bytes that are no text, and characters that steer terminals."""

    def answer(self, media: str) -> bytes:  # noqa: ARG002 - whatever was asked
        """Refuse, with a message that clears the screen."""
        message = "field\x1b[2J\x00 is\x9b bad\u202e"
        body = json.dumps({"status": 400, "code": 12345, "message": message}).encode()
        head = b"HTTP/1.1 400 Bad Request\r\nTwilio-Request-Id: RQ\xff\xfe7\r\nContent-Length: %d\r\n\r\n"
        return head % len(body) + body


@asynccontextmanager
async def served(server: Talkative) -> AsyncIterator[str]:
    """Serve on loopback; yields the address."""
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(server.talk(reader, writer)))

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize(("unasked", "sent"), [(1, True), (2, True), (3, False)])
async def test_what_came_before_the_question_is_not_its_answer(unasked: int, *, sent: bool) -> None:
    """Such a connection is left before anything is written; after three of them the row certainly was not sent."""
    server = Talkative(unasked)
    departure = Prompted(server)
    async with served(server) as base_url, Api(base_url, "SK1", "secret", concurrency=1, read_timeout=5) as api:
        answer = await api.create(row(1), departure)
    if sent:
        assert isinstance(answer, Reply)
        assert (answer.status, json.loads(answer.body)) == (201, {"sid": sid("UT", "{}")})
    else:
        assert answer == NotSent("UnusableError: 3 connections died before the request left")
    assert len(server.asked) == departure.departures == int(sent)


async def test_an_answer_too_many_belongs_to_no_row(tmp_path: Path) -> None:
    """Each row has the sid of its own participant, though every answer is followed by a stranger's."""
    (tmp_path / "a.csv").write_text(csv_of(30))
    server = Stammering(0)
    async with served(server) as base_url:
        ended = await flex_import(*words(base_url, "a.csv"), "--concurrency", "2", cwd=tmp_path, env=HOLDING)
    assert ended.code == 0, ended.out
    exported = await flex_import("export", cwd=tmp_path)
    found = {line["line"]: line["sid"] for line in csv.DictReader(io.StringIO(exported.out))}
    assert found == {str(n + 2): sid("UT", json.dumps({"address": f"p{n}@example.com"})) for n in range(30)} or {
        found[str(n + 2)] for n in range(30)
    } == {sid("UT", asked) for asked in server.asked}
    assert len(server.asked) == len(set(server.asked)) == 30


@asynccontextmanager
async def endless(first: bytes, more: bytes, seconds: float = 0) -> AsyncIterator[str]:
    """Serve on loopback: each request is answered with some bytes, and then with the same ones for ever.

    seconds: the pause between them.
    """

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talking.append(asyncio.current_task())
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(first)
            while True:
                writer.write(more)
                await writer.drain()
                await asyncio.sleep(seconds)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    talking: list[asyncio.Task[None] | None] = []
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        tasks = [task for task in talking if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n" * 2000
HINTS = b"HTTP/1.1 103 Early Hints\r\n" + b"Link: </%s>; rel=preload\r\n" % (b"x" * 60_000) * 2000
FLOODS = {
    "100 Continue": (b"", INTERIM, 0, "more than 20 interim responses (1xx)"),
    "one at a time": (b"", INTERIM[:25], 0.005, "more than 20 interim responses (1xx)"),
    "102 Processing": (b"", INTERIM.replace(b"100 Continue", b"102 Processing"), 0, "more than 20 interim responses"),
    "a head without end": (b"HTTP/1.1 103 Early Hints\r\n", HINTS.partition(b"\n")[2], 0, "more than 1 MiB before"),
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_responses_without_end_are_a_lost_answer_and_no_list(flood: str) -> None:
    """A create that was sent may exist; a list says nothing. Both end long before the read time-out."""
    first, more, seconds, reason = FLOODS[flood]
    async with (
        endless(first, more, seconds) as base_url,
        Api(base_url, "SK1", "s", concurrency=2, read_timeout=60) as api,
    ):
        with anyio.fail_after(10):
            answer = await api.create(row(1), Eager())
            listing = await api.list(sid("KD", 1), sid("UO", 1), Eager())
    assert isinstance(answer, Lost)
    assert reason in answer.reason
    assert isinstance(listing, Unlisted)
    assert reason in listing.reason
    assert listing.failed


async def test_a_proxy_that_answers_a_connect_without_end_sends_nothing() -> None:
    """No tunnel, no request: the row certainly did not leave."""
    async with endless(b"", INTERIM) as where, Api(THERE, "SK1", "s", concurrency=1, proxy=where) as api:
        with anyio.fail_after(5):
            answer = await api.create(row(1), Eager())
    assert answer == NotSent("EndlessError: more than 20 interim responses (1xx), and no answer")


async def test_a_few_interim_responses_are_passed_over() -> None:
    """As HTTP says; also for the second request on the same connection."""
    made = b'{"sid": "%s"}' % sid("UT", 1).encode()
    answer = INTERIM[: 25 * 19] + b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n%s" % (len(made), made)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"Content-Length: (\d+)", head)
                await reader.readexactly(int(length.group(1)) if length else 0)
                writer.write(answer)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with Api(base_url, "SK1", "s", concurrency=1) as api:
            answers = [await api.create(row(1), Eager()) for _ in range(3)]
    assert {type(one) for one in answers} == {Reply}


@pytest.mark.parametrize("more", [INTERIM, STALE * 2000], ids=["interim responses", "answers nobody asked for"])
async def test_an_idle_connection_that_talks_on_and_on_is_dropped(more: bytes) -> None:
    """Nobody reads what comes between two requests, so it would be kept for as long as the connection is."""
    dropped = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        with suppress(ConnectionError):
            await asyncio.sleep(0.1)
            while True:
                writer.write(more)
                await writer.drain()
        dropped.set()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with Api(base_url, "SK1", "s", concurrency=1) as api:
            assert isinstance(await api.list(sid("KD", 1), sid("UO", 1), Eager()), Unlisted)
            with anyio.fail_after(5):
                await dropped.wait()


def peak_of(process: Process) -> int:
    """Return the most memory that a process has had, in MiB; 0 once it is gone."""
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{process.pid}/status").read_text("utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) >> 10
    return 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not say what a process took")
async def test_responses_without_end_do_not_fill_the_memory(tmp_path: Path) -> None:
    """They came faster than they were passed over, and took a gigabyte in the time that an answer may take."""
    (tmp_path / "a.csv").write_text(csv_of(6), encoding="utf-8")
    peak = 0
    async with endless(b"", INTERIM) as base_url:
        env = {**HOLDING, "FLEX_IMPORT__API__READ_TIMEOUT_SECONDS": "5"}
        process = await start(*words(base_url, "a.csv"), "--json", cwd=tmp_path, env=env)
        ending = asyncio.create_task(finish(process))
        while not ending.done():
            peak = max(peak, peak_of(process))
            await asyncio.sleep(0.02)
        ended = await ending
    assert peak < 120, f"{peak} MiB"
    account = json.loads(ended.out)
    assert (account["in_doubt"], account["identity_holds"]) == (6, True)


async def test_what_a_service_says_is_stored_clean(tmp_path: Path) -> None:
    """Neither the ledger nor a terminal gets control characters or half characters from an answer."""
    header, line = csv_of(1).splitlines()
    (tmp_path / "a.csv").write_text(f"id,{header}\n\x1b[31mred\x9b,{line}\n")
    (tmp_path / "config.toml").write_text('[source]\nkey = "row:{id}"\n[log]\nlevel = "debug"\nformat = "text"\n')
    async with served(Dirty(0)) as base_url:
        ended = await flex_import(*words(base_url, "a.csv"), cwd=tmp_path, env=HOLDING)
    assert ended.code == 1, ended.err
    [(reason, request_id)] = query(tmp_path / "imports.db", "SELECT reason, request_id FROM rows")
    assert reason.startswith("field [2J is bad")
    assert re.fullmatch(r"RQ\W{2,}7", request_id)
    looked, exported = await asyncio.gather(flex_import("status", cwd=tmp_path), flex_import("export", cwd=tmp_path))
    assert "row.settled" in ended.err
    for text in (reason, request_id, ended.out, ended.err, looked.out, exported.out.replace("\x1b[31mred\x9b", "")):
        assert text.encode()
        assert not ESCAPES.search(text), text


# ---- a ledger that is taken away ------------------------------------------------------------------------------------


def ledger_removed(folder: Path) -> None:
    """Remove the ledger, as `rm imports.db*` does."""
    for path in folder.glob("imports.db*"):
        path.unlink()


def ledger_replaced(folder: Path) -> None:
    """Put a copy in the ledger's place, as a restored backup is."""
    shutil.copyfile(folder / "imports.db", folder / "copy")
    (folder / "copy").replace(folder / "imports.db")


def lock_removed(folder: Path) -> None:
    """Remove the lock's file, as who thinks it stale does."""
    (folder / "imports.db.lock").unlink()


@pytest.mark.parametrize("happened", [ledger_removed, ledger_replaced, lock_removed])
async def test_a_ledger_that_is_taken_away_halts_the_run_at_once(
    tmp_path: Path, service: tuple[Emulator, str], happened: Callable[[Path], None]
) -> None:
    """Exit 3 within a moment, with an account of what was sent: nothing is sent without a record that will last."""
    emulator, base_url = service
    emulator.change(latency_seconds=0.05)
    (tmp_path / "a.csv").write_text(csv_of(3000))
    process = await start(*words(base_url, "a.csv"), "--concurrency", "4", cwd=tmp_path, env=HOLDING)
    await emulator.until(lambda: emulator.stats.created >= 12)
    happened(tmp_path)
    ended = await finish(process)
    assert ended.code == 3, ended.err
    assert "was removed or replaced" in " ".join(ended.out.split())
    assert "Traceback" not in ended.err
    account = account_of(ended.out)
    await emulator.settled()
    assert 8 <= account["created"] <= emulator.stats.created <= account["created"] + account["in doubt"] < 200
    assert account["input"] == 3000
    assert "Nothing lost" not in " ".join(ended.out.split())


# ---- streams that break ---------------------------------------------------------------------------------------------

GONE = ["| true", ">&-", ">/dev/full"]


@pytest.mark.parametrize("gone", GONE)
async def test_output_that_nobody_reads_changes_no_exit_code(
    tmp_path: Path, service: tuple[Emulator, str], gone: str
) -> None:
    """The run's own exit code counts; only an export, whose output is all there is to it, says that it failed."""
    _, base_url = service
    (tmp_path / "a.csv").write_text(csv_of(3) + "too,few\n")
    given = {"run": f"a.csv --base-url {base_url} --rate inf", "check": "a.csv", "status": "", "export": ""}

    async def printed(command: str, expected: int) -> None:
        ended = await shell(f"$flex {command} {given[command]} {gone}; echo ${{PIPESTATUS[0]}} >&2", cwd=tmp_path)
        *said, code = ended.err.splitlines()
        assert "Traceback" not in ended.err
        assert "Exception ignored" not in ended.err
        if command == "export" and gone != "| true":
            assert code == "2"
            assert "--output: stdout" in ended.err
        else:
            assert (command, code) == (command, str(expected)), said

    await printed("run", 1)
    await asyncio.gather(printed("check", 1), printed("status", 0), printed("export", 0))
    assert query(tmp_path / "imports.db", "SELECT state, count(*) FROM rows GROUP BY state") == [("created", 3)]
    assert query(tmp_path / "imports.db", "SELECT exit_code FROM runs") == [(1,)]


@pytest.mark.parametrize("gone", ["2> >(true)", "2>&-", "2>/dev/full", "2>&- <&-", "LOG"])
async def test_messages_that_nobody_reads_change_nothing(
    tmp_path: Path, service: tuple[Emulator, str], gone: str
) -> None:
    """Without stderr, or with a log on a full disk, an import finishes as if nothing were wrong, warnings and all."""
    _, base_url = service
    (tmp_path / "a.csv").write_text(csv_of(3) + "too,few\n")
    env = {**HOLDING, "FLEX_IMPORT__LOG__LEVEL": "debug", "FLEX_IMPORT__LOG__FORMAT": "text"}
    if gone == "LOG":
        gone, env["FLEX_IMPORT__LOG__FILE"] = "", "/dev/full"
    script = f"$flex run a.csv --base-url {base_url} --rate inf {gone}; echo $?"
    ended, refused = await asyncio.gather(
        shell(script, cwd=tmp_path, env=env), shell(f"$flex check absent.csv {gone}; echo $?", cwd=tmp_path)
    )
    *account, code = ended.out.splitlines()
    assert code == "1"
    assert account[-1] == "run 1 finished, exit 1: 4 rows = 3 created + 1 rejected; identity holds"
    assert "Traceback" not in ended.err
    assert refused.out == "2\n"


async def test_a_ledger_is_never_opened_as_a_standard_stream(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """With all three closed, nothing that is printed goes where it does not belong."""
    emulator, base_url = service
    (tmp_path / "a.csv").write_text(csv_of(3))
    emulator.change(latency_seconds=30)
    script = f"exec $flex run a.csv --base-url {base_url} --rate inf <&- >&- 2>&-"
    inherited = {**os.environ, **HOLDING, "PYTHONPATH": str(ROOT), "flex": f"{sys.executable} -m worker"}
    process = await asyncio.create_subprocess_exec("bash", "-c", script, cwd=tmp_path, env=inherited)
    await emulator.until(lambda: emulator.stats.in_flight == 3)
    opened = {os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)}  # noqa: PTH115 - of a process
    process.kill()
    await process.wait()
    assert opened == {"/dev/null"}


async def test_a_log_is_its_owners_alone(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """Keys may be people's."""
    _, base_url = service
    (tmp_path / "a.csv").write_text(csv_of(1))
    env = {**HOLDING, "FLEX_IMPORT__LOG__FILE": "run.log"}
    assert (await shell(f"umask 0; $flex run a.csv --base-url {base_url}", cwd=tmp_path, env=env)).code == 0
    assert stat.S_IMODE((tmp_path / "run.log").stat().st_mode) == 0o600


# ---- people in a hurry ----------------------------------------------------------------------------------------------


async def test_an_ignored_hangup_stays_ignored(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """That is how nohup keeps a run alive at logout; an interrupt still ends it."""
    emulator, base_url = service
    emulator.change(latency_seconds=0.1)
    (tmp_path / "a.csv").write_text(csv_of(64))
    script = f"trap '' HUP; exec $flex run a.csv --base-url {base_url} --rate inf --concurrency 8"
    inherited = {**os.environ, **HOLDING, "PYTHONPATH": str(ROOT), "flex": f"{sys.executable} -m worker"}
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", script, cwd=tmp_path, env=inherited, stdin=DEVNULL, stdout=PIPE, stderr=PIPE
    )
    await emulator.until(lambda: emulator.stats.created >= 8)
    process.send_signal(signal.SIGHUP)
    ended = await finish(process)
    assert ended.code == 0, ended.out
    assert emulator.stats.created == 64


async def test_an_interrupt_at_the_question_is_an_answer(tmp_path: Path) -> None:
    """The first Ctrl-C at "[y/N]" ends it with 130; nothing was made."""
    (tmp_path / "a.csv").write_text(csv_of(1))
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *("setsid", "--ctty", sys.executable, "-m", "worker", "run", "a.csv", "--base-url", THERE),
        cwd=tmp_path,
        env={**CREDENTIALS, "PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    while b"[y/N]" not in said:
        said += await anyio.to_thread.run_sync(os.read, ours, 4096)
    os.write(ours, b"\x03")
    code = await process.wait()
    os.close(ours)
    assert code == 130
    assert os.listdir(tmp_path) == ["a.csv"]  # noqa: PTH208 - a path's own method is for other functions


def offset_in(process: Process, path: Path) -> int:
    """Return how far a process has read a file; -1 when it has not opened it."""
    folder = Path(f"/proc/{process.pid}")
    for link in (folder / "fd").iterdir():
        with suppress(OSError):
            if link.readlink() == path:
                return int((folder / "fdinfo" / link.name).read_text().split()[1])
    return -1


async def test_an_interrupt_of_a_check_is_no_crash(tmp_path: Path) -> None:
    """Ctrl-C while a large file is read ends with 130, wherever it comes."""
    path = tmp_path / "a.csv"
    path.write_text(csv_of(30_000))

    async def interrupted(share: float) -> Ended:
        process = await start("check", "a.csv", cwd=tmp_path)
        while offset_in(process, path) < path.stat().st_size * share:
            assert process.returncode is None
            await asyncio.sleep(0)
        process.send_signal(signal.SIGINT)
        return await finish(process)

    ended = await asyncio.gather(*map(interrupted, (0, 0.1, 0.2, 0.3, 0.4)))
    assert ended == [Ended(130, "", "stopped by SIGINT\n")] * 5


class Held(list[Draft | Misfit]):
    """A batch whose sorting takes until the survey is closed, if that is possible at all."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[Draft | Misfit]:
        """Wait for the end of what is sorted."""
        self.begun.set()
        self.closed.wait(0.2)
        return iter(())


def test_a_survey_is_not_closed_under_who_works_with_it() -> None:
    """An interrupt leaves the reader's thread at its work, and closing a database that is in use crashes SQLite."""
    survey, batch = Survey(None, {}), Held()
    with ThreadPoolExecutor(1) as pool:
        surveyed = pool.submit(survey.sort, batch)
        batch.begun.wait()
        survey.close()
        batch.closed.set()
        assert surveyed.result().read == 0


@pytest.mark.parametrize("ending", ["SIGTERM", "limit", "halt"])
async def test_a_silent_pipe_holds_up_no_ending(tmp_path: Path, service: tuple[Emulator, str], ending: str) -> None:
    """An open stdin without a word is not waited for: not by a signal, not by a limit, not by a halt."""
    emulator, base_url = service
    if ending == "halt":
        emulator.script_next(Answer(status=401, code=20003))
    more = ("--limit", "1") if ending == "limit" else ()
    process = await start(*words(base_url, "-"), *more, "--concurrency", "1", cwd=tmp_path, env=HOLDING, stdin=PIPE)
    assert process.stdin is not None
    process.stdin.write(csv_of(520).encode())  # a batch of rows and a few more, which a pipe holds
    await process.stdin.drain()
    await emulator.until(lambda: emulator.stats.arrived >= 1)
    if ending == "SIGTERM":
        process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(30):  # the pipe stays open, so a run that waits for it never ends
        ended = await finish(process)
    assert (ended.code, ended.err.count("Traceback")) == ({"SIGTERM": 143, "limit": 6, "halt": 3}[ending], 0)


# ---- files and folders that vanish, or have odd names ---------------------------------------------------------------


async def test_a_working_folder_may_go(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """What was given by absolute names goes on: the account comes, with its exit code."""
    emulator, base_url = service
    emulator.change(latency_seconds=0.1)
    (tmp_path / "a.csv").write_text(csv_of(20))
    (tmp_path / "b.csv").write_text(csv_of(3) + "too,few\n")
    gone = tmp_path / "gone"
    gone.mkdir()
    files = (tmp_path / "a.csv", tmp_path / "b.csv", "--ledger", tmp_path / "imports.db", "--concurrency", "4")
    process = await start(*words(base_url, *files), cwd=gone, env=HOLDING)
    await emulator.until(lambda: emulator.stats.created >= 1)
    gone.rmdir()
    ended = await finish(process)
    assert ended.code == 1, ended.err
    assert ended.out.splitlines()[-1].endswith("24 rows = 20 created + 3 duplicate + 1 rejected; identity holds")
    assert "Traceback" not in ended.err


async def test_a_files_name_may_be_anything(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """Bytes that are no text, and characters that steer a terminal, are shown as what they are, and change nothing."""
    _, base_url = service
    names = [os.fsdecode(name) for name in (b"caf\xe9.csv", b"clear\x1b[2J\x9b.csv", b"two\nlines.csv")]
    for number, name in enumerate(names):
        (tmp_path / name).write_text(
            csv_of(3).replace("@", f"@{number}.") + "too,few" + ",and more" * number * 5 + "\n"
        )
    checked, ended = await asyncio.gather(
        flex_import("check", *names, cwd=tmp_path),
        flex_import(*words(base_url, *names), "--ledger", "other.db", cwd=tmp_path, env=HOLDING),
    )
    looked, exported = await asyncio.gather(
        flex_import("status", "--ledger", "other.db", cwd=tmp_path),
        flex_import("export", "--ledger", "other.db", cwd=tmp_path),
    )
    assert (checked.code, ended.code, looked.code, exported.code) == (1, 1, 0, 0), ended.err
    for text in (checked.out, ended.out, looked.out):
        assert not ESCAPES.search(text)
        for shown in (r"caf\\(x|udc)e9", r"clear\\x1b\[2J\\(x|udc)9b", r"two\\nlines"):
            assert re.search(rf"{shown}\.csv:5", text), text


async def test_a_file_whose_name_is_no_text_may_be_repeated(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """Where the first one is, is stored with each duplicate, and can be stored."""
    _, base_url = service
    name = os.fsdecode(b"caf\xe9.csv")
    (tmp_path / name).write_text(csv_of(1) + csv_of(1).removeprefix(HEADER))
    ended = await flex_import(*words(base_url, name), cwd=tmp_path, env=HOLDING)
    assert ended.code == 0, ended.err


async def test_a_keys_name_may_be_anything(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """A key of an NDJSON object that clears the screen is shown, not obeyed."""
    _, base_url = service
    good = {"interaction_sid": sid("KD", 1), "channel_sid": sid("UO", 1), "type": "agent", "media_properties": "{}"}
    lines = [good, {**good, "\x1b[31mred\x9b\u202e": 1}]
    (tmp_path / "a.ndjson").write_text("".join(json.dumps(line) + "\n" for line in lines))
    checked, ended = await asyncio.gather(
        flex_import("check", "a.ndjson", cwd=tmp_path),
        flex_import(*words(base_url, "a.ndjson"), "--ledger", "other.db", cwd=tmp_path, env=HOLDING),
    )
    looked = await flex_import("status", "--ledger", "other.db", cwd=tmp_path)
    assert (checked.code, ended.code) == (1, 1), ended.err
    for text in (checked.out, ended.out, ended.err, looked.out):
        assert not ESCAPES.search(text)
        assert "\u202e" not in text


# ---- what is refused before anything is made ------------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], *given: str | Path) -> str:
    """Run a command that must be refused with exit 2 and one message."""
    assert call([str(word) for word in given]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.endswith("exit 2, nothing was sent\n")
    assert "Traceback" not in said.err
    return said.err


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up credentials in this process's environment."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("limit", ["0", "-1"])
def test_a_limit_is_at_least_one_row(capsys: pytest.CaptureFixture[str], limit: str) -> None:
    """None at all is what `check` is for."""
    Path("a.csv").write_text(csv_of(1))
    assert "--limit" in refused(capsys, *words("http://127.0.0.1:9", "a.csv"), f"--limit={limit}")
    assert not Path("imports.db").exists()


@pytest.mark.usefixtures("credentials")
def test_yes_without_a_terminal_makes_no_ledger(capsys: pytest.CaptureFixture[str]) -> None:
    """A script with -y in it must not send everything again because a disk was not mounted."""
    Path("a.csv").write_text(csv_of(1))
    assert "--new-ledger" in refused(capsys, *words(THERE, "a.csv"), "--yes")
    assert not Path("imports.db").exists()


@pytest.mark.usefixtures("credentials")
def test_a_ledger_that_is_a_link_to_itself_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing can be made there."""
    Path("a.csv").write_text(csv_of(1))
    Path("loop").symlink_to("loop")
    assert "leads back to itself" in refused(capsys, *words("http://127.0.0.1:9", "a.csv"), "--ledger", "loop")


@pytest.mark.parametrize("command", ["status", "check"])
def test_a_command_in_a_folder_that_is_gone_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    """As after a release was switched under a shell."""
    (tmp_path / "a.csv").write_text(csv_of(1))
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    given = (tmp_path / "a.csv",) if command == "check" else ()
    assert "the working folder is gone" in refused(capsys, command, *given)
    assert "the working folder is gone" in refused(capsys, command, *given, "--ledger", "imports.db")


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("known", [False, True], ids=["no ledger", "a ledger"])
def test_a_bad_authority_is_refused_before_anything_is_made(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, known: bool
) -> None:
    """No ledger, no run in the ledger."""
    Path("a.csv").write_text(csv_of(1))
    Path("bundle.pem").write_text("no certificate\n")
    if known:
        create_ledger(Path("imports.db"))
    for bundle in ("bundle.pem", "absent.pem"):
        monkeypatch.setenv("FLEX_IMPORT__API__CA_BUNDLE", bundle)
        assert f"{bundle}: cannot be loaded" in refused(capsys, *words("http://127.0.0.1:9", "a.csv"))
    assert Path("imports.db").exists() is known
    assert not known or query(Path("imports.db"), "SELECT count(*) FROM runs") == [(0,)]


@pytest.mark.parametrize("variable", ["TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_API_KEY", "TWILIO_API_SECRET"])
@pytest.mark.parametrize("value", ["\udcff\udcfe", "secret\n", "\x1b[A"], ids=repr)
def test_credentials_are_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """A binary file in a variable, or a line end that came along, is named; its value is not shown."""
    Path("a.csv").write_text(csv_of(1))
    for name in ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_API_KEY", "TWILIO_API_SECRET"):
        monkeypatch.setenv(name, value if name == variable else "known")
    said = refused(capsys, *words("http://127.0.0.1:9", "a.csv"))
    assert said.startswith(f"error: {variable}: ")
    assert "secret" not in said
    assert not Path("imports.db").exists()


@pytest.mark.parametrize("port", ["99999", "65536", "-1"])
def test_a_port_is_a_port(capsys: pytest.CaptureFixture[str], port: str) -> None:
    """The emulator says what a port is."""
    assert "between 0 and 65535" in refused(capsys, "emulator", f"--port={port}")


# ---- where an export goes -------------------------------------------------------------------------------------------


@pytest.fixture
async def ledger(tmp_path: Path, service: tuple[Emulator, str]) -> Path:
    """A ledger with three rows."""
    (tmp_path / "a.csv").write_text(csv_of(3))
    assert (await flex_import(*words(service[1], "a.csv"), cwd=tmp_path, env=QUICK)).code == 0
    return tmp_path / "imports.db"


def test_an_export_does_not_replace_its_ledger(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By whatever name; but a file that is only called after it is a file like any other."""
    Path("link.csv").symlink_to(ledger)
    Path("folder").mkdir()
    before = ledger.read_bytes()
    for suffix in ("", "-wal", "-shm", "-journal", ".lock"):
        for name in (f"imports.db{suffix}", f"./folder/../imports.db{suffix}", f"{ledger}{suffix}"):
            assert "belongs to it" in refused(capsys, "export", "-o", name)
    assert "belongs to it" in refused(capsys, "export", "-o", "link.csv")
    assert "is empty" in refused(capsys, "export", "-o", "")
    for name in ("folder", "absent/ids.csv"):
        assert "cannot be written" in refused(capsys, "export", "-o", name)
    assert ledger.read_bytes() == before
    assert call(["export", "-o", "imports.db.csv"]) == 0
    assert len(Path("imports.db.csv").read_text().splitlines()) == 4


def test_an_export_goes_where_a_link_leads_and_into_a_pipe(ledger: Path) -> None:
    """The link stays a link; a pipe gets it as it comes; both get the same."""
    Path("target.csv").write_text("old")
    Path("link.csv").symlink_to("target.csv")
    assert call(["export", "--ledger", str(ledger), "-o", "link.csv"]) == 0
    assert Path("link.csv").is_symlink()
    os.mkfifo("pipe")
    descriptor = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert call(["export", "--ledger", str(ledger), "-o", "pipe"]) == 0
    piped = os.read(descriptor, 1 << 16)
    os.close(descriptor)
    assert piped == Path("target.csv").read_bytes()
    assert len(piped.splitlines()) == 4
    assert {path.name for path in Path().iterdir() if path.name.endswith(".part")} == set()
