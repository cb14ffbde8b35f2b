import json
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.samples_of import row, sid
from worker.model import (
    Created,
    Existed,
    Failed,
    Halt,
    InDoubt,
    Lost,
    NotSent,
    Rejected,
    Reply,
    Retry,
    Verdict,
)
from worker.verdict import judge, without_values

UT = sid("UT", 1)
ROW = row(1)
HTML = b"<html><body>Blocked by the proxy</body></html>"
SPRING = b'{"timestamp": "2026-01-01T00:00:00Z", "status": 404, "error": "Not Found", "message": "", "path": "/v1"}'
GRPC = b'{"code": 5, "message": "Not Found", "details": []}'
CLASSIC, PROBLEM, ERRORS = "classic", "RFC 9457", "errors"


def error(status: int, code: object = None, message: object = "No.", shape: str = CLASSIC) -> bytes:
    """Return an error of Twilio's, in one of its three shapes; without a code when it is None."""
    numbered = {} if code is None else {"code": code}
    shapes: dict[str, Any] = {
        CLASSIC: {**numbered, "message": message, "more_info": "https://www.twilio.com/docs/errors/", "status": status},
        PROBLEM: {"type": "about:blank", "title": "Bad", "status": status, "detail": message, **numbered},
        ERRORS: {"errors": [{**numbered, "message": message}]},
    }
    return json.dumps(shapes[shape]).encode()


def verdict_of(status: int, code: object = None, message: object = "No.", shape: str = CLASSIC) -> Verdict:
    """Return the verdict on an error of Twilio's."""
    return judge(Reply(status, error(status, code, message, shape)))


# ---- codes: the table of API.md, from its words ---------------------------------------------------------------------

EXISTED = (50433, 50437, 45206, 50404, 45202)
THROTTLED = (20429, 45010, 45719, 45780, 50063, 50074)
CONFLICT = (20409, 20162, 45796, 45307, 45308, 50419, 50449)
WALL = (20003, 20005, 20006, 20008, 20010, 45002, 45003, 45377)
CLOSED = (20404, 45006, 45354, 45376, 50417)
REFUSED = (
    *(20001, 20413, 20422, 20423, 45004, 45008, 45351, 45366, 45367, 50425, 50453, 80102),
    *(50407, 50408, 50409, 50410, 50411, 50412, 50413, 50414, 50415, 50416, 50420),
)
DOUBT = (20500, 20503, 45001, 45005, 45350, 45361, 45372)

TABLE = [
    *((code, (Existed, {})) for code in EXISTED),
    *((code, (Retry, {"throttled": True})) for code in THROTTLED),
    *((code, (Retry, {"throttled": False})) for code in CONFLICT),
    *((code, (Halt, {})) for code in WALL),
    *((code, (Rejected, {"closes_channel": True})) for code in CLOSED),
    *((code, (Rejected, {"closes_channel": False})) for code in REFUSED),
    *((code, (InDoubt, {"stranger": False})) for code in DOUBT),
    *((code, (Rejected, {"closes_channel": False, "closes_to_non_chat": True})) for code in (50418, 50422)),
    *((code, (Failed, {"forbidden": True, "stranger": False})) for code in (20403, 50056)),
]


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422, 451, 499])
@pytest.mark.parametrize(("code", "expected"), TABLE)
def test_a_known_code_decides_whatever_the_status_below_500(
    code: int, expected: tuple[type[Verdict], dict[str, bool]], status: int
) -> None:
    """Body codes outrank the status, in each shape, as a number or as text."""
    kind, flags = expected
    for shape in (CLASSIC, PROBLEM, ERRORS):
        for written in (code, str(code)):
            verdict = verdict_of(status, written, shape=shape)
            assert type(verdict) is kind
            assert getattr(verdict, "code", None) == str(code)
            assert {name: getattr(verdict, name) for name in flags} == flags


