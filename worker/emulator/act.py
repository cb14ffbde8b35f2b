"""Carries a fault out on the connection of one request."""

import json
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, assert_never

from aiohttp import web

from worker.emulator import reply
from worker.emulator.fault import ErrorShape, Fault
from worker.emulator.visit import Visit

SILENT: Final = frozenset({Fault.RESET, Fault.HANG})  # no byte of an answer leaves
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
    fault: Fault, visit: Visit, due: Due, *, shape: ErrorShape, hang_seconds: float
) -> web.StreamResponse:
    """Do to a request what the fault says, and return the response that is left to send."""
    match fault:
        case Fault.RESET | Fault.HANG | Fault.TRUNCATED:
            return await _break(fault, visit, due, hang_seconds)
        case Fault.SERVER_ERROR | Fault.UNAVAILABLE | Fault.BAD_GATEWAY | Fault.REDIRECT:
            return _replace(fault, visit, due, shape)
        case Fault.EMPTY | Fault.NULL_SID | Fault.GARBAGE:
            return _spoil(fault, due)
        case _:
            assert_never(fault)


def nobody() -> web.StreamResponse:
    """Return the answer for a connection that is no more: the server drops it."""
    return web.Response()


async def _break(
    fault: Literal[Fault.RESET, Fault.HANG, Fault.TRUNCATED], visit: Visit, due: Due, hang_seconds: float
) -> web.StreamResponse:
    """Break the connection instead of answering, or in the middle of it."""
    match fault:
        case Fault.RESET:
            _reset(visit.request)
            return nobody()
        case Fault.HANG:
            await visit.pause(hang_seconds, wakes_when_gone=True)
            _close(visit.request)
            return nobody()
        case Fault.TRUNCATED:
            return await _truncate(visit.request, due)
        case _:
            assert_never(fault)


def _replace(
    fault: Literal[Fault.SERVER_ERROR, Fault.UNAVAILABLE, Fault.BAD_GATEWAY, Fault.REDIRECT],
    visit: Visit,
    due: Due,
    shape: ErrorShape,
) -> web.StreamResponse:
    """Say something else than what happened."""
    match fault:
        case Fault.SERVER_ERROR:
            return reply.render_error(20500, "Internal server error", shape, due.headers)
        case Fault.UNAVAILABLE:
            return reply.render_error(20503, "Service unavailable", shape, due.headers)
        case Fault.BAD_GATEWAY:  # a gateway knows nothing of Twilio's headers
            return web.Response(status=502, body=reply.HTML, headers={"Content-Type": "text/html"})
        case Fault.REDIRECT:
            return web.Response(status=307, headers={**due.headers, "Location": f"{visit.origin}{reply.REDIRECTED}"})
        case _:
            assert_never(fault)


def _spoil(fault: Literal[Fault.EMPTY, Fault.NULL_SID, Fault.GARBAGE], due: Due) -> web.StreamResponse:
    """Keep the status of success and spoil what comes with it."""
    match fault:
        case Fault.EMPTY:
            return web.Response(status=due.status, headers=due.headers)
        case Fault.NULL_SID:
            return reply.render(due.status, _without_sids(due.body), due.headers)
        case Fault.GARBAGE:
            headers = {**due.headers, "Content-Type": "application/json"}
            return web.Response(status=due.status, body=reply.GARBAGE, headers=headers)
        case _:
            assert_never(fault)


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
