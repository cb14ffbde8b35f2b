"""How far a command has come, in one line of a terminal that is drawn again and again, and gone at the end."""

import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from worker.report import printable
from worker.source import Input

_FRAME_SECONDS = 0.1


class Line:
    """One line of a terminal that is drawn again and again; nothing where stderr is none. silent: shows nothing."""

    def __init__(self, *, silent: bool) -> None:
        self.shows = not silent and sys.stderr is not None and sys.stderr.isatty()
        self._width = 0

    def draw(self, line: str) -> None:
        """Show this instead of what is there."""
        if not self.shows:
            return
        line = line[: shutil.get_terminal_size().columns - 1]
        with suppress(OSError, ValueError):  # nobody is left who wants to know
            print(f"\r{line:<{self._width}}\r{line}", end="", file=sys.stderr, flush=True)
        self._width = len(line)

    def clear(self) -> None:
        """Leave nothing behind."""
        if self._width:
            self.draw("")


class Progress:
    """Shows the rows that were read, and the share of the bytes when all inputs are files. silent: shows nothing."""

    def __init__(self, inputs: Sequence[Input], *, silent: bool) -> None:
        self._line = Line(silent=silent)
        self._bytes = 0
        if all(source.path for source in inputs):
            with suppress(OSError):  # who opens it next says what is wrong with it
                self._bytes = sum(source.path.stat().st_size for source in inputs if source.path)
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.clear()

    @property
    def due(self) -> bool:
        """Whether it is time to show something new."""
        return self._line.shows and time.monotonic() >= self._next

    def show(self, name: str, rows: int, bytes_read: int) -> None:
        """Show how far it is. name: the input that is read; rows and bytes_read: of all inputs."""
        share = f", {min(100, 100 * bytes_read // self._bytes)} %" if self._bytes else ""
        self._line.draw(f"{rows:,} rows{share}, reading {printable(name)}")
        self._next = time.monotonic() + _FRAME_SECONDS
