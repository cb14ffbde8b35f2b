"""What stops a command before anything is sent: one clear message, the documented exit code, nothing lost."""

import json
import os
import re
import socket
import sqlite3
import stat
from pathlib import Path

import pytest

from tests.commands import CREDENTIALS
from tests.samples_of import sid
from worker.cli import call
from worker.ledger.opening import create_ledger

HEADER = "interaction_sid,channel_sid,type,media_properties.address\n"
ROW = f"{sid('KD', 1)},{sid('UO', 1)},customer,someone@example.com\n"
HERE = "http://127.0.0.1:9"  # the discard port: nobody listens
THERE = "https://flex.example.com"


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command that must be refused with exit 2 and return what it says."""
    assert call(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.endswith("exit 2, nothing was sent\n")
    return said.err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", "", r"empty\.csv.*empty"),
        ("header.csv", HEADER, r"header\.csv.*header"),
        (
            "column.csv",
            HEADER.replace("type", "typ") + ROW,
            r'column\.csv:1: there is no column "type" .*did you mean "typ"',
        ),
        ("extra.csv", HEADER.replace("type", "type,notes") + ROW, r'extra\.csv:1: column "notes" is no field'),
        ("twice.csv", HEADER.replace("type", "channel_sid") + ROW, r"twice\.csv.*channel_sid"),
        ("quote.csv", HEADER + ROW + 'KD1,"UO1,customer,a\n' + ROW * 3, r"quote\.csv.*line 3"),
        ("latin.csv", (HEADER + ROW.replace("someone", "zoë")).encode("cp1252"), r"latin\.csv.*cp1252"),
        ("empty.ndjson", "\n\n", r"empty\.ndjson.*empty"),
    ],
)
@pytest.mark.parametrize("command", ["run", "check"])
def test_an_input_that_cannot_be_trusted_is_refused_before_anything_is_sent(
    capsys: pytest.CaptureFixture[str], command: str, name: str, content: str | bytes, message: str
) -> None:
    """The message names the file, the line where there is one, and what to do; no ledger is made."""
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    words = [command, name, *(["--base-url", HERE] if command == "run" else [])]
    assert re.search(message, refused(capsys, *words), re.DOTALL | re.IGNORECASE)
    assert not Path("imports.db").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "nowhere.csv"), r"nowhere\.csv"),
        (("run", "*.tsv"), r"\*\.tsv"),
        (("run", "."), r"\."),
        (("run",), r"FILES"),
        (("rn", "a.csv"), r"Did you mean \"run\""),
        (("run", "a.csv", "--rats", "5"), r"--rat"),
        (("run", "a.csv", "--rate", "fast"), r"--rate: limits\.rate_per_second"),
        (("run", "a.csv", "--concurrency", "0"), r"--concurrency: limits\.concurrency"),
        (("run", "a.csv", "--base-url", "http://flex.example.com"), r"api\.base_url: .*this machine only"),
        (("run", "a.csv", "--config", "none.toml"), r"none\.toml: there is no such config file"),
        (("status",), r"there is no ledger at .*imports\.db"),
        (("export", "--format", "xml"), r'--format: "xml" is not one of csv, ndjson'),
        (("export", "--state", "made"), r"state"),
        (("emulator", "--faults", "3"), r"probabilities"),
    ],
)
def test_words_that_make_no_sense_are_refused(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    """Typos, files that are not there, values that cannot be: each is named."""
    Path("a.csv").write_text(HEADER + ROW)
    assert re.search(message, refused(capsys, *words))


def test_all_problems_of_the_settings_are_named_at_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with its key path and where it came from."""
    Path("a.csv").write_text(HEADER + ROW)
    Path("config.toml").write_text("[limits]\nrate_per_secnd = 5\n[retry]\nattempts = 0\n")
    monkeypatch.setenv("FLEX_IMPORT__LIMITS__CONCURENCY", "5")
    said = refused(capsys, "run", "a.csv", "--rate", "-1")
    assert "config.toml: limits.rate_per_secnd: unknown key (did you mean rate_per_second?)" in said
    assert "config.toml: retry.attempts: " in said
    assert "FLEX_IMPORT__LIMITS__CONCURENCY: unknown variable: [limits] has no key concurency" in said
    assert "--rate: limits.rate_per_second: " in said


@pytest.mark.parametrize("missing", list(CREDENTIALS))
def test_missing_credentials_are_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """The variables to set are in the message, the values of others are not."""
    Path("a.csv").write_text(HEADER + ROW)
    monkeypatch.delenv(missing)
    said = refused(capsys, "run", "a.csv", "--base-url", HERE)
    assert missing in said
    assert not any(value in said for value in CREDENTIALS.values())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Permission is checked before anything is sent."""
    Path("a.csv").write_text(HEADER + ROW)
    Path("a.csv").chmod(0)
    assert "a.csv" in refused(capsys, "run", "a.csv", "--base-url", HERE)


def test_a_socket_is_no_input(capsys: pytest.CaptureFixture[str]) -> None:
    """What is no file and no pipe cannot be read twice, and is refused even for root."""
    with socket.socket(socket.AF_UNIX) as door:
        door.bind("a.csv")
        assert "a.csv" in refused(capsys, "run", "a.csv", "--base-url", HERE)


def test_no_ledger_is_made_silently_for_a_service_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    """Cron in the wrong folder must not begin from nothing: the path, the config and the way out are named."""
    Path("a.csv").write_text(HEADER + ROW)
    said = refused(capsys, "run", "a.csv", "--base-url", THERE)
    assert f"there is no ledger at {Path.cwd() / 'imports.db'} (config: none found, defaults)" in said
    assert "Without the old ledger every row would be sent again." in said
    assert "--new-ledger" in said
    assert not Path("imports.db").exists()


def test_a_new_ledger_does_not_replace_an_old_one(capsys: pytest.CaptureFixture[str]) -> None:
    """--new-ledger is refused when there is one."""
    Path("a.csv").write_text(HEADER + ROW)
    create_ledger(Path("imports.db"))
    assert "there is a ledger already" in refused(capsys, "run", "a.csv", "--base-url", HERE, "--new-ledger")


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "is empty"), (b"no database at all, but some text\n" * 9, "is not a ledger")]
)
def test_a_file_that_is_no_ledger_is_left_alone(
    capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    """Somebody else's file is named and not touched."""
    Path("a.csv").write_text(HEADER + ROW)
    Path("imports.db").write_bytes(content)
    assert message in refused(capsys, "run", "a.csv", "--base-url", HERE)
    assert Path("imports.db").read_bytes() == content


