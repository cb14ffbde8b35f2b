import re
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.commands import ROOT
from worker.errors import ConfigError
from worker.filter import EXCEL_NUMBER, USAGES, Ambiguous, UnknownValueError
from worker.template import parse

MAPS = {
    "kind": {"Agent": "agent", "Client": "customer"},
    "level": {"1": "to", "*": "cc"},
    "blank": {"-": "", "": "none"},
    "nothing": {},
    "many": {f"v{number}": "x" for number in range(13)},
}


class Ids:
    """A lookup in memory: it has the key 1, and twice the key 2."""

    key = "id"
    digest = b"as ever"

    def find(self, value: str, column: str) -> str | Ambiguous | None:
        """Return the column's name in capitals."""
        known: dict[str, str | Ambiguous] = {"1": column.upper(), "2": Ambiguous("ids.csv:3 and ids.csv:4"), "3": ""}
        return known.get(value)


LOOKUPS = {"ids": Ids()}
INPUT_PAGE = (ROOT / "docs" / "input.md").read_text()


def rendered(filters: str, value: object) -> str | None:
    """Return what becomes of a column's value on its way through filters."""
    return parse(f"{{a | {filters}}}", "mapping.type", maps=MAPS, lookups=LOOKUPS).render({"a": value})


@pytest.mark.parametrize(
    ("filters", "value", "text"),
    [
        ("trim", " Ada \t", "Ada"),
        ("trim", "  ", None),
        ("lower", "ADA Ünal", "ada ünal"),
        ("upper", "ada ß", "ADA SS"),
        ("lower", True, "true"),
        ("default:none", "", "none"),
        ("default:none", None, "none"),
        ("default:none", " ", " "),
        ("trim | default:none", " ", "none"),
        ("default:none", "x", "x"),
        ('default:"} | a: ""b"" {"', "", '} | a: "b" {'),
        ('default:""', "", None),
        ("default:not known", "", "not known"),
        ('default:" x "', "", " x "),
        ("default: x ", "", "x"),
        ("prefix:to-", "x", "to-x"),
        ("prefix:to-", "", None),
        ('prefix:"sms:"', 7, "sms:7"),
        ("whatsapp", "+4930", "whatsapp:+4930"),
        ("whatsapp", "whatsapp:+4930", "whatsapp:+4930"),
        ("whatsapp", "", None),
        ("whatsapp", None, None),
        ("map:kind", "Agent", "agent"),
        ("map:kind", "", None),
        ("map:kind | upper", "Client", "CUSTOMER"),
        ("map:level", "1", "to"),
        ("map:level", 1, "to"),
        ("map:level", "2", "cc"),
        ("map:level", "*", "cc"),
        ("map:level", "", None),
        ("map:blank", "-", None),
        ("map:blank", "", "none"),
        ("split:-:1", "a-b-c", "a"),
        ("split:-:2", "a-b-c", "b"),
        ("split:-:3", "a-b-c", "c"),
        ("split:-:4", "a-b-c", None),
        ("split:-:2", "a--c", None),
        ("split:-:1", "", None),
        ('split:" : ":2', "a : b", "b"),
        ('split:"|":2', "a|b", "b"),
        ('split:"""":2', 'a"b', "b"),
        ("digits", "+49 (0)30-1", "+490301"),
        ("digits", " +49", "+49"),
        ("digits", "tel:+49", "+49"),
        ("digits", "49+1", "491"),
        ("digits", "030 / 12", "03012"),
        ("digits", "+٤٩ \uff130", "+4930"),
        ("digits", "+", None),
        ("digits", "none", None),
        ("digits | whatsapp", "+49 30", "whatsapp:+4930"),
        ("lookup:ids.uo", "1", "UO"),
        ("lookup:ids.uo", 1, "UO"),
        ("lookup:ids.uo", " 1 ", "UO"),
        ("lookup:ids.uo", "", None),
        ("lookup:ids.uo", " ", None),
        ("lookup:ids.uo", "3", None),
        ("lookup:ids.uo | lower", "1", "uo"),
        ("lookup:ids.channel sid", "1", "CHANNEL SID"),
        ('lookup:ids."channel sid"', "1", "CHANNEL SID"),
        ("lookup:ids.a.b", "1", "A.B"),
        ('lookup:"ids.a|b: {c}"', "1", "A|B: {C}"),
        ('lookup:ids."say ""hi"""', "1", 'SAY "HI"'),
        ('lookup:ids."', "1", '"'),
        ('split:"@":1 | upper | prefix:u-', "ada@example.org", "u-ADA"),
    ],
)
def test_a_filter_makes_another_text_of_a_value(filters: str, value: object, text: str | None) -> None:
    """In their order; where nothing comes out, the column counts as empty."""
    assert rendered(filters, value) == text


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("kind", "Agent, Client"),
        ("nothing", "none"),
        ("many", "v0, v1, v2, v3, v4, v5, v6, v7, v8, v9 and 3 more"),
        ("blank", "-"),
    ],
)
def test_a_value_that_is_in_no_map_is_refused_without_being_told(name: str, known: str) -> None:
    """The column and the known values are named; the value could be anybody's."""
    with pytest.raises(UnknownValueError) as caught:
        rendered(f"map:{name}", "Ada Lovelace")
    assert str(caught.value) == f'column "a" has a value that map.{name} does not know (known: {known})'


