"""The legacy samples: each export with its config comes to the outcome that its folder is there to show."""

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from samples.legacy.make_legacy import SAMPLES, sid
from tests.commands import QUICK, ROOT, Ended, flex_import
from tests.test_command import states
from worker.emulator import Emulator, serve
from worker.filter import EXCEL_NUMBER
from worker.ledger.view import View

LEGACY = ROOT / "samples" / "legacy"


class Expected(NamedTuple):
    """What becomes of a sample. rejected: `file:line` → how its reason begins. warnings: rows by warning.

    media: some of what the service gets, as key → media properties.
    """

    files: tuple[str, ...]
    created: int
    duplicates: int
    rejected: dict[str, str]
    warnings: dict[str, int]
    media: dict[str, dict[str, Any]]


NO_MAP = 'column "{}" has a value that map.{} does not know'
TABLE = {
    "avaya": Expected(
        ("Gespraeche_2026-10.csv",),
        9,
        0,
        {
            "Gespraeche_2026-10.csv:5": 'media_properties.address: column "Rufnummer" has a value that is no valid',
            "Gespraeche_2026-10.csv:7": f"type: {NO_MAP.format('Rolle', 'rolle')} (known: Agent, Kunde)",
            "Gespraeche_2026-10.csv:10": "channel_sid: must be UO and 32 hexadecimal digits",
        },
        {},
        {
            "avaya:4711": {"address": "+491713920000", "proxy_address": "+493023125101", "name": "Jörg Müller"},
            "avaya:4713": {"identity": "agent.2", "name": "Zoë Weiß"},
        },
    ),
    "nice": Expected(
        ("Contacts.txt",),
        10,
        0,
        {"Contacts.txt:14": "has 1 field, the header has 7"},
        {"media_properties.address: has no @, and its type is email": 1},
        {
            "nice:900100:Ada Abel": {
                "address": "customer.0@example.com",
                "name": "Ada Abel",
                "level": "to",
                "type": "email",
            },
        },
    ),
    "genesys": Expected(
        ("conversations.ndjson",),
        5,
        1,
        {
            "conversations.ndjson:4": f"type: {NO_MAP.format('participant.purpose', 'purpose')}",
            "conversations.ndjson:7": "is not JSON: ",
        },
        {},
        {
            "genesys:p-0": {"address": "p0@example.com", "level": "to", "name": "Ada Abel"},
            "genesys:p-1": {"identity": sid("WK", "genesys", 1), "name": "Bo Brook"},
        },
    ),
    "five9": Expected(
        ("call_log.csv.gz",),
        8,
        1,
        {"call_log.csv.gz:12": "another row of the input has this key"},
        {},
        {
            "five9:300000": {
                "address": "caller0@example.com",
                "name": 'Ada "the count" Abel',
                "level": "to",
                "type": "email",
            },
            "five9:300002": {
                "address": "caller2@example.com",
                "name": "Chen\nDahl",
                "level": "to",
                "type": "email",
            },
        },
    ),
    "excel": Expected(
        ("participants.csv",),
        4,
        0,
        {
            "participants.csv:4": f"media_properties.address: {EXCEL_NUMBER}",
            "participants.csv:8": f"media_properties.address: {EXCEL_NUMBER}",
        },
        {"media_properties.address: has no + before its digits (lost in a spreadsheet?)": 2},
        {"excel:R1": {"address": "+447700900101", "proxy_address": "+441632960000"}},
    ),
    "zendesk": Expected(
        ("tickets.csv",),
        4,
        0,
        {
            "tickets.csv:5": 'interaction_sid and channel_sid: column "ConvID" has a value that lookup.moved has twice',
            "tickets.csv:6": 'interaction_sid and channel_sid: column "ConvID" has a value that lookup.moved does not',
        },
        {},
        {
            "zendesk:0": {
                "address": "req0@example.com",
                "name": "Ada Abel",
                "level": "to",
                "type": "email",
            },
        },
    ),
    "nightly": Expected(
        ("agents_2026-11-25.csv", "customers_2026-11-25.ndjson"),
        4,
        0,
        {},
        {},
        {
            "agent:7": {"identity": "agent_7", "name": "Jörg Müller"},
            "customer:3": {"address": "c3@example.com", "level": "to", "type": "email"},
        },
    ),
}


