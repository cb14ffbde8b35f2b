"""The API room: bodies and headers on aioresponses, faults on a real socket."""

import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any
from unittest.mock import Mock
from urllib.parse import parse_qs

import aiohttp
import anyio
import pytest
from aioresponses import CallbackResult, aioresponses

from tests.samples_of import row, sid
from worker.api import Api, retry_after
from worker.emulator import (
    FAULTS,
    Answer,
    Behaviour,
    Call,
    Emulator,
    Fault,
    Scripted,
    after,
    before,
    ordinary,
    serve,
    throttled,
)
from worker.errors import ConfigError
from worker.model import Created, InDoubt, Listed, Listing, Lost, NotSent, Reply, Unlisted
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
            reply = await api.create(wanted, Gate())
    assert judge(reply) == Created(sid("UT", 1))
    assert seen[0]["url"] == HOST + path
    assert parse_qs(seen[0]["data"].decode()) == {"Type": ["customer"], "MediaProperties": ["{}"]}
    assert seen[0]["allow_redirects"] is False
    headers = seen[0]["headers"]
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
            while _connected(api._session):
                await anyio.lowlevel.checkpoint()
            gate.opened.set()
        tasks.cancel_scope.cancel()
    assert connections == 2
    assert gate.seen == ["ready", "ready", "left"]  # each time it was the rate's turn
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


TEN_YEARS = 315_360_000.0


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
        ("Thu, 01 Jan 1970 00:16:50 -0000", 10.0),  # without a zone, wherever this machine is
        ("9" * 5000, TEN_YEARS),
        ("315360001", TEN_YEARS),
        ("Fri, 31 Dec 9999 23:59:59 GMT", TEN_YEARS),
        ("Fri, 31 Dec 9999 23:59:59 -2359", TEN_YEARS),
        ("Thu, " + "9" * 5000 + " Jan 1970 00:00:00 GMT", None),
        ("", None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(header: str | None, seconds: float | None) -> None:
    """Both forms of RFC 9110 count; what cannot be read is as if it had not come."""
    assert retry_after(header, 1000.0) == seconds


@pytest.mark.parametrize(
    ("date", "least", "most"),
    [
        (b"Date: Thu, 01 Jan 1970 00:16:40 GMT\r\n", 10, 10),  # by the service's clock, however wrong ours is
        (b"Date: yesterday\r\n", 0, 0),
        (b"Date: \xff\r\n", 0, 0),
        (b"", 0, 0),
    ],
)
async def test_a_date_to_wait_for_is_judged_by_the_clock_that_wrote_it(date: bytes, least: float, most: float) -> None:
    """Two clocks that differ must not make a wait of hours, or none; without a date in the answer ours has to do."""
    head = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: Thu, 01 Jan 1970 00:16:50 GMT\r\n"
    answer = await answered(head + date + b"Content-Length: 0\r\n\r\n")
    assert isinstance(answer, Reply)
    assert answer.retry_after_seconds is not None
    assert least <= answer.retry_after_seconds <= most


async def test_an_endless_number_of_seconds_can_be_logged() -> None:
    """A number of thousands of digits becomes no infinity, which JSON does not have."""
    head = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: %s\r\nContent-Length: 0\r\n\r\n"
    answer = await answered(head % (b"9" * 5000))
    assert isinstance(answer, Reply)
    assert json.dumps(answer.retry_after_seconds, allow_nan=False) == str(TEN_YEARS)


# ---- answers, byte by byte ------------------------------------------------------------------------------------------


async def answered(*parts: bytes, **settings: Any) -> object:
    """Create one row; the service's answer is these bytes, part by part, and then it hangs up."""

    async def handle(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            for part in parts:
                await stream.send(part)
                await anyio.sleep(0.02)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with new_api(f"http://127.0.0.1:{port}", **settings) as api:
            answer = await api.create(row(1), Gate())
        tasks.cancel_scope.cancel()
    return answer


@pytest.mark.parametrize(
    "headers",
    [
        b"X-Long: %s\r\n" % (b"x" * (64 << 10)),
        b"%s: x\r\n" % (b"X" * (64 << 10)),
        b"".join(b"X-Number-%d: x\r\n" % number for number in range(1500)),
        b"X-Same: x\r\n" * 1500,
    ],
    ids=["long value", "long name", "many", "many alike"],
)
@pytest.mark.parametrize("reason", [b"Created", b"C" * (64 << 10)], ids=["short", "long"])
async def test_an_answer_with_large_headers_is_read(headers: bytes, reason: bytes) -> None:
    """What gateways add must not turn a participant that was made into a doubt."""
    body = b'{"sid": "%s"}' % sid("UT", 1).encode()
    head = b"HTTP/1.1 201 %s\r\n%sContent-Length: %d\r\n\r\n" % (reason, headers, len(body))
    assert await answered(head + body) == Reply(201, body)


GOOD = b"HTTP/1.1 201 Created\r\n"
CHUNKED = GOOD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "parts",
    [
        [b"hello Secret\r\n\r\n"],
        [GOOD + b"Secret header\r\n\r\n"],
        [GOOD + b"Content-Length: Secret\r\n\r\n"],
        [GOOD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"],
        [GOOD + b"X: %s" % (b"Secret" * 100_000)],
        [CHUNKED + b"Secret\r\n"],
        [CHUNKED + b"2\r\nabSecret\r\n"],
        [GOOD + b"Content-Encoding: gzip\r\nContent-Length: 6\r\n\r\nSecret"],
    ],
    ids=lambda parts: parts[-1][-40:].decode(),
)
async def test_what_is_not_http_is_called_so(parts: list[bytes]) -> None:
    """A status that the service never gave would mislead whoever looks into it; its words stay out of it, too."""
    assert await answered(*parts) == Lost("the answer is not valid HTTP")


@pytest.mark.parametrize("parts", [[CHUNKED, b"Secret\r\n"], [CHUNKED + b"2\r\nab\r\n", b"Secret\r\n"]])
async def test_an_answer_that_turns_bad_half_way_does_not_hang(parts: list[bytes]) -> None:
    """The client library closes such a connection and forgets who reads from it: the read timeout ends the wait."""
    with anyio.fail_after(5):
        assert await answered(*parts, read_timeout=0.2) == Lost("no answer within 0.2 s")


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([b"HTTP/1.1 20"], "ServerDisconnectedError: Server disconnected"),
        ([b"HTTP/1.1 201 Secret\r\nSecret: Secret\r\n"], "ServerDisconnectedError: Server disconnected"),
        ([b""], "ServerDisconnectedError: Server disconnected"),
        ([CHUNKED + b"5\r\nab"], "ClientPayloadError: the answer is not complete"),
        ([CHUNKED, b"5\r\nab"], "ClientPayloadError: the answer is not complete"),
        ([GOOD + b"Content-Length: 9\r\n\r\nSecret"], "ClientPayloadError: the answer is not complete"),
    ],
)
async def test_half_an_answer_is_called_so(parts: list[bytes], reason: str) -> None:
    """What breaks off is no answer; neither a status nor what came of it is told."""
    assert await answered(*parts) == Lost(f"the connection broke before the answer: {reason}")


