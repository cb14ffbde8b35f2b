"""Rows in doubt and what is done about them from the command line: failures, reconcile, resolve, retry."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.commands import CREDENTIALS, HOLDING, QUICK, Ended, flex_import
from tests.samples_of import sid
from tests.test_command import csv_of, states
from worker.cli import call, deciding
from worker.emulator import Answer, Condition, Emulator, Fault, after, before, serve


@pytest.fixture
async def service() -> AsyncIterator[tuple[Emulator, str]]:
    """An emulated service on loopback."""
    emulator = Emulator()
    async with serve(emulator) as base_url:
        yield emulator, base_url


async def command(folder: Path, base_url: str, *words: str, env: dict[str, str] | None = None) -> Ended:
    """Run a command against the service."""
    given = {**(env or QUICK), "FLEX_IMPORT__API__BASE_URL": base_url, "FLEX_IMPORT__LIMITS__RATE_PER_SECOND": "inf"}
    return await flex_import(*words, cwd=folder, env=given)


async def doubtful(folder: Path, service: tuple[Emulator, str]) -> str:
    """Import three rows of which one was made and one was not, both without an answer; returns the made one's sid."""
    emulator, base_url = service
    (folder / "config.toml").write_text('[source]\nkey = "row:{id}"\n')
    lines = csv_of(3).splitlines(keepends=True)
    (folder / "a.csv").write_text("id," + lines[0] + "".join(f"{n},{line}" for n, line in enumerate(lines[1:])))
    emulator.script(sid("UO", 0), after(Fault.NULL_SID))
    emulator.script(sid("UO", 1), before(Fault.RESET))
    ended = await command(folder, base_url, "run", "a.csv", env=HOLDING)
    assert ended.code == 4, ended.err
    assert states(folder) == {"created": 1, "in_doubt": 2}
    return next(one.sid for one in emulator.participants if one.channel_sid == sid("UO", 0))


