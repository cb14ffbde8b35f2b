import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from random import Random
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.virtual_clock import settle, virtual_time
from worker.model import Row
from worker.rowqueue import QueueClosedError, RowQueue

T = TypeVar("T")


def row(channel: str, line: int = 1) -> Row:
    """Return a row of this channel."""
    return Row(f"{channel}{line}", b"", 0, line, "KD", channel, "sms", b"secret", "secret")


async def filled(*rows: Row, maxsize: int = 0) -> RowQueue:
    """Return a queue with these rows put into it."""
    queue = RowQueue(maxsize)
    for each in rows:
        await queue.put(each)
    return queue


def takers(queue: RowQueue, count: int) -> list[asyncio.Task[Row | None]]:
    """Return so many workers that wait for a row."""
    return [asyncio.create_task(queue.take()) for _ in range(count)]


async def queue_took(queue: RowQueue) -> Row:
    """Return a row that was taken."""
    found = await queue.take()
    assert found is not None
    return found


def done(tasks: list[asyncio.Task[Row | None]]) -> list[Row | None]:
    """Return what those got who got something, None included."""
    return [task.result() for task in tasks if task.done() and not task.cancelled()]


# ---- the gate -------------------------------------------------------------------------------------------------------


@virtual_time
async def test_rows_of_different_channels_come_out_as_they_were_put() -> None:
    """Where no channel is claimed, the queue is first in, first out."""
    queue = await filled(row("a"), row("b"), row("c"))
    assert [await queue.take() for _ in "abc"] == [row("a"), row("b"), row("c")]


@virtual_time
async def test_a_channel_is_one_however_its_sid_is_written() -> None:
    """Its rows come out one at a time and as they were written."""
    one, two = row("UOabc", 1), row("UOABC", 2)
    queue = await filled(one, two, row("UOd", 3))
    assert [await queue.take(), await queue.take()] == [one, row("UOd", 3)]
    assert queue.empty()
    queue.release(one.channel)
    assert await queue.take() == two


@virtual_time
async def test_rows_of_a_claimed_channel_wait_and_others_go_ahead() -> None:
    """The second row of a channel waits for the release of the first; a later row of another channel does not."""
    queue = await filled(row("a", 1), row("a", 2), row("a", 3), row("b", 4))
    assert (queue.qsize(), queue.waiting) == (4, 2)
    assert [await queue.take(), await queue.take()] == [row("a", 1), row("b", 4)]
    assert queue.empty()
    with pytest.raises(asyncio.QueueEmpty):
        queue.get_nowait()
    queue.release("a")
    assert (queue.qsize(), queue.waiting) == (2, 1)
    assert await queue.take() == row("a", 2)
    queue.release("a")
    assert await queue.take() == row("a", 3)
    assert (queue.qsize(), queue.waiting) == (0, 0)


@virtual_time
async def test_a_released_channel_without_a_line_is_free() -> None:
    """After its only row is done, the next row of the channel is ready as soon as it is put."""
    queue = await filled(row("a", 1))
    await queue.take()
    queue.release("a")
    await queue.put(row("a", 2))
    assert queue.waiting == 0
    assert await queue.take() == row("a", 2)


@virtual_time
async def test_a_release_wakes_a_taker() -> None:
    """A worker that waits gets the next row of a line the moment the channel is released."""
    queue = await filled(row("a", 1), row("a", 2))
    await queue.take()
    waiting = takers(queue, 2)
    await settle()
    assert done(waiting) == []
    queue.release("a")
    await settle()
    assert done(waiting) == [row("a", 2)]
    waiting[1].cancel()


@virtual_time
async def test_only_who_holds_a_channel_can_release_it() -> None:
    """To release a channel that is free, or whose row nobody took yet, is a mistake that would let two rows go."""
    queue = await filled(row("a"))
    for channel in ("a", "b"):
        with pytest.raises(ValueError, match=f"channel {channel} was released, but nobody holds it"):
            queue.release(channel)


# ---- the bound ------------------------------------------------------------------------------------------------------