@pytest.mark.parametrize("status", [500, 502, 503, 599])
@pytest.mark.parametrize("code", [code for code, _ in TABLE])
def test_from_500_on_a_row_is_in_doubt_whatever_the_body_says(code: int, status: int) -> None:
    """The participant may have been made before the failure; a code about limits slows down all the same."""
    for shape in (CLASSIC, PROBLEM, ERRORS):
        verdict = verdict_of(status, code, shape=shape)
        assert isinstance(verdict, InDoubt)
        assert verdict.throttled == (code in THROTTLED)


@pytest.mark.parametrize("code", [code for code, _ in TABLE])
def test_every_known_code_has_words_of_our_own(code: int) -> None:
    """The reason of a known code is stable: the message of the service does not reach it."""
    verdicts = {verdict_of(400, code, message) for message in ("one", "Ada ada@example.org", "")}
    assert len(verdicts) == 1


@pytest.mark.parametrize("message", [None, 5, {"a": 1}])
def test_a_known_code_without_a_message_still_decides(message: object) -> None:
    """Otherwise a service's failure under a 400 would pass as a proxy's page, and its row would be sent again."""
    assert isinstance(verdict_of(400, 20500, message), InDoubt)
    assert isinstance(judge(Reply(404, b'{"code": 20404}')), Rejected)


# ---- statuses, where no code is known -------------------------------------------------------------------------------

BY_STATUS = [
    # what came back, when the body has no known code, and what follows
    *((status, body, Rejected, {"closes_channel": False}) for status in (400, 402, 405, 410, 413, 422, 451, 499)
      for body in (error(status), error(status, 99999), error(status, 99999, shape=PROBLEM),
                   error(status, 99999, shape=ERRORS))),
    *((status, HTML, Failed, {"stranger": True, "forbidden": False}) for status in (407, 413, 414, 431)),
    *((status, body, InDoubt, {"stranger": True}) for status in (400, 403, 404, 409, 418, 451, 499)
      for body in (SPRING, GRPC, error(499 if status != 499 else 400), error(status, shape=PROBLEM),
                   error(status, shape=ERRORS), HTML, b"", b"null", b"[]", b'"no"', b"{}",
                   b'{"message": "no Route matched"}',
                   b'{"error": "no"}',
                   b'{"errors": []}', b'{"errors": ["no"]}', b"\xff\xfe", b'{"message":')),
    (404, error(404), Rejected, {"closes_channel": True}),
    (404, error(404, 99999), Rejected, {"closes_channel": True}),
    (409, error(409), Retry, {"throttled": False}),
    *((401, body, Halt, {"may_exist": False}) for body in (error(401), error(401, 99999))),
    *((401, body, Halt, {"may_exist": True}) for body in (HTML, b"", b"{}", SPRING)),
    *((403, body, Failed, {"forbidden": True}) for body in (error(403), error(403, 99999))),
    *((408, body, InDoubt, {}) for body in (error(408), error(408, 99999), HTML, b"")),
    *((429, body, Retry, {"throttled": True, "after_seconds": None})
      for body in (error(429), error(429, 99999), error(429, 20001), error(429, 20003), error(429, 20500), HTML, b"")),
    *((status, error(status, code), InDoubt, {"stranger": False})
      for status in (500, 501, 502, 503, 504, 520, 599) for code in (None, 99999)),
    *((status, body, InDoubt, {"stranger": True})
      for status in (500, 502, 503, 504, 599, 300, 301, 302, 303, 304, 307, 308) for body in (HTML, b"", b"{}")),
    *((status, error(status), InDoubt, {"stranger": True}) for status in (301, 307, 308)),
    *((status, error(status), InDoubt, {}) for status in (0, 100, 101, 199, 600, 999)),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "kind", "flags"), BY_STATUS)
def test_without_a_known_code_the_status_decides(
    status: int, body: bytes, kind: type[Verdict], flags: dict[str, object]
) -> None:
    """Only what is surely refused is refused, only what says it was not processed is tried again."""
    verdict = judge(Reply(status, body))
    assert type(verdict) is kind
    assert {name: getattr(verdict, name) for name in flags} == flags