async def test_a_proxy_that_speaks_no_http_is_called_so() -> None:
    """What a proxy says before anything left leaves nothing in doubt, and it is described alike."""

    async def handle(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"hello Secret\r\n\r\n")

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with new_api("https://127.0.0.1:1", proxy=f"http://127.0.0.1:{port}") as api:
            assert await api.create(row(1), Gate()) == NotSent("the answer is not valid HTTP")
        tasks.cancel_scope.cancel()


def test_a_missing_ca_bundle_is_a_config_error() -> None:
    """The message names the key and the file."""
    with pytest.raises(ConfigError, match=r"api\.ca_bundle: nowhere\.pem"):
        new_api(HOST, ca_bundle="nowhere.pem")


# ---- lists ----------------------------------------------------------------------------------------------------------

WHERE = (sid("KD", 1), sid("UO", 1))


def page(participants: object = (), next_page_url: object = None) -> Answer:
    """Return one page of a list, word for word."""
    return Answer(
        status=200, body=json.dumps({"participants": participants, "meta": {"next_page_url": next_page_url}}).encode()
    )


async def listed(emulator: tuple[Emulator, str], *answers: Answer | Scripted, **settings: Any) -> Listing | Unlisted:
    """List the channel once; the service gives these answers."""
    service, base_url = emulator
    service.script_next(*answers, on=Call.LIST)
    async with new_api(base_url, **settings) as api:
        return await api.list(*WHERE, Gate())