@virtual_time
async def test_the_bound_counts_the_lines_too() -> None:
    """One busy channel fills the queue; the reader waits until a row leaves, not until one changes its place."""
    queue = await filled(row("a", 1), row("a", 2), row("a", 3), maxsize=3)
    assert queue.full()
    with pytest.raises(asyncio.QueueFull):
        queue.put_nowait(row("b"))
    put = asyncio.create_task(queue.put(row("b")))
    await settle()
    assert not put.done()
    await queue.take()
    await put
    assert queue.qsize() == 3
    put = asyncio.create_task(queue.put(row("c")))
    queue.release("a")
    await settle()
    assert not put.done()
    put.cancel()


@virtual_time
async def test_the_queue_shows_counts_and_no_rows() -> None:
    """What a row holds is personal; a queue that ends up in a log shows how full it is and nothing else."""
    queue = await filled(row("a"), row("a"), maxsize=4096)
    assert repr(queue) == str(queue) == "<RowQueue 2 of 4096 rows, 1 of them waiting>"


# ---- the end --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 7])
@virtual_time
async def test_closing_an_empty_queue_tells_every_taker(count: int) -> None:
    """All who wait get None, and so does everybody who comes later."""
    queue = RowQueue(1)
    waiting = takers(queue, count)
    await settle()
    queue.close()
    await settle()
    assert done(waiting) == [None] * count
    assert [await queue.take(), await queue.get(), queue.get_nowait(), queue.qsize()] == [None, None, None, 0]


@pytest.mark.parametrize("count", [2, 3, 7])
@virtual_time
async def test_rows_inside_a_closed_queue_are_handed_out_first(count: int) -> None:
    """A row in a line, or in a hand, may be a row to come: takers wait for it; after the last release all get None."""
    queue = await filled(row("a", 1), row("a", 2), maxsize=2)
    queue.close()
    queue.close()
    waiting = takers(queue, count)
    await settle()
    assert done(waiting) == [row("a", 1)]
    queue.release("a")
    await settle()
    assert done(waiting) == [row("a", 1), row("a", 2)]
    queue.release("a")
    await settle()
    assert done(waiting) == [row("a", 1), row("a", 2), *[None] * (count - 2)]
    assert await queue.take() is None


@virtual_time
async def test_a_put_after_closing_is_an_error() -> None:
    """Whoever puts a row too late hears of it, also those who waited for room, though rows are still inside."""
    queue = await filled(row("a"), maxsize=1)
    puts = [asyncio.create_task(queue.put(row("b", line))) for line in range(3)]
    await settle()
    queue.shutdown()
    await settle()
    assert [type(put.exception()) for put in puts] == [QueueClosedError] * 3
    with pytest.raises(QueueClosedError, match="after it was closed"):
        await queue.put(row("c"))
    assert await queue.take() == row("a")
    queue.release("a")
    assert await queue.take() is None


@virtual_time
async def test_the_queue_neither_takes_nor_loses_what_it_should_not() -> None:
    """None is no row, and there is no closing that drops rows."""
    queue = await filled(row("a"))
    with pytest.raises(ValueError, match="None is no row"):
        await queue.put(None)
    with pytest.raises(ValueError, match="drops no rows"):
        queue.shutdown(immediate=True)
    assert await queue.take() == row("a")


# ---- rows set aside -------------------------------------------------------------------------------------------------


@virtual_time
async def test_a_row_set_aside_is_not_handed_out_before_it_is_resumed() -> None:
    """It is inside and keeps its channel claimed; its line waits, also what comes later, and others go ahead."""
    queue = await filled(row("a", 1), row("a", 2), row("b", 3))
    queue.set_aside(first := await queue_took(queue))
    assert (queue.qsize(), queue.waiting) == (3, 1)
    await queue.put(row("a", 4))
    assert await queue.take() == row("b", 3)
    waiting = takers(queue, 3)
    await settle()
    assert done(waiting) == []
    queue.resume(first)
    assert (queue.qsize(), queue.waiting) == (3, 2)
    await settle()
    assert done(waiting) == [row("a", 1)]
    queue.release("a")
    await settle()
    assert done(waiting) == [row("a", 1), row("a", 2)]
    queue.release("a")
    await settle()
    assert done(waiting) == [row("a", 1), row("a", 2), row("a", 4)]
    assert (queue.qsize(), queue.waiting) == (0, 0)


