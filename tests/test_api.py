"""The API room: bodies and headers on aioresponses, faults on a real socket."""

import socket
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import Mock
from urllib.parse import parse_qs

import aiohttp
import anyio
import pytest
from aioresponses import CallbackResult, aioresponses

from tests.samples_of import row, sid
from worker.api import Api, retry_after
from worker.emulator import Answer, Behaviour, Emulator, Fault, after, before, serve
from worker.errors import ConfigError
from worker.model import Created, InDoubt, Lost, NotSent, Reply
from worker.verdict import judge

HOST = "https://flex-api.twilio.com"


class Gate:
    """A departure that lets the row go at once, or when told, and remembers what happened."""

    def __init__(self, *, closed: bool = False) -> None:
        self.waiting = anyio.Event()
        self.opened = anyio.Event()
        self.seen: list[str] = []
        if not closed:
            self.opened.set()

    async def ready(self) -> None:
        """Wait at the gate."""
        self.seen.append("ready")
        self.waiting.set()
        await self.opened.wait()

    def left(self) -> None:
        """Take note."""
        self.seen.append("left")


class WritableResponse(aiohttp.ClientResponse):
    """aioresponses 0.7.9 does not know an argument that aiohttp 3.14 asks for."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        named.setdefault("stream_writer", Mock(output_size=0))
        super().__init__(*arguments, **named)


def new_api(base_url: str, **settings: Any) -> Api:
    """Return an API for made-up credentials."""
    return Api(base_url, "SK1", "secret", **{"concurrency": 4, "read_timeout": 5.0, **settings})


@pytest.fixture
async def emulator() -> AsyncIterator[tuple[Emulator, str]]:
    """An emulated service on loopback."""
    served = Emulator()
    async with serve(served) as base_url:
        yield served, base_url


async def test_a_create_is_one_post_with_a_form_and_basic_credentials() -> None:
    """What leaves is the documented call: its path, its form, its credentials, and no cookies."""
    wanted = row(1)
    seen: list[dict[str, Any]] = []

    def answer(url: Any, **request: Any) -> CallbackResult:
        seen.append({"url": str(url), **request})
        return CallbackResult(status=201, payload={"sid": sid("UT", 1)}, response_class=WritableResponse)

    path = f"/v1/Interactions/{wanted.interaction_sid}/Channels/{wanted.channel_sid}/Participants"
    with aioresponses() as mocked:
        mocked.post(HOST + path, callback=answer)
        async with new_api(HOST) as api:
            headers = dict(api._session.headers) if api._session else {}
            reply = await api.create(wanted, Gate())
    assert judge(reply) == Created(sid("UT", 1))
    assert seen[0]["url"] == HOST + path
    assert parse_qs(seen[0]["data"].decode()) == {"Type": ["customer"], "MediaProperties": ["{}"]}
    assert seen[0]["allow_redirects"] is False
    assert headers["Authorization"] == "Basic U0sxOnNlY3JldA=="
    assert headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert headers["User-Agent"].startswith("flex-import/")


@pytest.mark.parametrize(
    ("status", "body", "state"),
    [
        (200, '{"sid": "UT%s"}' % ("a" * 32), Created),
        (201, '{"sid": null}', InDoubt),
        (502, "<html>Bad gateway</html>", InDoubt),
    ],
)
async def test_replies_reach_the_verdict_whole(status: int, body: str, state: type) -> None:
    """Status, body and the headers that support asks for come through unchanged."""
    wanted = row(2)
    path = f"/v1/Interactions/{wanted.interaction_sid}/Channels/{wanted.channel_sid}/Participants"
    headers = {"Twilio-Request-Id": "RQ7", "Retry-After": "3"}
    with aioresponses() as mocked:
        mocked.post(HOST + path, status=status, body=body, headers=headers, response_class=WritableResponse)
        async with new_api(HOST) as api:
            reply = await api.create(wanted, Gate())
    assert reply == Reply(status, body.encode(), "RQ7", 3.0)
    assert isinstance(judge(reply), state)


async def test_a_row_leaves_only_after_its_connection_and_its_grant(emulator: tuple[Emulator, str]) -> None:
    """While a row waits for its grant the service has seen nothing of it, though the connection is there."""
    service, base_url = emulator
    gate = Gate(closed=True)
    replies: list[object] = []
    async with new_api(base_url) as api, anyio.create_task_group() as tasks:

        async def create() -> None:
            replies.append(await api.create(row(1), gate))

        tasks.start_soon(create)
        await gate.waiting.wait()
        assert service.stats.arrived == 0
        assert gate.seen == ["ready"]
        gate.opened.set()
    assert gate.seen == ["ready", "left"]
    assert isinstance(replies[0], Reply)
    assert service.stats.created == 1


MADE = {True: 1, False: 0}


@pytest.mark.parametrize("made", [True, False])
@pytest.mark.parametrize("fault", [Fault.RESET, Fault.HANG])
async def test_a_lost_answer_is_lost_whether_or_not_the_row_was_made(
    emulator: tuple[Emulator, str], fault: Fault, made: bool
) -> None:
    """From the outside both look the same, so both are lost and neither is ever `not sent`."""
    service, base_url = emulator
    service.script_next((after if made else before)(fault))
    async with new_api(base_url, read_timeout=0.2) as api:
        answer = await api.create(row(1), Gate())
        await service.until(lambda: service.stats.created == MADE[made])
    assert isinstance(answer, Lost)
    assert isinstance(judge(answer), InDoubt)


async def test_a_truncated_answer_is_lost(emulator: tuple[Emulator, str]) -> None:
    """A body that ends before its length says nothing certain."""
    service, base_url = emulator
    service.script_next(after(Fault.TRUNCATED))
    async with new_api(base_url) as api:
        assert isinstance(await api.create(row(1), Gate()), Lost)
    assert service.stats.created == 1


async def test_a_redirect_is_not_followed(emulator: tuple[Emulator, str]) -> None:
    """Neither the row nor the credentials go where a redirect points."""
    service, base_url = emulator
    service.script_next(before(Fault.REDIRECT))
    async with new_api(base_url) as api:
        answer = await api.create(row(1), Gate())
    assert isinstance(answer, Reply)
    assert answer.status == 307
    assert service.stats.redirects_followed == 0


async def test_a_refused_connection_is_not_sent() -> None:
    """Where nobody listens nothing can have been created, and the grant was not even asked for."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        gate = Gate()
        async with new_api(f"http://127.0.0.1:{unused.getsockname()[1]}") as api:
            answer = await api.create(row(1), gate)
    assert isinstance(answer, NotSent)
    assert gate.seen == []


