"""The request of one create: its fields, the rules that are certain, its canonical digest, its form. Pure, no IO."""

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from yarl import URL

CANONICAL_VERSION = 1
"""Part of every digest: a new way of writing requests canonically makes new keys, and the ledger is bound to it."""

FIELDS = ("interaction_sid", "channel_sid", "type", "media_properties", "routing_properties")
JSON_FIELDS = ("media_properties", "routing_properties")

RULES = {
    "interaction_sid": "must be KD and 32 hexadecimal digits",
    "channel_sid": "must be UO and 32 hexadecimal digits",
    "type": "must be agent, customer, supervisor, external or unknown",
    "media_properties": "must be a JSON object",
    "routing_properties": "must be a JSON object",
}
"""What is said of a field that breaks its rule."""


class Request(BaseModel):
    """The fields of one create, with the rules that the API documents [card]."""

    model_config = ConfigDict(frozen=True)

    interaction_sid: Annotated[str, Field(pattern=r"^KD[0-9a-fA-F]{32}\z")]
    channel_sid: Annotated[str, Field(pattern=r"^UO[0-9a-fA-F]{32}\z")]
    type: Literal["agent", "customer", "supervisor", "external", "unknown"]
    media_properties: dict[str, Any]
    routing_properties: dict[str, Any] | None = None


validate = Request.__pydantic_validator__.validate_python
"""Returns a Request of the fields, or raises pydantic's ValidationError with every field that breaks a rule."""


def digest(request: Request) -> bytes:
    """Return the 16-byte digest of the canonical request: JSON with sorted keys, no spaces, ASCII only."""
    canonical = json.dumps(
        [
            CANONICAL_VERSION,
            request.interaction_sid,
            request.channel_sid,
            request.type,
            request.media_properties,
            request.routing_properties,
        ],
        sort_keys=True,
        separators=(",", ":"),
    )
    return blake2b(canonical.encode("ascii"), digest_size=16).digest()


def form(kind: str, texts: Mapping[str, str]) -> bytes:
    """Return the form-encoded body. texts: field → the JSON text that is sent."""
    query = {"Type": kind, "MediaProperties": texts["media_properties"]}
    if "routing_properties" in texts:
        query["RoutingProperties"] = texts["routing_properties"]
    return URL.build(query=query).raw_query_string.encode("ascii")
