"""The ledger in SQLite: the contract, and what only a file can get wrong."""

import fcntl
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.ledger_contract import OUTCOMES, SOURCE, Desk, LedgerContract, at_work, child
from tests.samples_of import row, sid
from worker.errors import LedgerError, LedgerHeldError, LedgerRefusedError
from worker.ledger import BASELINE_FIRST, Baseline, Entry, Finding, Intent, Look, Reopen, Settle, Surroundings
from worker.ledger import file as room
from worker.ledger import tables as writing
from worker.ledger.connection import SqliteConnection
from worker.ledger.file import create_ledger, open_ledger, open_readonly
from worker.ledger.lock import Lock, refuse_network
from worker.ledger.schema import APPLICATION_ID, MIGRATIONS, check, prepare
from worker.ledger.sqlite import SqliteLedger
from worker.ledger.survey import Survey
from worker.ledger.view import COLUMNS, View
from worker.model import Sample, Settlement, State


class SqlitePlace:
    """A ledger file in a folder of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.opener = (
            "from pathlib import Path\n"
            "from worker.ledger.opening import create_ledger, open_ledger\n"
            f"path = Path({str(path)!r})\n"
            "if not path.exists():\n    create_ledger(path)\n"
            "ledger = open_ledger(path)"
        )

    def open(self) -> SqliteLedger:
        """Open the ledger; make it first when there is none."""
        if not self.path.exists():
            create_ledger(self.path)
        return open_ledger(self.path)

    def rows(self) -> list[dict[str, Any]]:
        """Return the export."""
        with View(self.path) as view:
            return [dict(zip(COLUMNS, found, strict=True)) for found in view.export()]

    def payloads(self) -> dict[str, tuple[str, bytes]]:
        """Return what is kept to send rows again."""
        with closing(open_readonly(self.path)) as connection:
            query = "SELECT key, record, request FROM payloads JOIN rows ON rows.id = row_id"
            return {key: (record, request) for key, record, request in connection.execute(query)}

    def findings(self) -> list[tuple[str, str, int, int | None]]:
        """Return the findings and who retired them."""
        with closing(open_readonly(self.path)) as connection:
            query = (
                "SELECT kind, path, line, superseded_by FROM findings "
                "JOIN sources ON sources.id = source_id ORDER BY findings.id"
            )
            return connection.execute(query).fetchall()

    def looks(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Return the looks."""
        with closing(open_readonly(self.path)) as connection:
            query = "SELECT key, looks.reason, candidates FROM looks JOIN rows ON rows.id = row_id WHERE looked_at > 0"
            return {key: (reason, tuple(json.loads(sids))) for key, reason, sids in connection.execute(query)}

    def decisions(self) -> list[tuple[str, int, str, str, str | None, str | None, int]]:
        """Return the decisions."""
        with closing(open_readonly(self.path)) as connection:
            query = (
                "SELECT key, decisions.run_id, decided_by, decision, decisions.sid, decisions.reason, decided_at "
                "FROM decisions JOIN rows ON rows.id = row_id ORDER BY decisions.id"
            )
            return connection.execute(query).fetchall()

    def waivers(self) -> dict[bytes, tuple[int, str, str, int]]:
        """Return the waivers."""
        with closing(open_readonly(self.path)) as connection:
            query = "SELECT digest, run_id, waived_by, reason, waived_at FROM waivers"
            return {digest: tuple(found) for digest, *found in connection.execute(query)}

    def verifications(self) -> dict[str, tuple[int, str, str | None]]:
        """Return what was verified last."""
        with closing(open_readonly(self.path)) as connection:
            query = "SELECT key, verifications.run_id, result, detail FROM verifications JOIN rows ON rows.id = row_id"
            return {key: tuple(found) for key, *found in connection.execute(query)}

    def samples(self, run: int) -> list[Sample]:
        """Return the samples."""
        with View(self.path) as view:
            return [sample for _, sample in view.samples(run)]

    def forget(self, key: str) -> None:
        """Do what `ledger prune` will do."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute("DELETE FROM payloads WHERE row_id = (SELECT id FROM rows WHERE key = ?)", (key,))

    def decide(self, key: str, state: State) -> None:
        """Do what `waive` does and `undo` will do."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute("UPDATE rows SET state = ? WHERE key = ?", (state, key))


class TestSqliteLedger(LedgerContract):
    """The contract, kept by the ledger in SQLite."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> SqlitePlace:
        """Return a folder with no ledger yet."""
        return SqlitePlace(tmp_path / "imports.db")


@pytest.fixture
def place(tmp_path: Path) -> SqlitePlace:
    """Return a folder with no ledger yet."""
    return SqlitePlace(tmp_path / "imports.db")


@pytest.fixture
def desk(place: SqlitePlace) -> Iterator[Desk]:
    """Return a new ledger in its first run."""
    with at_work(place) as desk:
        yield desk


def mode(path: Path) -> int:
    """Return the permission bits of a file."""
    return path.stat().st_mode & 0o777


def integrity(path: Path) -> str:
    """Return what SQLite says about a file as a whole."""
    with closing(open_readonly(path)) as connection:
        verdict: str = connection.execute("PRAGMA integrity_check").fetchone()[0]
        return verdict


@contextmanager
def umask(bits: int) -> Iterator[None]:
    """Set the process's umask for a while."""
    before = os.umask(bits)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Mount a real disk of this size; a test that needs one is skipped where nobody may mount."""
    folder.mkdir(exist_ok=True)
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small disk")
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "small-disk", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here, even for root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


# ---- making one -----------------------------------------------------------------------------------------------------


def test_only_its_owner_can_read_a_ledger(place: SqlitePlace) -> None:
    """The file, its log and its index hold people's addresses: 0600, whatever the umask is."""
    with umask(0), at_work(place) as desk:
        desk.intend(desk.row(1))
        names = {found.name: mode(found) for found in place.path.parent.iterdir()}
    assert names == dict.fromkeys(("imports.db", "imports.db-wal", "imports.db-shm", "imports.db.lock"), 0o600)


