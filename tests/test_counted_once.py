"""What is in the ledger is counted once, said as it is, and can be sent again."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.samples_of import sid
from tests.test_clustering import command, groups, service, troubled
from tests.test_command import csv_of, states
from worker.emulator import Answer, Condition, Emulator

__all__ = ["service"]

Service = tuple[Emulator, str]


def query(folder: Path, statement: str) -> list[tuple[object, ...]]:
    """Return what the ledger's file answers."""
    with closing(sqlite3.connect(folder / "imports.db")) as connection, connection:
        return connection.execute(statement).fetchall()


async def test_rows_that_a_halt_kept_back_are_counted_once_by_the_next_run(tmp_path: Path, service: Service) -> None:
    """They are sent from their stored records before the file is read, and are created rows of the input."""
    emulator, base_url = service
    (tmp_path / "a.csv").write_text(csv_of(30))
    emulator.script(sid("UO", 0), Answer(status=401, code=20003))
    ended = await command(tmp_path, base_url, "run", "a.csv", "--rate", "5", "--json")
    account = json.loads(ended.out)
    assert (ended.code, account["not_sent"] > 1) == (3, True), ended.err
    failed = states(tmp_path)["failed"]
    assert query(tmp_path, "SELECT count(*) FROM rows WHERE code = 'not_sent'") == [(failed - 1,)]
    ended = await command(tmp_path, base_url, "run", "a.csv", "--rate", "inf")
    created = f"{30 - account['created']} created"
    already = f" + {account['created']} already done" if account["created"] else ""
    assert f"exit 0: 30 rows = {created}{already}; identity holds" in ended.out
    assert "earlier" not in ended.out
    assert emulator.stats.created == 30


async def test_a_row_that_fails_again_is_counted_once(tmp_path: Path, service: Service) -> None:
    """Whatever becomes of it, it is one row of the input."""
    emulator, base_url = service
    (tmp_path / "a.csv").write_text(csv_of(6))
    for answers in range(2):
        for number in range(2):
            emulator.script(sid("UO", number), Answer(status=403, code=20003 + 47))
        ended = await command(tmp_path, base_url, "run", "a.csv", "--json")
        account = json.loads(ended.out)
        assert account["identity_holds"], ended.err
        assert sum(account[name] for name in ("created", "already_done", "failed", "rejected")) == 6, answers


async def test_a_retry_of_parked_rows_sends_the_row_that_met_the_channel(tmp_path: Path, service: Service) -> None:
    """It is rejected and those behind it are parked, but for one reason; other rejected rows stay."""
    emulator, base_url = service
    await troubled(tmp_path, service)
    emulator.declare(sid("UO", 0), Condition.OPEN)
    arrived = emulator.stats.arrived
    ended = await command(tmp_path, base_url, "retry", "--state", "parked", "--json")
    assert json.loads(ended.out)["requests"] == 2, ended.err
    assert emulator.stats.arrived == arrived + 2
    assert states(tmp_path) == {"created": 4, "rejected": 1, "in_doubt": 1}


async def test_a_retry_says_that_records_were_pruned_and_frees_their_rows(tmp_path: Path, service: Service) -> None:
    """There is nothing to send them from, so the files that hold them are."""
    emulator, base_url = service
    (tmp_path / "a.csv").write_text(csv_of(2))
    emulator.script(sid("UO", 0), Answer(status=400, code=20001))
    assert (await command(tmp_path, base_url, "run", "a.csv")).code == 1
    query(tmp_path, "DELETE FROM payloads")
    ended = await command(tmp_path, base_url, "retry")
    assert "1 row cannot be sent from the ledger: the records have been pruned" in ended.err
    assert "files that hold them to flex-import run once more" in ended.err
    [group] = await groups(tmp_path, base_url)
    assert (group["state"], group["code"]) == ("failed", "pruned")
    assert "pruned" not in (await command(tmp_path, base_url, "retry")).err
    ended = await command(tmp_path, base_url, "run", "a.csv")
    assert ended.code == 0, ended.out
    assert states(tmp_path) == {"created": 2}


async def test_a_changed_record_is_not_kept(tmp_path: Path, service: Service) -> None:
    """The ledger drops the record of a created row; a later version of it is people's data, too."""
    _, base_url = service
    (tmp_path / "config.toml").write_text('[source]\nkey = "{interaction_sid}"\n')
    (tmp_path / "a.csv").write_text(csv_of(1))
    assert (await command(tmp_path, base_url, "run", "a.csv")).code == 0
    (tmp_path / "a.csv").write_text(csv_of(1).replace("p0@", "secret@"))
    ended = await command(tmp_path, base_url, "run", "a.csv", "--json")
    assert json.loads(ended.out)["changed"] == 1
    assert query(tmp_path, "SELECT kind, record FROM findings") == [("changed", None)]


async def test_a_record_of_two_files_is_waived_as_one(tmp_path: Path, service: Service) -> None:
    """It is one record, wherever it stands."""
    _, base_url = service
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(csv_of(1) + "too,few\n")
    assert (await command(tmp_path, base_url, "run", "a.csv", "b.csv")).code == 1
    [group] = await groups(tmp_path, base_url)
    ended = await command(tmp_path, base_url, "waive", "--cluster", group["id"], "--reason", "a footer", "--yes")
    assert ended.out.split("  ", 1)[1].startswith("1 row waived")
    assert await groups(tmp_path, base_url) == []


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-8-sig", b""),
        ("utf-8-sig", b"\xef\xbb\xbf"),
        ("utf-16", b"\xff\xfe"),
        ("utf-16", b"\xfe\xff"),
        ("utf-32", b"\x00\x00\xfe\xff"),
    ],
)
async def test_rejects_begin_as_their_input_does(tmp_path: Path, service: Service, encoding: str, mark: bytes) -> None:
    """With its byte-order mark, or without one: the files are byte for byte."""
    _, base_url = service
    codec = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be", b"\x00\x00\xfe\xff": "utf-32-be"}.get(mark, "utf-8")
    header, _ = csv_of(1).split("\n", 1)
    original = mark + f"{header}\ntoo,few\n".encode(codec)
    (tmp_path / "a.csv").write_bytes(original)
    (tmp_path / "config.toml").write_text(f'[source]\nencoding = "{encoding}"\n')
    assert (await command(tmp_path, base_url, "run", "a.csv")).code == 1
    assert (await command(tmp_path, base_url, "export", "--rejects", "fix")).code == 0
    assert (tmp_path / "fix" / "a.csv").read_bytes() == original
    assert (await command(tmp_path, base_url, "check", "a.csv", "--rejects", "checked")).code == 1
    assert (tmp_path / "checked" / "a.csv").read_bytes() == original
