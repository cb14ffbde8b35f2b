"""`check`: what it prints, writes and shows on the way."""

import asyncio
import json
import os
import pty
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.commands import CREDENTIALS, HOLDING, ROOT, Ended, flex_import
from tests.samples_of import draft_of, row, sid
from tests.test_command import HEADER, csv_of, states
from worker.cli import call, checking, importing
from worker.cli.forecasting import forecast
from worker.cli.presenting import Checked, File, as_text
from worker.cli.sifting import Findings
from worker.cluster import cluster_id
from worker.config import Settings, Source
from worker.emulator import Answer, Emulator, serve
from worker.errors import ConfigError
from worker.headcount import Channels
from worker.ledger import Finding, SourceFile
from worker.ledger.survey import Surveyed

NIGHTS = """
[source]
key = "agent:{ID}"
[limits]
rate_per_second = 6
timezone = "Europe/London"
timetable = ["Mon-Fri 06:00-22:00 0"]
[doubt]
baseline = false
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a config and an input with every kind of problem."""
    (tmp_path / "config.toml").write_text(NIGHTS)
    place = f"{sid('KD', 1)},{sid('UO', 1)}"
    good = [f"{number},{place},customer,p{number}@example.com\n" for number in range(110)]
    bad = [
        f"200,{place}\n",
        f"201,{place}\n",
        f"202,{sid('KD', 1)},UO12,customer,x@example.com\n",
        f"5,{place},customer,other@example.com\n",
        good[7],
        f",{place},customer,x@example.com\n",
        f'203,{place},customer,"a"b\n',
        f"204,{place},customer,a\0b\n",
    ]
    (tmp_path / "a.csv").write_text("ID," + HEADER + "".join([*good, *bad]))
    return tmp_path


def told(ended: Ended) -> str:
    """Return a screen without what differs from time to time."""
    text = re.sub(r"read in [0-9.]+ s", "read in TIME", ended.out)
    return re.sub(r"^ {7}(?:\w{3} \d\d:\d\d .*)?\w{3} \d\d:\d\d  done$", "       END", text, flags=re.MULTILINE)


TOO_FEW = "has 3 fields, the header has 5"
CHANNEL = "channel_sid: must be UO and 32 hexadecimal digits"
CONFLICT = "another row of the input has this key"
EMPTY = "source.key: ID empty"
QUOTES = 'has text after a closing quote; a quote inside a quoted field is written twice: ""'
NUL = "has a NUL character"


def ident(code: str, reason: str) -> str:
    """Return the id that people see of a group of rejected rows."""
    return cluster_id("rejected", code, reason)[:4]


async def test_the_whole_screen(folder: Path) -> None:
    """Files, counts that add up, groups, warnings, the plan, doubts, and what to type next."""
    ended = await flex_import("check", "a.csv", cwd=folder)
    assert (ended.code, ended.err) == (1, "")
    assert (
        told(ended)
        == f"""\
118 rows in 1 file, read in TIME. No network used, nothing sent.

  a.csv                 118  utf-8-sig  csv ,  key agent:{{ID}}

  to send               110  in 1 channel
  duplicate               1  the same record again; the first one counts
  rejected                7  in 6 groups

  ID    ROWS  FIELD        PROBLEM, AND WHERE
  {ident("malformed", TOO_FEW)}     2  record       has 3 fields, the header has 5
                           a.csv:112, a.csv:113
  {ident("invalid", CHANNEL)}     1  channel_sid  must be UO and 32 hexadecimal digits (channel_sid is
                           "U***")
                           a.csv:114
  {ident("key_conflict", CONFLICT)}     1  source.key   another row of the input has this key (the first one
                           is a.csv:7)
                           a.csv:115
  {ident("key_empty", EMPTY)}     1  source.key   ID empty
                           a.csv:117
  {ident("malformed", QUOTES)}     1  record       has text after a closing quote; a quote inside a
                           quoted field is written twice: ""
                           a.csv:118
  {ident("malformed", NUL)}     1  record       has a NUL character
                           a.csv:119

  warning: 1 channel gets more than 100 participants (10 rows, may be 50417);
           {sid("UO", 1)} gets 110
  warning: 1 channel gets more than 50 non-chat participants (60 rows, may be
           50418); {sid("UO", 1)} gets 110

Plan   account AC…1111 at flex-api.twilio.com, times in Europe/London
       at 6/s; Mon-Fri 06:00-22:00 closed
       END
Doubt  baseline off: a lost answer in a channel that already has participants
       waits for a person. doubt.baseline=true: 1 request, 0.1 s at 15/s

Next   flex-import check a.csv --rejects fix/       the 7 to repair
       flex-import run a.csv --new-ledger --wait    send the 110
exit 1: 7 rows would be rejected
"""
    )


