"""Letting clients down: what they see of each fault, and what is true afterwards."""

import asyncio
import json
from collections import Counter
from itertools import product
from urllib.parse import urlencode

import aiohttp
import pytest

from worker.emulator import (
    FAULTS,
    Answer,
    Behaviour,
    Call,
    Emulator,
    Fault,
    Scripted,
    When,
    after,
    before,
    late,
    ordinary,
    throttled,
)

from .client import FORM, OTHER, UO, Client, serving

MOMENTS = [
    (fault, when)
    for fault in FAULTS[Call.CHANNEL]
    for when in When
    if (fault, when) not in {(Fault.NULL_SID, When.BEFORE), (Fault.TRUNCATED, When.BEFORE)}
]
STATUSES = {
    **dict.fromkeys(FAULTS[Call.CHANNEL], None),
    Fault.SERVER_ERROR: 500,
    Fault.UNAVAILABLE: 503,
    Fault.BAD_GATEWAY: 502,
    Fault.LONG_MESSAGE: 500,
    Fault.DEEP_JSON: 400,
    Fault.REDIRECT: 307,
    Fault.PORTAL_PAGE: 200,
    **dict.fromkeys(
        (Fault.TRUNCATED, Fault.HUGE_HEADERS, Fault.EMPTY, Fault.NULL_SID, Fault.GARBAGE, Fault.ERROR_BODY), 201
    ),
}
BY_CHANCE = (Fault.MISCODED, Fault.STRANGERS_PAGE)


BROKEN = {
    Fault.RESET: aiohttp.ClientOSError,
    Fault.HANG: aiohttp.ServerDisconnectedError,
    Fault.ENDLESS_CONTINUE: aiohttp.ServerDisconnectedError,
    Fault.CUT_HEADERS: aiohttp.ServerDisconnectedError,
    Fault.BAD_STATUS_LINE: aiohttp.ClientResponseError,
    Fault.HUGE_HEADERS: aiohttp.ClientResponseError,
    Fault.BAD_CHUNK: aiohttp.ClientResponseError,
    Fault.TRUNCATED: aiohttp.ClientPayloadError,
}
ERRORS = {Fault.SERVER_ERROR: 20500, Fault.UNAVAILABLE: 20503, Fault.LONG_MESSAGE: 20500, Fault.ERROR_BODY: 20404}


async def see(client: Client, fault: Fault) -> None:
    """Make a create and check that the client is let down as the fault says."""
    if fault in BROKEN:
        with pytest.raises(BROKEN[fault]):
            await client.create()
        return
    reply = await client.create()
    assert fault in BY_CHANCE or reply.status == STATUSES[fault]
    if fault in ERRORS:
        assert (reply.code, "sid" in reply.json) == (ERRORS[fault], False)
        assert fault is not Fault.LONG_MESSAGE or len(reply.json["message"]) == 900_000
        return
    match fault:
        case Fault.MISCODED:
            assert (reply.status, reply.code) in product((500, 502, 503, 504), (20404, 20409, 20429, 45004, 50433))
        case Fault.BAD_GATEWAY | Fault.PORTAL_PAGE | Fault.STRANGERS_PAGE:
            assert fault is not Fault.STRANGERS_PAGE or reply.status in {400, 403, 409, 451, 499}
            assert b"<html>" in reply.body or reply.json.keys() & {"timestamp", "details"}
            assert "Twilio-Request-Id" not in reply.headers
        case Fault.EMPTY:
            assert reply.body == b""
        case Fault.NULL_SID:
            assert (reply.json["sid"], reply.json["url"], reply.json["channel_sid"]) == (None, None, UO)
        case Fault.GARBAGE | Fault.DEEP_JSON:
            with pytest.raises((ValueError, RecursionError)):
                json.loads(reply.body)
        case _:
            assert reply.headers["Location"] == f"{client.base_url}/emulator/redirected"


