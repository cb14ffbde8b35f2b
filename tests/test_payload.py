import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.samples_of import sid
from tests.test_filter import LOOKUPS, Ids
from worker.config import FieldMapping
from worker.errors import ConfigError, LedgerRefusedError
from worker.ledger.binding import Binding, Keys, compare
from worker.model import Misfit, Problem, Record, Row
from worker.payload import CANONICAL_VERSION, Mapper, ready

KD, UO = sid("KD", 1), sid("UO", 1)
PLAIN = {"interaction_sid": KD, "channel_sid": UO, "type": "customer"}
GOOD = {**PLAIN, "media_properties": '{"address": "ada@example.org"}'}

MAPS = {"kind": {"Boss": "supervisor", "Client": "customer"}, "word": {"yes": "ja", "*": "?"}}

MISSING = "is missing"
SID_KD = "must be KD and 32 hexadecimal digits"
SID_UO = "must be UO and 32 hexadecimal digits"
KINDS = "must be agent, customer, supervisor, external or unknown"
OBJECT = "must be a JSON object"
NAMELESS = "is not JSON: Expecting property name enclosed in double quotes"
TOO_BIG = "has a number that JSON cannot hold"
HALF = "is not valid Unicode: it has half of a surrogate pair"


def mapped(values: dict[str, Any], mapping: FieldMapping | None = None, key: str = "") -> Row | Misfit:
    """Return what becomes of a record of these values."""
    made = Mapper(mapping, key, maps=MAPS).map(Record(2, "the record\n", values), 7)
    return made if isinstance(made, Misfit) else ready(made)


def row_of(values: dict[str, Any], mapping: FieldMapping | None = None, key: str = "") -> Row:
    """Return the row of a record that is sound."""
    made = mapped(values, mapping, key)
    assert isinstance(made, Row), made
    return made


def reason_of(values: dict[str, Any], mapping: FieldMapping | None = None) -> str:
    """Return why a record is rejected."""
    made = mapped(values, mapping)
    assert isinstance(made, Misfit), made
    assert made.problem.code == "invalid"
    return made.problem.reason


def form_of(row: Row) -> dict[str, str]:
    """Return a row's form, as a strict server reads it."""
    return dict(parse_qsl(row.body.decode("ascii"), keep_blank_values=True, strict_parsing=True))


def media_of(values: dict[str, Any], mapping: FieldMapping | None = None) -> Any:
    """Return the media properties that a record is sent with."""
    return json.loads(form_of(row_of(values, mapping))["MediaProperties"])


# ---- the rules ------------------------------------------------------------------------------------------------------


def test_a_sound_record_becomes_a_row() -> None:
    """The form has the texts as they were given; the row knows where it comes from."""
    row = row_of({**GOOD, "routing_properties": '{"task_sid": "WT1"}'})
    assert form_of(row) == {
        "Type": "customer",
        "MediaProperties": '{"address": "ada@example.org"}',
        "RoutingProperties": '{"task_sid": "WT1"}',
    }
    assert (row.source, row.line, row.text) == (7, 2, "the record\n")
    assert (row.interaction_sid, row.channel_sid, row.type) == (KD, UO, "customer")
    assert row.key == row.fingerprint.hex()


@pytest.mark.parametrize("kind", ["agent", "customer", "supervisor", "external", "unknown"])
def test_the_api_s_five_types_are_taken(kind: str) -> None:
    """No more and no less than the API documents."""
    assert row_of({**GOOD, "type": kind}).type == kind


