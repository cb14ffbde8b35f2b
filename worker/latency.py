"""How long answers take: classes of equal ratio, so that a percentile costs nothing a row and a few words of memory."""

import math
from typing import NamedTuple

_CLASSES_PER_E = 20.0
"""Classes a factor of e: each is 5 % wide, which is how exact a percentile is."""

_LEAST_SECONDS = 0.0001
_CLASSES = 300
"""From a tenth of a millisecond to five minutes; what is outside counts as the nearest."""


class Percentiles(NamedTuple):
    """Of the answers of a span of time, in seconds: half were at least as quick as the first, and so on."""

    p50: float
    p90: float
    p99: float


class Latencies:
    """Counts how long answers took. latest: of the span before this one, None when nothing was answered in it."""

    def __init__(self) -> None:
        self._counts = [0] * _CLASSES
        self._total = 0
        self.latest: Percentiles | None = None

    def add(self, seconds: float) -> None:
        """Count one answer."""
        place = int(math.log(seconds / _LEAST_SECONDS) * _CLASSES_PER_E) if seconds > _LEAST_SECONDS else 0
        self._counts[min(place, _CLASSES - 1)] += 1
        self._total += 1

    def take(self) -> Percentiles | None:
        """Return the percentiles of the span that ends now, and begin the next one."""
        self.latest = Percentiles(*map(self._at, (0.5, 0.9, 0.99))) if self._total else None
        self._counts = [0] * _CLASSES
        self._total = 0
        return self.latest

    def _at(self, share: float) -> float:
        needed = math.ceil(share * self._total)
        for place, count in enumerate(self._counts):
            needed -= count
            if needed <= 0:
                return _LEAST_SECONDS * math.exp((place + 0.5) / _CLASSES_PER_E)
        return math.inf
