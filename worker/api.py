"""The Flex API over aiohttp: one create in, one answer out; a network fault is an answer, never an exception.

Whether a request left cannot be read off an exception. So the connector says it: it hands a connection over only
after the row was allowed to leave, and from then on every fault means `Lost`. A connection comes before the limiter's
grant, so that slow handshakes do not bunch requests behind it.
"""

import base64
import ssl
import time
from contextvars import ContextVar
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Protocol, Self

import aiohttp
import anyio
from aiohttp.tracing import Trace
from yarl import URL

from worker import __version__
from worker.errors import ConfigError
from worker.model import Answer, Lost, NotSent, Reply, Row

_MAX_BODY_BYTES = 1 << 20


class Departure(Protocol):
    """What stands between a row with a connection and its first byte."""

    async def ready(self) -> None:
        """Wait until the row may leave."""
        ...

    def left(self) -> None:
        """Take note that from here on the service may act on the row."""
        ...


class _Passage:
    """One attempt's way through the connector. scope: bounds the time from leaving to the answer's end."""

    def __init__(self, departure: Departure, scope: anyio.CancelScope, read_timeout: float) -> None:
        self._departure = departure
        self._scope = scope
        self._read_timeout = read_timeout
        self._granted = False
        self.left = False

    async def ready(self) -> None:
        if not self._granted:
            await self._departure.ready()
            self._granted = True

    def leave(self) -> None:
        self.left = True
        self._departure.left()
        self._scope.deadline = anyio.current_time() + self._read_timeout


_passage: ContextVar[_Passage | None] = ContextVar("passage", default=None)


class _Connector(aiohttp.TCPConnector):
    """Hands a connection over only when its row may leave, and only if it is still alive then."""

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the base class has it
    ) -> aiohttp.connector.Connection:
        passage = _passage.get()
        while True:
            connection = await super().connect(req, traces, timeout)
            if passage is None:
                return connection
            try:
                await passage.ready()
            except BaseException:
                connection.release()
                raise
            if connection.protocol is not None and connection.protocol.is_connected():
                passage.leave()
                return connection
            connection.close()  # it died while the row waited; nothing was written, so another one is as good


class Api:
    """The calls of the Flex API that a run uses. An async context manager; one per run.

    base_url: origin without a path. user, secret: HTTP Basic [docs]. concurrency: connections at most. Timeouts in
    seconds; the read timeout is total, from the first byte sent to the last one read. Raises ConfigError for a CA
    bundle that cannot be loaded.
    """

    def __init__(
        self,
        base_url: str,
        user: str,
        secret: str,
        *,
        concurrency: int,
        connect_timeout: float = 10,
        read_timeout: float = 30,
        ca_bundle: str = "",
        proxy: str = "",
        trust_environment: bool = False,
    ) -> None:
        self._base = base_url.rstrip("/")
        self._concurrency = concurrency
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect_timeout, sock_connect=connect_timeout)
        self._read_timeout = read_timeout
        self._proxy = proxy or None
        self._trust_environment = trust_environment
        self._ssl = _tls(ca_bundle)
        token = base64.b64encode(f"{user}:{secret}".encode()).decode("ascii")
        self._headers = {
            "Authorization": f"Basic {token}",
            "Accept": "application/json",
            "Content-Type": "application/x-www-form-urlencoded",
            "User-Agent": f"flex-import/{__version__}",
        }
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=_Connector(limit=self._concurrency, ssl=self._ssl),
            timeout=self._timeout,
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=self._trust_environment,
            auto_decompress=True,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def create(self, row: Row, departure: Departure) -> Answer:
        """Add one participant: `POST /v1/Interactions/{KD}/Channels/{UO}/Participants` [card]. Never redirected."""
        if self._session is None:
            raise RuntimeError("the API is used outside its context")
        path = f"/v1/Interactions/{row.interaction_sid}/Channels/{row.channel_sid}/Participants"
        with anyio.CancelScope() as scope:
            passage = _Passage(departure, scope, self._read_timeout)
            token = _passage.set(passage)
            try:
                async with self._session.post(
                    URL(self._base + path, encoded=True), data=row.body, allow_redirects=False, proxy=self._proxy
                ) as response:
                    return await _read(response)
            except (aiohttp.ClientError, OSError) as exc:
                reason = _reason(exc)
                return Lost(f"the connection broke before the answer: {reason}") if passage.left else NotSent(reason)
            finally:
                _passage.reset(token)
        return Lost(f"no answer within {self._read_timeout:g} s")


async def _read(response: aiohttp.ClientResponse) -> Answer:
    body = b""
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            response.close()
            return Lost("the answer's body is larger than 1 MiB")
    headers = response.headers
    return Reply(
        response.status, body, headers.get("Twilio-Request-Id"), retry_after(headers.get("Retry-After"), time.time())
    )


def retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds that a Retry-After header asks for: a number, or an HTTP date [RFC 9110, 10.2.3].

    now: seconds since 1970. None when there is none, or when it cannot be read; a date in the past is 0.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def _tls(ca_bundle: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_bundle or None)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f"api.ca_bundle: {ca_bundle}: cannot be loaded: {exc}") from exc


def _reason(exc: BaseException) -> str:
    name = type(exc).__name__
    if isinstance(exc, aiohttp.ConnectionTimeoutError):
        return "no connection in time"
    text = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
    return f"{name}: {text}" if text else name
