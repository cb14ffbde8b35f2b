"""Profiles: inputs of several kinds in one run, each by its own rules."""

import json
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.commands import QUICK, Ended, flex_import
from tests.samples_of import sid
from tests.test_compression import compress
from worker.config import Profile, Settings
from worker.emulator import Emulator, serve
from worker.errors import ConfigError
from worker.ledger.view import View
from worker.rules import asked, assign
from worker.source import Input

CONFIG = """
[source]
key = "row:{id}"
[mapping]
interaction_sid = "{KD}"
channel_sid = "{UO}"
type = "customer"
[mapping.media_properties]
address = "{mail}"

[profile.agents]
files = ["agents*.csv"]
[profile.agents.source]
key = "agent:{Nummer}"
delimiter = ";"
encoding = "cp1252"
[profile.agents.mapping]
interaction_sid = "{KD}"
channel_sid = "{UO}"
type = "agent"
[profile.agents.mapping.media_properties]
identity = "{Name}"
[profile.agents.mapping.routing_properties]
worker_sid = "{Worker}"

[profile.nightly]
files = ["night/*.ndjson"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a config and one input of each kind."""
    (tmp_path / "config.toml").write_text(CONFIG)
    place = f"{sid('KD', 1)}{{0}}{sid('UO', 1)}"
    agents = f"Nummer;KD;UO;Name;Worker\n7;{place.format(';')};Zoë;{sid('WK', 1)}\n"
    (tmp_path / "agents_1.csv.gz").write_bytes(compress("gz", agents.encode("cp1252")))
    (tmp_path / "customers.csv").write_text(f"id,KD,UO,mail\n1,{place.format(',')},ada@example.com\n")
    (tmp_path / "night").mkdir()
    row = {"id": 2, "KD": sid("KD", 2), "UO": sid("UO", 2), "mail": "bob@example.com"}
    (tmp_path / "night" / "a.ndjson").write_text(json.dumps(row) + "\n")
    return tmp_path


@pytest.fixture
async def service() -> AsyncIterator[tuple[Emulator, str]]:
    """An emulated service on loopback."""
    emulator = Emulator()
    async with serve(emulator) as base_url:
        yield emulator, base_url


FILES = ("agents_1.csv.gz", "customers.csv", "night/a.ndjson")


async def run(folder: Path, base_url: str, *words: str) -> Ended:
    """Import at full speed."""
    return await flex_import("run", *words, "--base-url", base_url, "--rate", "inf", cwd=folder, env=QUICK)


def edit(folder: Path, old: str, new: str) -> None:
    """Change the config."""
    text = (folder / "config.toml").read_text()
    assert old in text
    (folder / "config.toml").write_text(text.replace(old, new, 1))


# ---- which rules hold -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("*.csv", "/in/a.csv", True),
        ("*.csv", "/in/a.csv.gz", True),
        ("*.csv.gz", "/in/a.csv", True),
        ("*.csv.gz", "/in/a.csv.ZST", True),
        ("*.csv", "/in/a.CSV", False),
        ("a?.csv", "/in/a1.csv", True),
        ("a?.csv", "/in/a12.csv", False),
        ("[ab].csv", "/in/b.csv", True),
        ("in/*.csv", "/in/a.csv", True),
        ("in/*.csv", "/main/a.csv", False),
        ("*.csv", "/a.csv/x.txt", False),
        ("a.csv", "/in/aa.csv", False),
    ],
)
def test_a_name_fits_a_pattern(pattern: str, path: str, *, fits: bool) -> None:
    """A pattern with a folder is compared with the end of the whole path; compression and its ending do not count."""
    settings = Settings(profile={"p": Profile(files=("no", pattern))})
    [(_, rules)] = assign([Input("a", Path(path))], settings, {})
    assert rules.profile == ("p" if fits else "")


def test_stdin_has_a_profile_by_its_name_only() -> None:
    """It has no name that could fit."""
    settings = Settings(profile={"p": Profile(files=("*",))})
    stdin = Input("stdin", None)
    assert [rules.profile for _, rules in assign([stdin], settings, {})] == [""]
    assert [rules.profile for _, rules in assign([stdin], settings, {}, "p")] == ["p"]


def test_inputs_of_one_profile_share_its_rules() -> None:
    """So that they are made once."""
    settings = Settings(profile={"p": Profile(files=("a*",))})
    inputs = [Input(name, Path(name)) for name in ("a1", "a2", "b")]
    (_, one), (_, two), (_, other) = assign(inputs, settings, {})
    assert one is two
    assert other is not one


def test_an_input_that_fits_two_profiles_is_refused() -> None:
    """Nobody knows which one was meant."""
    settings = Settings(profile={name: Profile(files=(f"{name}*", "*.csv")) for name in ("a", "b")})
    with pytest.raises(ConfigError) as caught:
        assign([Input("in/a1.csv", Path("in/a1.csv"))], settings, {})
    assert str(caught.value) == (
        'in/a1.csv: fits two profiles, a ("a*") and b ("*.csv"); let their files differ, or name one with --profile'
    )
    assert assign([Input("in/a1.csv", Path("in/a1.csv"))], settings, {}, "b")[0][1].profile == "b"