# ---- groups and warnings --------------------------------------------------------------------------------------------


def screen(
    *found: Finding,
    warnings: Mapping[int, tuple[str, ...]] | None = None,
    names: str = "a.csv",
    settings: Settings | None = None,
) -> list[str]:
    """Return the lines of the screen for these findings. warnings: number of a row to send → its warnings."""
    findings = Findings()
    send = [draft_of(row(number))._replace(warnings=given) for number, given in (warnings or {}).items()]
    counts = {"rejected": len(found), "warned": len(warnings or ())}
    findings.take(Surveyed(1, len(found) + len(send), 1, send, list(found), [], counts), {1: names})
    source = SourceFile("/a.csv", "csv", "utf-8", ",", "a\n")
    checked = Checked(
        findings=findings,
        files=[File(names, 1, source, "", "")],
        channels=Channels(len(send), 0, 0, None, 0),
        non_chat=Channels(len(send), 0, 0, None, 0),
        forecast=forecast(settings or Settings(), len(send), len(send), MONDAY),
        seconds=1,
        words=([names], []),
        account=None,
        ledger=None,
        folder=None,
        written=(),
    )
    return as_text(checked).splitlines()


MONDAY = datetime(2026, 3, 2, 21, 30, tzinfo=UTC)


def rejected(reason: str, code: str = "invalid", detail: str | None = None, line: int = 2) -> Finding:
    """Return a local rejection."""
    return Finding("rejected", 1, line, None, code, reason, "x\n", detail)


@pytest.mark.parametrize(
    ("finding", "field", "problem"),
    [
        (rejected("type: is missing"), "type", "is missing"),
        (rejected("type: is missing; channel_sid: must be UO: yes"), "type", "is missing; +1 more"),
        (rejected("a: b; c: d; e: f"), "a", "b; +2 more"),
        (rejected("type: is one; of many"), "type", "is one; of many"),
        (rejected("a field is too deep"), "record", "a field is too deep"),
        (rejected("media_properties.address: no @"), "…address", "no @"),
        (rejected("x" * 30 + ": no"), "…" + "x" * 17, "no"),
        (rejected("type: is wrong", detail='as "c***"'), "type", 'is wrong (as "c***")'),
        (rejected("has a quote: it says", "malformed"), "record", "has a quote: it says"),
        (rejected("with this key", "key_conflict", "it is a.csv:2"), "source.key", "with this key (it is a.csv:2)"),
        (rejected("\x1b[2J\nx: is no field"), r"\x1b[2J\nx", "is no field"),
    ],
)
def test_a_reason_is_shown_as_a_field_and_a_problem(finding: Finding, field: str, problem: str) -> None:
    """The first of several, with how many more there are; nothing steers the terminal."""
    lines = screen(finding)
    top = next(number for number, line in enumerate(lines) if "PROBLEM" in line)
    assert re.split(r"  +", lines[top + 1].strip()) == [
        cluster_id("rejected", finding.code, finding.reason)[:4],
        "1",
        field,
        problem,
    ]
    assert lines[top + 2].strip() == "a.csv:2"