@pytest.mark.parametrize(
    ("code", "kept"),
    [
        (99999, "99999"),
        ("99999", "99999"),
        (None, "400"),
        (True, "400"),
        (20001.0, "400"),
        ("20001x", "400"),
        ("²", "400"),
        ("٢٠٠٠١", "400"),
        (-20001, "400"),
        (447700900123, "400"),
        ("9" * 5000, "400"),
        ([20001], "400"),
    ],
)
def test_a_code_is_a_short_number_or_none(code: object, kept: str) -> None:
    """What is no code counts as absent, and the status stands for it."""
    assert verdict_of(400, code) == Rejected(kept, "No.")


# ---- waiting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "body"), [(429, b""), (429, error(429, 20429)), (409, error(409, 20409))])
def test_retry_after_is_handed_on(status: int, body: bytes) -> None:
    """With 429 and with a conflict; whoever waits decides how much of it to honour."""
    verdict = judge(Reply(status, body, retry_after_seconds=7.5))
    assert isinstance(verdict, Retry)
    assert verdict.after_seconds == 7.5


def test_a_retry_after_with_an_unknown_failure_changes_nothing() -> None:
    """A gateway's 503 is in doubt, however friendly."""
    assert isinstance(judge(Reply(503, HTML, retry_after_seconds=1)), InDoubt)


@given(st.text(alphabet="aA0 .-+(\"'@\\u00e9", min_size=1, max_size=40))
def test_a_message_of_any_length_is_cut_before_it_is_masked(unit: str) -> None:
    """What stands behind the part that is shown is not looked at: masking all of it would freeze the event loop."""
    shown = verdict_of(400, 99999, (unit * 1000)[:700])
    assert verdict_of(400, 99999, unit * 1000) == shown == verdict_of(400, 99999, unit * 100_000)


@pytest.mark.parametrize(
    ("value", "message", "reason"),
    [
        (48213, "no 48213 here", "no *** here"),
        (1.25, "no 1.25 here", "no *** here"),
        (100, "no 100 here", "no 100 here"),
        (True, "no True here", "no True here"),
        ("\u0130stanbul", "no istanbul here", "no *** here"),
        ("\u017ftra\u00dfe", "no STRA\u1e9eE here", "no *** here"),
        ("Ada", "no adapter", "no ***pter"),
    ],
)
def test_a_refusal_shows_no_value_whatever_its_case_and_kind(value: object, message: str, reason: str) -> None:
    """Numbers are values, too, if they are long enough to tell something."""
    body = urlencode({"MediaProperties": json.dumps({"x": [{"y": value}]})}).encode()
    assert without_values(Rejected("1", message), body) == Rejected("1", reason)


@pytest.mark.parametrize("status", [0, 100, 101, 199])
def test_what_ends_no_request_leaves_the_row_in_doubt(status: int) -> None:
    """Whatever its body says: no answer of the API's has such a status."""
    verdict = judge(Reply(status, error(status, 20404)))
    assert verdict == InDoubt(str(status), f"status {status}, which ends no request: may exist", stranger=True)


@pytest.mark.parametrize("depth", [90, 5_000])
def test_a_refusal_of_a_row_that_is_nested_deep_shows_no_value(depth: int) -> None:
    """Whether its values can be read or not."""
    deep = '{"a":' * depth + '"secret@example.com"' + "}" * depth
    body = urlencode({"MediaProperties": deep}).encode()
    refused = without_values(Rejected("1", "no secret@example.com"), body)
    assert isinstance(refused, Rejected)
    assert "secret" not in refused.reason


# ---- success --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 206, 299])
def test_any_2xx_with_a_participant_s_sid_is_created(status: int) -> None:
    """201 in older specifications, 200 in the current one."""
    body = {"sid": UT, "type": "customer", "interaction_sid": None, "url": None, "code": 20404, "message": "odd"}
    assert judge(Reply(status, json.dumps(body).encode())) == Created(UT)


