"""Answers that are another request's, or about somebody else, and lists that are not the channel's."""

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeGuard, assert_never, get_args

from aiohttp.web_protocol import RequestHandler

from worker.emulator import reply
from worker.emulator.act import Due
from worker.emulator.emulator import Emulator
from worker.emulator.fault import Fault, When
from worker.emulator.form import Wanted, read_create
from worker.emulator.truth import Participant
from worker.emulator.visit import Visit

ENDLESS_TOKEN: Final = "PE"  # noqa: S105 - of a page
"""What the token of an endless list's next page begins with."""

Forged = Literal[
    Fault.SWAPPED,
    Fault.PREVIOUS,
    Fault.CACHED_HERE,
    Fault.CACHED_ELSEWHERE,
    Fault.LISTED_SID,
    Fault.FOREIGN_SID,
    Fault.UNRECORDED_SID,
    Fault.OTHER_LIST,
    Fault.HIDDEN_ENTRY,
    Fault.SAME_PAGE,
    Fault.ENDLESS_PAGES,
    Fault.STILL_OPEN,
]

_FORGED: Final = frozenset(get_args(Forged))


def is_forged(fault: Fault) -> TypeGuard[Forged]:
    """Tell whether a fault is a false answer."""
    return fault in _FORGED


@dataclass(slots=True)
class _Offer:
    """An answer that waits for another one to be exchanged with."""

    visit: Visit
    due: Due
    theirs: Due | None = None