@pytest.mark.parametrize(
    "empty", [{}, {"routing_properties": ""}, {"routing_properties": None}, {"routing_properties": " "}]
)
def test_routing_is_optional(empty: dict[str, Any]) -> None:
    """A blank cell is no routing, and leaves no trace in the form or the key."""
    row = row_of({**GOOD, **empty})
    assert "RoutingProperties" not in form_of(row)
    assert row.key == row_of(GOOD).key


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("interaction_sid", "KD123", SID_KD),
        ("interaction_sid", UO, SID_KD),
        ("interaction_sid", KD + "0", SID_KD),
        ("interaction_sid", KD[:-1] + "g", SID_KD),
        ("interaction_sid", KD.lower(), SID_KD),
        ("interaction_sid", KD[:-1] + "٣", SID_KD),
        ("interaction_sid", 5, SID_KD),
        ("interaction_sid", "\ud800", SID_KD),
        ("interaction_sid", "", MISSING),
        ("interaction_sid", None, MISSING),
        ("interaction_sid", "  ", MISSING),
        ("channel_sid", KD, SID_UO),
        ("channel_sid", "", MISSING),
        ("channel_sid", [UO], SID_UO),
        ("type", "Customer", KINDS),
        ("type", "email", KINDS),
        ("type", True, KINDS),
        ("type", {}, KINDS),
        ("type", "", MISSING),
        ("media_properties", "", MISSING),
        ("media_properties", " ", MISSING),
        ("media_properties", None, MISSING),
        ("media_properties", "{", NAMELESS),
        ("media_properties", "ada@example.org", "is not JSON: Expecting value"),
        ("media_properties", "{} {}", "is not JSON: Extra data"),
        ("media_properties", "[]", OBJECT),
        ("media_properties", '"text"', OBJECT),
        ("media_properties", "null", OBJECT),
        ("media_properties", [1], OBJECT),
        ("media_properties", 0, OBJECT),
        ("media_properties", False, OBJECT),
        ("media_properties", '{"a":1,"a":2}', "has the same key twice"),
        ("media_properties", '{"b":{"a":1,"a":1}}', "has the same key twice"),
        ("media_properties", '{"a":NaN}', "is not JSON: NaN is not a JSON value"),
        ("media_properties", '{"a":-Infinity}', "is not JSON: -Infinity is not a JSON value"),
        ("media_properties", '{"a":1e999}', TOO_BIG),
        ("media_properties", '{"a":' + "9" * 5000 + "}", TOO_BIG),
        ("media_properties", {"a": float("inf")}, TOO_BIG),
        ("media_properties", {"a": float("nan")}, TOO_BIG),
        ("media_properties", '{"a":"\ud800"}', HALF),
        ("media_properties", '{"a":"\\ud800"}', HALF),
        ("media_properties", {"a": "\udfff"}, HALF),
        ("media_properties", '{"a":' * 100_000, "is nested too deeply"),
        ("media_properties", '{"a":' * 101 + "1" + "}" * 101, "is nested too deeply"),
        ("media_properties", '{"a":' + "[" * 100 + "]" * 100 + "}", "is nested too deeply"),
        ("routing_properties", "[1]", OBJECT),
        ("routing_properties", "WT1", "is not JSON: Expecting value"),
        ("colour", "red", "is no field of a participant"),
        ("interaction_sid.x", "red", "is no field of a participant"),
    ],
)
def test_a_field_that_breaks_a_rule_is_named_with_the_rule(field: str, value: object, reason: str) -> None:
    """One field at a time; the sentence is stable, since groups are made of it."""
    assert reason_of({**GOOD, field: value}) == f"{field}: {reason}"


def test_where_a_text_stops_being_json_is_told_beside_the_reason() -> None:
    """Groups are made of reasons: the place is each record's own."""
    made = mapped({**GOOD, "media_properties": '{"a": x}', "routing_properties": "x"})
    assert isinstance(made, Misfit)
    assert made.problem.detail == "at character 7; at character 1"


def test_all_errors_of_a_record_come_at_once() -> None:
    """A row is repaired once, not five times."""
    everything_wrong = {
        "interaction_sid": "x",
        "type": "x",
        "media_properties": "x",
        "routing_properties": "[]",
        "no": 1,
    }
    assert set(reason_of(everything_wrong).split("; ")) == {
        f"interaction_sid: {SID_KD}",
        f"channel_sid: {MISSING}",
        f"type: {KINDS}",
        "media_properties: is not JSON: Expecting value",
        "routing_properties: must be a JSON object",
        "no: is no field of a participant",
    }


