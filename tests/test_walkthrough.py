"""The docs as a reader would try them: every command block of every page is really run, in the page's order.

A page has a stage: a folder with the files that it speaks of, and a service on loopback in Twilio's place. A command
that cannot run here as it stands has its reason in a table; a new one is run without being asked.
"""

import json
import re
import shlex
import shutil
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.commands import CREDENTIALS, ROOT, Ended, finish, flex_import, start
from tests.postgres import Postgres
from tests.samples_of import sid
from tests.test_docs import PAGES
from worker.config import load
from worker.emulator import Answer, Emulator, Fault, after, before, serve

HEADER = "interaction_sid,channel_sid,type,media_properties.address,media_properties.type,media_properties.level\n"
SETTINGS = {
    **CREDENTIALS,
    "FLEX_IMPORT__LIMITS__RATE_PER_SECOND": "inf",
    "FLEX_IMPORT__LIMITS__LIST_RATE_PER_SECOND": "inf",
    "FLEX_IMPORT__DOUBT__SETTLE_SECONDS": "0.2",
}
HERE = {
    # what stands in the docs → what it is on the stage
    "/etc/flex-import.toml": "config.toml",
    "/etc/flex-import/config.toml": "config.toml",
    "'/srv/inbox/*.csv'": "'inbox/*.csv'",
    "'/inbox/*.csv'": "'inbox/*.csv'",
    "/srv/imports.db": "elsewhere.db",
    "--max-duration 2h": "--max-duration 1m",
}
NOT_RUN = {
    # command → why it cannot be run by a test
    "flex-import worker --ledger postgresql://db.internal/imports": "works until it is stopped; its own tests start it",
    "flex-import emulator --port 8080 --faults 0.05": "serves until it is stopped; tests of its own start it",
    "flex-import run agents_1.csv.gz customers.csv": "its files are made by the tests of inputs",
    "flex-import run export.csv.gz export.ndjson.zst": "likewise",
    "flex-import check agents.csv customers.csv.gz": "shows a screen of a large import",
}
EXPECTED = {
    # command → its exit codes on this stage, where not 0
    "flex-import run export.csv --limit 10 --new-ledger": {6},
    "flex-import run 'agents_*.csv' 'customers_*.ndjson' --limit 3 --new-ledger": {6},
    "flex-import run export.csv --until 06:00": {0, 6},
    "flex-import undo --run 2": {0},
    "flex-import undo --run 1": {2},
}
ALLOWED_OF_BAD_ROWS = {0, 1, 4}
"""What a page may end with whose stage has bad rows or doubts on purpose."""

COMMAND = re.compile(r"^ {4}(?: {2})?(?:\$ )?(?:\d[\d* ]*(?:set -a; \. \S+ && )?)?(flex-import [^#\n]*)", re.MULTILINE)


DATABASE = re.compile(r"postgresql://db\.internal/(\w+)")
"""A database of the docs: a schema of the test's."""


@dataclass
class Stage:
    """Where a page is tried. bad: whether its export has rows that fail. started: what a first run is given, if one is
    to be before the page begins.
    """  # noqa: D205 - one sentence

    bad: bool = False
    started: str = ""
    files: dict[str, str] = field(default_factory=dict)


def export_of(rows: int, *, bad: bool) -> str:
    """Return the export that pages speak of; a bad one has a row that cannot be sent."""
    lines = [f"{sid('KD', n)},{sid('UO', n)},customer,p{n}@example.com,email,to\n" for n in range(rows)]
    lines += [f"{sid('KD', 99)},UOx,customer,p99@example.com,email,to\n"] * bad
    return HEADER + "".join(lines)


STAGES = {
    "README.md": Stage(files={"inbox/a.csv": export_of(3, bad=False)}),
    "docs/input.md": Stage(),
    "docs/running.md": Stage(bad=True, started="export.csv"),
    "docs/ledger.md": Stage(started="export.csv"),
    "docs/limits.md": Stage(started=""),
    "docs/first-import.md": Stage(bad=True),
    "docs/doubts.md": Stage(bad=True, started="export.csv"),
    "docs/later.md": Stage(started="export.csv"),
    "docs/fleet.md": Stage(
        files={
            "inbox/a.csv": export_of(3, bad=False),
            "config.toml": '[ledger]\npath = "postgresql://db.internal/imports"\n',
        }
    ),
    "docs/postgresql.md": Stage(started="export.csv"),
    "docs/troubleshooting.md": Stage(started="export.csv"),
    "docs/migrating.md": Stage(),
    "docs/schedules.md": Stage(files={"inbox/a.csv": export_of(3, bad=False), "config.toml": "[ledger]\n"}),
}


