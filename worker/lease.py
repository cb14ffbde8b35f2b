"""The right to send, of one process among others that may take its place.

It ends by itself, by this host's own clock, which goes on while a process is frozen: long before the others, who have
not heard of it, count it as gone.
"""

import time
from collections.abc import Callable
from functools import partial

LEASE_SECONDS = 5.0
"""How long after it was last heard of a process sends nothing more."""


def boot_clock() -> Callable[[], float]:
    """Return a clock that goes on while the machine sleeps, where there is one."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    return time.monotonic


class Lease:
    """Holds, or not. It is the event loop's: what renews it stands in line with what asks for it."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self.clock = clock or boot_clock()
        self._until = self.clock() + LEASE_SECONDS

    def renew(self, asked_at: float) -> None:
        """Have it for so long from when the others were told, not from when their answer came."""
        self._until = max(self._until, asked_at + LEASE_SECONDS)

    def __call__(self) -> bool:
        """Tell whether it holds."""
        return self.clock() < self._until