def test_a_closed_ledger_is_one_file(place: SqlitePlace) -> None:
    """After closing, nothing but the file and its empty lock are left, so that a copy of the file is whole."""
    with at_work(place) as desk:
        desk.intend(desk.row(1))
    assert {found.name for found in place.path.parent.iterdir()} == {"imports.db", "imports.db.lock"}


@pytest.mark.parametrize("moment", ["prepare", "sync_folder"])
def test_a_new_ledger_appears_whole_or_not_at_all(place: SqlitePlace, moment: str) -> None:
    """A power cut while a ledger is made leaves none, or one that can be used; and making it again is possible."""
    code = f"""
import os
import random
import shutil
from pathlib import Path
from worker.ledger import file
file.{moment} = lambda *_: os._exit(9)
file.create_ledger(Path({str(place.path)!r}))
"""
    root = str(Path(__file__).parent.parent)
    died = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": root}, check=False)
    assert died.returncode == 9
    assert place.path.exists() is (moment == "sync_folder")
    with at_work(place) as desk:
        desk.bring(desk.row(1), OUTCOMES[0])
    assert integrity(place.path) == "ok"


def test_leftovers_of_a_crash_do_not_look_like_a_ledger(place: SqlitePlace) -> None:
    """Half a ledger left under its temporary name, by a process with our number, is no reason to refuse a new one."""
    place.path.with_name(f".{place.path.name}.{os.getpid()}.new").touch()
    create_ledger(place.path)
    assert integrity(place.path) == "ok"


