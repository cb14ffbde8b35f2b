"""Connections that can never be made as things are configured: the first one ends a command, and no row is touched.

The certificates are for these tests alone, like their key; each signs itself.
"""

import asyncio
import json
import socket
import ssl
import struct
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import anyio
import pytest

from tests.commands import CREDENTIALS, HOLDING, QUICK, Ended, finish, flex_import
from tests.postgres import Postgres
from tests.samples_of import row, sid
from tests.test_proxy import PASSWORD, REFUSAL, Gate, proxy
from tests.torture.fleet import Fleet, Scale
from worker.api import Api
from worker.emulator import Emulator, Fault, after, serve
from worker.model import Answer, Halt, Listing, NotSent, Reply, Retry, Unlisted
from worker.verdict import judge, judge_closing

CERTIFICATES = Path(__file__).parent / "certificates"
CREATED = b'HTTP/1.1 201 Created\r\nContent-Length: 45\r\n\r\n{"sid": "%s"}' % sid("UT", 1).encode()
EMPTY = b'HTTP/1.1 200 OK\r\nContent-Length: 32\r\n\r\n{"participants": [], "meta": {}}'
PROTOCOL_VERSION = bytes.fromhex("15 03 01 00 02 02 46")
"""The TLS alert of a server that has no version in common with the client."""

WHERE = (sid("KD", 1), sid("UO", 1))
HEADER = "interaction_sid,channel_sid,type,media_properties.address\n"
ROWS = "".join(f"{sid('KD', number)},{sid('UO', number)},customer,p{number}@example.com\n" for number in range(40))


class Place(NamedTuple):
    """Where a command looks for the API. asked: requests that the service saw."""

    base_url: str
    env: dict[str, str]
    asked: list[bytes]


@asynccontextmanager
async def tls(certificate: str, answer: bytes = CREATED, *, trusted: bool = True) -> AsyncIterator[Place]:
    """Serve over TLS on loopback with one of the certificates; each request gets the same bytes.

    trusted: whether the place's settings name this certificate as a CA.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / f"{certificate}.pem", CERTIFICATES / "key.pem")
    asked: list[bytes] = []

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0, ssl=context)
    async with server:
        bundle = {"FLEX_IMPORT__API__CA_BUNDLE": str(CERTIFICATES / f"{certificate}.pem")} if trusted else {}
        yield Place(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", bundle, asked)


@asynccontextmanager
async def plain(answer: bytes) -> AsyncIterator[Place]:
    """Answer whatever comes with these bytes, without TLS; nothing: reset the connection."""

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1 << 16)
        if not answer:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
            return
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    async with server:
        yield Place(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", {}, [])


def self_signed() -> AbstractAsyncContextManager[Place]:
    """Return a service whose certificate nobody vouches for."""
    return tls("localhost", trusted=False)


def speaking_plain_http() -> AbstractAsyncContextManager[Place]:
    """Return a service without TLS on the port."""
    return plain(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def with_old_tls() -> AbstractAsyncContextManager[Place]:
    """Return a service that only knows older versions of TLS."""
    return plain(PROTOCOL_VERSION)


@asynccontextmanager
async def behind_a_refusing_proxy() -> AsyncIterator[Place]:
    """Yield a service that can be reached over a tunnel of a proxy, which wants other credentials."""
    async with proxy(REFUSAL) as (_, where):
        yield Place("https://127.0.0.1:9", {"FLEX_IMPORT__API__PROXY": f"http://someone:{PASSWORD}@{where}"}, [])


@asynccontextmanager
async def behind_a_refusing_forwarder() -> AsyncIterator[Place]:
    """Yield the same where the proxy is given the request itself."""
    async with behind_a_refusing_proxy() as place:
        yield place._replace(base_url="http://127.0.0.1:9")


async def created(place: Place) -> Answer:
    """Create one row."""
    async with new_api(place) as api:
        return await api.create(row(1), Gate())


def new_api(place: Place) -> Api:
    """Return an API for made-up credentials."""
    through, bundle = (place.env.get(f"FLEX_IMPORT__API__{name}", "") for name in ("PROXY", "CA_BUNDLE"))
    return Api(place.base_url, "SK1", "secret", concurrency=4, read_timeout=5, proxy=through, ca_bundle=bundle)


# ---- what an attempt comes to ---------------------------------------------------------------------------------------

WRONG = [
    (self_signed, "self-signed certificate", "name that CA's file in api.ca_bundle"),
    (lambda: tls("elsewhere"), "is for another host: is api.base_url right?", "api.ca_bundle"),
    (lambda: tls("expired"), "is this machine's clock right?", "api.ca_bundle"),
    (with_old_tls, "TLS 1.2 or newer is needed", "is api.base_url right?"),
    (speaking_plain_http, "speaks no TLS on this port", "plain HTTP"),
    (behind_a_refusing_proxy, "api.proxy: the proxy refuses the user name and password (status 407)", "USER:PASSWORD"),
    (behind_a_refusing_forwarder, "api.proxy: the proxy refuses the user name and password (status 407)", ""),
]
NAMES = ["self-signed", "another host", "expired", "old tls", "plain http", "407 to connect", "407 to a request"]


@pytest.mark.parametrize(("where", "what", "advice"), WRONG, ids=NAMES)
async def test_a_setting_that_cannot_work_halts_and_is_named(
    where: Callable[[], AbstractAsyncContextManager[Place]], what: str, advice: str
) -> None:
    """Each of the calls says the same when it comes first, and nothing reaches the service."""
    async with where() as place:
        answer = await created(place)
        async with new_api(place) as api:
            listing = await api.list(*WHERE, Gate())
            closing = await api.close(*WHERE, sid("UT", 1), Gate())
            probed, _ = await api.probe(*WHERE, Gate())
    assert isinstance(answer, NotSent)
    assert answer.misconfigured
    assert what in answer.reason
    assert advice in answer.reason
    assert PASSWORD not in answer.reason
    assert answer == closing == probed
    assert listing == Unlisted(answer.reason, failed=True, unreachable=True, misconfigured=True)
    assert judge(answer) == judge_closing(answer, "UT") == Halt("misconfigured", answer.reason, misconfigured=True)
    assert place.asked == []


async def test_the_environments_proxy_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody finds a setting that is not in the config."""
    async with proxy(REFUSAL) as (_, where):
        monkeypatch.setenv("HTTPS_PROXY", f"http://{where}")
        api = Api("https://flex.example.com", "SK1", "secret", concurrency=1, trust_environment=True)
        async with api:
            answer = await api.create(row(1), Gate())
    wants = "HTTPS_PROXY: the proxy wants a user name and password (status 407); write http://USER:PASSWORD@HOST:PORT"
    assert answer == NotSent(f"{wants} there", misconfigured=True)