@virtual_time
async def test_a_row_can_be_set_aside_again() -> None:
    """A row that was resumed and taken once more is like any other in a hand."""
    queue = await filled(row("a", 1), row("a", 2), maxsize=2)
    for _ in range(3):
        queue.set_aside(found := await queue_took(queue))
        queue.resume(found)
        assert queue.qsize() == 2
    assert await queue.take() == row("a", 1)
    queue.release("a")
    assert await queue.take() == row("a", 2)


@virtual_time
async def test_the_bound_counts_rows_set_aside_and_they_may_exceed_it() -> None:
    """A row set aside finds room always, and takes it from the reader; resuming it neither waits nor makes room."""
    queue = await filled(row("a"), row("b"), maxsize=2)
    taken = [await queue_took(queue), await queue_took(queue)]
    await queue.put(row("c"))
    await queue.put(row("d"))
    for each in taken:
        queue.set_aside(each)
    assert (queue.qsize(), queue.full()) == (4, True)
    with pytest.raises(asyncio.QueueFull):
        queue.put_nowait(row("e"))
    put = asyncio.create_task(queue.put(row("e")))
    for each in taken:
        queue.resume(each)
    assert queue.full()
    for left in (3, 2):
        await queue.take()
        await settle()
        assert (queue.qsize(), put.done()) == (left, False)
    await queue.take()
    await put
    assert [await queue.take(), await queue.take()] == [row("b"), row("e")]


@virtual_time
async def test_a_release_goes_on_with_its_line_beyond_the_bound() -> None:
    """The next row of a line is inside already: that others were set aside does not keep it from being taken."""
    queue = await filled(row("a", 1), row("b", 2), row("a", 3), maxsize=3)
    await queue.take()
    other = await queue_took(queue)
    await queue.put(row("a", 4))
    await queue.put(row("c", 5))
    queue.set_aside(other)
    assert (queue.qsize(), queue.waiting) == (4, 2)
    queue.release("a")
    assert (queue.qsize(), queue.waiting) == (4, 1)
    assert [await queue.take(), await queue.take()] == [row("c", 5), row("a", 3)]


@virtual_time
async def test_a_bound_full_of_rows_set_aside_lets_nothing_in() -> None:
    """The reader waits until one of them was resumed and taken."""
    queue = await filled(row("a"), maxsize=1)
    queue.set_aside(found := await queue_took(queue))
    put = asyncio.create_task(queue.put(row("b")))
    await settle()
    assert not put.done()
    queue.resume(found)
    await settle()
    assert not put.done()
    assert await queue.take() == row("a")
    await put


@pytest.mark.parametrize("closes", ["before the take", "in the hand", "aside"])
@pytest.mark.parametrize("count", [1, 2, 7])
@virtual_time
async def test_a_closed_queue_waits_for_rows_set_aside(closes: str, count: int) -> None:
    """Whenever it was closed, nobody is sent home before a row that was set aside was taken again and released."""
    queue = await filled(row("a"))
    if closes == "before the take":
        queue.close()
    found = await queue_took(queue)
    waiting = takers(queue, count)
    await settle()
    if closes == "in the hand":
        queue.close()
        await settle()
    queue.set_aside(found)
    if closes == "aside":
        queue.close()
    await settle()
    assert done(waiting) == []
    queue.resume(found)
    await settle()
    assert done(waiting) == [row("a")]
    queue.release("a")
    await settle()
    assert done(waiting) == [row("a"), *[None] * (count - 1)]
    assert await queue.take() is None


@virtual_time
async def test_a_row_resumed_wakes_one_of_many_takers() -> None:
    """One gets it, the others go on waiting, for the other rows set aside too."""
    queue = await filled(*(row(channel) for channel in "abc"))
    aside = [await queue_took(queue) for _ in "abc"]
    for each in aside:
        queue.set_aside(each)
    queue.close()
    waiting = takers(queue, 5)
    for number, each in enumerate(reversed(aside), start=1):
        queue.resume(each)
        await settle()
        assert done(waiting) == aside[::-1][:number]
    for each in aside:
        queue.release(each.channel_sid)
    await settle()
    assert done(waiting) == [*aside[::-1], None, None]


