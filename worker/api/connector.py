"""Connections: one is handed over only when its row may leave, and what comes over it is bounded.

Whether a request left cannot be read off an exception. So the connector says it: from the moment it hands a connection
over, every fault means that the answer is lost.
"""

import asyncio
import math
import ssl
from contextvars import ContextVar
from functools import partial
from typing import Any, Protocol

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.tracing import Trace

from worker.errors import ConfigError

_CONNECTIONS = 3
_LOOP_ROUNDS = 2
"""Rounds of the event loop after which what a connection had to say before it was asked is known."""

_MOST_INTERIM = 20
"""Interim responses (1xx) before an answer; a server sends none, or a few."""

_MAX_HEAD_BYTES = 1 << 20
"""Bytes of interim responses and of the answer's head together."""


class Departure(Protocol):
    """What stands between a row with a connection and its first byte."""

    async def ready(self) -> None:
        """Wait until the row may leave."""

    def left(self) -> None:
        """Take note that from here on the service may act on the row."""


class UnusableError(aiohttp.ClientConnectionError):
    """Connections kept dying, or were talked on before anything was asked, while a row waited: it never left."""


class EndlessError(aiohttp.ClientError):
    """A server talked on and on, and gave no answer."""


class Passage:
    """One attempt's way through the connector. late: its answer did not end within so long after it left."""

    __slots__ = ("_departure", "_loop", "_read_timeout", "_timer", "content", "late", "left")

    def __init__(self, departure: Departure, read_timeout: float, loop: asyncio.AbstractEventLoop) -> None:
        self._departure = departure
        self._read_timeout = read_timeout
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self.content: aiohttp.StreamReader | None = None
        self.left = False
        self.late = False

    async def ready(self) -> None:
        """Wait until the row may leave."""
        await self._departure.ready()

    def leave(self, connection: aiohttp.connector.Connection) -> None:
        """Take note that the row leaves over this connection; from now on the read timeout runs."""
        self.end()
        self.left = True
        self._departure.left()
        # a timer of the loop: a cancel scope would cost more than all else that is done here for a row
        self._timer = self._loop.call_later(self._read_timeout, self._give_up, connection)

    def _give_up(self, connection: aiohttp.connector.Connection) -> None:
        self.late = True
        if connection.transport is not None:
            connection.transport.abort()  # whoever reads from it learns that at once
        if self.content is not None:  # after a bad chunk aiohttp has closed the connection, but told no reader
            self.content.set_exception(aiohttp.ClientPayloadError())

    def end(self) -> None:
        """Take note that the answer is read, or that there will be none."""
        if self._timer is not None:
            self._timer.cancel()


current_passage: ContextVar[Passage | None] = ContextVar("passage", default=None)


class _Handler(ResponseHandler):
    """Reads the answers on one connection, within bounds.

    aiohttp by itself skips interim responses (1xx) without end, and queues them, as it does with unasked answers.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._interim = 0
        self._head_room = math.inf

    def set_response_params(self, *arguments: Any, **named: Any) -> None:
        self._interim, self._head_room = 0, _MAX_HEAD_BYTES
        super().set_response_params(*arguments, **named)

    def data_received(self, data: bytes) -> None:
        self._head_room -= len(data)
        super().data_received(data)
        if self._head_room < 0:
            self._give_up(f"more than {_MAX_HEAD_BYTES >> 20} MiB before the answer's body")

    def feed_data(self, data: Any, size: int = 0) -> None:
        if data[0].code >= 200 or data[0].code == 101:  # noqa: PLR2004 - what HTTP calls them
            self._interim, self._head_room = 0, math.inf
        else:
            self._interim += 1
        if self._interim <= _MOST_INTERIM and len(self) <= _MOST_INTERIM:
            super().feed_data(data, size)
        else:
            self._give_up(f"more than {_MOST_INTERIM} interim responses (1xx), and no answer")

    def _give_up(self, reason: str) -> None:
        if self.exception() is None:
            self.set_exception(EndlessError(reason))
            if self.transport is not None:
                self.transport.abort()


def _handler(loop: asyncio.AbstractEventLoop) -> ResponseHandler:
    return _Handler(loop)


class Connector(aiohttp.TCPConnector):
    """Hands a connection over only when its row may leave, and only if it is still alive then."""

    def __init__(self, *, limit: int, tls: ssl.SSLContext) -> None:
        super().__init__(limit=limit, ssl=tls)
        self._factory = partial(_handler, self._loop)

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the base class has it
    ) -> aiohttp.connector.Connection:
        """Return a connection over which the current passage may leave."""
        passage = current_passage.get()
        if passage is not None and passage.late:  # the client asks once more by itself where asking changes nothing
            raise UnusableError("the answer did not come in time")
        for _ in range(_CONNECTIONS):
            connection = await super().connect(req, traces, timeout)
            if passage is None:
                return connection
            try:
                await passage.ready()
                for _ in range(_LOOP_ROUNDS):
                    await asyncio.sleep(0)
            except BaseException:
                connection.release()
                raise
            protocol = connection.protocol
            # bytes that nobody asked for would be taken for the answer to this request
            if protocol is not None and protocol.is_connected() and not protocol.should_close:
                passage.leave(connection)
                return connection
            connection.close()  # nothing was written, so another one is as good
        raise UnusableError(f"{_CONNECTIONS} connections died before the request left")


def tls_context(ca_bundle: str) -> ssl.SSLContext:
    """Return what verifies certificates, with the system's CAs or those in a file. Raises ConfigError."""
    try:
        return ssl.create_default_context(cafile=ca_bundle or None)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f"api.ca_bundle: {ca_bundle}: cannot be loaded: {exc}") from exc