async def test_a_service_that_never_accepts_is_not_sent_in_bounded_time() -> None:
    """A handshake that hangs ends with the connect time-out and is surely not sent."""

    async def stall(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await anyio.sleep_forever()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, stall)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with new_api(f"https://127.0.0.1:{port}", connect_timeout=0.2) as api:
            gate = Gate()
            assert isinstance(await api.create(row(1), gate), NotSent)
        assert gate.seen == []
        tasks.cancel_scope.cancel()


async def test_a_connection_that_dies_while_its_row_waits_is_replaced() -> None:
    """A server may close an idle connection before the grant comes: the row takes another one and is no doubt."""
    connections = 0
    first_closed = anyio.Event()
    body = b'{"sid": "UT' + b"b" * 32 + b'"}'

    async def handle(stream: anyio.abc.SocketStream) -> None:
        nonlocal connections
        connections += 1
        async with stream:
            if connections == 1:
                await gate.waiting.wait()
                await stream.aclose()
                first_closed.set()
                return
            await stream.receive()
            await stream.send(b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    gate = Gate(closed=True)
    answers: list[object] = []
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with new_api(f"http://127.0.0.1:{port}") as api, anyio.create_task_group() as sending:

            async def create() -> None:
                answers.append(await api.create(row(1), gate))

            sending.start_soon(create)
            await first_closed.wait()
            while api._session is not None and _connected(api._session):
                await anyio.lowlevel.checkpoint()
            gate.opened.set()
        tasks.cancel_scope.cancel()
    assert connections == 2
    assert gate.seen == ["ready", "left"]
    assert isinstance(answers[0], Reply)


def _connected(session: aiohttp.ClientSession) -> bool:
    connector = session.connector
    assert connector is not None
    return any(protocol.is_connected() for protocol in connector._acquired)


async def test_a_row_that_is_cancelled_at_the_gate_never_leaves(emulator: tuple[Emulator, str]) -> None:
    """Who waits for a grant when everything is cut has sent nothing, and its connection serves others."""
    service, base_url = emulator
    gate = Gate(closed=True)
    async with new_api(base_url, concurrency=1) as api:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(api.create, row(1), gate)
            await gate.waiting.wait()
            tasks.cancel_scope.cancel()
        assert gate.seen == ["ready"]
        assert isinstance(await api.create(row(2), Gate()), Reply)
    assert service.stats.arrived == 1


async def test_an_endless_body_is_lost(emulator: tuple[Emulator, str]) -> None:
    """An answer that does not end cannot fill the memory."""
    service, base_url = emulator
    service.script_next(Answer(status=200, body=b"x" * (2 << 20)))
    async with new_api(base_url) as api:
        assert isinstance(await api.create(row(1), Gate()), Lost)


async def test_plain_creates_share_connections_and_none_is_left() -> None:
    """Ten rows over one allowed connection arrive one after the other on it."""
    service = Emulator(Behaviour(created_status=200))
    async with serve(service) as base_url, new_api(base_url, concurrency=1) as api:
        for number in range(10):
            assert isinstance(judge(await api.create(row(number), Gate())), Created)
    assert service.stats.max_in_flight == 1
    assert service.stats.created == 10


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        (" 17 ", 17.0),
        ("Thu, 01 Jan 1970 00:16:50 GMT", 10.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("²", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(header: str | None, seconds: float | None) -> None:
    """Both forms of RFC 9110 count; what cannot be read is as if it had not come."""
    assert retry_after(header, 1000.0) == seconds


def test_a_missing_ca_bundle_is_a_config_error() -> None:
    """The message names the key and the file."""
    with pytest.raises(ConfigError, match=r"api\.ca_bundle: nowhere\.pem"):
        new_api(HOST, ca_bundle="nowhere.pem")