def commands_of(page: str) -> list[str]:
    """Return the command lines of a page's blocks, in their order."""
    return [found.strip() for found in COMMAND.findall(PAGES[page])]


def test_every_page_with_commands_has_a_stage() -> None:
    """A new page is tried, too; and what is said not to run is somewhere."""
    with_commands = {page for page in PAGES if set(commands_of(page)) - NOT_RUN.keys()}
    assert with_commands == STAGES.keys()
    everything = {line for page in PAGES for line in commands_of(page)}
    assert NOT_RUN.keys() <= everything
    assert EXPECTED.keys() <= everything


@asynccontextmanager
async def on(stage: Stage, folder: Path, page: str, server: Postgres) -> AsyncIterator[tuple[Emulator, dict[str, str]]]:
    """Set a stage: files, a service in which some things go wrong, and what came before the page."""
    (folder / "export.csv").write_text(export_of(30, bad=stage.bad))
    for name, text in stage.files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(located(text, server))
    if page == "docs/migrating.md":
        shutil.copytree(ROOT / "samples" / "legacy" / "nightly", folder, dirs_exist_ok=True)
    emulator = Emulator()
    if stage.bad and stage.started:
        emulator.script(sid("UO", 3), before(Answer(status=400, code=45004, message="no")))
        emulator.script(sid("UO", 4), before(Answer(status=400, code=45354, message="closed")))
        emulator.script(sid("UO", 5), after(Fault.RESET))
        emulator.script(sid("UO", 6), after(Fault.RESET))
    async with serve(emulator) as base_url:
        env = {**SETTINGS, "FLEX_IMPORT__API__BASE_URL": base_url}
        if stage.started:
            held = {**env, "FLEX_IMPORT__DOUBT__POLICY": "hold" if stage.bad else "reconcile"}
            assert (await flex_import("run", stage.started, cwd=folder, env=held)).code in ALLOWED_OF_BAD_ROWS
        yield emulator, env


def located(text: str, server: Postgres) -> str:
    """Return a text whose databases are schemas of the test's server."""
    for database in DATABASE.findall(text):
        server.execute(f"CREATE SCHEMA IF NOT EXISTS stage_{database}")
        text = text.replace(f"postgresql://db.internal/{database}", server.address(f"stage_{database}"))
    return text


async def staged(line: str, folder: Path, env: dict[str, str], server: Postgres) -> str:
    """Return a command with the names that this stage has for what the docs call otherwise."""
    for name, here in HERE.items():
        line = line.replace(name, here)
    line = located(line, server)
    if "--group" in line:
        groups = json.loads((await flex_import("failures", "--json", cwd=folder, env=env)).out)
        [found, *_] = [one["id"] for one in groups if one["state"] == "rejected" and one["code"].isdigit()]
        line = re.sub(r"--group \w+", f"--group {found}", line)
        line += " --yes" if "waive" in line else ""  # here nobody can be asked
    if "unwaive" in line:
        waived = await flex_import("failures", "--state", "waived", "--json", cwd=folder, env=env)
        [group, *_] = json.loads(waived.out)
        line = re.sub(r"unwaive \w+", f"unwaive {group['id']}", line)
    if "resolve" in line:
        doubts = (await flex_import("failures", "--state", "in_doubt", cwd=folder, env=env)).out
        key = re.findall(r"^(\w+)  customer", doubts, re.MULTILINE)[0]
        line = line.replace("164b10bd", key[:12])
        (folder / "decisions.csv").write_text(f"key,sid\n{key},\n")
    return line.replace("run fix/*", "run fix/*.csv fix/*.ndjson") if line.endswith("run fix/*") else line


async def tried(line: str, folder: Path, env: dict[str, str], server: Postgres) -> Ended:
    """Run one command line as a shell would; what is redirected ends in its file."""
    command, _, redirected = (await staged(line, folder, env, server)).partition(" > ")
    ended = await flex_import(*shlex.split(command)[1:], cwd=folder, env=env)
    if redirected:
        (folder / redirected.strip()).write_text(ended.out)
    return ended


