"""The calls of the Flex API: one create in, one answer out; a network fault is an answer, never an exception.

The connector hands a connection over only after the row was allowed to leave, and from then on every fault means
`Lost`. A connection comes before the limiter's grant, so that slow handshakes do not bunch requests behind it.
"""

import asyncio
import base64
import json
import re
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple, Self

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from worker import __version__
from worker.api.breakage import NOT_HTTP, PROXY_AUTHENTICATION_REQUIRED, misconfiguration, reason_of, refused_by
from worker.api.connector import Connector, Departure, Passage, current_passage, tls_context
from worker.api.proxy import proxy_for
from worker.model import Answer, Listed, Listing, Lost, NotSent, Reply, Row, Unlisted
from worker.verdict import code_of

_MAX_BODY_BYTES = 1 << 20
_MAX_PAGE_BYTES = 16 << 20
_MAX_LIST_BYTES = 64 << 20
_PAGE_SIZE = 1000
_MAX_PAGES = 100
_MAX_DIGITS = 7
_STATUS_CHARACTERS = 40
_REQUEST_ID_CHARACTERS = 100
_MAX_RETRY_SECONDS = 10 * 365 * 86_400.0
_SID = re.compile(r"UT[0-9a-fA-F]{32}")
_REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.METHOD_NOT_ALLOWED})

_Request = Callable[..., AbstractAsyncContextManager[aiohttp.ClientResponse]]


class Api:
    """The calls of the Flex API that a run uses. An async context manager; one per run.

    base_url: origin without a path. user, secret: HTTP Basic [docs]. concurrency: connections at most. Timeouts in
    seconds; the read timeout is total, from the first byte sent to the last one read. proxy, trust_environment: as in
    `proxy_for`. Raises ConfigError for a CA bundle that cannot be loaded and for a proxy that is no address.
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
        self._proxy = proxy_for(base_url, proxy, trust_environment=trust_environment)
        self._via: dict[str, Any] = {}
        if self._proxy is not None:
            self._via = {"proxy": self._proxy.url, "proxy_headers": self._proxy.headers}
        self._tls = tls_context(ca_bundle)
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
            connector=Connector(limit=self._concurrency, tls=self._tls),
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
        passage = Passage(departure, self._read_timeout, self._loop)
        token = current_passage.set(passage)
        try:
            # the headers are given with each request: a session's own would go to a proxy, secret and all
            async with request(headers=self._headers, allow_redirects=False, **self._via) as response:
                if refused := self._refused_on_the_way(response):
                    response.close()
                    return NotSent(refused, misconfigured=True)
                passage.content = response.content
                if dates is not None:
                    dates.append(response.headers.get("Date", ""))
                answer = await _read(response, max_bytes)
        except (aiohttp.ClientError, HttpProcessingError, OSError) as exc:
            answer = self._broken(exc, left=passage.left)
        finally:
            passage.end()
            current_passage.reset(token)
        # what ended because it was given up is not the whole answer, even where it looks like one
        return Lost(f"no answer within {self._read_timeout:g} s") if passage.late else answer

    def _refused_on_the_way(self, response: aiohttp.ClientResponse) -> str:
        """Return what to do about a plain request that the proxy did not forward; nothing when it did."""
        if self._proxy is None or self._origin.scheme != "http" or response.status != PROXY_AUTHENTICATION_REQUIRED:
            return ""
        return refused_by(self._proxy)

    def _broken(self, exc: BaseException, *, left: bool) -> Answer:
        reason = reason_of(exc)
        if left:
            return Lost(reason if reason == NOT_HTTP else f"the connection broke before the answer: {reason}")
        setting = misconfiguration(exc, self._origin.raw_host or "", self._proxy)
        return NotSent(setting or reason, misconfigured=bool(setting))

    async def list(self, interaction_sid: str, channel_sid: str, departure: Departure) -> Listing | Unlisted:
        """List all participants of a channel: `GET …/Participants`, page by page [spec]. Never raises for a fault.

        departure: is asked before each page. A next page of another origin is not asked for: credentials stay here.
        """
        path = f"/v1/Interactions/{interaction_sid}/Channels/{channel_sid}/Participants"
        url = self._origin.with_path(path, encoded=True).with_query(PageSize=_PAGE_SIZE)
        found: list[Listed] = []
        statuses: dict[str, str] = {}
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
            statuses |= page.statuses
            if page.next_url is None:
                return Listing(tuple(found), statuses)
            url = page.next_url
            if url.raw_user is not None or url.origin() != self._origin:
                return Unlisted("the next page of the list is at another address")
            if url in seen:
                return Unlisted("the list leads to the same page twice")
            seen.add(url)
        return Unlisted(f"the list does not end after {_MAX_PAGES} pages")


class _Page(NamedTuple):
    participants: list[Listed]
    statuses: dict[str, str]
    next_url: URL | None


def _judge_page(answer: Answer, channel_sid: str) -> _Page | Unlisted:
    if not isinstance(answer, Reply):
        misconfigured = isinstance(answer, NotSent) and answer.misconfigured
        unreachable = isinstance(answer, NotSent)
        return Unlisted(answer.reason, failed=True, unreachable=unreachable, misconfigured=misconfigured)
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
            next_url = _next_page(document["meta"].get("next_page_url"))
            return _Page([_listed(entry) for entry in entries], _statuses(entries), next_url)
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


def _statuses(entries: list[dict[str, Any]]) -> dict[str, str]:
    found = ((entry.get("sid"), entry.get("status")) for entry in entries)
    return {
        sid.casefold(): status[:_STATUS_CHARACTERS]
        for sid, status in found
        if isinstance(sid, str) and isinstance(status, str) and status
    }


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> Answer:
    body = bytearray()  # bytes would be copied whole for each chunk
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > max_bytes:
            response.close()
            return Lost(f"the answer's body is larger than {max_bytes >> 20} MiB")
    headers = response.headers
    after = headers.get("Retry-After")
    return Reply(
        response.status,
        bytes(body),
        headers.get("Twilio-Request-Id", "")[:_REQUEST_ID_CHARACTERS] or None,
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
