"""The command line: parse, call a command, turn what stops it into one message and one exit code.

Heavy rooms are imported by the command that needs them, so that `--help` and `status` start at once.
"""

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from cyclopts import CycloptsError

from worker.cli import commands  # noqa: F401 - puts them into the app
from worker.cli.app import app, as_typed, parsable
from worker.errors import ClosedError, LedgerHeldError, WorkerError
from worker.state import Exit

_FIRST_OWN = 3
"""The descriptors before it are the standard streams'."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code, whatever has become of the standard streams."""
    _replace_closed_streams()
    code = call(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        _let_go(stream)
    sys.exit(code)


def _replace_closed_streams() -> None:
    """Occupy the numbers of closed standard streams: a ledger opened as number 2 would get what is meant for stderr."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < _FIRST_OWN:
        pass
    os.close(descriptor)
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - the process's
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr does: a name that is no text must not end a run


def _let_go(stream: TextIO | None) -> None:
    """Flush a stream; what cannot be written any more must not become the exit code 120 of the interpreter."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def call(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; whatever stops it becomes a message on stderr."""
    try:
        result: Any = app(parsable(arguments), exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as exc:
        return _refuse(as_typed(str(exc)), "flex-import --help shows the commands")
    except WorkerError as exc:
        return _stopped(exc)
    except KeyboardInterrupt:
        _say("stopped by SIGINT")
        return Exit.SIGINT
    except Exception as exc:  # noqa: BLE001 - a bug in here, whatever it is
        from worker.logs import outline

        _say(outline(exc))
        _say(f"exit {Exit.BUG:d}: {Exit.BUG.meaning}; rows are intact, run it again")
        return Exit.BUG
    return int(result or 0)


def _stopped(error: WorkerError) -> int:
    code = Exit.USAGE
    if isinstance(error, LedgerHeldError):
        code = Exit.HELD
    elif isinstance(error, ClosedError):
        code = Exit.STOPPED
    _say(f"error: {error}\nexit {code:d}, nothing was sent")
    return code


def _refuse(message: str, hint: str) -> int:
    _say(f"error: {message}\n{hint}\nexit {Exit.USAGE:d}, nothing was sent")
    return Exit.USAGE


def _say(text: str) -> None:
    from worker.cli.telling import say

    say(text)
