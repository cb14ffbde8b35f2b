"""One answer of a service to try: its status and headers, and the bytes of its body. Kept as `example` keeps inputs.

A body may have several pages, one after the other, with `PAGES_APART` between them: a list is read page by page.
"""

from dataclasses import dataclass

from tests.fuzz.example import SEEDS, read_as
from tests.samples_of import sid

PAGES_APART = b"\x1e"
HERE = "http://127.0.0.1:9"
KD, UO, UT = sid("KD", 1), sid("UO", 1), sid("UT", 1)


@dataclass(frozen=True, slots=True)
class Answered:
    """content: the body, or several of them. retry_after, date: the headers of these names; "" for none."""

    content: bytes
    status: int = 400
    retry_after: str = ""
    date: str = ""

    @property
    def pages(self) -> list[bytes]:
        """The bodies, one after the other; the first one is the answer to whatever has one answer."""
        return self.content.split(PAGES_APART)


def _entry(number: int, **more: str) -> str:
    told = "".join(f', "{name}": {value}' for name, value in more.items())
    return f'{{"sid": "{sid("UT", number)}", "type": "customer", "channel_sid": "{UO}"{told}}}'


def _page(*entries: str, after: str = "null") -> str:
    return f'{{"participants": [{", ".join(entries)}], "meta": {{"next_page_url": {after}}}}}'


MADE = f'"type": "customer", "interaction_sid": "{KD}", "channel_sid": "{UO}"'
VALUES = "zyxwvut.quorl@example.com Zyxwvut Quorl 48213 +441632960123"
"""Of the row that was sent, as a service may repeat them."""

