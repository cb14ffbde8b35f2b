"""What a server may write on a connection: `answer` is about bodies, this is about bytes that may be no HTTP.

Each example goes over a socket of this machine, so there are some dozen a second, not some thousand.
"""

import asyncio
import json
import re
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import anyio

from tests.fuzz.answer import KD, UO, UT, VALUES, Answered
from tests.fuzz.answer import seeds as answers
from tests.fuzz.answer_oracle import ROW, check_closing, check_reason, check_verdict
from tests.fuzz.example import SEEDS, read_as
from worker.api import Api
from worker.model import Answer, Listing, NotSent, Reply, Unlisted
from worker.verdict import judge, judge_closing, without_values

FOLDER = SEEDS / "wire"
CALLS = ("create", "close", "list", "probe")
ANSWER_SECONDS = 0.5
LONGEST = 65_536
LONGEST_BODY = 16 << 20
SERVERS_WORD = "Swordfish"
"""What only the server says, outside of bodies of the API's: it has no place in a reason."""


@dataclass(frozen=True, slots=True)
class Written:
    """content: all that is written. call: what was asked. at: where the bytes are parted, with a pause between.

    stays: whether the server keeps the connection open afterwards.
    """

    content: bytes
    call: str = "create"
    at: int = 0
    stays: bool = False


def http(answered: Answered) -> bytes:
    """Return an answer as it is written."""
    body = answered.pages[0]
    more = "".join(
        f"{name}: {value}\r\n"
        for name, value in (("Retry-After", answered.retry_after), ("Date", answered.date))
        if value
    )
    more += f"Twilio-Request-Id: RQ1\r\nContent-Length: {len(body)}\r\n"
    return f"HTTP/1.1 {answered.status} {SERVERS_WORD}\r\n{more}\r\n".encode() + body