def test_no_line_is_wider_than_80_columns() -> None:
    """However long names and reasons are; commands alone are whole, as they are to be typed."""
    name = "a folder/" + "of an old system, " * 5 + ".csv"
    found = [rejected(f"field{number}: " + "very wrong " * number, detail="d" * 90) for number in range(30)]
    lines = screen(*found, warnings={1: ("w" * 90, "odd " * 40)}, names=name)
    commands = [line for line in lines if "flex-import" in line]
    assert len(commands) == 2
    assert all(f"'{name}'" in line for line in commands)
    assert max(len(line) for line in lines if line not in commands) <= 80
    assert "  and 10 more groups; --json has all of them" in lines


def test_the_largest_group_is_first_and_an_example_is_its_first_row() -> None:
    """Groups are counted, and numbers stand below each other."""
    many = [rejected("type: is missing", line=number + 10) for number in range(1200)]
    lines = screen(rejected("a: b"), *many)
    top = next(number for number, line in enumerate(lines) if "PROBLEM" in line)
    assert [lines[top + number][8:13] for number in (1, 3)] == ["1,200", "    1"]
    assert lines[top + 2].strip() == "a.csv:10, a.csv:11, a.csv:12"


def test_warnings_are_counted_and_the_most_frequent_comes_first() -> None:
    """One line for each kind, with the place of the first such row; past ten kinds their number."""
    address = "media_properties.address: has no + (SMS wants E.164)"
    told = {number: (address, f"kind {number % 12}") for number in range(30)}
    screened = screen(warnings=told)
    assert "           a.csv:2" in screened
    lines = [line for line in screened if line.startswith("  warning")]
    assert lines[0] == f"  warning: {address}: 30 rows, first"
    assert lines[1] == "  warning: kind 0: 3 rows, first a.csv:2"
    assert (len(lines), lines[-1]) == (11, "  warning: and 3 more kinds; --json has all of them")


# ---- the plan -------------------------------------------------------------------------------------------------------

NIGHT = ("Mon-Fri 06:00-22:00 0",)
FOURTH, FAR = "Fri 06:00  23.0 %", "Sat 14 Mar 2026 17:23"
SHUT = ("00:00-24:00 0",)


def limited(rate: float = 6, hours: tuple[str, ...] = (), lists: float = 15, **doubt: object) -> Settings:
    """Return settings with these limits."""
    limits = {"rate_per_second": rate, "timetable": hours, "list_rate_per_second": lists, "timezone": "Europe/London"}
    return Settings.model_validate({"limits": limits, "doubt": doubt})


@pytest.mark.parametrize(
    ("settings", "rows", "lines"),
    [
        (limited(hours=NIGHT), 0, ["nothing to send"]),
        (limited(15), 900, ["at 15/s: at least 1 min; begun now, done Mon 21:31"]),
        (limited(float("inf")), 900, ["at no set rate: at least 0.0 s; begun now, done Mon 21:30"]),
        (limited(0.001), 1000, ["at 0.001/s: at least 277 h 47 min; begun now, done Sat 14 Mar 2026 11:16"]),
        (limited(1e-9), 1000, ["at 1e-09/s: not done within a hundred years"]),
        (
            limited(hours=NIGHT),
            396_431,
            [
                "at 6/s; Mon-Fri 06:00-22:00 closed",
                "Tue 06:00  43.6 %    Wed 06:00  87.2 %    Thu 00:21  done",
            ],
        ),
        (
            limited(hours=(*NIGHT, "Sat,Sun 08:00-09:00 300/m")),
            3_000_000,
            [
                "at 6/s; Mon-Fri 06:00-22:00 closed, Sat,Sun 08:00-09:00 at 300/m",
                f"Tue 06:00  5.8 %    Wed 06:00  11.5 %    Thu 06:00  17.3 %    {FOURTH}    …    {FAR}  done",
            ],
        ),
        (limited(hours=SHUT), 1, ["at 6/s; 00:00-24:00 closed", "never: limits.timetable has no open hours"]),
    ],
)
def test_the_plan_goes_by_the_hours(settings: Settings, rows: int, lines: list[str]) -> None:
    """With how far it is at each closing; far days have a date."""
    found = forecast(settings, rows, rows, MONDAY).plan_lines()
    assert [line.replace("\xa0", " ") for line in found] == lines


