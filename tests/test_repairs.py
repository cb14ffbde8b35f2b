"""The repair loop with the real command: rejected, exported, repaired, sent, and settled everywhere."""

import csv
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.commands import QUICK, Ended, flex_import
from tests.samples_of import sid
from worker.emulator import Answer, Emulator, serve

HEADER = "nr,interaction_sid,channel_sid,type,address\n"
CONFIG = (
    '[mapping]\ninteraction_sid = "{{interaction_sid}}"\nchannel_sid = "{{channel_sid}}"\ntype = "{{type}}"\n'
    '[mapping.media_properties]\naddress = "{{address}}"\n[source]\nkey = "{key}"\n'
)


@pytest.fixture
async def service() -> AsyncIterator[tuple[Emulator, str]]:
    """An emulated service on loopback."""
    emulator = Emulator()
    async with serve(emulator) as base_url:
        yield emulator, base_url


async def command(folder: Path, base_url: str, *words: str) -> Ended:
    """Run a command against the service."""
    given = {**QUICK, "FLEX_IMPORT__API__BASE_URL": base_url, "FLEX_IMPORT__LIMITS__RATE_PER_SECOND": "inf"}
    return await flex_import(*words, cwd=folder, env=given)


def record(nr: int, kind: str = "customer") -> str:
    """Return a line of the input."""
    return f"{nr},{sid('KD', nr)},{sid('UO', nr)},{kind},p{nr}@example.com\n"


async def counts(folder: Path, base_url: str) -> dict[str, int]:
    """Return what `status` counts; export and rejects have to agree with it."""
    found = json.loads((await command(folder, base_url, "status", "--json")).out)
    states = {name: found[name] for name in ("created", "rejected", "parked", "failed", "in_doubt", "closed", "waived")}
    rows = [
        json.loads(line) for line in (await command(folder, base_url, "export", "--format", "ndjson")).out.splitlines()
    ]
    assert {name: sum(row["state"] == name for row in rows) for name in states} == states
    groups = json.loads((await command(folder, base_url, "failures", "--json")).out)
    assert sum(one["rows"] for one in groups if one["state"] == "rejected") == states["rejected"]
    return {name: number for name, number in states.items() if number}