_MADE = b'{"sid": "%s"}' % UT.encode()
_OK = b"HTTP/1.1 201 Swordfish\r\n"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"
_TABLE = {
    "nothing": Written(b""),
    "silence": Written(b"", stays=True),
    "no-http": Written(b"220 Swordfish ESMTP\r\n"),
    "half-a-status": Written(b"HTTP/1.1 20"),
    "half-a-header": Written(_OK + b"Swordfish: Swo"),
    "no-length": Written(_OK + b"\r\n" + _MADE),
    "no-length-stays": Written(_OK + b"\r\n" + _MADE, stays=True),
    "short": Written(_OK + b"Content-Length: 900\r\n\r\n" + _MADE),
    "long": Written(_OK + b"Content-Length: 2\r\n\r\n" + _MADE),
    "two-lengths": Written(_OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} "),
    "negative-length": Written(_OK + b"Content-Length: -1\r\n\r\n{}"),
    "huge-length": Written(_OK + b"Content-Length: %s\r\n\r\n{}" % (b"9" * 30)),
    "chunked": Written(_CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(_MADE), _MADE)),
    "bad-chunk": Written(_CHUNKED + b"Swordfish\r\n"),
    "huge-chunk": Written(_CHUNKED + b"%s\r\n{}" % (b"f" * 30)),
    "parted-chunk": Written(_CHUNKED + b"2\r\n{}\r\nSwordfish\r\n", at=len(_CHUNKED) + 7),
    "trailer": Written(_CHUNKED + b"2\r\n{}\r\n0\r\nSwordfish: x\r\n\r\n"),
    "gzip-bad": Written(_OK + b"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\nSwordfish"),
    "deflate-bad": Written(_OK + b"Content-Encoding: deflate\r\nContent-Length: 9\r\n\r\nSwordfish"),
    "brotli": Written(_OK + b"Content-Encoding: br\r\nContent-Length: 9\r\n\r\nSwordfish"),
    "zstd": Written(_OK + b"Content-Encoding: zstd\r\nContent-Length: 9\r\n\r\nSwordfish"),
    "odd-encoding": Written(_OK + b"Content-Encoding: Swordfish\r\nContent-Length: 2\r\n\r\n{}"),
    "continue": Written(b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + http(Answered(_MADE, 201))),
    "early-hints": Written(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + http(Answered(_MADE, 201))),
    "switching": Written(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nxyz"),
    "two-answers": Written(http(Answered(_MADE, 201)) * 2),
    "http-1.0": Written(b"HTTP/1.0 201 Swordfish\r\n\r\n" + _MADE),
    "http-0.9": Written(_MADE),
    "http-2": Written(b"HTTP/2.0 201\r\n\r\n"),
    "status-0": Written(b"HTTP/1.1 000 Swordfish\r\nContent-Length: 0\r\n\r\n"),
    "status-999": Written(b"HTTP/1.1 999 Swordfish\r\nContent-Length: 0\r\n\r\n"),
    "status-long": Written(b"HTTP/1.1 20100 Swordfish\r\nContent-Length: 0\r\n\r\n"),
    "bare-newlines": Written(b"HTTP/1.1 201 Swordfish\nContent-Length: %d\n\n%s" % (len(_MADE), _MADE)),
    "folded": Written(_OK + b"X: a\r\n Swordfish\r\nContent-Length: 0\r\n\r\n"),
    "nul-header": Written(_OK + b"X\0: Swordfish\r\nContent-Length: 0\r\n\r\n"),
    "bad-header": Written(_OK + b"Swordfish\r\n\r\n"),
    "latin-header": Written(_OK + b"Twilio-Request-Id: \xff\xe9\r\nContent-Length: 0\r\n\r\n"),
    "long-request-id": Written(_OK + b"Twilio-Request-Id: %s\r\nContent-Length: 0\r\n\r\n" % (b"R" * 9_000)),
    "cookies": Written(_OK + b'Set-Cookie: a=b; c="\\"; d=; expires=x\r\n' * 20 + b"Content-Length: 0\r\n\r\n"),
    "redirect": Written(b"HTTP/1.1 307 Swordfish\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n"),
    "portal-redirect": Written(
        b"HTTP/1.1 302 Swordfish\r\nLocation: https://evil.example\r\nContent-Length: 0\r\n\r\n"
    ),
    "auth": Written(b"HTTP/1.1 401 Swordfish\r\nWWW-Authenticate: Digest realm=\r\nContent-Length: 0\r\n\r\n"),
    "no-body-204": Written(b"HTTP/1.1 204 Swordfish\r\nContent-Length: 5\r\n\r\nhello"),
    "no-body-304": Written(b"HTTP/1.1 304 Swordfish\r\n\r\n"),
    "odd-type": Written(_OK + b"Content-Type: ;;;charset=\r\nContent-Length: 0\r\n\r\n"),
    "request": Written(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    "tls-alert": Written(b"\x15\x03\x01\x00\x02\x02\x28"),
}
TOKENS = (
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b":",
        b";",
        b"\t",
        b"\xff",
        b"HTTP/1.1 ",
        b"\r\n\r\n",
        b"0\r\n\r\n",
        b"-1",
        b"200 ",
    ),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"Content-Length: 5\r\n", b"5\r\n"),
    *(
        b"Content-Encoding: gzip\r\n",
        b"Content-Encoding: deflate\r\n",
        b"Connection: close\r\n",
        b"Connection: upgrade\r\n",
    ),
    *(
        b"Retry-After: 5\r\n",
        b"Retry-After: \xff\r\n",
        b"Date: x\r\n",
        b"Twilio-Concurrent-Requests: 9\r\n",
        b"Upgrade: h2\r\n",
    ),
    *(
        b"Twilio-Request-Id: %s\r\n" % (b"x" * 9000),
        b"Set-Cookie: =;=;\r\n",
        b"X: %s\r\n" % (b"y" * 9000),
        b"Swordfish",
    ),
    *(b"HTTP/1.1 100 Continue\r\n\r\n", VALUES.encode(), _MADE, b"ffffffffffffffff\r\n", b"1;x=y\r\nz\r\n"),
)


def seeds() -> dict[str, Written]:
    """Return name → bytes: the table above, some of the answers, and what was kept."""
    some = list(answers().items())[::6]
    known = {f"{name}-{CALLS[at % 4]}": Written(http(one), CALLS[at % 4]) for at, (name, one) in enumerate(some)}
    return _TABLE | known | {path.name: read_as(Written, path.read_bytes()) for path in sorted(FOLDER.glob("*.seed"))}