def test_a_closing_stands_on_one_line() -> None:
    """Its time and its share are not torn apart where the line is folded."""
    lines = screen(warnings=dict.fromkeys(range(100), ()), settings=limited(0.0003, hours=NIGHT))
    top = lines.index("       at 0.0003/s; Mon-Fri 06:00-22:00 closed") + 1
    assert lines[top : top + 2] == [
        "       Tue 06:00  8.6 %    Wed 06:00  17.3 %    Thu 06:00  25.9 %",
        "       Fri 06:00  34.6 %    …    Tue 10 Mar 2026 02:35  done",
    ]


ON = "baseline on: one list a channel, 9,000 requests,"
OFF = "baseline off: a lost answer in a channel that already has participants"


@pytest.mark.parametrize(
    ("settings", "channels", "lines"),
    [
        (limited(), 1, ["baseline on: one list a channel, 1 request, 0.1 s at 15/s, beside the creates"]),
        (limited(baseline=False), 1, [OFF, "waits for a person. doubt.baseline=true: 1 request, 0.1 s at 15/s"]),
        (limited(policy="hold"), 9000, ['policy "hold": a lost answer waits for a person']),
        (
            limited(lists=2),
            9000,
            [
                f"{ON} 1 h 15 min at 2/s, beside the creates",
                "which takes longer than they do: all done Mon 22:45",
            ],
        ),
        (
            limited(lists=1e-9),
            9000,
            [
                f"{ON} 2500000000 h 00 min at 1e-09/s, beside the creates",
                "which takes longer than they do: not done within a hundred years",
            ],
        ),
    ],
)  # fmt: skip
def test_the_price_of_baselines(settings: Settings, channels: int, lines: list[str]) -> None:
    """What they cost, or what it costs to have none; they end an import only where lists are slower than creates."""
    found = forecast(settings, 9000, channels, MONDAY)
    assert found.doubt_lines() == lines


async def test_a_channel_takes_fifty_that_are_not_in_the_chat(tmp_path: Path) -> None:
    """Sixty customers are too many, though a hundred participants would fit; capitals are no other channel."""
    header, *lines = csv_of(60, 1).splitlines(keepends=True)
    channel = sid("UO", 0)
    lines[1::2] = [line.replace(channel, "UO" + channel[2:].upper()) for line in lines[1::2]]
    (tmp_path / "a.csv").write_text(header + "".join(lines))
    ended = await flex_import("check", "a.csv", cwd=tmp_path)
    assert ended.code == 0, ended.err
    told = " ".join(ended.out.split())
    assert "to send 60 in 1 channel" in told
    assert "warning: 1 channel gets more than 50 non-chat participants (10 rows, may be 50418); UO" in told
    assert "more than 100" not in told


# ---- as an object ---------------------------------------------------------------------------------------------------


async def test_as_json_it_is_the_same(folder: Path) -> None:
    """Every number of the screen, whole reasons, and times in RFC 3339."""
    ended = await flex_import("check", "a.csv", "--json", cwd=folder)
    found: dict[str, Any] = json.loads(ended.out)
    assert ended.code == found["exit_code"] == 1
    assert (found["read"], found["to_send"], found["duplicate"], found["rejected"]) == (118, 110, 1, 7)
    assert found["files"] == [
        {
            "name": "a.csv",
            "rows": 118,
            "format": "csv",
            "encoding": "utf-8-sig",
            "delimiter": ",",
            "compression": None,
            "profile": None,
            "key": "agent:{ID}",
        }
    ]
    assert found["channels"] == 1
    assert found["crowded"] == {
        "participants": 100,
        "channels": 1,
        "rows_beyond": 10,
        "fullest": sid("UO", 1),
        "rows_of_fullest": 110,
    }
    assert found["crowded_non_chat"] == {
        "participants": 50,
        "channels": 1,
        "rows_beyond": 60,
        "fullest": sid("UO", 1),
        "rows_of_fullest": 110,
    }
    assert found["groups"][0] == {
        "id": ident("malformed", TOO_FEW),
        "code": "malformed",
        "reason": TOO_FEW,
        "rows": 2,
        "examples": ["a.csv:112", "a.csv:113"],
        "detail": None,
    }
    assert found["warnings"] == []
    plan = found["plan"]
    assert (plan["rate_per_second"], plan["timezone"], plan["timetable"]) == (6, "Europe/London", list(NIGHT))
    assert datetime.fromisoformat(plan["finish"]).tzinfo
    assert plan["seconds"] >= 18
    assert found["baselines"] == {"on": False, "requests": 1, "list_rate_per_second": 15, "seconds": 0.067}
    assert "rejects" not in found