_TABLE: dict[str, tuple[int, str]] = {
    # name: status, body
    "created": (201, f'{{"sid": "{UT}", {MADE}, "url": null, "routing_properties": null}}'),
    "created-shouted": (200, f'{{"sid": "UT{UT[2:].upper()}", {MADE.upper().replace("TYPE", "type")}}}'),
    "created-odd-case": (201, f'{{"sid": "{UT.lower()}", {MADE}}}'),
    "created-nulls": (201, '{"sid": null, "type": null, "interaction_sid": null, "channel_sid": null}'),
    "created-elsewhere": (201, f'{{"sid": "{UT}", "channel_sid": "{sid("UO", 2)}"}}'),
    "created-other-type": (201, f'{{"sid": "{UT}", "type": ["customer"]}}'),
    "created-twice": (201, f'{{"sid": null, "sid": "{UT}", "sid": "{UT}x"}}'),
    "created-long-sid": (201, f'{{"sid": "{UT}\\n"}}'),
    "created-wide-sid": (201, '{"sid": "UT%s"}' % ("\uff11" * 32)),
    "created-half-a-pair": (201, f'{{"sid": "{UT[:-1]}\\ud83d", "type": "\\udc00"}}'),
    "created-array": (200, f'[{{"sid": "{UT}"}}]'),
    "empty": (201, ""),
    "no-content": (204, ""),
    "portal": (200, "<!DOCTYPE html><html>Welcome to our wifi</html>"),
    "classic": (400, f'{{"status": 400, "message": "Invalid {VALUES}", "code": 45351, "more_info": "https://x"}}'),
    "classic-without-code": (400, f'{{"status": 400, "message": "Parameter {VALUES} is invalid"}}'),
    "classic-null-code": (404, '{"status": 404, "message": "not found", "code": null, "more_info": null}'),
    "classic-other-status": (404, '{"status": 400, "message": "not found"}'),
    "rfc-9457": (409, '{"type": "https://www.twilio.com/docs/api/errors/20409", "title": "Conflict", "status": 409}'),
    "rfc-9457-list": (409, '{"type": ["https://www.twilio.com/docs"], "title": "Conflict", "status": 409}'),
    "rfc-9457-code": (403, '{"type": "x", "title": "No", "status": 403, "code": 20403, "detail": "no"}'),
    "errors": (400, f'{{"errors": [{{"code": 50433, "message": "{VALUES}"}}, {{"code": 20003}}]}}'),
    "errors-empty": (400, '{"errors": [], "code": 20404}'),
    "errors-odd": (422, '{"errors": [null, 7], "code": 20404, "message": "x"}'),
    "spring": (404, '{"timestamp": "2026-01-01", "status": 404, "error": "Not Found", "path": "/v1"}'),
    "grpc": (404, '{"code": 5, "message": "not found", "details": []}'),
    "kong": (404, '{"message": "no Route matched with those values"}'),
    "html": (403, "<html><h1>403 Forbidden</h1></html>"),
    "proxy": (407, "<html>Proxy Authentication Required</html>"),
    "too-large": (413, "<html>413</html>"),
    "timed-out": (408, '{"code": 20404, "message": "x", "status": 408}'),
    "throttled": (429, '{"code": 20429, "message": "Too Many Requests", "status": 429}'),
    "throttled-below": (400, '{"code": 45780, "message": "x"}'),
    "throttled-portal": (429, "slow down"),
    "wall": (401, '{"code": 20003, "message": "Authenticate", "status": 401}'),
    "strangers-wall": (401, "<html>"),
    "wall-in-a-404": (404, '{"code": "20003", "message": "x"}'),
    "full": (400, '{"code": 50417, "message": "x"}'),
    "full-of-others": (400, '{"code": 50422, "message": "x"}'),
    "bound": (400, '{"code": 80102, "message": "x"}'),
    "gone": (404, '{"code": 20404, "message": "x", "status": 404}'),
    "gone-too": (400, '{"code": 45362, "message": "x"}'),
    "unknowable": (400, '{"code": 45350, "message": "x"}'),
    "unheard-of": (418, f'{{"code": 987654, "message": "The {VALUES} was not liked", "status": 418}}'),
    "failed-with-a-code": (503, '{"code": 20404, "message": "x", "status": 503}'),
    "failed-throttled": (500, '{"code": 20429, "message": "x"}'),
    "redirect": (302, ""),
    "early": (101, "{}"),
    "code-bool": (404, '{"code": true, "message": "x", "status": 404}'),
    "code-float": (404, '{"code": 20404.0, "message": "x", "status": 404}'),
    "code-negative": (404, '{"code": -20404, "message": "x"}'),
    "code-huge": (404, '{"code": %s, "message": "x"}' % ("9" * 4000)),
    "code-too-huge": (404, '{"code": %s, "message": "x"}' % ("9" * 5000)),
    "code-text": (404, '{"code": "020404", "message": "x"}'),
    "code-wide-text": (404, '{"code": "\uff12\uff10\uff14\uff10\uff14", "message": "x"}'),
    "code-spaced": (404, '{"code": " 20404 ", "message": "x"}'),
    "code-nan": (404, '{"code": NaN, "message": -Infinity, "status": 1e999}'),
    "code-twice": (404, '{"code": 20404, "code": 20003, "message": "x", "message": "y"}'),
    "code-list": (404, '{"code": [20404], "message": {"a": 1}, "status": 404}'),
    "deep-list": (400, "[" * 2000),
    "deep-type": (400, '{"status": 400, "title": "x", "type": ' + "[" * 900 + "]" * 900 + "}"),
    "deeper-type": (400, '{"status": 400, "title": "x", "type": ' + '{"a":' * 940 + "1" + "}" * 941),
    "deep-sid": (201, '{"sid": ' + "[" * 950 + "]" * 950 + "}"),
    "deep-channel": (200, _page('{"sid": "x", "channel_sid": ' + "[" * 940 + "]" * 940 + "}")),
    "long-message": (400, '{"status": 400, "message": "%s"}' % ("Zyxwvut Quorl, " * 120)),
    "cut-message": (400, '{"status": 400, "message": "%s Zyxwvut Quorl"}' % ("no " * 51)),
    "far-cut-message": (400, '{"status": 400, "message": "%s Zyxwvut Quorl"}' % (" " * 634)),
    "controls": (400, '{"status": 400, "message": "\\u0000\\u001b[2J\\r\\n\\u0085\\u2028\\u202e Zyxwvut"}'),
    "half-a-pair": (400, '{"status": 400, "message": "\\ud83d and \\ude00 Zyxwvut"}'),
    "kelvin": (400, '{"status": 400, "message": "\u017fhort: ZYXWVUT \u212a Quorl"}'),
    "closed": (200, f'{{"sid": "{UT}", "status": "closed"}}'),
    "closed-shouted": (200, f'{{"sid": "{UT.upper()}", "status": "closed"}}'),
    "closed-other": (200, f'{{"sid": "{sid("UT", 2)}", "status": "closed"}}'),
    "closed-not": (200, f'{{"sid": "{UT}", "status": "open"}}'),
    "closed-nulls": (200, '{"sid": null, "status": "closed"}'),
    "nobody": (200, _page()),
    "new": (200, _page(_entry(1))),
    "known": (200, _page(_entry(8), _entry(9))),
    "known-and-new": (200, _page(_entry(8), _entry(1))),
    "two-new": (200, _page(_entry(1), _entry(2))),
    "same-twice": (200, _page(_entry(1), _entry(1).replace(UT, UT.upper()))),
    "new-agent": (200, _page(_entry(1).replace("customer", "agent"))),
    "new-routing": (200, _page(_entry(1, routing_properties=f'{{"task_sid": "{sid("WT", 1)}"}}'))),
    "other-routing": (200, _page(_entry(1, routing_properties=f'{{"task_sid": "{sid("WT", 2)}"}}'))),
    "no-sid": (200, _page(_entry(8), '{"sid": null}')),
    "other-channel": (200, _page(_entry(1).replace(UO, sid("UO", 2)))),
    "no-objects": (200, _page("7", '"x"', "null")),
    "no-meta": (200, '{"participants": []}'),
    "null-meta": (200, '{"participants": [], "meta": null}'),
    "participants-null": (200, '{"participants": null, "meta": {}}'),
    "participants-object": (200, '{"participants": {"sid": 1}, "meta": {}}'),
    "elsewhere": (200, _page(after='"https://evil.example/v1?Page=2"')),
    "with-a-user": (200, _page(after=f'"{HERE.replace("//", "//a:b@")}/v1"')),
    "relative": (200, _page(after='"/v1?Page=1"')),
    "bad-port": (200, _page(after='"http://127.0.0.1:99999/v1"')),
    "bad-host": (200, _page(after='"http://[::1/v1"')),
    "dotted-host": (200, _page(after='"http://..xn--/v1"')),
    "long-host": (200, _page(after=f'"http://{"a" * 300}/v1"')),
    "number-next": (200, _page(after="7")),
}

