"""Fakes as unkind as the world: a service that creates first and then lets the client down, and an observer."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

import anyio

from tests.samples_of import sid
from worker.config import Limits
from worker.config import Retry as RetrySettings
from worker.model import Answer, Cause, Change, Listed, Listing, Lost, NotSent, Reply, Retry, Row, Settlement, Unlisted
from worker.submit import Submission
from worker.traffic import LaneDeparture, Traffic


def created(row: Row) -> Reply:
    """Return the answer to a create that succeeded."""
    return Reply(201, b'{"sid": "%s"}' % sid("UT", row.key).encode(), "RQ1")


def error(status: int, code: int, retry_after_seconds: float | None = None) -> Reply:
    """Return an error of the API's own."""
    return Reply(status, b'{"status": %d, "code": %d, "message": "no"}' % (status, code), "RQ2", retry_after_seconds)


LOST = Lost("the connection broke")
LOST_BEFORE = Lost("the connection broke before anything was made")
LOST_LATE = Lost("the connection broke, and it is made later")
NOT_SENT = NotSent("refused")

Respond = Callable[[Row, int], Answer]
"""What the service says to a row's n-th attempt, from 1."""


def always_created(row: Row, attempt: int) -> Answer:
    """Be a service without faults."""
    del attempt
    return created(row)


@dataclass
class FakeService:
    """Takes rows, keeps the truth, and answers as it is told. made: key → how often a participant was made.

    A lost answer means here that the participant was made: the worst case.
    """

    respond: Respond = always_created
    seconds: float = 0.0
    made: Counter[str] = field(default_factory=Counter)
    attempts: Counter[str] = field(default_factory=Counter)
    order: list[Row] = field(default_factory=list)
    in_flight: Counter[str] = field(default_factory=Counter)
    most_in_channel: int = 0
    most_at_once: int = 0
    left_at: list[float] = field(default_factory=list)
    present: dict[str, list[Listed]] = field(default_factory=dict)
    lists: Counter[str] = field(default_factory=Counter)
    list_answer: Listing | Unlisted | None = None
    late: dict[str, list[Listed]] = field(default_factory=dict)
    echo: Callable[[Listed], Listed] = lambda listed: listed
    arrived: anyio.Event = field(default_factory=anyio.Event)
    hold: anyio.Event | None = None

    async def create(self, row: Row, departure: Submission) -> Answer:
        """Let the row leave, make it or not, answer or not."""
        self.attempts[row.key] += 1
        answer = self.respond(row, self.attempts[row.key])
        if isinstance(answer, NotSent):
            return answer
        await departure.ready()
        departure.left()
        self.left_at.append(anyio.current_time())
        self.order.append(row)
        self.in_flight[row.channel] += 1
        self.most_in_channel = max(self.most_in_channel, self.in_flight[row.channel])
        self.most_at_once = max(self.most_at_once, self.in_flight.total())
        self.arrived.set()
        try:
            if answer is not LOST_BEFORE and (isinstance(answer, Lost) or answer.status < 300):
                self.made[row.key] += 1
                where = self.late if answer is LOST_LATE else self.present
                where.setdefault(row.channel_sid, []).append(self.echo(Listed(sid("UT", row.key), row.type, None)))
            await anyio.sleep(self.seconds)
            if self.hold is not None:
                await self.hold.wait()
        finally:
            self.in_flight[row.channel] -= 1
        return answer

    async def list(self, interaction_sid: str, channel_sid: str, departure: LaneDeparture) -> Listing | Unlisted:
        """List what is in a channel; what is late shows only in the list after the next one."""
        del interaction_sid
        await departure.ready()
        departure.left()
        self.lists[channel_sid] += 1
        if self.list_answer is not None:
            return self.list_answer
        listed = tuple(self.present.get(channel_sid, []))
        self.present.setdefault(channel_sid, []).extend(self.late.pop(channel_sid, []))
        return Listing(listed)


def free_traffic(
    draining: anyio.Event | None = None,
    *,
    retry: RetrySettings | None = None,
    rate: float = inf,
    outage_seconds: float = 0,
    adaptive: bool = False,
    on_change: Callable[[Change], None] = lambda _: None,
    on_outage: Callable[[str], None] = lambda _: None,
) -> Traffic:
    """Return traffic without limits, unless some are given; jitter takes the longest wait, so that waits are known."""
    limits = Limits(rate_per_second=rate, list_rate_per_second=inf, concurrency=100, adaptive=adaptive)
    return Traffic(
        limits,
        retry or RetrySettings(),
        draining or anyio.Event(),
        outage_seconds=outage_seconds,
        on_change=on_change,
        on_outage=on_outage,
        jitter=lambda _least, most: most,
    )


@dataclass
class Watcher:
    """An observer that remembers."""

    retries: list[tuple[str, str, int, float]] = field(default_factory=list)
    settled: list[Settlement] = field(default_factory=list)
    causes: list[Cause] = field(default_factory=list)
    resolved: list[tuple[str, str]] = field(default_factory=list)
    undecided: list[tuple[str, str]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def doubt_resolved(self, row: Row, how: str) -> None:
        """Remember a doubt that ended."""
        self.resolved.append((row.key, how))

    def doubt_undecided(self, row: Row, reason: str) -> None:
        """Remember a doubt that stays."""
        self.undecided.append((row.key, reason))

    def lists_refused(self, reason: str) -> None:
        """Remember that lists are refused."""
        self.refused.append(reason)

    def retry_scheduled(self, row: Row, retry: Retry, *, attempt: int, seconds: float, request_id: str | None) -> None:
        """Remember a retry; whose answer it was is the log's affair."""
        del request_id
        self.retries.append((row.key, retry.code, attempt, seconds))

    def row_settled(self, row: Row, settlement: Settlement) -> None:
        """Remember an outcome."""
        assert row.key == settlement.key
        self.settled.append(settlement)

    def run_stopping(self, cause: Cause) -> None:
        """Remember a cause."""
        self.causes.append(cause)