@pytest.mark.parametrize("field", ["interaction_sid", "channel_sid", "type", "media_properties", "routing_properties"])
@pytest.mark.parametrize(
    "personal",
    [
        "Ada Lovelace ada@example.org",
        '{"name": "Ada Lovelace", "address": ada@example.org}',
        '{"Ada Lovelace": 1, "Ada Lovelace": "ada@example.org"}',
        '{"ada@example.org": 1e999, "name": "Lovelace"}',
        '["Ada Lovelace", "ada@example.org"]',
        '{"Lovelace": "ada@example.org \\ud800"}',
    ],
)
def test_a_reason_never_has_a_value(field: str, personal: str) -> None:
    """Whatever is wrong with it, nobody's name or address comes out."""
    made = mapped({**GOOD, field: personal})
    assert isinstance(made, Misfit)
    assert not {"ada", "Ada", "Lovelace", "example.org", "@"} & set(made.problem.reason.replace('"', " ").split())
    assert "ada@" not in made.problem.reason
    assert "Lovelace" not in made.problem.reason


def test_json_that_is_too_deep_to_be_written_is_a_misfit() -> None:
    """Depth never stops a run: in a field, in a key."""
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    assert reason_of({**PLAIN, "media_properties": deep}) == "media_properties: is nested too deeply"
    in_key = mapped({**GOOD, "id": deep}, key="{id}")
    assert isinstance(in_key, Misfit)
    assert in_key.problem == Problem("invalid", "a field is nested too deeply")
    while deep:  # by hand: Python's own way to free it is recursive
        deep = deep.pop("a")


@pytest.mark.parametrize("problem", [Problem("malformed", "has 3 fields, the header has 4"), None])
def test_a_record_that_could_not_be_read_stays_what_it_is(problem: Problem | None) -> None:
    """The decoder's problem is kept, and the record's own text for repair."""
    made = Mapper(None).map(Record(9, "torn\n", None, problem), 7)
    assert made == Misfit(None, 7, 9, problem or Problem("malformed", "unreadable"), "torn\n")


# ---- mapping --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"media_properties": '{"address": "a@b", "deep": {"x": "1"}}'},
        {"media_properties": {"deep": {"x": "1"}, "address": "a@b"}},
        {"media_properties.address": "a@b", "media_properties.deep.x": "1"},
        {"media_properties.deep.x": "1", "media_properties.address": "a@b", "media_properties.empty": ""},
        {"media_properties.deep": {"x": "1"}, "media_properties.address": "a@b", "media_properties.no": None},
        {"media_properties": "", "media_properties.deep.x": "1", "media_properties.address": "a@b"},
    ],
)
def test_without_a_mapping_json_text_nested_and_dotted_columns_are_the_same(values: dict[str, Any]) -> None:
    """Three ways to write one request give one key; empty cells leave no key behind."""
    assert media_of({**PLAIN, **values}) == {"address": "a@b", "deep": {"x": "1"}}
    assert (
        row_of({**PLAIN, **values}).key
        == row_of({**PLAIN, "media_properties": {"address": "a@b", "deep": {"x": "1"}}}).key
    )


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"media_properties.a": "x", "media_properties.a.b": "y"}, 'has a value at "a" and one below it'),
        ({"media_properties.a.b": "y", "media_properties.a": "x"}, 'has a value at "a" and one below it'),
        ({"media_properties.a": {"c": 1}, "media_properties.a.b": "y"}, 'has a value at "a" and one below it'),
        ({"media_properties": {"z": 1}, "media_properties.a": "x"}, 'is given whole and as "media_properties.…"'),
        ({"media_properties.a": ""}, MISSING),
    ],
)
def test_columns_that_contradict_each_other_are_never_dropped_in_silence(values: dict[str, Any], reason: str) -> None:
    """Whatever order they stand in, the record is rejected instead of half sent."""
    assert reason_of({**PLAIN, **values}) == f"media_properties: {reason}"


def test_an_explicit_mapping_makes_fields_of_any_columns() -> None:
    """Keys whose columns are empty are left out, numbers stay numbers, other columns are ignored."""
    mapping = FieldMapping(
        interaction_sid="{Conv}",
        channel_sid="UO{Hex}",
        type="customer",
        media_properties={"address": "{mail}", "name": "{first} {last}", "level": "to", "tries": "{n}", "cc": "{cc}"},
    )
    values = {"Conv": f" {KD} ", "Hex": UO[2:], "mail": "a@b", "first": "Ada", "last": "King", "n": 3, "cc": "", "x": 1}
    row = row_of(values, mapping)
    assert (row.interaction_sid, row.channel_sid) == (KD, UO)
    assert media_of(values, mapping) == {"address": "a@b", "name": "Ada King", "level": "to", "tries": 3}
    assert (
        reason_of({**values, "Conv": "", "Hex": ""}, mapping) == "interaction_sid: is missing; channel_sid: is missing"
    )