@pytest.mark.parametrize(
    ("known", "says"),
    [
        (("agents", "nice"), 'there is no profile "agent" (did you mean "agents"?)'),
        (("x",), 'there is no profile "agent" (profiles: x)'),
        ((), 'there is no profile "agent"; it is a section [profile.NAME]'),
    ],
)
def test_a_profile_that_there_is_not_is_refused(known: tuple[str, ...], says: str) -> None:
    """With what there is."""
    settings = Settings(profile={name: Profile(files=("*",)) for name in known})
    with pytest.raises(ConfigError, match="--profile: ") as caught:
        assign([], settings, {}, "agent")
    assert str(caught.value) == f"--profile: {says}"


def test_lookups_are_asked_for_all_that_any_rules_need() -> None:
    """A table is loaded once."""

    class Ids:
        key, digest = "id", b""

        def find(self, value: str, column: str) -> str:
            return value + column

    def profile(name: str) -> dict[str, Any]:
        return {"files": [name], "mapping": {"channel_sid": f"{{a | lookup:ids.{name}}}"}}

    settings = Settings.model_validate({"profile": {name: profile(name) for name in "ab"}})
    inputs = assign([Input(name, Path(name)) for name in "abc"], settings, {"ids": Ids()})
    assert asked(inputs) == {
        "ids": {"a": "profile.a.mapping.channel_sid", "b": "profile.b.mapping.channel_sid"},
    }


# ---- in commands ----------------------------------------------------------------------------------------------------


async def test_each_file_is_read_by_its_own_rules(folder: Path, service: tuple[Emulator, str]) -> None:
    """Encoding, delimiter, key and mapping; a profile without some of them has those of all."""
    emulator, base_url = service
    ended = await run(folder, base_url, *FILES)
    assert ended.code == 0, ended.err
    made = {(one.type, str(one.media_properties)) for one in emulator.participants}
    assert made == {
        ("agent", "{'identity': 'Zoë'}"),
        ("customer", "{'address': 'ada@example.com'}"),
        ("customer", "{'address': 'bob@example.com'}"),
    }
    with View(folder / "imports.db") as view, closing(view.export((), None)) as rows:
        assert sorted(str(row[0]) for row in rows) == ["agent:7", "row:1", "row:2"]
    again = await run(folder, base_url, *FILES)
    assert (again.code, emulator.stats.arrived) == (0, 3)


async def test_check_shows_the_profile_of_each_file(folder: Path) -> None:
    """Beside its encoding, delimiter and key."""
    ended = await flex_import("check", *FILES, cwd=folder)
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[2:5] == [
        "  agents_1.csv.gz          1  profile agents   cp1252     csv ;   gz  key agent…",
        "  customers.csv            1  profile -        utf-8-sig  csv ,       key row:{…",
        "  night/a.ndjson           1  profile nightly  utf-8-sig  ndjson      key row:{…",
    ]
    told = json.loads((await flex_import("check", *FILES, "--json", cwd=folder)).out)["files"]
    assert [(one["profile"], one["key"]) for one in told] == [
        ("agents", "agent:{Nummer}"),
        (None, "row:{id}"),
        ("nightly", "row:{id}"),
    ]


async def test_rejects_come_back_by_the_rules_of_their_input(folder: Path, service: tuple[Emulator, str]) -> None:
    """They have its name, without the ending of the compression that they do not have."""
    emulator, base_url = service
    place = f"{sid('KD', 1)};{sid('UO', 1)}"
    rows = f"Nummer;KD;UO;Name;Worker\n7;{place};Zoë\n8;{place};Ann;{sid('WK', 2)}\n"
    (folder / "agents_1.csv.gz").write_bytes(compress("gz", rows.encode("cp1252")))
    assert (await run(folder, base_url, "agents_1.csv.gz")).code == 1
    assert (await flex_import("export", "--rejects", "fix/", cwd=folder)).code == 0
    fixed = folder / "fix" / "agents_1.csv"
    fixed.write_bytes(fixed.read_bytes().replace("Zoë".encode("cp1252"), f"Zoë;{sid('WK', 1)}".encode("cp1252")))
    ended = await run(folder, base_url, "fix/*.csv")
    assert ended.code == 0, ended.err
    assert sorted(one.media_properties["identity"] for one in emulator.participants) == ["Ann", "Zoë"]