@pytest.mark.parametrize(
    ("value", "says", "where"),
    [
        ("4", "does not have", None),
        ("2", "has twice, with different values", "ids.csv:3 and ids.csv:4"),
    ],
)
def test_a_value_that_a_lookup_does_not_tell_is_refused_in_one_sentence(
    value: str, says: str, where: str | None
) -> None:
    """The same for all such rows; what is this row's own stands beside it."""
    with pytest.raises(UnknownValueError) as caught:
        rendered("lookup:ids.uo", value)
    assert str(caught.value) == f'column "a" has a value that lookup.ids {says}'
    assert (caught.value.value, caught.value.where) == (value, where)


@pytest.mark.parametrize("filters", ["digits", "e164:GB", "digits | prefix:+"])
@pytest.mark.parametrize("text", ["4.41E+11", " +4,41e+11 "])
def test_no_phone_number_is_made_of_what_a_spreadsheet_left(filters: str, text: str) -> None:
    """Its digits would be those of somebody else."""
    with pytest.raises(UnknownValueError) as caught:
        rendered(filters, text)
    assert str(caught.value) == f'column "a" {EXCEL_NUMBER}'


ALL = "filters: trim, lower, upper, default, prefix, whatsapp, map, split, digits, e164, lookup"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{a | lowr}", 'there is no filter "lowr" (did you mean "lower"?)'),
        (
            "{a|b}",
            f'there is no filter "b" ({ALL}; a column with | in its name is written in quotes: {{"a|b"}})',
        ),
        ("{a | trim:x}", "filter trim has 1 argument; it is written trim"),
        ("{a | default}", "filter default has no arguments; it is written default:TEXT"),
        ("{a | default:x:y}", "filter default has 2 arguments; it is written default:TEXT"),
        ("{a | split:,}", "filter split has 1 argument; it is written split:SEP:N"),
        ("{a | split:,:0}", 'filter split counts parts from 1; "0" is no number of a part'),
        ("{a | split:,:-1}", 'filter split counts parts from 1; "-1" is no number of a part'),
        ("{a | split:,:x}", 'filter split counts parts from 1; "x" is no number of a part'),
        ("{a | split:,:٢}", 'filter split counts parts from 1; "٢" is no number of a part'),
        (
            "{a | split:,:" + "9" * 5000 + "}",
            f'filter split counts parts from 1; "{"9" * 5000}" is no number of a part',
        ),
        ('{a | split:"":1}', "filter split has an empty separator; it is written split:SEP:N"),
        ("{a | map}", "filter map has no arguments; it is written map:NAME"),
        ("{a | map:kinds}", 'there is no map "kinds" (did you mean "kind"?)'),
        ("{a | map:x}", 'there is no map "x" (maps: kind, level, blank, nothing, many; it is a section [map.x])'),
        ("{a | lookup:id.uo}", 'there is no lookup "id" (did you mean "ids"?)'),
        ("{a | lookup:x.uo}", 'there is no lookup "x" (lookups: ids; it is a section [lookup.x])'),
        ("{a | lookup:ids}", 'filter lookup is written lookup:NAME.COLUMN; "ids" names no column'),
        ('{a | lookup:ids.""}', 'filter lookup is written lookup:NAME.COLUMN; "ids.""" names no column'),
        ("{a | lookup:ids:uo}", "filter lookup has 2 arguments; it is written lookup:NAME.COLUMN"),
        ("{a | default:}", '"a | default:": an argument is empty; write "" for an empty one'),
        ("{a | split::1}", '"a | split::1": an argument is empty; write "" for an empty one'),
        ("{a | }", '"a |": | without a filter'),
        ("{a || trim}", '"a || trim": | without a filter'),
        ("{ | trim}", "empty {} at character 1; name a column inside"),
        ('{""}', "empty {} at character 1; name a column inside"),
        ("{a | trim", "lone { at character 1; write {{ for itself"),
    ],
)
def test_a_filter_that_is_not_written_right_is_named_with_a_hint(template: str, says: str) -> None:
    """Before the first row, with the key path and what would be right."""
    with pytest.raises(ConfigError) as caught:
        parse(template, "mapping.type", maps=MAPS, lookups=LOOKUPS)
    assert str(caught.value) == f"mapping.type: {says}"


