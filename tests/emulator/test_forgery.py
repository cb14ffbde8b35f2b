"""Answers that are another request's, lists that are not the channel's, updates that say too much, and outages."""

import asyncio
import gc
import json
from typing import Any

import pytest

from worker.emulator import Behaviour, Call, Emulator, Fault, Scripted, When, after, before, late, ordinary
from worker.emulator.forgery import Forger

from .client import FORM, KD, OTHER, ROUTING, UO, Client, Clock, Reply, serving

BOTH = [When.BEFORE, When.AFTER]


def own(emulator: Emulator, channel: str = UO) -> list[str]:
    """Return the sids that creates made in a channel."""
    return [one.sid for one in emulator.participants if one.channel_sid == channel and not one.foreign]


# ---- creates --------------------------------------------------------------------------------------------------------


async def test_two_creates_in_different_channels_get_each_others_answers() -> None:
    """The first waits for the other; a create of its own channel is no partner."""
    emulator = Emulator()
    emulator.script(UO, after(Fault.SWAPPED))
    async with serving(emulator) as client:
        waiting = await client.start(emulator)
        assert (await client.create()).json["channel_sid"] == UO
        other = await client.create(OTHER)
        swapped = await waiting
    assert (swapped.json["channel_sid"], other.json["channel_sid"]) == (OTHER, UO)
    assert (other.json["sid"], swapped.json["sid"]) == (own(emulator)[0], own(emulator, OTHER)[0])
    assert [one.fault for one in emulator.requests] == [Fault.SWAPPED, None, Fault.SWAPPED]
    assert emulator.stats.faults == {"swapped.after": 2}


async def test_two_swapped_creates_swap_with_each_other() -> None:
    """One that meets the fault while another one waits is its partner; both are let down once."""
    emulator = Emulator()
    emulator.script_next(after(Fault.SWAPPED), late(Fault.SWAPPED, seconds=0))
    async with serving(emulator) as client:
        waiting = await client.start(emulator)
        assert (await client.create(OTHER)).json["channel_sid"] == UO
        assert (await waiting).json["channel_sid"] == OTHER
        await emulator.settled()
    assert (len(own(emulator)), len(own(emulator, OTHER))) == (1, 1)
    assert emulator.stats.faults == {"swapped.after": 1, "swapped.late": 1}


async def test_without_a_partner_the_answer_is_its_own() -> None:
    """Who waits for `hang_seconds` in vain is answered as usual, and is no partner any more."""
    emulator = Emulator(Behaviour(hang_seconds=0.01))
    emulator.script(UO, after(Fault.SWAPPED))
    async with serving(emulator) as client:
        assert (await client.create()).json["sid"] == own(emulator)[0]
        assert (await client.create(OTHER)).json["channel_sid"] == OTHER


FORGERIES = [
    # the fault, whose sid it gives, and whether it fits the request
    (Fault.PREVIOUS, "elsewhere", False),
    (Fault.CACHED_HERE, "here", True),
    (Fault.CACHED_ELSEWHERE, "elsewhere", False),
    (Fault.LISTED_SID, "listed", True),
    (Fault.FOREIGN_SID, "first elsewhere", True),
    (Fault.UNRECORDED_SID, "elsewhere", True),
]


@pytest.mark.parametrize("when", BOTH)
@pytest.mark.parametrize(("fault", "whose", "fits"), FORGERIES)
async def test_an_answer_is_another_requests(fault: Fault, whose: str, fits: bool, when: When) -> None:
    """It is 201 with a sid that is there, whether something was made or not; only some name another channel."""
    emulator = Emulator()
    listed = emulator.add_foreign(UO).sid
    async with serving(emulator) as client:
        here = (await client.create()).json["sid"]
        emulator.add_foreign(OTHER)
        first, elsewhere = [(await client.create(OTHER)).json["sid"] for _ in range(2)]
        for channel in (UO, OTHER):
            emulator.add_foreign(channel)
        emulator.script(UO, Scripted(what=fault, when=when))
        reply = await client.create(Type="customer")
    sids = {"here": here, "elsewhere": elsewhere, "first elsewhere": first, "listed": listed}
    assert (reply.status, reply.json["sid"]) == (201, sids[whose])
    assert (reply.json["interaction_sid"], reply.json["type"]) == (KD, "customer")
    assert (reply.json["channel_sid"] == UO) == fits
    assert len(own(emulator)) == 1 + (when is When.AFTER)
    assert (emulator.requests[-1].made is not None) == (when is When.AFTER)


