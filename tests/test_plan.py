"""When an import will be done, by the hours of its timetable."""

import math
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.plan import HORIZON_WEEKS, Closing, Plan, plan
from worker.timetable import Timetable

LONDON = ZoneInfo("Europe/London")
NIGHTS = ("Mon-Fri 06:00-22:00 0",)
MONDAY_NIGHT = datetime(2026, 3, 2, 22, tzinfo=UTC)  # in London, too
MINUTE = timedelta(minutes=1)
WEEK_SECONDS = 7 * 86_400
HORIZON = HORIZON_WEEKS * WEEK_SECONDS


MONDAY_NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
SPRING = datetime(2026, 3, 28, 23, tzinfo=UTC)  # that night the clock goes from 01:00 to 02:00
AUTUMN = datetime(2026, 10, 24, 22, tzinfo=UTC)  # 23:00 there; that night it goes from 02:00 back to 01:00
BY_NIGHT = ("06:00-22:00 0",)
SATURDAYS = ("Mon-Fri 00:00-24:00 0", "Sun 00:00-24:00 0")


def shown(when: datetime | None) -> str:
    """Return an instant as its zone's clock shows it, to the second, with the zone's name."""
    return f"{when:%a %d %b %Y %H:%M:%S %Z}" if when else "never"


@pytest.mark.parametrize(
    ("requests", "rate", "timetable", "now", "done"),
    [
        (0, 6, Timetable((), "UTC"), MONDAY_NIGHT, "Mon 02 Mar 2026 22:00:00 UTC"),
        (0, 6, Timetable(NIGHTS, "UTC"), MONDAY_NIGHT - timedelta(hours=1), "Mon 02 Mar 2026 21:00:00 UTC"),
        (0, 6, Timetable(("00:00-24:00 0",), "UTC"), MONDAY_NIGHT, "Mon 02 Mar 2026 22:00:00 UTC"),
        (1, 6, Timetable(("00:00-24:00 0",), "UTC"), MONDAY_NIGHT, "never"),
        (900, 15, Timetable((), "UTC"), MONDAY_NIGHT, "Mon 02 Mar 2026 22:01:00 UTC"),
        (900, math.inf, Timetable((), "UTC"), MONDAY_NIGHT, "Mon 02 Mar 2026 22:00:00 UTC"),
        (900, math.inf, Timetable(NIGHTS, "UTC"), MONDAY_NIGHT - timedelta(hours=3), "Mon 02 Mar 2026 22:00:00 UTC"),
        (900, math.inf, Timetable(("00:00-24:00 10",), "UTC"), MONDAY_NIGHT, "Mon 02 Mar 2026 22:01:30 UTC"),
        # a week's night is 8 h, and 172,800 requests at 6/s
        (172_800, 6, Timetable(NIGHTS, "UTC"), MONDAY_NIGHT, "Tue 03 Mar 2026 06:00:00 UTC"),
        (172_806, 6, Timetable(NIGHTS, "UTC"), MONDAY_NIGHT, "Tue 03 Mar 2026 22:00:01 UTC"),
        # limited hours: 2/s by day, what was configured by night
        (57_600 + 60, 1, Timetable(("06:00-22:00 2",), "UTC"), MONDAY_NIGHT, "Tue 03 Mar 2026 14:01:00 UTC"),
        (28_800 * 6 + 7_200, 6, Timetable(("06:00-22:00 2",), "UTC"), MONDAY_NIGHT, "Tue 03 Mar 2026 07:00:00 UTC"),
        # an hour is missing
        (6 * 3600, 1, Timetable(BY_NIGHT, "Europe/London"), SPRING, "Sun 29 Mar 2026 06:00:00 BST"),
        (6 * 3600 + 1, 1, Timetable(BY_NIGHT, "Europe/London"), SPRING, "Sun 29 Mar 2026 22:00:01 BST"),
        # an hour is there twice
        (8 * 3600, 1, Timetable(BY_NIGHT, "Europe/London"), AUTUMN, "Sun 25 Oct 2026 06:00:00 GMT"),
        (7 * 3600, 1, Timetable(BY_NIGHT, "Europe/London"), AUTUMN, "Sun 25 Oct 2026 05:00:00 GMT"),
        # and an hour is missing in a week that is not walked through, unless it has to be
        ((35 * 8 - 1) * 3600, 1, Timetable(BY_NIGHT, "Europe/London"), MONDAY_NOON, "Mon 06 Apr 2026 06:00:00 BST"),
        # ten years, to the second: 522 Saturdays of 24 h, with 20 changes of the clock between them
        (522 * 86_400, 1, Timetable(SATURDAYS, "Europe/London"), MONDAY_NIGHT, "Sun 02 Mar 2036 00:00:00 GMT"),
        (522 * 86_400 + 1, 1, Timetable(SATURDAYS, "Europe/London"), MONDAY_NIGHT, "Sat 08 Mar 2036 00:00:01 GMT"),
        # a hundred years is the end
        (1, 1 / (HORIZON - WEEK_SECONDS + 0.5), Timetable((), "UTC"), MONDAY_NIGHT, "Mon 25 Feb 2126 22:00:00 UTC"),
        (1, 1 / (HORIZON * 1.01), Timetable((), "UTC"), MONDAY_NIGHT, "never"),
    ],
)  # fmt: skip
def test_it_is_done_when_the_hours_have_let_everything_through(
    requests: int, rate: float, timetable: Timetable, now: datetime, done: str
) -> None:
    """By the clock of the zone, whatever is done to the clock."""
    assert shown(plan(requests, rate, timetable, now).done) == done