async def test_a_doubt_is_shown_looked_at_and_decided(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """What lists can tell they tell; the rest is shown with its candidate, decided by a person, and recorded."""
    emulator, base_url = service
    made = await doubtful(tmp_path, service)
    shown = await command(tmp_path, base_url, "failures", "--state", "in_doubt")
    assert "2 rows in doubt" in shown.out
    assert "row:0  customer, a.csv:2" in shown.out

    looked = await command(tmp_path, base_url, "reconcile")
    assert looked.code == 4, looked.out + looked.err
    assert looked.out.startswith("Looked at 2 rows in doubt: 1 settled, 1 needs you.\n")
    assert states(tmp_path) == {"created": 1, "in_doubt": 1, "failed": 1}
    assert emulator.stats.arrived == 3, "reconcile sends nothing"
    shown = await command(tmp_path, base_url, "failures", "--state", "in_doubt")
    assert f"may be {made}" in shown.out
    assert "not listed before" in shown.out

    decided = await command(tmp_path, base_url, "resolve", "row:0", "--created", made)
    assert (decided.code, decided.out) == (0, f"row:0  created {made}\n")
    done = await command(tmp_path, base_url, "run", "a.csv")
    assert done.code == 0, done.out
    assert "3 rows = 1 created + 2 already done; identity holds" in done.out
    assert states(tmp_path) == {"created": 3}
    addresses = [one.media_properties["address"] for one in emulator.participants]
    assert sorted(addresses) == [f"p{number}@example.com" for number in range(3)]


async def test_nobody_says_not_created_while_the_service_may_still_create_it(
    tmp_path: Path, service: tuple[Emulator, str]
) -> None:
    """Within the settle time a person sees no more than a list does: only --force decides then."""
    _, base_url = service
    made = await doubtful(tmp_path, service)
    patient = {**QUICK, "FLEX_IMPORT__DOUBT__SETTLE_SECONDS": "3600"}
    early = await command(tmp_path, base_url, "resolve", "row:1", "--not-created", env=patient)
    assert early.code == 2
    assert "row:1: its request ended" in early.err
    assert "doubt.settle_seconds" in early.err
    found = await command(tmp_path, base_url, "resolve", "row:0", "--created", made, "--force", env=patient)
    assert found.code == 0, found.err
    assert states(tmp_path) == {"created": 2, "in_doubt": 1}
    forced = await command(tmp_path, base_url, "resolve", "row:1", "--not-created", "--force", env=patient)
    assert forced.code == 0, forced.err


async def test_decisions_come_from_a_file_too(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """A column for the key, one for the sid; an empty sid means that the row was not created."""
    _, base_url = service
    made = await doubtful(tmp_path, service)
    (tmp_path / "decided.csv").write_text(f"key,sid\nrow:0,{made}\nrow:1,\n")
    settled = {**QUICK, "FLEX_IMPORT__DOUBT__SETTLE_SECONDS": "0.001"}
    decided = await command(tmp_path, base_url, "resolve", "--from", "decided.csv", env=settled)
    assert decided.code == 2
    assert f"decided.csv:2: {made} is not a candidate of this row: no list of its channel has shown any" in decided.err
    decided = await command(tmp_path, base_url, "resolve", "--from", "decided.csv", "--force")
    assert decided.code == 0, decided.err
    assert states(tmp_path) == {"created": 2, "failed": 1}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "name the keys"),
        (("row:0",), "either --created SID or --not-created"),
        (("row:0", "--created", "UT1"), '--created: "UT1" is no participant'),
        (("row:0", "row:1", "--created", sid("UT", 1)), "one sid is one row's"),
        (("row:", "--not-created"), "row:: several rows in doubt begin so"),
        (("row:2", "--not-created"), "row:2: no row in doubt has this key"),
        (("row:0", "row:0", "--not-created"), "the row row:0 is named twice"),
        (("--from", "nowhere.csv"), "nowhere.csv: cannot be read"),
        (("--from", "a.csv"), 'needs the columns "key" and "sid"'),
        (("--from", "twice.csv"), "is named twice"),
        (("--from", "capitals.csv", "--force"), "is named twice"),
    ],
)
async def test_a_decision_that_makes_no_sense_changes_nothing(
    tmp_path: Path, service: tuple[Emulator, str], words: tuple[str, ...], says: str
) -> None:
    """Unknown, ambiguous and repeated keys, sids that are none: refused with the key or line, all or nothing."""
    _, base_url = service
    await doubtful(tmp_path, service)
    (tmp_path / "twice.csv").write_text(f"key,sid\nrow:0,{sid('UT', 7)}\nrow:1,{sid('UT', 7)}\n")
    capitals = "UT" + sid("UT", 7)[2:].upper()
    (tmp_path / "capitals.csv").write_text(f"key,sid\nrow:0,{sid('UT', 7)}\nrow:1,{capitals}\n")
    ended = await command(tmp_path, base_url, "resolve", *words)
    assert ended.code == 2
    assert says in ended.err
    assert states(tmp_path) == {"created": 1, "in_doubt": 2}