def _import_here() -> None:
    Path("config.toml").write_text("[retry]\nattempts = 1\n")
    Path("a.csv").write_text(HEADER + ROW)
    assert call(["run", "a.csv", "--base-url", HERE, "-q"]) == 1
    connection = sqlite3.connect("imports.db")
    with connection:
        connection.execute("UPDATE rows SET state = 'created', sid = 'UT1'")
    connection.close()


def test_a_ledger_of_another_target_is_refused_with_both_sides(capsys: pytest.CaptureFixture[str]) -> None:
    """A rehearsal's ledger must not make the real import skip its rows as done."""
    _import_here()
    capsys.readouterr()
    said = refused(capsys, "run", "a.csv", "--base-url", THERE)
    assert "this ledger belongs to this machine" in said
    assert "flex.example.com" in said
    assert "Its 1 created rows would be skipped as done" in said
    assert "--new-ledger" in said
    assert "--accept-target" in said


def test_a_changed_mapping_is_refused_with_the_rows_that_would_be_made_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Under the digest key another mapping makes other keys; the changed key is named, and the flag accepts it."""
    _import_here()
    Path("config.toml").write_text('[retry]\nattempts = 1\n[mapping]\ntype = "agent"\n')
    capsys.readouterr()
    said = refused(capsys, "run", "a.csv", "--base-url", HERE)
    assert "1 created rows" in said
    assert "would get new keys and be created again" in said
    assert "changed: mapping.type" in said
    assert call(["run", "a.csv", "--base-url", HERE, "--accept-new-keys", "-q"]) == 1


def test_check_shows_what_a_run_would_reject_with_lines_and_ends_1(capsys: pytest.CaptureFixture[str]) -> None:
    """Malformed lines and bad fields are grouped with examples; the good rows are still counted."""
    Path("a.csv").write_text(HEADER + ROW + "one,two\n" + ROW.replace("customer", "boss") + ROW)
    assert call(["check", "a.csv"]) == 1
    said = capsys.readouterr().out
    assert re.search(r"^4 rows in 1 file, read in [0-9.]+ s\. No network used, nothing sent\.$", said, re.MULTILINE)
    assert re.search(r"to send +1  in 1 channel\n", said)
    assert re.search(r"duplicate +1 ", said)
    assert re.search(r"rejected +2 ", said)
    assert re.search(r" 1  record +has 2 fields, the header has 4\n +a\.csv:3", said)
    assert "a.csv:4" in said
    assert "exit 1: 2 rows would be rejected" in said
    assert not Path("imports.db").exists()
    assert call(["check", "a.csv", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["read"], found["to_send"], found["duplicate"], found["rejected"]) == (4, 1, 1, 2)


def test_check_knows_what_the_ledger_has(capsys: pytest.CaptureFixture[str]) -> None:
    """A row that is created already is not to be sent."""
    _import_here()
    Path("a.csv").write_text(HEADER + ROW + ROW.replace("someone", "another"))
    capsys.readouterr()
    assert call(["check", "a.csv"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"to send +1  in 1 channel\n", said)
    assert re.search(r"already done +1  in ledger imports\.db\n", said)


def test_the_ledger_and_exports_are_for_their_owner_only(capsys: pytest.CaptureFixture[str]) -> None:
    """They hold people's data: mode 0600."""
    _import_here()
    assert call(["export", "-o", "all.csv"]) == 0
    capsys.readouterr()
    for name in ("imports.db", "all.csv"):
        assert stat.S_IMODE(Path(name).stat().st_mode) == 0o600
    assert call(["export", "-o", "no/such/folder.csv"]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_an_empty_file_may_be_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    """A holiday's header-only file is fine where the config says so."""
    Path("a.csv").write_text(HEADER)
    Path("config.toml").write_text("[source]\nallow_empty = true\n")
    assert call(["run", "a.csv", "--base-url", HERE]) == 0
    assert "0 = the sum of the lines above" in capsys.readouterr().out


def test_a_bug_is_called_a_bug(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 70 with the traceback, not a message that blames the user."""
    monkeypatch.setattr("worker.cli.looking.View", None)
    assert call(["status"]) == 70
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "exit 70: a bug in flex-import" in said


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """--help names the groups; each command's help has an example."""
    assert call(["--help"]) == 0
    said = capsys.readouterr().out
    for name in ("Import", "Look", "Care", "run", "check", "status", "export", "emulator"):
        assert name in said
    for name in ("run", "check", "status", "export", "emulator"):
        assert call([name, "--help"]) == 0
        assert f"Example: flex-import {name}" in capsys.readouterr().out
    assert call(["--version"]) == 0
