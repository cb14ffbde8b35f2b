"""The Flex API over aiohttp: one create in, one answer out; a network fault is an answer, never an exception.

Whether a request left cannot be read off an exception. So the connector says it: it hands a connection over only
after the row was allowed to leave, and from then on every fault means `Lost`. A connection comes before the limiter's
grant, so that slow handshakes do not bunch requests behind it.
"""

import asyncio
import base64
import json
import re
import ssl
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import ContextVar
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol, Self
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.tracing import Trace
from yarl import URL

from worker import __version__
from worker.errors import ConfigError
from worker.model import Answer, Listed, Listing, Lost, NotSent, Reply, Row, Unlisted
from worker.verdict import code_of

_MAX_BODY_BYTES = 1 << 20
_CONNECTIONS = 3
_LOOP_ROUNDS = 2
"""Rounds of the event loop after which what a connection had to say before it was asked is known."""

_MAX_PAGE_BYTES = 16 << 20
_MAX_LIST_BYTES = 64 << 20
_PAGE_SIZE = 1000
_MAX_PAGES = 100
_MAX_DIGITS = 7
_MAX_RETRY_SECONDS = 10 * 365 * 86_400.0
_NOT_HTTP = "the answer is not valid HTTP"
_SID = re.compile(r"UT[0-9a-fA-F]{32}")
_REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.METHOD_NOT_ALLOWED})

_Request = Callable[..., AbstractAsyncContextManager[aiohttp.ClientResponse]]


class Departure(Protocol):
    """What stands between a row with a connection and its first byte."""

    async def ready(self) -> None:
        """Wait until the row may leave."""

    def left(self) -> None:
        """Take note that from here on the service may act on the row."""


class _UnusableError(aiohttp.ClientConnectionError):
    """Connections kept dying, or were talked on before anything was asked, while a row waited: it never left."""


class _Passage:
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
        await self._departure.ready()

    def leave(self, connection: aiohttp.connector.Connection) -> None:
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
        if passage is not None and passage.late:  # the client asks once more by itself where asking changes nothing
            raise _UnusableError("the answer did not come in time")
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
        raise _UnusableError(f"{_CONNECTIONS} connections died before the request left")


