"""Which inputs there are, and their bytes: files named on the command line, or stdin."""

import glob
import io
import os
import select
import stat
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from worker.errors import SourceError

_READABLE = select.POLLIN | select.POLLHUP | select.POLLERR


class Input(NamedTuple):
    """One input of a run. name: as it was given, for messages. path: None for stdin."""

    name: str
    path: Path | None


class Stamp(NamedTuple):
    """What tells a file from the same file changed: bytes, nanoseconds since the epoch, and its inode."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, fd: int) -> "Stamp":
        """Return the stamp of an open file."""
        found = os.fstat(fd)
        return cls(found.st_size, found.st_mtime_ns, found.st_ino)


def find_inputs(patterns: Sequence[str]) -> list[Input]:
    """Return the inputs that the command line names, in its order; what a pattern matches is sorted.

    patterns: paths, patterns that no shell has expanded, or `-` alone for stdin. Raises SourceError naming what cannot
    be read: nothing matches, missing, a directory, no plain file, no permission, given twice.
    """
    if "-" in patterns:
        if len(patterns) > 1:
            raise SourceError('"-" (stdin) cannot be combined with other inputs: give it alone, and once')
        return [Input("stdin", None)]
    found = [given for pattern in patterns for given in _expand(pattern)]
    if not found:
        raise SourceError('no input was given: name the files to read, or "-" for stdin')
    seen: dict[tuple[int, int], str] = {}
    for given in found:
        status = _check(given)
        same = status.st_dev, status.st_ino
        if same in seen:
            also = "" if seen[same] == given.name else f", also as {seen[same]}"
            raise SourceError(f"{given.name}: is given twice{also}; name each file once")
        seen[same] = given.name
    return found


def _expand(pattern: str) -> Iterator[Input]:
    if not pattern:
        raise SourceError("an input's name is empty: is a variable not set?")
    # A file may have such characters in its name: what exists is meant literally.
    if not set(pattern) & set("*?[") or os.path.lexists(pattern):
        yield Input(pattern, Path(pattern))
        return
    names = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - Path.glob refuses absolute patterns
    if not names:
        raise SourceError(f"{pattern}: no file matches; look with: ls {pattern}")
    yield from (Input(name, Path(name)) for name in names)


def _check(given: Input) -> os.stat_result:
    """Return a file's status after making sure that it can be opened."""
    path = given.path or Path()
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise SourceError(f'{given.name}: is a directory; name its files, as in "{path / "*.csv"}"')
        # Opening a pipe would wait for its writer, and counting it would use it up.
        if not stat.S_ISREG(status.st_mode):
            raise SourceError(f'{given.name}: is not a plain file; feed it on stdin, with "-" as the input')
        path.open("rb").close()
    except FileNotFoundError:
        raise SourceError(f"{given.name}: there is no such file; is the path right?") from None
    except PermissionError:
        raise SourceError(f"{given.name}: no permission to read it; see: ls -l {given.name}") from None
    except OSError as exc:
        raise SourceError(f"{given.name}: cannot be opened: {exc.strerror}") from exc
    return status


class Pipe(io.RawIOBase):
    """A descriptor whose blocked read can be ended from another thread. The descriptor itself stays open.

    Without this, a thread that waits for stdin would keep the process from ending until somebody writes there.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._ended, self._end = os.pipe()
        self._ending = threading.Lock()
        self._poll = select.poll()
        self._poll.register(fd, _READABLE)
        self._poll.register(self._ended, _READABLE)
        self.is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        """Whether a file was redirected here (`< export.csv`), so that nothing can be cut off on the way."""

    def readable(self) -> bool:
        """Tell io that this is for reading."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer as far as bytes are there; 0 at the end, or once interrupted."""
        if any(fd == self._ended for fd, _ in self._poll.poll()):
            return 0
        return os.readv(self._fd, [buffer])

    def interrupt(self) -> None:
        """End the read that is under way, and every later one."""
        with self._ending:
            if self._end >= 0:
                os.close(self._end)
                self._end = -1

    def close(self) -> None:
        """Give back what this class has opened."""
        if not self.closed:
            self.interrupt()
            os.close(self._ended)
        super().close()


def open_stdin(stream: BinaryIO | None = None) -> tuple[io.BufferedReader, Pipe | None]:
    """Return stdin's bytes, and the pipe to interrupt, if it is a real descriptor. stream: instead of stdin.

    Raises SourceError when the process has no stdin.
    """
    if stream is None:
        if sys.stdin is None:
            raise SourceError('stdin: is closed; give "-" only where something is piped in')
        stream = sys.stdin.buffer
    with suppress(io.UnsupportedOperation):
        pipe = Pipe(stream.fileno())
        return io.BufferedReader(pipe), pipe
    return stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(cast("io.RawIOBase", stream)), None
