"""The request of one create: its fields, the rules that are certain, its canonical digest, its form. Pure, no IO."""

import re
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

from yarl import URL

from worker.payload import document
from worker.payload.fault import Fault
from worker.template import as_text

CANONICAL_VERSION = 1
"""Part of every digest: a new way of writing requests canonically makes new keys, and the ledger is bound to it."""

FIELDS = ("interaction_sid", "channel_sid", "type", "media_properties", "routing_properties")
JSON_FIELDS = ("media_properties", "routing_properties")

TYPES = frozenset({"agent", "customer", "supervisor", "external", "unknown"})
"""What a participant can be [card]."""

RULES: Mapping[str, tuple[Callable[[str], object], str]] = {
    "interaction_sid": (re.compile(r"KD[0-9a-fA-F]{32}").fullmatch, "must be KD and 32 hexadecimal digits"),
    "channel_sid": (re.compile(r"UO[0-9a-fA-F]{32}").fullmatch, "must be UO and 32 hexadecimal digits"),
    "type": (TYPES.__contains__, "must be agent, customer, supervisor, external or unknown"),
}
"""Field → the rule that the API documents [card], and what is said of a value that breaks it."""


class Request(NamedTuple):
    """The fields of one create, each as the rules want it. An absent routing is None."""

    interaction_sid: str
    channel_sid: str
    type: str
    media_properties: dict[str, Any]
    routing_properties: dict[str, Any] | None = None


def broken(field: str, value: Any) -> Fault:
    """Return what is wrong with the value of a text field that is absent, or breaks its rule."""
    if value is None or value == "":
        return Fault(field, "is missing")
    return Fault(field, RULES[field][1], as_text(value))


def unwritable(media: Any, routing: Any) -> list[Fault]:
    """Return why JSON objects cannot be sent as they are; they may be absent."""
    faults = []
    for field, value in zip(JSON_FIELDS, (media, routing), strict=True):
        try:
            if value is not None:
                document.write(value)
        except ValueError as exc:
            faults.append(Fault(field, *exc.args))
    return faults


def canonical(request: Request) -> str:
    """Return the one text of all requests that mean the same, in ASCII. Raises ValueError for what is no JSON."""
    return document.canonical([CANONICAL_VERSION, *request])


def digest(text: str) -> bytes:
    """Return the 16-byte digest of a canonical request."""
    return blake2b(text.encode("ascii"), digest_size=16).digest()


def form(kind: str, media: str, routing: str | None) -> bytes:
    """Return the form-encoded body. media, routing: the JSON texts that are sent."""
    query = {"Type": kind, "MediaProperties": media}
    if routing is not None:
        query["RoutingProperties"] = routing
    return URL.build(query=query).raw_query_string.encode("ascii")
