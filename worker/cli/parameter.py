"""The options that several commands share, as they are on the command line."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, Token

from worker.place import Place, server_of


def _place(_: object, tokens: Sequence[Token]) -> Place:
    """Return the place that a ledger's name is; as a path, an address would lose a slash."""
    return server_of(tokens[0].value) or Path(tokens[0].value)


Files = Annotated[list[str], Parameter(help="CSV or NDJSON files (also .gz, .bz2, .xz, .zst), globs, or - for stdin.")]
ConfigFile = Annotated[
    Path | None, Parameter(name="--config", help="Settings; else $FLEX_IMPORT_CONFIG, else ./config.toml.")
]
LedgerFile = Annotated[
    Place | None,
    Parameter(
        name="--ledger",
        converter=_place,
        n_tokens=1,
        help="The ledger: a file, or postgresql://HOST/NAME; else ledger.path of the config.",
    ),
]


def flag(text: str, *names: str) -> Parameter:
    """Return what makes a boolean option without a `--no-` twin."""
    return Parameter(name=names or None, negative="", show_default=False, help=text)


ProfileName = Annotated[str | None, Parameter(name="--profile", help="Read all files by this profile of the config.")]
Quiet = Annotated[bool, flag("Print nothing when all is well.", "--quiet", "-q")]
Yes = Annotated[bool, flag("Do not ask.", "--yes", "-y")]
Strict = Annotated[bool, flag("Reject rows that have a warning.")]
Json = Annotated[bool, flag("Print the result as one JSON object.", "--json")]


Rate = Annotated[str | None, Parameter(help="Requests a second at most: 15, 900/m, inf.")]
Concurrency = Annotated[int | None, Parameter(help="Requests in flight at most.")]
BaseUrl = Annotated[str | None, Parameter(help="Another address of the API: an emulator's, a proxy's.")]

OfRun = Annotated[int | None, Parameter(help="Only what this run brought to its state.")]
_GROUP = ("--group", "--cluster")
GroupId = Annotated[str | None, Parameter(name=_GROUP, help="Only rows of this group: its id as failures shows it.")]
GroupIds = Annotated[
    list[str], Parameter(name=_GROUP, negative="", help="A group: its id as failures shows it; may be repeated.")
]
WaiverReason = Annotated[str, Parameter(help="Why these rows need nothing more.")]


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Window:
    """The options about time, as they are on the command line."""

    until: Annotated[str | None, Parameter(help="Stop at this time: 06:00, or 2026-03-04T06:00.")] = None
    max_duration: Annotated[str | None, Parameter(help="Stop after so long: 2h, 90m.")] = None
    wait: Annotated[bool, flag("Sleep through closed hours.")] = False
    ignore_timetable: Annotated[bool, flag("Send in closed hours, too.")] = False


ANY_TIME = Window()
