"""Rows in doubt: which participant of the channel is theirs, if any.

The service lists sids, types and routing, no address and no date. So the only sound method is a set difference within
one channel that has one unresolved create of ours at most: what is listed, less what the ledger knows, less what was
there before. Decided in pure code (`decide`); `Reconciler` does the looking.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs

import anyio

from worker.config import Doubt as DoubtSettings
from worker.ledger import Surroundings
from worker.model import Listed, Listing, Row, Unlisted
from worker.traffic import LaneDeparture, Patience, Refusal, Traffic, WithdrawnError

ROUTING_SIDS = ("task_sid", "worker_sid", "reservation_sid")
FIRST_LOOKS = (0.0, 1.0, 5.0, 15.0)
"""When to look, in seconds after the attempt's end, before the settle time ends: most answers are there at once."""

REFUSING_CHANNELS = 5
"""So many channels on end that refuse to be listed, with no list between them, mean that lists are refused."""

REFUSED_SECONDS = 300.0
"""Refused lists are tried again after so long."""


# ---- deciding -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Adopted:
    """Exactly this participant is the row's."""

    sid: str


@dataclass(frozen=True, slots=True)
class Absent:
    """Nobody new is in the channel. sids: who is."""

    sids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Undecided:
    """A person has to decide. candidates: sids that may be the row's."""

    reason: str
    candidates: tuple[str, ...] = ()


Evidence = Adopted | Absent | Undecided


def decide(row: Row, listed: Sequence[Listed], around: Surroundings) -> Evidence:
    """Return what a list says about a row in doubt. Absent is not yet `not created`: the service may still be at it."""
    before = {sid.casefold() for sid in (*around.known, *(around.baseline or ()))}
    here = {one.sid.casefold(): one for one in listed if one.sid}  # a page that shifts while it is read shows one twice
    new = [one for sid, one in here.items() if sid not in before]
    told = before | here.keys()
    gone = sorted(sid for sid in around.seen if sid.casefold() not in told)
    candidates = (*(one.sid for one in new if one.sid), *gone)
    if around.unresolved > 1:
        return Undecided("several rows of this channel are in doubt; a list cannot tell them apart", candidates)
    if any(one.sid is None for one in listed):
        return Undecided("the list has participants without a sid", candidates)
    if gone:
        return Undecided("a participant that an earlier list showed is not in this one", candidates)
    if not new:
        return Absent(tuple(one.sid for one in listed if one.sid is not None))
    if len(new) > 1:
        return Undecided("several participants could be this row's", candidates)
    wanted = _routing(row)
    if contradiction := _contradiction(row, wanted, new[0]):
        return Undecided(f"the only new participant has another {contradiction}", candidates)
    if around.baseline is None and not _matches(wanted, new[0].routing):
        return Undecided("the channel was not listed before, so this may be somebody else's participant", candidates)
    return Adopted(candidates[0])


def _routing(row: Row) -> Mapping[str, Any]:
    texts = parse_qs(row.body.decode("ascii")).get("RoutingProperties")
    return json.loads(texts[0]) if texts else {}


def _contradiction(row: Row, wanted: Mapping[str, Any], found: Listed) -> str:
    if found.type is not None and found.type != row.type:
        return "type"
    echoed = found.routing or {}
    for name in ROUTING_SIDS:
        if wanted.get(name) and echoed.get(name) and not _is_same(wanted[name], echoed[name]):
            return name
    return ""


def _matches(wanted: Mapping[str, Any], echoed: Mapping[str, Any] | None) -> bool:
    return any(wanted.get(name) and _is_same(wanted[name], (echoed or {}).get(name)) for name in ROUTING_SIDS)


def _is_same(sid: object, other: object) -> bool:
    return isinstance(sid, str) and isinstance(other, str) and sid.casefold() == other.casefold()


# ---- looking --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Doubt:
    """A row in doubt.

    since: when its attempt ended, or this ledger was opened, in seconds of the event loop.
    counted: whether this run counted it as in doubt. of_input: whether it is a row of the input. rounds: how often it
    turned out not to be created and was sent again. looks: how often its channel was listed since.
    """

    number: int
    since: float
    counted: bool = True
    of_input: bool = True
    rounds: int = 0
    looks: int = 0


@dataclass(frozen=True, slots=True)
class NotCreated:
    """It was certainly not created: sending it again is safe. sids: who is in the channel instead."""

    sids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Later:
    """Nothing can be said yet. at: when to look again, in seconds of the event loop."""

    at: float


Conclusion = Adopted | NotCreated | Undecided | Later


class Lister(Protocol):
    """What reconciling needs of the API."""

    def list(self, interaction_sid: str, channel_sid: str, departure: LaneDeparture) -> Awaitable[Listing | Unlisted]:
        """List all participants of a channel."""
        ...


class InChannel(Protocol):
    """A row, or anything else of a channel."""

    @property
    def interaction_sid(self) -> str:
        """The interaction of the channel."""
        ...

    @property
    def channel_sid(self) -> str:
        """The channel as it is written."""
        ...

    @property
    def channel(self) -> str:
        """The channel in the form in which channels are compared."""
        ...


