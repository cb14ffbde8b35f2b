"""Creating participants: the plain way, and every definite no."""

import io
import json
import re

import pytest

from worker.emulator import Answer, Behaviour, Call, Condition, Echo, Emulator, ErrorShape

from .client import FORM, KD, OTHER, ROUTING, UO, serving


async def test_a_create_is_answered_as_documented_and_is_in_the_truth() -> None:
    """A good form makes one participant, whose answer tells no address, name or date."""
    emulator = Emulator()
    async with serving(emulator) as client:
        reply = await client.create()
        [made] = emulator.participants
        assert reply.status == 201
        assert re.fullmatch(r"UT[0-9a-f]{32}", made.sid)
        assert reply.json == {
            "sid": made.sid,
            "type": "customer",
            "interaction_sid": KD,
            "channel_sid": UO,
            "url": f"{client.url()}/{made.sid}",
            "routing_properties": ROUTING,
        }
    assert (made.type, made.interaction_sid, made.channel_sid) == ("customer", KD, UO)
    assert made.media_properties == json.loads(FORM["MediaProperties"])
    assert (made.routing_properties, made.foreign, made.status) == (ROUTING, False, "active")
    [request] = emulator.requests
    assert (request.channel_sid, request.status, request.made) == (UO, 201, made.sid)
    assert (request.code, request.fault, request.client_gone) == (None, None, False)


async def test_the_documented_headers_come_with_every_answer() -> None:
    """The five CORS headers and Twilio's three are there, on a success and on a refusal."""
    async with serving(Emulator()) as client:
        for reply in (await client.create(), await client.create(Type="robot")):
            assert {
                "Access-Control-Allow-Origin",
                "Access-Control-Allow-Methods",
                "Access-Control-Allow-Headers",
                "Access-Control-Allow-Credentials",
                "Access-Control-Expose-Headers",
            } <= set(reply.headers)
            assert re.fullmatch(r"RQ[0-9a-f]{32}", reply.headers["Twilio-Request-Id"])
            assert reply.headers["Twilio-Concurrent-Requests"] == "1"
            assert float(reply.headers["Twilio-Request-Duration"]) >= 0


async def test_success_may_be_200() -> None:
    """The current description of the API answers 200 instead of 201."""
    async with serving(Emulator(Behaviour(created_status=200))) as client:
        assert (await client.create()).status == 200


@pytest.mark.parametrize(
    ("echo", "expected"),
    [
        (Echo.AS_SENT, ROUTING),
        (Echo.NULL, None),
        (Echo.EXTENDED, {**ROUTING, "workspace_sid": None, "task_channel_unique_name": "default"}),
    ],
)
async def test_routing_is_echoed_as_the_behaviour_says(echo: Echo, expected: object) -> None:
    """Routing comes back as sent, as null or extended, in the answer and in the list; the truth keeps what was sent."""
    emulator = Emulator(Behaviour(echo_routing=echo))
    async with serving(emulator) as client:
        assert (await client.create()).json["routing_properties"] == expected
        assert (await client.page()).json["participants"][0]["routing_properties"] == expected
    assert emulator.participants[0].routing_properties == ROUTING


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({"Type": "robot"}, 20001),
        ({"MediaProperties": "{"}, 20001),
        ({"MediaProperties": '{"level": NaN}'}, 20001),
        ({"MediaProperties": "[" * 100_000}, 20001),
        ({"MediaProperties": '{"identity": "a", "address": "b"}'}, 45351),
        ({"MediaProperties": '{"address": ""}'}, 45351),
        ({"RoutingProperties": "{"}, 20001),
        ({"RoutingProperties": "[]"}, 20001),
        ({"RoutingProperties": '{"task_sid": "WT1"}'}, 20001),
        ({"RoutingProperties": json.dumps({"worker_sid": "WT" + "a" * 32})}, 20001),
        ({"RoutingProperties": '{"reservation_sid": 1}'}, 20001),
    ],
)
async def test_a_wrong_form_is_refused(form: dict[str, str], code: int) -> None:
    """What breaks a documented rule gets a 400 with its code, and nothing is made."""
    emulator = Emulator()
    async with serving(emulator) as client:
        reply = await client.create(**form)
    assert (reply.status, reply.code) == (400, code)
    assert emulator.participants == []
    assert (emulator.requests[0].status, emulator.requests[0].code) == (400, code)
    assert emulator.stats.refused == 1


