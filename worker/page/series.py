"""From samples to what a chart draws: what happened between two samples, without idle hours, in few enough points."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple

from worker.page.content import RunLine, Sample

IDLE = 1800.0
"""Seconds without a request after which they are left out of the charts, like hours without a run."""

COLUMNS = 200
"""Of a line, no more than the lowest and the highest value and the mean of so many columns are drawn."""

_MOST = 10**15
"""Beyond it a number is a fault, and only has to be survived."""

_FIRST_DAY, _LAST_DAY = 0, 32_503_680_000  # 1970 to 3000


@dataclass(frozen=True, slots=True)
class Stride:
    """What happened from one sample of a run to its next. piece: grows where a line must not be drawn on."""

    piece: int
    start: float
    end: float
    requests: int
    retries: int
    throttled: int
    sample: Sample

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / (self.end - self.start)


class Point(NamedTuple):
    """One value of a line. piece: as a stride's."""

    piece: int
    at: float
    value: float


def strides(runs: Iterable[RunLine]) -> list[Stride]:
    """Return what the samples of all runs say, in order, without the hours in which nothing was sent."""
    made: list[Stride] = []
    for run in sorted(runs, key=lambda run: run.started_at):
        piece = made[-1].piece + 1 if made else 0
        for idle, group in groupby(_of_run(run), key=lambda one: not one.requests and not one.sample.in_flight):
            taken = list(group)
            if idle and taken[-1].end - taken[0].start >= IDLE:
                piece += 1
                continue
            made += [replace(one, piece=piece) for one in taken]
    return made


def _of_run(run: RunLine) -> Iterable[Stride]:
    sound = (sample for sample in run.samples if _FIRST_DAY <= sample.at <= _LAST_DAY)
    samples = sorted(sound, key=lambda sample: sample.at)
    if len(samples) > 2:  # noqa: PLR2004 - two intervals to compare
        usual = (samples[-2].at - samples[0].at) / (len(samples) - 2)
        if samples[-1].at - samples[-2].at < usual / 4:  # taken as the run ended: too soon to make a rate of
            del samples[-2]
    before = run.started_at if _FIRST_DAY <= run.started_at <= _LAST_DAY else math.inf
    counted = (0, 0, 0)
    for sample in samples:
        counters = (sample.requests, sample.retries, sample.throttled)
        if sample.at > before:
            requests, retries, throttled = (
                min(max(now - then, 0), _MOST) for now, then in zip(counters, counted, strict=True)
            )
            yield Stride(0, before, sample.at, requests, retries, throttled, sample)
        before, counted = sample.at, counters


def points(of: Sequence[Stride], value: Callable[[Stride], float | None]) -> list[Point]:
    """Return a line from the first sample's beginning; where it has no value it is interrupted."""
    made, gaps = list[Point](), 0
    for stride in of:
        found = value(stride)
        if found is None or not math.isfinite(found):
            gaps += 1
        else:
            piece, level = stride.piece + gaps, min(max(found, 0.0), float(_MOST))
            if not made or made[-1].piece != piece:
                made.append(Point(piece, stride.start, level))
            made.append(Point(piece, stride.end, level))
    return made


class Band(NamedTuple):
    """Points of a line that are drawn at one place. piece, last_piece: of the first and the last of them."""

    piece: int
    last_piece: int
    at: float
    lowest: float
    highest: float
    mean: float


def banded(dots: Sequence[Point], column: Callable[[float], int]) -> list[Band]:
    """Return a line in no more places than there are columns; of many points the extremes and the mean stay.

    column: of a moment. The points of a short line stay as they are.
    """
    if len(dots) <= COLUMNS:
        return [Band(dot.piece, dot.piece, dot.at, dot.value, dot.value, dot.value) for dot in dots]
    made = []
    for _, group in groupby(dots, key=lambda dot: column(dot.at)):
        taken = list(group)
        told = [dot.value for dot in taken]
        middle = (taken[0].at + taken[-1].at) / 2
        made.append(Band(taken[0].piece, taken[-1].piece, middle, min(told), max(told), sum(told) / len(told)))
    return made
