"""The queue between the reader and the workers: a bounded `asyncio.Queue` with a gate for each channel.

A channel is claimed from the moment one of its rows is ready until the worker that took it releases the channel. Rows
of a claimed channel wait in the channel's own line, in the order in which they were put; rows of other channels go
ahead. So at most one row of a channel is ready or in a worker's hand, which is the rule "one unresolved create per
channel".

What is ready is the queue of the base class; `_put` and `_get` decide what goes there. The bound counts the lines too,
or a file with one busy channel would be read into memory as a whole. When the bound is full of rows that all wait for
one channel, other workers get nothing until it is released: that is no deadlock, since whoever holds the channel needs
nothing from this queue to come to its end.
"""

import asyncio
from collections import deque
from itertools import repeat

from worker.model import Row


class QueueClosedError(RuntimeError):
    """The row queue was closed: nothing may be put any more."""


class RowQueue(asyncio.Queue[Row | None]):
    """Rows to be sent, one of each channel at a time.

    maxsize: how many rows may be inside, ready or in lines; below 1 is no bound. None is no row: it comes out when the
    queue was closed and all rows were taken. `join` and `task_done` are not used here: an import ends by closing.
    """

    def _init(self, maxsize: int) -> None:  # noqa: ARG002 - the base class keeps it
        self._queue: deque[Row | None] = deque()
        self._held: dict[str, bool] = {}  # claimed channels; whether the row is in a worker's hand, or still to come
        self._lines: dict[str, deque[Row]] = {}  # claimed channels for which rows wait
        self._aside: set[str] = set()  # claimed channels whose row was set aside
        self._inside = 0
        self._in_hand = 0
        self._waiting = 0
        self._putting = 0
        self._closed = False
        self._readmitting = False

    def _put(self, item: Row | None) -> None:
        if item is None:
            self._queue.appendleft(None)
            return
        self._inside += 1
        channel = item.channel
        if channel not in self._held:
            self._held[channel] = False
            self._queue.append(item)
            return
        line = self._lines.get(channel)
        if line is None:
            line = self._lines[channel] = deque()
        line.append(item)
        self._waiting += 1

    def _get(self) -> Row | None:
        item = self._queue.popleft()
        if item is not None:
            self._inside -= 1
            self._in_hand += 1
            self._held[item.channel] = True
        return item

    def __repr__(self) -> str:
        # The base class shows its items, and rows hold what people would not want to find in a log.
        return f"<RowQueue {self.qsize()} of {self.maxsize} rows, {self._waiting} of them waiting>"

    __str__ = __repr__

    @property
    def waiting(self) -> int:
        """How many rows wait in the lines of claimed channels."""
        return self._waiting

    def qsize(self) -> int:
        """Return how many rows are inside, ready or in lines."""
        return self._inside

    def full(self) -> bool:
        """Tell whether a put has to wait. Once closed none has: it fails."""
        return not self._closed and not self._readmitting and super().full()

    async def put(self, item: Row | None) -> None:
        """Add a row; wait while the queue is full. Raise QueueClosedError once it is closed, even while waiting."""
        self._putting += 1
        try:
            await super().put(item)
        finally:
            self._putting -= 1

    def put_nowait(self, item: Row | None) -> None:
        """Add a row. Raise asyncio.QueueFull when there is no room, QueueClosedError once the queue is closed."""
        if self._closed:
            raise QueueClosedError("a row was put into the queue after it was closed")
        if item is None:
            raise ValueError("None is no row: it is what a closed queue gives")
        super().put_nowait(item)

    async def take(self) -> Row | None:
        """Return the next row whose channel is free, or None once the queue is closed and all rows were released.

        The channel is the caller's until `release`. A row in a line, or in another taker's hand, may be a row to come:
        takers wait for it.
        """
        return await self.get()

    def get_nowait(self) -> Row | None:
        """Return what `take` would, or raise asyncio.QueueEmpty if that would wait. `get` comes through here too."""
        item = super().get_nowait()
        if item is None:
            super().put_nowait(None)  # pass the message on, to all who wait and all who are still to come
        return item

    def release(self, channel: str) -> None:
        """Give a channel back after its row: the next row of its line becomes ready, or the channel is free.

        channel: as `Row.channel`. Raise ValueError if nobody holds the channel.
        """
        if not self._held.get(channel):
            raise ValueError(f"channel {channel} was released, but nobody holds it")
        del self._held[channel]
        self._in_hand -= 1
        line = self._lines.get(channel)
        if line is None:
            self._end_if_done()
            return
        row = line.popleft()
        if not line:
            del self._lines[channel]
        self._waiting -= 1
        self._readmit(row)

    def set_aside(self, row: Row) -> None:
        """Keep a row that was taken, and its channel, for later: inside again, and nobody gets it before `resume`.

        This may exceed the bound, by one row for each taker. Raise ValueError if nobody holds the channel.
        """
        if not self._held.get(row.channel):
            raise ValueError(f"a row of channel {row.channel} was set aside, but nobody holds it")
        self._held[row.channel] = False
        self._aside.add(row.channel)
        self._inside += 1
        self._in_hand -= 1

    def resume(self, row: Row) -> None:
        """Make a row that was set aside ready to be taken. Raise ValueError if none of its channel was."""
        if row.channel not in self._aside:
            raise ValueError(f"a row of channel {row.channel} was resumed, but none was set aside")
        self._aside.remove(row.channel)
        del self._held[row.channel]
        self._readmit(row)

    def _readmit(self, row: Row) -> None:
        """Make a row ready that was inside all the time: the bound, which may be exceeded, does not keep it out."""
        self._inside -= 1
        self._readmitting = True
        try:
            super().put_nowait(row)  # and this is what wakes a taker
        finally:
            self._readmitting = False

    def close(self) -> None:
        """Let no more rows in. The rows inside are handed out; then every taker gets None. Again is harmless."""
        if self._closed:
            return
        self._closed = True
        for _ in repeat(None, self._putting):
            # The base class wakes a waiting put when something is taken. So that all of them fail now and not when
            # the rows before them were sent, something is: None goes in at the front and comes out again.
            super().put_nowait(None)
            super().get_nowait()
        self._end_if_done()

    def _end_if_done(self) -> None:
        # not before the last row is released: until then it may be set aside, and somebody has to take it again
        if self._closed and not self._inside and not self._in_hand:
            super().put_nowait(None)

    def shutdown(self, immediate: bool = False) -> None:  # noqa: FBT001, FBT002 - the signature is Python 3.13's
        """Close: Python's own name for it since 3.13. Raise ValueError for immediate, which would drop rows."""
        if immediate:
            raise ValueError("a row queue drops no rows: close it, and take what is inside")
        self.close()