def test_each_closing_says_how_far_it_is() -> None:
    """The sketch of UX: 43.6 % on Tuesday, 87.2 % on Wednesday, and done at 00:21 on Thursday."""
    found = plan(396_431, 6, Timetable(NIGHTS, "Europe/London"), MONDAY_NIGHT - timedelta(hours=2))
    assert found.closings == (
        Closing(datetime(2026, 3, 3, 6, tzinfo=LONDON), 172_800),
        Closing(datetime(2026, 3, 4, 6, tzinfo=LONDON), 345_600),
    )
    assert shown(found.done) == "Thu 05 Mar 2026 00:21:11 GMT"


def test_a_closing_at_which_nothing_is_left_is_the_end() -> None:
    """It is not told twice."""
    found = plan(172_800, 6, Timetable(NIGHTS, "UTC"), MONDAY_NIGHT)
    assert found == Plan((), datetime(2026, 3, 3, 6, tzinfo=ZoneInfo("UTC")))


def test_hours_that_are_only_slower_do_not_close() -> None:
    """Nothing stops there."""
    assert plan(10**6, 6, Timetable(["06:00-22:00 2"], "UTC"), MONDAY_NIGHT).closings == ()


def test_closings_are_told_for_two_weeks() -> None:
    """What takes years would have thousands."""
    found = plan(10**9, 6, Timetable(NIGHTS, "UTC"), MONDAY_NIGHT)
    assert [one.at.weekday() for one in found.closings] == [1, 2, 3, 4, 0] * 2
    assert shown(found.done).startswith("Tue 01 Apr 2036")


def simulated(requests: int, rate: float, timetable: Timetable, now: datetime) -> datetime:
    """Return when all is sent, a minute at a time. now: a whole minute."""
    left, at = float(requests), now
    while True:
        pace = min(rate, timetable.rate(at))
        if left <= pace * 60 + 1e-6:
            return at + timedelta(seconds=left / pace if left > 1e-6 else 0)
        left -= pace * 60
        at += MINUTE


TIMES = st.integers(0, 95).map(lambda quarter: f"{quarter // 4:02}:{quarter % 4 * 15:02}")
DAYS = st.sampled_from(["", "Mon-Fri ", "Sat,Sun ", "Sun ", "Mon,Wed "])
ENTRIES = st.tuples(DAYS, TIMES, TIMES, st.sampled_from(["0", "0", "1", "30/m"])).filter(lambda one: one[1] != one[2])
ZONES = st.sampled_from(["UTC", "Europe/London", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca"])


@settings(max_examples=60)
@given(
    st.integers(0, 4 * 7 * 86_400),
    st.sampled_from([0.7, 1, 2.5]),
    st.lists(ENTRIES, max_size=3),
    ZONES,
    st.integers(0, 366 * 24),
)
def test_it_is_what_a_walk_through_every_minute_finds(
    requests: int, rate: float, entries: list[tuple[str, str, str, str]], zone: str, hour: int
) -> None:
    """Skipping weeks changes nothing, on any timetable, in any zone, at any time of the year."""
    timetable = Timetable([f"{days}{begin}-{end} {limit}" for days, begin, end, limit in entries], zone)
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hour)
    found = plan(requests, rate, timetable, now).done
    if timetable.reopens(now) is None:
        assert (found is None) is (requests > 0)
        return
    assert found is not None
    if requests > rate * 120 * 86_400:  # more than the minutes are worth
        return
    assert abs(found.timestamp() - simulated(requests, rate, timetable, now).timestamp()) < 0.01


@given(st.integers(1, 10**7), st.lists(ENTRIES, max_size=3), ZONES, st.integers(0, 366 * 24))
def test_closings_come_in_order_and_before_the_end(
    requests: int, entries: list[tuple[str, str, str, str]], zone: str, hour: int
) -> None:
    """Each at an instant at which the hours do close, and with more sent than at the one before."""
    timetable = Timetable([f"{days}{begin}-{end} {limit}" for days, begin, end, limit in entries], zone)
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hour)
    found = plan(requests, 5, timetable, now)
    instants = [one.at.timestamp() for one in found.closings]
    sent = [one.sent for one in found.closings]
    assert instants == sorted(set(instants))
    assert sent == sorted(set(sent))
    assert all(0 < one < requests for one in sent)
    assert all(timetable.rate(one.at) == 0 < timetable.rate(one.at - MINUTE / 60) for one in found.closings)
    assert found.done is None or not instants or instants[-1] < found.done.timestamp()