def mutate(dice: Random, corpus: Sequence[Written]) -> Written:
    """Return other bytes."""
    written = dice.choice(corpus)
    for _ in range(dice.choice((1, 1, 2, 4))):
        written = dice.choice(_WAYS)(dice, written, corpus)
    return replace(written, content=written.content[:LONGEST])


def _insert(dice: Random, written: Written, _: Sequence[Written]) -> Written:
    lines = [found.end() for found in re.finditer(rb"\n", written.content)]
    at = dice.choice((*lines, dice.randint(0, len(written.content))))
    token = dice.choice(TOKENS) * dice.choice((1, 1, 1, 2, 30))
    return replace(written, content=written.content[:at] + token + written.content[at:])


def _flip(dice: Random, written: Written, _: Sequence[Written]) -> Written:
    content = bytearray(written.content or b" ")
    content[dice.randrange(len(content))] = dice.randrange(256)
    return replace(written, content=bytes(content))


def _cut(dice: Random, written: Written, _: Sequence[Written]) -> Written:
    start, end = sorted(dice.randint(0, len(written.content)) for _ in range(2))
    return replace(
        written, content=written.content[:start] + written.content[dice.choice((end, len(written.content))) :]
    )


def _splice(dice: Random, written: Written, corpus: Sequence[Written]) -> Written:
    return replace(written, content=written.content + dice.choice(corpus).content)


def _set(dice: Random, written: Written, _: Sequence[Written]) -> Written:
    at = dice.choice((0, dice.randint(0, len(written.content))))
    return replace(written, call=dice.choice(CALLS), at=at, stays=dice.random() < 0.05)


_Way = Callable[[Random, Written, Sequence[Written]], Written]
_WAYS: tuple[_Way, ...] = (_insert, _insert, _insert, _flip, _cut, _splice, _set)


NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Is not used here, and the real one, with all of its authorities, takes longer to make than an example."""


def examine(written: Written, _: Path) -> str:
    """Ask a server that writes these bytes, and return the kind of answer. Any error is a bug."""
    with patch("ssl.create_default_context", lambda **_: NO_TLS), asyncio.Runner() as runner:
        answer = runner.run(ask(written))
    if isinstance(answer, Reply):
        _check_reply(answer, written)
    elif isinstance(answer, Listing):
        assert re.search(rb"\b200\b", written.content)
    else:
        check_reason(answer.reason)
        assert SERVERS_WORD not in answer.reason
        assert "secret" not in answer.reason
        assert not isinstance(answer, NotSent), "what had left was called unsent"
    return type(answer).__name__


async def ask(written: Written, **settings: Any) -> Answer | Listing | Unlisted:
    """Return what becomes of one call. Asked again on the same connection, or on others, the server says the same."""

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            with suppress(anyio.BrokenResourceError, anyio.EndOfStream):
                await stream.receive()
                await stream.send(written.content[: written.at])
                if written.at:
                    await anyio.sleep(0.01)
                await stream.send(written.content[written.at :])
                if written.stays:
                    await anyio.sleep_forever()

    given: dict[str, Any] = {"concurrency": 1, "read_timeout": ANSWER_SECONDS, **settings}
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with Api(f"http://127.0.0.1:{port}", "SK1", "secret", **given) as api:
            answer = await _asked(api, written.call)
        tasks.cancel_scope.cancel()
    return answer


async def _asked(api: Api, call: str) -> Answer | Listing | Unlisted:
    match call:
        case "create":
            return await api.create(ROW, _Free())
        case "close":
            return await api.close(KD, UO, UT, _Free())
        case "list":
            return await api.list(KD, UO, _Free())
        case _:
            answer, clock = await api.probe(KD, UO, _Free())
            assert clock is None or isinstance(clock, float)
            return answer


class _Free:
    async def ready(self) -> None:
        """Let it go at once."""

    def left(self) -> None:
        """Take no note."""


def _check_reply(reply: Reply, written: Written) -> None:
    assert len(reply.body) <= LONGEST_BODY
    assert re.search(rb"HTTP/\d\.\d +0*%d\b" % reply.status, written.content), f"nobody said {reply.status}"
    assert reply.request_id is None or len(reply.request_id) <= 100
    json.dumps([reply.retry_after_seconds, reply.concurrent], allow_nan=False)
    check_verdict(without_values(judge(reply, ROW), ROW.body), reply, ROW)
    check_closing(judge_closing(reply, UT), reply)