@pytest.mark.parametrize("page", STAGES)
async def test_a_page_works_as_written(page: str, tmp_path: Path, server: Postgres) -> None:
    """Each command in its order, with the exit code that the page lets one expect."""
    stage = STAGES[page]
    usual = ALLOWED_OF_BAD_ROWS if stage.bad or page == "docs/migrating.md" else {0}
    steering = [line for line in commands_of(page) if line.startswith("flex-import control")]
    for database in DATABASE.findall(PAGES[page]):
        server.execute(f"DROP SCHEMA IF EXISTS stage_{database} CASCADE")
    async with on(stage, tmp_path, page, server) as (_, env):
        for line in commands_of(page):
            if line in NOT_RUN or line in steering:
                continue
            for name in ("fix", "rejected", "repair"):
                if f"--rejects {name}/" in line:
                    shutil.rmtree(tmp_path / name, ignore_errors=True)
            if line.endswith((" run rejected/*.csv", " run fix/*.csv", " run fix/*")) and not _repair(tmp_path):
                continue
            ended = await tried(line, tmp_path, env, server)
            assert ended.code in EXPECTED.get(line, usual), f"{line}: exit {ended.code}\n{ended.out}{ended.err}"


def _repair(folder: Path) -> bool:
    """Repair what can be, as a person would; False when nothing was written to be repaired."""
    found = [path for name in ("fix", "rejected") for path in (folder / name).glob("*") if "reasons" not in path.name]
    for path in found:
        path.write_bytes(path.read_bytes().replace(b"UOx", sid("UO", 98).encode()))
    return bool(found)


async def test_a_running_import_is_steered_as_written(tmp_path: Path, server: Postgres) -> None:
    """Each order is given while a run is at work; the last one ends it."""
    orders = [line for line in commands_of("docs/running.md") if line.startswith("flex-import control")]
    assert len(orders) == 4
    (tmp_path / "a.csv").write_text(export_of(90, bad=False))
    emulator = Emulator()
    async with serve(emulator) as base_url:
        env = {**SETTINGS, "FLEX_IMPORT__API__BASE_URL": base_url, "FLEX_IMPORT__LIMITS__RATE_PER_SECOND": "4"}
        process = await start("run", "a.csv", cwd=tmp_path, env=env)
        await emulator.until(lambda: emulator.stats.created >= 2)
        for line in orders:
            assert (await tried(line, tmp_path, env, server)).code == 0
        assert (await finish(process)).code == 6


# ---- settings and messages ------------------------------------------------------------------------------------------


def settings_blocks() -> list[tuple[str, str]]:
    """Return (page, text) for each block of settings in the docs."""
    blocks = []
    for page, text in PAGES.items():
        for block in re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", text, re.MULTILINE):
            plain = re.sub(r"^ {4}", "", block, flags=re.MULTILINE).strip("\n")
            if re.match(r"(?:#.*\n)*\[[a-z]+", plain) and "flex-import" not in plain.splitlines()[0]:
                blocks.append((page, plain))
    return blocks


@pytest.mark.parametrize(("page", "text"), settings_blocks())
def test_settings_in_the_docs_are_settings(page: str, text: str, tmp_path: Path) -> None:
    """Whoever copies a block gets a config that loads."""
    assert page
    text = re.split(r"\n\n(?=flex-import)", text)[0]
    tomllib.loads(text)
    path = tmp_path / "config.toml"
    path.write_text(text)
    assert load(path, {}, {}).from_file


def test_there_are_settings_to_check() -> None:
    """A pattern that finds nothing must not pass."""
    assert len(settings_blocks()) >= 6


def test_every_message_of_the_troubleshooting_page_is_one() -> None:
    """As it stands in the code, so that whoever looks for it finds it."""
    quoted = re.findall(r"^\| (?:exit \d+, )?`([^`]+)`", PAGES["docs/troubleshooting.md"], re.MULTILINE)
    sources = "\n".join(path.read_text() for path in (ROOT / "worker").rglob("*.py"))
    joined = re.sub(r'"\s*\n\s*f?"', "", sources)
    assert len(quoted) >= 20
    assert [message for message in quoted if message not in joined] == []
