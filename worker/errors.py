"""What stops a run. A row that goes wrong is a value (see `model`); only what stops everything is raised.

Each message is a whole answer for the person who reads it: what is wrong, where, and what to do.
"""


class WorkerError(Exception):
    """Anything that stops a run on purpose; its message is shown as it is, without a traceback."""


class ConfigError(WorkerError):
    """A setting, a variable, a flag or a credential is missing or wrong. Nothing was sent."""


class SourceError(WorkerError):
    """An input cannot be read, or cannot be trusted to be read to its end."""


class LedgerError(WorkerError):
    """The ledger cannot be used, or can no longer be written."""


class LedgerRefusedError(LedgerError):
    """The ledger is sound, but it is not the one for this import: it is missing, or bound to something else."""


class LedgerHeldError(LedgerError):
    """Another process works on the ledger; a kernel lock says so, so it is never stale."""


class ClosedError(WorkerError):
    """Nothing may be sent now, as the hours say. Nothing was sent; the same command goes on later."""