@pytest.mark.parametrize("document", ['{"a": [1, null]}', {"a": [1, None]}])
def test_a_lone_column_can_be_a_whole_json_field(document: object) -> None:
    """As text or nested."""
    mapping = FieldMapping(media_properties="{props}", routing_properties={"task_sid": "{task}"})
    row = row_of({**PLAIN, "props": document, "task": ""}, mapping)
    assert json.loads(form_of(row)["MediaProperties"]) == {"a": [1, None]}
    assert "RoutingProperties" not in form_of(row)


def test_fields_that_a_mapping_does_not_name_keep_their_own_columns() -> None:
    """An explicit mapping for one field leaves the other four as they were."""
    assert row_of({**GOOD, "Kind": "agent", "type": "x"}, FieldMapping(type="{Kind}")).type == "agent"


def test_what_shapes_a_request_is_described_for_the_ledger() -> None:
    """Key path → template, so that a changed mapping can be named."""
    mapping = FieldMapping(type="a{{b}}{ c }", media_properties={"x": "{y} z"}, routing_properties="{r}")
    assert Mapper(mapping, "{ID}").describe() == {
        "mapping.type": "a{{b}}{c}",
        "mapping.media_properties.x": "{y} z",
        "mapping.routing_properties": "{r}",
    }
    assert Mapper(None, "{ID}").describe() == {}


def test_filters_shape_every_field_and_parts_of_which_nothing_comes_are_left_out() -> None:
    """In whole fields and in the parts of a table."""
    mapping = FieldMapping(
        interaction_sid="{KD | trim}",
        type="{Kind | trim | map:kind}",
        media_properties={
            "address": "{tel | digits | whatsapp}",
            "name": "{name | split:-:2}",
            "cc": "{cc | whatsapp}",
        },
        routing_properties='{route | default:"{}"}',
    )
    values = {**PLAIN, "KD": f" {KD}", "Kind": "Boss ", "tel": "+49 (30) 1", "name": "Ada", "cc": "", "route": None}
    row = row_of(values, mapping)
    assert (row.interaction_sid, row.type) == (KD, "supervisor")
    assert media_of(values, mapping) == {"address": "whatsapp:+49301"}
    assert form_of(row)["RoutingProperties"] == "{}"


def test_values_that_no_map_knows_are_errors_of_their_fields() -> None:
    """All of them at once, each with its field and column, and none of them told."""
    mapping = FieldMapping(
        type="{Kind | map:kind}", media_properties={"a": "{A | map:kind}", "b": "{B | map:word}", "c": "{C | map:kind}"}
    )
    values = {**PLAIN, "channel_sid": "x", "Kind": "Ada Lovelace", "A": "Ada", "B": "Ada", "C": "ada@example.org"}
    unknown = "has a value that map.kind does not know (known: Boss, Client)"
    assert reason_of(values, mapping).split("; ") == [
        f"channel_sid: {SID_UO}",
        f'type: column "Kind" {unknown}',
        f'media_properties.a: column "A" {unknown}',
        f'media_properties.c: column "C" {unknown}',
    ]


def described(mapping: FieldMapping | None, maps: dict[str, dict[str, str]], key: str = "") -> dict[str, str]:
    """Return what a ledger would be bound to."""
    mapper = Mapper(mapping, key, maps=maps)
    keys = {"": Keys(mapper.key_template, mapper.describe())}
    return Binding("this machine", None, CANONICAL_VERSION, keys).fields()