@pytest.mark.parametrize(("count", "pages"), [(0, 1), (1, 1), (1000, 1), (1001, 2), (2500, 3)])
async def test_a_channel_is_listed_to_its_end(emulator: tuple[Emulator, str], count: int, pages: int) -> None:
    """All pages make one list, each as large as is allowed, and each waits for its own grant."""
    service, base_url = emulator
    for _ in range(count):
        service.add_foreign(WHERE[1], type="agent", routing_properties={"task_sid": "WT1"})
    service.add_foreign(sid("UO", 2))
    gate = Gate()
    async with new_api(base_url) as api:
        listing = await api.list(*WHERE, gate)
    assert listing == Listing(
        tuple(Listed(each.sid, "agent", {"task_sid": "WT1"}) for each in service.participants[:count])
    )
    assert gate.seen == ["ready", "left"] * pages
    assert service.stats.listed == pages


async def test_a_page_waits_for_its_grant(emulator: tuple[Emulator, str]) -> None:
    """While the second page has no grant, the service has not been asked for it."""
    service, base_url = emulator
    for _ in range(1001):
        service.add_foreign(WHERE[1])
    gate = OnceOpenGate()
    found: list[object] = []
    async with new_api(base_url) as api, anyio.create_task_group() as tasks:

        async def ask() -> None:
            found.append(await api.list(*WHERE, gate))

        tasks.start_soon(ask)
        await gate.waiting.wait()
        assert (gate.seen, service.stats.listed, found) == (["ready", "left", "ready"], 1, [])
        gate.opened.set()
    assert isinstance(found[0], Listing)
    assert len(found[0].participants) == 1001


class OnceOpenGate(Gate):
    """A departure that lets one page go, and the next ones when told."""

    def __init__(self) -> None:
        super().__init__(closed=True)

    async def ready(self) -> None:
        """Wait at the gate, except for the first time."""
        if self.seen:
            await super().ready()
        else:
            self.seen.append("ready")


@pytest.mark.parametrize(
    ("scheme", "user", "host"),
    [
        ("http", "", "other"),
        ("http", "", "localhost:{port}"),
        ("https", "", "127.0.0.1:{port}"),
        ("http", "", "127.0.0.1"),
        ("http", "127.0.0.1:{port}@", "other"),
        ("http", "someone:else@", "127.0.0.1:{port}"),
        ("http", "someone@", "127.0.0.1:{port}"),
    ],
)
async def test_a_next_page_elsewhere_is_never_asked_for(
    emulator: tuple[Emulator, str], scheme: str, user: str, host: str
) -> None:
    """Credentials go to the origin that was configured, whatever a list says; another user is another place, too."""
    service, base_url = emulator
    stranger = Emulator()
    async with serve(stranger) as other_url:
        address = f"{user}{host}".replace("other", other_url.removeprefix("http://"))
        next_url = f"{scheme}://{address}/v1/Interactions/{WHERE[0]}/Channels/{WHERE[1]}/Participants"
        answer = page([{"sid": sid("UT", 1)}], next_url.replace("{port}", base_url.rpartition(":")[2]))
        # this list only is of no use: another channel's may be whole, so lists are not given up
        assert await listed(emulator, answer) == Unlisted("the next page of the list is at another address")
    assert stranger.stats.listed == 0
    assert (service.stats.listed, service.stats.unauthorized) == (1, 0)


@pytest.mark.parametrize(
    "next_url",
    [
        "/v1/Interactions/next",
        "?Page=1",
        "//127.0.0.1/v1",
        "next page",
        "mailto:someone@example.com",
        "http://127.0.0.1:99999/v1",
        "http://[::1/v1",
        "http://127.0.0.1/v1\r\nHost:elsewhere",
        "http://127.0.0.1/\0",
        "http://127.0.0.1/v1 HTTP/1.1",
        "http://127.0.0.1/\ud800",
        "http://127.0.0.1/é",
        5,
        True,
        ["http://127.0.0.1"],
        {},
    ],
)
async def test_a_next_page_that_is_no_address_is_no_list(emulator: tuple[Emulator, str], next_url: object) -> None:
    """Half a list would make rows look absent that are there; nothing is raised, nothing is asked for."""
    service, _ = emulator
    assert await listed(emulator, page([], next_url)) == Unlisted("the list is not what the API documents")
    assert service.stats.listed == 1


