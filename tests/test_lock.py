"""Who may write a ledger: one process, on the one file that the path names, for as long as it does."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from worker.errors import LedgerError, LedgerRefusedError
from worker.ledger.lock import Identity, Lock
from worker.ledger.opening import create_ledger, open_ledger

NAMES = ["imports.db", "with [a-b] and *.db", "-.db"]


def removed(path: Path) -> None:
    """Remove a file."""
    path.unlink()


def replaced(path: Path) -> None:
    """Put a copy in a file's place, as a restored backup is."""
    copy = path.with_name("copy")
    shutil.copyfile(path, copy)
    copy.replace(path)


def in_a_removed_folder(path: Path) -> None:
    """Move the file's folder away."""
    path.parent.rename(path.parent.with_name("elsewhere"))


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """A new ledger in a folder of its own."""
    path = tmp_path / "folder" / "imports.db"
    path.parent.mkdir()
    create_ledger(path)
    return path


@pytest.mark.parametrize("happened", [removed, replaced, in_a_removed_folder])
def test_a_lock_whose_file_is_another_or_gone_is_no_lock(ledger: Path, happened: Callable[[Path], None]) -> None:
    """Another process could lock what has the name now, so both would write."""
    with Lock(ledger) as lock:
        lock.check()
        happened(ledger.with_name("imports.db.lock"))
        with pytest.raises(LedgerError, match=r"imports\.db\.lock: was removed or replaced .* nothing more is sent"):
            lock.check()


@pytest.mark.parametrize("happened", [removed, replaced, in_a_removed_folder])
def test_a_ledger_that_is_another_or_gone_is_noticed(ledger: Path, happened: Callable[[Path], None]) -> None:
    """What is written to it from then on, nobody would ever read."""
    identity = Identity(ledger)
    identity.check()
    happened(ledger)
    with pytest.raises(LedgerError, match=r"imports\.db: was removed or replaced .* nothing more is sent"):
        identity.check()


def test_a_ledger_that_is_gone_already_has_no_identity(tmp_path: Path) -> None:
    """Between finding a ledger and opening it, it may go."""
    with pytest.raises(LedgerError, match=r"absent\.db: the ledger cannot be reached: No such file"):
        Identity(tmp_path / "absent.db")


def test_a_ledger_with_two_names_is_refused_before_it_is_touched(ledger: Path) -> None:
    """Each name would have a lock of its own; nothing is written, and the lock is given back."""
    ledger.with_name("other.db").hardlink_to(ledger)
    before = ledger.read_bytes()
    with pytest.raises(LedgerRefusedError, match=r"has 2 names \(hard links\).*keep one of them"):
        open_ledger(ledger)
    assert (ledger.read_bytes(), ledger.with_name("imports.db-wal").exists()) == (before, False)
    ledger.with_name("other.db").unlink()
    open_ledger(ledger).close()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("linked", [False, True], ids=["by its name", "by a symbolic link"])
def test_a_making_that_was_cut_between_its_two_names_is_healed(tmp_path: Path, name: str, *, linked: bool) -> None:
    """The name that was left over goes; the ledger is whole, whatever it is called and however it is reached."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / name
    create_ledger(path)
    left_over = folder / f".{name}.x7_k2.new"
    left_over.hardlink_to(path)
    if linked:
        path = tmp_path / "link.db"
        path.symlink_to(folder / name)
    open_ledger(path).close()
    assert not left_over.exists()
    assert (folder / name).exists()


def test_anothers_leftover_is_nobodys_business(ledger: Path) -> None:
    """Only a second name of this very ledger is removed: what else looks like one may be in the making."""
    others = [ledger.with_name(name) for name in (".imports.db.abc.new", ".imports.db2.abc.new", "imports.db.new")]
    for other in others:
        other.write_text("in the making", encoding="utf-8")
    open_ledger(ledger).close()
    assert all(other.exists() for other in others)