@pytest.mark.parametrize(
    "form",
    [
        {"MediaProperties": '{"identity": "a"}'},
        {"MediaProperties": '{"unheard": "of"}'},
        {"MediaProperties": "[1]"},
        {"RoutingProperties": '{"task_sid": null, "more": 1}'},
        {"RoutingProperties": "null"},
        {"Unknown": "field"},
    ],
)
async def test_a_form_that_breaks_no_certain_rule_is_accepted(form: dict[str, str]) -> None:
    """The emulator refuses nothing that the API may well accept."""
    emulator = Emulator()
    async with serving(emulator) as client:
        assert (await client.create(**form)).status == 201
    assert emulator.stats.created == 1


async def test_routing_is_optional() -> None:
    """A form without routing properties makes a participant without them."""
    emulator = Emulator()
    async with serving(emulator) as client:
        form = {name: value for name, value in FORM.items() if name != "RoutingProperties"}
        reply = await client.call("POST", client.url(), data=form)
    assert (reply.status, reply.json["routing_properties"], emulator.participants[0].routing_properties) == (
        201,
        None,
        None,
    )


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"Type=customer", "application/x-www-form-urlencoded"),
        (b"Type=customer&MediaProperties=\xff", "application/x-www-form-urlencoded"),
        (b'{"Type": "customer"}', "application/json"),
    ],
)
async def test_a_body_that_is_no_complete_form_is_refused(body: bytes, content_type: str) -> None:
    """A missing field, raw bytes and JSON are no form."""
    async with serving(Emulator()) as client:
        reply = await client.call("POST", client.url(), data=body, headers={"Content-Type": content_type})
    assert (reply.status, reply.code) == (400, 20001)


async def test_a_body_beyond_the_limit_is_refused() -> None:
    """More than a megabyte is too large."""
    emulator = Emulator()
    async with serving(emulator) as client:
        reply = await client.call("POST", client.url(), data=io.BytesIO(b"Type=" + b"a" * 1_100_000))
    assert (reply.status, reply.code, emulator.participants) == (413, 20413, [])


@pytest.mark.parametrize(("interaction", "channel"), [("KD1", UO), ("UO" + "1" * 32, UO), (KD, "UO" + "g" * 32)])
async def test_a_malformed_sid_in_the_path_is_not_found(interaction: str, channel: str) -> None:
    """A path with something else than two sids leads nowhere."""
    emulator = Emulator()
    async with serving(emulator) as client:
        reply = await client.create(channel, interaction=interaction)
    assert (reply.status, reply.code, emulator.participants) == (404, 20404, [])


@pytest.mark.parametrize(
    ("condition", "status", "code"),
    [(Condition.MISSING, 404, 20404), (Condition.CLOSED, 400, 45354), (Condition.FULL, 400, 50417)],
)
async def test_a_channel_can_be_declared_unusable(condition: Condition, status: int, code: int) -> None:
    """Creates in it get its code while others go on, until it is open again."""
    emulator = Emulator()
    emulator.declare(UO, condition)
    async with serving(emulator) as client:
        reply = await client.create()
        assert (reply.status, reply.code) == (status, code)
        assert (await client.create(OTHER)).status == 201
        emulator.declare(UO, Condition.OPEN)
        assert (await client.create()).status == 201


async def test_a_channel_takes_no_more_than_its_cap_others_included() -> None:
    """Foreign participants count, those who left do not."""
    emulator = Emulator(Behaviour(participants_per_channel=2))
    emulator.add_foreign(UO)
    async with serving(emulator) as client:
        sid = (await client.create()).json["sid"]
        assert (await client.create()).code == 50417
        await client.call("POST", f"{client.url()}/{sid}", data={"Status": "closed"})
        assert (await client.create()).status == 201