def test_without_any_map_it_is_said_how_one_is_made() -> None:
    """There is nothing to be hinted at."""
    with pytest.raises(ConfigError, match=r'no map "kind" \(maps: none; it is a section \[map\.kind\]\)$'):
        parse("{a | map:kind}", "mapping.type")


@pytest.mark.parametrize(
    ("template", "place"),
    [('{"a}', 2), ('x{"a"b}', 6), ('{a | default:"x}', 14), ('{"a":x}', 5), ('{a | default:"x"y"}', 17), ('{"a""}', 2)],
)
def test_quotes_that_do_not_fit_are_placed(template: str, place: int) -> None:
    """One that is never closed, and text behind a closed one."""
    with pytest.raises(ConfigError) as caught:
        parse(template, "source.key")
    assert str(caught.value).startswith(f"source.key: the quotes do not fit at character {place}; ")


@pytest.mark.parametrize("usage", USAGES)
def test_every_filter_is_documented(usage: str) -> None:
    """In the table, as it is written."""
    assert f"| `{usage}` |" in INPUT_PAGE


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
ALONE = st.sampled_from(["trim", "lower", "upper", "whatsapp", "digits"])
WORDS = ALONE | st.sampled_from(["e164:GB", "map:kind", "map:level", "map:blank"])
ARGUED = st.tuples(st.sampled_from(["default", "prefix"]), TEXTS).map(lambda pair: f"{pair[0]}:{in_quotes(pair[1])}")
PARTED = st.tuples(TEXTS.filter(bool), st.integers(1, 9)).map(lambda pair: f"split:{in_quotes(pair[0])}:{pair[1]}")
ASKING = TEXTS.filter(lambda text: text not in {"", '""'}).map(lambda text: f"lookup:{in_quotes('ids.' + text)}")
CHAINS = st.lists(WORDS | ARGUED | PARTED | ASKING, min_size=1, max_size=4).map(" | ".join)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = SCALARS | st.lists(SCALARS, max_size=2)


def in_quotes(text: str) -> str:
    """Return a name or an argument as a template may always have it."""
    return '"' + text.replace('"', '""') + '"'


@given(filters=CHAINS, values=st.dictionaries(st.sampled_from("ab"), VALUES))
def test_any_value_comes_through_any_filters_or_is_unknown_to_one(filters: str, values: Mapping[str, object]) -> None:
    """No value stops a run: it becomes text, or nothing, or its row's error."""
    template = parse(f"{{a | {filters}}}-{{b}}", "source.key", maps=MAPS, lookups=LOOKUPS)
    for made in (template.render, template.value, template.fill):
        try:
            found = made(values)
        except UnknownValueError as error:
            assert re.match('column "a" (has a value that|is an Excel number)', str(error))  # noqa: PT017 - either is right
        else:
            assert found is None or isinstance(found, str | tuple)


@given(pieces=st.lists(TEXTS | st.tuples(TEXTS.filter(bool), CHAINS | st.none()), max_size=4))
def test_a_template_is_written_as_it_can_be_read_again(pieces: list[str | tuple[str, str | None]]) -> None:
    """Parsed, written and parsed again it is the same, whatever its columns and its arguments hold."""
    text = ""
    for piece in pieces:
        if isinstance(piece, str):
            text += piece.replace("{", "{{").replace("}", "}}")
        else:
            column, filters = piece
            text += "{" + in_quotes(column) + (f"|{filters}" if filters else "") + "}"
    once = parse(text, "mapping.type", maps=MAPS, lookups=LOOKUPS)
    again = parse(once.source, "mapping.type", maps=MAPS, lookups=LOOKUPS)
    assert (again, again.source) == (once, once.source)
    assert once.columns == tuple(piece[0] for piece in pieces if isinstance(piece, tuple))