async def test_a_profile_can_be_named_for_what_fits_none(folder: Path) -> None:
    """An option for one run; the command to type next has it, too."""
    (folder / "agents_1.csv.gz").rename(folder / "other.gz")
    ended = await flex_import("check", "other.gz", "--profile", "agents", cwd=folder)
    assert ended.code == 0, ended.err
    assert ended.out.endswith("flex-import run other.gz --profile agents --new-ledger    send the 1\n")
    wrong = await flex_import("run", "other.gz", "--profile", "agent", cwd=folder, env=QUICK)
    assert (wrong.code, wrong.out) == (2, "")
    assert 'there is no profile "agent" (did you mean "agents"?)' in wrong.err


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"{Name}"', '"{Nam}"', 'agents_1.csv.gz:1: there is no column "Nam", which profile.agents.mapping.media_prop'),
        ('"{Name}"', '"{Name | lowr}"', 'profile.agents.mapping.media_properties.identity: there is no filter "lowr"'),
        ('"agent:{Nummer}"', '"agent"', "profile.agents.source.key: reads no column"),
        ('"agent:{Nummer}"', '"{Numer}"', 'there is no column "Numer", which profile.agents.source.key reads (did you'),
        ('delimiter = ";"', 'delimitr = ";"', "profile.agents.source.delimitr: unknown key (did you mean delimiter?)"),
        ('files = ["agents*.csv"]', "", "profile.agents.files: is missing"),
        ('files = ["agents*.csv"]', "files = []", "profile.agents.files: Tuple should have at least 1 item"),
        ("[profile.nightly]", '[profile."a b"]', 'profile: the name "a b" has more than letters, digits, _ and -'),
    ],
)
async def test_what_is_wrong_with_a_profile_is_named_with_its_key(folder: Path, old: str, new: str, says: str) -> None:
    """Before anything is sent."""
    edit(folder, old, new)
    ended = await flex_import("check", *FILES, cwd=folder)
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err


async def test_profiles_come_from_the_file_only(folder: Path) -> None:
    """A variable's name has no case, and their names are the user's own."""
    env = {"FLEX_IMPORT__PROFILE__AGENTS__SOURCE__KEY": "{id}"}
    ended = await flex_import("check", *FILES, cwd=folder, env=env)
    assert ended.code == 2
    assert "unknown variable: [profile.NAME] is read from the config file only" in ended.err


# ---- other rules than before ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("agent:{Nummer}", "{Nummer}", 'the key of profile agents changed from "agent:{Nummer}" to "{Nummer}": 1 cre'),
        ("row:{id}", "{id}", 'source.key changed from "row:{id}" to "{id}": 1 created rows'),
        ("night/*.ndjson", "customers.csv", None),
    ],
)
async def test_other_keys_than_before_are_refused(
    folder: Path, service: tuple[Emulator, str], old: str, new: str, says: str | None
) -> None:
    """With the rows of these rules alone; another profile with the same keys is welcome."""
    emulator, base_url = service
    assert (await run(folder, base_url, *FILES[:2])).code == 0
    edit(folder, old, new)
    ended = await run(folder, base_url, *FILES[:2])
    if says is None:
        assert (ended.code, emulator.stats.arrived) == (0, 2), ended.err
        return
    assert (ended.code, ended.out, emulator.stats.arrived) == (2, "", 2)
    assert says in ended.err
    accepted = await run(folder, base_url, *FILES[:2], "--accept-new-keys")
    assert (accepted.code, emulator.stats.arrived) == (0, 3), accepted.err
    assert (await run(folder, base_url, *FILES[:2])).code == 0, "what was accepted holds from then on"


async def test_an_input_stays_with_its_rules(folder: Path, service: tuple[Emulator, str]) -> None:
    """When its profile is gone, it is refused with the count of its rows, and what keeps them; or it is accepted."""
    emulator, base_url = service
    assert (await run(folder, base_url, FILES[0])).code == 0
    edit(folder, "agents*.csv", "x*.csv")
    edit(folder, "[source]", '[source]\ndelimiter = ";"\nencoding = "cp1252"')
    edit(folder, '"row:{id}"', '"row:{Nummer}"')
    edit(folder, '"{mail}"', '"{Name}"')
    ended = await run(folder, base_url, FILES[0])
    path = folder / FILES[0]
    assert (ended.code, ended.out, emulator.stats.arrived) == (2, "", 1)
    assert ended.err == (
        f"error: {path}: was read by the rules of profile agents, and now it would be by those of no profile:\n"
        "  1 rows of it that must not be sent again would get new keys, and be sent.\n"
        "  Read it as before (--profile agents), or accept it for rows that are new: --accept-new-keys\n"
        "exit 2, nothing was sent\n"
    )
    assert (await run(folder, base_url, FILES[0], "--profile", "agents")).code == 0
    assert emulator.stats.arrived == 1
    accepted = await run(folder, base_url, FILES[0], "--accept-new-keys")
    assert (accepted.code, emulator.stats.arrived) == (0, 2), accepted.err
    assert (await run(folder, base_url, FILES[0])).code == 0, "what was accepted holds from then on"
    back = await run(folder, base_url, FILES[0], "--profile", "agents")
    assert back.code == 2
    assert "Read it as before (let no profile's files fit its name), or" in back.err