@pytest.mark.parametrize(("fault", "when"), MOMENTS)
async def test_a_scripted_fault_meets_the_next_create_of_its_channel(fault: Fault, when: When) -> None:
    """The client is let down as scripted, and the participant exists exactly when it was made after or late."""
    emulator = Emulator(Behaviour(hang_seconds=0.01, late_seconds=0.01))
    emulator.script(UO, Scripted(what=fault, when=when))
    async with serving(emulator) as client:
        assert (await client.create(OTHER)).status == 201
        await see(client, fault)
        await emulator.settled()
        [_, request] = emulator.requests
        made = [participant.sid for participant in emulator.participants if participant.channel_sid == UO]
        assert len(made) == (when is not When.BEFORE)
        assert request.made == (made[0] if made else None)
        assert (request.fault, request.when, request.member) == (fault, when, "a@b.example")
        assert fault in BY_CHANCE or request.status == STATUSES[fault]
        assert await client.sids() == made
        assert emulator.stats.faults == {f"{fault}.{when}": 1}
        assert (await client.create()).status == 201


@pytest.mark.parametrize("fault", [Fault.NULL_SID, Fault.TRUNCATED, Fault.SWAPPED])
def test_a_fault_that_presupposes_the_participant_cannot_come_before(fault: Fault) -> None:
    """An answer about a participant needs one, in a script as in the probabilities."""
    with pytest.raises(ValueError, match=fault):
        before(fault)
    with pytest.raises(ValueError, match=fault):
        Behaviour(faults_before={fault: 0.1})


async def test_nothing_is_made_late_until_its_time() -> None:
    """A late participant is pending after the client was let down; closing the service does not lose it."""
    emulator = Emulator()
    emulator.script(UO, late(Fault.RESET, seconds=3600))
    async with serving(emulator) as client:
        await see(client, Fault.RESET)
        assert (emulator.participants, emulator.stats.late_pending) == ([], 1)
    assert (len(emulator.participants), emulator.stats.late_pending) == (1, 0)
    assert emulator.requests[0].made == emulator.participants[0].sid


async def test_a_hang_ends_when_its_client_goes_and_the_rest_is_made_late() -> None:
    """After a hang that the client left, the participant is made `late_seconds` later."""
    emulator = Emulator(Behaviour(hang_seconds=3600, late_seconds=0.01))
    emulator.script(UO, late(Fault.HANG))
    async with serving(emulator) as client:
        await client.give_up(emulator, await client.start(emulator))
        await emulator.settled()
        assert emulator.requests[0].client_gone
        assert len(emulator.participants) == 1


async def test_a_request_in_flight_is_finished_when_its_client_has_gone() -> None:
    """A client's time-out does not stop the service: the participant is made all the same, at its usual time."""
    gate = asyncio.Event()
    emulator = Emulator()
    emulator.script(UO, ordinary(gate=gate))
    async with serving(emulator) as client:
        await client.give_up(emulator, await client.start(emulator))
        assert emulator.participants == []
        gate.set()
        await emulator.settled()
        assert await client.sids() == [emulator.participants[0].sid]
    [request] = emulator.requests
    assert (request.client_gone, request.status, request.made) == (True, None, emulator.participants[0].sid)


async def test_a_request_in_flight_can_be_finished_some_time_after_its_client_has_gone() -> None:
    """With `late_seconds` the usual time does not matter once the client has gone."""
    emulator = Emulator(Behaviour(latency_seconds=3600, late_seconds=0.01))
    async with serving(emulator) as client:
        await client.give_up(emulator, await client.start(emulator))
        await emulator.settled()
    assert (len(emulator.participants), emulator.requests[0].client_gone) == (1, True)


async def test_a_fault_before_makes_nothing_even_when_the_client_has_gone() -> None:
    """Who gives up on a request that was to fail before is owed nothing."""
    gate = asyncio.Event()
    emulator = Emulator()
    emulator.script(UO, before(Fault.RESET, gate=gate))
    async with serving(emulator) as client:
        await client.give_up(emulator, await client.start(emulator))
        gate.set()
        await emulator.settled()
    assert emulator.participants == []