def test_filters_and_the_maps_in_use_are_described_for_the_ledger() -> None:
    """Others than those in use are nobody's business."""
    mapping = FieldMapping(type="{Kind|map:kind}", media_properties={"x": '{y} {z | split:":":1}'})
    assert Mapper(mapping, "{ID | map:word}", maps=MAPS).describe() == {
        "mapping.type": "{Kind | map:kind}",
        "mapping.media_properties.x": '{y} {z | split:":":1}',
        "map.kind": '{"Boss": "supervisor", "Client": "customer"}',
    }


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("", r"the mapping changed, and source\.key is empty \(changed: map\.kind\)"),
        ("{ID | map:kind}", r'source\.key changed from "{ID \| map:kind} with {.*Boss.*}" to '),
    ],
)
def test_another_content_of_a_map_that_makes_keys_is_refused(key: str, says: str) -> None:
    """As another mapping is, or another key template: rows would get other keys and be sent again."""
    mapping = FieldMapping(type="{Kind | map:kind}")
    other = {**MAPS, "kind": {"Boss": "agent", "Client": "customer"}}
    flags = {"accept_target": False, "accept_new_keys": False}
    before = described(mapping, MAPS, key)
    assert compare(before, described(mapping, {**MAPS, "word": {}}, key), 5, **flags) == {}
    with pytest.raises(LedgerRefusedError, match=says):
        compare(before, described(mapping, other, key), 5, **flags)


def test_a_map_that_makes_no_keys_may_change() -> None:
    """Under a key template without it the keys stay what they are."""
    mapping = FieldMapping(type="{Kind | map:kind}")
    assert described(mapping, MAPS, "{ID}") == described(mapping, {"kind": {}}, "{ID}")
    assert described(mapping, MAPS, "{ID | trim}")["key_template"] == "{ID | trim}"


def test_what_is_asked_of_lookups_is_known_before_they_are_read() -> None:
    """Each column once, with a template that asks for it; of what is described their keys are a part."""
    mapping = FieldMapping(channel_sid="{a | lookup:ids.uo}", media_properties={"x": "{b | lookup:ids.uo}{c | trim}"})
    mapper = Mapper(mapping, "{a | lookup:ids.case}", lookups=LOOKUPS | {"other": LOOKUPS["ids"]})
    assert mapper.asked() == {"ids": {"case": "source.key", "uo": "mapping.channel_sid"}}
    assert mapper.key_template == '{a | lookup:ids.case} with {"lookup.ids": "{\\"key\\": \\"id\\"}"}'
    assert mapper.describe() == {
        "mapping.channel_sid": "{a | lookup:ids.uo}",
        "mapping.media_properties.x": "{b | lookup:ids.uo}{c | trim}",
        "lookup.ids": '{"key": "id"}',
    }
    assert Mapper(None, "{a}", lookups=LOOKUPS).asked() == {}


def test_parts_that_a_lookup_refuses_are_refused_together() -> None:
    """What a column's value breaks in several fields is said once, and its places, too."""
    mapping = FieldMapping(
        interaction_sid=KD,
        channel_sid="{a | lookup:ids.uo}",
        type="customer",
        media_properties={"x": "{a | lookup:ids.kd}", "z": "{b | lookup:ids.uo}"},
    )
    made = Mapper(mapping, lookups=LOOKUPS).map(Record(2, "x\n", {"a": "2", "b": "9"}), 1)
    assert isinstance(made, Misfit)
    twice, absent = "has twice, with different values", "does not have"
    assert made.problem.reason.split("; ") == [
        f'channel_sid and media_properties.x: column "a" has a value that lookup.ids {twice}',
        f'media_properties.z: column "b" has a value that lookup.ids {absent}',
    ]
    assert made.problem.detail == "ids.csv:3 and ids.csv:4"


def test_a_lookup_that_changed_makes_other_marks() -> None:
    """What it answers is a part of the request; one that no template asks is not."""

    class Others(Ids):
        digest = b"other"

    def mark(lookups: Mapping[str, Ids], channel: str = "{a | lookup:ids.uo}") -> int:
        return Mapper(FieldMapping(channel_sid=channel), lookups=lookups).mark("1\n")

    assert mark(LOOKUPS) == mark({"ids": Ids()})
    assert mark(LOOKUPS) != mark({"ids": Others()})
    assert mark(LOOKUPS, "{a}") == mark({"ids": Others()}, "{a}")


