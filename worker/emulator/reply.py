"""What the service says: headers, bodies of participants and lists, and errors in their three shapes."""

import json
from typing import Any, Final

from aiohttp import web

from worker.emulator.behaviour import Echo
from worker.emulator.fault import Answer, ErrorShape

# Documented on the response of a create [card]. The values are those of a public API [infer].
CORS: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Headers": "Accept, Authorization, Content-Type, If-Match, If-None-Match",
    "Access-Control-Allow-Credentials": "true",
    "Access-Control-Expose-Headers": "ETag, Twilio-Request-Id, Twilio-Concurrent-Requests, Twilio-Request-Duration",
}

# The HTTP status that goes with a code. The codes are documented [docs], most of their statuses are not [infer].
STATUSES: Final = {
    20001: 400,
    20003: 401,
    20004: 405,
    20404: 404,
    20413: 413,
    20429: 429,
    20500: 500,
    20503: 503,
    45310: 404,
    45351: 400,
    45354: 400,
    45362: 400,
    45780: 429,
    50417: 400,
    50433: 409,
}

HTML: Final = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>502 Bad Gateway</body>\r\n</html>\r\n"
PORTAL: Final = "<!DOCTYPE html><html><body><h1>Welcome to the guest network</h1>Please sign in.</body></html>"
STRANGERS_STATUSES: Final = (400, 403, 409, 451, 499)
STRANGERS_PAGES: Final = (
    ("text/html", "<html><head><title>{status}</title></head><body>Request rejected.</body></html>"),
    (
        "application/json",
        '{{"timestamp": "2026-01-01T00:00:00.000Z", "status": {status}, "error": "Rejected", "path": "/v1"}}',
    ),
    ("application/json", '{{"code": 5, "message": "Not Found", "details": []}}'),
)
MISCODED_STATUSES: Final = (500, 502, 503, 504)
MISCODES: Final = (20404, 20409, 20429, 45004, 50433)
DEEP: Final = b'{"code": 20001, "status": 400, "message": "Bad", "details": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
LONG_MESSAGE: Final = "The service failed for +1 555 123 4567. " * 22_500
HUGE_HEADER: Final = "x" * (256 << 10)
GARBAGE: Final = b'{"sid": "UT\xff\xfe<<<'
REDIRECTED: Final = "/emulator/redirected"
JSON: Final = "application/json"
_PROBLEM: Final = "application/problem+json"
_ABOUT: Final = "https://www.twilio.com/docs/errors/"


def error_body(status: int, code: int | None, message: str, shape: ErrorShape) -> tuple[dict[str, Any], str]:
    """Return the body and the media type of an error; without a code the shapes leave it out [docs, code]."""
    more = f"{_ABOUT}{code or ''}"
    numbered: dict[str, Any] = {} if code is None else {"code": code}
    match shape:
        case ErrorShape.CLASSIC:
            return {**numbered, "message": message, "more_info": more, "status": status}, JSON
        case ErrorShape.PROBLEM:
            return {"type": more, "title": message, "status": status, **numbered, "detail": message}, _PROBLEM
        case ErrorShape.ERRORS:
            return {"errors": [{**numbered, "message": message}]}, JSON


def render(status: int, body: Any, headers: dict[str, str], *, content_type: str = JSON) -> web.Response:
    """Return a response with a JSON body."""
    return web.Response(
        status=status, body=json.dumps(body).encode(), headers={**headers, "Content-Type": content_type}
    )


def render_error(code: int, message: str, shape: ErrorShape, headers: dict[str, str]) -> web.Response:
    """Return one of the service's own errors, with the status that goes with its code."""
    status = STATUSES[code]
    body, content_type = error_body(status, code, message, shape)
    return render(status, body, headers, content_type=content_type)


def render_answer(answer: Answer, shape: ErrorShape, headers: dict[str, str]) -> web.Response:
    """Return a scripted answer as it was given."""
    headers = {**headers, **answer.headers}
    if answer.body is not None:
        return web.Response(
            status=answer.status, body=answer.body, headers={"Content-Type": answer.content_type, **headers}
        )
    body, content_type = error_body(answer.status, answer.code, answer.message, answer.shape or shape)
    return render(answer.status, body, headers, content_type=content_type)


def channel_body(interaction_sid: str, channel_sid: str, *, url: str, status: str) -> dict[str, Any]:
    """Return what the API tells of a channel [spec]."""
    return {
        "sid": channel_sid,
        "interaction_sid": interaction_sid,
        "type": "email",
        "status": status,
        "error_code": None,
        "error_message": None,
        "url": url,
        "links": {"participants": f"{url}/Participants"},
    }


def channel_path(interaction_sid: str, channel_sid: str) -> str:
    """Return the path of a channel."""
    return f"/v1/Interactions/{interaction_sid}/Channels/{channel_sid}"


def list_body(
    entries: list[dict[str, Any]], *, url: str, page: int, page_size: int, next_token: str | None
) -> dict[str, Any]:
    """Return one page of a list, whose links are absolute [spec]; `url` is the list's own, without a query."""
    this = f"{url}?PageSize={page_size}&Page="
    return {
        "meta": {
            "key": "participants",
            "page": page,
            "page_size": page_size,
            "url": f"{this}{page}",
            "first_page_url": f"{this}0",
            "previous_page_url": f"{this}{page - 1}" if page else None,
            "next_page_url": None if next_token is None else f"{this}{page + 1}&PageToken={next_token}",
        },
        "participants": entries,
    }


def participant_body(
    origin: str, where: tuple[str, str], sid: str, kind: str, routing: dict[str, Any] | None
) -> dict[str, Any]:
    """Return a participant; `where` is its interaction and channel, `routing` what is echoed."""
    interaction_sid, channel_sid = where
    return {
        "sid": sid,
        "type": kind,
        "interaction_sid": interaction_sid,
        "channel_sid": channel_sid,
        "url": f"{origin}{channel_path(interaction_sid, channel_sid)}/Participants/{sid}",
        "routing_properties": routing,
    }


def echoed(routing: dict[str, Any] | None, echo: Echo) -> dict[str, Any] | None:
    """Return the routing properties as they come back."""
    match echo:
        case Echo.AS_SENT:
            return routing
        case Echo.NULL:
            return None
        case Echo.EXTENDED:
            return {"workspace_sid": None, "task_channel_unique_name": "default", **(routing or {})}
