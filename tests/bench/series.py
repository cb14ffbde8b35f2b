"""What an emulator counted during a run, sampled, and what can be said about any stretch of it. Pure arithmetic."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

STEP = 0.1
"""Seconds between two looks, at the service as at the samples."""

STRETCH = 3.0
"""Seconds that a rate must be held to count as reached."""

REACHED = 0.9
"""The share of a limit at which it counts as reached."""

HELD = 0.5
"""The share of a limit in every second of such a stretch: else one that starts with a burst counts one too many."""

CALM = 0.02
"""The share of 429s at which a contender counts as back under a limit that fell."""

CALM_GOODPUT = 0.8
"""The share of a limit that fell which must be used then: who sends nothing is not under it, but gone."""

NEVER = math.inf


class Sample(NamedTuple):
    """The counters at one moment, since the start. at: the machine's monotonic clock, in seconds."""

    at: float
    arrived: int
    accepted: int


class Call(NamedTuple):
    """One create of the foreign traffic: when it was sent, and whether it was accepted."""

    at: float
    accepted: bool


class Series:
    """The creates of a contender over time; between two samples they are spread evenly."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples
        self._times = [sample.at for sample in samples]

    @property
    def began(self) -> float:
        """When the first create had come. Raises ValueError when none has."""
        for sample in self._samples:
            if sample.arrived:
                return sample.at
        raise ValueError("nothing arrived")

    def without(self, calls: Sequence[Call]) -> "Series":
        """Return what is left without the foreign traffic."""
        arrived = sorted(call.at for call in calls)
        accepted = sorted(call.at for call in calls if call.accepted)
        return Series(
            [
                Sample(
                    one.at, one.arrived - bisect_right(arrived, one.at), one.accepted - bisect_right(accepted, one.at)
                )
                for one in self._samples
            ]
        )

    def goodput(self, since: float, until: float) -> float:
        """Return the accepted creates a second."""
        return (self._count(until).accepted - self._count(since).accepted) / (until - since)

    def refused_share(self, since: float, until: float) -> float:
        """Return the share of 429s among all answers; 0 without any."""
        first, last = self._count(since), self._count(until)
        arrived = last.arrived - first.arrived
        return max(0.0, 1 - (last.accepted - first.accepted) / arrived) if arrived else 0.0

    def busiest_second(self, since: float, until: float) -> float:
        """Return the creates that came in the worst second, whose beginning is looked for every 0.1 s."""
        return max(
            (self._count(at + 1).arrived - self._count(at).arrived for at in _moments(since, until - 1)), default=0.0
        )

    def seconds_until_reached(self, limit: float, since: float, until: float) -> float:
        """Return how long it took until a stretch began in which 90 % of the limit were used evenly; or NEVER."""
        for at in _moments(since, until - STRETCH):
            if self._uses(REACHED * limit, at, least=HELD * limit):
                return at - since
        return NEVER

    def seconds_until_calm(self, limit: float, since: float, until: float) -> float:
        """Return how long it took until such a stretch began with next to no 429s; or NEVER."""
        for at in _moments(since, until - STRETCH):
            few = self.refused_share(at, at + STRETCH) <= CALM
            if few and self._uses(CALM_GOODPUT * limit, at, least=HELD * limit):
                return at - since
        return NEVER

    def _uses(self, goodput: float, at: float, *, least: float) -> bool:
        """Tell whether a stretch has such a goodput, and at least so much in each of its seconds."""
        return self.goodput(at, at + STRETCH) >= goodput and all(
            self.goodput(second, second + 1) >= least for second in _moments(at, at + STRETCH - 1)
        )

    def _count(self, at: float) -> "_Count":
        """Return the counters at any moment."""
        place = bisect_left(self._times, at)
        if place == len(self._times):
            last = self._samples[-1]
            return _Count(last.arrived, last.accepted)
        after = self._samples[place]
        if not place or after.at == at:
            return _Count(after.arrived, after.accepted)
        before = self._samples[place - 1]
        share = (at - before.at) / (after.at - before.at)
        return _Count(
            before.arrived + share * (after.arrived - before.arrived),
            before.accepted + share * (after.accepted - before.accepted),
        )


class _Count(NamedTuple):
    arrived: float
    accepted: float


def refused_share(calls: Sequence[Call]) -> float:
    """Return the share of 429s that the foreign traffic met."""
    return sum(not call.accepted for call in calls) / len(calls) if calls else 0.0


def _moments(since: float, until: float) -> Iterator[float]:
    for number in range(math.floor((until - since) / STEP + 1e-6) + 1):
        yield since + number * STEP
