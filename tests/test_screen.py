import io
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import anyio
import pytest
from rich.console import Console

from tests.virtual_clock import virtual_time
from worker.model import Change, Tally
from worker.screen import Moment, News, Pace, as_line, as_panel, show

NOW = datetime(2026, 3, 3, 23, 41, tzinfo=UTC)
COUNTS = {
    "created": 68_903,
    "existed": 41,
    "duplicate": 66,
    "already_done": 50,
    "rejected": 666,
    "parked": 57,
    "failed": 3,
    "in_doubt": 2,
}
HUGE = {name: count + 123_456_789 for name, count in COUNTS.items()}


def moment(input_rows: int | None, *, rate: float = 6.0, **counts: int) -> Moment:
    """Return a run at a moment at which these rows have their places."""
    tally = Tally(input_rows=input_rows, read=sum(counts.values()), requests=70_000, retries=31, throttled=12)
    for name, count in counts.items():
        setattr(tally, name, count)
    return Moment(run=2, tally=tally, rate=rate, ceiling=rate, slots=16, concurrency=16, in_flight=2, waiting=4)


def panel(shown: Moment, pace: float = 5.9, now: datetime = NOW, width: int = 80) -> list[str]:
    """Return the display's lines on a terminal of this width."""
    out = io.StringIO()
    Console(width=width, file=out, force_terminal=False).print(as_panel(shown, pace, now))
    return out.getvalue().splitlines()


# ---- a line ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "pace", "line"),
    [
        (moment(None), 0.0, "23:41 run 2: 0 rows, 0 created, 0.0/s of 6"),
        (moment(0), 5.9, "23:41 run 2: 0/0 rows, 0 created, 5.9/s of 6"),
        (moment(None, created=1_200), 5.9, "23:41 run 2: 1,200 rows, 1,200 created, 5.9/s of 6"),
        (moment(1_200, created=1_200), 5.9, "23:41 run 2: 1,200/1,200 rows, 1,200 created, 5.9/s of 6"),
        (moment(600, rate=float("inf")), 1.0, "23:41 run 2: 0/600 rows, 0 created, 1.0/s, no limit, all done 23:51"),
        (
            moment(400_000, **COUNTS),
            5.9,
            (
                "23:41 run 2: 69,788/400,000 rows, 68,903 created, 50 already done, 666 rejected,\n"
                "57 parked, 3 failed, 2 in doubt, 5.9/s of 6, all done Wed 15:13"
            ),
        ),
    ],
)
def test_a_line_says_where_a_run_stands(shown: Moment, pace: float, line: str) -> None:
    """What is zero and what is not known is left out; too wide a line is folded."""
    assert as_line(shown, pace, NOW) == line


@pytest.mark.parametrize(
    ("left", "pace", "finish"),
    [
        (0, 1.0, None),
        (1, 0.0, None),
        (18 * 60, 1.0, "23:59"),
        (19 * 60, 1.0, "Wed 00:00"),
        (86_400, 1.0, "Wed 23:41"),
        (5 * 86_400, 1.0, "Sun 23:41"),
        (7 * 86_400, 1.0, "Tue 10 Mar 2026"),
        (400_000, 0.1, "Sun 19 Apr 2026"),
    ],
)
def test_the_finish_is_a_time_a_day_or_a_date(left: int, pace: float, finish: str | None) -> None:
    """Past midnight it names the day; a week on, the date, since a Tuesday would be read as this one."""
    shown = moment(1_000 + left, created=1_000)
    said = re.search(r"all done (.*)$", " ".join(as_line(shown, pace, NOW).split()))
    assert (said and said.group(1)) == finish
    on_screen = [line.strip() for line in panel(shown, pace) if "all done" in line]
    assert on_screen == ([f"all done {finish}"] if finish else [])


@pytest.mark.parametrize("counts", [{}, COUNTS, HUGE])
@pytest.mark.parametrize("total", [None, 0, 2_000_000_000])
def test_nothing_is_wider_than_a_terminal(counts: dict[str, int], total: int | None) -> None:
    """Lines in a pipe are folded, the display keeps inside, whatever the numbers."""
    shown = moment(total, **counts)
    assert [line for line in as_line(shown, 5.9, NOW).splitlines() if len(line) > 80] == []
    assert [line for line in panel(shown) if len(line) > 80] == []


# ---- the display ----------------------------------------------------------------------------------------------------


def test_the_display_has_every_number_beside_its_name() -> None:
    """At 80 columns nothing wraps: the bar, two lines of counts, what it is doing, what Ctrl-C does."""
    text = [" ".join(line.split()) for line in panel(moment(400_000, **COUNTS))]
    assert re.sub(r"[━╸╺ ]+", " ", text[0]) == "run 2 69,788 of 400,000 rows 17.4 %"
    assert text[1:] == [
        "created 68,903 existed 41 duplicate 66 already done 50",
        "rejected 666 parked 57 failed 3 in doubt 2",
        "all done Wed 15:13",
        "sending 5.9/s of 6 in flight 2 of 16",
        "waiting for a channel 4 retries 31 429s 12",
        "Ctrl-C: finish what is in flight and stop; run it again to go on",
    ]


