"""The arithmetic of `make bench-limits`, on made-up samples: what its columns say is what was counted."""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from tests.bench import limits
from tests.bench.figures import Figures, Record, as_json, figures_of, median_of
from tests.bench.scenario import CONTENDERS, SCENARIOS, SDK, Scenario
from tests.bench.series import NEVER, Call, Sample, Series

BEGAN = 1000.0
HALVING, FOREIGN = (next(one for one in SCENARIOS if one.name == name) for name in ("halving-100", "foreign-100"))


def series(seconds: float, rates: Callable[[float], tuple[float, float]]) -> Series:
    """Return samples of a client; rates: time since its first create → creates that come and are accepted, a second."""
    samples = [Sample(BEGAN - 0.1, 0, 0)]
    arrived = accepted = 0.0
    for number in range(round(seconds * 10) + 1):
        samples.append(Sample(BEGAN + number / 10, 1 + round(arrived), 1 + round(accepted)))
        coming, good = rates(number / 10)
        arrived, accepted = arrived + coming / 10, accepted + good / 10
    return Series(samples)


def recorded(one: Series, changed: tuple[float, float] | None = None, foreign: Iterable[Call] = ()) -> Record:
    """Return the record of such a client."""
    between = (BEGAN + changed[0], BEGAN + changed[1]) if changed else None
    return Record(series=one, changed=between, foreign=tuple(foreign), busiest_second=123)


def test_goodput_and_429s_are_those_of_the_stretch() -> None:
    """What came before and after a stretch does not count; between two samples the creates are spread evenly."""
    one = series(20, lambda at: (100, 80) if at < 10 else (50, 50))
    assert one.began == BEGAN
    assert one.goodput(BEGAN + 2, BEGAN + 8) == pytest.approx(80)
    assert one.goodput(BEGAN + 8.05, BEGAN + 12.05) == pytest.approx((1.95 * 80 + 2.05 * 50) / 4)
    assert one.refused_share(BEGAN + 2, BEGAN + 8) == pytest.approx(0.2)
    assert one.refused_share(BEGAN + 12, BEGAN + 18) == pytest.approx(0)
    assert one.refused_share(BEGAN + 30, BEGAN + 40) == 0


def test_the_worst_second_is_found_wherever_it_begins() -> None:
    """A burst of a second counts whole though it does not begin on a second; bursts outside the stretch do not."""
    one = series(20, lambda at: (300, 0) if at < 1 or 5.25 < at < 6.25 else (10, 10))
    assert one.busiest_second(BEGAN + 3, BEGAN + 20) == pytest.approx(300, abs=1)
    assert one.busiest_second(BEGAN + 8, BEGAN + 20) == pytest.approx(10, abs=1)


def test_a_limit_is_reached_when_it_is_held_for_a_while() -> None:
    """A second at the limit is not enough, and bursts that leave a second empty are no way to hold it."""
    slow = series(20, lambda at: (100, 100) if 1 <= at < 2 or at >= 7 else (20, 20))
    assert slow.seconds_until_reached(100, BEGAN, BEGAN + 20) == pytest.approx(6.6, abs=0.2)
    assert slow.seconds_until_reached(100, BEGAN, BEGAN + 9) == NEVER
    bursts = series(20, lambda at: (400, 400) if at % 1.3 < 0.25 else (0, 0))
    assert bursts.seconds_until_reached(100, BEGAN, BEGAN + 20) == NEVER


def test_a_client_is_calm_when_hardly_refused_and_still_at_work() -> None:
    """Neither one that is refused a lot nor one that sends nothing is under a limit that fell."""
    one = series(20, lambda at: (100, 50) if at < 5 else (0, 0) if at < 9 else (45, 45))
    assert one.seconds_until_calm(50, BEGAN, BEGAN + 20) == pytest.approx(8.9, abs=0.2)
    assert one.seconds_until_calm(50, BEGAN, BEGAN + 9) == NEVER


