"""How large things may be: what the docs say is what the code has, and beyond it happens what they say."""

import ast
import csv
import gzip
import json
import re
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from unittest.mock import patch

import pytest

from tests.commands import ROOT
from tests.fuzz.answer import KD, UO
from tests.fuzz.wire import NO_TLS, Written, ask
from tests.samples_of import sid
from worker.config import FieldMapping, Retry
from worker.errors import ConfigError, SourceError
from worker.mask import READ_CHARACTERS, REASON_CHARACTERS
from worker.model import Draft, InDoubt, Listing, Lost, Misfit, Problem, Record, Rejected, Reply, Unlisted
from worker.payload import MOST_KEY_BYTES, Mapper
from worker.payload.document import NESTING
from worker.payload.fault import NAMED_FIELDS
from worker.source.decoder import CsvDecoder, NdjsonDecoder
from worker.template import parse
from worker.verdict import judge

PAGE = (ROOT / "docs/limits.md").read_text().partition("## How large things may be")[2].partition("\n## ")[0]
ROWS = {
    name: (most, beyond)
    for name, most, beyond in re.findall(r"^\| `([\w-]+)`.*? \| (.*?) \| (.*) \|$", PAGE, re.MULTILINE)
}
MIB = 1 << 20


def assigned() -> Iterator[tuple[str, Any]]:
    """Yield every constant of the worker, and every argument that has one, by its name: wherever it stands."""
    for path in (ROOT / "worker").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value) | ast.keyword(arg=str(name), value=value):
                    with suppress(ValueError, NameError, TypeError):
                        yield f"{path.relative_to(ROOT / 'worker').parts[0].removesuffix('.py')}.{name}", number(value)
                case _:
                    pass


def number(value: ast.expr) -> float:
    """Return what an expression of numbers is worth."""
    match value:
        case ast.Constant(value=int() | float() as known):
            return known
        case ast.BinOp(left=left, op=ast.LShift(), right=right):
            return int(number(left)) << int(number(right))
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return number(left) * number(right)
        case _:
            raise ValueError


CODE = dict(assigned())

DOCUMENTED = {
    "rows": "any number",
    "field": f"{csv.field_size_limit():,} characters",
    "levels": f"{NESTING}",
    "line-levels": "what Python reads, about 990",
    "digits": f"{sys.get_int_max_str_digits():,}",
    "key": f"{MOST_KEY_BYTES:,} bytes",
    "unknown-fields": f"{NAMED_FIELDS}",
    "name": f"{CODE['payload._NAME_CHARACTERS']} characters",
    "part": "999,999",
    "form": "any size",
    "init-columns": f"{CODE['proposal._MOST_COLUMNS']:,}",
    "body": f"{CODE['api._MAX_BODY_BYTES'] // MIB} MiB",
    "status-line": f"{CODE['api.max_line_size'] >> 10} KiB",
    "header": f"{CODE['api.max_field_size'] >> 10} KiB, with its name",
    "headers": f"{CODE['api.max_headers']:,}",
    "interim": f"{CODE['api._MOST_INTERIM']}",
    "head": f"{CODE['api._MAX_HEAD_BYTES'] // MIB} MiB",
    "answer-levels": "what Python reads, about 990",
    "message": f"{READ_CHARACTERS} characters",
    "reason": f"{REASON_CHARACTERS} characters",
    "request-id": f"{CODE['api._REQUEST_ID_CHARACTERS']} characters",
    "concurrent": f"{CODE['api._MAX_DIGITS'] - 1} digits",
    "retry-after": "ten years",
    "wait": f"`retry.max_retry_after_seconds`, {Retry().max_retry_after_seconds:g} by default",
    "page": f"{CODE['api._MAX_PAGE_BYTES'] // MIB} MiB",
    "page-size": f"{CODE['api._PAGE_SIZE']:,} participants",
    "pages": f"{CODE['api._MAX_PAGES']}",
    "list": f"{CODE['api._MAX_LIST_BYTES'] // MIB} MiB",
}


def test_the_table_has_every_limit_and_no_other() -> None:
    """A new one is documented, and one that is gone is not."""
    assert sorted(ROWS) == sorted(DOCUMENTED)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_limit_is_what_the_docs_say(name: str) -> None:
    """To the number."""
    assert ROWS[name][0] == DOCUMENTED[name]


def test_some_limits_that_are_written_twice_are_the_same() -> None:
    """In rooms that must not know each other."""
    assert CODE["source._NAME_CHARACTERS"] == CODE["payload._NAME_CHARACTERS"]
    assert CODE["api._MAX_RETRY_SECONDS"] == 10 * 365 * 86_400