async def test_a_cached_answer_keeps_its_type_and_a_forged_one_takes_the_requests() -> None:
    """What is cached is the whole answer; what is forged is only its sid."""
    emulator = Emulator()
    async with serving(emulator) as client:
        first = await client.create(Type="agent")
        emulator.script(UO, before(Fault.CACHED_HERE), before(Fault.LISTED_SID))
        assert (await client.create()).json == first.json
        forged = await client.create(RoutingProperties=json.dumps({}))
    assert forged.json == {**first.json, "type": "customer", "routing_properties": {}}


async def test_only_a_sid_that_its_own_client_knows_is_a_foreign_one() -> None:
    """A create whose answer was lost is passed over; the last one is taken however it was answered."""
    emulator = Emulator()
    emulator.script(OTHER, after(Fault.EMPTY), ordinary(), after(Fault.EMPTY))
    emulator.script(UO, before(Fault.FOREIGN_SID), before(Fault.UNRECORDED_SID))
    async with serving(emulator) as client:
        for _ in range(3):
            await client.create(OTHER)
        given = [(await client.create()).json["sid"] for _ in range(2)]
    assert given == own(emulator, OTHER)[1:]


@pytest.mark.parametrize("remember", [True, False])
@pytest.mark.parametrize(("fault", "whose", "fits"), FORGERIES)
async def test_where_there_is_nothing_to_make_a_false_answer_of_it_is_500(
    fault: Fault, whose: str, fits: bool, remember: bool
) -> None:
    """The first create of all has nobody's answer to get; nor has any where nothing is remembered."""
    del whose, fits
    emulator = Emulator(remember=remember)
    emulator.script(UO, after(fault))
    async with serving(emulator) as client:
        assert (await client.create()).code == 20500
    assert emulator.stats.created == 1


@pytest.mark.parametrize("when", list(When))
async def test_somebody_is_said_to_be_a_member_who_was_not(when: When) -> None:
    """50433: nobody is there, somebody else made it just now, or it was made by this very request."""
    emulator = Emulator(Behaviour(late_seconds=0))
    emulator.script(UO, *[Scripted(what=Fault.ALREADY_MEMBER, when=when)] * 20)
    async with serving(emulator) as client:
        replies = [await client.create() for _ in range(20)]
        await emulator.settled()
    assert {(one.status, one.code) for one in replies} == {(409, 50433)}
    foreign = [one for one in emulator.participants if one.foreign]
    assert len(own(emulator)) == (0 if when is When.BEFORE else 20)
    assert 0 < len(foreign) < 20 if when is When.BEFORE else not foreign
    assert all((one.type, one.media_properties) == ("customer", json.loads(FORM["MediaProperties"])) for one in foreign)


@pytest.mark.parametrize("when", list(When))
async def test_a_stranger_joins_just_as_an_answer_is_lost(when: When) -> None:
    """The list shows one more than the import made, of the same type and with another address."""
    emulator = Emulator(Behaviour(late_seconds=0))
    emulator.script(UO, Scripted(what=Fault.STRANGER_JOINS, when=when))
    async with serving(emulator) as client:
        with pytest.raises(OSError, match=r"reset|disconnected"):
            await client.create()
        await emulator.settled()
        assert len(await client.sids()) == 1 + (when is not When.BEFORE)
    [stranger] = [one for one in emulator.participants if one.foreign]
    assert (stranger.type, stranger.media_properties) == ("customer", {"address": "a stranger"})


