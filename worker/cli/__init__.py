"""The command line: parse, call a command, turn what stops it into one message and one exit code.

Heavy rooms are imported by the command that needs them, so that `--help` and `status` start at once.
"""

import io
import os
import re
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

from cyclopts import CycloptsError

from worker.cli import commands  # noqa: F401 - puts them into the app
from worker.cli.app import app, as_typed, parsable
from worker.errors import ClosedError, LedgerHeldError, WorkerError
from worker.state import Exit
from worker.wording import Given

_CONVERSION = re.compile(r'unable to convert (".*") into ([^ ]+?)\.?$', re.DOTALL)
_MISSING = re.compile(r'Command "(.+?)" parameter (.+) requires an argument\.')
_SURPLUS = re.compile(r"Unused Tokens: \[(.*)\]\.", re.DOTALL)
_KINDS = {"int": "a whole number", "float": "a number"}

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
        return _refuse(_in_our_words(as_typed(str(exc))), _help_for(exc))
    except WorkerError as exc:
        return _stopped(exc, arguments)
    except KeyboardInterrupt:
        _say("stopped by SIGINT")
        return Exit.SIGINT
    except Exception as exc:  # noqa: BLE001 - a bug in here, whatever it is
        from worker.logs import outline

        _say(outline(exc))
        _say(f"exit {Exit.BUG:d}: {Exit.BUG.meaning}; rows are intact, run it again")
        return Exit.BUG
    return int(result or 0)


def _in_our_words(message: str) -> str:
    """Return a message of the parser without the names of its types."""
    if found := _MISSING.fullmatch(message):
        return f"{found.group(1)}: {found.group(2)} is missing"
    if found := _SURPLUS.fullmatch(message):
        return f"too many arguments: {found.group(1)}"
    return _CONVERSION.sub(lambda found: f"{found.group(1)} is not {_KINDS.get(found.group(2), 'valid here')}", message)


def _help_for(error: CycloptsError) -> str:
    """Return where the command that was meant is explained."""
    chain = " ".join(error.command_chain or ())
    return f"flex-import {chain} --help shows its options" if chain else "flex-import --help shows the commands"


def _stopped(error: WorkerError, words: Sequence[str]) -> int:
    code, hint = Exit.USAGE, ""
    if isinstance(error, LedgerHeldError):
        code = Exit.HELD
        hint = f"How far it is:  {_given_in(words).command('status')}\n"
    elif isinstance(error, ClosedError):
        code = Exit.STOPPED
    _say(f"error: {error}\n{hint}exit {code:d}, nothing was sent")
    return code


def _given_in(words: Sequence[str]) -> Given:
    """Return the options that a command to type next needs, where the command itself never began."""
    pairs = [*pairwise(words), *(word.partition("=")[::2] for word in words if "=" in word)]
    found = {name: value for name, value in pairs if name in {"--config", "--ledger"}}
    return Given(found.get("--config", ""), found.get("--ledger", ""))


def _refuse(message: str, hint: str) -> int:
    _say(f"error: {message}\n{hint}\nexit {Exit.USAGE:d}, nothing was sent")
    return Exit.USAGE


def _say(text: str) -> None:
    from worker.cli.telling import say

    say(text)