# ---- inputs, at the limit and beyond it -----------------------------------------------------------------------------


def line(text: str) -> Record:
    """Return the record of a line of JSON."""
    (record,) = NdjsonDecoder(iter([text + "\n"])).records()
    return record


def problem(text: str) -> Problem | None:
    """Return what is wrong with a line of JSON."""
    return line(text).problem


def mapped(mapper: Mapper | None = None, **values: Any) -> str:
    """Return the code of what is wrong with a record, "" when it is sent."""
    given = {"interaction_sid": KD, "channel_sid": UO, "type": "customer", "media_properties.address": "a@example.com"}
    made = (mapper or Mapper(None)).map(Record(1, "x", {**given, **values}), 1)
    return made.problem.code if isinstance(made, Misfit) else ""


def test_a_field_of_a_csv() -> None:
    """One that is too long is one row's problem, unless nobody knows where it ends."""
    most = csv.field_size_limit()
    lines = ["a,b\n", "x" * most + ",1\n", "x" * (most + 1) + ",1\n", "2,2\n"]
    records = list(CsvDecoder(iter(lines), ",", "odd").records())
    assert [one.problem and one.problem.code for one in records] == [None, "malformed", None]
    assert "malformed" in ROWS["field"][1]
    with pytest.raises(SourceError, match="line 2"):
        list(CsvDecoder(iter(["a,b\n", '"x\n', *["y" * 99 + "\n"] * (most // 99)]), ",", "odd").records())


def test_many_columns_and_long_lines() -> None:
    """There is no limit of ours."""
    names = [f"c{number}" for number in range(20_000)]
    (record,) = CsvDecoder(iter([",".join(names) + "\n", ",".join(["x" * 100] * 20_000) + "\n"]), ",", "odd").records()
    assert record.values is not None
    assert len(record.values) == 20_000
    assert problem(json.dumps({"a": "x" * 5_000_000})) is None


def test_levels() -> None:
    """Of a JSON field, and of a line."""

    def nested(levels: int) -> str:
        return '{"a": ' + "[" * (levels - 1) + "]" * (levels - 1) + "}"

    instead: dict[str, Any] = {"media_properties.address": None}
    assert mapped(**instead, media_properties=nested(NESTING)) == ""
    assert mapped(**instead, media_properties=nested(NESTING + 1)) == "invalid"
    assert "invalid" in ROWS["levels"][1]
    assert problem(nested(900)) is None
    assert problem(nested(3_000)) == Problem("malformed", "is nested too deeply")
    assert "malformed" in ROWS["line-levels"][1]


def test_digits() -> None:
    """Of a whole number."""
    most = sys.get_int_max_str_digits()
    assert problem('{"a": %s}' % ("1" * most)) is None
    assert problem('{"a": %s}' % ("1" * (most + 1))) == Problem("malformed", "has a number that is out of range")


def test_a_key() -> None:
    """In bytes, not in characters."""
    mapper = Mapper(None, "{k}")
    assert mapped(mapper, k="é" * (MOST_KEY_BYTES // 2)) == ""
    assert mapped(mapper, k="é" * (MOST_KEY_BYTES // 2) + "x") == "key_unfit"
    assert "key_unfit" in ROWS["key"][1]


def test_a_part() -> None:
    """Nothing has so many parts."""
    assert parse('{a | split:"-":999999}', "mapping.type").render({"a": "x"}) is None
    with pytest.raises(ConfigError, match="no number of a part"):
        parse('{a | split:"-":1000000}', "mapping.type")


def test_a_form_of_any_size() -> None:
    """The service knows its own limits."""
    mapping = FieldMapping(interaction_sid=KD, channel_sid=UO, type="customer", media_properties={"address": "{a}"})
    made = Mapper(mapping).map(Record(1, "x", {"a": "x" * 3_000_000}), 1)
    assert isinstance(made, Draft)
    assert judge(Reply(413, b"<html>")).code == "413"  # type: ignore[union-attr]
    assert isinstance(judge(Reply(413, b'{"code": 20413}')), Rejected)


# ---- answers, at the limit and beyond it ----------------------------------------------------------------------------

OK = b"HTTP/1.1 201 "


async def answered(content: bytes, call: str = "create") -> object:
    """Return what becomes of a call that is answered so."""
    with patch("ssl.create_default_context", lambda **_: NO_TLS):
        return await ask(Written(content, call), read_timeout=20)


def sized(size: int, status: bytes = OK) -> bytes:
    """Return an answer with a body of so many bytes."""
    return status + b"x\r\nContent-Length: %d\r\n\r\n" % size + b" " * size


async def test_a_body() -> None:
    """A byte too many makes it no answer, which is in doubt."""
    most = int(CODE["api._MAX_BODY_BYTES"])
    assert isinstance(await answered(sized(most)), Reply)
    lost = await answered(sized(most + 1))
    assert lost == Lost("the answer's body is larger than 1 MiB")
    assert isinstance(judge(Lost("x")), InDoubt)


async def test_a_body_that_is_small_until_it_is_unpacked() -> None:
    """What is counted is what comes out, and counting ends where the limit is."""
    packed = gzip.compress(bytes(64 * MIB), 1)
    head = OK + b"x\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    tracemalloc.start()
    try:
        lost = await answered(head + packed)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert lost == Lost("the answer's body is larger than 1 MiB")
    assert most < 32 * MIB


@pytest.mark.parametrize(
    ("fits", "too_much"),
    [
        (OK + b"y" * 131_000 + b"\r\n%s", OK + b"y" * 131_073 + b"\r\n%s"),
        (OK + b"x\r\nX: " + b"y" * 131_000 + b"\r\n%s", OK + b"x\r\nX: " + b"y" * 131_073 + b"\r\n%s"),
        (OK + b"x\r\n" + b"X: y\r\n" * 2_047 + b"%s", OK + b"x\r\n" + b"X: y\r\n" * 2_048 + b"%s"),
    ],
    ids=["status line", "header", "headers"],
)
async def test_what_stands_above_a_body(fits: bytes, too_much: bytes) -> None:
    """Beyond it nobody knows what was answered."""
    end = b"Content-Length: 0\r\n\r\n"
    assert isinstance(await answered(fits % end), Reply)
    assert await answered(too_much % end) == Lost("the answer is not valid HTTP")


async def test_what_is_kept_of_headers() -> None:
    """Not what a gateway makes of them."""
    more = b"Twilio-Request-Id: %s\r\nTwilio-Concurrent-Requests: %s\r\nRetry-After: %s\r\nContent-Length: 0\r\n\r\n"
    most = await answered(OK + b"x\r\n" + more % (b"R" * 100, b"9" * 6, b"9" * 8))
    assert most == Reply(201, b"", "R" * 100, 99_999_999.0, 999_999)
    cut = await answered(OK + b"x\r\n" + more % (b"R" * 101, b"9" * 7, b"9" * 80))
    assert cut == Reply(201, b"", "R" * 100, 10 * 365 * 86_400.0, None)


def test_levels_of_an_answer() -> None:
    """What cannot be read is nobody's."""

    def verdict(levels: int) -> object:
        return judge(Reply(400, b'{"code": 20404, "x": ' + b"[" * levels + b"]" * levels + b"}"))

    assert isinstance(verdict(900), Rejected)
    assert isinstance(verdict(3_000), InDoubt)


def test_words_of_an_answer() -> None:
    """So many are looked at, so many are kept."""

    def reason(message: str) -> str:
        verdict = judge(Reply(400, json.dumps({"code": 99999, "message": message}).encode()))
        assert isinstance(verdict, Rejected)
        return verdict.reason

    assert reason(" " * (READ_CHARACTERS - 2) + "no") == "no"
    assert reason(" " * READ_CHARACTERS + "no") == "refused with status 400"
    assert reason("a " * 200) == ("a " * 80).strip()


def page(*, after: str = "null", entries: int = 1, filler: int = 0) -> bytes:
    """Return a page of a list."""
    listed = [{"sid": sid("UT", number), "type": "customer"} for number in range(entries)]
    body = f'{{"participants": {json.dumps(listed)}, "meta": {{"next_page_url": {after}}}}}' + " " * filler
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body.encode())


async def test_a_page_of_a_list() -> None:
    """Its bytes count, its participants do not."""
    listing = await answered(page(entries=1_500), "list")
    assert isinstance(listing, Listing)
    assert len(listing.participants) == 1_500
    most = int(CODE["api._MAX_PAGE_BYTES"])
    unlisted = await answered(page(filler=most), "list")
    assert isinstance(unlisted, Unlisted)
    assert unlisted.reason == "the answer's body is larger than 16 MiB"


def test_who_reads_about_inputs_is_led_here() -> None:
    """The table is on the page about limits, and the page about inputs says so."""
    assert "(limits.md#how-large-things-may-be)" in (ROOT / "docs/input.md").read_text()