async def test_a_client_that_stops_in_the_middle_of_its_request_asked_for_nothing() -> None:
    """Half a form and a closed connection make no participant and disturb nobody."""
    emulator = Emulator()
    async with serving(emulator) as client:
        path = client.url().removeprefix(client.base_url)
        _, writer = await asyncio.open_connection("127.0.0.1", int(client.base_url.rpartition(":")[2]))
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic YTpi\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 900\r\n\r\nType=".encode()
        )
        await emulator.until(lambda: emulator.stats.in_flight == 1)
        writer.close()
        await writer.wait_closed()
        await emulator.settled()
        assert (await client.create()).status == 201
    assert (len(emulator.participants), emulator.requests[0].made, emulator.requests[0].client_gone) == (1, None, True)


async def test_a_request_that_is_in_the_socket_is_read_when_its_client_has_gone() -> None:
    """Who writes a whole request and leaves at once has asked for a participant."""
    emulator = Emulator()
    async with serving(emulator) as client:
        body = urlencode(FORM)
        _, writer = await asyncio.open_connection("127.0.0.1", int(client.base_url.rpartition(":")[2]))
        writer.write(
            f"POST {client.url().removeprefix(client.base_url)} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic YTpi\r\n"
            f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        writer.close()
        await writer.wait_closed()
        await emulator.until(lambda: emulator.stats.created == 1)
    assert emulator.requests[0].made == emulator.participants[0].sid


async def test_a_script_is_followed_in_order_and_the_channels_own_goes_first() -> None:
    """Faults, answers and ordinary turns come one each; what is scripted for any channel meets the rest."""
    emulator = Emulator()
    emulator.script(UO, throttled(retry_after="7"), ordinary(), Answer(status=418, body=b"tea", content_type="a/b"))
    emulator.script_next(Answer(status=400, code=50438, headers={"X-Why": "because"}))
    emulator.script_next(throttled(code=20429), after(Answer(status=504, message="no code")))
    async with serving(emulator) as client:
        first = await client.create()
        assert (first.status, first.code, first.headers["Retry-After"]) == (429, 45780, "7")
        foreign = await client.create(OTHER)
        assert (foreign.status, foreign.code, foreign.headers["X-Why"]) == (400, 50438, "because")
        assert (await client.create()).status == 201
        tea = await client.create()
        assert (tea.status, tea.body, tea.headers["Content-Type"]) == (418, b"tea", "a/b")
        bare = await client.create()
        assert (bare.code, "Retry-After" in bare.headers) == (20429, False)
        lost = await client.create()
        assert (lost.status, "code" in lost.json) == (504, False)
        assert (await client.create()).status == 201
    assert [(request.status, request.code, request.made is not None) for request in emulator.requests] == [
        (429, 45780, False),
        (400, 50438, False),
        (201, None, True),
        (418, None, False),
        (429, 20429, False),
        (504, None, True),
        (201, None, True),
    ]


async def test_an_invalid_create_is_refused_rather_than_let_down_after() -> None:
    """What would have been made must be valid first."""
    emulator = Emulator()
    emulator.script(UO, after(Fault.EMPTY))
    async with serving(emulator) as client:
        assert (await client.create(Type="robot")).code == 20001
    assert emulator.participants == []


async def test_faults_by_chance_are_the_same_for_the_same_seed() -> None:
    """Probabilities are met about as often as they say, each by its own moment, and a seed repeats them."""

    async def run(seed: int) -> list[tuple[Fault | None, When | None, bool]]:
        emulator = Emulator(
            Behaviour(
                faults_before={Fault.EMPTY: 0.2},
                faults_after={Fault.NULL_SID: 0.2, Fault.UNAVAILABLE: 0.1},
                faults_late={Fault.BAD_GATEWAY: 0.1},
                latency_jitter_seconds=0.0001,
            ),
            seed=seed,
        )
        async with serving(emulator) as client:
            for _ in range(200):
                await client.create()
            await emulator.settled()
        return [(request.fault, request.when, request.made is not None) for request in emulator.requests]

    first = await run(1)
    assert await run(1) == first
    assert await run(2) != first
    met = Counter(first)
    assert set(met) == {
        (None, None, True),
        (Fault.EMPTY, When.BEFORE, False),
        (Fault.NULL_SID, When.AFTER, True),
        (Fault.UNAVAILABLE, When.AFTER, True),
        (Fault.BAD_GATEWAY, When.LATE, True),
    }
    assert 50 <= met[None, None, True] <= 110
    assert 20 <= met[Fault.EMPTY, When.BEFORE, False] <= 65


async def test_lists_and_updates_can_be_let_down_too() -> None:
    """Lists hide sids, break off or fail by script and by chance; an update may be done and its answer lost."""
    emulator = Emulator(Behaviour(list_faults={Fault.UNAVAILABLE: 1.0}))
    async with serving(emulator) as client:
        sid = (await client.create()).json["sid"]
        emulator.script(UO, after(Fault.NULL_SID), before(Fault.BAD_GATEWAY), after(Fault.TRUNCATED), on=Call.LIST)
        assert await client.sids() == [None]
        assert (await client.page()).status == 502
        with pytest.raises(aiohttp.ClientPayloadError):
            await client.page()
        assert (await client.page()).status == 503
        emulator.script_next(after(Fault.RESET), Answer(status=403, code=20403), on=Call.UPDATE)
        with pytest.raises(aiohttp.ClientOSError):
            await client.call("POST", f"{client.url()}/{sid}", data={"Status": "closed"})
        assert emulator.participants[0].status == "closed"
        assert (await client.call("POST", f"{client.url()}/{sid}", data={"Status": "wrapup"})).code == 20403
        assert emulator.participants[0].status == "closed"


async def test_who_follows_a_redirect_is_counted() -> None:
    """A client that takes its body and credentials elsewhere is found out."""
    emulator = Emulator()
    emulator.script(UO, before(Fault.REDIRECT))
    async with serving(emulator) as client:
        reply = await client.create()
        assert emulator.stats.redirects_followed == 0
        await client.call("POST", reply.headers["Location"])
    assert emulator.stats.redirects_followed == 1


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        (Call.CREATE, Fault.SAME_PAGE),
        (Call.LIST, Fault.SWAPPED),
        (Call.UPDATE, Fault.CACHED_HERE),
        (Call.LIST, Fault.STILL_OPEN),
    ],
)
def test_a_fault_happens_only_to_calls_that_can_meet_it(call: Call, fault: Fault) -> None:
    """A script, and the probabilities, name the call and the fault that do not go together."""
    with pytest.raises(ValueError, match=f"{fault}.*{call}"):
        Emulator().script(UO, after(fault), on=call)
    setting = {Call.CREATE: "faults_after", Call.LIST: "list_faults", Call.UPDATE: "update_faults_after"}[call]
    with pytest.raises(ValueError, match=f"{fault}.*{call}"):
        Emulator().change(**{setting: {fault: 0.5}})


def test_only_a_create_can_be_late() -> None:
    """A list that is done later is no list."""
    with pytest.raises(ValueError, match="list"):
        Emulator().script(UO, late(Fault.EMPTY), on=Call.LIST)


@pytest.mark.parametrize(
    "settings",
    [
        {"latency_seconds": -1},
        {"concurrency": -1},
        {"created_status": 202},
        {"faults_after": {Fault.EMPTY: 0.6, Fault.RESET: 0.6}},
        {"faults_late": {Fault.EMPTY: -0.1}},
        {"list_faults": {Fault.EMPTY: 1.1}},
        {"update_faults_before": {Fault.EMPTY: 0.6}, "update_faults_after": {Fault.EMPTY: 0.6}},
        {"closed_again_code": 20500},
        {"create_outage": 404},
    ],
)
def test_a_behaviour_that_cannot_be_is_refused(settings: dict[str, object]) -> None:
    """Negative times and impossible probabilities are named."""
    with pytest.raises(ValueError, match=next(iter(settings))):
        Emulator().change(**settings)


def test_late_cannot_be_in_the_past() -> None:
    """A negative delay is refused."""
    with pytest.raises(ValueError, match="late_seconds"):
        late(Fault.EMPTY, seconds=-1)
