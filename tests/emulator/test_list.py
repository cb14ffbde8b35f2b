"""Listing, updating and looking at channels: the neighbours of a create."""

import pytest

from worker.emulator import Behaviour, Condition, Emulator

from .client import KD, OTHER, UO, Client, Clock, Reply, serving


async def test_a_list_shows_what_the_api_tells_and_no_more() -> None:
    """An entry has no address and no date; other channels' participants are not in it."""
    emulator = Emulator()
    async with serving(emulator) as client:
        created = await client.create()
        await client.create(OTHER)
        page = await client.page()
        assert (page.status, page.json["participants"]) == (200, [created.json])
        assert page.json["meta"]["next_page_url"] is None
        assert page.json["meta"]["page_size"] == 50
    assert emulator.stats.listed == 1


async def test_an_empty_channel_exists() -> None:
    """Every well-formed channel exists until it is declared missing."""
    emulator = Emulator()
    async with serving(emulator) as client:
        assert (await client.page()).json["participants"] == []
        emulator.declare(UO, Condition.MISSING)
        assert (await client.page()).code == 20404


async def test_pages_follow_an_absolute_address_until_there_is_none() -> None:
    """Following the next page's address shows everyone once, in order, even when somebody joins meanwhile."""
    emulator = Emulator()
    sids = [emulator.add_foreign(UO).sid for _ in range(5)]
    async with serving(emulator) as client:
        seen, url = [], client.url() + "?PageSize=2"
        pages = 0
        while url:
            page = (await client.call("GET", url)).json
            seen += [entry["sid"] for entry in page["participants"]]
            url = page["meta"]["next_page_url"]
            assert url is None or url.startswith(client.base_url)
            pages += 1
            if pages == 1:
                sids.append(emulator.add_foreign(UO).sid)
    assert (seen, pages) == (sids, 3)


async def test_nobody_is_on_two_pages_when_somebody_earlier_shows_up_between_them() -> None:
    """The next page goes on where the last one ended, whatever became visible before it."""
    clock = Clock()
    emulator = Emulator(clock=clock)
    emulator.add_foreign(UO, listed_after_seconds=1)
    sids = [emulator.add_foreign(UO).sid for _ in range(2)]
    async with serving(emulator) as client:
        first = (await client.page(query="?PageSize=1")).json
        clock.now += 1
        second = (await client.call("GET", first["meta"]["next_page_url"])).json
    assert [page["participants"][0]["sid"] for page in (first, second)] == sids


async def test_a_page_can_be_asked_for_by_number() -> None:
    """A page number without a token skips whole pages."""
    emulator = Emulator()
    sids = [emulator.add_foreign(UO).sid for _ in range(5)]
    async with serving(emulator) as client:
        page = (await client.page(query="?PageSize=2&Page=1")).json
    assert [entry["sid"] for entry in page["participants"]] == sids[2:4]
    assert page["meta"]["previous_page_url"].endswith("PageSize=2&Page=0")


async def test_a_page_holds_fifty_and_at_most_a_thousand() -> None:
    """The default and the most are those of the API."""
    emulator = Emulator()
    for _ in range(1001):
        emulator.add_foreign(UO)
    async with serving(emulator) as client:
        assert len((await client.page()).json["participants"]) == 50
        assert len((await client.page(query="?PageSize=1000")).json["participants"]) == 1000


@pytest.mark.parametrize("query", ["?PageSize=0", "?PageSize=1001", "?PageSize=x", "?Page=-1", "?PageToken=x"])
async def test_paging_that_is_not_ours_is_refused(query: str) -> None:
    """A size, page or token that was never given out is a 400."""
    async with serving(Emulator()) as client:
        reply = await client.page(query=query)
    assert (reply.status, reply.code) == (400, 20001)


async def test_a_list_lags_behind_the_truth() -> None:
    """A new participant is listed only after the lag; a seeded one at once, or after its own."""
    clock = Clock()
    emulator = Emulator(Behaviour(list_lag_seconds=5), clock=clock)
    seeded = emulator.add_foreign(UO, type="agent")
    delayed = emulator.add_foreign(UO, listed_after_seconds=2)
    async with serving(emulator) as client:
        made = (await client.create()).json["sid"]
        assert await client.sids() == [seeded.sid]
        clock.now += 2
        assert await client.sids() == [seeded.sid, delayed.sid]
        clock.now += 3
        assert await client.sids() == [seeded.sid, delayed.sid, made]
    assert [participant.foreign for participant in emulator.participants] == [True, True, False]
    assert (emulator.stats.foreign, emulator.stats.created) == (2, 1)


@pytest.mark.parametrize("status", ["closed", "wrapup"])
async def test_a_participant_can_be_closed_and_wrapped_up(status: str) -> None:
    """An update is answered with the participant, and the truth has the new status."""
    emulator = Emulator()
    async with serving(emulator) as client:
        created = await client.create()
        reply = await client.call("POST", f"{client.url()}/{created.json['sid']}", data={"Status": status})
    assert (reply.status, reply.json) == (200, {**created.json, "status": status})
    assert (emulator.participants[0].status, emulator.stats.updated) == (status, 1)


async def test_an_update_that_makes_no_sense_is_refused() -> None:
    """Another status, no form, somebody unknown and another channel's participant change nothing."""
    emulator = Emulator()

    async def update(client: Client, channel: str, sid: str, body: bytes) -> Reply:
        return await client.call("POST", f"{client.url(channel)}/{sid}", data=body)

    async with serving(emulator) as client:
        sid = (await client.create()).json["sid"]
        assert (await update(client, UO, sid, b"Status=open")).code == 20001
        assert (await update(client, UO, sid, b"\xff")).code == 20001
        assert (await update(client, UO, "UT" + "0" * 32, b"Status=closed")).code == 20404
        assert (await update(client, OTHER, sid, b"Status=closed")).code == 20404
    assert emulator.participants[0].status == "active"


async def test_a_channel_tells_its_status() -> None:
    """A channel is active until it is declared closed, and not found when missing."""
    emulator = Emulator()
    async with serving(emulator) as client:
        url = client.url().removesuffix("/Participants")
        channel = (await client.call("GET", url)).json
        assert (channel["sid"], channel["interaction_sid"], channel["status"]) == (UO, KD, "active")
        emulator.declare(UO, Condition.CLOSED)
        assert (await client.call("GET", url)).json["status"] == "closed"
        emulator.declare(UO, Condition.MISSING)
        assert (await client.call("GET", url)).code == 20404


async def test_lists_may_leave_out_those_that_were_closed() -> None:
    """The API leaves it open; who was wrapped up is listed in any case."""
    emulator = Emulator()
    sids = [emulator.add_foreign(UO).sid for _ in range(3)]
    async with serving(emulator) as client:
        for sid, status in zip(sids, ("closed", "wrapup"), strict=False):
            await client.call("POST", f"{client.url()}/{sid}", data={"Status": status})
        assert await client.sids() == sids
        emulator.change(lists_closed=False)
        assert await client.sids() == sids[1:]