def test_the_figures_of_a_limit_that_halves_and_comes_back() -> None:
    """Goodput is compared with the mean of what was allowed; calm and back count from the two changes."""
    since, until = HALVING.changes(80) or (0, 0)
    assert (since, until, HALVING.measured(80)) == (30, 50, (10, 80))
    assert HALVING.allowed(80) == pytest.approx((50 * 100 + 20 * 50) / 70)

    def rates(at: float) -> tuple[float, float]:
        if at < since:
            return 100, 100
        if at < until:
            return (100, 50) if at < since + 4 else (50, 50)
        return (50, 50) if at < until + 6 else (100, 100)

    figures = figures_of(recorded(series(80, rates), (since, until)), HALVING, 80)
    assert figures.goodput == pytest.approx(6000 / 70 - 300 / 70, rel=0.01)
    assert figures.of_limit == pytest.approx(0.95, abs=0.01)
    assert (figures.converged, figures.busiest_ever, figures.foreign_refused) == (0, 123, None)
    assert figures.calm == pytest.approx(4, abs=0.2)
    assert figures.back == pytest.approx(5.4, abs=0.3)


def test_the_figures_beside_foreign_traffic_are_without_it() -> None:
    """Our share is what is left of the counters, over the foreign traffic's time, against what it leaves."""
    assert FOREIGN.changes(80) == FOREIGN.measured(80) == (30, 60)
    others = [Call(BEGAN + 30 + number / 50, number % 5 > 0) for number in range(1500)]
    one = series(80, lambda at: (60 + 50, 40 + 40) if 30 <= at < 60 else (100, 100))
    figures = figures_of(recorded(one, (30, 60), others), FOREIGN, 80)
    assert figures.goodput == pytest.approx(40, abs=0.2)
    assert figures.of_limit == pytest.approx(0.8, abs=0.01)
    assert figures.refused == pytest.approx(1 / 3, abs=0.01)
    assert figures.busiest == pytest.approx(60, abs=2)
    assert figures.foreign_refused == pytest.approx(0.2)
    assert (figures.calm, figures.back) == (None, None)


def test_medians_are_of_each_figure_by_itself() -> None:
    """What never happens in most rounds never happens; what has no meaning stays without one."""
    one = Figures(goodput=1, of_limit=0.5, refused=0, busiest=3, busiest_ever=4, converged=NEVER, calm=2)
    middle = median_of([one, replace(one, goodput=9, calm=NEVER), replace(one, goodput=4, converged=7, calm=5)])
    assert middle == replace(one, goodput=4, calm=5)
    assert as_json(middle) == {
        "goodput": 4,
        "of_limit": 0.5,
        "refused": 0,
        "busiest": 3,
        "busiest_ever": 4,
        "converged": None,
        "calm": 5,
    }


def test_the_scenarios_know_what_a_perfect_client_gets() -> None:
    """It is the lower of the two limits, or of the places over the latency."""
    limits_of = {one.name: round(one.limit, 1) for one in SCENARIOS}
    own = {"concurrency-10": 66.7}
    assert limits_of == {one.name: own.get(one.name, float(one.name.partition("-")[2])) for one in SCENARIOS}
    assert {one.name for one in SCENARIOS if not one.admits(SDK)} == {"free-10", "free-100", "free-1000"}
    assert Scenario(name="x", ceiling=math.inf, rate=30, at_once=10, latency=0.5).limit == 20


async def test_the_table_is_printed_scenario_by_scenario(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    """Contenders take turns, each line has the medians of its rounds, and only what is asked for is run."""
    met = []

    async def compete(scenario: Scenario, contender: str, seconds: float, folder: object) -> tuple[Record, object]:
        met.append((scenario.name, contender, seconds, folder))
        return recorded(series(seconds, lambda _: (100, 90)), scenario.changes(seconds)), {"created": len(met)}

    monkeypatch.setattr(limits, "compete", compete)
    options = limits.parse(["--rounds", "2", "--seconds", "20", "--only", "known-100", "--only", "halving-100"])
    found = await limits.measure(options, tmp_path)  # type: ignore[arg-type]
    assert [turn[1] for turn in met] == [*CONTENDERS] * 4
    assert {turn[::2] for turn in met} == {("known-100", 20), ("halving-100", 40)}
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["known-100", "adaptive", "90.0", "90.0%", "10.0%", "100", "123", "0.0"]
    assert lines[-1].split()[:2] == ["halving-100", "sdk"]
    assert [entry["rounds"][1]["account"]["created"] for entry in found] == [4, 5, 6, 10, 11, 12]


@pytest.mark.parametrize("words", [["--seconds", "12"], ["--rounds", "0"], ["--only", "nothing"]])
def test_what_cannot_be_measured_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A run that is over before anything is measured is a mistake in the command."""
    with pytest.raises(SystemExit, match="2"):
        limits.parse(words)
    assert "usage" in capsys.readouterr().err
