"""One process at a time on a ledger, and only where the kernel keeps that promise.

The lock is the kernel's (flock), so it goes with its process and is never stale. It is on a file of its own: closing
any other descriptor of the database's file would drop SQLite's own locks.
"""

import fcntl
import os
import re
from contextlib import suppress
from pathlib import Path
from time import sleep
from types import TracebackType
from typing import Self

from worker.errors import LedgerError, LedgerHeldError, LedgerRefusedError

_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "beegfs", "ceph", "davfs", "lustre", "glusterfs"}
    | {f"fuse.{name}" for name in ("ceph", "ceph-fuse", "davfs2", "gcsfuse", "glusterfs", "rclone", "s3fs", "sshfs")}
)

UNNAMED = "another process"
"""What a holder is called that could not write its number, on a full disk say."""

_TRIES = 1000
_PAUSE_SECONDS = 0.001
"""How often, and after how long, a lock that others only ask about is tried again: an instant each, a second in all."""

_ESCAPE = re.compile(r"\\([0-7]{3})")
"""How the kernel writes a blank, a tab, a line end or a backslash in its table of mounts."""


class Lock:
    """The exclusive right to write one ledger. Raises LedgerHeldError when another process has it."""

    def __init__(self, ledger: Path) -> None:
        self._path = _handle_of(ledger)
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise LedgerError(f"{self._path}: cannot be opened: {exc.strerror}") from exc
        try:
            holder = None if _take(self._descriptor) else _named(self._descriptor)
        except OSError as exc:
            os.close(self._descriptor)
            raise LedgerError(f"{self._path}: cannot be locked: {exc.strerror}") from exc
        if holder is not None:
            os.close(self._descriptor)
            raise LedgerHeldError(f"{ledger}: {holder} is working on this ledger; wait until it has ended")
        with suppress(OSError):  # on a full disk the lock holds, only its holder's name is missing
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"process {os.getpid()}\n".encode(), 0)

    def check(self) -> None:
        """Raise LedgerError when the lock's file is no longer the one that is locked: another process could lock its
        successor.
        """  # noqa: D205 - one sentence
        if not _same(self._path, os.fstat(self._descriptor)):
            raise LedgerError(f"{self._path}: was removed or replaced while this run holds it; nothing more is sent")

    def release(self) -> None:
        """Let others in. The file stays: removing it would let two processes lock two files of one name."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def holder_of(ledger: Path) -> str | None:
    """Return who holds a ledger's lock, as `process 4711`, or None. It is not taken: who begins now still gets it.

    Raises LedgerError when it cannot be asked.
    """
    path = _handle_of(ledger)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise LedgerError(f"{path}: cannot be opened: {exc.strerror}") from exc
    try:
        return _named(descriptor) if _held(descriptor) else None
    except OSError as exc:
        raise LedgerError(f"{path}: cannot be asked who holds it: {exc.strerror}") from exc
    finally:
        os.close(descriptor)


def _handle_of(ledger: Path) -> Path:
    return ledger.with_name(f"{ledger.name}.lock")


def _named(descriptor: int) -> str:
    return os.pread(descriptor, 100, 0).decode(errors="replace").strip() or UNNAMED


def _take(descriptor: int) -> bool:
    """Take the lock, unless somebody holds it; who only asks for it shares it for an instant, and is waited for."""
    for _ in range(_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if _held(descriptor):
                return False
            sleep(_PAUSE_SECONDS)
        else:
            return True
    return False


def _held(descriptor: int) -> bool:
    """Tell whether somebody holds the lock. This kind cannot be asked about (`F_GETLK` does not see it), only shared.

    Who holds it shares it with nobody, so that sharing it fails; those who ask share it with each other.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def _same(path: Path, opened: os.stat_result) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)


class Identity:
    """Which file a path names now. A ledger that is removed or replaced would be written on, unseen, for ever.

    Raises LedgerRefusedError for a file with a second name: its lock is under the first one only.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        try:
            self._opened = path.stat()
        except OSError as exc:
            raise LedgerError(f"{path}: the ledger cannot be reached: {exc.strerror}") from exc
        if self._opened.st_nlink > 1:
            raise LedgerRefusedError(
                f"{path}: has {self._opened.st_nlink} names (hard links), so that two processes could use it at once; "
                "keep one of them"
            )

    def check(self) -> None:
        """Raise LedgerError when the path names another file than before, or none."""
        if not _same(self._path, self._opened):
            raise LedgerError(f"{self._path}: was removed or replaced while this run uses it; nothing more is sent")


def refuse_network(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> None:
    """Raise LedgerRefusedError when a path is on a network file system, where SQLite's locks cannot be trusted.

    mounts: the kernel's table of mounts; on a system without one nothing is refused.
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    try:
        where = path.resolve().parent
    except RuntimeError:
        raise LedgerRefusedError(f"{path}: is a symbolic link that leads back to itself") from None
    best = ("", "")
    for line in lines:
        left, _, right = line.partition(" - ")
        point = _ESCAPE.sub(lambda found: chr(int(found[1], 8)), left.split(" ")[4])
        if where.is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, right.split(" ")[0])
    if best[1] in _NETWORK:
        raise LedgerRefusedError(
            f"{path}: is on a network file system ({best[1]}), where a ledger is not safe; keep it on a local disk"
        )
