import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_filter import LOOKUPS
from worker.errors import ConfigError
from worker.template import as_text, parse

RECORD = {"first": "Ada", "last": "King", "empty": "", "null": None, "number": 7, "yes": True, "list": [1, "é"]} | {
    "a|b": "pipe",
    "{x}": "braces",
    'say "hi"': "quote",
    " x ": "spaces",
    'in"ches': "3",
    "ns:name": "colon",
}


@pytest.mark.parametrize(
    ("template", "text", "columns"),
    [
        ("", "", ()),
        ("customer", "customer", ()),
        ("{first}", "Ada", ("first",)),
        ("{ first }", "Ada", ("first",)),
        ("{first} {last}", "Ada King", ("first", "last")),
        ("agent:{number}", "agent:7", ("number",)),
        ("{{{first}}}", "{Ada}", ("first",)),
        ("{{first}}", "{first}", ()),
        ("}}{{", "}{", ()),
        ("{first}\n{last}", "Ada\nKing", ("first", "last")),
        ("{first}{first}", "AdaAda", ("first", "first")),
        ("{yes}{list}", 'true[1,"é"]', ("yes", "list")),
        ("{first}{empty}", "Ada", ("first", "empty")),
        ("x{empty}", None, ("empty",)),
        ("x{null}{absent}", None, ("null", "absent")),
        ('{"first"}', "Ada", ("first",)),
        ('{ "a|b" }', "pipe", ("a|b",)),
        ('{"a|b" | upper}', "PIPE", ("a|b",)),
        ('{"{x}"}{"say ""hi"""}', "bracesquote", ("{x}", 'say "hi"')),
        ('{" x "}', "spaces", (" x ",)),
        ('{in"ches} {in"ches}', "3 3", ('in"ches', 'in"ches')),
        ("{ns:name}", "colon", ("ns:name",)),
        ("{first|upper}{first}", "ADAAda", ("first", "first")),
        ("{first | upper | lower} {last}", "ada King", ("first", "last")),
        ("{first\n|\nupper}", "ADA", ("first",)),
        ("{{{first | upper}}}", "{ADA}", ("first",)),
        ("x{empty | upper}{absent}", None, ("empty", "absent")),
        ("{number | prefix:no}", "no7", ("number",)),
    ],
)
def test_a_template_renders_constants_and_columns(template: str, text: str | None, columns: tuple[str, ...]) -> None:
    """Nothing comes of it when it reads columns and all are empty; a constant is always there."""
    parsed = parse(template, "mapping.type")
    assert (parsed.render(RECORD), parsed.columns) == (text, columns)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{", "lone { at character 1; write {{ for itself"),
        ("a}", "lone } at character 2; write }} for itself"),
        ("{{a}", "lone } at character 4; write }} for itself"),
        ("{first}{last", "lone { at character 8; write {{ for itself"),
        ("{a{b}}", "lone { at character 1; write {{ for itself"),
        ("x{}", "empty {} at character 2; name a column inside"),
        ("x{ }", "empty {} at character 2; name a column inside"),
    ],
)
def test_a_template_that_cannot_be_parsed_says_where(template: str, says: str) -> None:
    """The key path, the place, and what to write instead."""
    with pytest.raises(ConfigError) as caught:
        parse(template, "mapping.type")
    assert str(caught.value) == f"mapping.type: {says}"


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{list}", [1, "é"]),
        ("{number}", 7),
        ("{yes}", True),
        ("{first}", "Ada"),
        ("{empty}", None),
        ("{null}", None),
        ("{absent}", None),
        ("to", "to"),
        ("{number} ", "7 "),
        ("{empty}{null}", None),
        ("{number | trim}", "7"),
        ("{list | trim}", '[1,"é"]'),
        ("{empty | trim}", None),
        ("{absent | default:x}", "x"),
        ('{"number"}', 7),
    ],
)
def test_a_lone_column_keeps_its_own_json_value(template: str, value: object) -> None:
    """A number stays a number; in company, or behind a filter, it becomes text."""
    assert parse(template, "mapping.type").value(RECORD) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [("é", "é"), (None, ""), (True, "true"), (1.5, "1.5"), ({"a": [None]}, '{"a":[null]}'), ("", "")],
)
def test_a_value_as_text_is_json_unless_it_is_text(value: object, text: str) -> None:
    """JSON without spaces, and nothing for null."""
    assert as_text(value) == text