async def test_a_rate_without_a_limit_is_null_as_json(folder: Path) -> None:
    """JSON has no infinity."""
    env = {"FLEX_IMPORT__LIMITS__RATE_PER_SECOND": "inf", "FLEX_IMPORT__LIMITS__TIMETABLE": "[]"}
    ended = await flex_import("check", "a.csv", "--json", cwd=folder, env=env)
    assert json.loads(ended.out)["plan"]["rate_per_second"] is None


# ---- what to type next ----------------------------------------------------------------------------------------------


async def test_the_commands_to_type_are_whole(tmp_path: Path) -> None:
    """Words are quoted as a shell wants them, patterns stay patterns, and options that a run needs too come along."""
    (tmp_path / "my export.csv").write_text(csv_of(2))
    (tmp_path / "c.toml").touch()
    words = ("my *.csv", "--config", "c.toml", "--ledger", "x.db", "--strict")
    ended = await flex_import("check", *words, cwd=tmp_path, env={})
    assert ended.code == 0, ended.err
    assert ended.out.endswith(
        "\nNext   flex-import run 'my *.csv' --strict --new-ledger --config c.toml --ledger x.db\n"
    )
    assert "\nPlan   flex-api.twilio.com\n" in ended.out, "no account is known, and none is needed"


async def test_a_plan_is_made_for_another_rate(tmp_path: Path) -> None:
    """Nothing has to be configured to know how long it would take; the command to type has the rate, too."""
    (tmp_path / "a.csv").write_text(csv_of(30))
    ended = await flex_import("check", "a.csv", "--rate", "60/m", cwd=tmp_path, env={})
    assert ended.code == 0, ended.err
    assert "at 1/s: at least" in ended.out
    assert ended.out.endswith("\nNext   flex-import run a.csv --rate 60/m --new-ledger    send the 30\n")
    assert (await flex_import("check", "a.csv", "--rate", "quick", cwd=tmp_path, env={})).code == 2


async def test_many_files_are_not_all_named(tmp_path: Path) -> None:
    """The list ends after twenty; a command that names some of them only would be a wrong one."""
    for number in range(25):
        (tmp_path / f"{number:02}.csv").write_text(csv_of(2, first=2 * number))
    names = [f"{number:02}.csv" for number in range(25)]
    ended = await flex_import("check", *names, cwd=tmp_path)
    assert "\n  and 5 more files\n" in ended.out
    assert "\nNext   the same 25 files with run instead of check    send the 50\n" in ended.out


async def test_nothing_to_send_needs_no_run(tmp_path: Path) -> None:
    """And no plan, no doubt."""
    (tmp_path / "a.csv").write_text(HEADER + "too,few\n")
    ended = await flex_import("check", "a.csv", cwd=tmp_path)
    assert "nothing to send\n" in ended.out
    assert "Doubt" not in ended.out
    assert "flex-import run" not in ended.out


async def test_what_the_service_rejected_earlier_is_told_apart(tmp_path: Path) -> None:
    """Only the records of this input can be repaired in it."""
    emulator = Emulator()
    emulator.script(sid("UO", 1), Answer(status=400, code=20001, message="Address is wrong"))
    (tmp_path / "a.csv").write_text(csv_of(3) + "too,few\n")
    async with serve(emulator) as base_url:
        await flex_import("run", "a.csv", "--base-url", base_url, "--rate", "inf", cwd=tmp_path, env=HOLDING)
    ended = await flex_import("check", "a.csv", cwd=tmp_path)
    assert "  rejected                2  in 1 group; 1 by the API, in earlier runs\n" in ended.out
    assert "the 1 to repair" in ended.out


