"""What a create must look like: the form that a client posts, read as the API would read it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from yarl import URL

TYPES: Final = frozenset({"agent", "customer", "supervisor", "external", "unknown"})  # [card]
STATUSES: Final = frozenset({"closed", "wrapup"})  # [spec]
_ROUTING_SIDS: Final = {
    "task_sid": re.compile(r"WT[0-9a-fA-F]{32}"),
    "worker_sid": re.compile(r"WK[0-9a-fA-F]{32}"),
    "reservation_sid": re.compile(r"WR[0-9a-fA-F]{32}"),
}


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_no_constant)  # made once: json.loads would make one a call


@dataclass(frozen=True, slots=True)
class Wanted:
    """A participant as a valid form asks for it; the properties are decoded JSON."""

    type: str
    media_properties: Any
    routing_properties: dict[str, Any] | None

    @property
    def member(self) -> str | None:
        """The address or identity."""
        return member_of(self.media_properties)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A definite no, by Twilio's code."""

    code: int
    message: str


def read_create(body: bytes) -> Wanted | Refusal:
    """Read the form of a create; a wrong one is a Refusal with 20001, or 45351 for not exactly one of two."""
    form = _form(body)
    if isinstance(form, Refusal):
        return form
    if form.get("Type") not in TYPES:
        return Refusal(20001, f"Type must be one of {', '.join(sorted(TYPES))}")
    try:
        media = _json(form["MediaProperties"])
    except KeyError:
        return Refusal(20001, "MediaProperties is required")
    except ValueError:
        return Refusal(20001, "MediaProperties must be a JSON document")
    routing = None
    if "RoutingProperties" in form:
        try:
            routing = _json(form["RoutingProperties"])
        except ValueError:
            return Refusal(20001, "RoutingProperties must be a JSON object")
    return _refusal_of_media(media) or _refusal_of_routing(routing) or Wanted(form["Type"], media, routing)


def member_of(media_properties: Any) -> str | None:
    """Return the address or identity that makes a participant the same person in a channel, or None."""
    if not isinstance(media_properties, dict):
        return None
    found = media_properties.get("address") or media_properties.get("identity")
    return str(found) if found else None


def read_update(body: bytes) -> str | Refusal:
    """Read the form of an update: the new status."""
    form = _form(body)
    if isinstance(form, Refusal):
        return form
    status = form.get("Status", "")
    return status if status in STATUSES else Refusal(20001, f"Status must be one of {', '.join(sorted(STATUSES))}")


def _form(body: bytes) -> Mapping[str, str] | Refusal:
    # yarl decodes a form four times as fast as urllib, which matters with a million of them.
    try:
        return URL.build(query_string=body.decode("ascii"), encoded=True).query
    except ValueError:
        return Refusal(20001, "The body is not a form")


def _json(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply to be read") from error


def _refusal_of_media(media: Any) -> Refusal | None:
    """Exactly one of identity and address [docs], where either is mentioned: other channels may need neither."""
    if not isinstance(media, dict) or not ("identity" in media or "address" in media):
        return None
    if bool(media.get("identity")) != bool(media.get("address")):
        return None
    return Refusal(45351, "Exactly one of identity or address must be provided")


def _refusal_of_routing(routing: Any) -> Refusal | None:
    if routing is None:
        return None
    if not isinstance(routing, dict):
        return Refusal(20001, "RoutingProperties must be a JSON object")
    for name, pattern in _ROUTING_SIDS.items():
        sid = routing.get(name)
        if sid is not None and not (isinstance(sid, str) and pattern.fullmatch(sid)):
            return Refusal(20001, f"RoutingProperties.{name} is not a sid of its kind")
    return None
