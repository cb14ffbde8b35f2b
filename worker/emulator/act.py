"""Carries a fault out on the connection of one request."""

import json
import math
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Literal, assert_never

from aiohttp import web

from worker.emulator import reply
from worker.emulator.fault import Answer, ErrorShape, Fault
from worker.emulator.visit import Visit

SILENT: Final = frozenset(
    {
        *(Fault.RESET, Fault.HANG, Fault.STRANGER_JOINS),
        *(Fault.BAD_STATUS_LINE, Fault.CUT_HEADERS, Fault.BAD_CHUNK, Fault.ENDLESS_CONTINUE),
    }
)
"""Faults after which no answer left that has a status and a body."""

_CONTINUE_SECONDS: Final = 0.02
_ERRORS: Final = {
    Fault.SERVER_ERROR: (20500, "Internal server error"),
    Fault.UNAVAILABLE: (20503, "Service unavailable"),
    Fault.LONG_MESSAGE: (20500, reply.LONG_MESSAGE),
    Fault.ALREADY_MEMBER: (50433, "The participant is already in the conversation"),
}
_PAGES: Final = {
    Fault.BAD_GATEWAY: [(502, "text/html", reply.HTML)],
    Fault.PORTAL_PAGE: [(200, "text/html", reply.PORTAL)],
    Fault.STRANGERS_PAGE: [(status, *page) for status in reply.STRANGERS_STATUSES for page in reply.STRANGERS_PAGES],
}
_AT_ONCE: Final = struct.pack("ii", 1, 0)  # linger on, for no time: closing sends RST instead of FIN
_MISSING_BYTES: Final = 64
_NULL: Final = {"sid": None, "url": None}  # both may be null [card], and the url would tell the sid


@dataclass(frozen=True, slots=True)
class Due:
    """The ordinary answer that a client will not get."""

    status: int
    body: Any
    headers: dict[str, str]


async def let_down(
    fault: Fault, visit: Visit, due: Due, *, shape: ErrorShape, hang_seconds: float, words: Random
) -> web.StreamResponse:
    """Do to a request what the fault says, and return the response that is left to send.

    words: decides in which of its forms a fault comes.
    """
    match fault:
        case Fault.RESET | Fault.STRANGER_JOINS:
            _reset(visit.request)
            return nobody()
        case (
            Fault.HANG | Fault.TRUNCATED | Fault.BAD_STATUS_LINE | Fault.BAD_CHUNK | Fault.CUT_HEADERS
            | Fault.ENDLESS_CONTINUE
        ):  # fmt: skip
            return await _break(fault, visit, due, hang_seconds)
        case Fault.EMPTY | Fault.NULL_SID | Fault.GARBAGE | Fault.ERROR_BODY | Fault.HUGE_HEADERS:
            return _spoil(fault, due)
        case _:
            return _replace(fault, visit, due, shape, words)


def nobody() -> web.StreamResponse:
    """Return the answer for a connection that is no more: the server drops it."""
    return web.Response()


async def _break(fault: Fault, visit: Visit, due: Due, hang_seconds: float) -> web.StreamResponse:
    """Break the connection instead of answering, or in the middle of it."""
    match fault:
        case Fault.TRUNCATED:
            return await _truncate(visit.request, due)
        case Fault.BAD_STATUS_LINE:
            _write(visit, b"HTTP/1.1 two hundred\r\n\r\n")
        case Fault.CUT_HEADERS:
            _write(visit, b"HTTP/1.1 %d OK\r\nContent-Type: application/json\r\nContent-Le" % due.status)
        case Fault.BAD_CHUNK:
            _write(visit, b"HTTP/1.1 %d OK\r\nTransfer-Encoding: chunked\r\n\r\nnone\r\n{}\r\n" % due.status)
            await visit.pause(hang_seconds, wakes_when_gone=True)
        case Fault.ENDLESS_CONTINUE:
            for _ in range(math.ceil(hang_seconds / _CONTINUE_SECONDS)):
                if visit.gone_at is not None or visit.hurried:
                    break
                _write(visit, b"HTTP/1.1 100 Continue\r\n\r\n")
                await visit.pause(_CONTINUE_SECONDS, wakes_when_gone=True)
        case _:
            await visit.pause(hang_seconds, wakes_when_gone=True)
    _close(visit.request)
    return nobody()


def _replace(fault: Fault, visit: Visit, due: Due, shape: ErrorShape, words: Random) -> web.StreamResponse:
    """Say something else than what happened."""
    match fault:
        case Fault.MISCODED:
            status, code = words.choice(reply.MISCODED_STATUSES), words.choice(reply.MISCODES)
            return reply.render_answer(Answer(status=status, code=code), shape, due.headers)
        case Fault.REDIRECT:
            return web.Response(status=307, headers={**due.headers, "Location": f"{visit.origin}{reply.REDIRECTED}"})
        case Fault.DEEP_JSON:
            return web.Response(status=400, body=reply.DEEP, headers={**due.headers, "Content-Type": reply.JSON})
        case Fault.BAD_GATEWAY | Fault.PORTAL_PAGE | Fault.STRANGERS_PAGE:
            status, kind, text = words.choice(_PAGES[fault])  # a gateway knows nothing of Twilio's headers
            return web.Response(status=status, body=text.format(status=status).encode(), headers={"Content-Type": kind})
        case _:  # also where there is nothing to make a false answer of
            code, message = _ERRORS.get(fault, _ERRORS[Fault.SERVER_ERROR])
            return reply.render_error(code, message, shape, due.headers)


def _spoil(
    fault: Literal[Fault.EMPTY, Fault.NULL_SID, Fault.GARBAGE, Fault.ERROR_BODY, Fault.HUGE_HEADERS], due: Due
) -> web.StreamResponse:
    """Keep the status of success and spoil what comes with it."""
    headers = {**due.headers, "Content-Type": reply.JSON}
    match fault:
        case Fault.EMPTY:
            return web.Response(status=due.status, headers=due.headers)
        case Fault.NULL_SID:
            return reply.render(due.status, _without_sids(due.body), due.headers)
        case Fault.GARBAGE:
            return web.Response(status=due.status, body=reply.GARBAGE, headers=headers)
        case Fault.ERROR_BODY:
            body, _ = reply.error_body(404, 20404, "The requested resource was not found", ErrorShape.CLASSIC)
            return reply.render(due.status, body, due.headers)
        case Fault.HUGE_HEADERS:
            return reply.render(due.status, due.body, {**headers, "X-Padding": reply.HUGE_HEADER})
        case _:
            assert_never(fault)


def _write(visit: Visit, raw: bytes) -> None:
    if visit.request.transport is not None:
        visit.request.transport.write(raw)


def _reset(request: web.BaseRequest) -> None:
    if request.transport is not None:
        connection: socket.socket = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        request.transport.abort()


def _close(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.close()


async def _truncate(request: web.BaseRequest, due: Due) -> web.StreamResponse:
    payload = json.dumps(due.body).encode()
    response = web.StreamResponse(status=due.status, headers={**due.headers, "Content-Type": "application/json"})
    response.content_length = len(payload) + _MISSING_BYTES
    with suppress(ConnectionError):  # the client may have gone by itself
        await response.prepare(request)
        await response.write(payload[: len(payload) // 2])
        _close(request)
    return response


def _without_sids(body: Any) -> Any:
    """Take the sid out of a participant, or out of every entry of a list."""
    if "participants" in body:
        return {**body, "participants": [{**entry, **_NULL} for entry in body["participants"]]}
    return {**body, **_NULL}
