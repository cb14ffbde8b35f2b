"""The repo checks what the repo claims: commands, options, keys, exit codes and examples in the docs."""

import re
import shlex
import sqlite3
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App

from tests.commands import CREDENTIALS, ROOT, flex_import
from tests.samples_of import sid
from worker.cli.app import app
from worker.config import Lookup, Settings, load
from worker.emulator import Emulator, serve
from worker.ledger.schema import MIGRATIONS
from worker.model import Exit, State
from worker.payload import FIELDS

PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]}
ALL = "\n".join(PAGES.values())
HEADER = "interaction_sid,channel_sid,type,media_properties.address\n"


def commands(group: App, *before: str) -> Iterator[tuple[str, App]]:
    """Yield every command of a group, and of the groups in it, as it is typed."""
    for name in group:
        if not name.startswith("-"):
            inner = list(commands(group[name], *before, name))
            yield from inner or [(" ".join((*before, name)), group[name])]


COMMANDS = dict(commands(app))


def options() -> list[tuple[str, str]]:
    """Return (command, option) for every option there is."""
    found = []
    for command, parsed in COMMANDS.items():
        for argument in parsed.assemble_argument_collection():
            found += [(command, name) for name in argument.names if name.startswith("-")]
    return found


def examples() -> list[tuple[str, str]]:
    """Return (page, command line) for every flex-import command in an indented block."""
    pattern = re.compile(r"^    (?:\d[\d* ]*)?(flex-import [^#\n]*)", re.MULTILINE)
    return [(page, found.strip()) for page, text in PAGES.items() for found in pattern.findall(text)]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented(command: str) -> None:
    """A command that nobody can find does not exist."""
    assert f"flex-import {command}" in ALL


@pytest.mark.parametrize(("command", "option"), options())
def test_every_option_is_documented(command: str, option: str) -> None:
    """Each option stands in the docs, in code."""
    assert re.search(rf"`{option}\b", ALL), f"{option} of {command}"


def test_there_are_options_and_examples_to_check() -> None:
    """A parser that finds nothing must not pass."""
    assert {"check", "config init", "config show"} <= COMMANDS.keys()
    assert "config" not in COMMANDS
    assert len(options()) > 20
    assert ("config show", "--json") in options()
    assert len(examples()) >= 7


@pytest.mark.parametrize(("page", "line"), examples())
def test_every_example_can_be_parsed(page: str, line: str) -> None:
    """No example has a misspelt command or option."""
    words = shlex.split(line.partition(" > ")[0])[1:]
    app.parse_args(words, exit_on_error=False, print_error=False)
    assert page


@pytest.mark.parametrize("code", [f"{code:d}" for code in Exit])
def test_every_exit_code_is_documented(code: str) -> None:
    """On the README's first page and in the table."""
    assert re.search(rf"\b{code}\b", PAGES["README.md"])
    table = PAGES["docs/running.md"].partition("## Exit codes")[2]
    assert re.search(rf"^\|[^|]*\b{code}\b", table, re.MULTILINE)


@pytest.mark.parametrize("state", [state.value for state in State])
def test_every_state_is_documented(state: str) -> None:
    """With what happens to its row."""
    assert f"| `{state}` |" in PAGES["docs/running.md"]


def test_the_shipped_config_names_every_key_with_its_default() -> None:
    """config.toml loads, is what the defaults are, and explains each key."""
    text = (ROOT / "config.toml").read_text()
    assert load(ROOT / "config.toml", {}, {}).settings.model_dump() == Settings().model_dump()
    for section, field in Settings.model_fields.items():
        if section == "map":  # its keys are the user's own
            assert re.search(r'^# \[map\.\w+\].*\n# "\w+" = ', text, re.MULTILINE)
            continue
        if section == "lookup":
            assert re.search(r'^# \[lookup\.\w+\].*\n# file = ".*\n# key = "', text, re.MULTILINE)
            continue
        if section == "profile":
            assert re.search(r"^# \[profile\.\w+\].*\n# files = ", text, re.MULTILINE)
            assert re.search(r"^# \[profile\.\w+\.source\]", text, re.MULTILINE)
            assert re.search(r"^# \[profile\.\w+\.mapping\]", text, re.MULTILINE)
            continue
        keys = FIELDS[:3] if section == "mapping" else getattr(field.annotation, "model_fields")  # noqa: B009
        for key in keys:
            assert re.search(rf"^(# )?{key} = ", text, re.MULTILINE), f"{section}.{key}"