@pytest.fixture(params=TABLE)
def sample(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a copy of a sample's folder."""
    folder = tmp_path / str(request.param)
    shutil.copytree(LEGACY / folder.name, folder)
    return folder


@pytest.fixture
async def service() -> AsyncIterator[tuple[Emulator, str]]:
    """An emulated service on loopback."""
    emulator = Emulator()
    async with serve(emulator) as base_url:
        yield emulator, base_url


async def run(folder: Path, base_url: str, *files: str) -> Ended:
    """Import at full speed."""
    return await flex_import("run", *files, "--base-url", base_url, "--rate", "inf", cwd=folder, env=QUICK)


def test_the_samples_are_what_makes_them() -> None:
    """Byte for byte, so that nobody edits the one without the other; and each stands in the table."""
    assert SAMPLES.keys() == TABLE.keys()
    for name, make in SAMPLES.items():
        made = make()
        kept = {path.name: path.read_bytes() for path in (LEGACY / name).iterdir() if path.name in made}
        assert kept == made


async def test_check_tells_what_a_sample_is_there_to_show(sample: Path) -> None:
    """Rows, repetitions, what is wrong and where, what is unusual."""
    expected = TABLE[sample.name]
    ended = await flex_import("check", *expected.files, "--json", cwd=sample)
    told = json.loads(ended.out)
    assert ended.code == bool(expected.rejected), ended.err
    assert (told["to_send"], told["duplicate"]) == (expected.created, expected.duplicates)
    reasons = {place: group["reason"] for group in told["groups"] for place in group["examples"]}
    assert reasons.keys() == expected.rejected.keys()
    for place, reason in expected.rejected.items():
        assert reasons[place].startswith(reason), reasons[place]
    assert {one["warning"]: one["rows"] for one in told["warnings"]} == expected.warnings


async def test_a_run_sends_what_check_told(sample: Path, service: tuple[Emulator, str]) -> None:
    """Each once, with numbers, roles and names as the mapping makes them; a second run sends nothing."""
    expected = TABLE[sample.name]
    emulator, base_url = service
    ended = await run(sample, base_url, *expected.files)
    assert ended.code == bool(expected.rejected), ended.err
    assert states(sample) == {"created": expected.created}
    sids = {one.sid: one for one in emulator.participants}
    with View(sample / "imports.db") as view, closing(view.export((), None)) as rows:
        made = {row[0]: sids[str(row[4])].media_properties for row in rows if row[4]}
    assert {key: made.get(key) for key in expected.media} == expected.media
    again = await run(sample, base_url, *expected.files)
    assert (again.code, emulator.stats.arrived) == (ended.code, expected.created), again.err


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("avaya", "0171 39;", "0171 3920099;"),
        ("avaya", "Teamleitung", "Agent"),
        ("excel", "4.47701E+11", "+447700900103"),
        ("five9", "300002", "300009"),
        ("zendesk", "conv-4", "conv-5"),
    ],
)
async def test_a_rejected_record_is_repaired_and_comes_in(
    tmp_path: Path, service: tuple[Emulator, str], name: str, old: str, new: str
) -> None:
    """In its own encoding and delimiter; the others stay rejected, and nothing is sent again."""
    folder, expected = tmp_path / name, TABLE[name]
    shutil.copytree(LEGACY / name, folder)
    emulator, base_url = service
    await run(folder, base_url, *expected.files)
    assert (await flex_import("export", "--rejects", "fix", cwd=folder)).code == 0
    [fixed] = [path for path in (folder / "fix").iterdir() if not path.name.endswith(".reasons.csv")]
    encoding = "cp1252" if name == "avaya" else "utf-8"
    text = fixed.read_bytes().decode(encoding)
    assert text.count(old) == 1
    fixed.write_bytes(text.replace(old, new).encode(encoding))
    ended = await run(folder, base_url, f"fix/{fixed.name}")
    assert states(folder) == {"created": expected.created + 1}, ended.err
    assert emulator.stats.arrived == expected.created + 1
    assert ended.code == (len(expected.rejected) > 1)