def test_a_key_that_a_lookup_refuses_is_no_key() -> None:
    """The places stand beside the reason, as for a field."""
    made = Mapper(None, "{a | lookup:ids.kd}", lookups=LOOKUPS).map(Record(2, "x\n", {**GOOD, "a": "2"}), 1)
    assert isinstance(made, Misfit)
    assert made.key is None
    assert made.problem.reason.startswith('source.key: column "a" has a value that lookup.ids has twice')
    assert made.problem.detail == "ids.csv:3 and ids.csv:4"


@pytest.mark.parametrize(
    ("mapping", "key", "says"),
    [
        (FieldMapping(type="{x | lowr}"), "", 'mapping.type: there is no filter "lowr"'),
        (FieldMapping(media_properties={"a": "{x | map:y}"}), "", 'mapping.media_properties.a: there is no map "y"'),
        (None, "{ID | split:-}", "source.key: filter split has 1 argument"),
        (FieldMapping(media_properties="{a | trim}{b}"), "", "mapping.media_properties: JSON cannot be put"),
        (FieldMapping(type="{"), "", "mapping.type: lone {"),
        (FieldMapping(media_properties={"address": "x}"}), "", "mapping.media_properties.address: lone }"),
        (None, "{", "source.key: lone {"),
        (None, "agent", "source.key: reads no column"),
        (FieldMapping(media_properties='{{"address": "{email}"}}'), "", "mapping.media_properties: JSON cannot be put"),
        (FieldMapping(routing_properties="{a}{b}"), "", "mapping.routing_properties: JSON cannot be put"),
    ],
)
def test_a_template_that_is_wrong_stops_before_the_first_row(mapping: FieldMapping | None, key: str, says: str) -> None:
    """A ConfigError with the key path."""
    with pytest.raises(ConfigError, match=f"^{says}"):
        Mapper(mapping, key)


# ---- keys -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "values", "key"),
    [
        ("agent:{ID}", {"ID": "7"}, "agent:7"),
        ("agent:{ID}", {"ID": 7}, "agent:7"),
        (" {site} {ID}", {"site": " x ", "ID": "7\t"}, " x 7"),
        ("{ID}-{site}-{ID}", {"site": "x", "ID": " "}, None),
        ("agent:{ID}", {"ID": ""}, None),
        ("agent:{ID}", {}, None),
        ("{site}{ID}", {"site": "", "ID": None}, None),
        ("{ID | lower}-{ID | split:-:1}", {"ID": " A-7 "}, "a-7-A"),
        ("{ID | split:-:2}", {"ID": "A- 7"}, "7"),
        ("{ID | split:-:3}{site}", {"ID": "A-7", "site": "x"}, None),
        ("{site | default:x}{ID}", {"site": " ", "ID": "7"}, "x7"),
        ("{ID | map:word}", {"ID": "yes "}, "ja"),
    ],
)
def test_a_key_template_names_the_row(template: str, values: dict[str, Any], key: str | None) -> None:
    """Its columns are no strangers to a default mapping; one of them empty, the record has no key and is rejected."""
    made = mapped({**GOOD, **values}, key=template)
    if key is None:
        assert isinstance(made, Misfit)
        assert (made.key, made.problem.code) == (None, "key_empty")
        assert made.problem.reason.startswith("source.key: ")
        assert made.problem.reason.endswith("ID empty")
    else:
        assert isinstance(made, Row)
        assert (made.key, made.fingerprint) == (key, row_of(GOOD).fingerprint)


def test_a_key_is_as_long_as_every_index_takes() -> None:
    """Counted in bytes, not in characters."""
    assert isinstance(mapped({**GOOD, "ID": "é" * 1_000}, key="{ID}"), Row)
    made = mapped({**GOOD, "ID": "é" * 1_000 + "x"}, key="{ID}")
    assert isinstance(made, Misfit)
    assert (made.key, made.problem.code) == (None, "key_unfit")


def test_a_key_s_empty_columns_are_named_once() -> None:
    """However often the key reads them."""
    made = mapped({**GOOD, "ID": " ", "site": ""}, key="{ID}-{site}-{ID}")
    assert isinstance(made, Misfit)
    assert made.problem == Problem("key_empty", "source.key: ID and site empty")


