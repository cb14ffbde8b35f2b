"""What strangers and files may make as large as they like costs in proportion to its size.

Counted where something can be counted. Otherwise a size and its eightfold are timed in turn within one test, and what
is compared are the least times: caches may make the eightfold take twelve times as long, what is quadratic takes
sixty-four.
"""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any
from unittest.mock import patch
from urllib.parse import urlencode

import aiohttp
import pytest

from tests.fuzz.answer import KD, UO, UT
from tests.fuzz.wire import NO_TLS, Written, ask
from tests.samples_of import row, sid
from worker.errors import SourceError
from worker.filter import UnknownValueError
from worker.ledger import Surroundings
from worker.mask import masked, without_form
from worker.model import Listed, Listing, Misfit, Problem, Record, Reply
from worker.payload import Mapper
from worker.reconcile import Absent, decide
from worker.source.decoder import CsvDecoder, NdjsonDecoder
from worker.template import parse
from worker.verdict import judge, judge_closing

ROUNDS = 3
TIMES = 8
MOST = 24.0


def growth(make: Callable[[int], Callable[[], Any]], size: int) -> float:
    """Return how many times as long a thing takes for the eightfold. make: returns what is timed, all prepared."""
    small, large = make(size), make(TIMES * size)
    took: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(ROUNDS):
        for is_large, work in ((False, small), (True, large)):
            began = time.process_time()
            work()
            took[is_large].append(time.process_time() - began)
    return min(took[True]) / min(took[False])


def grows_in_proportion(make: Callable[[int], Callable[[], Any]], size: int) -> None:
    """Fail when it does not, three times on end: others use this machine, too."""
    found = []
    for _ in range(3):
        found.append(growth(make, size))
        if found[-1] < MOST:
            return
    raise AssertionError(f"{TIMES} times as much takes {found} times as long")


def test_what_is_quadratic_is_found() -> None:
    """A measure that finds nothing proves nothing."""
    with pytest.raises(AssertionError, match="times as long"):
        grows_in_proportion(lambda size: lambda: [list(range(size)).count(-1) for _ in range(size)], 200)


# ---- answers --------------------------------------------------------------------------------------------------------


MESSAGES: dict[str, Callable[[int], str]] = {
    "at": lambda n: "a@" * n,
    "no at": lambda n: "a" * n,
    "digits": lambda n: "1 " * n,
    "digits and no end": lambda n: "1" + "-" * n,
    "quotes": lambda n: '"' * (n | 1),
    "one quote": lambda n: '"' + "a" * n,
    "sids": lambda n: "UT" + "a" * n,
    "spaces": lambda n: " " * n + "x",
    "controls": lambda n: "\0\x1b" * n,
    "words": lambda n: "word " * n,
}
BODIES: dict[str, Callable[[int], str]] = {
    **{
        name: lambda n, made=made: json.dumps({"status": 400, "message": made(n)})  # type: ignore[misc]
        for name, made in MESSAGES.items()
    },
    "keys": lambda n: "{" + ",".join(f'"k{number}": 1' for number in range(n)) + "}",
    "one key": lambda n: "{" + ",".join('"code": 20404' for _ in range(n)) + "}",
    "errors": lambda n: '{"errors": [' + ",".join('{"code": 1}' for _ in range(n)) + "]}",
    "type": lambda n: '{"status": 400, "title": "x", "type": [' + "1," * n + "1]}",
    "digits of a code": lambda n: '{"code": ' + "9" * n + "}",
    "fraction": lambda n: '{"code": 0.' + "9" * n + "}",
    "escapes": lambda n: '{"message": "' + "\\ud83d" * n + '"}',
    "opened": lambda n: '{"message": [' + "[" * n,
    "sids in a row": lambda n: f'{{"sid": "{UT * n}"}}',
}


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_an_answer_is_judged_in_linear_time(body: Callable[[int], str], status: int) -> None:
    """Whatever its body is full of; an answer may have a megabyte."""

    def make(size: int) -> Callable[[], Any]:
        reply = Reply(status, body(size).encode())
        return lambda: (judge(reply, row(1)), judge_closing(reply, UT))

    grows_in_proportion(make, 10_000)


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_what_is_masked_of_a_message_is_bounded(message: Callable[[int], str]) -> None:
    """The end of a long message changes nothing, so it is not looked at."""
    assert masked(message(5_000)) == masked(message(5_000)[:700] + "x" * 100_000)
    assert len(masked(message(5_000))) <= 160