class Api:
    """The calls of the Flex API that a run uses. An async context manager; one per run.

    base_url: origin without a path. user, secret: HTTP Basic [docs]. concurrency: connections at most. Timeouts in
    seconds; the read timeout is total, from the first byte sent to the last one read. proxy, trust_environment: as in
    `_proxy_for`. Raises ConfigError for a CA bundle that cannot be loaded and for a proxy that is no address.
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
        self._origin = URL(base_url).origin()
        self._concurrency = concurrency
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect_timeout, sock_connect=connect_timeout)
        self._read_timeout = read_timeout
        self._proxy, self._proxy_headers = _proxy_for(base_url, proxy, trust_environment=trust_environment)
        self._ssl = _tls(ca_bundle)
        token = base64.b64encode(f"{user}:{secret}".encode()).decode("ascii")
        self._headers = {
            "Authorization": f"Basic {token}",
            "Accept": "application/json",
            "Content-Type": "application/x-www-form-urlencoded",
            "User-Agent": f"flex-import/{__version__}",
        }
        self._opened: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()  # asked for once: in Python 3.11 each time is a system call
        self._opened = aiohttp.ClientSession(
            connector=_Connector(limit=self._concurrency, ssl=self._ssl),
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            max_line_size=128 << 10,
            max_field_size=128 << 10,
            max_headers=2048,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._opened is not None:
            await self._opened.close()

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            raise RuntimeError("the API is used outside its context")
        return self._opened

    async def create(self, row: Row, departure: Departure) -> Answer:
        """Add one participant: `POST /v1/Interactions/{KD}/Channels/{UO}/Participants` [card]. Never redirected."""
        url = self._origin.with_path(row.path, encoded=True)
        return await self._exchange(departure, partial(self._session.post, url, data=row.body))

    async def close(self, interaction_sid: str, channel_sid: str, sid: str, departure: Departure) -> Answer:
        """Close one participant: `POST …/Participants/{UT}` with `Status=closed` [spec]. There is no DELETE."""
        path = f"/v1/Interactions/{interaction_sid}/Channels/{channel_sid}/Participants/{sid}"
        url = self._origin.with_path(path, encoded=True)
        return await self._exchange(departure, partial(self._session.post, url, data=b"Status=closed"))

    async def probe(self, interaction_sid: str, channel_sid: str, departure: Departure) -> tuple[Answer, float | None]:
        """Ask for one entry of a channel's list, which changes nothing; returns the service's clock, too.

        The clock is its Date header in seconds since 1970, None when there is none.
        """
        path = f"/v1/Interactions/{interaction_sid}/Channels/{channel_sid}/Participants"
        dates: list[str] = []
        request = partial(self._session.get, self._origin.with_path(path, encoded=True).with_query(PageSize=1))
        answer = await self._exchange(departure, request, _MAX_PAGE_BYTES, dates)
        return answer, _clock(dates[0]) if dates else None

    async def _exchange(
        self, departure: Departure, request: _Request, max_bytes: int = _MAX_BODY_BYTES, dates: list[str] | None = None
    ) -> Answer:
        passage = _Passage(departure, self._read_timeout, self._loop)
        token = _passage.set(passage)
        try:
            # the headers are given with each request: a session's own would go to a proxy, secret and all
            async with request(
                headers=self._headers, allow_redirects=False, proxy=self._proxy, proxy_headers=self._proxy_headers
            ) as response:
                passage.content = response.content
                if dates is not None:
                    dates.append(response.headers.get("Date", ""))
                answer = await _read(response, max_bytes)
        except (aiohttp.ClientError, HttpProcessingError, OSError) as exc:
            reason = _reason(exc)
            answer = Lost(f"the connection broke before the answer: {reason}") if passage.left else NotSent(reason)
            answer = Lost(reason) if passage.left and reason == _NOT_HTTP else answer
        finally:
            passage.end()
            _passage.reset(token)
        # what ended because it was given up is not the whole answer, even where it looks like one
        return Lost(f"no answer within {self._read_timeout:g} s") if passage.late else answer

    async def list(self, interaction_sid: str, channel_sid: str, departure: Departure) -> Listing | Unlisted:
        """List all participants of a channel: `GET …/Participants`, page by page [spec]. Never raises for a fault.

        departure: is asked before each page. A next page of another origin is not asked for: credentials stay here.
        """
        path = f"/v1/Interactions/{interaction_sid}/Channels/{channel_sid}/Participants"
        url = self._origin.with_path(path, encoded=True).with_query(PageSize=_PAGE_SIZE)
        found: list[Listed] = []
        seen, size = {url}, 0
        for _ in range(_MAX_PAGES):
            answer = await self._exchange(departure, partial(self._session.get, url), _MAX_PAGE_BYTES)
            size += len(answer.body) if isinstance(answer, Reply) else 0
            if size > _MAX_LIST_BYTES:
                return Unlisted(f"the list is larger than {_MAX_LIST_BYTES >> 20} MiB")
            page = _judge_page(answer, channel_sid)
            if isinstance(page, Unlisted):
                return page
            found += page.participants
            if page.next_url is None:
                return Listing(tuple(found))
            url = page.next_url
            if url.raw_user is not None or url.origin() != self._origin:
                return Unlisted("the next page of the list is at another address")
            if url in seen:
                return Unlisted("the list leads to the same page twice")
            seen.add(url)
        return Unlisted(f"the list does not end after {_MAX_PAGES} pages")


class _Page(NamedTuple):
    participants: list[Listed]
    next_url: URL | None


def _judge_page(answer: Answer, channel_sid: str) -> _Page | Unlisted:
    if not isinstance(answer, Reply):
        return Unlisted(answer.reason, failed=True, unreachable=isinstance(answer, NotSent))
    status = answer.status
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        after, code = answer.retry_after_seconds, code_of(answer.body) or str(status)
        return Unlisted("too many requests", throttled=True, code=code, retry_after_seconds=after)
    if status != HTTPStatus.OK:
        failed, missing = status >= HTTPStatus.INTERNAL_SERVER_ERROR, status == HTTPStatus.NOT_FOUND
        return Unlisted(f"status {status}", refused=status in _REFUSED, missing=missing, failed=failed)
    with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
        document = json.loads(answer.body)
        entries: list[Any] = document["participants"]
        if isinstance(entries, list):
            if {str(entry.get("channel_sid") or channel_sid).lower() for entry in entries} - {channel_sid.lower()}:
                return Unlisted("the list has a participant of another channel")
            return _Page([_listed(entry) for entry in entries], _next_page(document["meta"].get("next_page_url")))
    return Unlisted("the list is not what the API documents")


def _next_page(text: Any) -> URL | None:
    """Return where the list goes on; it is absolute [spec]. Raises ValueError for what is no such address."""
    if text is None or text == "":
        return None
    if not (isinstance(text, str) and text.isascii() and text.isprintable() and " " not in text):
        raise ValueError("the next page's address cannot be asked for")
    url = URL(text, encoded=True)
    return url.with_host(url.origin().raw_host or "")


def _listed(entry: dict[str, Any]) -> Listed:
    sid, kind, routing = entry.get("sid"), entry.get("type"), entry.get("routing_properties")
    return Listed(
        sid if isinstance(sid, str) and _SID.fullmatch(sid) else None,
        kind if isinstance(kind, str) else None,
        routing if isinstance(routing, dict) else None,
    )


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> Answer:
    body = b""
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > max_bytes:
            response.close()
            return Lost(f"the answer's body is larger than {max_bytes >> 20} MiB")
    headers = response.headers
    after = headers.get("Retry-After")
    return Reply(
        response.status,
        body,
        headers.get("Twilio-Request-Id"),
        None if after is None else retry_after(after, _clock(headers.get("Date")) or time.time()),
        _count(headers.get("Twilio-Concurrent-Requests")),
    )


def _count(value: str | None) -> int | None:
    return int(value) if value and len(value) < _MAX_DIGITS and value.isascii() and value.isdigit() else None


def _clock(date: str | None) -> float | None:
    """Return what an HTTP date says in seconds since 1970, None when it cannot be read. Without a zone it is UTC."""
    with suppress(ValueError, TypeError, IndexError, OverflowError):
        found = parsedate_to_datetime(date or "")
        return found.replace(tzinfo=found.tzinfo or UTC).timestamp()
    return None


def retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds, ten years at most, that Retry-After asks for: a number or an HTTP date [RFC 9110, 10.2.3].

    now: seconds since 1970. None when there is none, or when it cannot be read; a date in the past is 0.
    """
    value = (value or "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value), _MAX_RETRY_SECONDS)
    until = _clock(value)
    return None if until is None else min(max(0.0, until - now), _MAX_RETRY_SECONDS)


def _tls(ca_bundle: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_bundle or None)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f"api.ca_bundle: {ca_bundle}: cannot be loaded: {exc}") from exc


