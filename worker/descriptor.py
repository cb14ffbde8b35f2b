"""Open files: each request at once needs a connection, and each connection is an open file of this process.

Too few of them look like a service that cannot be reached. So they are counted before anything is sent.
"""

import resource
from pathlib import Path

from worker.errors import ConfigError

RESERVED = 32
"""Open files for everything but connections to the API: the ledger, inputs, the log, the database, metrics."""

_ASSUMED_OPEN = 16
_FOLDER = Path("/dev/fd")


def allow(concurrency: int) -> int:
    """Raise the soft limit of open files as far as needed and allowed; return the limit that holds now.

    Args:
        concurrency: requests at once, and so connections.

    Raises:
        ConfigError: the hard limit is too low for so many connections.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    others = _open_now() + RESERVED
    needed = others + concurrency
    # while an address of each family is tried, a connection has two sockets
    soft = _raised(soft, hard, needed + concurrency)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return soft
    most = soft - others
    lower = f"set it to {most} or less, or " if most > 0 else ""
    raise ConfigError(
        f"limits.concurrency: {concurrency} requests at once need {needed} open files, and this process may have "
        f"{soft}: {lower}allow more (ulimit -n {needed}; in a systemd unit LimitNOFILE={needed}; "
        f"docker run --ulimit nofile={needed})"
    )


def _raised(soft: int, hard: int, wanted: int) -> int:
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= limit:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    except (OSError, ValueError):  # a system may allow less than it says
        return soft
    return limit


def _open_now() -> int:
    try:
        return sum(1 for _ in _FOLDER.iterdir())
    except OSError:
        return _ASSUMED_OPEN
