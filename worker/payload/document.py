"""JSON objects in a record: read strictly, kept as they were written, so that nothing in them changes. Pure, no IO."""

import json
import math
from typing import Any, NoReturn

TOO_DEEP = "is nested too deeply"
_OUT_OF_RANGE = "has a number that JSON cannot hold"


def document(value: Any) -> tuple[dict[str, Any], str]:
    """Return a JSON object and its text: as it was given, when it came as text, so that nothing in it changes.

    Raises ValueError with what is wrong, to follow the field's name.
    """
    if isinstance(value, str):
        text = value
        value = _decoded(text)
    else:
        text = ""
    if not isinstance(value, dict):
        raise ValueError("must be a JSON object")  # noqa: TRY004 - a bad value, not a bad call
    try:
        if not text or "\\u" in text:  # an escape can hide half of a pair
            written = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
            written.encode()
            text = text or written
        else:
            text.encode()
    except UnicodeEncodeError:
        raise ValueError("is not valid Unicode: it has half of a surrogate pair") from None
    except ValueError:
        raise ValueError(_OUT_OF_RANGE) from None
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    return value, text


def _decoded(text: str) -> Any:
    try:
        return json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_integer,
            object_pairs_hook=_unique,
        )
    except json.JSONDecodeError as exc:
        raise ValueError(f"is not JSON: {exc.msg} at character {exc.pos + 1}") from None
    except RecursionError:
        raise ValueError(TOO_DEEP) from None


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
