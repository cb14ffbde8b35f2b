"""The figures of one run, and the medians of several. Pure arithmetic over what was recorded."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from tests.bench.scenario import Scenario
from tests.bench.series import NEVER, Call, Series, refused_share


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What one run left. changed: when something became different and when it was as before, by the same clock.

    busiest_second: creates in the worst second of the whole run, everybody's, as the emulator counted them.
    """

    series: Series
    changed: tuple[float, float] | None
    foreign: Sequence[Call]
    busiest_second: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The columns of the table; None where one has no meaning, NEVER where something did not happen."""

    goodput: float
    of_limit: float
    refused: float
    busiest: float
    busiest_ever: float
    converged: float | None
    calm: float | None = None
    back: float | None = None
    foreign_refused: float | None = None


def figures_of(record: Record, scenario: Scenario, seconds: float) -> Figures:
    """Return the figures of a run that was to last so many seconds from its first create."""
    began = record.series.began
    since, until = (began + moment for moment in scenario.measured(seconds))
    if record.changed and scenario.foreign:
        since, until = record.changed
    series = record.series.without(record.foreign)
    goodput = series.goodput(since, until)
    steady_until = record.changed[0] if record.changed else began + seconds
    calm = back = None
    if record.changed and scenario.lowered:
        calm = series.seconds_until_calm(scenario.lowered, *record.changed)
        back = series.seconds_until_reached(scenario.limit, record.changed[1], began + seconds)
    return Figures(
        goodput=goodput,
        of_limit=goodput / scenario.allowed(seconds),
        refused=series.refused_share(since, until),
        busiest=series.busiest_second(since, until),
        busiest_ever=record.busiest_second,
        converged=series.seconds_until_reached(scenario.limit, began, steady_until),
        calm=calm,
        back=back,
        foreign_refused=refused_share(record.foreign) if scenario.foreign else None,
    )


def median_of(rounds: Sequence[Figures]) -> Figures:
    """Return the median of each figure; what does not happen in half of the rounds, never happens."""
    columns: dict[str, Any] = {}
    for name in asdict(rounds[0]):
        values = [getattr(one, name) for one in rounds]
        columns[name] = None if None in values else median(values)
    return Figures(**columns)


def as_json(figures: Figures) -> dict[str, float | None]:
    """Return the figures that have a meaning, rounded; null for what never happened."""
    return {
        name: None if value == NEVER else round(value, 4)
        for name, value in asdict(figures).items()
        if value is not None
    }
