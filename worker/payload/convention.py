"""What is unusual about a request: what a channel's kind usually wants, and what spreadsheets do to numbers. Pure.

Only e-mail is documented for this call [card], so a break of these conventions is a warning, and an error of its row
under `source.strict`. Damage is certain: a number in scientific notation is nobody's address.
"""

import re
from collections.abc import Mapping
from typing import Any

from worker.filter import EXCEL_NUMBER, is_excel_number
from worker.payload.fault import Fault

_E164 = re.compile(r"\+[1-9]\d{6,14}").fullmatch
_BARE = re.compile(r"\d{6,15}").fullmatch
_PHONE_LIKE = re.compile(r"[+(\d][\d ()./-]*").fullmatch
_WHATSAPP = "whatsapp:"
_ADDRESS = "media_properties.address"
_ADDRESSES = ("address", "proxy_address", "identity")
_LEVELS = frozenset({"to", "cc", "bcc"})
_ROUTING = {
    name: (re.compile(rf"{prefix}[0-9a-fA-F]{{32}}").fullmatch, f"is not {prefix} and 32 hexadecimal digits")
    for name, prefix in (("task_sid", "WT"), ("worker_sid", "WK"), ("reservation_sid", "WR"))
}


def damage(media: Mapping[str, Any]) -> list[Fault]:
    """Return the values of media properties that cannot be what they were."""
    found = []
    for name in _ADDRESSES:
        value = media.get(name)
        if isinstance(value, str) and is_excel_number(value):
            found.append(Fault(f"media_properties.{name}", EXCEL_NUMBER, value))
    return found


def oddities(media: Mapping[str, Any], routing: Mapping[str, Any] | None) -> list[Fault]:
    """Return what breaks a convention of e-mail, SMS, WhatsApp or chat, or of routing sids."""
    found: list[Fault] = []
    address, identity = media.get("address"), media.get("identity")
    if (address is None) == (identity is None):
        how = "neither an address nor an identity" if address is None else "both an address and an identity"
        found.append(Fault("media_properties", f"has {how}; the API wants one of them (45351)"))
    if isinstance(address, str):
        kind = _of_mail if "@" in address or media.get("type") == "email" else _of_phone
        found += kind(media, address)
    if routing:
        for name, (holds, sentence) in _ROUTING.items():
            value = routing.get(name)
            if value is not None and not (isinstance(value, str) and holds(value)):
                found.append(Fault(f"routing_properties.{name}", sentence, str(value)))
    return found


def _of_mail(media: Mapping[str, Any], address: str) -> list[Fault]:
    found = []
    if "@" not in address:
        found.append(Fault(_ADDRESS, "has no @, and its type is email", address))
    level = media.get("level")
    if level is not None and str(level) not in _LEVELS:
        found.append(Fault("media_properties.level", "is not to, cc or bcc", str(level)))
    if (proxy := media.get("proxy_address")) is not None:
        found.append(Fault("media_properties.proxy_address", "an e-mail has none", str(proxy)))
    return found


def _of_phone(media: Mapping[str, Any], address: str) -> list[Fault]:
    found = []
    number = address.removeprefix(_WHATSAPP)
    if not _E164(number):
        if _BARE(number):
            found.append(Fault(_ADDRESS, "has no + before its digits (lost in a spreadsheet?)", address))
        elif _PHONE_LIKE(number):
            found.append(Fault(_ADDRESS, "is no phone number like +441632960123", address))
        else:
            return []  # another kind of channel, of which nothing is known
    proxy = media.get("proxy_address")
    if proxy is None:
        found.append(Fault("media_properties.proxy_address", "is missing; SMS and WhatsApp have one"))
    elif isinstance(proxy, str) and proxy.startswith(_WHATSAPP) != address.startswith(_WHATSAPP):
        lacking = "address" if proxy.startswith(_WHATSAPP) else "proxy_address"
        found.append(Fault(f"media_properties.{lacking}", "has no whatsapp: before it, and the other one has"))
    return found
