"""Opening and making ledgers, whatever keeps them: the driver of a database is loaded when a ledger is in one."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from worker.errors import ConfigError
from worker.ledger import file
from worker.ledger.lock import holder_of

if TYPE_CHECKING:
    from typing import Any

    from worker.ledger.connection import Connection
    from worker.ledger.tables import Tables
    from worker.place import Place


def open_ledger(place: Place) -> Tables:
    """Open an existing ledger for writing and take its lock.

    Raises LedgerRefusedError when there is none at this place or it cannot be used, LedgerHeldError when another
    process has it.
    """
    return file.open_ledger(place) if isinstance(place, Path) else _postgres().open_ledger(place)


def create_ledger(place: Place) -> None:
    """Make a new, empty ledger that only its owner can read; it appears whole or not at all.

    Raises LedgerRefusedError when there is one already, LedgerError when it cannot be made.
    """
    if isinstance(place, Path):
        file.create_ledger(place)
    else:
        _postgres().create_ledger(place)


def open_readonly(place: Place) -> Connection:
    """Open a ledger for looking, beside a run or after it.

    Raises LedgerRefusedError when it is none or is of an older version, LedgerError when it cannot be read.
    """
    return file.open_readonly(place) if isinstance(place, Path) else _postgres().open_readonly(place)


def open_beside(place: Place) -> Connection:
    """Open a ledger to write a word to the run that works on it: without its lock, which that run has.

    Raises LedgerRefusedError when it is none or is of an older version, LedgerError when it cannot be used.
    """
    return file.open_beside(place) if isinstance(place, Path) else _postgres().open_beside(place)


def exists(place: Place) -> bool:
    """Tell whether anything is at this place. Raises LedgerError when a database cannot be asked."""
    return place.exists() if isinstance(place, Path) else _postgres().exists(place)


def holders_of(place: Place) -> list[str]:
    """Return who works on a ledger, as `process 4711`; in a database there may be several, as `process 4711 on host`.

    Raises LedgerError when it cannot be asked.
    """
    if isinstance(place, Path):
        holder = holder_of(place.resolve())
        return [] if holder is None else [holder]
    found: list[str] = _postgres().holders_of(place)
    return found


def footprint(place: Place) -> tuple[int, int]:
    """Return how many bytes a ledger takes, its log included, and the version of its schema."""
    return file.footprint(place) if isinstance(place, Path) else _postgres().footprint(place)


def shrink(place: Place) -> None:
    """Give the disk back what was dropped; nobody else may work on the ledger."""
    if isinstance(place, Path):
        file.shrink(place)
    else:
        _postgres().shrink(place)


def require_driver(what: str = "ledger.path: a ledger in PostgreSQL") -> None:
    """Raise ConfigError when the packages for a database are not installed. what: needs them."""
    if not all(map(find_spec, ("psycopg", "procrastinate"))):
        raise ConfigError(f'{what} needs the extra "fleet", which is not installed: pip install "flex-import[fleet]"')


def _postgres() -> Any:
    require_driver()
    from worker.ledger import postgres  # noqa: PLC0415 - who keeps a ledger in a file needs no driver

    return postgres