# ---- --rejects ------------------------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    """Return name → content of all files in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def test_rejects_are_what_an_export_after_a_run_would_write(folder: Path) -> None:
    """Byte for byte, records and reasons; only that no run, no ledger and no network is needed."""
    (folder / "b.ndjson").write_text('{"ID": 999}\n[]\nno json')
    ended = await flex_import("check", "a.csv", "b.ndjson", "--rejects", "my fix", cwd=folder)
    assert ended.code == 1, ended.err
    assert not (folder / "imports.db").exists()
    env = {**HOLDING, "FLEX_IMPORT__LIMITS__RATE_PER_SECOND": "inf", "FLEX_IMPORT__LIMITS__TIMETABLE": "[]"}
    async with serve(Emulator()) as base_url:
        await flex_import("run", "a.csv", "b.ndjson", "--base-url", base_url, cwd=folder, env=env)
    assert (await flex_import("export", "--rejects", "export", cwd=folder)).code == 0
    written, exported = contents(folder / "my fix"), contents(folder / "export")
    assert sorted(written) == ["a.csv", "a.reasons.csv", "b.ndjson", "b.reasons.csv"]
    assert written == exported
    assert "        7 rows  my fix/a.csv   of a.csv\n" in ended.out
    assert "\n\nRepair  these records; what is wrong with each stands beside them, in *.reasons.csv\n\n" in ended.out
    assert "\nNext   flex-import run 'my fix'/*.csv 'my fix'/*.ndjson --new-ledger --wait\n" in ended.out
    assert "to repair" not in ended.out


async def test_rejects_as_json(folder: Path) -> None:
    """Which files were made, and of what."""
    ended = await flex_import("check", "a.csv", "--rejects", "fix", "--json", cwd=folder)
    assert json.loads(ended.out)["rejects"] == [
        {"source": str(folder / "a.csv"), "path": "fix/a.csv", "reasons": "fix/a.reasons.csv", "records": 7}
    ]


async def test_without_rejects_nothing_is_made(tmp_path: Path) -> None:
    """And it is said, unless quiet."""
    (tmp_path / "a.csv").write_text(csv_of(2))
    ended = await flex_import("check", "a.csv", "--rejects", "fix", cwd=tmp_path)
    quiet = await flex_import("check", "a.csv", "--rejects", "fix", "-q", cwd=tmp_path)
    assert "\nnothing is rejected: no files were made\n" in ended.out
    assert (ended.code, quiet) == (0, Ended(0, "", ""))
    assert list(contents(tmp_path)) == ["a.csv"]


@pytest.mark.parametrize(
    ("folder_name", "says"),
    [
        ("", "--rejects: is empty: is a variable not set?"),
        ("-", "--rejects: -: is no folder"),
        ("config.toml", "--rejects: config.toml: is no folder; name one, or one that is to be made"),
        ("old", "--rejects: old/a.csv: exists already and may hold repairs; move it away, or name another folder"),
    ],
)
async def test_a_folder_that_makes_no_sense_is_refused(folder: Path, folder_name: str, says: str) -> None:
    """As by `export`: exit 2, and what is there stays as it is."""
    (folder / "old").mkdir()
    (folder / "old" / "a.csv").write_text("repairs\n")
    ended = await flex_import("check", "a.csv", "--rejects", folder_name, cwd=folder)
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err
    assert contents(folder / "old") == {"a.csv": b"repairs\n"}


async def test_a_file_whose_name_is_no_text_has_rejects_too(tmp_path: Path) -> None:
    """Its name stands in the reason of a row whose key it has already."""
    name = os.fsdecode(b"caf\xe9.csv")
    (tmp_path / "config.toml").write_text('[source]\nkey = "{ID}"\n')
    lines = csv_of(2).splitlines()
    (tmp_path / name).write_text(f"ID,{lines[0]}\n1,{lines[1]}\n1,{lines[2]}\n")
    ended = await flex_import("check", name, "--rejects", "fix", cwd=tmp_path)
    assert ended.code == 1, ended.err
    assert "the first one is caf?.csv:2" in next((tmp_path / "fix").glob("*.reasons.csv")).read_text()


