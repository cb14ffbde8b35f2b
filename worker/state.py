"""The names that rows and runs end under: part of the contract, and all of it that the command line needs to begin."""

from enum import IntEnum, StrEnum


class State(StrEnum):
    """What the ledger knows of a row. The names are part of the contract."""

    STARTED = "started"
    CREATED = "created"
    EXISTED = "existed"
    REJECTED = "rejected"
    PARKED = "parked"
    WAIVED = "waived"
    FAILED = "failed"
    IN_DOUBT = "in_doubt"
    CLOSED = "closed"


class Exit(IntEnum):
    """What a command's exit code says. Part of the contract."""

    DONE = 0
    BAD_ROWS = 1
    USAGE = 2
    HALTED = 3
    DOUBT = 4
    HELD = 5
    STOPPED = 6
    BUG = 70
    SIGHUP = 129
    SIGINT = 130
    SIGTERM = 143

    @property
    def meaning(self) -> str:
        """One sentence for people."""
        return _MEANINGS[self]


_MEANINGS = {
    Exit.DONE: "finished, every row is done",
    Exit.BAD_ROWS: "finished; some rows were rejected, parked or failed",
    Exit.USAGE: "usage or configuration; nothing was sent",
    Exit.HALTED: "halted; every row is intact, run it again",
    Exit.DOUBT: "finished; some rows are in doubt",
    Exit.HELD: "another run holds the ledger",
    Exit.STOPPED: "stopped as asked; run it again to go on",
    Exit.BUG: "a bug in flex-import",
    Exit.SIGHUP: "stopped by SIGHUP, everything recorded",
    Exit.SIGINT: "stopped by SIGINT, everything recorded",
    Exit.SIGTERM: "stopped by SIGTERM, everything recorded",
}
