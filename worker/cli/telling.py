"""Words to people: on stdout and stderr, and the way they are shown there. Loads nothing heavy."""

import getpass
import os
import signal
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from worker.cluster import Cluster
from worker.report import printable


def say(text: str) -> None:
    """Tell the person at stderr something. Who has closed it does not want to know, and that must not stop a run."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            print(printable(text), file=sys.stderr, flush=True)


def tell(text: str) -> None:
    """Print a result on stdout. Who has closed it, as `| head` does, gets no more of it; the exit code still counts."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        pass
    except OSError as exc:
        say(f"warning: the result could not be printed: {exc.strerror}")


def shown(path: str) -> str:
    """Return a path the way a person would type it in this folder."""
    with suppress(OSError):  # the folder may be gone meanwhile
        path = path.removeprefix(f"{Path.cwd()}/")
    return path.replace("\n", "\\n")  # a name must not look like lines of ours


def masked(account: str | None) -> str:
    """Return an account's sid as it may be shown; "" when it is not known."""
    return f"account {account[:2]}…{account[-4:]}" if account else ""


def person() -> str:
    """Return who gives this command, as the ledger remembers it: name@host."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # in a container a user may have a number only
        name = f"uid {os.getuid()}"
    return f"{name}@{socket.gethostname()}"


def placed(clusters: Iterable[Cluster]) -> list[Cluster]:
    """Return clusters with their places the way a person would type them in this folder."""
    return [one._replace(places=tuple((shown(path), line) for path, line in one.places)) for one in clusters]


def at_terminal() -> bool:
    """Tell whether a person can be asked."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def agreed(plan: str, question: str) -> bool:
    """Tell a person at a terminal what would be done, ask, and return the answer."""
    # the event loop would swallow the first Ctrl-C while it waits for this answer
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        say(plan)
        print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in {"y", "yes"}
    finally:
        signal.signal(signal.SIGINT, before)
