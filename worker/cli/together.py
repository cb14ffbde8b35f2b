"""What the commands of a fleet have in common: their ledger is in a database, and is written by several at once."""

from worker.config import Config
from worker.errors import ConfigError
from worker.ledger.fleet import FleetLedger
from worker.ledger.postgres import open_together
from worker.ledger.queue import set_up
from worker.place import Server


def server_in(config: Config) -> Server:
    """Return where the ledger is. Raises ConfigError when it is a file."""
    place = config.ledger_path
    if not isinstance(place, Server):
        raise ConfigError(
            "ledger.path: several hosts share a ledger in PostgreSQL; name it: --ledger postgresql://HOST/NAME"
        )
    return place


def open_fleet(server: Server) -> FleetLedger:
    """Open the ledger together with others, its queue made if it is not there."""
    ledger = open_together(server)
    try:
        set_up(server)
    except BaseException:
        ledger.close()
        raise
    return ledger
