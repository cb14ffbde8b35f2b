"""Other answers made of known ones: bytes, values of the JSON, statuses and headers are changed."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from tests.fuzz.answer import HERE, KD, PAGES_APART, UO, UT, VALUES, Answered
from tests.samples_of import sid

LONGEST = 16_384

STATUSES = (
    *(200, 201, 202, 204, 302, 304, 307, 400, 400, 400, 401, 403, 404, 404, 405, 407, 408, 409, 410, 413, 414, 418),
    *(422, 423, 425, 428, 429, 431, 451, 499, 500, 501, 502, 503, 504, 520, 599, 600, 999, 100, 101, 199, 99, 0),
)
CODES = (
    *(50433, 50437, 45206, 50404, 45202, 50416, 80102, 20429, 45010, 45719, 45780, 50063, 50074, 20409, 20162, 45796),
    *(45307, 45308, 50419, 50449, 20003, 20005, 20006, 20008, 20010, 45002, 45003, 45377, 20001, 20413, 20422, 20423),
    *(45004, 45008, 45310, 45351, 45362, 45366, 45367, 50407, 50411, 50415, 50420, 50425, 50453, 20404, 45006, 45354),
    *(45376, 50417, 20403, 50056, 50418, 50422, 20500, 20503, 45001, 45005, 45350, 45361, 45372, 9999, 10_000, 999_999),
    *(1_000_000, 5, 0, -20404, 404),
)
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 1e300, 10**30, 2**63, "", " ", "\0", "\ud83d", "é", "\u202e", "20404", "null"),
    *([], {}, [[]], [None], {"": None}, [1, "x"], "x" * 700, VALUES, VALUES.upper(), "closed", "customer", "agent"),
    *(
        UT,
        UT.upper(),
        UT.lower(),
        UT + "\n",
        sid("UT", 2),
        sid("UT", 8),
        UO,
        sid("UO", 2),
        UO.lower(),
        KD,
        sid("KD", 2),
    ),
    *("https://www.twilio.com/docs/errors/1", f"{HERE}/v1?Page=1", f"{HERE}/v1?Page=2", "https://evil.example/"),
    *("http://[", "http://127.0.0.1:x/", "//", f"{HERE}/\t", f"{HERE}/é", f"{HERE}#x", "http://127.0.0.1:09/v1"),
)
NAMES = (
    *("status", "message", "code", "more_info", "type", "title", "detail", "errors", "sid", "channel_sid"),
    *("interaction_sid", "participants", "meta", "next_page_url", "routing_properties", "timestamp", "path", "error"),
)
TOKENS = (
    *(
        b'"',
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"null",
        b"true",
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"-0",
        b"9" * 30,
    ),
    *(
        b"\\ud83d",
        b"\\u0000",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\0",
        b"\xed\xa0\x80",
        b"\xe2\x80\xa8",
        b"\xc3",
        b" ",
        b"\n",
    ),
    *(
        b'"code": 20404, ',
        b'"sid": null, ',
        b'"errors": [{"code": 20003}], ',
        b'"status": 400, ',
        b"[" * 300,
        b"<html>",
    ),
    *(b'{"a":' * 300, b"x" * 300, UT.encode(), VALUES.encode(), PAGES_APART),
)
HEADERS = (
    *("", "0", "1", "-1", "60", "1.5", "9" * 50, "9" * 5000, "NaN", "inf", "1e3", "\u0661", " 5 ", "x", "0x10"),
    *("Wed, 21 Oct 2026 07:28:00 GMT", "Wed, 21 Oct 2026 07:28:00 -2500", "Wed, 21 Oct 0000 07:28:00 GMT", "21 Oct"),
    *("Wed, 21 Oct 9999 23:59:60 GMT", "1 1 1 1 1", "Mon, 1 Jan 1 0:0:0 +2359", "a b c d e f g", ":::::", ", " * 500),
)


def mutate(dice: Random, corpus: Sequence[Answered]) -> Answered:
    """Return a new answer."""
    answered = dice.choice(corpus)
    for _ in range(dice.choice((1, 1, 2, 3, 5))):
        answered = dice.choice(_WAYS)(dice, answered, corpus)
    return replace(answered, content=answered.content[:LONGEST])


def _insert(dice: Random, answered: Answered, _: Sequence[Answered]) -> Answered:
    at = dice.randint(0, len(answered.content))
    token = dice.choice(TOKENS) * dice.choice((1, 1, 1, 3))
    return replace(answered, content=answered.content[:at] + token + answered.content[at:])


def _flip(dice: Random, answered: Answered, _: Sequence[Answered]) -> Answered:
    content = bytearray(answered.content or b" ")
    content[dice.randrange(len(content))] = dice.randrange(256)
    return replace(answered, content=bytes(content))


def _delete(dice: Random, answered: Answered, _: Sequence[Answered]) -> Answered:
    start, end = sorted(dice.randint(0, len(answered.content)) for _ in range(2))
    return replace(answered, content=answered.content[:start] + answered.content[min(end, start + 30) :])


def _splice(dice: Random, answered: Answered, corpus: Sequence[Answered]) -> Answered:
    other = dice.choice(corpus).content
    joint = dice.choice((b"", b"", PAGES_APART))
    at = dice.choice((len(answered.content), dice.randint(0, len(answered.content))))
    return replace(answered, content=answered.content[:at] + joint + other[dice.choice((0, len(other) // 2)) :])


def _encode(dice: Random, answered: Answered, _: Sequence[Answered]) -> Answered:
    try:
        text = answered.content.decode()
    except UnicodeError:
        return answered
    return replace(answered, content=text.encode(dice.choice(("utf-16", "utf-16-be", "utf-32", "utf-8-sig", "utf-7"))))


def _status(dice: Random, answered: Answered, _: Sequence[Answered]) -> Answered:
    return replace(answered, status=dice.choice(STATUSES))


def _header(dice: Random, answered: Answered, _: Sequence[Answered]) -> Answered:
    name, value = dice.choice(("retry_after", "date")), dice.choice(HEADERS)
    return replace(answered, retry_after=value) if name == "retry_after" else replace(answered, date=value)


def _revalue(dice: Random, answered: Answered, _: Sequence[Answered]) -> Answered:
    """Change one value of a page that is JSON, wherever it is, or put one more into it."""
    pages = answered.pages
    at = dice.randrange(len(pages))
    try:
        document = json.loads(pages[at])
        holders: list[Any] = [[document]]
        for holder in holders:  # grows as it is walked
            inner = holder.values() if isinstance(holder, dict) else holder
            holders += [one for one in inner if isinstance(one, dict | list)]
        holder = dice.choice(holders)
        value = dice.choice((*ODD, dice.choice(CODES), dice.choice(CODES), str(dice.choice(CODES)), answered.status))
        if isinstance(holder, dict):
            name = dice.choice((*holder, *NAMES)) if dice.random() < 0.7 or not holder else dice.choice(list(holder))
            holder[name] = value
        elif dice.random() < 0.3:
            holder.append(value)
        elif holder:
            holder[dice.randrange(len(holder))] = value
        pages[at] = json.dumps(holders[0][0], ensure_ascii=dice.random() < 0.7).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return answered
    return replace(answered, content=PAGES_APART.join(pages))


def _agree(dice: Random, answered: Answered, _: Sequence[Answered]) -> Answered:
    """Say in the body what status it has, as Twilio does."""
    body = {"status": answered.status, "message": f"no {dice.choice((VALUES, 'good', 'x' * 700))}"}
    if dice.random() < 0.5:
        body["code"] = dice.choice(CODES)
    return replace(answered, content=json.dumps(body).encode())


_Way = Callable[[Random, Answered, Sequence[Answered]], Answered]
_WAYS: tuple[_Way, ...] = (
    *(_insert, _flip, _delete, _splice, _encode, _status, _status, _header),
    *([_revalue] * 8),
    *(_agree, _agree),
)
