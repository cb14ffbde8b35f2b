"""The scenarios of `make bench-limits`: what a service allows, what a client is told, and what changes on the way."""

import math
from dataclasses import dataclass
from typing import Any

WARM_UP = 10.0
"""Seconds from the first create to the beginning of what is measured."""

ADAPTIVE = "adaptive"
FIXED = "fixed"
SDK = "sdk"
SDK_429 = "sdk-429"
OURS = (ADAPTIVE, FIXED)
CONTENDERS = (*OURS, SDK)
"""The contenders of a whole run; `sdk-429` is there to be asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One service and what its clients are told about it. Rates are creates a second.

    rate, at_once: what the service allows, None for no such limit. ceiling, concurrency: what our clients are told.
    tasks: how many the SDK's loop has, which can be told nothing else.
    lowered: the service's rate in between. foreign: others' creates in between. between: the shares of the scenario's
    time from which and until which something is different. times: how many times the usual length it takes.
    """

    name: str
    ceiling: float
    rate: float | None = None
    at_once: int | None = None
    latency: float = 0.01
    concurrency: int = 16
    tasks: int = 16
    lowered: float | None = None
    foreign: float = 0.0
    between: tuple[float, float] | None = None
    times: float = 1.0

    @property
    def limit(self) -> float:
        """How many creates a second there can be at most, while nothing is different."""
        limits = [self.ceiling, *([self.rate] if self.rate else [])]
        return min(*limits, self.at_once / self.latency) if self.at_once else min(limits)

    def admits(self, contender: str) -> bool:
        """Tell who can take part: the SDK cannot be told a rate, so it has no place where there is nothing else."""
        return contender in OURS or bool(self.rate or self.at_once)

    def changes(self, seconds: float) -> tuple[float, float] | None:
        """Return from when until when something is different, in seconds from the first create."""
        return (self.between[0] * seconds, self.between[1] * seconds) if self.between else None

    def measured(self, seconds: float) -> tuple[float, float]:
        """Return what is measured, in seconds from the first create: with foreign traffic just its time."""
        changes = self.changes(seconds)
        return changes if changes and self.foreign else (WARM_UP, seconds)

    def allowed(self, seconds: float) -> float:
        """Return how many creates a second a perfect client gets in what is measured."""
        since, until = self.measured(seconds)
        changes = self.changes(seconds)
        if changes is None:
            return self.limit
        if self.lowered is None:
            return self.limit - self.foreign
        lowered_for = changes[1] - max(changes[0], since)
        return self.limit - (self.limit - self.lowered) * lowered_for / (until - since)

    def behaviour(self) -> dict[str, Any]:
        """Return the emulator's settings at the beginning."""
        return {"rate_per_second": self.rate, "concurrency": self.at_once, "latency_seconds": self.latency}


SCENARIOS = (
    Scenario(name="known-100", rate=100, ceiling=100),
    Scenario(name="free-10", ceiling=10),
    Scenario(name="free-100", ceiling=100),
    Scenario(name="free-1000", ceiling=1000, concurrency=64),
    Scenario(name="unknown-20", rate=20, ceiling=80),
    Scenario(name="unknown-100", rate=100, ceiling=400),
    Scenario(name="unknown-500", rate=500, ceiling=2000, concurrency=64),
    Scenario(name="concurrency-10", at_once=10, latency=0.15, ceiling=math.inf, concurrency=64, tasks=64),
    Scenario(name="halving-100", rate=100, ceiling=400, lowered=50, between=(3 / 8, 5 / 8), times=2),
    Scenario(name="foreign-100", rate=100, ceiling=400, foreign=50, between=(3 / 8, 3 / 4), times=2),
)