def form_of(values: int) -> bytes:
    """Return a form with so many different values."""
    media = {f"k{number}": f"value{number} and more" for number in range(values)}
    return urlencode({"Type": "customer", "MediaProperties": json.dumps(media)}).encode()


def test_only_values_that_are_told_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pattern of all values of a large row would take long at each refusal, and stay in memory afterwards."""
    patterns: list[str] = []

    def noted(pattern: str, *rest: Any, **more: Any) -> str:
        patterns.append(pattern)
        return substitute(pattern, *rest, **more)

    substitute = re.sub
    monkeypatch.setattr("worker.mask.re.sub", noted)
    assert without_form("no Value17 here", form_of(5_000)) == "no *** here"
    assert len(patterns) == 1
    assert len(patterns[0]) < 100


def test_a_reason_is_masked_in_linear_time() -> None:
    """However many values its row has."""

    def make(size: int) -> Callable[[], Any]:
        form = form_of(size)
        return lambda: without_form("x" * 160, form)

    grows_in_proportion(make, 500)


def answering(answer: bytes, call: str = "create") -> Callable[[], Any]:
    """Return what asks a server that answers so. It has to be a whole answer."""

    def work() -> None:
        with patch("ssl.create_default_context", lambda **_: NO_TLS), asyncio.Runner() as runner:
            assert isinstance(runner.run(ask(Written(answer, call), read_timeout=20)), Reply | Listing)

    return work


def test_a_body_in_many_pieces_is_read_in_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server may trickle: what came before is not copied for each piece."""
    whole = aiohttp.StreamReader.iter_any

    async def pieces(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
        async for chunk in whole(stream):
            for at in range(0, len(chunk), 256):
                yield chunk[at : at + 256]

    monkeypatch.setattr(aiohttp.StreamReader, "iter_any", pieces)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    grows_in_proportion(lambda size: answering(head % size + b" " * size, "probe"), 256 << 10)


HEADERS: dict[str, Callable[[int], bytes]] = {
    "many": lambda n: b"".join(b"X-%d: y\r\n" % number for number in range(n // 100)),
    "alike": lambda n: b"X: y\r\n" * (n // 100),
    "many long": lambda n: (b"X: %s\r\n" % (b"y" * 1_000)) * (n // 100),
    "cookies": lambda n: b"".join(b"Set-Cookie: a%d=b; path=/\r\n" % number for number in range(n // 100)),
    **{
        f"{name.decode()} of {piece.decode()}": lambda n, name=name, piece=piece: (
            b"%s: %s\r\n" % (name, piece * (n // 4))
        )  # type: ignore[misc]
        for name in (b"Date", b"Retry-After", b"Set-Cookie", b"Content-Type", b"Twilio-Request-Id")
        for piece in (b"1 ", b"a=;", b'"\\', b":,")
    },
}


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS)
def test_headers_are_read_in_linear_time(headers: Callable[[int], bytes]) -> None:
    """However many there are, and however long."""

    def make(size: int) -> Callable[[], Any]:
        return answering(b"HTTP/1.1 200 OK\r\n%sContent-Length: 0\r\n\r\n" % headers(size))

    grows_in_proportion(make, 10_000)


@pytest.mark.parametrize(
    ("piece", "end"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    ],
    ids=["announcements", "answers"],
)
def test_more_than_one_answer_is_read_in_linear_time(piece: bytes, end: bytes) -> None:
    """A server may go on talking."""
    grows_in_proportion(lambda size: answering(piece * size + end), 500)


def test_chunks_are_read_in_linear_time() -> None:
    """However small each is."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    grows_in_proportion(lambda size: answering(head + b"1\r\n \r\n" * size + b"0\r\n\r\n"), 4_000)


def page_of(size: int, routing: str = "null") -> bytes:
    """Return a page of a list with so many participants."""
    entries = ",".join(
        f'{{"sid": "{sid("UT", number)}", "channel_sid": "{UO}", "routing_properties": {routing}}}'
        for number in range(size)
    )
    return f'{{"participants": [{entries}], "meta": {{"next_page_url": null}}}}'.encode()


@pytest.mark.parametrize("routing", ["null", '{"a": [[[{"b": 1}]]]}'])
def test_a_list_is_read_in_linear_time(routing: str) -> None:
    """However many participants it has."""

    def make(size: int) -> Callable[[], Any]:
        page = page_of(size, routing)
        return answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page), "list")

    grows_in_proportion(make, 4_000)


def test_a_difference_is_taken_in_linear_time() -> None:
    """What was seen earlier is looked up in one set, not in one made anew for each."""

    def make(size: int) -> Callable[[], Any]:
        sids = [sid("UT", number) for number in range(size)]
        around = Surroundings(frozenset(sids), frozenset(), 1, seen=frozenset(sids))
        listed = [Listed(one, "customer", None) for one in sids]
        return lambda: decide(row(1), listed, around)

    assert isinstance(make(10)(), Absent)
    grows_in_proportion(make, 500)


# ---- inputs ---------------------------------------------------------------------------------------------------------


def records_of(decoder: Callable[[Iterator[str]], CsvDecoder | NdjsonDecoder], lines: list[str]) -> int:
    """Return how many records lines have; what stops a file is none."""
    with suppress(SourceError):
        return sum(1 for _ in decoder(iter(lines)).records())
    return 0


CSVS: dict[str, Callable[[int], list[str]]] = {
    "misquoted rows": lambda n: ['"x"y,1\n'] * (n // 10),
    "misquoted row": lambda n: ['"x"y' * n + ",1\n"],
    "misquoted fields": lambda n: ['"x"y,' * n + "1\n"],
    "doubled quotes": lambda n: ['""' * n + "x,1\n"],
    "open quote": lambda n: ['"x,1\n', *["z,\n"] * (n // 4)],
    "long rows": lambda n: ["x" * 200_000 + ",1\n"] * (n // 1_000),
    "long row": lambda n: ["x" * 10 * n + ",1\n"],
    "many fields": lambda n: [",".join("1" * n) + "\n"],
    "lines in a field": lambda n: ['"', *["z\n"] * (n // 4), '",1\n'],
    "blank lines": lambda n: ["\n"] * n,
    "empty fields": lambda n: ["," * n + "\n"],
    "nul": lambda n: ["\0" * n + "\n"],
}
NDJSONS: dict[str, Callable[[int], list[str]]] = {
    "returns": lambda n: [*["1\r"] * n, "{}\n"],
    "a key twice": lambda n: ["{" + ",".join(f'"k{number}":1' for number in range(n)) + f',"k{n - 1}":2}}\n'],
    "keys twice": lambda n: ["{" + ",".join(f'"k{number % (n // 2)}":1' for number in range(n)) + "}\n"],
    "keys twice inside": lambda n: ['{"a":[' + ",".join('{"a":1,"b":2}' for _ in range(n)) + ',{"a":1,"a":2}]}\n'],
    "a long key twice": lambda n: [f'{{"{"k" * n}":1,"{"k" * n}":2}}\n'],
    "opened": lambda n: ["[" * n + "\n"],
    "pairs": lambda n: ['{"a":"' + "\\ud83d\\ude00" * n + '"}\n'],
    "fraction": lambda n: ['{"a":0.' + "1" * n + "}\n"],
    "exponent": lambda n: ['{"a":1e' + "1" * n + "}\n"],
    "integers": lambda n: ['{"a":[' + ",".join(["1" * 4_000] * (n // 1_000)) + "]}\n"],
    "digits": lambda n: ['{"a":' + "1" * n + "}\n"],
}


@pytest.mark.parametrize("lines", CSVS.values(), ids=CSVS)
def test_a_csv_is_read_in_linear_time(lines: Callable[[int], list[str]]) -> None:
    """Also where each of its lines is wrong."""

    def make(size: int) -> Callable[[], Any]:
        content = ["a,b\n", *lines(size)]
        return lambda: records_of(lambda one: CsvDecoder(one, ",", "odd"), content)

    grows_in_proportion(make, 10_000)


@pytest.mark.parametrize("lines", NDJSONS.values(), ids=NDJSONS)
def test_a_line_of_json_is_read_in_linear_time(lines: Callable[[int], list[str]]) -> None:
    """Whatever it is full of."""

    def make(size: int) -> Callable[[], Any]:
        content = lines(size)
        return lambda: records_of(NdjsonDecoder, content)

    grows_in_proportion(make, 8_000)


def test_what_is_wrong_with_a_line_is_said_in_few_words() -> None:
    """A reason stands in the ledger for each of its rows, and on a screen: names in it are cut, and counted."""
    (record,) = NdjsonDecoder(iter([f'{{"{"k" * 5_000}":1,"{"k" * 5_000}":2}}\n'])).records()
    assert record.problem is not None
    assert record.problem.reason == f'has the key "{"k" * 60}…" twice'
    reason = problem_of({f"k{number}": 1 for number in range(5_000)}).reason
    assert reason.count("is no field of a participant") == 10
    assert "; and more: are no fields of a participant" in reason
    assert len(problem_of({"k" * 5_000: 1}).reason) < 150
    names = f"media_properties.{'a' * 999}", f"media_properties.{'a' * 999}.b"
    for one, other in (names, names[::-1]):
        assert f'has a value at "{"a" * 60}…" and one below it' in problem_of({one: "v", other: "v"}).reason


BASE = {"interaction_sid": KD, "channel_sid": UO, "type": "customer"}


def problem_of(values: dict[str, Any]) -> Problem:
    """Return what is wrong with a record that has these besides what it needs."""
    misfit = Mapper(None).map(Record(1, "x", {**BASE, **values}), 1)
    assert isinstance(misfit, Misfit)
    return misfit.problem


VALUES: dict[str, Callable[[int], dict[str, Any]]] = {
    "fields": lambda n: {f"k{number}": 1 for number in range(n)},
    "columns": lambda n: {f"media_properties.k{number}": "v" for number in range(n)},
    "a deep column": lambda n: {"media_properties" + ".a" * n: "v"},
    "deep columns": lambda n: {f"media_properties{'.a' * 90}{number}": "v" for number in range(n // 90)},
    "keys": lambda n: {"media_properties": json.dumps({f"k{number}": "v" for number in range(n)})},
    "keys twice": lambda n: {"media_properties": "{" + ",".join(f'"k{number % 9}": 1' for number in range(n)) + "}"},
    "objects": lambda n: {"media_properties": json.dumps({"address": "a@example.com", "x": [{}] * n})},
    "levels": lambda n: {"media_properties": json.dumps({"address": "a@example.com", "x": [[[[[1]]]]] * n})},
    "opened": lambda n: {"media_properties": '{"a":' + "[" * n},
    **{
        f"address of {piece}": lambda n, piece=piece: {"media_properties.address": piece * n}  # type: ignore[misc]
        for piece in ("1 ", "+1", "(", "e+", "@", "whatsapp:")
    },
}


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_a_record_is_mapped_in_linear_time(values: Callable[[int], dict[str, Any]]) -> None:
    """Whatever it is full of."""
    mapper = Mapper(None)

    def make(size: int) -> Callable[[], Any]:
        record = Record(1, "x", {**BASE, **values(size)})
        return lambda: mapper.map(record, 1)

    grows_in_proportion(make, 2_000)


@pytest.mark.parametrize("piece", ["1 ", "+", "-1", "é ", "e+1", "\u0661", "("])
@pytest.mark.parametrize("filters", ["trim", "digits", "upper", 'split:" ":5', 'split:" ":99999', "e164:GB"])
def test_a_template_is_rendered_in_linear_time(filters: str, piece: str) -> None:
    """By any filter, of any text."""
    template = parse(f"{{v | {filters}}} and {{v}}", "mapping.type")

    def make(size: int) -> Callable[[], Any]:
        values = {"v": piece * size}

        def work() -> None:
            with suppress(UnknownValueError):
                template.render(values)
                template.fill(values)

        return work

    grows_in_proportion(make, 100_000)
