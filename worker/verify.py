"""Verifying: whether the participants of created rows are in their channels, as lists show them.

The service accepts a participant with 201, and may fail to join it later. So each channel is listed once, whatever
the number of its rows. A participant that is not in the list is called missing only after a second list.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from worker.journal import Journal
from worker.ledger import Member, Verification, Verified
from worker.model import Cause, Exit, Listing, Unlisted
from worker.stopping import FIRST_ANSWERS, NOT_THE_API, Stop

MOST_KEPT = 1000
"""Missing rows that are kept to be shown; all of them are in the ledger."""

_GONE = frozenset({"closed", "left", "inactive", "ended", "removed", "failed"})
"""Listed statuses that say that a participant has left. None is documented for lists."""

_NO_SID = "the list has participants without a sid"
_UNAUTHORIZED = "status 401"
_REASON_CHARACTERS = 200


class ChannelLister(Protocol):
    """What verifying needs: lists under the limits, asked for again while that may help."""

    def list(self, row: Member, /) -> Awaitable[Listing | Unlisted]:
        """Return who is in the channel of a row."""
        ...


def compare(members: Sequence[Member], found: Listing | Unlisted, *, again: bool) -> list[Verification]:
    """Return what a list says about the rows of its channel.

    Args:
        members: created rows of one channel.
        found: the channel's list, or why there is none.
        again: whether this is the second list of rows that were absent from the first one.
    """
    if isinstance(found, Unlisted):
        reason = found.reason.removeprefix("lists are refused: ")[:_REASON_CHARACTERS]
        return [Verification(one.number, Verified.NOT_LISTABLE, reason) for one in members]
    here = {one.sid.casefold() for one in found.participants if one.sid}
    nameless = any(one.sid is None for one in found.participants)
    results = []
    for one in members:
        result, detail = Verified.MISSING if again else Verified.ABSENT, None
        if one.sid.casefold() in here:
            detail = found.statuses.get(one.sid.casefold())
            result = Verified.DEPARTED if detail and detail.casefold() in _GONE else Verified.CONFIRMED
        elif nameless:
            result, detail = Verified.NOT_LISTABLE, _NO_SID
        results.append(Verification(one.number, result, detail))
    return results


@dataclass(slots=True)
class Findings:
    """What was found out, in rows. counts: by result. unlisted: reason → rows and channels. missing: the first few."""

    counts: dict[Verified, int] = field(default_factory=lambda: dict.fromkeys(Verified, 0))
    unlisted: dict[str, tuple[int, int]] = field(default_factory=dict)
    missing: list[Member] = field(default_factory=list)

    def add(self, members: Sequence[Member], results: Sequence[Verification], *, again: bool) -> None:
        """Count the results of one channel. again: its rows were counted as absent before."""
        if again:
            self.counts[Verified.ABSENT] -= len(members)
        rows: dict[str, int] = {}
        for one, found in zip(members, results, strict=True):
            self.counts[found.result] += 1
            if found.result is Verified.MISSING and len(self.missing) < MOST_KEPT:
                self.missing.append(one)
            if found.result is Verified.NOT_LISTABLE:
                rows[found.detail or ""] = rows.get(found.detail or "", 0) + 1
        for reason, count in rows.items():
            before, channels = self.unlisted.get(reason, (0, 0))
            self.unlisted[reason] = (before + count, channels + 1)


class Verifier:
    """Lists channels and records what that says about their rows, until there are none left or the run ends."""

    def __init__(self, lister: ChannelLister, journal: Journal, findings: Findings, stop: Stop) -> None:
        self._lister = lister
        self._journal = journal
        self._findings = findings
        self._stop = stop
        self._strangers: int | None = 0

    async def look(
        self, channels: Callable[[], AsyncIterator[Sequence[Member]]], concurrency: int, *, again: bool = False
    ) -> None:
        """List each channel once, several at a time. again: its rows were absent from the first list."""
        send, receive = anyio.create_memory_object_stream[Sequence[Member]](0)
        async with anyio.create_task_group() as tasks:
            for _ in range(concurrency):
                tasks.start_soon(self._work, receive.clone(), again)
            receive.close()
            async with send:
                async for members in channels():
                    if self._stop.ending.is_set():
                        break
                    await send.send(members)

    async def _work(self, channels: MemoryObjectReceiveStream[Sequence[Member]], again: bool) -> None:  # noqa: FBT001 - of `start_soon`
        async with channels:
            async for members in channels:
                if self._stop.ending.is_set():
                    continue
                await self._verify(members, again=again)

    async def _verify(self, members: Sequence[Member], *, again: bool) -> None:
        found = await self._lister.list(members[0])
        if isinstance(found, Unlisted):
            self._heed(found)
            if self._stop.draining.is_set():
                return  # it may be listable all the same
        else:
            self._strangers = None
        results = compare(members, found, again=again)
        await self._journal.note(results)
        self._findings.add(members, results, again=again)

    def _heed(self, found: Unlisted) -> None:
        """End the run when no list can be had at all: credentials that are refused, an address of somebody else's."""
        if found.refused and found.reason == _UNAUTHORIZED:
            self._stop.drain(Cause(Exit.HALTED, f"halted: the credentials were refused ({_UNAUTHORIZED})"))
        known = found.refused or found.missing or found.throttled or found.failed or found.misconfigured
        if self._strangers is None or known:
            return
        self._strangers += 1
        if self._strangers == FIRST_ANSWERS:
            self._stop.drain(Cause(Exit.HALTED, NOT_THE_API))
