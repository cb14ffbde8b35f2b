"""When the service is down: a circuit breaker and a retry quota. Pure; times are arguments, in seconds.

The breaker opens when nothing but server errors and failed connections came back, lets one request at a time try
whether the service is there again, and closes at the first that is answered. The quota is botocore's idea: retries
are a share of the successes, so that a service in trouble is not given more to do for it.
"""

import math

FAILURES = 5
"""So many failures without one answer between them mean that the service is down."""

FIRST_PROBE_SECONDS = 1.0
LONGEST_PROBE_SECONDS = 60.0


class Breaker:
    """Tells whether requests may leave. outage_seconds: how long to go on probing; 0 means no breaker at all.

    reason: the last failure's. unreachable: whether all failures were those of connections.
    """

    def __init__(self, outage_seconds: float) -> None:
        self._most_seconds = outage_seconds
        self._failures = 0
        self._opened_at: float | None = None
        self._was_open = 0.0
        self._probes = 0
        self._next_probe = math.inf
        self._probing = False
        self.reason = ""
        self.unreachable = False

    @property
    def is_open(self) -> bool:
        """Whether the service counts as down."""
        return self._opened_at is not None

    @property
    def next_probe(self) -> float:
        """When the next request may try, infinite while one does."""
        return math.inf if self._probing else self._next_probe

    @property
    def gives_up_at(self) -> float:
        """When the outage has lasted too long."""
        return math.inf if self._opened_at is None else self._opened_at + self._most_seconds

    def outage_seconds(self, now: float) -> float:
        """Return how long this outage has lasted; 0 when there is none."""
        return 0.0 if self._opened_at is None else now - self._opened_at

    def open_seconds(self, now: float) -> float:
        """Return how long the service has been down, all outages of the run together."""
        return self._was_open + self.outage_seconds(now)

    def try_probe(self, now: float) -> bool:
        """Take the right to try, when it is time and nobody does."""
        if now < self.next_probe:
            return False
        self._probing = True
        return True

    def withdraw_probe(self) -> None:
        """Give the right to try back: the request did not leave after all."""
        self._probing = False

    def hasten(self, now: float) -> None:
        """Try every second from now on: something else of the service is answered, so it is not down as a whole."""
        if self._opened_at is None:
            return
        self._probes = 0
        self._next_probe = min(self._next_probe, now + FIRST_PROBE_SECONDS)

    def fail(self, now: float, reason: str, *, unreachable: bool) -> bool:
        """Take note of a failure; tell whether it opened the breaker. unreachable: no connection was made at all."""
        self.reason = reason
        if self._opened_at is not None:
            self.unreachable &= unreachable
            self._put_off(now)
            return False
        self.unreachable = unreachable and (self.unreachable or not self._failures)
        self._failures += 1
        if self._failures < FAILURES or not self._most_seconds:
            return False
        self._opened_at = now
        self._put_off(now)
        return True

    def succeed(self, now: float) -> bool:
        """Take note of an answer of any other kind; tell whether that closed the breaker."""
        self._failures = 0
        if self._opened_at is None:
            return False
        self._was_open += now - self._opened_at
        self._opened_at = None
        self._probes = 0
        self._probing = False
        self._next_probe = math.inf
        return True

    def _put_off(self, now: float) -> None:
        """Wait twice as long as before; what was under way when it opened changes nothing about the next probe."""
        if self._probes and not self._probing:
            return
        self._next_probe = now + min(FIRST_PROBE_SECONDS * 2.0 ** min(self._probes, 30), LONGEST_PROBE_SECONDS)
        self._probes += 1
        self._probing = False


class RetryQuota:
    """Retries that a run may make: a store, and a share of its successes. Whoever finds it empty has to wait longer.

    Nobody is refused a retry, which would fail its row: a second brings one more, too.
    """

    CAPACITY = 100.0
    PER_SUCCESS = 0.2
    PER_SECOND = 1.0

    def __init__(self) -> None:
        self._left = self.CAPACITY
        self._at = -math.inf

    def spend(self, now: float) -> float:
        """Take one retry; return the seconds to wait for it, at least."""
        if math.isfinite(self._at):
            self._left = min(self.CAPACITY, self._left + (now - self._at) * self.PER_SECOND)
        self._at = now
        self._left -= 1
        return max(0.0, -self._left / self.PER_SECOND)

    def refund(self) -> None:
        """Take note of a success."""
        self._left = min(self.CAPACITY, self._left + self.PER_SUCCESS)
