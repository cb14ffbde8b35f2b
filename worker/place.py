"""Where a ledger is kept: in a file, or in a PostgreSQL database that hosts share."""

from pathlib import Path
from urllib.parse import urlsplit

from worker.errors import ConfigError

SCHEMES = ("postgresql://", "postgres://")


class Server(str):
    """The address of a database, as libpq takes it; without a password, so that it may be shown."""

    __slots__ = ()


Place = Path | Server


def server_of(name: str) -> Server | None:
    """Return the address that a ledger's name is, None when it names a file. Raises ConfigError for a password in it.

    A password in a file, a flag or a list of processes is read by others; libpq takes it from where they do not look.
    """
    if not name.startswith(SCHEMES):
        return None
    try:
        password = urlsplit(name).password
    except ValueError as exc:
        raise ConfigError(f"ledger.path: is no address of a database: {exc}") from None
    if password is not None or "password=" in name:
        raise ConfigError(
            "ledger.path: has a password, which anybody could read there; leave it out, and set PGPASSWORD or write it "
            "to ~/.pgpass"
        )
    return Server(name)
