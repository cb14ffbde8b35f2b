"""What is really there: every participant made, every create that came, and the counters."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from worker.emulator.fault import Fault, When
from worker.emulator.form import member_of
from worker.emulator.limit import Flight, Window


class Condition(StrEnum):
    """The state a channel can be declared to be in. Every well-formed channel is open until declared otherwise."""

    OPEN = "active"
    MISSING = "missing"  # 20404
    CLOSED = "closed"  # 45354
    FULL = "full"  # 50417


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """One participant that exists. Times are the emulator's clock, in seconds."""

    sid: str
    type: str
    interaction_sid: str
    channel_sid: str
    media_properties: Any
    routing_properties: dict[str, Any] | None
    foreign: bool  # someone else's: live traffic, not the import
    made_at: float
    listed_at: float  # lists show it from then on
    status: str  # active, closed or wrapup


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One create that came, and how it ended so far. `made` is the sid of its participant, None if there is none (yet).

    `status` and `code` are what was answered, None where no answer went out; `fault` and `when` what it met.
    """

    number: int  # in the order of arrival, from 0
    at: float
    interaction_sid: str
    channel_sid: str
    status: int | None = None
    code: int | None = None
    fault: Fault | None = None
    when: When | None = None
    made: str | None = None
    member: str | None = None  # the address or identity that it names; noted where it met a fault
    client_gone: bool = False  # the client left before its answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """A snapshot of the counters. They count since the start, except `in_flight` and `late_pending`."""

    at: float  # when it was taken: the emulator's clock, in seconds
    arrived: int  # creates that came
    accepted: int  # creates that passed the credentials and the limits
    created: int  # participants made by creates
    throttled: int  # 429 by the limits, whatever the call
    unauthorized: int  # 401, whatever the call
    refused: int  # creates answered with a definite no for what they say or where
    foreign: int  # participants of others
    listed: int  # lists that came
    updated: int  # participants closed or wrapped up
    redirects_followed: int  # requests that followed a redirect, which a POST with credentials never should
    faults: dict[str, int]  # such as {"reset.after": 3}
    in_flight: int
    late_pending: int  # participants that will be made, but are not yet
    max_in_flight: int  # of all calls
    max_in_flight_in_a_channel: int  # of creates
    busiest_second_arrived: int  # creates in the worst one-second window
    busiest_second_accepted: int


class Truth:
    """Keeps the participants, the requests and the counters; without `remember` only the counters."""

    def __init__(self, *, clock: Callable[[], float], remember: bool) -> None:
        self._clock = clock
        self.remember = remember
        self.participants: dict[str, Participant] = {}
        self.requests: list[Request] = []
        self._conditions: dict[str, Condition] = {}
        self.arrivals = Window()
        self.acceptances = Window()
        self.list_acceptances = Window()
        self.flight = Flight()
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.arrived = 0
        self.accepted = 0
        self.created = 0
        self.hidden: set[str] = set()
        """Sids that a list left out."""
        self._channels: dict[str, list[str]] = {}
        self._members: set[tuple[str, str | None]] = set()
        # Not from the seed: a second emulator must not hand out the sids of the first to a ledger that knows them.
        self._random = random.Random()  # noqa: S311 - sids, not secrets

    def new_sid(self, prefix: str) -> str:
        """Return a sid that was never given out."""
        return f"{prefix}{self._random.getrandbits(128):032x}"

    def arrive(self, now: float, interaction_sid: str, channel_sid: str) -> int:
        """Note a create that came; returns its number."""
        number = self.arrived
        self.arrived += 1
        self.arrivals.add(now)
        if self.remember:
            self.requests.append(
                Request(number=number, at=now, interaction_sid=interaction_sid, channel_sid=channel_sid)
            )
        return number

    def amend(self, number: int, **changes: Any) -> None:
        """Note more about a create."""
        if self.remember:
            self.requests[number] = replace(self.requests[number], **changes)

    def add(self, participant: Participant) -> None:
        """Let a participant exist, and remember it."""
        self.participants[participant.sid] = participant
        self._channels.setdefault(participant.channel_sid, []).append(participant.sid)
        self._members.add((participant.channel_sid, member_of(participant.media_properties)))

    def update(self, sid: str, status: str) -> Participant:
        """Change a participant's status; KeyError when there is none."""
        participant = self.participants[sid] = replace(self.participants[sid], status=status)
        self._members.discard((participant.channel_sid, member_of(participant.media_properties)))
        self.counts["updated"] += 1
        return participant

    def is_member(self, channel_sid: str, media_properties: Any) -> bool:
        """Whether this address or identity is in the channel."""
        member = member_of(media_properties)
        return member is not None and (channel_sid, member) in self._members

    def size(self, channel_sid: str) -> int:
        """How many participants of a channel are still in it."""
        return sum(self.participants[sid].status == "active" for sid in self._channels.get(channel_sid, ()))

    def listed(self, channel_sid: str, *, start: int) -> Iterator[tuple[int, Participant]]:
        """Yield the participants of a channel that lists show by now, with their place, from place `start` on."""
        now = self._clock()
        sids = self._channels.get(channel_sid, [])
        for place in range(start, len(sids)):
            participant = self.participants[sids[place]]
            if participant.listed_at <= now:
                yield place, participant

    def last_here(self, channel_sid: str, *, before: str | None) -> Participant | None:
        """Return the import's newest participant of a channel other than this sid."""
        here = (self.participants[sid] for sid in reversed(self._channels.get(channel_sid, [])) if sid != before)
        return next((one for one in here if not one.foreign), None)

    def elsewhere(self, channel_sid: str) -> Iterator[Participant]:
        """Yield the participants of all other channels, the newest first."""
        return (one for one in reversed(self.participants.values()) if one.channel_sid != channel_sid)

    def first_elsewhere(self, channel_sid: str) -> Participant | None:
        """Return the participant of the first create in another channel that was answered as it should be."""
        for one in self.requests:
            if one.made and one.fault is None and one.status is not None and one.channel_sid != channel_sid:
                return self.participants[one.made]
        return None

    def first_here(self, channel_sid: str, *, before: str | None) -> Participant | None:
        """Return whoever has been in a channel's list for the longest time, except this sid."""
        return next((one for _, one in self.listed(channel_sid, start=0) if one.sid != before), None)

    def condition(self, channel_sid: str) -> Condition:
        """Return the state of a channel."""
        return self._conditions.get(channel_sid, Condition.OPEN) if self._conditions else Condition.OPEN

    def declare(self, channel_sid: str, condition: Condition) -> None:
        """Put a channel into a state."""
        self._conditions[channel_sid] = condition

    def stats(self, *, late_pending: int) -> Stats:
        """Return the counters as they are now."""
        counts = self.counts
        return Stats(
            at=self._clock(),
            arrived=self.arrived,
            accepted=self.accepted,
            created=self.created,
            throttled=counts["throttled"],
            unauthorized=counts["unauthorized"],
            refused=counts["refused"],
            foreign=counts["foreign"],
            listed=counts["listed"],
            updated=counts["updated"],
            redirects_followed=counts["redirects_followed"],
            faults=dict(self.faults),
            in_flight=self.flight.flying,
            late_pending=late_pending,
            max_in_flight=self.flight.most,
            max_in_flight_in_a_channel=self.flight.most_in_one_channel,
            busiest_second_arrived=self.arrivals.busiest,
            busiest_second_accepted=self.acceptances.busiest,
        )
