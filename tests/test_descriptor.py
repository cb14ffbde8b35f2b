"""Open files and connections: as many as `limits.concurrency` needs, or a clear refusal; never an outage."""

import asyncio
import errno
import json
import os
import resource
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import anyio
import pytest
from aiohttp.client_reqrep import ConnectionKey

from tests.commands import HOLDING, QUICK, Ended, finish, start
from tests.samples_of import sid
from worker.api.breakage import misconfiguration
from worker.descriptor import allow
from worker.emulator import Emulator, serve
from worker.errors import ConfigError

HEADER = "interaction_sid,channel_sid,type,media_properties.address\n"
MANY = {**QUICK, "FLEX_IMPORT__LIMITS__CONCURRENCY": "60"}

pytestmark = pytest.mark.timeout(60)


def limited(soft: int, hard: int) -> Sequence[str]:
    """Return words that start a command with these limits of open files."""
    return ("sh", "-c", f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$@"', "sh")


async def command(folder: Path, *words: str, soft: int = 64, hard: int = 64) -> Ended:
    """Run a command that wants 60 connections."""
    return await finish(await start(*words, cwd=folder, env=MANY, before=limited(soft, hard)))


def write(folder: Path, rows: int) -> None:
    """Write an input of rows, each in a channel of its own."""
    lines = (f"{sid('KD', number)},{sid('UO', number)},customer,p{number}@example.com\n" for number in range(rows))
    (folder / "a.csv").write_text(HEADER + "".join(lines), encoding="utf-8")


def left_in(folder: Path) -> list[str]:
    """Return the names in a folder."""
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize(
    "words",
    [
        ("run", "a.csv", "--base-url", "http://127.0.0.1:9"),
        ("retry", "--base-url", "http://127.0.0.1:9"),
        ("reconcile", "--base-url", "http://127.0.0.1:9"),
        ("undo", "--all", "--yes", "--base-url", "http://127.0.0.1:9"),
        ("worker", "--ledger", "postgresql://127.0.0.1:9/nobody", "--base-url", "http://127.0.0.1:9"),
    ],
    ids=lambda words: words[0],
)
async def test_too_few_open_files_are_refused_before_anything_is_made(tmp_path: Path, words: tuple[str, ...]) -> None:
    """With the setting, what it may be, and what to type; not as a service that is down."""
    write(tmp_path, 3)
    ended = await command(tmp_path, *words)
    assert ended.code == 2, ended.out + ended.err
    said = " ".join(ended.err.split())
    assert "limits.concurrency: 60 requests at once need" in said
    assert "set it to 2" in said
    assert "ulimit -n" in said
    assert left_in(tmp_path) == ["a.csv"]


async def test_the_soft_limit_is_raised_where_that_is_allowed(tmp_path: Path) -> None:
    """A shell's 64 is nobody's decision as long as the hard limit is higher."""
    write(tmp_path, 300)
    emulator = Emulator()
    async with serve(emulator) as base_url:
        ended = await command(tmp_path, "run", "a.csv", "--base-url", base_url, "--rate", "inf", soft=64, hard=500)
    assert ended.code == 0, ended.out + ended.err
    assert emulator.stats.created == 300


async def test_the_defaults_need_no_more_than_64(tmp_path: Path) -> None:
    """What is kept back for the ledger and the rest is not more than it needs to be, nor less."""
    write(tmp_path, 300)
    async with serve(Emulator()) as base_url:
        words = ("run", "a.csv", "--base-url", base_url, "--rate", "inf")
        ended = await finish(await start(*words, cwd=tmp_path, env=QUICK, before=limited(64, 64)))
    assert ended.code == 0, ended.out + ended.err


async def test_as_many_as_it_says_are_enough(tmp_path: Path) -> None:
    """The number in the message is not only plausible: with it the run goes through, and its limit is used."""
    write(tmp_path, 300)
    said = " ".join((await command(tmp_path, "run", "a.csv", "--base-url", "http://127.0.0.1:9")).err.split())
    most = said.partition("set it to ")[2].partition(" ")[0]
    emulator = Emulator()
    async with serve(emulator) as base_url:
        words = ("run", "a.csv", "--base-url", base_url, "--rate", "inf", "--concurrency", most)
        ended = await command(tmp_path, *words)
    assert ended.code == 0, ended.out + ended.err
    assert emulator.stats.created == 300


async def test_the_doctor_finds_it_out(tmp_path: Path) -> None:
    """Once, in the same words, and as an error of this machine."""
    ended = await command(tmp_path, "doctor", "--base-url", "http://127.0.0.1:9", "--json")
    checks = json.loads(ended.out)["checks"]
    assert ended.code == 2
    failed = [one for one in checks if one["grade"] == "FAIL"]
    assert [one["name"] for one in failed] == ["files"]
    assert "limits.concurrency: 60 requests at once need" in failed[0]["found"]


def test_what_cannot_be_counted_is_assumed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where no folder shows the open files, and where a limit cannot be raised although it says so."""
    monkeypatch.setattr("worker.descriptor._FOLDER", tmp_path / "absent")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, resource.RLIM_INFINITY))
    asked: list[tuple[int, int]] = []

    def set_limit(_: int, limits: tuple[int, int]) -> None:
        asked.append(limits)
        if limits[0] > 200:
            raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", set_limit)
    assert allow(52) == 152
    assert allow(20) == 100
    with pytest.raises(ConfigError, match="need 148 open files, and this process may have 100: set it to 52 or less"):
        allow(100)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (40, 40))
    with pytest.raises(ConfigError, match="may have 40: allow more"):
        allow(1)
    assert asked == [(152, resource.RLIM_INFINITY), (248, resource.RLIM_INFINITY)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert allow(5000) == resource.RLIM_INFINITY


# ---- while it runs --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def closing() -> AsyncIterator[tuple[list[int], anyio.Event, str]]:
    """Serve creates, each on a connection of its own, and none before it is let.

    Yields the requests, the event that lets them go, and where that is.
    """
    arrived: list[int] = []
    go_on = anyio.Event()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        arrived.append(number := len(arrived))
        await go_on.wait()
        body = b'{"sid": "%s"}' % sid("UT", number).encode()
        writer.write(b"HTTP/1.1 201 Created\r\nConnection: close\r\nContent-Length: 45\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    async with server:
        yield arrived, go_on, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="nobody can lower another process's limit here")
async def test_a_limit_that_is_met_later_is_no_outage_and_burns_no_row(tmp_path: Path) -> None:
    """The rows that had left are created, all others are not sent, and the run ends at once instead of in an hour."""
    write(tmp_path, 100)
    async with closing() as (arrived, go_on, base_url):
        env = {**HOLDING, "FLEX_IMPORT__LIMITS__CONCURRENCY": "20"}
        process = await start("run", "a.csv", "--base-url", base_url, "--rate", "inf", "--json", cwd=tmp_path, env=env)
        with anyio.fail_after(20):
            while len(arrived) < 20:  # noqa: ASYNC110 - another process has no event for it
                await anyio.sleep(0.01)
            _, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (20, hard))
            go_on.set()
            ended = await finish(process)
    account = json.loads(ended.out)
    assert ended.code == 3, ended.out + ended.err
    assert account["reason"].startswith("halted: limits.concurrency: this process may open no more files")
    assert account["created"] >= 20
    assert account["created"] + account["not_sent"] + account["unread"] == 100
    assert account["identity_holds"]
    assert "outage" not in ended.err


@pytest.mark.parametrize(("number", "found"), [(errno.EMFILE, True), (errno.ENFILE, True), (errno.EACCES, False)])
def test_a_resolver_that_can_open_no_file_is_found_out(
    monkeypatch: pytest.MonkeyPatch, number: int, *, found: bool
) -> None:
    """It only says that it failed, as it does when there is no network."""
    key = ConnectionKey(
        "flex.example.com", 443, is_ssl=True, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=None
    )
    failed = aiohttp.ClientConnectorDNSError(key, OSError(-3, "Temporary failure in name resolution"))
    assert not misconfiguration(failed, "flex.example.com", None)

    def refuse(*_: object) -> int:
        raise OSError(number, "no")

    monkeypatch.setattr(os, "open", refuse)
    assert misconfiguration(failed, "flex.example.com", None).startswith("limits.concurrency") is found