class Forger:
    """Makes the false answers of one server, and remembers the true ones that they are made of."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._truth = emulator.truth
        self._offers: list[_Offer] = []
        self._previous: dict[RequestHandler, Due] = {}

    def remember(self, visit: Visit, due: Due) -> None:
        """Keep the success that a connection was given last."""
        if visit.gone_at is None:
            self._previous[visit.request.protocol] = due

    def forget(self, connection: RequestHandler) -> None:
        """Keep nothing of a connection that is closed."""
        self._previous.pop(connection, None)

    def exchange(self, visit: Visit, due: Due) -> Due:
        """Return what a create is answered with: its own answer, or that of a create which waits for one to swap."""
        theirs = self._accept(visit, due)
        if theirs is None:
            return due
        self.note(visit, Fault.SWAPPED, When.AFTER)
        return theirs

    async def forge(self, fault: Forged, visit: Visit, due: Due) -> Due | None:
        """Return the false answer in place of the due one, None where nothing is there to make it of."""
        match fault:
            case Fault.SWAPPED:
                return await self._swap(visit, due)
            case Fault.PREVIOUS:
                return self._previous.get(visit.request.protocol)
            case (
                Fault.CACHED_HERE | Fault.CACHED_ELSEWHERE | Fault.LISTED_SID | Fault.FOREIGN_SID | Fault.UNRECORDED_SID
            ):
                return self._of_another(fault, visit, due)
            case Fault.STILL_OPEN:
                one = self._truth.participants.get(visit.participant_sid)
                return (
                    None if one is None else Due(due.status, {**self._body(visit, one), "status": "open"}, due.headers)
                )
            case Fault.OTHER_LIST | Fault.HIDDEN_ENTRY | Fault.SAME_PAGE | Fault.ENDLESS_PAGES:
                page = self._list(fault, visit, due.body)
                return None if page is None else Due(due.status, page, due.headers)
            case _:
                assert_never(fault)

    def let_join(self, visit: Visit, *, somebody_else: bool) -> None:
        """Let somebody join the channel of a create: the very person it names, or a stranger of the same type."""
        wanted = read_create(visit.body)
        if isinstance(wanted, Wanted) and self._truth.remember:
            media = {"address": "a stranger"} if somebody_else else wanted.media_properties
            self._emulator.add_foreign(
                visit.channel_sid, interaction_sid=visit.interaction_sid, type=wanted.type, media_properties=media
            )

    def note(self, visit: Visit, fault: Fault, when: When) -> None:
        """Count a fault, and note which request met it."""
        self._truth.faults[f"{fault}.{when}"] += 1
        if visit.number is not None and self._truth.remember:
            wanted = read_create(visit.body)
            member = wanted.member if isinstance(wanted, Wanted) else None
            self._truth.amend(visit.number, fault=fault, when=when, member=member)

    # ---- creates

    async def _swap(self, visit: Visit, due: Due) -> Due:
        if (theirs := self._accept(visit, due)) is not None:
            return theirs
        offer = _Offer(visit, due)
        self._offers.append(offer)
        await visit.pause(self._emulator.behaviour.hang_seconds, wakes_when_gone=True)
        if offer.theirs is None:
            self._offers.remove(offer)
            return due
        return offer.theirs

    def _accept(self, visit: Visit, due: Due) -> Due | None:
        """Give an answer to a create of another channel that waits for one; returns that one's own."""
        offer = next((one for one in self._offers if one.visit.channel_sid != visit.channel_sid), None)
        if offer is None:
            return None
        self._offers.remove(offer)
        offer.theirs = due
        offer.visit.wake()
        return offer.due

    def _of_another(
        self,
        fault: Literal[
            Fault.CACHED_HERE, Fault.CACHED_ELSEWHERE, Fault.LISTED_SID, Fault.FOREIGN_SID, Fault.UNRECORDED_SID
        ],
        visit: Visit,
        due: Due,
    ) -> Due | None:
        truth, channel, own = self._truth, visit.channel_sid, due.body.get("sid")
        match fault:
            case Fault.CACHED_HERE:
                one = truth.last_here(channel, before=own)
            case Fault.LISTED_SID:
                one = truth.first_here(channel, before=own)
            case Fault.FOREIGN_SID:
                one = truth.first_elsewhere(channel)
            case _:
                one = next((one for one in truth.elsewhere(channel) if not one.foreign), None)
        wanted = read_create(visit.body)
        if one is None or not isinstance(wanted, Wanted):
            return None
        if fault in {Fault.CACHED_HERE, Fault.CACHED_ELSEWHERE}:
            return Due(due.status, self._body(visit, one), due.headers)
        where = (visit.interaction_sid, channel)
        routing = reply.echoed(wanted.routing_properties, self._emulator.behaviour.echo_routing)
        return Due(due.status, reply.participant_body(visit.origin, where, one.sid, wanted.type, routing), due.headers)

    def _body(self, visit: Visit, one: Participant) -> dict[str, Any]:
        routing = reply.echoed(one.routing_properties, self._emulator.behaviour.echo_routing)
        where = (one.interaction_sid, one.channel_sid)
        return reply.participant_body(visit.origin, where, one.sid, one.type, routing)

    # ---- lists

    def _list(
        self,
        fault: Literal[Fault.OTHER_LIST, Fault.HIDDEN_ENTRY, Fault.SAME_PAGE, Fault.ENDLESS_PAGES],
        visit: Visit,
        page: dict[str, Any],
    ) -> dict[str, Any] | None:
        """Return a page that is not the one asked for; None where no other channel has anybody."""
        match fault:
            case Fault.OTHER_LIST:
                one = next(self._truth.elsewhere(visit.channel_sid), None)
                there = self._truth.listed(one.channel_sid, start=0) if one else ()
                entries = [self._body(visit, found) for _, found in there]
                return {**page, "participants": entries} if entries else None
            case Fault.HIDDEN_ENTRY:
                return {**page, "participants": self._all_but_one(page["participants"])}
            case Fault.SAME_PAGE:
                return _followed_by(page, f"{visit.origin}{visit.request.raw_path}")
            case Fault.ENDLESS_PAGES:
                return _followed_by(page, f"{page['meta']['first_page_url']}&PageToken={ENDLESS_TOKEN}0")
            case _:
                assert_never(fault)

    def _all_but_one(self, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        hideable = [entry["sid"] for entry in entries if entry["sid"] not in self._truth.hidden]
        if not hideable:
            return entries
        hidden = self._emulator.words.choice(hideable)
        self._truth.hidden.add(hidden)
        return [entry for entry in entries if entry["sid"] != hidden]


def _followed_by(page: dict[str, Any], url: str) -> dict[str, Any]:
    return {**page, "meta": {**page["meta"], "next_page_url": url}}
