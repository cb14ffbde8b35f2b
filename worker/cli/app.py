"""The app that commands are put into, its groups, and the word for the standard streams."""

from collections.abc import Iterable

from cyclopts import App, Group

from worker import __version__

_STDIN = "\0stdin"
"""Stands for a lone `-` while the words are parsed; no argument can hold a NUL, so nothing else is meant by it."""

IMPORT = Group.create_ordered("Import")
LOOK = Group.create_ordered("Look")
DECIDE = Group.create_ordered("Decide")
CARE = Group.create_ordered("Care")

app = App(
    name="flex-import",
    help="Adds participants to Twilio Flex interaction channels from CSV or NDJSON: each row once.",
    version=__version__,
    version_flags=["--version"],
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # `call` says so
)


def parsable(words: Iterable[str]) -> list[str]:
    """Return words in which a lone `-` is no option to the parser."""
    return [_STDIN if word == "-" else word for word in words]


def typed(words: Iterable[str]) -> list[str]:
    """Return parsed words as they were typed."""
    return ["-" if word == _STDIN else word for word in words]


def as_typed(text: str) -> str:
    """Return a message of the parser with the words as they were typed."""
    return text.replace(_STDIN, "-")