def test_a_failure_while_making_leaves_nothing(place: SqlitePlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the tables cannot be made, the folder is as it was before."""
    monkeypatch.setattr(room, "prepare", lambda connection, path: prepare(connection, path, ("nonsense",)))
    with pytest.raises(LedgerError, match="could not be prepared"):
        create_ledger(place.path)
    assert list(place.path.parent.iterdir()) == []


@pytest.mark.parametrize("what", ["ledger", "empty", "text", "folder"])
def test_a_new_ledger_never_replaces_anything(place: SqlitePlace, what: str) -> None:
    """--new-ledger is refused where something stands, and leaves it as it is."""
    match what:
        case "ledger":
            create_ledger(place.path)
        case "folder":
            place.path.mkdir()
        case _:
            place.path.write_text("" if what == "empty" else "my notes")
    before = None if what == "folder" else place.path.read_bytes()
    with pytest.raises(LedgerRefusedError, match=r"there is a ledger already; leave out --new-ledger"):
        create_ledger(place.path)
    assert before is None or place.path.read_bytes() == before
    assert [found.name for found in place.path.parent.iterdir()] == ["imports.db"]


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_a_new_ledger_is_not_made_over_an_old_ones_log(place: SqlitePlace, suffix: str) -> None:
    """SQLite would play the log of a ledger that was moved away back into the new one, and break it."""
    log = place.path.with_name(f"imports.db{suffix}")
    log.write_bytes(b"frames")
    with pytest.raises(LedgerRefusedError, match="is the log of an earlier ledger"):
        create_ledger(place.path)
    assert [found.name for found in place.path.parent.iterdir()] == [log.name]


def test_a_ledger_without_its_folder_cannot_be_made(tmp_path: Path) -> None:
    """A folder that does not exist is named, not made."""
    with pytest.raises(LedgerError, match=r"missing/imports.db: the ledger cannot be made: No such file"):
        create_ledger(tmp_path / "missing" / "imports.db")


def test_a_ledger_cannot_be_made_in_a_read_only_file_system(tmp_path: Path) -> None:
    """A folder that takes no files is a LedgerError with the system's reason."""
    with small_disk(tmp_path / "disk", "1m"):
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
        with pytest.raises(LedgerError, match="cannot be made: Read-only file system"):
            create_ledger(tmp_path / "disk" / "imports.db")


def test_a_full_disk_leaves_no_half_ledger(tmp_path: Path) -> None:
    """When the tables do not fit, there is no ledger, and nothing else either."""
    folder = tmp_path / "disk"
    with small_disk(folder, "16k"):
        with pytest.raises(LedgerError, match="full"):
            create_ledger(folder / "imports.db")
        assert list(folder.iterdir()) == []


# ---- opening one ----------------------------------------------------------------------------------------------------


def foreign(path: Path) -> None:
    """Make somebody else's database."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")


def foreign_without_tables(path: Path) -> None:
    """Make somebody else's database that has a version and no tables yet."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 1")


def blank_database(path: Path) -> None:
    """Make a database file with nothing in it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM")


def newer(path: Path) -> None:
    """Make a ledger that a later flex-import has worked on."""
    create_ledger(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda _: None, r"there is no ledger at "),
    "empty": (Path.touch, "is empty, so it is no ledger"),
    "text": (lambda path: path.write_text("my notes, " * 1000), "is not a ledger"),
    "short text": (lambda path: path.write_text("my notes"), "is not a ledger"),
    "folder": (Path.mkdir, "is not a file"),
    "foreign": (foreign, "is a database of something else"),
    "foreign without tables": (foreign_without_tables, "is a database of something else"),
    "blank": (blank_database, "is empty, so it is no ledger"),
    "newer": (newer, rf"newer flex-import \(schema 99, this one knows {len(MIGRATIONS)}\); use that version"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("way", [open_ledger, open_readonly], ids=["writing", "looking"])
def test_what_is_no_ledger_is_refused_and_left_alone(place: SqlitePlace, what: str, way: Any) -> None:
    """A path to anything but a ledger is refused with its reason, naming the path, and the file stays as it is."""
    make, reason = REFUSED[what]
    make(place.path)
    before = place.path.read_bytes() if place.path.is_file() else None
    with pytest.raises(LedgerRefusedError, match=reason) as caught:
        way(place.path)
    assert str(place.path) in str(caught.value)
    assert before is None or place.path.read_bytes() == before


@pytest.mark.parametrize("way", [open_ledger, open_readonly, create_ledger], ids=["writing", "looking", "making"])
def test_a_name_that_the_system_does_not_take_is_an_error(tmp_path: Path, way: Any) -> None:
    """A name that is too long comes back as a LedgerError, not as the system's own."""
    with pytest.raises(LedgerError, match="File name too long"):
        way(tmp_path / ("x" * 300))


@pytest.mark.parametrize("name", [":memory:", "file:imports.db?mode=memory", "a b%20c#d?e.db", "日本.db"])
def test_a_name_is_a_name(tmp_path: Path, name: str) -> None:
    """What SQLite would read as memory, or as an address, is a file here, also when it is relative."""
    place = SqlitePlace(Path(name))
    with at_work(place) as desk:
        desk.intend(desk.row(1))
        assert len(place.rows()) == 1
    assert (tmp_path / name).stat().st_size > 0


@pytest.mark.parametrize("way", [open_ledger, open_readonly], ids=["writing", "looking"])
def test_a_truncated_ledger_is_called_damaged(place: SqlitePlace, way: Any) -> None:
    """A ledger that lost its end is not called something else's: the advice is to restore it, not to name another."""
    with at_work(place) as desk:
        desk.ledger.write([Intent(desk.row(number)) for number in range(500)])
    os.truncate(place.path, place.path.stat().st_size // 2)
    with pytest.raises(LedgerError, match=r"the ledger is damaged .* restore a backup"):
        way(place.path)


def test_a_damaged_page_is_an_error_of_the_ledger(place: SqlitePlace) -> None:
    """Garbage in the tables comes out as a LedgerError wherever it is met."""
    with at_work(place) as desk:
        desk.ledger.write([Intent(desk.row(number)) for number in range(500)])
    with closing(open_readonly(place.path)) as connection:
        roots = [root for (root,) in connection.execute("SELECT rootpage FROM sqlite_schema WHERE rootpage > 0")]
    data = bytearray(place.path.read_bytes())
    for root in roots:
        data[(root - 1) * 4096 : root * 4096] = os.urandom(4096)
    place.path.write_bytes(data)
    with pytest.raises(LedgerError):
        open_ledger(place.path)
    with View(place.path) as view, pytest.raises(LedgerError, match="the ledger cannot be read"):
        view.counts()
    with Lock(place.path):
        pass


def test_another_programs_lock_on_the_file_is_an_error_of_the_ledger(desk: Desk, place: SqlitePlace) -> None:
    """When somebody else writes with another tool, ours waits a while and then says so."""
    assert isinstance(desk.ledger, SqliteLedger)
    desk.ledger._connection.execute("PRAGMA busy_timeout = 0")
    with closing(sqlite3.connect(place.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="cannot be written: database is locked"):
            desk.ledger.write([Intent(desk.row(1))])
    desk.intend(desk.row(1))


def test_a_ledger_that_cannot_keep_a_log_is_refused(place: SqlitePlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place without a write-ahead log would break the promises about looking beside a run: it is an error."""
    create_ledger(place.path)

    class WithoutLog(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            return super().execute(sql.replace("journal_mode = WAL", "journal_mode"), *values)

    monkeypatch.setattr(room, "_connect", lambda path: sqlite3.connect(path, factory=WithoutLog, isolation_level=None))
    with pytest.raises(LedgerError, match=r"does not allow SQLite's write-ahead log \(mode delete\)"):
        open_ledger(place.path)
    with Lock(place.path):
        pass


def test_a_connection_that_cannot_be_set_up_is_an_error_of_the_ledger(
    place: SqlitePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails while the ledger is opened ends in a LedgerError, with the lock given back."""
    create_ledger(place.path)

    class Broken(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            if "synchronous" in sql:
                raise sqlite3.OperationalError("disk I/O error")
            return super().execute(sql, *values)

    monkeypatch.setattr(room, "_connect", lambda path: sqlite3.connect(path, factory=Broken, isolation_level=None))
    with pytest.raises(LedgerError, match="cannot be written: disk I/O error"):
        open_ledger(place.path)
    with Lock(place.path):
        pass


def test_a_file_that_cannot_be_opened_is_an_error_of_the_ledger(
    place: SqlitePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What SQLite says at connecting becomes a LedgerError for writing and for looking."""
    create_ledger(place.path)

    def refuse(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(sqlite3, "connect", refuse)
    for way in (open_ledger, open_readonly):
        with pytest.raises(LedgerError, match="cannot be opened: unable to open"):
            way(place.path)


def test_a_ledger_in_a_read_only_place_can_be_looked_at(tmp_path: Path) -> None:
    """An archived ledger is shown although SQLite can make no index beside it; writing is an error."""
    with small_disk(tmp_path / "disk", "4m"):
        archived = SqlitePlace(tmp_path / "disk" / "imports.db")
        with at_work(archived) as desk:
            desk.bring(desk.row(1), OUTCOMES[0])
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
        assert [found["state"] for found in archived.rows()] == ["created"]
        with pytest.raises(LedgerError, match="Read-only file system"):
            archived.open()


def test_a_crashed_ledger_in_a_read_only_place_is_shown_with_its_log_or_not_at_all(tmp_path: Path) -> None:
    """What is only in the log is never left out silently."""
    with small_disk(tmp_path / "disk", "4m"):
        archived = SqlitePlace(tmp_path / "disk" / "imports.db")
        act = "ledger.write([Intent(row(1)._replace(source=source))]); os._exit(0)"
        with child(archived, act) as process:
            process.communicate()
        (tmp_path / "disk" / "imports.db-shm").unlink()
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
        with pytest.raises(LedgerError, match="the ledger cannot be read"):
            archived.rows()


# ---- the lock -------------------------------------------------------------------------------------------------------

HOLD = 'print("held", flush=True); sys.stdin.readline()'


def test_a_second_process_is_told_who_has_the_ledger(place: SqlitePlace) -> None:
    """While one process works on a ledger, another one is refused with its number; looking goes on."""
    with child(place, HOLD) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(LedgerHeldError, match=f"process {process.pid} is working on this ledger"):
            open_ledger(place.path)
        assert place.rows() == []
    place.open().close()


def test_a_killed_holder_holds_nothing(place: SqlitePlace) -> None:
    """The lock goes with its process; nobody has to remove a file by hand."""
    with child(place, HOLD) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        place.open().close()


def test_the_lock_is_not_inherited(place: SqlitePlace) -> None:
    """A program started by the holder does not hold the ledger after it."""
    act = """
import subprocess
started = subprocess.Popen([sys.executable, "-c", "input()"], stdin=0, close_fds=False)
print(started.pid, flush=True)
os._exit(0)
"""
    with child(place, act) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.wait()
        place.open().close()


def test_a_link_to_a_ledger_is_the_same_ledger(desk: Desk, place: SqlitePlace, tmp_path: Path) -> None:
    """A symbolic link, or a linked folder, is no way around the lock."""
    assert desk.run
    (tmp_path / "link.db").symlink_to(place.path)
    (tmp_path / "folder").symlink_to(tmp_path, target_is_directory=True)
    for other in (tmp_path / "link.db", tmp_path / "folder" / "imports.db"):
        with pytest.raises(LedgerHeldError):
            open_ledger(other)


def test_a_link_leads_to_the_same_rows(place: SqlitePlace, tmp_path: Path) -> None:
    """What was written through a link is read without it."""
    create_ledger(place.path)
    link = SqlitePlace(tmp_path / "other" / "link.db")
    link.path.parent.mkdir()
    link.path.symlink_to(place.path)
    with at_work(link) as desk:
        desk.intend(desk.row(1))
        assert len(place.rows()) == len(link.rows()) == 1


def test_a_refused_opening_gives_the_lock_back(place: SqlitePlace) -> None:
    """After a ledger was refused, nobody holds it."""
    newer(place.path)
    with pytest.raises(LedgerRefusedError):
        open_ledger(place.path)
    with Lock(place.path):
        pass


def test_a_lock_file_that_cannot_be_opened_is_an_error_of_the_ledger(place: SqlitePlace) -> None:
    """A folder in the lock's place is named."""
    create_ledger(place.path)
    (place.path.parent / "imports.db.lock").mkdir()
    with pytest.raises(LedgerError, match=r"imports.db.lock: cannot be opened: Is a directory"):
        open_ledger(place.path)


def test_a_place_without_locks_is_an_error_of_the_ledger(place: SqlitePlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel keeps no locks, no ledger is opened."""
    create_ledger(place.path)

    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(LedgerError, match=r"cannot be locked: No locks available"):
        open_ledger(place.path)


# ---- network file systems -------------------------------------------------------------------------------------------

MOUNTS = r"""
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
35 21 0:31 / /data rw - nfs4 server:/export rw
36 35 8:2 / /data/local rw - xfs /dev/sdb1 rw
37 21 0:33 / /my\040share\134x rw - cifs //server/x rw
38 21 0:34 / /volume rw - fuse.glusterfs server:/v rw
39 21 0:35 / /over rw - nfs server:/v rw
40 39 8:3 / /over rw - ext4 /dev/sdc1 rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data/imports.db", "nfs4"),
        ("/data/deep/er/imports.db", "nfs4"),
        ("/data/local/../imports.db", "nfs4"),
        ("/my share\\x/imports.db", "cifs"),
        ("/volume/imports.db", "fuse.glusterfs"),
        ("/data/local/imports.db", None),
        ("/database/imports.db", None),
        ("/over/imports.db", None),
        ("/imports.db", None),
    ],
)
def test_a_network_file_system_is_refused(tmp_path: Path, path: str, kind: str | None) -> None:
    """The innermost mount decides, the newest of two in one place; its kind is named."""
    table = tmp_path / "mountinfo"
    table.write_text(MOUNTS.lstrip())
    if kind is None:
        refuse_network(Path(path), table)
        return
    with pytest.raises(LedgerRefusedError, match=rf"is on a network file system \({kind}\).*local disk"):
        refuse_network(Path(path), table)


def test_a_link_into_a_network_file_system_is_refused(tmp_path: Path) -> None:
    """What counts is where the file really is."""
    (tmp_path / "share").mkdir()
    (tmp_path / "imports.db").symlink_to(tmp_path / "share" / "imports.db")
    table = tmp_path / "mountinfo"
    table.write_text(f"21 1 8:1 / / rw - ext4 a rw\n22 21 0:31 / {tmp_path}/share rw shared:1 - nfs b rw\n")
    with pytest.raises(LedgerRefusedError, match="nfs"):
        refuse_network(tmp_path / "imports.db", table)


def test_without_a_table_of_mounts_nothing_is_refused(tmp_path: Path) -> None:
    """On a system that has no such table the question cannot be answered."""
    refuse_network(tmp_path / "imports.db", tmp_path / "missing")


@pytest.mark.parametrize("way", [create_ledger, open_ledger], ids=["making", "writing"])
def test_neither_making_nor_writing_is_done_over_a_network(
    place: SqlitePlace, monkeypatch: pytest.MonkeyPatch, way: Any
) -> None:
    """Both ways to a ledger ask where it is."""
    if way is open_ledger:
        create_ledger(place.path)

    def refuse(path: Path) -> None:
        raise LedgerRefusedError(f"{path} is far away")

    monkeypatch.setattr(room, "refuse_network", refuse)
    with pytest.raises(LedgerRefusedError, match="far away"):
        way(place.path)


# ---- durability -----------------------------------------------------------------------------------------------------


def test_every_commit_is_synced(desk: Desk) -> None:
    """The writing connection keeps a log, syncs it at each commit, and minds references."""
    assert isinstance(desk.ledger, SqliteLedger)
    execute = desk.ledger._connection.execute
    assert execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert execute("PRAGMA synchronous").fetchone()[0] == 2
    assert execute("PRAGMA foreign_keys").fetchone()[0] == 1


def test_a_kill_inside_a_group_leaves_nothing_of_it(place: SqlitePlace) -> None:
    """A process that dies between two rows of a group has written neither."""
    act = """
enter = type(ledger)._enter
count = iter(range(9))
def dying(self, entry, now):
    if next(count) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return enter(self, entry, now)
type(ledger)._enter = dying
ledger.write([Intent(row(n)._replace(source=source)) for n in range(3)])
"""
    with child(place, act) as process:
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    place.open().close()
    assert place.rows() == []
    assert integrity(place.path) == "ok"


@pytest.mark.parametrize("garbage", [False, True], ids=["cut off", "overwritten"])
def test_a_torn_log_loses_whole_commits_from_its_end_and_nothing_else(
    place: SqlitePlace, tmp_path: Path, garbage: bool
) -> None:
    """A disk that lost the end of the log, or wrote it half: the ledger is sound and stands at an earlier commit.

    One that lost the run's very first commits, which were on the disk, is refused: the rows would be sent again.
    """
    act = """
log = path.with_name(path.name + "-wal")
print(log.stat().st_size, flush=True)
for group in range(5):
    ledger.write([Intent(row(10 * group + n)._replace(source=source)) for n in range(10)])
    print(log.stat().st_size, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    with child(place, act) as process:
        said, _ = process.communicate()
    sizes = [int(word) for word in said.split() if word.isdigit()]
    log = place.path.with_name(f"{place.path.name}-wal").read_bytes()
    begun, *sizes = sizes
    assert len(sizes) == 5
    assert len(log) == sizes[-1]
    for number, length in enumerate(range(0, len(log) + 1, 997)):
        torn = SqlitePlace(tmp_path / f"torn{number}" / "imports.db")
        torn.path.parent.mkdir()
        shutil.copy(place.path, torn.path)
        lost = random.Random(length).randbytes(len(log) - length) if garbage else b""  # noqa: S311 - no secret
        torn.path.with_name("imports.db-wal").write_bytes(log[:length] + lost)
        try:
            torn.open().close()
        except LedgerRefusedError:
            assert length < begun
            continue
        assert length > 0
        assert integrity(torn.path) == "ok"
        assert len(torn.rows()) == 10 * sum(size <= length for size in sizes)


def test_the_log_does_not_grow_with_the_run(desk: Desk, place: SqlitePlace) -> None:
    """The log is written back while the run goes on, also when somebody looks now and then."""
    for start in range(0, 20_000, 500):
        rows = [desk.row(number, 1) for number in range(start, start + 500)]
        numbers = desk.ledger.write([Intent(one) for one in rows])
        desk.ledger.write(
            [
                Settle(number, Settlement(one.key, OUTCOMES[0]))
                for number, one in zip(numbers, rows, strict=True)
                if isinstance(number, int)
            ]
        )
        with View(place.path) as view:
            view.last_run()
    assert (place.path.parent / "imports.db-wal").stat().st_size < 8_000_000


def fill(desk: Desk) -> int:
    """Write groups of ten rows until the ledger takes no more; returns how many rows it took."""
    written = 0
    try:
        while True:
            desk.ledger.write([Intent(desk.row(written + number)) for number in range(10)])
            written += 10
    except LedgerError as exc:
        assert "full" in str(exc)  # noqa: PT017 - how far it came is what is asked
    return written


def test_a_full_disk_is_an_error_and_leaves_the_ledger_sound(tmp_path: Path) -> None:
    """On a real full disk a write raises LedgerError; what was written before is there, and room lets it go on."""
    folder = tmp_path / "disk"
    with small_disk(folder, "600k"):
        place = SqlitePlace(folder / "imports.db")
        with at_work(place) as desk:
            written = fill(desk)
            assert written
            assert len(place.rows()) == written
        assert integrity(place.path) == "ok"
        subprocess.run(["mount", "-o", "remount,size=4m", str(folder)], check=True)
        with at_work(place) as desk:
            assert len(desk.ledger.channels_in_doubt()) == written
            desk.intend(desk.row(written))
        assert integrity(place.path) == "ok"


def test_the_lock_does_not_need_room_on_the_disk(tmp_path: Path) -> None:
    """On a full disk a ledger can be locked all the same; only the holder's number is missing from the refusal."""
    folder = tmp_path / "disk"
    with small_disk(folder, "4k"):
        (folder / "ballast").write_bytes(b"x" * 4096)
        with Lock(folder / "imports.db"), pytest.raises(LedgerHeldError, match="another process is working"):
            Lock(folder / "imports.db")


@pytest.mark.parametrize("forbidden", ["COMMIT", "BEGIN IMMEDIATE", "ROLLBACK"])
def test_what_the_disk_says_is_an_error_of_the_ledger(
    place: SqlitePlace, monkeypatch: pytest.MonkeyPatch, forbidden: str
) -> None:
    """A disk that fails at any step of a transaction ends in a LedgerError, and a later one is taken again."""
    failing = False

    class Failing(SqliteConnection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            self._may_go_on(sql)
            return super().execute(sql, *values)

        def commit(self) -> None:
            self._may_go_on("COMMIT")
            super().commit()

        def rollback(self) -> None:
            self._may_go_on("ROLLBACK")
            super().rollback()

        def _may_go_on(self, sql: str) -> None:
            if failing and (sql == forbidden or (forbidden == "ROLLBACK" and sql == "COMMIT")):
                raise sqlite3.OperationalError("disk I/O error")

    create_ledger(place.path)
    monkeypatch.setattr(room, "_connect", lambda path: sqlite3.connect(path, factory=Failing, isolation_level=None))
    with at_work(place) as desk:
        failing = True
        with pytest.raises(LedgerError, match="cannot be written: disk I/O error"):
            desk.ledger.write([Intent(desk.row(1))])
        failing = False
        assert place.rows() == []
        if forbidden != "ROLLBACK":
            desk.intend(desk.row(1))


# ---- versions -------------------------------------------------------------------------------------------------------

NOW = len(MIGRATIONS)
NEXT = "ALTER TABLE rows ADD COLUMN colour TEXT; CREATE TABLE colours (id INTEGER PRIMARY KEY) STRICT"


def old_ledger(place: SqlitePlace) -> list[dict[str, Any]]:
    """Make a ledger of this program's version with rows in it; returns them."""
    with at_work(place) as desk:
        for number, outcome in enumerate(OUTCOMES):
            desk.bring(desk.row(number), outcome)
    return place.rows()


def earlier_version(path: Path, version: int = 1, *, started: int = 0) -> list[dict[str, Any]]:
    """Make a ledger as an earlier version wrote it, with a row of each outcome and some started; returns its rows."""
    model = SqlitePlace(path.with_name("model.db"))
    with at_work(model) as desk:
        for number, outcome in enumerate(OUTCOMES):
            desk.bring(desk.row(number), outcome)
        for number in range(started):
            desk.intend(desk.row(100 + number))
        desk.ledger.write([Finding("rejected", desk.source, 70, None, "bad", "is bad", "record\n")])
        desk.ledger.end_run(1, "finished", "{}")
        rows = model.rows()
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.executescript("".join(MIGRATIONS[:version]))
            connection.execute("ATTACH ? AS model", (str(model.path),))
            for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
                columns = ", ".join(name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})"))
                connection.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM model.{table}")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {version}")
    for name in ("model.db", "model.db.lock"):
        path.with_name(name).unlink()
    return rows


def test_a_migration_keeps_the_data_and_a_copy(place: SqlitePlace) -> None:
    """A newer program brings an older ledger up to date and leaves the old one beside it, whole and private."""
    rows = old_ledger(place)
    with umask(0), closing(sqlite3.connect(place.path, isolation_level=None)) as connection:
        prepare(connection, place.path, (*MIGRATIONS, NEXT))
        assert check(connection, place.path, (*MIGRATIONS, NEXT)) == NOW + 1
        assert connection.execute("SELECT count(colour), count(*) FROM rows").fetchone() == (0, len(rows))
        assert connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
    copy = SqlitePlace(place.path.with_name(f"imports.db.v{NOW}.bak"))
    assert mode(copy.path) == 0o600
    assert copy.rows() == rows
    with at_work(copy) as desk:
        desk.intend(desk.row(50))
    with pytest.raises(LedgerRefusedError, match=f"schema {NOW + 1}, this one knows {NOW}"):
        open_ledger(place.path)


def test_a_ledger_of_the_first_version_is_brought_up_to_date_and_works(place: SqlitePlace) -> None:
    """Its rows stay as they were, what was under way is in doubt, the old file is beside it, and a run goes on."""
    rows = earlier_version(place.path, started=1)
    with umask(0), at_work(place) as desk:
        assert desk.run == rows[0]["run"] + 1
        assert place.rows()[: len(OUTCOMES)] == rows[: len(OUTCOMES)]
        under_way, in_doubt = desk.row(100), desk.row(5)
        assert desk.ledger.channels_in_doubt() == {each.channel_sid: {each.key} for each in (under_way, in_doubt)}
        stored = desk.ledger.stored((State.FAILED, State.IN_DOUBT), 0, 10)
        assert [each._replace(number=0) for each in stored] == [desk.row(4), in_doubt, under_way]
        assert desk.ledger.surroundings(stored[1].number) == Surroundings(frozenset(), None, 1)
        assert desk.ledger.write([Intent(stored[0], baseline_first=True)]) == [BASELINE_FIRST]
        group: list[Entry] = [
            Baseline(stored[0], (sid("UT", 70),)),
            Intent(stored[0]),
            Reopen(stored[2].number, under_way, ()),
        ]
        assert desk.ledger.write(group) == [None, stored[0].number, None]
        desk.ledger.write([Look(stored[1].number, "two are new", (sid("UT", 71), sid("UT", 72)))])
    assert {found.name for found in place.path.parent.iterdir()} == {
        *("imports.db", "imports.db.lock", "imports.db.v1.bak"),
    }
    with closing(sqlite3.connect(place.path.with_name("imports.db.v1.bak"))) as copy:
        assert check(copy, place.path) == 1
        states = [found["state"] for found in rows[:-2]]
        assert copy.execute("SELECT state FROM rows").fetchall() == [(state,) for state in (*states, "started")]
    assert mode(place.path.with_name("imports.db.v1.bak")) == 0o600
    assert integrity(place.path) == "ok"


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
def test_a_ledger_of_an_earlier_version_has_the_tables_of_a_new_one_afterwards(
    place: SqlitePlace, version: int
) -> None:
    """What grew over the versions and what was made today cannot be told apart; its rows are what they were."""
    rows = earlier_version(place.path, version)
    place.open().close()
    assert place.rows() == rows
    assert place.path.with_name(f"imports.db.v{version}.bak").exists()
    new = place.path.with_name("new.db")
    create_ledger(new)
    tables = []
    for path in (place.path, new):
        with closing(open_readonly(path)) as connection:
            tables.append(connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall())
    assert tables[0] == tables[1]


@pytest.mark.parametrize("version", range(1, 9))
def test_rows_that_an_earlier_version_gave_one_sid_are_in_doubt(place: SqlitePlace, version: int) -> None:
    """A participant is one row's: whose it is nobody knows. Other rows stay what they were."""
    earlier_version(place.path, version)
    mine, shared = sid("UT", 1), sid("UT", "e")
    with closing(sqlite3.connect(place.path)) as connection, connection:
        copied = ("fingerprint", "run_id", "source_id", "channel_id", "type", "started_at")
        for number, (key, state, written) in enumerate(
            [("a", "created", shared), ("b", "created", f"UT{shared[2:].upper()}"), ("c", "closed", shared)]
        ):
            connection.execute(
                f"INSERT INTO rows (key, state, sid, line, {', '.join(copied)}) "
                f"SELECT ?, ?, ?, ?, {', '.join(copied)} FROM rows WHERE sid = ?",
                (key, state, written, 900 + number, mine),
            )
    place.open().close()
    found = {one["key"]: (one["state"], one["sid"], one["code"]) for one in place.rows()}
    assert {key: found[key] for key in "abc"} == dict.fromkeys("abc", ("in_doubt", None, "known_sid"))
    assert [(state, name) for state, name, _ in found.values() if name] == [("created", mine)]


@pytest.mark.parametrize("version", range(2, 9))
def test_a_channel_that_an_earlier_version_kept_twice_is_one(place: SqlitePlace, version: int) -> None:
    """Written in two cases it had two lines and two baselines, and each saw the creates of its own rows only."""
    rows = earlier_version(place.path, version)
    [name, interaction] = [rows[0]["channel_sid"], rows[0]["interaction_sid"]]
    with closing(sqlite3.connect(place.path)) as connection, connection:
        insert = "INSERT INTO channels (id, channel_sid, interaction_sid) VALUES (?, ?, ?)"
        connection.execute(insert, (99, f"UO{name[2:].upper()}", interaction))
        connection.execute("UPDATE rows SET channel_id = 99 WHERE key = ?", (rows[1]["key"],))
        [first] = connection.execute("SELECT channel_id FROM rows WHERE key = ?", (rows[0]["key"],)).fetchone()
        for number in (first, 99):
            connection.execute("INSERT INTO baselines VALUES (?, 1, 1, '[]')", (number,))
    place.open().close()
    found = {one["key"]: one["channel_sid"] for one in place.rows()}
    assert found == {one["key"]: name if one is rows[1] else one["channel_sid"] for one in rows}
    with closing(sqlite3.connect(place.path)) as connection:
        assert connection.execute("SELECT count(*) FROM baselines").fetchone() == (0,)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


@pytest.mark.parametrize("way", [open_readonly, View, partial(Survey, names={})], ids=["looking", "view", "survey"])
def test_an_older_ledger_is_not_looked_at(place: SqlitePlace, way: Callable[[Path], object]) -> None:
    """Who only looks may not change it, and hears at once what brings it up to date; the file stays as it is."""
    earlier_version(place.path)
    before = place.path.read_bytes()
    needs = f"schema 1, this one needs {NOW}"
    message = f"older flex-import .{needs}.; the next run or reconcile brings"
    with pytest.raises(LedgerRefusedError, match=message) as caught:
        way(place.path)
    assert str(place.path) in str(caught.value)
    assert place.path.read_bytes() == before
    assert [found.name for found in place.path.parent.iterdir()] == ["imports.db"]


@pytest.mark.parametrize("broken", ["CREATE TABLE rows (x)", "DROP TABLE payloads; nonsense", "ALTER TABLE nix ADD y"])
def test_a_failed_migration_leaves_the_old_version_usable(place: SqlitePlace, broken: str) -> None:
    """A step that fails is undone as a whole; the old program goes on with the ledger as it was."""
    rows = old_ledger(place)
    with closing(sqlite3.connect(place.path, isolation_level=None)) as connection:
        with pytest.raises(LedgerError, match="could not be prepared"):
            prepare(connection, place.path, (*MIGRATIONS, broken))
        assert not connection.in_transaction
        assert check(connection, place.path) == NOW
    assert place.rows() == rows
    with at_work(place) as desk:
        desk.intend(desk.row(50))


def test_a_failed_later_step_keeps_the_earlier_ones(place: SqlitePlace) -> None:
    """Each step is a transaction of its own, and can be gone on from."""
    rows = old_ledger(place)
    with closing(sqlite3.connect(place.path, isolation_level=None)) as connection:
        with pytest.raises(LedgerError):
            prepare(connection, place.path, (*MIGRATIONS, NEXT, "nonsense"))
        prepare(connection, place.path, (*MIGRATIONS, NEXT, "CREATE TABLE fifth (x)"))
        assert check(connection, place.path, (*MIGRATIONS, NEXT, "")) == NOW + 2
        assert connection.execute("SELECT count(*) FROM rows").fetchone()[0] == len(rows)
    names = {found.name for found in place.path.parent.iterdir()}
    assert {f"imports.db.v{NOW}.bak", f"imports.db.v{NOW + 1}.bak"} <= names


def test_no_migration_without_a_copy(place: SqlitePlace) -> None:
    """When the copy cannot be made, the ledger stays as it is."""
    rows = old_ledger(place)
    place.path.with_name(f"imports.db.v{NOW}.bak").mkdir()
    with (
        closing(sqlite3.connect(place.path, isolation_level=None)) as connection,
        pytest.raises(LedgerError, match="could not be prepared"),
    ):
        prepare(connection, place.path, (*MIGRATIONS, NEXT))
    assert place.rows() == rows
    assert not list(place.path.parent.glob("*.part"))


def test_a_ledger_of_this_version_is_not_copied(place: SqlitePlace) -> None:
    """Opening makes no copies when there is nothing to migrate."""
    old_ledger(place)
    place.open().close()
    assert not list(place.path.parent.glob("*.bak"))


# ---- what the tables themselves forbid ------------------------------------------------------------------------------


ALL = "key, fingerprint, state, run_id, source_id, line, channel_id, type, started_at"
DECISION = "row_id, run_id, decided_at, decided_by, decision, sid, reason"
WAIVER = "digest, run_id, waived_at, waived_by, reason"
ORDER = "run_id, given_at, given_by, command, rate"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE rows SET state = 'lost'",
        "UPDATE rows SET state = 'created', sid = NULL",
        "UPDATE rows SET state = 'existed', sid = 'UT1'",
        "UPDATE rows SET state = 'in_doubt', sid = 'UT1'",
        "UPDATE rows SET state = 'closed', sid = NULL",
        "UPDATE rows SET key = NULL",
        "UPDATE rows SET channel_id = 99",
        "UPDATE rows SET run_id = 99",
        "UPDATE rows SET source_id = 99",
        "DELETE FROM rows",
        "DELETE FROM channels",
        "INSERT INTO findings (run_id, source_id, line, kind, code, reason) VALUES (1, 1, 1, 'odd', '', '')",
        f"INSERT INTO orders ({ORDER}) VALUES (1, 0, 'me', 'rate', NULL)",
        f"INSERT INTO orders ({ORDER}) VALUES (1, 0, 'me', 'rate', 0)",
        f"INSERT INTO orders ({ORDER}) VALUES (1, 0, 'me', 'pause', 5)",
        f"INSERT INTO orders ({ORDER}) VALUES (1, 0, 'me', 'stop', NULL)",
        f"INSERT INTO orders ({ORDER}) VALUES (9, 0, 'me', 'pause', NULL)",
        f"INSERT INTO decisions ({DECISION}) VALUES (1, 1, 0, 'me', 'waived', NULL, NULL)",
        f"INSERT INTO decisions ({DECISION}) VALUES (1, 1, 0, 'me', 'waived', 'UT1', 'x')",
        f"INSERT INTO decisions ({DECISION}) VALUES (1, 1, 0, 'me', 'not_created', NULL, 'x')",
        f"INSERT INTO decisions ({DECISION}) VALUES (9, 1, 0, 'me', 'waived', NULL, 'x')",
        f"INSERT INTO decisions ({DECISION}) VALUES (NULL, 1, 0, 'me', 'waived', NULL, 'x')",
        f"INSERT INTO decisions ({DECISION}) VALUES (1, 1, 0, 'me', 'unwaived', NULL, 'x')",
        "INSERT INTO verifications VALUES (1, 1, 0, 'lost', NULL)",
        "INSERT INTO verifications VALUES (9, 1, 0, 'confirmed', NULL)",
        f"INSERT INTO waivers ({WAIVER}) VALUES (x'00', 9, 0, 'me', 'x')",
        f"INSERT INTO waivers ({WAIVER}) VALUES (x'00', 1, 0, 'me', NULL)",
        f"INSERT INTO rows ({ALL}) SELECT {ALL} FROM rows",
    ],
)
def test_the_tables_refuse_what_cannot_be_true(desk: Desk, statement: str) -> None:
    """A state that does not exist, a created row without a sid, one key twice, a dangling reference, a rate of 0."""
    desk.intend(desk.row(1))
    assert isinstance(desk.ledger, SqliteLedger)
    with pytest.raises(sqlite3.IntegrityError):
        desk.ledger._connection.execute(statement)


def test_a_run_is_recorded_from_its_beginning_to_its_end(place: SqlitePlace) -> None:
    """The last run is open while it goes on, and has its exit code, reason and summary when it ended."""
    with at_work(place) as desk:
        with View(place.path) as view:
            run = view.last_run()
        assert run is not None
        assert (run.number, run.command, run.ended_at, run.exit_code) == (desk.run, "run", None, None)
        desk.ledger.end_run(1, "finished", '{"read": 1}')
    with View(place.path) as view:
        run = view.last_run()
    assert run is not None
    assert (run.exit_code, run.reason, run.summary) == (1, "finished", '{"read": 1}')
    assert run.ended_at is not None
    assert run.ended_at >= run.started_at


def test_many_channels_are_remembered_correctly(
    desk: Desk, place: SqlitePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More channels than are kept in mind are looked up again, not mixed up."""
    monkeypatch.setattr(writing, "REMEMBERED_CHANNELS", 3)
    rows = [row(number, number % 7)._replace(source=desk.source) for number in range(50)]
    desk.ledger.write([Intent(each) for each in rows])
    channels = {found["key"]: found["channel_sid"] for found in place.rows()}
    assert channels == {each.key: each.channel_sid for each in rows}
    assert desk.ledger.register(SOURCE) == desk.source