def _proxy_for(base_url: str, proxy: str, *, trust_environment: bool) -> tuple[URL | None, dict[str, str]]:
    """Return the proxy's address, and apart from it a header with its credentials, so that no message can show them.

    trust_environment: whether HTTPS_PROXY and NO_PROXY count when no proxy is named. aiohttp could look there itself,
    but would read ~/.netrc, too, for every request. Raises ConfigError, which does not show the value either.
    """
    url = URL(base_url)
    name = "api.proxy"
    if not proxy and trust_environment and not proxy_bypass(f"{url.host_subcomponent}:{url.port}"):
        name = f"{url.scheme.upper()}_PROXY"
        proxy = getproxies().get(url.scheme, "")
    if not proxy:
        return None, {}
    with suppress(ValueError):
        found = URL(proxy)
        user, password = found.user or "", found.password or ""
        # aiohttp makes Proxy-Authorization of it, in a CONNECT and in a plain request alike
        known = {"Authorization": aiohttp.encode_basic_auth(user, password)} if user or password else {}
        if found.scheme in {"http", "https"} and found.host and found.port and (user + password).isprintable():
            return found.origin(), known
    raise ConfigError(f"{name}: must be an http:// or https:// address, as http://proxy.example:3128")


def _reason(exc: BaseException) -> str:
    name = type(exc).__name__
    if isinstance(exc, aiohttp.ConnectionTimeoutError):
        return "no connection in time"
    if isinstance(exc, aiohttp.ClientHttpProxyError):  # these texts have the address, and whatever the server said
        return f"{name} (status {exc.status})"
    if isinstance(exc, aiohttp.ServerDisconnectedError):
        return f"{name}: Server disconnected"
    if isinstance(exc, aiohttp.ClientPayloadError) and str(exc).startswith("Response payload is not completed"):
        return f"{name}: the answer is not complete"
    if isinstance(exc, aiohttp.ClientResponseError | aiohttp.ClientPayloadError | HttpProcessingError):
        return _NOT_HTTP
    text = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
    return f"{name}: {text}" if text else name
