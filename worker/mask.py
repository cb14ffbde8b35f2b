"""What is told of a service's own words: no person's data, nothing of the row that was sent, and never much. Pure."""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

REASON_CHARACTERS = 160
READ_CHARACTERS = 4 * REASON_CHARACTERS
"""Characters of a message that are looked at: masking a whole one would take a time quadratic in its length."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_PERSONAL = re.compile(r"[^\s@]+@[^\s@]+|\+?\d[\d\s().-]{5,}\d|\"[^\"]*\"|'[^']*'|\b([A-Z]{2})[0-9a-fA-F]{32}\b")
_NUMBER = re.compile(r"(?<!\w)\d(?:[\d.,]*\d)?(?!\w)")
_LAST_WORD = re.compile(r"(?<!\S)\S{1,64}\Z")

_TELLING = 3
"""Shorter texts are in too many words of a reason."""

_DOCUMENTS = ("MediaProperties", "RoutingProperties")
_WORDS_OF_THE_API = frozenset({"type", "level"})
"""Keys of media properties whose values are the API's own words."""


def masked(message: str) -> str:
    """Take out what may be a person's, and numbers, which would make every row's reason different.

    Linear in the length.
    """
    cut = _shortened(message, READ_CHARACTERS)
    found = _PERSONAL.sub(lambda found: f"{found.group(1)}…" if found.group(1) else "***", cut)
    return _shortened(" ".join(_NUMBER.sub("…", _CONTROL.sub(" ", found)).split()), REASON_CHARACTERS)


def _shortened(text: str, most: int) -> str:
    """Cut a text that is too long, before a word: half of a name would not be known as the row's."""
    return text if len(text) <= most else _LAST_WORD.sub("", text[:most]).rstrip()


def without_form(reason: str, body: bytes) -> str:
    """Return a reason that quotes nothing of a row's form; "" when the form cannot be read. body: as of `Row`."""
    form = parse_qs(body.decode("ascii", "replace"))
    try:
        documents = [json.loads(text) for name in _DOCUMENTS for text in form.get(name, ())]
    except RecursionError:  # values that cannot be read cannot be masked
        return ""
    values = {text for document in documents for text in _texts(document)}
    told = {word for value in values for word in (value, *re.findall(r"\w{4,}", value)) if len(word) >= _TELLING}
    said = _folded(reason)
    told = {word for word in told if _folded(word) in said}  # a pattern of all of them would grow with the row
    if not told:
        return reason
    pattern = "|".join(map(re.escape, sorted(told, key=len, reverse=True)))
    return re.sub(pattern, "***", reason, flags=re.IGNORECASE)


def _folded(text: str) -> str:
    """Return a text so that what differs by case only is alike, as it is for a pattern that ignores case."""
    return text.replace("\u0130", "i").replace("\u0131", "i").casefold()


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts of a document, however deep it is, and its numbers that are long enough to tell something."""
    pending = [value]
    while pending:
        match pending.pop():
            case dict() as inner:
                pending += [one for name, one in inner.items() if name not in _WORDS_OF_THE_API]
            case list() as inner:
                pending += inner
            case str() as text:
                yield text
            case int() | float() as number if len(str(number)) > _TELLING and not isinstance(number, bool):
                yield str(number)
