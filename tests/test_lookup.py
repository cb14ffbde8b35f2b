import gzip
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.commands import flex_import
from tests.samples_of import sid
from worker.config import Lookup
from worker.emulator import Emulator, serve
from worker.errors import ConfigError, SourceError
from worker.filter import Ambiguous
from worker.lookup import Lookups, Table

ASKED = {"kd": "mapping.interaction_sid", "uo": "mapping.channel_sid"}


@contextmanager
def opened(
    content: str | bytes | None, *, file: str = "ids.csv", asked: Mapping[str, str] = ASKED, **settings: Any
) -> Iterator[Table]:
    """Load a lookup from a file of this content, which is not made without one."""
    path = Path(file)
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    table = Table("ids", Lookup.model_validate({"file": file, "key": "id", **settings}), path.absolute(), file)
    with Lookups({"ids": table}) as lookups:
        lookups.load({"ids": asked})
        yield table


def refusal_of(content: str | bytes | None, **changes: Any) -> str:
    """Return why a lookup in a file of this content cannot be loaded."""
    with pytest.raises((ConfigError, SourceError)) as caught, opened(content, **changes):
        pass
    return str(caught.value)


# ---- what is found --------------------------------------------------------------------------------------------------

RECORDS = """\
id,kd,note,uo
1,KD1,a,UO1
2,KD2,a,
3,KD3,a,UO3
3,KD3,b,UO3
 4\t,KD4,a,UO4
,KD5,a,UO5

4,KD4,a,other
4,KD6,a,UO6
"6
7",KD7,a,UO7
One,KD8,a,UO8
"""
TWICE = Ambiguous("ids.csv:6 and ids.csv:9")


@pytest.mark.parametrize(
    ("value", "kd", "uo"),
    [
        ("1", "KD1", "UO1"),
        ("2", "KD2", ""),
        ("3", "KD3", "UO3"),
        ("4", TWICE, TWICE),
        ("6\n7", "KD7", "UO7"),
        ("One", "KD8", "UO8"),
        ("", None, None),
        ("one", None, None),
        ("01", None, None),
        ("KD1", None, None),
    ],
)
def test_a_value_finds_the_record_that_has_it_as_its_key(
    value: str, kd: str | Ambiguous | None, uo: str | Ambiguous | None
) -> None:
    """The same twice is one record, with other values it is none of them, and an empty key is no key."""
    with opened(RECORDS) as ids:
        assert (ids.find(value, "kd"), ids.find(value, "uo"), ids.find(value, "kd")) == (kd, uo, kd)


def test_columns_that_no_template_asks_for_make_no_difference() -> None:
    """Of an interaction with two channels the interaction is known."""
    with opened("id,kd,uo\n1,KD1,UO1\n1,KD1,UO2\n", asked={"kd": "source.key"}) as ids:
        assert ids.find("1", "kd") == "KD1"


@pytest.mark.parametrize(
    ("content", "settings"),
    [
        ("id;kd;uo\n1;Zoë;UO1\n", {}),
        ("id kd uo\n1 Zoë UO1\n", {"delimiter": " "}),
        ("\ufeffid,kd,uo\n1,Zoë,UO1\n", {}),
        ("id,kd,uo\n1,Zoë,UO1\n".encode("cp1252"), {"encoding": "cp1252"}),
        ("id,kd,uo\n1,Zoë,UO1\n".encode("utf-16"), {"encoding": "utf-16"}),
        (gzip.compress("id,kd,uo\n1,Zoë,UO1\n".encode(), mtime=0), {"file": "ids.csv.gz"}),
        ('{"id": 1, "kd": "Zoë", "uo": "UO1"}\n{"id": 2, "more": []}\n', {"file": "ids.jsonl"}),
        ('{"id": "1", "uo": "UO1", "kd": "Zoë"}\n', {"format": "ndjson"}),
    ],
)
def test_a_lookup_is_read_as_an_input_is(content: str | bytes, settings: Mapping[str, Any]) -> None:
    """With the keys of [source] that say how."""
    with opened(content, **settings) as ids:
        assert [ids.find("1", column) for column in ASKED] == ["Zoë", "UO1"]


def test_json_values_are_found_as_text() -> None:
    """As templates read them from an input; what a record lacks is empty."""
    lines = [{"id": 7, "kd": {"a": [1, "é"]}, "uo": None}, {"id": True, "kd": 1.5}, {"kd": "no key", "uo": "x"}]
    with opened("\n".join(map(json.dumps, lines)), file="ids.ndjson") as ids:
        assert [ids.find("7", column) for column in ASKED] == ['{"a":[1,"é"]}', ""]
        assert [ids.find("true", column) for column in ASKED] == ["1.5", ""]
        assert ids.find("", "kd") is None


KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=3).map(str.strip).filter(bool)


@given(records=st.lists(st.tuples(KEYS, st.sampled_from("ab"))), value=KEYS)
def test_any_file_gives_what_a_table_in_memory_would(records: list[tuple[str, str]], value: str) -> None:
    """However many records there are, with whatever keys."""
    lines = [json.dumps({"id": key, "kd": kd}) for key, kd in [("", "-"), *records]]
    first: dict[str, int] = {}
    for number, (key, kd) in enumerate(records, 2):
        if key == value:
            first.setdefault(kd, number)
    expected: str | Ambiguous | None = next(iter(first), None)
    if len(first) > 1:
        expected = Ambiguous(" and ".join(f"ids.ndjson:{number}" for number in first.values()))
    with opened("\n".join(lines), file="ids.ndjson", asked={"kd": "source.key"}) as ids:
        assert ids.find(value, "kd") == expected


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "settings", "says"),
    [
        (
            "ID,kd,uo\n1,a,b\n",
            {},
            'ids.csv:1: there is no column "id", which lookup.ids.key reads (columns: ID, kd, uo)',
        ),
        (
            "id,KDs,kd,channel\n1,a,b,c\n",
            {},
            'ids.csv:1: there is no column "uo", which mapping.channel_sid reads (columns: id, KDs, kd, channel)',
        ),
        (
            "\n\nid,kd,interaction\n1,a,b\n",
            {"asked": {"interactions": "source.key"}},
            'ids.csv:3: there is no column "interactions", which source.key reads (did you mean "interaction"?)',
        ),
        (
            '\n{"id": 1, "kd": 2, "channel": 3}\n{"id": 1}\n',
            {"file": "ids.ndjson"},
            'ids.ndjson:2: there is no column "uo", which mapping.channel_sid reads (columns: id, kd, channel)',
        ),
        ("", {}, "ids.csv: has no records, so lookup.ids would find nothing"),
        ("id,kd,uo\n", {}, "ids.csv: has no records, so lookup.ids would find nothing"),
        (
            "id,kd,uo\n1,a,b\n2,a\n",
            {},
            "ids.csv: line 3: has 2 fields, the header has 3; repair it: each record of a lookup has to be right",
        ),
        (
            '{"id": 1, "kd": 1, "uo": 1}\n[]\n',
            {"file": "ids.ndjson"},
            "ids.ndjson: line 2: is a JSON array, not an object; repair it: each record of a lookup has to be right",
        ),
        ('id,kd,uo\n1,"a,b\n', {}, "ids.csv: line 2: the record that begins here runs to the end of the file: a quote"),
        ("id,id,uo\n1,a,b\n", {}, 'ids.csv: line 1: the header has the column "id" twice, as columns 1 and 2'),
        (
            b"id,kd,uo\n1,a,Zo\xeb\n",
            {},
            "ids.csv: line 2: byte 0xeb at offset 15 (0xf) is not utf-8-sig; ",
        ),
        (gzip.compress(b"id,kd,uo\n1,a,b\n", mtime=0)[:-9], {"file": "ids.csv.gz"}, "ids.csv.gz: is cut off or dam"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_refused(content: str | bytes, settings: Mapping[str, Any], says: str) -> None:
    """Before anything is sent, with the file, the line, and what to do."""
    assert refusal_of(content, **settings).startswith(says)


def test_the_likely_encoding_is_the_lookup_s_own_key() -> None:
    """What the reader says of source.encoding would be the wrong section."""
    said = refusal_of("id,kd,uo\n1,a,Zoë\n".encode("cp1252"))
    assert 'lookup.ids.encoding = "cp1252"' in said
    assert "source.encoding" not in said


def test_a_file_that_is_no_file_is_named_with_its_key() -> None:
    """Missing, a folder, several."""
    here = Path.cwd()
    assert refusal_of(None) == f"lookup.ids.file: {here}/ids.csv: there is no such file; is the path right?"
    Path("folder").mkdir()
    assert refusal_of(None, file="folder").startswith(f"lookup.ids.file: {here}/folder: is a directory; ")
    for name in ("a.csv", "b.csv"):
        Path(name).write_text("id,kd,uo\n1,a,b\n")
    assert refusal_of(None, file="?.csv") == "lookup.ids.file: ?.csv: 2 files match; name one"


def test_a_disk_that_gives_out_is_no_bug() -> None:
    """It stops the command in a sentence."""
    with opened(RECORDS) as ids:
        ids._known.execute("DROP TABLE known")
        with pytest.raises(SourceError, match=r"^ids\.csv: could not be kept in a temporary file: .*TMPDIR"):
            ids.find("1", "kd")


# ---- as people use it -----------------------------------------------------------------------------------------------

CONFIG = """
[source]
key = "{ConvID | lookup:ids.case}"
[mapping]
interaction_sid = "{ConvID | trim | lookup:ids.KD}"
channel_sid = '{ConvID | lookup:ids."Channel SID"}'
type = "customer"
media_properties = { address = '{mail | lookup:"people.E-mail: work"}' }
[lookup.ids]
file = "more/ids.csv"
key = "id"
[lookup.people]
file = "more/people.csv"
key = "nick"
[lookup.unused]
file = "missing.csv"
key = "x"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a config, its two lookups, and an input of five rows, of which two are sound."""
    (tmp_path / "more").mkdir()
    (tmp_path / "etc.toml").write_text(CONFIG)
    ids = [f"{n},{sid('KD', n)},{sid('UO', n)},case {n}\n" for n in (1, 2, 4, 5)]
    ids.append(f"2,{sid('KD', 2)},{sid('UO', 9)},case 2\n")
    (tmp_path / "more" / "ids.csv").write_text("id,KD,Channel SID,case\n" + "".join(ids))
    (tmp_path / "more" / "people.csv").write_text("nick,E-mail: work\nada,ada@example.com\nzoe,zoe@example.com\n")
    (tmp_path / "a.csv").write_text("ConvID,mail\n1,ada\n2,zoe\n3,zoe\n4,nobody\n5,zoe\n")
    return tmp_path


async def test_sids_come_from_a_second_file(folder: Path) -> None:
    """Relative to the config file; what is not found, or not clear, rejects its row, and values are not told."""
    (folder / "work").mkdir()
    emulator = Emulator()
    async with serve(emulator) as base_url:
        words = ("run", "../a.csv", "--config", "../etc.toml", "--base-url", base_url, "--rate", "inf")
        ended = await flex_import(*words, cwd=folder / "work")
    assert ended.code == 1, ended.err
    made = {(one.interaction_sid, one.channel_sid, one.media_properties["address"]) for one in emulator.participants}
    assert made == {(sid("KD", n), sid("UO", n), mail) for n, mail in ((1, "ada@example.com"), (5, "zoe@example.com"))}
    exported = await flex_import("export", "--format", "ndjson", "--config", "../etc.toml", cwd=folder / "work")
    rows = {row["line"]: row for row in map(json.loads, exported.out.splitlines())}
    assert [rows[2]["key"], rows[6]["key"]] == ["case 1", "case 5"]
    assert 'column "ConvID" has a value that lookup.ids has twice, with different values' in rows[3]["reason"]
    assert rows[4]["reason"] == (
        'source.key, interaction_sid and channel_sid: column "ConvID" has a value that lookup.ids does not have'
    )
    assert rows[5]["reason"] == (
        'media_properties.address: column "mail" has a value that lookup.people does not have: '
        'media_properties.address is "no***"'
    )
    assert (rows[5]["key"], rows[5]["code"]) == ("case 4", "invalid")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("lookup:ids.KD", "lookup:idz.KD", 'mapping.interaction_sid: there is no lookup "idz" (did you mean "ids"?)'),
        ("lookup:ids.KD", "lookup:ids.KDs", 'ids.csv:1: there is no column "KDs", which mapping.interaction_sid reads'),
        ("lookup:ids.KD", "lookup:ids", "mapping.interaction_sid: filter lookup is written lookup:NAME.COLUMN"),
        ('key = "nick"', 'key = "nic"', 'people.csv:1: there is no column "nic", which lookup.people.key reads (did'),
        ("more/people.csv", "people.csv", "lookup.people.file: "),
        ('key = "nick"', 'keys = "nick"', "etc.toml: lookup.people.key: is missing"),
        ("lookup.unused", 'lookup."a.b"', 'etc.toml: lookup: the name "a.b" has a dot; choose another one'),
    ],
)
async def test_what_is_wrong_with_a_lookup_stops_before_anything_is_sent(
    folder: Path, old: str, new: str, says: str
) -> None:
    """With exit code 2, for checks as for runs, where the target is not even asked."""
    (folder / "etc.toml").write_text(CONFIG.replace(old, new, 1))
    for words in (("check", "a.csv"), ("run", "a.csv", "--base-url", "http://127.0.0.1:9")):
        ended = await flex_import(*words, "--config", "etc.toml", cwd=folder)
        assert (ended.code, ended.out) == (2, "")
        assert says in ended.err
        assert ended.err.endswith("exit 2, nothing was sent\n")
    assert not (folder / "imports.db").exists()