class Reconciler:
    """Lists channels, before their first create and when a row is in doubt.

    on_refused: called when lists turn out to be refused. For some minutes there are no baselines then, and doubts wait
    for a person or a later run; after that lists are tried again. on_misconfigured: called with the reason when no list
    can be asked for as things are configured.
    """

    def __init__(
        self,
        api: Lister,
        traffic: Traffic,
        doubt: DoubtSettings,
        draining: anyio.Event,
        *,
        on_refused: Callable[[str], None],
        on_misconfigured: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._api = api
        self._traffic = traffic
        self._settings = doubt
        self._draining = draining
        self._on_refused = on_refused
        self._on_misconfigured = on_misconfigured
        self._refused = ""
        self._refusing: set[str] = set()
        self._failing: set[str] = set()
        self._try_again_at = 0.0

    @property
    def wants_baselines(self) -> bool:
        """Whether a channel is to be listed before its first create."""
        return self._settings.baseline and self.resolves

    @property
    def resolves(self) -> bool:
        """Whether rows in doubt can be resolved by listing."""
        return self._settings.policy == "reconcile" and not self._is_refused

    @property
    def baseline_seconds(self) -> float:
        """How old a channel's baseline may be before a create."""
        return self._settings.baseline_max_age_seconds

    @property
    def _is_refused(self) -> bool:
        return bool(self._refused) and anyio.current_time() < self._try_again_at

    async def baseline(self, row: Row) -> tuple[str, ...] | None:
        """Return the sids in a row's channel, None when they cannot be had."""
        listing = await self.list(row)
        if isinstance(listing, Unlisted) or any(one.sid is None for one in listing.participants):
            return None
        return tuple(one.sid for one in listing.participants if one.sid is not None)

    async def look(self, row: Row, doubt: Doubt, around: Surroundings) -> Conclusion:
        """Look for a row in doubt. Not created takes two lists without it, one of them begun after the settle time."""
        began = anyio.current_time()
        listing = await self.list(row)
        doubt.looks += 1
        if isinstance(listing, Unlisted):
            return self._again(doubt, f"its channel cannot be listed: {listing.reason}")
        evidence = decide(row, listing.participants, around)
        if not isinstance(evidence, Absent):
            return evidence
        if doubt.looks > 1 and began >= doubt.since + self._settings.settle_seconds:
            return NotCreated(evidence.sids)
        return Later(self._next(doubt))

    def _next(self, doubt: Doubt) -> float:
        settled = doubt.since + self._settings.settle_seconds
        return min(doubt.since + FIRST_LOOKS[doubt.looks], settled) if doubt.looks < len(FIRST_LOOKS) else settled

    def _again(self, doubt: Doubt, reason: str) -> Conclusion:
        settled = doubt.since + self._settings.settle_seconds
        if self._is_refused or anyio.current_time() >= settled:
            return Undecided(reason)
        return Later(settled)

    async def list(self, row: InChannel) -> Listing | Unlisted:
        """Return who is in the channel of a row; asks again, as `retry` says, while that may help."""
        listing: Listing | Unlisted = Unlisted(self._refused, refused=True)
        patience = Patience(self._traffic)
        while not self._is_refused and not self._draining.is_set():
            try:
                listing = await self._ask(row)
            except WithdrawnError:
                return listing
            if isinstance(listing, Listing):
                self._refusing.clear()
                self._refused = ""
                self._failing.discard(row.channel)
                return listing
            if listing.refused:
                self._heed_refused(row, listing)
            if listing.misconfigured:
                self._on_misconfigured(listing.reason)
            # asking again would get the same answer for this channel
            if listing.refused or listing.missing or listing.misconfigured:
                return listing
            if row.channel in self._failing and not listing.throttled and not self._traffic.awaits_service:
                break  # it used up its attempts before, for another row
            if not await patience.wait(throttled=listing.throttled, after_seconds=listing.retry_after_seconds):
                self._failing.add(row.channel)
                break
        return listing

    async def _ask(self, row: InChannel) -> Listing | Unlisted:
        """List once, and tell the traffic what came back."""
        departure, lane = LaneDeparture(self._traffic, self._traffic.lists), self._traffic.lists
        try:
            await departure.enter()
            try:
                listing = await self._api.list(row.interaction_sid, row.channel_sid, departure)
            finally:
                permit = departure.home()
            if isinstance(listing, Listing):
                lane.admit()
            elif listing.throttled and permit is not None:
                lane.refuse(permit, Refusal(listing.code, listing.retry_after_seconds))
            elif listing.misconfigured:  # which says nothing about the service
                pass
            elif listing.failed:
                lane.fail(listing.reason, unreachable=listing.unreachable, channel=row.channel)
            else:
                lane.answered()
        finally:
            departure.end()
        return listing

    def _heed_refused(self, row: InChannel, listing: Unlisted) -> None:
        """Conclude from several channels on end that lists are refused; one channel says nothing about others."""
        self._refusing.add(row.channel)
        if len(self._refusing) < REFUSING_CHANNELS:
            return
        self._try_again_at = anyio.current_time() + REFUSED_SECONDS
        if not self._refused:
            self._refused = f"lists are refused: {listing.reason}"
            self._on_refused(listing.reason)