async def test_a_sid_that_is_another_row_s_is_refused(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """One participant is one row's."""
    emulator, base_url = service
    await doubtful(tmp_path, service)
    taken = next(one.sid for one in emulator.participants if one.channel_sid == sid("UO", 2))
    ended = await command(tmp_path, base_url, "resolve", "row:0", "--created", taken)
    assert ended.code == 2
    assert f"{taken} is the participant of row row:2 already" in ended.err
    for words in (("--force",), ()):
        capitals = "UT" + taken[2:].upper()
        ended = await command(tmp_path, base_url, "resolve", "row:0", "--created", capitals, *words)
        assert ended.code == 2
        assert f"{capitals} is the participant of row row:2 already" in ended.err
    assert states(tmp_path) == {"created": 1, "in_doubt": 2}


async def test_a_sid_that_undo_closed_is_no_other_row_s(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """It stays the participant of the row that it was, and has left: --force does not help, nor freeing that row."""
    emulator, base_url = service
    await doubtful(tmp_path, service)
    closed = next(one.sid for one in emulator.participants if one.channel_sid == sid("UO", 2))
    assert (await command(tmp_path, base_url, "undo", "--all", "--yes")).code == 0
    for freed in (False, True):
        if freed:
            assert (await command(tmp_path, base_url, "retry", "--state", "closed")).code == 0
        ended = await command(tmp_path, base_url, "resolve", "row:0", "--created", closed, "--force")
        assert ended.code == 2
        assert f"{closed} was the participant of row row:2, and was closed by undo" in ended.err
    assert states(tmp_path) == {"failed": 1, "in_doubt": 2}


async def test_a_sid_that_no_list_showed_takes_force(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """A mistyped sid would end a doubt that is none of its business; a candidate is taken however it is spelt."""
    _, base_url = service
    made = await doubtful(tmp_path, service)
    words = ("resolve", "row:0", "--created")
    other = sid("UT", 99)
    for shown in ("no list of its channel has shown any", f"the list of its channel showed {made}"):
        ended = await command(tmp_path, base_url, *words, other)
        assert (ended.code, ended.out) == (2, "")
        assert f"row:0: {other} is not a candidate of this row: {shown}" in ended.err
        assert "--force records it all the same" in ended.err
        assert states(tmp_path)["in_doubt"] >= 1
        assert (await command(tmp_path, base_url, "reconcile")).code == 4
    decided = await command(tmp_path, base_url, *words, "UT" + made[2:].upper())
    assert (decided.code, decided.out) == (0, f"row:0  created {made}\n")
    assert states(tmp_path) == {"created": 2, "failed": 1}


async def test_force_records_what_a_person_says(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """Where lists are not to be had, a person may have looked elsewhere."""
    _, base_url = service
    made = await doubtful(tmp_path, service)
    decided = await command(tmp_path, base_url, "resolve", "row:0", "--created", made, "--force")
    assert (decided.code, decided.out) == (0, f"row:0  created {made}\n")


@pytest.mark.parametrize("answer", ["y", "n"])
async def test_at_a_terminal_a_sid_that_no_list_showed_is_asked_about(
    tmp_path: Path, service: tuple[Emulator, str], monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    """With the row, the sid and the candidates; a no records nothing."""
    _, base_url = service
    made = await doubtful(tmp_path, service)
    asked: list[str] = []

    def agreed(plan: str, question: str) -> bool:
        asked.append(f"{plan} {question}")
        return answer == "y"

    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(deciding, "at_terminal", lambda: True)
    monkeypatch.setattr(deciding, "agreed", agreed)
    code = call(["resolve", "row:0", "--created", made, "--base-url", base_url])
    assert code == (0 if answer == "y" else 2)
    assert asked == [
        f"row:0: {made} is not a candidate of this row: no list of its channel has shown any Record it all the same?"
    ]
    assert states(tmp_path)["in_doubt"] == (1 if answer == "y" else 2)


async def test_retry_sends_what_was_refused_from_the_stored_records(
    tmp_path: Path, service: tuple[Emulator, str]
) -> None:
    """A conversation that is open again, a row that is fine after all; the file is not needed."""
    emulator, base_url = service
    emulator.declare(sid("UO", 0), Condition.CLOSED)
    emulator.script(sid("UO", 1), Answer(status=400, code=20001))
    (tmp_path / "a.csv").write_text(csv_of(6, 3))
    assert (await command(tmp_path, base_url, "run", "a.csv")).code == 1
    assert states(tmp_path) == {"created": 3, "rejected": 2, "parked": 1}
    (tmp_path / "a.csv").unlink()
    emulator.declare(sid("UO", 0), Condition.OPEN)
    parked = await command(tmp_path, base_url, "retry", "--state", "parked")
    assert (parked.code, states(tmp_path)) == (0, {"created": 5, "rejected": 1}), parked.out
    rest = await command(tmp_path, base_url, "retry", "-q")
    assert (rest.code, rest.out, states(tmp_path)) == (0, "", {"created": 6})
    assert emulator.stats.created == 6


async def test_what_reads_no_input_needs_its_ledger_and_the_same_target(
    tmp_path: Path, service: tuple[Emulator, str]
) -> None:
    """Nothing is made silently, and no other service is asked about this ledger's rows."""
    _, base_url = service
    for words in (("reconcile",), ("retry",), ("resolve", "k", "--not-created")):
        ended = await command(tmp_path, base_url, *words)
        assert (ended.code, "there is no ledger at" in ended.err) == (2, True)
    await doubtful(tmp_path, service)
    ended = await command(tmp_path, "https://flex.example.com", "reconcile", env=CREDENTIALS)
    assert ended.code == 2
    assert "this ledger belongs to this machine" in ended.err
    ended = await command(tmp_path, base_url, "retry", "--state", "created")
    assert "only rejected, parked, failed and closed rows" in ended.err