# ---- lists ----------------------------------------------------------------------------------------------------------


async def test_a_list_shows_another_channels_entries() -> None:
    """They name their own channel."""
    emulator = Emulator()
    emulator.script(UO, after(Fault.OTHER_LIST), on=Call.LIST)
    async with serving(emulator) as client:
        await client.create()
        other = await client.create(OTHER)
        assert (await client.page()).json["participants"] == [other.json]
        assert await client.sids() == own(emulator)


async def test_an_entry_is_missing_from_one_list_and_never_again() -> None:
    """Each list lacks one entry that none lacked before; when all were missing once, lists are whole."""
    emulator = Emulator(Behaviour(list_faults={Fault.HIDDEN_ENTRY: 1.0}))
    everybody = {emulator.add_foreign(UO).sid for _ in range(3)}
    async with serving(emulator) as client:
        missing = [everybody - {*await client.sids()} for _ in range(5)]
    assert sorted(map(len, missing)) == [0, 0, 1, 1, 1]
    assert set.union(*missing) == everybody == emulator.truth.hidden


async def test_a_page_leads_to_itself_or_to_ever_new_ones() -> None:
    """The next page is the same address, or an empty page with another one after it, and so on."""
    emulator = Emulator()
    emulator.script(UO, after(Fault.SAME_PAGE), after(Fault.ENDLESS_PAGES), on=Call.LIST)
    sid = emulator.add_foreign(UO).sid
    async with serving(emulator) as client:
        url = f"{client.url()}?PageSize=1000"
        assert (await client.call("GET", url)).json["meta"]["next_page_url"] == url
        seen = {url}
        page = await client.call("GET", url)
        assert [one["sid"] for one in page.json["participants"]] == [sid]
        for _ in range(120):
            url = page.json["meta"]["next_page_url"]
            assert url not in seen
            seen.add(url)
            page = await client.call("GET", url)
            assert page.json["participants"] == []
        assert await client.sids() == [sid]


# ---- updates --------------------------------------------------------------------------------------------------------


async def close(client: Client, sid: str) -> Reply:
    """Close a participant."""
    return await client.call("POST", f"{client.url()}/{sid}", data={"Status": "closed"})


@pytest.mark.parametrize("fault", [Fault.PORTAL_PAGE, Fault.STILL_OPEN, Fault.ERROR_BODY])
async def test_an_update_succeeds_with_nothing_closed(fault: Fault) -> None:
    """Any 2xx, by chance or by script, and the participant is as active as before."""
    emulator = Emulator(Behaviour(update_faults_before={fault: 1.0}))
    sid = emulator.add_foreign(UO, routing_properties=ROUTING).sid
    async with serving(emulator) as client:
        reply = await close(client, sid)
        assert (reply.status, emulator.participants[0].status) == (200, "active")
        if fault is Fault.STILL_OPEN:
            assert (reply.json["sid"], reply.json["status"]) == (sid, "open")
        emulator.change(update_faults_before={}, update_faults_after={fault: 1.0})
        assert (await close(client, sid)).status == 200
    assert emulator.participants[0].status == "closed"


@pytest.mark.parametrize(("code", "status"), [(20404, 404), (45310, 404), (45362, 400), (None, 200)])
async def test_closing_again_says_that_it_is_gone(code: int | None, status: int) -> None:
    """After a lost answer the next closing is answered as the behaviour says; a wrapped-up one can be closed."""
    emulator = Emulator(Behaviour(closed_again_code=code))
    emulator.script_next(after(Fault.RESET), on=Call.UPDATE)
    sid = emulator.add_foreign(UO).sid
    async with serving(emulator) as client:
        with pytest.raises(OSError, match=r"reset|disconnected"):
            await close(client, sid)
        again = await close(client, sid)
        assert (again.status, again.json.get("code")) == (status, code)
    assert emulator.stats.updated == 1 + (code is None)