# ---- --strict -------------------------------------------------------------------------------------------------------


class SeenError(ConfigError):
    """Ends a command once its settings are known."""


@pytest.mark.parametrize(("words", "strict"), [((), False), (("--strict",), True)])
@pytest.mark.parametrize("command", ["check", "run"])
def test_strict_is_a_setting_of_the_source(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str, words: tuple[str, ...], *, strict: bool
) -> None:
    """The flag wins over the config, in both commands; without it the config counts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text(csv_of(1))
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    seen: list[bool] = []

    def look(source: Source) -> None:
        seen.append(source.strict)
        raise SeenError

    monkeypatch.setattr(checking, "_read", lambda inputs, *_: look(inputs[0][1].source))
    monkeypatch.setattr(importing, "_carry_out", lambda job: look(job.inputs[0][1].source))
    assert call([command, "a.csv", *words]) == 2
    monkeypatch.setenv("FLEX_IMPORT__SOURCE__STRICT", "true")
    assert call([command, "a.csv", *words]) == 2
    assert seen == [strict, True]


@pytest.mark.parametrize("strict", [False, True])
async def test_what_is_unusual_is_a_warning_unless_strict(tmp_path: Path, *, strict: bool) -> None:
    """The same row is sent with a warning, in one line with a count, or is rejected in a group of its own."""
    lines = [f"{sid('KD', number)},{sid('UO', number)},customer,{number}@example.com\n" for number in range(3)]
    lost = f"{sid('KD', 3)},{sid('UO', 3)},customer,441632960123\n"
    (tmp_path / "a.csv").write_text(HEADER + "".join([*lines, lost]))
    words = ["--strict"] if strict else []
    checked = await flex_import("check", "a.csv", *words, cwd=tmp_path)
    assert ("\n  warning: media_properties.address: " in checked.out) is not strict, checked.out
    assert ("would be rejected" in checked.out) is strict
    async with serve(Emulator()) as base_url:
        env = {**HOLDING, "FLEX_IMPORT__API__BASE_URL": base_url, "FLEX_IMPORT__LIMITS__RATE_PER_SECOND": "inf"}
        ended = await flex_import("run", "a.csv", *words, cwd=tmp_path, env=env)
    assert checked.code == ended.code == int(strict)
    assert states(tmp_path) == {"created": 4 - strict}


# ---- at a terminal --------------------------------------------------------------------------------------------------


async def at_terminal(folder: Path, *words: str) -> tuple[int | None, str]:
    """Run a command at a terminal of 60 columns; return its exit code and all that it showed."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker", *words),
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "TERM": "dumb", "COLUMNS": "60"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb", buffering=0)
    )
    shown = b""
    try:
        while chunk := await reader.read(4096):
            shown += chunk
    except OSError:
        pass  # a terminal whose last process has gone
    return await process.wait(), shown.decode()


async def test_a_terminal_shows_how_far_it_is(tmp_path: Path) -> None:
    """In one line that is drawn over, fits, and is gone when the result comes."""
    name = "an export of the old system, with a name that is far too long.csv"
    (tmp_path / name).write_text(csv_of(3000))
    code, shown = await at_terminal(tmp_path, "check", name)
    progress, _, screen = shown.partition("3,000 rows in 1 file")
    drawn = progress.split("\r")
    assert code == 0
    assert re.fullmatch(r"512 rows, \d+ %, reading an export of the old system, with a", drawn[1])
    assert max(map(len, drawn)) <= 59
    assert set(drawn[-2]) == {" "}, "the last line is wiped out"
    assert "\x1b" not in shown
    assert "  to send             3,000" in screen


@pytest.mark.parametrize("word", ["--json", "-q"])
async def test_no_progress_is_shown_to_programs(tmp_path: Path, word: str) -> None:
    """Nor to who wants to be told nothing."""
    (tmp_path / "a.csv").write_text(csv_of(3000))
    code, shown = await at_terminal(tmp_path, "check", "a.csv", word)
    assert code == 0
    assert "reading" not in shown