@pytest.mark.parametrize("case", [str, lambda url: url.replace("http://localhost", "HTTP://LocalHost")])
async def test_a_next_page_of_the_same_origin_is_asked_for_as_it_stands(
    emulator: tuple[Emulator, str], case: Callable[[str], str]
) -> None:
    """Its escapes are the service's business; the case of scheme and host makes no other origin."""
    service, base_url = emulator
    base_url = base_url.replace("127.0.0.1", "localhost")
    path = f"/v1/Interactions/{WHERE[0]}/Channels/{WHERE[1]}/Participants"
    service.script_next(page([], case(f"{base_url}{path}?PageToken=a%2Bb%2F%20c&x=%3D")), page([]), on=Call.LIST)
    asked: list[str] = []
    async with new_api(base_url) as api:
        trace = aiohttp.TraceConfig()
        trace.on_request_start.append(lambda _session, _context, sent: _noted(asked, sent.url.raw_path_qs))
        trace.freeze()
        api._session._trace_configs.append(trace)
        assert await api.list(*WHERE, Gate()) == Listing(())
    assert asked == [f"{path}?PageSize=1000", f"{path}?PageToken=a%2Bb%2F%20c&x=%3D"]


async def _noted(notes: list[str], note: str) -> None:
    notes.append(note)


async def test_a_list_without_end_is_bounded(emulator: tuple[Emulator, str]) -> None:
    """A service whose pages go on and on is left after a hundred of them."""
    service, base_url = emulator
    path = f"{base_url}/v1/Interactions/{WHERE[0]}/Channels/{WHERE[1]}/Participants"
    endless = [page([{"sid": sid("UT", 1)}], f"{path}?Page={number}") for number in range(101)]
    service.script_next(*endless, on=Call.LIST)
    gate = Gate()
    async with new_api(base_url) as api:
        assert await api.list(*WHERE, gate) == Unlisted("the list does not end after 100 pages")
    assert gate.seen == ["ready", "left"] * 100
    assert service.stats.listed == 100


@pytest.mark.parametrize("queries", [["?PageSize=1000"], ["?Page=1", "?Page=1"], ["?Page=1", "?Page=2", "?Page=1"]])
async def test_a_list_that_leads_in_a_circle_is_no_list(emulator: tuple[Emulator, str], queries: list[str]) -> None:
    """The same address twice would give the same page twice, a hundred times over: it is not asked for again."""
    service, base_url = emulator
    path = f"{base_url}/v1/Interactions/{WHERE[0]}/Channels/{WHERE[1]}/Participants"
    pages = [page([{"sid": sid("UT", 1)}], path + query) for query in queries]
    assert await listed(emulator, *pages) == Unlisted("the list leads to the same page twice")
    assert service.stats.listed == len(queries)


async def test_a_list_that_is_too_large_as_a_whole_is_no_list(emulator: tuple[Emulator, str]) -> None:
    """Pages that are allowed one by one cannot fill the memory together."""
    service, base_url = emulator
    path = f"{base_url}/v1/Interactions/{WHERE[0]}/Channels/{WHERE[1]}/Participants"
    filler = b" " * (15 << 20)
    pages = [
        Answer(status=200, body=filler + (page([], f"{path}?Page={number}").body or b"")) for number in range(1, 6)
    ]
    assert await listed(emulator, *pages, page([])) == Unlisted("the list is larger than 64 MiB")
    assert service.stats.listed == 5


@pytest.mark.parametrize("first_pages", [0, 1])
@pytest.mark.parametrize("other", [sid("UO", 2), sid("UO", 1) + "0", "UO", 7, ["UO"], {"a": 1}])
async def test_a_list_of_another_channel_is_no_list(
    emulator: tuple[Emulator, str], other: object, first_pages: int
) -> None:
    """Who is in another channel says nothing about this one: neither that a row is there nor that it is not."""
    _, base_url = emulator
    again = f"{base_url}/v1/Interactions/{WHERE[0]}/Channels/{WHERE[1]}/Participants"
    mine = {"sid": sid("UT", 1), "channel_sid": WHERE[1]}
    pages = [page([mine], again)] * first_pages
    found = await listed(emulator, *pages, page([mine, {"sid": sid("UT", 2), "channel_sid": other}]))
    assert found == Unlisted("the list has a participant of another channel")