async def test_a_member_is_made_again_unless_members_are_refused() -> None:
    """By default the same address duplicates; as an option it is told to be a member, per channel, until it left."""
    emulator = Emulator()
    async with serving(emulator) as client:
        first = (await client.create()).json["sid"]
        assert (await client.create()).status == 201
        emulator.change(refuse_members=True)
        refused = await client.create()
        assert (refused.status, refused.code) == (409, 50433)
        assert (await client.create(OTHER)).status == 201
        assert (await client.create(MediaProperties='{"identity": "new"}')).status == 201
        assert (await client.create(MediaProperties='{"identity": "new"}')).code == 50433
        assert (await client.create(MediaProperties="[]")).status == 201
        assert (await client.create(MediaProperties="[]")).status == 201
        await client.call("POST", f"{client.url()}/{first}", data={"Status": "closed"})
        assert (await client.create()).status == 201


@pytest.mark.parametrize("credentials", [("AC1", "wrong"), ("AC2", "secret")])
async def test_wrong_credentials_are_refused(credentials: tuple[str, str]) -> None:
    """A user or password that is not known gets 401 with 20003, and nothing is made."""
    emulator = Emulator(credentials={"AC1": "secret", "SK1": "other"})
    async with serving(emulator, credentials=credentials) as client:
        reply = await client.create()
    assert (reply.status, reply.code) == (401, 20003)
    assert (emulator.participants, emulator.stats.unauthorized, emulator.stats.accepted) == ([], 1, 0)


@pytest.mark.parametrize("credentials", [("AC1", "secret"), ("SK1", "other")])
async def test_every_configured_user_is_let_in(credentials: tuple[str, str]) -> None:
    """An account and a key may both be known."""
    emulator = Emulator(credentials={"AC1": "secret", "SK1": "other"})
    async with serving(emulator, credentials=credentials) as client:
        assert (await client.create()).status == 201


async def test_a_request_without_credentials_is_refused_even_when_any_will_do() -> None:
    """Without configured credentials any pair is good, but none is not."""
    async with serving(Emulator()) as client:
        assert (await client.call("GET", "/emulator/stats")).status == 200
        del client.session.headers["Authorization"]
        assert (await client.create()).code == 20003


@pytest.mark.parametrize(
    ("shape", "body", "content_type"),
    [
        (
            ErrorShape.CLASSIC,
            {
                "code": 20404,
                "message": "The requested resource was not found",
                "more_info": "https://www.twilio.com/docs/errors/20404",
                "status": 404,
            },
            "application/json",
        ),
        (
            ErrorShape.PROBLEM,
            {
                "type": "https://www.twilio.com/docs/errors/20404",
                "title": "The requested resource was not found",
                "status": 404,
                "code": 20404,
                "detail": "The requested resource was not found",
            },
            "application/problem+json",
        ),
        (
            ErrorShape.ERRORS,
            {"errors": [{"code": 20404, "message": "The requested resource was not found"}]},
            "application/json",
        ),
    ],
)
async def test_errors_have_three_shapes(shape: ErrorShape, body: object, content_type: str) -> None:
    """An error is told in the shape that is set."""
    async with serving(Emulator(Behaviour(error_shape=shape))) as client:
        reply = await client.create("UO1")
    assert (reply.json, reply.headers["Content-Type"]) == (body, content_type)


@pytest.mark.parametrize(("method", "tail"), [("DELETE", "/UT1"), ("GET", "/UT1"), ("PUT", ""), ("DELETE", "")])
async def test_there_are_no_other_calls(method: str, tail: str) -> None:
    """Deleting, and getting one participant, are no calls of the API."""
    async with serving(Emulator()) as client:
        reply = await client.call(method, client.url() + tail)
        assert (reply.status, reply.code) == (405, 20004)
        assert (await client.call("POST", f"/v1/Interactions/{KD}/Channels/{UO}")).code == 20004
        assert (await client.call("GET", "/v1/Interactions")).code == 20404


async def test_a_call_can_be_refused_for_good() -> None:
    """A refusal set in the behaviour meets every call of its kind."""
    emulator = Emulator(Behaviour(refusals={Call.CREATE: Answer(status=403, code=20403)}))
    async with serving(emulator) as client:
        assert [(await client.create()).code, (await client.create()).code] == [20403, 20403]
        assert (await client.page()).status == 200
    assert [request.code for request in emulator.requests] == [20403, 20403]
    assert emulator.participants == []