# ---- outages --------------------------------------------------------------------------------------------------------


async def everything(client: Client, sid: str) -> list[int]:
    """Return the statuses of a create, a list and an update."""
    return [(await one).status for one in (client.create(), client.page(), close(client, sid))]


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_an_outage_lasts_as_long_as_it_shall_and_nothing_is_done(status: int) -> None:
    """Creates, lists and updates have outages of their own; another setting does not prolong one."""
    clock = Clock()
    emulator = Emulator(clock=clock)
    sid = emulator.add_foreign(UO).sid
    async with serving(emulator) as client:
        for setting, out in [("create_outage", 0), ("list_outage", 1), ("update_outage", 2)]:
            settings: dict[str, Any] = {setting: status, "outage_seconds": 10}
            assert (await client.call("POST", "/emulator/behaviour", json=settings)).status == 200
            expected = [201, 200, 200]
            expected[out] = status
            assert await everything(client, sid) == expected
            clock.now += 9
            emulator.change(latency_jitter_seconds=0)
            assert await everything(client, sid) == expected
            clock.now += 1
            assert await everything(client, sid) == [201, 200, 200]
            emulator.change(**{setting: None})
        emulator.change(create_outage=status, list_outage=status, update_outage=status, outage_seconds=None)
        clock.now += 10_000
        assert await everything(client, sid) == [status] * 3
    assert emulator.stats.created == 7
    assert emulator.requests[-1].status == status
    assert emulator.stats.refused == 0


# ---- chance ---------------------------------------------------------------------------------------------------------


async def test_false_answers_by_chance_are_the_same_for_the_same_seed() -> None:
    """Which fault a request meets, and in which of its forms, is the seed's."""

    async def run(seed: int) -> list[tuple[Any, ...]]:
        odds = {Fault.STRANGERS_PAGE: 0.2, Fault.MISCODED: 0.2, Fault.ALREADY_MEMBER: 0.2, Fault.LISTED_SID: 0.2}
        emulator = Emulator(Behaviour(faults_before=odds, list_faults={Fault.HIDDEN_ENTRY: 0.5}), seed=seed)
        met: list[tuple[Any, ...]] = []
        async with serving(emulator) as client:
            for _ in range(60):
                reply = await client.create()
                sids = [one.sid for one in emulator.participants]
                hidden = {*sids[:50]} - {*await client.sids()}
                met.append((reply.status, reply.headers["Content-Type"], len(sids), sorted(map(sids.index, hidden))))
        return met

    first = await run(1)
    assert await run(1) == first
    assert await run(2) != first


async def test_an_answer_is_never_kept_longer_than_its_connection() -> None:
    """What a closed connection was told is forgotten, and a new one has nothing before its first answer."""
    emulator = Emulator()
    emulator.script_next(ordinary(), before(Fault.PREVIOUS), ordinary(), before(Fault.PREVIOUS))
    async with serving(emulator) as client:
        closing = {"Connection": "close"}
        url, data = client.url(), FORM
        assert (await client.call("POST", url, data=data, headers=closing)).status == 201
        assert (await client.call("POST", url, data=data, headers=closing)).status == 500
        kept = await client.create()
        assert (await client.create()).json == kept.json


async def test_nothing_is_kept_of_a_connection_that_is_closed() -> None:
    """However many there are, the memory does not grow."""
    emulator = Emulator()
    async with serving(emulator) as client:
        [forger] = [one for one in gc.get_objects() if isinstance(one, Forger) and one._emulator is emulator]
        await client.create()
        assert len(forger._previous) == 1
        await client.session.close()
        for _ in range(1000):
            await asyncio.sleep(0.001)
            if not forger._previous:
                break
        assert forger._previous == {}