@pytest.mark.parametrize("channel", [WHERE[1], WHERE[1].lower(), WHERE[1].upper(), None, ""])
async def test_an_entry_of_the_channel_or_of_no_named_one_counts(
    emulator: tuple[Emulator, str], channel: str | None
) -> None:
    """Case does not matter, and an entry need not say where it is."""
    found = await listed(emulator, page([{"sid": sid("UT", 1), "channel_sid": channel}]))
    assert found == Listing((Listed(sid("UT", 1), None, None),))


@pytest.mark.parametrize(
    ("answer", "unlisted"),
    [
        (Answer(status=401, code=20003), Unlisted("status 401", refused=True)),
        (Answer(status=403), Unlisted("status 403", refused=True)),
        (Answer(status=405, code=20004), Unlisted("status 405", refused=True)),
        (Answer(status=404, code=20404), Unlisted("status 404", missing=True)),
        (throttled(), Unlisted("too many requests", throttled=True, code="45780")),
        (
            throttled(retry_after="7"),
            Unlisted("too many requests", throttled=True, code="45780", retry_after_seconds=7.0),
        ),
        (throttled(code=20429, retry_after="soon"), Unlisted("too many requests", throttled=True, code="20429")),
        (Answer(status=500, code=20500), Unlisted("status 500", failed=True)),
        (Answer(status=503, body=b"<html>", content_type="text/html"), Unlisted("status 503", failed=True)),
        (Answer(status=400, code=20001), Unlisted("status 400")),
        (Answer(status=204, body=b""), Unlisted("status 204")),
        (Answer(status=201, body=b'{"participants": [], "meta": {}}'), Unlisted("status 201")),
    ],
    ids=lambda found: str(found.status) if isinstance(found, Answer) else "",
)
@pytest.mark.parametrize("first_pages", [0, 1])
async def test_what_a_refused_list_means(
    emulator: tuple[Emulator, str], answer: Answer, unlisted: Unlisted, first_pages: int
) -> None:
    """Refused for all, missing here, too many for now, or just not now; on a later page as on the first."""
    service, base_url = emulator
    again = f"{base_url}/v1/Interactions/{WHERE[0]}/Channels/{WHERE[1]}/Participants"
    pages = [page([{"sid": sid("UT", 1)}], again)] * first_pages
    assert await listed(emulator, *pages, answer, page([])) == unlisted
    assert service.stats.listed == first_pages + 1


BROKEN = {Fault.RESET, Fault.HANG, Fault.ENDLESS_CONTINUE, Fault.CUT_HEADERS}


@pytest.mark.parametrize("fault", sorted({*FAULTS[Call.LIST]} - {Fault.NULL_SID, Fault.HIDDEN_ENTRY}))
@pytest.mark.parametrize("first_pages", [0, 1])
async def test_a_list_that_breaks_is_no_list(emulator: tuple[Emulator, str], fault: Fault, first_pages: int) -> None:
    """Whatever the network does, on whatever page, is an answer: never an error, never a shorter list."""
    service, _ = emulator
    for _ in range(1500):
        service.add_foreign(WHERE[1])
    service.add_foreign(sid("UO", "another"))
    service.change(hang_seconds=0.2)
    found = await listed(emulator, *[ordinary()] * first_pages, *[after(fault)] * 2, read_timeout=1)
    assert isinstance(found, Unlisted)
    assert (found.missing, found.throttled) == (False, False)
    assert found.refused <= (fault is Fault.STRANGERS_PAGE)
    assert found.reason
    # aiohttp repeats a GET by itself, once, when a connection breaks
    asked = service.stats.listed - first_pages
    assert asked == 1 or fault in BROKEN or fault is Fault.ENDLESS_PAGES
    assert service.stats.redirects_followed == 0


async def test_a_list_that_aiohttp_repeats_is_granted_again(emulator: tuple[Emulator, str]) -> None:
    """A GET on a connection that breaks is sent once more, within the rate."""
    service, base_url = emulator
    service.script_next(before(Fault.RESET), on=Call.LIST)
    gate = Gate()
    async with new_api(base_url) as api:
        assert await api.list(*WHERE, gate) == Listing(())
    assert gate.seen == ["ready", "left"] * 2
    assert service.stats.listed == 2


