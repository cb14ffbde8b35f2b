import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.commands import flex_import
from tests.samples_of import sid
from worker.cli.previewing import Preview, indented, written
from worker.emulator import Emulator, serve
from worker.model import Draft, Record
from worker.payload import Mapper, ready

CONFIG = """
[source]
key = "{ID}"
[mapping]
interaction_sid = "{KD}"
channel_sid = "{UO}"
type = "{Kind | map:kind}"
media_properties = { address = "{mail}", name = "{name}" }
routing_properties = { task_sid = "{task}" }
[map.kind]
Boss = "supervisor"
"""
TASK = sid("WT", 1)
PATH = f"/v1/Interactions/{sid('KD', 1)}/Channels/{sid('UO', 1)}/Participants"
SHOWN = f"""\
a.csv:2  7
  POST {PATH}
  Type: supervisor
  MediaProperties: {{
    "address": "a+b&c=d@x",
    "name": "Zoë \\"Z\\""
  }}
  RoutingProperties: {{
    "task_sid": "{TASK}"
  }}

a.csv:4  9
  POST {PATH}
  Type: supervisor
  MediaProperties: {{
    "address": "é@x"
  }}

"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a config and an input of four rows, the second of which has a value that no map knows."""
    rows = [f'7,Boss,a+b&c=d@x,"Zoë ""Z""",{TASK}', "8,Ada,x@x,,", "9,Boss,é@x,,", "10,Boss,y@x,,"]
    lines = [f"{sid('KD', 1)},{sid('UO', 1)},{row}\n" for row in rows]
    (tmp_path / "config.toml").write_text(CONFIG)
    (tmp_path / "a.csv").write_text("KD,UO,ID,Kind,mail,name,task\n" + "".join(lines))
    return tmp_path


async def test_what_would_be_sent_is_shown_before_the_summary(folder: Path) -> None:
    """The first so many of the rows to send, with their places, their keys and every field."""
    ended = await flex_import("check", "a.csv", "--show", "2", cwd=folder)
    assert (ended.code, ended.err) == (1, "")
    shown, summary = ended.out[: len(SHOWN)], ended.out[len(SHOWN) :]
    assert shown == SHOWN
    assert re.match(r"4 rows in 1 file, read in [0-9.]+ s\. No network used, nothing sent\.\n", summary)


async def test_as_json_the_rows_are_a_part_of_the_object(folder: Path) -> None:
    """The fields are the texts that are sent; more are asked for than there are."""
    ended = await flex_import("check", "a.csv", "--show", "9", "--json", cwd=folder)
    found = json.loads(ended.out)
    assert [row["line"] for row in found["show"]] == [2, 4, 5]
    assert found["show"][0] == {
        "source": "a.csv",
        "line": 2,
        "key": "7",
        "method": "POST",
        "path": PATH,
        "form": {
            "Type": "supervisor",
            "MediaProperties": '{"address":"a+b&c=d@x","name":"Zoë \\"Z\\""}',
            "RoutingProperties": f'{{"task_sid":"{TASK}"}}',
        },
    }
    assert "show" not in json.loads((await flex_import("check", "a.csv", "--json", cwd=folder)).out)


async def test_what_is_shown_is_what_is_sent(folder: Path) -> None:
    """A run sends the same requests; the first rows are those of the first input."""
    (folder / "b.csv").write_text((folder / "a.csv").read_text().replace(",7,Boss", ",77,Boss"))
    names = ("a.csv", "b.csv")
    few, all_of_them = [
        json.loads((await flex_import("check", *names, "--show", number, "--json", cwd=folder)).out)["show"]
        for number in ("3", "9")
    ]
    emulator = Emulator()
    async with serve(emulator) as base_url:
        ended = await flex_import("run", *names, "--base-url", base_url, "--rate", "inf", cwd=folder)
    assert ended.code == 1, ended.err
    assert [(row["source"], row["line"]) for row in all_of_them] == [("a.csv", n) for n in (2, 4, 5)] + [("b.csv", 2)]
    assert few == all_of_them[:3]
    assert [row["form"]["Type"] for row in all_of_them] == [made.type for made in emulator.participants]
    sent = [json.loads(row["form"]["MediaProperties"]) for row in all_of_them]
    assert sent == [made.media_properties for made in emulator.participants]
    places = [f"/v1/Interactions/{made.interaction_sid}/Channels/{made.channel_sid}" for made in emulator.participants]
    assert [row["path"] for row in all_of_them] == [f"{place}/Participants" for place in places]


async def test_values_are_shown_to_those_only_who_ask(folder: Path) -> None:
    """Quiet keeps back the summary, not what was asked for; the help says that values come."""
    (folder / "a.csv").write_text("".join((folder / "a.csv").read_text().splitlines(keepends=True)[:2]))
    silent = await flex_import("check", "a.csv", "-q", cwd=folder)
    quiet = await flex_import("check", "a.csv", "-q", "--show", "1", cwd=folder)
    assert (silent.out, quiet.out) == ("", SHOWN.partition("\n\n")[0] + "\n")
    assert "@x" not in (await flex_import("check", "a.csv", cwd=folder)).out
    helped = (await flex_import("check", "--help", cwd=folder)).out
    assert "with their values" in " ".join(helped.replace("│", " ").split())


@pytest.mark.parametrize("number", ["0", "-1"])
async def test_a_number_of_rows_is_at_least_one(folder: Path, number: str) -> None:
    """None is what is shown without the option."""
    ended = await flex_import("check", "a.csv", f"--show={number}", cwd=folder)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"error: --show: {number} is no number of rows to show; it must be at least 1\n")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("{}", "{}"),
        ('{"a":[]}', '{\n  "a": []\n}'),
        ('{"a":{},"b":[{}]}', '{\n  "a": {},\n  "b": [\n    {}\n  ]\n}'),
        (' { "a" : 1.50 , "b" : [ -1E5,true ] } ', '{\n  "a": 1.50,\n  "b": [\n    -1E5,\n    true\n  ]\n}'),
        ('{"{\\"":"},:[\\u00e9\\\\"}', '{\n  "{\\"": "},:[\\u00e9\\\\"\n}'),
    ],
)
def test_json_is_put_on_lines_and_otherwise_left_as_it_is(text: str, lines: str) -> None:
    """Numbers and escapes are those that are sent."""
    assert indented(text) == lines


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8
)


@given(st.dictionaries(TEXTS, JSON), st.booleans(), st.none() | st.integers(0, 3))
def test_any_json_looks_as_json_does(document: dict[str, object], ascii_only: bool, indent: int | None) -> None:
    """However it was written."""
    text = json.dumps(document, ensure_ascii=ascii_only, indent=indent)
    assert indented(text) == json.dumps(document, ensure_ascii=ascii_only, indent=2)


def test_depth_and_line_ends_in_a_key_do_no_harm() -> None:
    """What can be sent can be shown, and data never looks like lines of ours."""
    deep = '{"a":' * 100 + "1" + "}" * 100
    values = {"interaction_sid": sid("KD", 1), "channel_sid": sid("UO", 1), "type": "agent", "media_properties": deep}
    draft = Mapper(None, "{ID}").map(Record(2, "", values | {"ID": "7\n  POST /evil"}), 1)
    assert isinstance(draft, Draft)
    lines = written([Preview("a.csv", ready(draft))]).splitlines()
    assert lines[:2] == ["a.csv:2  7\\n  POST /evil", f"  POST {PATH}"]
    assert len(lines) == 3 + 101 + 100 + 1