def repaired(path: Path, old: str, new: str) -> None:
    """Repair a file of rejects."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


async def test_a_repaired_row_settles_its_rejection_by_its_key(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """From whatever file it was created: the original is done, its nightly run ends 0, no export has it again."""
    emulator, base_url = service
    (tmp_path / "config.toml").write_text(CONFIG.format(key="p:{nr}"))
    (tmp_path / "a.csv").write_text(HEADER + record(1) + record(2, "custmer"))
    assert (await command(tmp_path, base_url, "run", "a.csv")).code == 1
    assert await counts(tmp_path, base_url) == {"created": 1, "rejected": 1}
    assert (await command(tmp_path, base_url, "export", "--rejects", "fix")).code == 0
    repaired(tmp_path / "fix" / "a.csv", "custmer", "customer")
    assert (await command(tmp_path, base_url, "run", "fix/a.csv")).code == 0
    assert await counts(tmp_path, base_url) == {"created": 2}
    again = await command(tmp_path, base_url, "run", "a.csv", "--json")
    told = json.loads(again.out)
    assert (again.code, told["already_done"], told["rejected"]) == (0, 2, 0)
    shown = await command(tmp_path, base_url, "run", "a.csv")
    assert "by earlier runs; 1 of them repaired" in shown.out
    assert (await command(tmp_path, base_url, "check", "a.csv")).code == 0
    assert "nothing is rejected" in (await command(tmp_path, base_url, "export", "--rejects", "more")).out
    assert emulator.stats.created == 2


async def test_a_key_that_is_rejected_in_two_files_counts_once(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """A repair that was none: the rejects have the newer record only."""
    _, base_url = service
    (tmp_path / "config.toml").write_text(CONFIG.format(key="p:{nr}"))
    (tmp_path / "a.csv").write_text(HEADER + record(1, "x") + record(2, "y"))
    await command(tmp_path, base_url, "run", "a.csv")
    await command(tmp_path, base_url, "export", "--rejects", "fix")
    repaired(tmp_path / "fix" / "a.csv", ",x,", ",z,")
    assert (await command(tmp_path, base_url, "run", "fix/a.csv")).code == 1
    assert await counts(tmp_path, base_url) == {"rejected": 2}
    await command(tmp_path, base_url, "export", "--rejects", "again")
    assert ",z," in (tmp_path / "again" / "a.csv").read_text()


@pytest.mark.parametrize("key", ["p:{nr}", ""])
async def test_with_reasons_a_repair_settles_what_it_repairs(
    tmp_path: Path, service: tuple[Emulator, str], key: str
) -> None:
    """Under the digest key, too, where the repaired record has another key: local rejections and the service's own."""
    emulator, base_url = service
    (tmp_path / "config.toml").write_text(CONFIG.format(key=key))
    emulator.script(sid("UO", 3), Answer(status=400, code=20001))
    (tmp_path / "a.csv").write_text(HEADER + record(1) + record(2, "custmer") + record(3) + "4,short\n")
    assert (await command(tmp_path, base_url, "run", "a.csv")).code == 1
    assert await counts(tmp_path, base_url) == {"created": 1, "rejected": 3}
    assert (await command(tmp_path, base_url, "export", "--rejects", "fix", "--with-reasons")).code == 0
    fix = tmp_path / "fix" / "a.csv"
    with fix.open(newline="", encoding="utf-8-sig") as stream:
        found = list(csv.DictReader(stream))
    assert list(found[0])[-2:] == ["flex_ref", "flex_reason"]
    assert [one["nr"] for one in found] == ["2", "3", "4"]
    assert found[1]["flex_reason"].startswith("rejected: ")
    assert found[1]["flex_reason"].endswith("(20001)")

    # a first attempt repairs one and spoils nothing
    repaired(fix, "custmer", "customer")
    repaired(fix, "p3@example.com", "q3@example.com")
    assert (await command(tmp_path, base_url, "run", "fix/a.csv")).code == 1
    assert await counts(tmp_path, base_url) == {"created": 3, "rejected": 1}
    told = json.loads((await command(tmp_path, base_url, "run", "a.csv", "--json")).out)
    assert (told["already_done"], told["rejected"], told["requests"]) == (3, 1, 0)

    # the last one is repaired from a second export, whose columns are set anew
    assert (await command(tmp_path, base_url, "export", "--rejects", "fix2", "--with-reasons")).code == 0
    again = tmp_path / "fix2" / "a.csv"
    with again.open(newline="", encoding="utf-8-sig") as stream:
        columns, *records = list(csv.reader(stream))
    assert columns.count("flex_ref") == 1
    assert len(records) == 1
    whole = dict(zip(columns, records[0], strict=False)) | dict(
        zip(HEADER.strip().split(","), record(4).strip().split(","), strict=True)
    )
    with again.open("w", newline="") as stream:
        csv.writer(stream).writerows([columns, [whole[name] for name in columns]])
    assert (await command(tmp_path, base_url, "run", "fix2/a.csv")).code == 0
    assert await counts(tmp_path, base_url) == {"created": 4}
    for name in ("a.csv", "fix/a.csv", "fix2/a.csv"):
        ended = await command(tmp_path, base_url, "run", name)
        assert ended.code == 0, ended.out
    retried = await command(tmp_path, base_url, "retry")
    assert "rejected" not in retried.out
    assert emulator.stats.created == 4
    assert await counts(tmp_path, base_url) == {"created": 4}


