"""A word to a run that is at work: given beside it, heard by it alone, and never in its way."""

import fcntl
import getpass
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from math import inf
from pathlib import Path

import pytest

from tests.commands import ROOT, flex_import
from tests.ledger_contract import Desk, at_work, child
from tests.test_ledger_sqlite import HOLD, SqlitePlace, earlier_version, fill, integrity, small_disk
from worker.cli import call, telling
from worker.errors import LedgerError, LedgerHeldError, LedgerRefusedError
from worker.ledger import Intent, steering
from worker.ledger import file as opening_room
from worker.ledger import lock as lock_room
from worker.ledger.connection import Connection
from worker.ledger.lock import Lock, holder_of
from worker.ledger.opening import create_ledger, open_beside
from worker.ledger.schema import MIGRATIONS
from worker.ledger.sqlite import SqliteLedger
from worker.ledger.steering import Command, Order, Orders, give_order

ME = f"process {os.getpid()}"


@pytest.fixture
def place(tmp_path: Path) -> SqlitePlace:
    """Return a folder with no ledger yet."""
    return SqlitePlace(tmp_path / "imports.db")


@pytest.fixture
def desk(place: SqlitePlace) -> Iterator[Desk]:
    """Return a new ledger in its first run."""
    with at_work(place) as desk:
        yield desk


def recorded(path: Path) -> list[tuple[int, str, float | None, str]]:
    """Return the orders that a ledger holds: run, command, rate, who gave it."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT run_id, command, rate, given_by FROM orders ORDER BY id").fetchall()


# ---- giving and hearing ---------------------------------------------------------------------------------------------


def test_orders_are_heard_once_and_in_the_order_in_which_they_were_given(desk: Desk, place: SqlitePlace) -> None:
    """Those from before the first look, and those between two looks; each with its rate and who gave it."""
    assert give_order(place.path, "rate", 2.5, "ann@desk") == [desk.run]
    give_order(place.path, "pause", None, "bob@desk")
    with Orders(place.path, desk.run) as orders:
        assert orders.next() == [Order(1, "rate", 2.5, "ann@desk"), Order(2, "pause", None, "bob@desk")]
        assert orders.next() == []
        give_order(place.path, "resume", None, "ann@desk")
        give_order(place.path, "rate", inf, "ann@desk")
        give_order(place.path, "drain", None, "ann@desk")
        assert [order[1:3] for order in orders.next()] == [("resume", None), ("rate", inf), ("drain", None)]
        assert orders.next() == []


def test_workers_heed_what_was_told_before_they_came(place: SqlitePlace) -> None:
    """The last pause and the last rate, until somebody says otherwise; a drain is for those who are there."""

    def heard() -> list[tuple[Command, float | None]]:
        with at_work(place) as desk:
            number = desk.ledger.start_run("worker")
            with Orders(place.path, number, standing=True) as orders:
                found = [order[1:3] for order in orders.next()]
                assert orders.next() == []
                return found

    def told(*given: tuple[Command, float | None]) -> None:
        with at_work(place) as desk:
            desk.ledger.start_run("worker")
            for command, rate in given:
                give_order(place.path, command, rate, "ann@desk")

    assert heard() == []
    told(("rate", 2.0), ("pause", None), ("rate", 5.0), ("drain", None))
    assert heard() == heard() == [("pause", None), ("rate", 5.0)]
    with at_work(place) as desk, Orders(place.path, desk.run, standing=False) as orders:
        assert orders.next() == []
        give_order(place.path, "resume", None, "ann@desk")
    assert heard() == [("pause", None), ("rate", 5.0)], "what a run was told is no worker's affair"
    told(("resume", None))
    assert heard() == [("rate", 5.0)]
    told(("rate", inf))
    assert heard() == []


def test_an_order_is_recorded_with_its_moment(desk: Desk, place: SqlitePlace) -> None:
    """Who asks later why a run was slow finds when it was told so, and by whom."""
    before = time.time_ns() // 1_000_000
    give_order(place.path, "rate", 5, "ann@desk")
    assert recorded(place.path) == [(desk.run, "rate", 5.0, "ann@desk")]
    with closing(sqlite3.connect(place.path)) as connection:
        [(given_at,)] = connection.execute("SELECT given_at FROM orders")
    assert before <= given_at <= time.time_ns() // 1_000_000


def test_an_order_ends_with_its_run(desk: Desk, place: SqlitePlace) -> None:
    """The next run hears nothing of what the last one was told, nor a look of the last one what the next is told."""
    give_order(place.path, "pause", None, "ann@desk")
    last = desk.run
    desk.begin_next_run()
    with Orders(place.path, last) as earlier, Orders(place.path, desk.run) as orders:
        assert orders.next() == []
        assert give_order(place.path, "drain", None, "ann@desk") == [desk.run]
        assert [order.command for order in orders.next()] == ["drain"]
        assert [order.command for order in earlier.next()] == ["pause"]


@pytest.mark.parametrize("command", ["run", "retry", "reconcile"])
def test_what_sends_or_lists_can_be_steered(place: SqlitePlace, command: str) -> None:
    """The three commands whose runs take long."""
    with closing(place.open()) as ledger:
        number = ledger.start_run(command)
        assert give_order(place.path, "pause", None, "ann@desk") == [number]


def test_a_name_that_is_no_text_is_no_obstacle(desk: Desk, place: SqlitePlace) -> None:
    """A user's name may come from an environment in some old encoding."""
    give_order(place.path, "pause", None, "j\udcfcrgen@desk")
    with Orders(place.path, desk.run) as orders:
        assert [order.by for order in orders.next()] == ["j?rgen@desk"]


