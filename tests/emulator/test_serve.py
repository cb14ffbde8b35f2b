"""Serving: addresses, closing quickly, telling other processes the truth, and forgetting on purpose."""

import asyncio
import json
import time

import aiohttp
import pytest

from worker.emulator import Behaviour, Emulator, Fault, before, late, ordinary, serve

from .client import FORM, OTHER, UO, Reply, serving


async def test_an_emulator_keeps_what_it_knows_when_served_again() -> None:
    """A service that was down and comes back on its port has lost nothing."""
    emulator = Emulator()
    async with serving(emulator) as client:
        sid = (await client.create()).json["sid"]
        port = int(client.base_url.rpartition(":")[2])
    headers = {"Authorization": "Basic YTpi"}
    async with serve(emulator, port=port) as base_url, aiohttp.ClientSession(headers=headers) as session:
        assert base_url == f"http://127.0.0.1:{port}"
        url = f"{base_url}/v1/Interactions/KD{'1' * 32}/Channels/{UO}/Participants"
        async with session.get(url) as response:
            assert [entry["sid"] for entry in (await response.json())["participants"]] == [sid]


async def test_two_emulators_give_out_different_sids() -> None:
    """A ledger that knows the sids of one run must not meet them in the next."""
    sids = set()
    for _ in range(2):
        emulator = Emulator(seed=1)
        async with serving(emulator) as client:
            sids.add((await client.create()).json["sid"])
    assert len(sids) == 2


async def test_a_port_that_is_taken_is_an_error() -> None:
    """Serving twice on one port fails instead of going elsewhere, and leaves nothing behind."""
    async with serve(Emulator()) as base_url:
        with pytest.raises(OSError, match="in use"):
            async with serve(Emulator(), port=int(base_url.rpartition(":")[2])):
                pass


async def test_closing_cuts_what_hangs_finishes_what_waits_and_leaves_no_tasks() -> None:
    """Hung, gated, slow and half-sent requests do not hold the service up, and what was to be made is made."""
    gate = asyncio.Event()
    emulator = Emulator(Behaviour(hang_seconds=3600))
    emulator.script_next(before(Fault.HANG), late(Fault.HANG, seconds=3600), ordinary(gate=gate), ordinary())
    others = asyncio.all_tasks()
    async with aiohttp.ClientSession(headers={"Authorization": "Basic YTpi"}) as session:
        async with serve(emulator) as base_url:
            url = f"{base_url}/v1/Interactions/KD{'1' * 32}/Channels/{UO}/Participants"

            async def create() -> Reply:
                async with session.post(url, data=FORM) as response:
                    return Reply(response.status, response.headers, await response.read())

            async def start() -> asyncio.Task[Reply]:
                arrived = emulator.stats.arrived
                task = asyncio.create_task(create())
                await emulator.until(lambda: emulator.stats.arrived > arrived)
                return task

            tasks = [await start(), await start(), await start()]
            emulator.change(latency_seconds=3600)
            tasks.append(await start())
            _, writer = await asyncio.open_connection("127.0.0.1", int(base_url.rpartition(":")[2]))
            path = url.removeprefix(base_url)
            writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic YTpi\r\n".encode())
            writer.write(b"Content-Length: 900\r\n\r\nType=")
            await emulator.until(lambda: emulator.stats.in_flight == 5)
            closing_at = time.monotonic()
        assert time.monotonic() - closing_at < 10
        *hung, gated, slow = await asyncio.gather(*tasks, return_exceptions=True)
        writer.close()
        await writer.wait_closed()
    assert all(isinstance(end, aiohttp.ClientConnectionError) for end in hung)
    assert [reply.status for reply in (gated, slow) if isinstance(reply, Reply)] == [201, 201]
    assert [request.made is not None for request in emulator.requests] == [False, True, True, True, False]
    assert (emulator.stats.in_flight, emulator.stats.late_pending) == (0, 0)
    assert asyncio.all_tasks() == others


async def test_other_processes_can_ask_for_the_truth() -> None:
    """The truth comes as a line of JSON for each participant, foreign ones too."""
    emulator = Emulator()
    for _ in range(1200):
        emulator.add_foreign(OTHER)
    async with serving(emulator) as client:
        sid = (await client.create()).json["sid"]
        reply = await client.call("GET", "/emulator/truth")
        lines = [json.loads(line) for line in reply.body.splitlines()]
    assert (reply.status, reply.headers["Content-Type"], len(lines)) == (200, "application/x-ndjson", 1201)
    last = lines[-1]
    assert (last["sid"], last["channel_sid"], last["foreign"], last["status"]) == (sid, UO, False, "active")
    assert last["media_properties"] == json.loads(FORM["MediaProperties"])
    assert last["made_at"] == emulator.participants[-1].made_at


async def test_other_processes_can_ask_for_the_counters() -> None:
    """The counters come as one JSON object, under the same names as in this process."""
    emulator = Emulator()
    emulator.script(UO, before(Fault.EMPTY))
    async with serving(emulator) as client:
        await client.create()
        await client.create()
        stats = (await client.call("GET", "/emulator/stats")).json
    assert (stats["arrived"], stats["accepted"], stats["created"], stats["faults"]) == (2, 2, 1, {"empty.before": 1})
    assert (stats["busiest_second_arrived"], stats["max_in_flight"], stats["max_in_flight_in_a_channel"]) == (2, 1, 1)


async def test_without_memory_only_counters_are_kept() -> None:
    """A million rows must cost no memory: lists are empty, the truth is refused, the counters are right."""
    emulator = Emulator(remember=False)
    async with serving(emulator) as client:
        assert [(await client.create()).status, (await client.create(Type="robot")).status] == [201, 400]
        assert await client.sids() == []
        assert (await client.call("GET", "/emulator/truth")).status == 409
    assert (emulator.participants, emulator.requests) == ([], [])
    assert (emulator.stats.arrived, emulator.stats.created, emulator.stats.refused) == (2, 1, 1)


@pytest.mark.parametrize("settings", [{"refuse_members": True}, {"participants_per_channel": 5}])
def test_what_needs_a_memory_is_refused_without_one(settings: dict[str, object]) -> None:
    """Members and caps cannot be known by an emulator that forgets."""
    emulator = Emulator(remember=False)
    with pytest.raises(ValueError, match="remembers"):
        emulator.change(**settings)