NAMES = st.text(st.characters(exclude_characters="{}|", exclude_categories=["Cs"]), min_size=1).map(str.strip)
CONSTANTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
PIECES = st.lists(
    CONSTANTS.map(lambda text: (text, None))
    | st.tuples(CONSTANTS, NAMES.filter(lambda name: name[:1] not in {"", '"'})),
    max_size=8,
)


@given(PIECES)
def test_any_template_renders_to_its_pieces_one_after_the_other(pieces: list[tuple[str, str | None]]) -> None:
    """Constants of any characters, braces doubled, and columns of any name give their concatenation."""
    values = {name: text for text, name in pieces if name is not None}
    template = "".join(
        text.replace("{", "{{").replace("}", "}}") if name is None else f"{{{name}}}" for text, name in pieces
    )
    expected = "".join(text if name is None else values[name] for text, name in pieces)
    assert parse(template, "source.key").render(values) == expected


NESTED = {
    "who": {"name": "Ada", "mails": [{"at": "a@example.com"}, {"at": "b@example.com"}], "level": 3, "no": None},
    "who.name": "a column of this very name",
    "list": ["x", "y"],
}


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{who.level}", 3),
        ("{who.level | trim}", "3"),
        ("{who.mails.1.at}", "b@example.com"),
        ("<{who.mails.0.at}>", "<a@example.com>"),
        ("{who.name}", "a column of this very name"),
        ("{who.mails}", [{"at": "a@example.com"}, {"at": "b@example.com"}]),
        ("{list.1}", "y"),
        ("{list.2}", None),
        ("{list.-1}", None),
        ("{list.99999999999999999999}", None),
        ("{list.x}", None),
        ("{list.0.x}", None),
        ("{who.no.x}", None),
        ("{who.nobody}", None),
        ("{nobody.x}", None),
        ("{who..name}", None),
    ],
)
def test_dots_lead_into_nested_values(template: str, value: object) -> None:
    """Where there is no column of the whole name; a number is a place in a list, from 0."""
    parsed = parse(template, "mapping.type")
    assert parsed.value(NESTED) == value
    assert parsed.fill(NESTED) == (("", list(parsed.columns)) if value is None else (parsed.render(NESTED), []))


@pytest.mark.parametrize(
    ("template", "source"),
    [
        ("a{{b}}{ c }", "a{{b}}{c}"),
        ("{first} {last}", "{first} {last}"),
        ('{in"ches}', '{in"ches}'),
        ("{ns:name}", "{ns:name}"),
        ('{"first"}', "{first}"),
        ('{"a|b"}{" x "}', '{"a|b"}{" x "}'),
        ('{"""a"}', '{"""a"}'),
        ("{a|trim|default:x}{b}", "{a | trim | default:x}{b}"),
        ('{a | default:"x" | prefix:a b}', '{a | default:x | prefix:"a b"}'),
        ('{a | split:" ":1} {{', '{a | split:" ":1} {{'),
        ('{a | lookup:ids."uo"}', "{a | lookup:ids.uo}"),
        ('{a | lookup:ids."u o"}', '{a | lookup:"ids.u o"}'),
        ("{a | lookup:ids.u o}", '{a | lookup:"ids.u o"}'),
    ],
)
def test_a_template_is_written_in_one_way(template: str, source: str) -> None:
    """What means the same is the same for a ledger; what has no filters is written as it ever was."""
    assert parse(template, "mapping.type", lookups=LOOKUPS).source == source


@given(st.text(alphabet='{}ab |:"'))
def test_any_text_is_a_template_or_a_config_error(text: str) -> None:
    """Nothing else comes out of the parser, and what it takes loses nothing."""
    try:
        parsed = parse(text, "source.key")
    except ConfigError as error:
        assert str(error).startswith("source.key: ")  # noqa: PT017 - either is right, for different texts
    else:
        constants = [piece if isinstance(piece, str) else "{}" for piece in parsed.pieces]
        written = "".join(piece * 2 if piece in {"{", "}"} else piece for piece in constants)
        assert len(written) + sum(len(column) for column in parsed.columns) <= len(text)
        assert parse(parsed.source, "source.key") == parsed