def test_what_is_wrong_with_the_key_and_with_fields_comes_at_once() -> None:
    """And still under the key's own code."""
    made = mapped({**GOOD, "ID": "", "type": "x", "media_properties": '{"address": "4.41E+11"}'}, key="{ID}")
    assert isinstance(made, Misfit)
    code, reason, detail = made.problem
    assert (code, [part.partition(":")[0] for part in reason.split("; ")]) == (
        "key_empty",
        ["source.key", "type", "media_properties.address"],
    )
    assert detail == 'media_properties.address is "4.***11"'


def test_a_key_s_value_that_no_map_knows_is_an_error_of_the_row() -> None:
    """It has no key then."""
    made = mapped({**GOOD, "ID": "Ada Lovelace"}, key="{ID | map:kind}")
    assert isinstance(made, Misfit)
    reason = 'source.key: column "ID" has a value that map.kind does not know (known: Boss, Client)'
    assert (made.key, made.problem) == (None, Problem("invalid", reason, 'source.key is "Ada***"'))


def test_a_misfit_keeps_its_key() -> None:
    """So that its repaired row is known to be the same."""
    made = mapped({**GOOD, "ID": "7", "type": "x"}, key="agent:{ID}")
    assert isinstance(made, Misfit)
    assert made.key == "agent:7"


def test_the_digest_is_pinned() -> None:
    """Keys in ledgers outlive versions: another digest needs another CANONICAL_VERSION, and a migration."""
    values = {
        "interaction_sid": "KD" + "0123456789abcdef" * 2,
        "channel_sid": "UO" + "ABCDEF0123456789" * 2,
        "type": "customer",
        "media_properties": '{"name": "Zoë 🦊", "n": [1, 2.50, null, true], "address": "a@b"}',
        "routing_properties": {"task_sid": None},
    }
    assert (CANONICAL_VERSION, row_of(values).key) == (1, "0f2ba5c53e81c0772265a960102dd88c")


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8
)
OBJECTS = st.dictionaries(TEXTS, JSON, max_size=4)
SPACES = st.text(" \t\r\n", max_size=2)


def shuffled(value: Any, data: st.DataObject) -> Any:
    """Return the same JSON with the keys of every object in another order."""
    if isinstance(value, dict):
        return {name: shuffled(value[name], data) for name in data.draw(st.permutations(list(value)))}
    return [shuffled(inner, data) for inner in value] if isinstance(value, list) else value


@given(media=OBJECTS, routing=OBJECTS, ascii_only=st.booleans(), spaces=st.tuples(SPACES, SPACES))
def test_any_json_text_goes_over_the_wire_as_it_was_given(
    media: dict[str, Any], routing: dict[str, Any], *, ascii_only: bool, spaces: tuple[str, str]
) -> None:
    """A strict reader of the form gets exactly the texts of the record, without the space around them."""
    before, after = spaces
    texts = [json.dumps(document, ensure_ascii=ascii_only) for document in (media, routing)]
    row = row_of(
        {**PLAIN, "media_properties": f"{before}{texts[0]}{after}", "routing_properties": f"{texts[1]}{after}"}
    )
    assert form_of(row) == {"Type": "customer", "MediaProperties": texts[0], "RoutingProperties": texts[1]}


@given(media=OBJECTS)
def test_nested_json_goes_over_the_wire_with_its_meaning(media: dict[str, Any]) -> None:
    """NDJSON has no text of its own for a nested object; an empty one is an object too."""
    assert media_of({**PLAIN, "media_properties": media}) == media


@given(data=st.data(), media=OBJECTS, indent=st.none() | st.integers(0, 3), ascii_only=st.booleans())
def test_the_key_does_not_depend_on_how_a_request_is_written(
    data: st.DataObject, media: dict[str, Any], indent: int | None, *, ascii_only: bool
) -> None:
    """Neither the order of keys or columns, nor white space, nor escapes, nor nesting make another row of it."""
    text = json.dumps(shuffled(media, data), indent=indent, ensure_ascii=ascii_only)
    values = {**PLAIN, "media_properties": text, "routing_properties": '{"task_sid":"WT1"}'}
    reordered = {name: values[name] for name in data.draw(st.permutations(list(values)))}
    plain = {**PLAIN, "media_properties": media, "routing_properties": {"task_sid": "WT1"}}
    assert row_of(reordered).key == row_of(plain).key