async def test_a_proxys_own_certificate_is_not_taken_for_the_services() -> None:
    """An https proxy that nobody vouches for: its address is not shown."""
    async with self_signed() as place:
        there = Api(
            "https://flex.example.com", "SK1", "secret", concurrency=1, proxy=place.base_url.replace("//", "//a:b@")
        )
        async with there as api:
            answer = await api.create(row(1), Gate())
    assert isinstance(answer, NotSent)
    assert answer.reason.startswith("the certificate of the proxy that api.proxy names does not verify")
    assert "127.0.0.1" not in answer.reason


async def test_a_real_server_with_tls_1_1_only_is_known_by_its_alert() -> None:
    """As OpenSSL says it, not only as these tests do."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "localhost.pem", CERTIFICATES / "key.pem")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that these versions are deprecated is why they are here
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:  # asyncio's own server drops the alert
        accepted, _ = listener.accept()
        with accepted, suppress(ssl.SSLError):
            context.wrap_socket(accepted, server_side=True)

    with listener:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, accept)
            answer = await created(Place(f"https://127.0.0.1:{listener.getsockname()[1]}", {}, []))
    assert isinstance(answer, NotSent)
    assert "TLS 1.2 or newer is needed" in answer.reason


async def test_a_ca_of_ones_own_makes_the_same_service_work() -> None:
    """What the message tells to do helps."""
    async with tls("localhost") as place:
        assert isinstance(await created(place), Reply)
    async with tls("localhost", EMPTY) as place, new_api(place) as api:
        assert await api.list(*WHERE, Gate()) == Listing(())


@pytest.mark.parametrize("answer", [b"", bytes.fromhex("15 03 03 00 02 02 50")], ids=["reset", "internal error"])
async def test_a_handshake_that_breaks_is_tried_again(answer: bytes) -> None:
    """A service that restarts resets connections, or says that something inside it went wrong."""
    async with plain(answer) as place:
        found = await created(place)
    assert isinstance(found, NotSent)
    assert not found.misconfigured
    assert isinstance(judge(found), Retry)


async def test_a_407_without_a_proxy_of_ours_is_a_strangers() -> None:
    """As the verdict table says: a reply, no setting."""
    async with proxy(REFUSAL) as (_, where):
        answer = await created(Place(f"http://{where}", {}, []))
    assert isinstance(answer, Reply)
    assert answer.status == 407


async def test_another_refusal_of_a_proxy_is_tried_again() -> None:
    """A proxy whose own upstream is down says 502, and may be right again in a minute."""
    async with proxy(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n") as (_, where):
        answer = await created(Place("https://127.0.0.1:9", {"FLEX_IMPORT__API__PROXY": f"http://{where}"}, []))
    assert answer == NotSent("ClientHttpProxyError (status 502)")


# ---- what a command comes to ----------------------------------------------------------------------------------------

PLACES = [
    (self_signed, "api.ca_bundle"),
    (with_old_tls, "TLS 1.2 or newer"),
    (behind_a_refusing_proxy, "api.proxy"),
    (behind_a_refusing_forwarder, "api.proxy"),
]
PLACE_NAMES = ["certificate", "tls", "407 to connect", "407 to a request"]


async def command(folder: Path, place: Place, *words: str, env: dict[str, str] | None = None) -> Ended:
    """Run a command against a place; it ends long before an outage would."""
    (folder / "a.csv").write_text(HEADER + ROWS, encoding="utf-8")
    with anyio.fail_after(20):
        return await flex_import(
            *words, "--base-url", place.base_url, cwd=folder, env={**QUICK, **(env or {}), **place.env}
        )


def words_of(ended: Ended) -> str:
    """Return what a command printed, unfolded."""
    return " ".join((ended.out + ended.err).split())


@pytest.mark.parametrize(("where", "setting"), PLACES, ids=PLACE_NAMES)
@pytest.mark.parametrize("policy", ["reconcile", "hold"])
async def test_a_run_ends_at_once_and_burns_no_row(
    tmp_path: Path, policy: str, where: Callable[[], AbstractAsyncContextManager[Place]], setting: str
) -> None:
    """Whether its first call is a list or a create; all its rows are as they were, and a run that can sends them."""
    async with where() as place:
        ended = await command(tmp_path, place, "run", "a.csv", "--json", env={"FLEX_IMPORT__DOUBT__POLICY": policy})
    assert ended.code == 2, ended.out + ended.err
    account = json.loads(ended.out)
    assert setting in account["reason"]
    assert account["not_sent"] + account["unread"] == 40
    assert account["identity_holds"]
    assert account["requests"] == account["retries"] == 0
    emulator = Emulator()
    async with serve(emulator) as base_url:
        ended = await command(tmp_path, Place(base_url, {}, []), "run", "a.csv", "--rate", "inf")
    assert ended.code == 0, ended.out + ended.err
    assert emulator.stats.created == 40


@pytest.mark.parametrize(("where", "setting"), PLACES, ids=PLACE_NAMES)
async def test_a_reconciliation_ends_at_once_and_keeps_its_doubts(
    tmp_path: Path, where: Callable[[], AbstractAsyncContextManager[Place]], setting: str
) -> None:
    """A list that cannot be asked for says nothing about a row; the next one resolves it."""
    emulator = Emulator()
    emulator.script_next(*[after(Fault.RESET)] * 2)
    async with serve(emulator) as base_url, where() as place:
        here = Place(base_url, {}, [])
        first = await command(tmp_path, here, "run", "a.csv", "--rate", "inf", "--limit", "2", env=HOLDING)
        assert first.code == 6, first.out + first.err
        ended = await command(tmp_path, place, "reconcile")
        assert ended.code == 2, ended.out + ended.err
        assert setting in words_of(ended)
        status = await flex_import("status", "--json", cwd=tmp_path, env=CREDENTIALS)
        assert json.loads(status.out)["in_doubt"] == 2


@pytest.mark.parametrize(("where", "setting"), PLACES, ids=PLACE_NAMES)
async def test_an_undo_ends_at_once_and_closes_nothing(
    tmp_path: Path, where: Callable[[], AbstractAsyncContextManager[Place]], setting: str
) -> None:
    """Its rows are still created, and no row is counted as an error."""
    async with serve(Emulator()) as base_url, where() as place:
        here = Place(base_url, {}, [])
        assert (await command(tmp_path, here, "run", "a.csv", "--rate", "inf")).code == 0
        ended = await command(tmp_path, place, "undo", "--all", "--yes", "--json")
        assert ended.code == 2, ended.out + ended.err
        account = json.loads(ended.out)
        assert setting in account["reason"]
        assert (account["left"], account["errored"], account["requests"]) == (40, 0, 0)
        again = await command(tmp_path, here, "undo", "--all", "--yes", "--rate", "inf")
    assert again.code == 0, again.out + again.err


@pytest.mark.parametrize(("where", "setting"), PLACES, ids=PLACE_NAMES)
async def test_the_doctor_says_the_same(
    tmp_path: Path, where: Callable[[], AbstractAsyncContextManager[Place]], setting: str
) -> None:
    """Before a night is lost on it."""
    async with where() as place:
        ended = await command(tmp_path, place, "doctor")
    assert ended.code == 2, ended.out + ended.err
    assert setting in words_of(ended)
    assert "FAIL service" in words_of(ended)


async def test_a_certificate_that_fails_later_halts_and_keeps_what_was_done(tmp_path: Path) -> None:
    """Once something was sent it is no usage error any more: exit 3, as of every halt on the way."""
    answers: list[bytes] = []
    good, bad = (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for _ in range(2))
    good.load_cert_chain(CERTIFICATES / "localhost.pem", CERTIFICATES / "key.pem")
    bad.load_cert_chain(CERTIFICATES / "expired.pem", CERTIFICATES / "key.pem")

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(answers)
        answers.append(await reader.readuntil(b"\r\n\r\n"))
        body = b'{"sid": "%s"}' % sid("UT", number).encode()
        writer.write(b"HTTP/1.1 201 Created\r\nConnection: close\r\nContent-Length: 45\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    def choose(found: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        if len(answers) >= 3:
            found.context = bad

    good.set_servername_callback(choose)  # type: ignore[arg-type]
    server = await asyncio.start_server(serve_one, "127.0.0.1", 0, ssl=good)
    async with server:
        place = Place(f"https://localhost:{server.sockets[0].getsockname()[1]}", {}, [])
        env = {
            **HOLDING,
            "FLEX_IMPORT__API__CA_BUNDLE": str(CERTIFICATES / "localhost.pem"),
            "FLEX_IMPORT__LIMITS__CONCURRENCY": "1",
        }
        ended = await command(tmp_path, place, "run", "a.csv", "--json", "--rate", "inf", env=env)
    assert ended.code == 3, ended.out + ended.err
    account = json.loads(ended.out)
    assert account["reason"].startswith("halted: the certificate of localhost does not verify")
    assert account["created"] == 3
    assert account["not_sent"] + account["unread"] == 37
    assert account["failed"] == account["in_doubt"] == 0


@pytest.mark.timeout(90)
@pytest.mark.parametrize(("where", "setting"), [PLACES[0], PLACES[2]], ids=[PLACE_NAMES[0], PLACE_NAMES[2]])
async def test_a_worker_ends_at_once_and_leaves_its_rows_to_others(
    tmp_path: Path, server: Postgres, where: Callable[[], AbstractAsyncContextManager[Place]], setting: str
) -> None:
    """It does not take chunk after chunk: a worker whose settings are right sends them all."""
    emulator = Emulator()
    async with serve(emulator) as base_url:
        fleet = Fleet(Scale(rows=300, channels=300, rate=1000, workers=1), tmp_path, server, emulator, base_url)
        await fleet.enqueue()
        async with where() as place:
            fleet.env |= place.env
            fleet.base_url = place.base_url
            with anyio.fail_after(20):
                ended = await finish(await fleet.hire())
        assert ended.code == 2, ended.out + ended.err
        assert setting in json.loads(ended.out)["reason"]
        for name in place.env:
            del fleet.env[name]
        fleet.base_url = base_url
        worker = await fleet.hire()
        with anyio.fail_after(40):
            await emulator.until(lambda: emulator.stats.created == 300)
        worker.terminate()
        await worker.wait()