def test_an_order_is_on_the_disk_when_it_is_said_to_be_given(desk: Desk, place: SqlitePlace) -> None:
    """The second connection syncs at each commit, keeps the log, and minds references, as the first one does."""
    assert desk.run
    with closing(open_beside(place.path)) as connection:
        pragmas = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        found = [connection.execute(f"PRAGMA {pragma}").fetchone()[0] for pragma in pragmas]
    assert found == ["wal", 2, 1, 5000]


def test_a_link_leads_to_the_same_run(desk: Desk, place: SqlitePlace, tmp_path: Path) -> None:
    """The lock is beside the file itself, whatever name the ledger is reached by."""
    (tmp_path / "link.db").symlink_to(place.path)
    assert give_order(tmp_path / "link.db", "pause", None, "ann@desk") == [desk.run]


# ---- nobody to give it to -------------------------------------------------------------------------------------------


def unused(place: SqlitePlace) -> None:
    """Leave a ledger in which nothing ever ran."""
    create_ledger(place.path)


def ended(place: SqlitePlace) -> None:
    """Leave a ledger whose run ended."""
    with at_work(place) as desk:
        desk.ledger.end_run(0, "finished", "{}")


def crashed(place: SqlitePlace) -> None:
    """Leave a ledger whose run was killed: it is still open in the books, but nobody holds the lock."""
    with child(place, HOLD) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("left", [unused, ended, crashed])
def test_without_a_run_there_is_nothing_to_steer(place: SqlitePlace, left: Callable[[SqlitePlace], None]) -> None:
    """What nobody would hear is not recorded; the lock tells, not the books."""
    left(place)
    with pytest.raises(LedgerRefusedError, match=r"imports\.db: no run is at work on this ledger, so there is none"):
        give_order(place.path, "pause", None, "ann@desk")
    assert recorded(place.path) == []


@pytest.mark.parametrize("left", [unused, ended, crashed])
def test_a_process_that_has_no_run_yet_or_any_more_cannot_be_steered(
    place: SqlitePlace, left: Callable[[SqlitePlace], None]
) -> None:
    """It holds the lock, but the newest run in the books is none, is over, or is another process's."""
    left(place)
    said = f"no run is at work on this ledger yet, or any more: {ME} has only just opened it"
    with closing(place.open()), pytest.raises(LedgerRefusedError, match=said):
        give_order(place.path, "pause", None, "ann@desk")
    assert recorded(place.path) == []