REQUESTS = st.fixed_dictionaries(
    {
        "interaction_sid": st.sampled_from([KD, sid("KD", 2)]),
        "channel_sid": st.sampled_from([UO, sid("UO", 2), "UO" + KD[2:]]),
        "type": st.sampled_from(["agent", "customer"]),
        "media_properties": OBJECTS,
    },
    optional={"routing_properties": OBJECTS},
)


@given(one=REQUESTS, other=REQUESTS)
def test_the_key_differs_when_any_field_differs(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Two requests have one key exactly when they are the same request."""
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (row_of(one).key == row_of(other).key) is same


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("interaction_sid", sid("KD", 2)),
        ("channel_sid", sid("UO", 2)),
        ("type", "agent"),
        ("media_properties", "{}"),
        ("routing_properties", "{}"),
    ],
)
def test_each_field_is_part_of_the_key(field: str, value: str) -> None:
    """Empty routing is not the same request as none."""
    assert row_of({**GOOD, field: value}).key != row_of(GOOD).key


# ---- columns --------------------------------------------------------------------------------------------------------

OWN = ["interaction_sid", "channel_sid", "type", "media_properties"]


@pytest.mark.parametrize(
    ("columns", "mapping", "key"),
    [
        (OWN, None, ""),
        ([*OWN, "routing_properties"], None, ""),
        ([*OWN[:3], "media_properties.address", "routing_properties.task_sid"], None, ""),
        ([*OWN, "ID"], None, "{ID}"),
        ([*OWN, "other"], FieldMapping(), ""),
        ([*OWN[:3], "mail", "other"], FieldMapping(media_properties={"address": "{mail}"}), ""),
        ([*OWN, "a|b", "c"], FieldMapping(type='{"a|b" | trim}{c}'), "{c | trim}"),
        (["a"], FieldMapping(interaction_sid="{a}", channel_sid="x", type="x", media_properties="{a}"), "{a}"),
    ],
)
def test_a_header_that_has_what_is_read_is_taken(columns: list[str], mapping: FieldMapping | None, key: str) -> None:
    """With an explicit mapping other columns are nobody's business."""
    Mapper(mapping, key).check_columns(columns, "a.csv:1")


@pytest.mark.parametrize(
    ("columns", "mapping", "key", "says"),
    [
        (["interactionsid", *OWN[1:]], None, "", 'no column "interaction_sid" (did you mean "interactionsid"?)'),
        ([*OWN[:2], "x", "media_properties"], None, "", 'no column "type" (columns: interaction_sid, channel_sid, x'),
        (OWN[:3], None, "", 'no column "media_properties"'),
        (OWN[:3], FieldMapping(type="x"), "", 'no column "media_properties"'),
        ([*OWN, "routing_propertys"], None, "", 'is no field of a participant (did you mean "routing_properties"?)'),
        ([*OWN, "colour"], None, "", 'column "colour" is no field of a participant (columns: interaction_sid,'),
        ([*OWN, "media_properties.a"], None, "", '"media_properties" and "media_properties.…" cannot both be'),
        (
            [*OWN, "Email"],
            FieldMapping(media_properties={"to": "{email}"}),
            "",
            "which mapping.media_properties.to reads",
        ),
        ([*OWN, "Kind"], FieldMapping(type="{Kin}"), "", 'which mapping.type reads (did you mean "Kind"?)'),
        ([*OWN, "Kind"], FieldMapping(type="{Kin | lower}"), "", 'which mapping.type reads (did you mean "Kind"?)'),
        ([*OWN, "IDs"], None, "{ID | trim}", 'no column "ID", which source.key reads (did you mean "IDs"?)'),
        ([*OWN, "IDs"], None, "{ID}", 'no column "ID", which source.key reads (did you mean "IDs"?)'),
    ],
)
def test_a_header_that_lacks_what_is_read_stops_with_a_hint(
    columns: list[str], mapping: FieldMapping | None, key: str, says: str
) -> None:
    """Before the first row: where, which column, who reads it, and what was probably meant."""
    with pytest.raises(ConfigError) as caught:
        Mapper(mapping, key).check_columns(columns, "a.csv:1")
    assert str(caught.value).startswith("a.csv:1: ")
    assert says in str(caught.value)