@pytest.mark.parametrize(
    ("said", "is_created"),
    [
        ({}, True),
        ({"interaction_sid": None, "channel_sid": None, "type": None}, True),
        ({"channel_sid": ROW.channel_sid.upper(), "type": ROW.type}, True),
        ({"channel_sid": sid("UO", "other")}, False),
        ({"interaction_sid": sid("KD", "other")}, False),
        ({"type": "supervisor"}, False),
        ({"channel_sid": 5}, False),
    ],
)
def test_the_answer_of_another_request_is_not_believed(said: dict[str, object], *, is_created: bool) -> None:
    """A body that names another channel, interaction or type puts the row in doubt; sids compare without case."""
    verdict = judge(Reply(201, json.dumps({"sid": UT, **said}).encode()), ROW)
    assert verdict == Created(UT) if is_created else isinstance(verdict, InDoubt)


@pytest.mark.parametrize("status", [200, 201, 204])
@pytest.mark.parametrize(
    ("body", "code", "stranger"),
    [
        (b'{"sid": null}', "no_sid", False),
        (b"{}", "no_sid", True),
        (b'{"sid": 5}', "no_sid", False),
        (json.dumps({"sid": sid("KD", 1)}).encode(), "no_sid", False),
        (json.dumps({"sid": UT.lower()}).encode(), "no_sid", False),
        (json.dumps({"sid": UT + "0"}).encode(), "no_sid", False),
        (json.dumps({"sid": UT + "\n"}).encode(), "no_sid", False),
        (json.dumps({"sid": f" {UT}"}).encode(), "no_sid", False),
        (json.dumps({"sid": UT[:-1] + "\ud800"}).encode(), "no_sid", False),
        (json.dumps({"sid": [UT]}).encode(), "no_sid", False),
        (json.dumps([{"sid": UT}]).encode(), "no_sid", True),
        (json.dumps(UT).encode(), "no_sid", True),
        (error(200, 20404), "no_sid", False),
        (error(200, 20429), "no_sid", False),
        (b"", "unreadable", True),
        (HTML, "unreadable", True),
        (b"\xff\xfe\x00", "unreadable", True),
        (b'{"sid": "' + UT.encode(), "unreadable", True),
        (b"[" * 100_000, "unreadable", True),
        (b"9" * 5000, "unreadable", True),
    ],
)
def test_a_2xx_without_a_participant_s_sid_is_in_doubt(status: int, body: bytes, code: str, *, stranger: bool) -> None:
    """It was probably created; a code in the body does not undo that."""
    verdict = judge(Reply(status, body))
    assert isinstance(verdict, InDoubt)
    assert (verdict.code, verdict.stranger) == (code, stranger)


# ---- no reply -------------------------------------------------------------------------------------------------------


def test_what_never_left_is_tried_again_and_what_was_lost_is_in_doubt() -> None:
    """The whole difference between a safe repetition and a duplicate."""
    assert judge(NotSent("connection refused")) == Retry("no_connection", "connection refused")
    assert judge(Lost("no answer within 30 s")) == InDoubt("lost", "no answer within 30 s")


# ---- people ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("Invalid address ada@example.org for email", "Invalid address *** for email"),
        ("Invalid number +44 7700 900123.", "Invalid number ***."),
        ("whatsapp:+15550100123 is no number", "whatsapp:*** is no number"),
        ('Identity "Ada Lovelace" is taken', "Identity *** is taken"),
        ("Identity 'Ada Lovelace' is taken", "Identity *** is taken"),
        (f"Interaction {sid('KD', 1)} is odd", "Interaction KD… is odd"),
        ("Name <ada@example.org>,\n\ttoo  long", "Name *** too long"),
        ("", "refused with status 400"),
        ("  ", "refused with status 400"),
        ("x" * 500, "x" * 160),
        ("no " * 52 + "Adalbert", ("no " * 52).strip()),
        (" " * 636 + "Adalbert", "refused with status 400"),
        (" " * 632 + "no Adalbert", "no"),
    ],
)
def test_a_message_of_the_service_is_masked_before_it_becomes_a_reason(message: str, reason: str) -> None:
    """What may be a person's goes, and so does what would put every row into a group of its own."""
    for shape in (CLASSIC, PROBLEM, ERRORS):
        assert verdict_of(400, 99999, message, shape) == Rejected("99999", reason)