_PAGES: dict[str, tuple[int, tuple[str, ...]]] = {
    "two-pages": (200, (_page(_entry(8), after=f'"{HERE}/v1?Page=1"'), _page(_entry(1)))),
    "circle": (200, (_page(after=f'"{HERE}/v1?Page=1"'), _page(_entry(1), after=f'"{HERE}/v1?Page=1"'))),
    "half-a-list": (200, (_page(_entry(8), after=f'"{HERE}/v1?Page=1"'), "<html>")),
}

_RAW: dict[str, Answered] = {
    "utf-8-mark": Answered(b'\xef\xbb\xbf{"code": 20404}', 404),
    "two-marks": Answered(b'\xef\xbb\xbf\xef\xbb\xbf{"code": 20404}', 404),
    "utf-16": Answered('{"code": 20404}'.encode("utf-16"), 404),
    "utf-32": Answered('{"code": 20003}'.encode("utf-32-le"), 404),
    "bad-utf-8": Answered(b'{"code": 20404, "message": "\xff\xfe\xed\xa0\x80"}', 404),
    "latin-1": Answered('{"status": 400, "message": "Zyxwv\xfct"}'.encode("latin-1"), 400),
    "nul": Answered(b"\0\0\0\0", 400),
    "html-500": Answered(b"<html>" * 50, 502),
    "in-a-minute": Answered(b'{"code": 20429}', 429, retry_after="60"),
    "for-ever": Answered(b"", 429, retry_after="9" * 400),
    "by-date": Answered(b"", 503, "Wed, 21 Oct 2026 07:28:00 GMT", "Wed, 21 Oct 2026 07:27:00 GMT"),
    "by-a-bad-date": Answered(b"", 429, "Wed, 99 Oct 99999999999999999999 07:28:00 +9999999999", "1 2 3"),
    "by-nan": Answered(b"", 429, "NaN"),
}


def seeds() -> dict[str, Answered]:
    """Return name → answer: the tables above, and what was kept."""
    known = {name: Answered(body.encode("utf-8", "surrogatepass"), status) for name, (status, body) in _TABLE.items()}
    known |= {
        name: Answered(PAGES_APART.join(map(str.encode, them)), status) for name, (status, them) in _PAGES.items()
    }
    known |= _RAW
    return known | {path.name: read_as(Answered, path.read_bytes()) for path in sorted(FOLDER.glob("*.seed"))}


FOLDER = SEEDS / "answers"