async def test_a_list_without_sids_says_so_of_each_entry(emulator: tuple[Emulator, str]) -> None:
    """Entries whose sid is null are there, and have none."""
    service, _ = emulator
    service.add_foreign(WHERE[1])
    assert await listed(emulator, after(Fault.NULL_SID)) == Listing((Listed(None, "customer", None),))


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, Listed(None, None, None)),
        ({"sid": None, "type": None, "routing_properties": None}, Listed(None, None, None)),
        ({"sid": "", "type": "", "routing_properties": {}}, Listed(None, "", {})),
        ({"sid": 7, "type": 7, "routing_properties": '{"task_sid": "WT1"}'}, Listed(None, None, None)),
        ({"sid": "UT1", "type": "agent"}, Listed(None, "agent", None)),
        ({"sid": f"{sid('UT', 1)}\n", "type": "agent"}, Listed(None, "agent", None)),
        ({"sid": "UT" + "\ud800" * 32}, Listed(None, None, None)),
        ({"sid": sid("UT", 1).upper(), "colour": "red"}, Listed(sid("UT", 1).upper(), None, None)),
    ],
)
async def test_a_missing_part_of_an_entry_is_none(
    emulator: tuple[Emulator, str], entry: dict[str, Any], expected: Listed
) -> None:
    """What is missing, null, of another kind or no participant's sid is not known; the entry counts all the same."""
    whole = {"sid": sid("UT", 9), "type": "customer", "routing_properties": {"task_sid": "WT1"}}
    found = await listed(emulator, page([whole, entry]))
    assert found == Listing((Listed(sid("UT", 9), "customer", {"task_sid": "WT1"}), expected))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'"participants"',
        b'{"participants": []}',
        b'{"participants": [], "meta": null}',
        b'{"participants": [], "meta": []}',
        b'{"meta": {"next_page_url": null}}',
        b'{"participants": null, "meta": {}}',
        b'{"participants": {}, "meta": {}}',
        b'{"participants": "", "meta": {}}',
        b'{"participants": [null], "meta": {}}',
        b'{"participants": [["sid"]], "meta": {}}',
        b'{"participants": [], "meta": {}} trailing',
        b"[" * 200_000,
        b"\xff\xfe",
        b"<html>",
    ],
    ids=lambda body: body[:40].decode("latin-1"),
)
async def test_what_is_no_list_is_no_empty_list(emulator: tuple[Emulator, str], body: bytes) -> None:
    """An answer that only resembles a list must not make rows look absent, or they would be made twice."""
    found = await listed(emulator, Answer(status=200, body=body))
    assert found == Unlisted("the list is not what the API documents")


async def test_a_page_with_much_routing_is_read(emulator: tuple[Emulator, str]) -> None:
    """A thousand participants with the attributes of their tasks are more than one answer to a create may be."""
    entries = [{"sid": sid("UT", number), "routing_properties": {"x": "y" * 4000}} for number in range(1000)]
    found = await listed(emulator, page(entries))
    assert isinstance(found, Listing)
    assert len(found.participants) == 1000


async def test_an_endless_page_is_no_list(emulator: tuple[Emulator, str]) -> None:
    """A page cannot fill the memory."""
    found = await listed(emulator, Answer(status=200, body=b" " * (17 << 20)))
    assert found == Unlisted("the answer's body is larger than 16 MiB", failed=True)


async def test_a_list_from_nobody_is_no_list() -> None:
    """Where nobody listens there is a reason, and no grant was used up."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        gate = Gate()
        async with new_api(f"http://127.0.0.1:{unused.getsockname()[1]}") as api:
            found = await api.list(*WHERE, gate)
    assert isinstance(found, Unlisted)
    assert "Connect" in found.reason
    assert gate.seen == []


async def test_nothing_is_asked_outside_the_context() -> None:
    """An API that was not entered has no connections: a mistake of ours, not a fault of the network."""
    api = new_api(HOST)
    with pytest.raises(RuntimeError, match="outside its context"):
        await api.list(*WHERE, Gate())
    with pytest.raises(RuntimeError, match="outside its context"):
        await api.create(row(1), Gate())