async def test_a_failed_record_that_was_exported_is_not_sent_twice(
    tmp_path: Path, service: tuple[Emulator, str]
) -> None:
    """The next run sends it from the ledger; a copy with another content names it, and is its duplicate."""
    emulator, base_url = service
    (tmp_path / "config.toml").write_text(CONFIG.format(key=""))
    emulator.script(sid("UO", 1), *[Answer(status=413, body=b"<html>")] * 1)
    (tmp_path / "a.csv").write_text(HEADER + record(1))
    await command(tmp_path, base_url, "run", "a.csv")
    assert await counts(tmp_path, base_url) == {"failed": 1}
    await command(tmp_path, base_url, "export", "--rejects", "fix", "--with-reasons")
    repaired(tmp_path / "fix" / "a.csv", "p1@example.com", "q1@example.com")
    ended = await command(tmp_path, base_url, "run", "fix/a.csv")
    assert ended.code == 0, ended.out
    assert await counts(tmp_path, base_url) == {"created": 1}
    assert emulator.stats.created == 1


async def test_the_input_is_written_again_with_what_became_of_it(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """Each record with its own row's state and sid, in its order; before a run nothing was sent, repairs are told."""
    emulator, base_url = service
    (tmp_path / "config.toml").write_text(CONFIG.format(key="p:{nr}"))
    emulator.script(sid("UO", 3), Answer(status=400, code=20001))
    emulator.script(sid("UO", 5), Answer(status=500, code=20500))
    lines = [
        record(1),
        record(2, "custmer"),
        record(3),
        record(1),
        record(1).replace("p1@", "q1@"),
        "4,short\n",
        record(5),
    ]
    (tmp_path / "a.csv").write_text(HEADER + "".join(lines))
    (tmp_path / "b.csv").write_text(HEADER + record(9))
    await flex_import("run", "a.csv", cwd=tmp_path, env={**QUICK, "FLEX_IMPORT__API__BASE_URL": base_url,
                                                         "FLEX_IMPORT__DOUBT__POLICY": "hold"})  # fmt: skip
    ended = await command(tmp_path, base_url, "annotate", "a.csv", "b.csv", "--output", "out", "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)[1] == {"source": "b.csv", "path": "out/b.csv", "states": {"not_sent": 1}}
    sids = {one.channel_sid: one.sid for one in emulator.participants}

    def told(folder: str) -> list[tuple[str, ...]]:
        text = (tmp_path / folder / "a.csv").read_text(encoding="utf-8-sig")
        head, *found = csv.reader(text.splitlines())
        assert head == [*HEADER.strip().split(","), "flex_state", "flex_sid", "flex_code", "flex_reason"]
        assert [one[:-4] for one in found] == [(line.strip().split(",") + [""] * 5)[:5] for line in lines]
        return [tuple(one[-4:-1]) for one in found]

    first = sids[sid("UO", 1)]
    assert told("out") == [
        ("created", first, ""), ("rejected", "", "invalid"), ("rejected", "", "20001"), ("created", first, ""),
        ("rejected", "", "key_conflict"), ("rejected", "", "malformed"), ("in_doubt", "", "20500"),
    ]  # fmt: skip
    await command(tmp_path, base_url, "export", "--rejects", "fix")
    repaired(tmp_path / "fix" / "a.csv", "custmer", "customer")
    await command(tmp_path, base_url, "run", "fix/a.csv")
    assert (await command(tmp_path, base_url, "annotate", "a.csv", "--output", "out")).code == 2, "it exists"
    shown = await command(tmp_path, base_url, "annotate", "a.csv", "--output", "again")
    assert shown.out == "again/a.csv: 4 created, 3 rejected\n"
    mended = next(one.sid for one in emulator.participants if one.channel_sid == sid("UO", 2))
    assert told("again")[1] == ("created", mended, "repaired")


async def test_one_of_two_records_with_one_key_is_not_settled_by_the_other(
    tmp_path: Path, service: tuple[Emulator, str]
) -> None:
    """In one file a key stands for one record: the other one has a wrong key, and needs a repair."""
    _, base_url = service
    (tmp_path / "config.toml").write_text(CONFIG.format(key="p:{nr}"))
    spoiled = record(2, "custmer").replace("2,", "1,", 1)
    (tmp_path / "a.csv").write_text(HEADER + record(1) + spoiled)
    for _ in range(2):
        assert (await command(tmp_path, base_url, "run", "a.csv")).code == 1
        assert await counts(tmp_path, base_url) == {"created": 1, "rejected": 1}