# ---- anything -------------------------------------------------------------------------------------------------------

KNOWN = {code for code, _ in TABLE}
BODIES = (
    st.binary(max_size=60)
    | st.builds(
        error,
        st.integers(0, 999),
        st.none() | st.integers() | st.text("0123456789", max_size=8) | st.sampled_from(sorted(KNOWN)),
        st.none() | st.text(),
        st.sampled_from([CLASSIC, PROBLEM, ERRORS]),
    )
    | st.fixed_dictionaries({"sid": st.none() | st.just(UT) | st.text()}).map(lambda body: json.dumps(body).encode())
)


@given(status=st.integers(-1, 1000) | st.sampled_from([200, 201, 401, 404, 429, 500, 503]), body=BODIES)
@example(status=404, body=b'{"message":"x","code":"' + b"9" * 5000 + b'"}')
@example(status=503, body=b'{"code":true,"message":"x"}')
def test_no_answer_is_too_odd_and_none_leads_to_a_duplicate(status: int, body: bytes) -> None:
    """Nothing raises; a 5xx without a known code stays in doubt; only a participant's sid in a 2xx is created."""
    verdict = judge(Reply(status, body))
    has_known_code = any(str(code).encode() in body for code in KNOWN)
    if (status >= 500 or status < 400) and not has_known_code:
        assert isinstance(verdict, InDoubt | Created)
    if 200 <= status < 300:
        assert isinstance(verdict, InDoubt | Created)
    assert isinstance(verdict, Created) is (200 <= status < 300 and verdict == Created(UT))
    assert isinstance(verdict, Created) <= (UT.encode() in body)


def form(**fields: str) -> bytes:
    """Return a row's form."""
    return urlencode(fields).encode()


BODY = form(
    MediaProperties=json.dumps(
        {"name": "Grace O'Hopper (née Zoë)", "address": "g@x.org", "type": "email", "tags": ["Sherringham", 7]}
    ),
    RoutingProperties=json.dumps({"task_sid": "WT1"}),
)


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("GRACE O'HOPPER (NÉE ZOË) is no email", "*** is no email"),
        ("grace is not allowed, nor is Hopper", "*** is not allowed, nor is ***"),
        ("Sherringham, g@x.org and WT1", "***, *** and ***"),
        ("email is the API's own word", "email is the API's own word"),
        ("the parameter is invalid", "the parameter is invalid"),
    ],
)
def test_a_reason_does_not_repeat_what_the_row_held(reason: str, told: str) -> None:
    """A service may quote a name in its message, which no pattern would know."""
    assert without_values(Rejected("59999", reason), BODY) == Rejected("59999", told)


@pytest.mark.parametrize("verdict", [Created("UT"), Rejected("1", "Grace", closes_channel=True), Halt("1", "Grace")])
def test_a_reason_of_our_own_is_left_as_it_is(verdict: Verdict | Halt) -> None:
    """It has nothing of a row's."""
    assert without_values(verdict, BODY) == verdict


@pytest.mark.parametrize("body", [form(MediaProperties='"a text"'), form(MediaProperties="{}"), b"", b"Type=agent"])
def test_a_row_without_values_quotes_none(body: bytes) -> None:
    """Nothing is taken out then."""
    verdict = Rejected("1", "the parameter is invalid")
    assert without_values(verdict, body) == verdict