def test_a_run_ends_before_an_order_or_after_it_but_not_in_between(
    desk: Desk, place: SqlitePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the look whether it goes on until the order is in, it cannot be recorded as ended."""
    assert isinstance(desk.ledger, SqliteLedger)
    desk.ledger._connection.execute("PRAGMA busy_timeout = 0")
    look = steering._steered

    def look_and_end(connection: Connection, path: Path, holders: Sequence[str]) -> list[int]:
        number = look(connection, path, holders)
        with pytest.raises(LedgerError, match="database is locked"):
            desk.ledger.end_run(0, "finished", "{}")
        return number

    monkeypatch.setattr(steering, "_steered", look_and_end)
    assert give_order(place.path, "pause", None, "ann@desk") == [desk.run]
    monkeypatch.undo()

    def ask_and_end(_: Path) -> list[str]:
        desk.ledger.end_run(0, "finished", "{}")
        return [ME]

    monkeypatch.setattr(steering, "holders_of", ask_and_end)
    with pytest.raises(LedgerRefusedError, match="no run is at work on this ledger yet, or any more"):
        give_order(place.path, "drain", None, "ann@desk")
    assert [command for _, command, *_ in recorded(place.path)] == ["pause"]


def test_a_decision_being_recorded_cannot_be_steered(place: SqlitePlace) -> None:
    """Its command takes the lock, too, but it looks for no orders and is over at once."""
    with closing(place.open()) as ledger:
        ledger.start_run("resolve")
        with pytest.raises(LedgerRefusedError, match=r"run 1 \(resolve\) cannot be steered, only run, retry,"):
            give_order(place.path, "drain", None, "ann@desk")
    assert recorded(place.path) == []


def test_what_is_no_ledger_cannot_be_steered_and_is_left_alone(place: SqlitePlace) -> None:
    """No ledger, an older one, or something else: refused as elsewhere, and none is made."""
    with pytest.raises(LedgerRefusedError, match="there is no ledger at"):
        give_order(place.path, "pause", None, "ann@desk")
    assert list(place.path.parent.iterdir()) == []
    earlier_version(place.path, 2)
    with pytest.raises(LedgerRefusedError, match=rf"older flex-import \(schema 2, this one needs {len(MIGRATIONS)}\)"):
        give_order(place.path, "pause", None, "ann@desk")
    assert [found.name for found in place.path.parent.iterdir()] == ["imports.db"]
    place.path.write_text("my notes")
    with pytest.raises(LedgerRefusedError, match="is not a ledger"):
        give_order(place.path, "pause", None, "ann@desk")
    assert place.path.read_text() == "my notes"


# ---- what goes wrong ------------------------------------------------------------------------------------------------


def test_a_ledger_that_somebody_else_has_locked_takes_no_order(
    desk: Desk, place: SqlitePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After waiting for a while it is said, with what to do; nothing is half given, and the next try succeeds."""
    monkeypatch.setattr(opening_room, "_PATIENCE_BESIDE_MILLISECONDS", 1)
    with closing(sqlite3.connect(place.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(
            LedgerError, match=r"imports\.db: the order could not be written: database is locked; give it again"
        ):
            give_order(place.path, "pause", None, "ann@desk")
    assert recorded(place.path) == []
    assert give_order(place.path, "pause", None, "ann@desk") == [desk.run]


def give_orders(path: Path) -> None:
    """Give orders until the ledger takes no more: what ten rows do not fit into may be enough for some."""
    while True:
        give_order(path, "pause", None, "ann@desk")


def test_a_full_disk_takes_no_order(tmp_path: Path) -> None:
    """It is an error with the disk's reason; the run's ledger is as sound as before."""
    with small_disk(tmp_path / "disk", "600k"):
        place = SqlitePlace(tmp_path / "disk" / "imports.db")
        with at_work(place) as desk:
            written = fill(desk)
            with pytest.raises(LedgerError, match="the order could not be written: database or disk is full"):
                give_orders(place.path)
            assert len(place.rows()) == written
            assert integrity(place.path) == "ok"


def test_a_rate_that_the_ledger_would_not_keep_is_an_error(desk: Desk, place: SqlitePlace) -> None:
    """A rate without the command, or the command without one: the tables refuse it, whoever calls."""
    assert desk.run
    impossible: list[tuple[Command, float | None]] = [("rate", None), ("pause", 5), ("rate", 0), ("rate", float("nan"))]
    for command, rate in impossible:
        with pytest.raises(LedgerError, match="the order could not be written: CHECK constraint failed"):
            give_order(place.path, command, rate, "ann@desk")


def test_a_ledger_that_breaks_while_it_is_looked_at_is_an_error(desk: Desk, place: SqlitePlace) -> None:
    """The run hears of it as of any other end of its ledger."""
    with Orders(place.path, desk.run) as orders:
        with closing(sqlite3.connect(place.path)) as vandal, vandal:
            vandal.execute("ALTER TABLE orders RENAME TO gone")
        with pytest.raises(LedgerError, match="the orders to this run cannot be read: no such table"):
            orders.next()


# ---- beside a run ---------------------------------------------------------------------------------------------------

WRITING = """
from worker.ledger.steering import Orders
orders, number, heard = Orders(path, 1), 0, 0
print("begun", flush=True)
while heard < 20:
    ledger.write([Intent(row(number + n)._replace(source=source)) for n in range(50)])
    number += 50
    for order in orders.next():
        heard += 1
        print(order.number, order.command, order.rate, order.by, flush=True)
orders.close()
ledger.end_run(0, "finished", "{}")
ledger.close()
print(number)
"""


def test_a_run_that_writes_all_the_time_hears_every_order(place: SqlitePlace) -> None:
    """Another process commits without a pause; each order gets in between and is heard, and no row is lost."""
    with child(place, WRITING) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        given = [give_order(place.path, "rate", number, f"ann{number}@desk") for number in range(1, 21)]
        *heard, rows = process.stdout.read().splitlines()
        assert process.wait() == 0
    assert given == [[1]] * 20
    assert heard == [f"{number} rate {number}.0 ann{number}@desk" for number in range(1, 21)]
    assert not place.path.with_name("imports.db-wal").exists()
    assert len(place.rows()) == int(rows)


def test_listening_writes_nothing_and_holds_nothing_up(desk: Desk, place: SqlitePlace) -> None:
    """Its connection is read-only, and between two looks the writer may even shorten its log."""
    give_order(place.path, "pause", None, "ann@desk")
    with Orders(place.path, desk.run) as orders:
        orders.next()
        desk.intend(desk.row(1))
        with closing(sqlite3.connect(place.path)) as connection:
            assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            orders._connection.execute("DELETE FROM orders")


def test_giving_leaves_the_ledger_to_its_run(desk: Desk, place: SqlitePlace) -> None:
    """Neither its lock nor its log are gone afterwards, and it writes on."""
    give_order(place.path, "pause", None, "ann@desk")
    assert holder_of(place.path) == ME
    assert place.path.with_name("imports.db-wal").exists()
    desk.ledger.write([Intent(desk.row(1))])
    assert len(place.rows()) == 1


# ---- asking who holds the lock --------------------------------------------------------------------------------------


def test_the_holder_of_a_lock_is_known_by_its_number(place: SqlitePlace) -> None:
    """Nobody, then the process, then nobody; asking makes no file."""
    assert holder_of(place.path) is None
    assert list(place.path.parent.iterdir()) == []
    with Lock(place.path):
        assert holder_of(place.path) == holder_of(place.path) == ME
    assert holder_of(place.path) is None


def test_another_processs_lock_is_seen_and_goes_with_it(place: SqlitePlace) -> None:
    """Killed, it holds nothing any more, whatever the file still says."""
    with child(place, HOLD) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert holder_of(place.path) == f"process {process.pid}"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert holder_of(place.path) is None


def test_a_holder_without_a_number_is_one_all_the_same(desk: Desk, place: SqlitePlace) -> None:
    """On a full disk it could not write it; its run can be steered."""
    os.truncate(place.path.with_name("imports.db.lock"), 0)
    assert holder_of(place.path) == "another process"
    assert give_order(place.path, "pause", None, "ann@desk") == [desk.run]


def test_a_lock_that_cannot_be_asked_about_is_an_error(place: SqlitePlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without locks, something else in the file's place."""

    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    place.path.with_name("imports.db.lock").touch()
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", no_locks)
        with pytest.raises(LedgerError, match=r"cannot be asked who holds it: No locks available"):
            holder_of(place.path)
    place.path.with_name("imports.db.lock").unlink()
    place.path.with_name("imports.db.lock").symlink_to("imports.db.lock")
    with pytest.raises(LedgerError, match=r"cannot be opened: Too many levels"):
        holder_of(place.path)


ASKING = """
import sys
from pathlib import Path
from worker.ledger.lock import holder_of
print("asking", flush=True)
while True:
    holder_of(Path(sys.argv[1]))
"""


def test_asking_never_turns_a_starting_run_away(place: SqlitePlace) -> None:
    """Two others ask all the time; every lock that is free is taken, and while it is held that is what is said."""
    command = [sys.executable, "-c", ASKING, str(place.path)]
    askers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}) for _ in range(2)
    ]
    try:
        for asker in askers:
            assert asker.stdout is not None
            assert asker.stdout.readline() == b"asking\n"
        for _ in range(1000):
            with Lock(place.path):
                assert holder_of(place.path) == ME
    finally:
        for asker in askers:
            asker.kill()
            asker.communicate()


def asked(path: Path) -> int:
    """Ask for a lock and stop in the middle of it; returns the descriptor that shares it."""
    descriptor = os.open(path.with_name("imports.db.lock"), os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return descriptor


def test_a_starting_run_waits_for_who_only_asks(place: SqlitePlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """It tries again until the question is over; a run that does hold the lock is found out at once."""
    asker = asked(place.path)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            os.close(asker)

    monkeypatch.setattr(lock_room, "sleep", pause)
    with Lock(place.path):
        assert len(pauses) == 3
        with pytest.raises(LedgerHeldError, match=f"{ME} is working on this ledger"):
            Lock(place.path)
    assert len(pauses) == 3


def test_who_waits_for_a_question_to_end_is_in_nobodys_way(place: SqlitePlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks between its tries, too, and shares the lock no longer than that: another run may be faster."""
    asker = asked(place.path)
    faster = os.open(place.path.with_name("imports.db.lock"), os.O_RDWR)

    def pause(_: float) -> None:
        os.close(asker)
        fcntl.flock(faster, fcntl.LOCK_EX | fcntl.LOCK_NB)

    monkeypatch.setattr(lock_room, "sleep", pause)
    with pytest.raises(LedgerHeldError):
        Lock(place.path)
    os.close(faster)


def test_a_question_that_never_ends_is_not_waited_for_for_ever(
    place: SqlitePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every wait ends: after a second in all, whoever froze while it asked counts as who holds the lock."""
    asker = asked(place.path)
    pauses: list[float] = []
    monkeypatch.setattr(lock_room, "sleep", pauses.append)
    with pytest.raises(LedgerHeldError, match="another process is working on this ledger"):
        Lock(place.path)
    os.close(asker)
    assert sum(pauses) == pytest.approx(1)
    with Lock(place.path):
        pass


# ---- the command ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said", "order"),
    [
        (("pause",), "pause", ("pause", None)),
        (("resume",), "resume", ("resume", None)),
        (("drain",), "drain", ("drain", None)),
        (("rate", "5"), "send 5/s at most", ("rate", 5)),
        (("rate", "900/m"), "send 15/s at most", ("rate", 15)),
        (("rate", "0.25"), "send 0.25/s at most", ("rate", 0.25)),
        (("rate", "inf"), "send as fast as its settings allow", ("rate", inf)),
    ],
)
def test_a_command_is_an_order(
    place: SqlitePlace,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    said: str,
    order: tuple[str, float | None],
) -> None:
    """One line says which run was told what; the ledger has it with who gave it."""
    with at_work(place) as desk:
        desk.begin_next_run()
        assert call(["control", *words]) == 0
    assert capsys.readouterr() == (f"run 2 is told to {said} (it looks every second)\n", "")
    assert recorded(place.path) == [(2, *order, telling.person())]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "control: COMMAND is missing"),
        (("stop",), "stop"),
        (("rate",), "control rate: say how many requests a second at most: 5, 900/m; inf: as configured"),
        (("rate", "fast"), "control rate: a rate is written as 15, 15/s, 900/m or 36000/h"),
        (("rate", "0"), "control rate: must be more than 0; to send nothing for a while: flex-import control pause"),
        (("rate", "nan"), "control rate: must be more than 0"),
        (("rate", "-5"), "control rate: must be more than 0"),
        (("pause", "5"), "control pause: takes no rate; to slow a run down: flex-import control rate 5"),
    ],
)
def test_an_order_that_makes_no_sense_is_not_given(
    desk: Desk, place: SqlitePlace, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str
) -> None:
    """It is refused with what to write instead, and the run hears nothing."""
    assert desk.run
    assert call(["control", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert recorded(place.path) == []


async def test_the_command_finds_its_ledger_and_says_who_gave_the_order(tmp_path: Path) -> None:
    """By --ledger or by the config, from any folder, without credentials; without a run it is refused, exit 2."""
    elsewhere = SqlitePlace(tmp_path / "elsewhere" / "imports.db")
    elsewhere.path.parent.mkdir()
    (elsewhere.path.parent / "config.toml").write_text("[limits]\nrate_per_second = 5\n")
    by = {"LOGNAME": "ann"}
    with at_work(elsewhere):
        given = await flex_import("control", "pause", "--ledger", "elsewhere/imports.db", cwd=tmp_path, env=by)
        assert (given.code, given.out) == (0, "run 1 is told to pause (it looks every second)\n"), given.err
        given = await flex_import("control", "resume", "--config", "elsewhere/config.toml", cwd=tmp_path, env=by)
        assert (given.code, given.out) == (0, "run 1 is told to resume (it looks every second)\n"), given.err
    assert all(re.fullmatch(r"ann@.+", who) for *_, who in recorded(elsewhere.path))
    refused = await flex_import("control", "drain", "--ledger", "elsewhere/imports.db", cwd=tmp_path, env=by)
    assert (refused.code, refused.out) == (2, "")
    assert "no run is at work on this ledger" in refused.err
    assert [command for _, command, *_ in recorded(elsewhere.path)] == ["pause", "resume"]


def test_a_person_without_a_name_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container the user may be in no list; that must not keep anybody from deciding."""

    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 1000970000")

    monkeypatch.setattr(getpass, "getuser", unknown)
    assert re.fullmatch(rf"uid {os.getuid()}@.+", telling.person())