def test_the_commented_mapping_of_the_shipped_config_is_valid(tmp_path: Path) -> None:
    """Who takes the comment signs away gets a mapping."""
    lines = (ROOT / "config.toml").read_text().splitlines()
    wanted = [
        line.removeprefix("# ").partition("    #")[0]
        for line in lines
        if re.match(r"# (\[(map|lookup|profile)|(\w+|\"\S+\") = (\"[^d]|\[\"))", line)
    ]
    (tmp_path / "config.toml").write_text("\n".join(line for line in wanted if not line.startswith(("edge", "region"))))
    assert "mapping" in tomllib.loads((tmp_path / "config.toml").read_text())
    settings = load(tmp_path / "config.toml", {}, {}).settings
    mapping = settings.mapping
    assert settings.map == {"kind": {"Agent": "agent", "Client": "customer", "*": "unknown"}}
    assert settings.lookup == {"interactions": Lookup(file="interactions.csv", key="ConvID")}
    assert settings.profile["agents"].files == ("agents*.csv",)
    assert mapping is not None
    assert mapping.media_properties == {
        "address": "{email}",
        "name": "{first} {last}",
        "level": "to",
        "type": "email",
    }


def test_the_queries_of_the_ledger_page_run() -> None:
    """Each SQL example works on the schema."""
    connection = sqlite3.connect(":memory:")
    try:
        for migration in MIGRATIONS:
            connection.executescript(migration)
        block = "\n".join(line for line in PAGES["docs/ledger.md"].splitlines() if line.startswith("    "))
        queries = re.findall(r"SELECT [^;\"]+", block)
        assert len(queries) >= 5
        for query in queries:
            connection.execute(query).fetchall()
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    finally:
        connection.close()
    for table in tables - {"sqlite_sequence"}:
        assert f"| `{table}` |" in PAGES["docs/ledger.md"]


def test_every_event_of_the_log_is_documented() -> None:
    """By its name, which dashboards ask for, and no other."""
    told = re.compile(r'(?:\.(?:debug|info|warning|error|critical)|Change|log)\(\s*"([a-z]+\.[a-z]+)"')
    sources = "\n".join(path.read_text() for path in (ROOT / "worker").rglob("*.py"))
    events = {*told.findall(sources), "hours.opened"}
    table = set(re.findall(r"`([a-z]+\.[a-z]+)`", PAGES["docs/log.md"].partition("| event |")[2]))
    assert events == table - {"source.key"}
    assert len(events) > 15


def test_every_link_leads_somewhere() -> None:
    """Links to files of this repo are not broken."""
    for page, text in PAGES.items():
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert ((ROOT / page).parent / target).exists(), f"{page} → {target}"


async def test_the_first_import_of_the_readme_works_as_written(tmp_path: Path) -> None:
    """Its commands in their order, with an emulated service in Twilio's place."""
    rows = "".join(f"{sid('KD', n)},{sid('UO', n)},customer,p{n}@example.com\n" for n in range(25))
    (tmp_path / "export.csv").write_text(HEADER + rows)
    block = PAGES["README.md"].partition("## Your first import")[2].partition("\n## ")[0]
    lines = [line.partition("#")[0].strip() for line in block.splitlines() if line.startswith("    flex-import")]
    assert [line.split()[1] for line in lines] == [
        *("config", "check", "doctor", "run", "run", "status", "failures", "report", "export", "export")
    ]
    emulator = Emulator()
    ended = []
    async with serve(emulator) as base_url:
        env = {**CREDENTIALS, "FLEX_IMPORT__API__BASE_URL": base_url, "FLEX_IMPORT__LIMITS__RATE_PER_SECOND": "inf"}
        for line in lines:
            command, _, redirected = line.partition(" > ")
            if redirected:  # the shell empties the file first
                (tmp_path / redirected).touch()
            ended.append(await flex_import(*shlex.split(command)[1:], cwd=tmp_path, env=env))
            if redirected:
                (tmp_path / redirected).write_text(ended[-1].out, encoding="utf-8")
    assert [one.code for one in ended] == [0, 0, 0, 6, 0, 0, 0, 0, 0, 0], [one.err for one in ended]
    assert "[source]" in (tmp_path / "config.toml").read_text()
    assert "exit 0: ready" in ended[2].out
    assert "10 created" in ended[3].out
    assert "15 created + 10 already done" in ended[4].out
    assert "25 = the sum of the lines" in (tmp_path / "report.html").read_text()
    assert emulator.stats.arrived == 25
    assert (tmp_path / "ids.csv").read_text().count("created") == 25