@virtual_time
async def test_only_who_holds_a_channel_can_set_its_row_aside() -> None:
    """Of a free channel, of one whose row nobody took, and of one whose row is aside already: a mistake."""
    queue = await filled(row("a"), row("b"))
    queue.set_aside(await queue_took(queue))
    for channel in "abc":
        with pytest.raises(ValueError, match=f"a row of channel {channel} was set aside, but nobody holds it"):
            queue.set_aside(row(channel))
    assert queue.qsize() == 2


@virtual_time
async def test_only_a_row_set_aside_can_be_resumed() -> None:
    """Not one that is ready, in a hand, resumed already, or unknown: it would be handed out twice."""
    queue = await filled(row("a"), row("b"), row("c"))
    queue.set_aside(found := await queue_took(queue))
    queue.resume(found)
    await queue.take()
    for channel in "abcd":
        with pytest.raises(ValueError, match=f"a row of channel {channel} was resumed, but none was set aside"):
            queue.resume(row(channel))
    assert queue.qsize() == 2


@virtual_time
async def test_a_channel_whose_row_is_aside_cannot_be_released() -> None:
    """Nobody holds it, and a release would let the next row of its line go."""
    queue = await filled(row("a", 1), row("a", 2))
    queue.set_aside(await queue_took(queue))
    with pytest.raises(ValueError, match="channel a was released, but nobody holds it"):
        queue.release("a")
    assert queue.empty()


# ---- all of it ------------------------------------------------------------------------------------------------------


async def stubborn(chance: Random, act: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Put or take; or give up midway, and begin again."""
    while True:
        task = asyncio.create_task(act())
        await asyncio.wait([task], timeout=chance.choice([0.25, 0.5]))
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            return task.result()


@settings(deadline=None)
@given(
    st.lists(st.sampled_from("aaabcdef"), max_size=60),
    st.integers(1, 8),
    st.integers(1, 6),
    st.sampled_from([0, 0.1, 0.7]),
    st.randoms(),
)
@virtual_time
async def test_every_row_comes_out_once_in_order_and_alone(
    channels: list[str], maxsize: int, workers: int, aside_odds: float, chance: Random
) -> None:
    """However reader and workers take turns, give up, begin again and set rows aside: once, in order, one of a channel
    at a time, and none while it is aside.
    """  # noqa: D205 - one sentence
    queue, taken, held, aside = RowQueue(maxsize), list[Row](), set[str](), set[Row]()
    rows = [row(channel, line) for line, channel in enumerate(channels)]

    async def read() -> None:
        for each in rows:
            await stubborn(chance, partial(queue.put, each))
            assert queue.qsize() <= maxsize + workers
        queue.close()

    def resume(each: Row) -> None:
        aside.remove(each)
        queue.resume(each)

    async def work() -> None:
        while each := await stubborn(chance, queue.take):
            assert each not in aside
            assert each.channel_sid not in held
            assert each.channel_sid not in {other.channel_sid for other in aside}
            if chance.random() < aside_odds:
                aside.add(each)
                queue.set_aside(each)
                assert queue.qsize() <= maxsize + workers
                asyncio.get_running_loop().call_later(chance.choice([0, 0.25, 0.5, 3]), resume, each)
                continue
            held.add(each.channel_sid)
            taken.append(each)
            await asyncio.sleep(chance.choice([0, 0.25, 0.5]))
            held.remove(each.channel_sid)
            queue.release(each.channel_sid)

    await asyncio.gather(read(), *(work() for _ in range(workers)))
    assert sorted(taken, key=lambda each: each.line) == rows
    assert sorted(taken, key=lambda each: each.channel_sid) == sorted(rows, key=lambda each: each.channel_sid)
    assert (queue.qsize(), queue.waiting) == (0, 0)