def test_the_display_says_how_long_answers_take_and_when_the_last_429_was() -> None:
    """Once there is something to say; it still fits."""
    shown = replace(moment(400_000, **COUNTS), took=(0.182, 1.1), throttled_at=NOW.timestamp() - 41 * 60)
    lines = panel(shown)
    assert "  sending 5.9/s of 6   in flight 2 of 16   182 ms, p99 1.1 s" in [line.rstrip() for line in lines]
    assert "  waiting for a channel 4   retries 31   429s 12, none for 41 min" in [line.rstrip() for line in lines]
    assert max(map(len, lines)) <= 80
    just_now = replace(shown, throttled_at=NOW.timestamp() - 59)
    assert not any("none for" in line for line in panel(just_now))


@pytest.mark.parametrize(("total", "counts"), [(None, {"created": 12}), (None, {}), (0, {})])
def test_without_a_total_there_is_no_bar(total: int | None, counts: dict[str, int]) -> None:
    """Of stdin nobody knows how much is left, and nothing is divided by zero."""
    first, *_ = panel(moment(total, **counts))
    assert first.split() == ["run", "2", str(counts.get("created", 0)), "rows"]


@pytest.mark.parametrize("width", [40, 60])
def test_on_a_narrow_terminal_the_display_stays_inside(width: int) -> None:
    """A phone's terminal is no reason to break a run."""
    assert [line for line in panel(moment(400_000, **COUNTS), width=width) if len(line) > width] == []


# ---- pace -----------------------------------------------------------------------------------------------------------


def test_the_pace_is_that_of_the_last_ten_seconds() -> None:
    """A stop or a burst is seen soon, and an old one is forgotten."""
    points: list[tuple[float, int]] = [(0, 0), (1, 10), (5, 50), (10, 100), (11, 100), (20, 100), (30, 200), (30, 200)]
    pace = Pace()
    assert [round(pace.at(now, requests), 2) for now, requests in points] == [0, 10, 10, 10, 9, 0, 10, 10]


def test_with_a_look_a_minute_the_pace_is_that_of_the_minute() -> None:
    """As in a pipe, where lines are far apart."""
    pace = Pace()
    assert [pace.at(0.0, 0), pace.at(60.0, 300), pace.at(120.0, 900)] == [0, 5, 10]


def test_a_moment_without_time_has_no_pace() -> None:
    """Two points at once are one."""
    pace = Pace()
    assert [pace.at(7.0, 3), pace.at(7.0, 9)] == [0.0, 0.0]


def test_midnight_falls_between_two_seconds() -> None:
    """The day is named from the first second of the next one."""
    shown = moment(1_001, created=1_000)
    last_second = NOW.replace(minute=59, second=59)
    assert as_line(shown, 1.0, last_second - timedelta(seconds=1)).endswith("all done 23:59")
    assert as_line(shown, 1.0, last_second).endswith("all done Wed 00:00")


@virtual_time
async def test_into_a_pipe_goes_a_line_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr, until it is cancelled; the results on stdout are left alone."""
    with anyio.move_on_after(150):
        await show(lambda: moment(None, created=1_200), interactive=False)
    captured = capsys.readouterr()
    assert [line.partition(" ")[2] for line in captured.err.splitlines()] == [
        "run 2: 1,200 rows, 1,200 created, 0.0/s of 6"
    ] * 2
    assert captured.out == ""


@virtual_time
async def test_on_a_terminal_the_display_leaves_nothing_behind(capsys: pytest.CaptureFixture[str]) -> None:
    """It is drawn in place several times a second and wiped at the end."""
    with anyio.move_on_after(1.1):
        await show(lambda: moment(400_000, **COUNTS), interactive=True)
    assert "created" not in capsys.readouterr().out


# ---- limits ---------------------------------------------------------------------------------------------------------


def test_a_limit_that_was_found_is_shown_with_the_one_that_was_set() -> None:
    """Who wonders why it is slow sees it."""
    found = replace(moment(400_000, rate=4.2, **COUNTS), ceiling=6.0, slots=9)
    assert any("sending 5.9/s of 4.2 (found, set 6)   in flight 2 of 9" in line for line in panel(found))
    assert "5.9/s of 4.2 (found, set 6)" in " ".join(as_line(found, 5.9, NOW).split())


def test_what_holds_a_run_and_what_will_end_it_are_shown() -> None:
    """On a terminal and in a pipe."""
    held = replace(moment(400_000, **COUNTS), held="closed hours until Mon 22:00", stops="Tue 06:00 in 9 h 19 min")
    lines = panel(held)
    assert any(line.strip() == "closed hours until Mon 22:00" for line in lines)
    assert any(line.strip() == "stops Tue 06:00 in 9 h 19 min" for line in lines)
    line = " ".join(as_line(held, 0.0, NOW).split())
    assert "closed hours until Mon 22:00, stops Tue 06:00 in 9 h 19 min" in line
    assert "/s of" not in line


def adapted(limit: str) -> Change:
    """Return a limit that was found."""
    return Change("limit.adapted", f"{limit} 4.2, down from 6 after 429 (45780)", {"limit": limit})


def test_a_limit_that_is_found_again_and_again_is_said_once_a_minute() -> None:
    """Each limit for itself; an outage is said whenever there is one."""
    news = News()
    assert news.line(adapted("rate"), NOW) == "23:41 rate 4.2, down from 6 after 429 (45780)"
    assert news.line(adapted("rate"), NOW + timedelta(seconds=59)) is None
    assert news.line(adapted("concurrency"), NOW + timedelta(seconds=59)) is not None
    assert news.line(adapted("rate"), NOW + timedelta(seconds=60)) is not None
    outage = Change("outage.begun", "the service is down (status 503): waiting until it is back", {})
    assert [news.line(outage, NOW), news.line(outage, NOW)] == [f"23:41 {outage.sentence}"] * 2
