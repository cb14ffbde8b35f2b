"""JSON objects in a record: read strictly, kept as they were written, so that nothing in them changes. Pure, no IO."""

import json
import math
from collections.abc import Callable
from typing import Any, NoReturn

NESTING = 100
"""How deep a document may be: readers of JSON and what masks values go down level by level."""

TOO_DEEP = "is nested too deeply"
_OUT_OF_RANGE = "has a number that JSON cannot hold"
NO_OBJECT = "must be a JSON object"


def read(text: str) -> dict[str, Any]:
    """Return the JSON object that a text holds.

    Raises ValueError with what is wrong, to follow the field's name, and with where, if that is known.
    """
    try:
        value = _decode(text)
    except json.JSONDecodeError as exc:
        raise ValueError(f"is not JSON: {exc.msg}", f"at character {exc.pos + 1}") from None
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    if not isinstance(value, dict):
        raise ValueError(NO_OBJECT)  # noqa: TRY004 - a bad value, not a bad call
    _bound(value, text)
    if "\\u" in text:  # an escape can hide half of a pair
        write(value)
    else:
        _check(text)
    return value


def write(value: Any) -> str:
    """Return the text of a JSON object; raises ValueError as `read` does."""
    if not isinstance(value, dict):
        raise ValueError(NO_OBJECT)  # noqa: TRY004 - a bad value, not a bad call
    try:
        text = _encode(value)
    except ValueError:
        raise ValueError(_OUT_OF_RANGE) from None
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    _bound(value, text)
    _check(text)
    return text


def _bound(value: dict[str, Any], text: str) -> None:
    if text.count("{") + text.count("[") <= NESTING:  # most documents are flat, and this costs nothing
        return
    level: list[Any] = [value]
    for _ in range(NESTING):
        inner = (one.values() if isinstance(one, dict) else one for one in level)
        level = [one for values in inner for one in values if isinstance(one, dict | list)]
        if not level:
            return
    raise ValueError(TOO_DEEP)


def _check(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is not valid Unicode: it has half of a surrogate pair") from None


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:  # Python does not read integers of thousands of digits
        raise ValueError(_OUT_OF_RANGE) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"is not JSON: {name} is not a JSON value")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(_OUT_OF_RANGE)
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("has the same key twice")
    return found


def _writer(*, ascii_only: bool, sort_keys: bool, allow_nan: bool) -> Callable[[Any], str]:
    """Return what `json.JSONEncoder(…).encode` is, without making its C part anew for each document."""
    encoder = json.JSONEncoder(
        ensure_ascii=ascii_only,
        check_circular=False,
        sort_keys=sort_keys,
        allow_nan=allow_nan,
        separators=(",", ":"),
    )
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # another Python
        return encoder.encode
    quote = json.encoder.encode_basestring_ascii if ascii_only else json.encoder.encode_basestring
    encode = make(None, encoder.default, quote, None, ":", ",", sort_keys, encoder.skipkeys, allow_nan)
    return lambda value: "".join(encode(value, 0))


_decode = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_finite, parse_int=_integer, object_pairs_hook=_unique
).decode
_encode = _writer(ascii_only=False, sort_keys=False, allow_nan=False)
canonical = _writer(ascii_only=True, sort_keys=True, allow_nan=False)
"""Returns the one text of a JSON value that does not depend on how it was written: keys sorted, no spaces, ASCII."""
