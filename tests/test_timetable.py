import math
import zoneinfo
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.timetable import UNTIL_HOURS, Timetable, parse_duration, parse_until, too_far

LONDON = "Europe/London"  # the clock jumps on 2026-03-29 at 01:00 and is put back on 2026-10-25 at 02:00
NEW_YORK = "America/New_York"  # 2026-03-08 and 2026-11-01, both at 02:00
LORD_HOWE = "Australia/Lord_Howe"  # by half an hour: put back on 2026-04-05, ahead on 2026-10-04, both at 02:00
HAVANA = "America/Havana"  # at midnight: to 01:00 on 2026-03-08, back to 00:00 at 01:00 on 2026-11-01
ST_JOHNS = "America/St_Johns"  # in 2010, put back from 00:01 on November 7th to 23:01 the day before
RECIFE = "America/Recife"  # in 2000, ahead on October 8th at 00:00, and back a week later
APIA = "Pacific/Apia"  # in 2011, had no December 30th
MINUTE = timedelta(minutes=1)
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def at(text: str, zone: str = LONDON) -> datetime:
    """Return the instant at which the zone's clock shows this, for the second time where a ~ follows."""
    return datetime.fromisoformat(text.rstrip("~")).replace(tzinfo=ZoneInfo(zone), fold=text.endswith("~"))


def label(when: datetime | None) -> str:
    """Return what the clock shows, in the same words."""
    return "never" if when is None else f"{when:%Y-%m-%dT%H:%M}" + "~" * when.fold


def same(one: datetime, other: datetime) -> bool:
    """Tell whether two instants are the same; Python would compare labels where both are of one zone."""
    return one.astimezone(UTC) == other.astimezone(UTC)


# ---- entries --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "means"),
    [
        ("", "Mon Tue Wed Thu Fri Sat Sun"),
        ("Mon", "Mon"),
        ("mon", "Mon"),
        ("SAT,sun", "Sat Sun"),
        ("Mon-Fri", "Mon Tue Wed Thu Fri"),
        ("Fri-Mon", "Mon Fri Sat Sun"),
        ("Sun-Mon", "Mon Sun"),
        ("Mon-Sun", "Mon Tue Wed Thu Fri Sat Sun"),
        ("Tue-Mon", "Mon Tue Wed Thu Fri Sat Sun"),
        ("Wed-Wed", "Wed"),
        ("Mon-Wed,Fri", "Mon Tue Wed Fri"),
        ("Fri,Mon-Wed,Tue", "Mon Tue Wed Fri"),
    ],
)
def test_an_entry_holds_on_its_days(days: str, means: str) -> None:
    """Days are named, listed, or ranges that may run over the week's end; none are all."""
    timetable = Timetable([f"{days} 12:00-13:00 0"], LONDON)
    noons = [at(f"2026-06-0{number}T12:00") for number in range(1, 8)]  # the first is a Monday
    assert " ".join(f"{noon:%a}" for noon in noons if timetable.rate(noon) == 0) == means


@pytest.mark.parametrize(
    ("entry", "open_before", "first", "last", "open_again"),
    [
        ("Mon 06:00-22:00 0", "2026-06-01T05:59:59.999999", "2026-06-01T06:00", "2026-06-01T21:59:59", "2026-06-01T22"),
        ("Mon 06:00-24:00 0", "2026-06-01T05:59", "2026-06-01T06:00", "2026-06-01T23:59:59.999999", "2026-06-02T00:00"),
        ("Mon 22:00-06:00 0", "2026-06-01T05:59", "2026-06-01T22:00", "2026-06-02T05:59:59.999999", "2026-06-02T06:00"),
        ("Mon 22:00-00:00 0", "2026-06-01T21:59", "2026-06-01T22:00", "2026-06-01T23:59:59.999999", "2026-06-02T00:00"),
        ("Sun 22:00-06:00 0", "2026-06-07T21:59", "2026-06-07T22:00", "2026-06-08T05:59:59.999999", "2026-06-08T06:00"),
        ("Mon 00:00-24:00 0", "2026-05-31T23:59", "2026-06-01T00:00", "2026-06-01T23:59:59.999999", "2026-06-02T00:00"),
        ("Mon 12:00-11:59 0", "2026-06-01T11:59", "2026-06-01T12:00", "2026-06-02T11:58:59.999999", "2026-06-02T11:59"),
        ("Mon 12:00-12:01 0", "2026-06-01T11:59", "2026-06-01T12:00", "2026-06-01T12:00:59.999999", "2026-06-01T12:01"),
    ],
)
def test_hours_begin_and_end_to_the_minute(
    entry: str, open_before: str, first: str, last: str, open_again: str
) -> None:
    """The first minute is in, the end is out; hours over midnight belong to the day on which they start."""
    timetable = Timetable([entry], LONDON)
    assert [timetable.rate(at(text)) for text in (open_before, first, last, open_again)] == [math.inf, 0, 0, math.inf]


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("0", 0),
        ("0/h", 0),
        ("5", 5),
        ("5/s", 5),
        ("0.5", 0.5),
        ("300/m", 5),
        ("3600/h", 1),
        ("90/H", 0.025),
        ("inf", math.inf),
        ("INF", math.inf),
    ],
)
def test_a_rate_is_requests_a_second(text: str, rate: float) -> None:
    """However it is written."""
    assert Timetable([f"00:00-24:00 {text}"], LONDON).rate(at("2026-06-01T12:00")) == rate


SHAPE = (
    'is not days (or none, for every day), hours and a rate, each without spaces; write it like "Mon-Fri 06:00-22:00 0"'
)
NO_DAY = "is no day; write Mon, Tue, Wed, Thu, Fri, Sat, Sun, Mon-Fri, or Sat,Sun"
NO_HOURS = "is no range of hours; write HH:MM-HH:MM, from 00:00 to 24:00, like 06:00-22:00"
NO_RATE = "is no rate; write 0 (closed), 5 or 5/s, 300/m, 3600/h, or inf (no limit)"


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        *((entry, SHAPE) for entry in ("", "0", "06:00-22:00", "Mon-Fri 06:00-22:00", "Sat, Sun 06:00-22:00 0")),
        ("Mon 06:00 - 22:00 0", SHAPE),
        ("Mon-Fry 06:00-22:00 0", f'is wrong: "mon-fry" {NO_DAY}'),
        ("Monday 06:00-22:00 0", f'is wrong: "monday" {NO_DAY}'),
        ("Mon, 06:00-22:00 0", f'is wrong: "" {NO_DAY}'),
        ("Sat,Mon- 06:00-22:00 0", f'is wrong: "mon-" {NO_DAY}'),
        ("Mon-Tue-Wed 06:00-22:00 0", f'is wrong: "mon-tue-wed" {NO_DAY}'),
        *(
            (f"Mon {hours} 0", f'is wrong: "{hours}" {NO_HOURS}')
            for hours in (
                *(
                    "6:00-22:00",
                    "06:00",
                    "06:00-",
                    "06:00-22",
                    "06:00-22:60",
                    "06:00-24:01",
                    "24:00-06:00",
                    "25:00-06:00",
                ),
                *("06:00-22:00-23:00", "0600-2200", "06:00–22:00", "٠٦:00-22:00"),  # noqa: RUF001
            )
        ),
        ("Mon-Fri 0", f'is wrong: "Mon-Fri" {NO_HOURS}'),
        ("06:00-06:00 0", 'is wrong: "06:00-06:00" ends when it starts; write 00:00-24:00 for the whole day'),
        ("00:00-00:00 0", 'is wrong: "00:00-00:00" ends when it starts; write 00:00-24:00 for the whole day'),
        *(
            (f"06:00-22:00 {rate}", f'is wrong: "{rate}" {NO_RATE}')
            for rate in ("-1", "nan", "fast", "5/d", "5/", "/s", "inf/s", "1e3", "1,5", "closed", "9" * 400)
        ),
    ],
)
def test_a_wrong_entry_says_how_to_write_it(entry: str, says: str) -> None:
    """One sentence: which entry, what is wrong with it, and what to write."""
    with pytest.raises(ValueError, match="entry") as caught:
        Timetable(["Mon 06:00-22:00 0", entry], LONDON)
    assert str(caught.value) == f'the entry "{entry}" {says}'


# ---- zones ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Europe/Londn", 'there is no time zone "Europe/Londn"; did you mean "Europe/London"?'),
        ("PARIS", 'there is no time zone "PARIS"; did you mean "Europe/Paris"?'),
        ("America/New York", 'there is no time zone "America/New York"; did you mean "America/New_York"?'),
        ("London/Europe-on-Thames", 'there is no time zone "London/Europe-on-Thames"; write one like "Europe/London"'),
        ("", 'there is no time zone ""; write one like "Europe/London"'),
        ("/etc/passwd", None),
        ("../UTC", None),
        ("Europe", None),
    ],
)
def test_an_unknown_zone_comes_with_a_hint(name: str, says: str | None) -> None:
    """The nearest name, be it only the city's, or an example; a path or a folder is no zone either."""
    with pytest.raises(ValueError, match="there is no time zone") as caught:
        Timetable([], name)
    assert says in {None, str(caught.value)}


def test_a_machine_without_time_zones_knows_them_all_the_same() -> None:
    """A bare container has none; they are among what is installed with us."""
    zoneinfo.reset_tzpath(to=())
    try:
        assert Timetable([], "Indian/Maldives").zone.key == "Indian/Maldives"
    finally:
        zoneinfo.reset_tzpath()


def test_the_zone_is_the_timetables_whoever_asks() -> None:
    """A caller in Auckland is told what London's clock says, in London's time."""
    timetable = Timetable(["06:00-22:00 0"], LONDON)
    asked = at("2026-06-02T07:00", "Pacific/Auckland")  # 20:00 on the 1st in London
    change = timetable.next_change(asked)
    assert timetable.zone is ZoneInfo(LONDON)
    assert (timetable.rate(asked), label(change), change and change.tzinfo) == (0, "2026-06-01T22:00", timetable.zone)


@pytest.mark.parametrize("ask", [Timetable.rate, Timetable.next_change, Timetable.reopens])
def test_an_instant_without_a_zone_is_refused(ask: object) -> None:
    """Else it would be taken for the machine's own time."""
    assert callable(ask)
    with pytest.raises(ValueError, match="an instant needs a time zone, and 2026-06-01 12:00:00 has none"):
        ask(Timetable(["06:00-22:00 0"], LONDON), datetime(2026, 6, 1, 12))  # noqa: DTZ001


# ---- changes --------------------------------------------------------------------------------------------------------


def changes(timetable: Timetable, since: datetime, count: int) -> list[tuple[str, float]]:
    """Return the next changes: when, by the zone's clock, and to which rate."""
    found = list[tuple[str, float]]()
    for _ in range(count):
        change = timetable.next_change(since)
        assert change
        assert change.astimezone(UTC) > since.astimezone(UTC)
        found.append((label(change), timetable.rate(change)))
        since = change
    return found


def test_where_entries_overlap_the_least_rate_holds() -> None:
    """In whatever order they are written; and one without a limit lifts none."""
    entries = ["06:00-22:00 10", "Mon 08:00-18:00 2", "12:00-13:00 0", "Mon 07:00-23:00 inf", "12:30-14:00 600/m"]
    for written in (entries, entries[::-1]):
        timetable = Timetable(written, LONDON)
        assert timetable.rate(at("2026-06-01T00:00")) == math.inf
        assert changes(timetable, at("2026-06-01T00:00"), 8) == [
            ("2026-06-01T06:00", 10),
            ("2026-06-01T08:00", 2),
            ("2026-06-01T12:00", 0),
            ("2026-06-01T13:00", 2),
            ("2026-06-01T18:00", 10),
            ("2026-06-01T22:00", math.inf),
            ("2026-06-02T06:00", 10),
            ("2026-06-02T12:00", 0),
        ]


@pytest.mark.parametrize(
    "entries", [[], ["00:00-24:00 3"], ["06:00-18:00 3", "18:00-06:00 3"], ["Mon 06:00-22:00 inf"]]
)
def test_one_rate_for_ever_never_changes(entries: list[str]) -> None:
    """However many entries say so."""
    timetable = Timetable(entries, LONDON)
    assert timetable.next_change(at("2026-06-01T00:00")) is None
    assert timetable.reopens(now := at("2026-06-01T00:00")) is now


def test_closed_for_ever_never_reopens() -> None:
    """There is nothing to wait for."""
    timetable = Timetable(["Mon-Fri 00:00-24:00 0", "Sat,Sun 00:00-24:00 0"], LONDON)
    assert (timetable.reopens(at("2026-06-01T00:00")), timetable.next_change(at("2026-06-01T00:00"))) == (None, None)


@pytest.mark.parametrize(
    ("when", "reopens"),
    [
        ("2026-06-01T05:59:59", "2026-06-01T05:59:59"),
        ("2026-06-01T06:00", "2026-06-01T22:00"),
        ("2026-06-01T21:59:59.5", "2026-06-01T22:00"),
        ("2026-06-05T23:30", "2026-06-05T23:30"),
        ("2026-06-06T00:00", "2026-06-08T00:00"),
    ],
)
def test_a_closed_import_learns_when_it_may_go_on(when: str, reopens: str) -> None:
    """At once when it is open, at whatever rate; else at the end of what is closed, here a day's work or a weekend."""
    timetable = Timetable(["Mon-Fri 06:00-22:00 0", "Fri 22:00-24:00 1", "Sat,Sun 00:00-24:00 0"], LONDON)
    assert timetable.reopens(at(when)) == at(reopens)
    assert timetable.rate(at(reopens)) > 0


@pytest.mark.parametrize(
    ("zone", "entry", "since", "expected"),
    [
        # the clock jumps: the hours end, or begin, or are over, at the jump
        (LONDON, "00:30-01:30 0", "2026-03-29T00:00", "03-29T00:30 03-29T02:00 03-30T00:30"),
        (LONDON, "01:30-03:00 0", "2026-03-29T00:00", "03-29T02:00 03-29T03:00"),
        (LONDON, "01:00-02:00 0", "2026-03-29T00:00", "03-30T01:00 03-30T02:00"),
        (LONDON, "Sun 01:00-02:00 0", "2026-03-22T02:00", "04-05T01:00 04-05T02:00"),
        (LONDON, "06:00-22:00 0", "2026-03-28T12:00", "03-28T22:00 03-29T06:00 03-29T22:00"),
        (NEW_YORK, "01:30-02:30 0", "2026-03-08T00:00", "03-08T01:30 03-08T03:00 03-09T01:30"),
        (NEW_YORK, "02:30-04:00 0", "2026-03-08T00:00", "03-08T03:00 03-08T04:00"),
        (LORD_HOWE, "02:10-02:20 0", "2026-10-04T00:00", "10-05T02:10 10-05T02:20"),
        (LORD_HOWE, "01:45-02:20 0", "2026-10-04T00:00", "10-04T01:45 10-04T02:30"),
        (HAVANA, "Sat 22:00-00:30 0", "2026-03-07T12:00", "03-07T22:00 03-08T01:00"),
        (APIA, "Fri 00:00-24:00 0", "2011-12-24T00:00", "01-06T00:00 01-07T00:00"),
        # the clock is put back: what it shows twice is in, or out, twice
        (LONDON, "01:00-01:30 0", "2026-10-25T00:00", "10-25T01:00 10-25T01:30 10-25T01:00~ 10-25T01:30~"),
        (LONDON, "00:00-01:30 0", "2026-10-25T00:00", "10-25T01:30 10-25T01:00~ 10-25T01:30~"),
        (LONDON, "01:30-05:00 0", "2026-10-25T00:00", "10-25T01:30 10-25T01:00~ 10-25T01:30~ 10-25T05:00"),
        (LONDON, "02:00-05:00 0", "2026-10-25T00:00", "10-25T02:00 10-25T05:00"),
        (LONDON, "06:00-22:00 0", "2026-10-24T12:00", "10-24T22:00 10-25T06:00 10-25T22:00"),
        (NEW_YORK, "01:30-06:00 0", "2026-11-01T00:00", "11-01T01:30 11-01T01:00~ 11-01T01:30~ 11-01T06:00"),
        (LORD_HOWE, "01:40-01:50 0", "2026-04-05T00:00", "04-05T01:40 04-05T01:50 04-05T01:40~ 04-05T01:50~"),
        (HAVANA, "Sat 22:00-00:30 0", "2026-10-31T12:00", "10-31T22:00 11-01T00:30 11-01T00:00~ 11-01T00:30~"),
        # both within a week
        (RECIFE, "Sat 23:58-23:59 0", "2000-10-07T23:59", "10-14T23:58 10-14T23:59 10-14T23:58~"),
    ],
)
def test_what_the_clock_on_the_wall_shows_is_what_counts(zone: str, entry: str, since: str, expected: str) -> None:
    """Daylight saving moves, repeats and swallows hours, an hour, half of one or a day at a time."""
    found = changes(Timetable([entry], zone), at(since, zone), len(expected.split()))
    assert " ".join(when.partition("-")[2] for when, _ in found) == expected


def test_a_time_that_never_was_is_read_as_the_instant_that_python_makes_of_it() -> None:
    """01:30 that London's clock jumps over is half past one in UTC, when the clock shows 02:30."""
    timetable = Timetable(["02:00-03:00 0"], LONDON)
    assert timetable.rate(at("2026-03-29T01:30")) == 0
    assert label(timetable.next_change(at("2026-03-29T01:30"))) == "2026-03-29T03:00"


class Entry(NamedTuple):
    """An entry in plain numbers. start, end: minutes of the day."""

    days: frozenset[int]
    start: int
    end: int
    rate: float

    def __str__(self) -> str:
        days, end = ",".join(DAYS[day] for day in sorted(self.days)), self.end
        return f"{days} {self.start // 60:02}:{self.start % 60:02}-{end // 60:02}:{end % 60:02} {self.rate:g}"

    def holds(self, shown: datetime) -> bool:
        """Tell whether the entry is about what a clock shows, by the words of its definition."""
        minute, today = shown.hour * 60 + shown.minute, shown.weekday()
        if self.start < self.end:
            return today in self.days and self.start <= minute < self.end
        return (today in self.days and minute >= self.start) or ((today - 1) % 7 in self.days and minute < self.end)


MINUTES = st.one_of(st.integers(0, 1439), st.sampled_from([0, 30, 60, 90, 105, 120, 150, 180]))  # where clocks change
ENTRIES = st.builds(
    Entry,
    st.frozensets(st.integers(0, 6), min_size=1),
    MINUTES,
    st.one_of(MINUTES, st.just(1440)),
    st.sampled_from([0, 0.5, 5, math.inf]),
).filter(lambda entry: entry.start != entry.end)
ZONES = st.sampled_from([LONDON, NEW_YORK, LORD_HOWE, HAVANA, "Antarctica/Troll", "Asia/Beirut", "Asia/Kolkata", "UTC"])
CLOCK_CHANGES = [
    *("2026-03-07", "2026-03-08", "2026-03-28", "2026-03-29", "2026-04-05", "2026-10-03", "2026-10-04"),
    *("2026-10-24", "2026-10-25", "2026-10-31", "2026-11-01"),
]
INSTANTS = st.one_of(
    st.datetimes(datetime(1990, 1, 1), datetime(2037, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.builds(
        lambda day, seconds: datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(seconds=seconds),
        st.sampled_from(CLOCK_CHANGES),
        st.integers(-12 * 3600, 30 * 3600),
    ),
)


@settings(deadline=None)
@given(entries=st.lists(ENTRIES, max_size=4), zone=ZONES, when=INSTANTS)
def test_the_next_change_is_what_a_minute_by_minute_search_finds(
    entries: list[Entry], zone: str, when: datetime
) -> None:
    """Through every zone's changes of the clock, the rate is what the entries say, until the next change says other."""
    timetable = Timetable([str(entry) for entry in entries], zone)

    def expected(instant: datetime) -> float:
        shown = instant.astimezone(ZoneInfo(zone))
        return min((entry.rate for entry in entries if entry.holds(shown)), default=math.inf)

    assert timetable.rate(when) == expected(when)
    change = timetable.next_change(when)
    assert change is None or (change.tzinfo is timetable.zone and change.astimezone(UTC) > when)
    minute = when.replace(second=0, microsecond=0)
    for _ in range(36 * 60):
        minute += MINUTE
        if change and minute >= change.astimezone(UTC):
            assert same(minute, change)
            assert timetable.rate(minute) == expected(minute) != timetable.rate(when)
            break
        assert timetable.rate(minute) == expected(minute) == timetable.rate(when)


@settings(deadline=None)
@given(entries=st.lists(ENTRIES, min_size=1, max_size=4), zone=ZONES, when=INSTANTS)
def test_whoever_waits_for_the_opening_finds_it_open(entries: list[Entry], zone: str, when: datetime) -> None:
    """And was told of the first chance: all the way there, nothing may be sent. It comes within two weeks or never."""
    timetable = Timetable([str(entry) for entry in entries], zone)
    opening = timetable.reopens(when)
    assert opening is None or timetable.rate(opening) > 0
    end = opening.astimezone(UTC) if opening else when + timedelta(days=15)
    while when < end:
        assert timetable.rate(when) == 0
        when += MINUTE * 7


# ---- until, and for how long ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "now", "zone", "until"),
    [
        ("06:00", "2026-06-01T05:59:59.5", LONDON, "2026-06-01T06:00"),
        ("06:00", "2026-06-01T06:00", LONDON, "2026-06-02T06:00"),
        (" 06:00 ", "2026-06-01T22:00", LONDON, "2026-06-02T06:00"),
        ("00:00", "2026-06-01T22:00", LONDON, "2026-06-02T00:00"),
        ("01:30", "2026-03-29T00:10", LONDON, "2026-03-29T02:00"),
        ("01:30", "2026-03-29T02:00", LONDON, "2026-03-30T01:30"),
        ("01:30", "2026-10-25T00:10", LONDON, "2026-10-25T01:30"),
        ("01:30", "2026-10-25T01:30", LONDON, "2026-10-25T01:30~"),
        ("01:00", "2026-10-25T01:30", LONDON, "2026-10-25T01:00~"),
        ("01:30", "2026-10-25T01:30~", LONDON, "2026-10-26T01:30"),
        ("06:00", "2026-10-24T22:00", LONDON, "2026-10-25T06:00"),
        ("02:15", "2026-10-04T00:00", LORD_HOWE, "2026-10-04T02:30"),
        ("00:00", "2026-03-07T12:00", HAVANA, "2026-03-08T01:00"),
        ("23:30", "2010-11-07T00:00:30", ST_JOHNS, "2010-11-06T23:30~"),
        ("06:00", "2011-12-29T20:00", APIA, "2011-12-31T00:00"),
        ("2026-06-03T06:00", "2026-06-01T05:59", LONDON, "2026-06-03T06:00"),
        ("2026-06-03 06:00:30", "2026-06-01T05:59", LONDON, "2026-06-03T06:00"),
        ("2026-06-03T06:00Z", "2026-06-01T05:59", LONDON, "2026-06-03T07:00"),
        ("2026-06-03T06:00-04:00", "2026-06-01T05:59", LONDON, "2026-06-03T11:00"),
        ("2026-03-29T01:30", "2026-03-28T00:00", LONDON, "2026-03-29T02:00"),
        ("2026-10-25T01:30", "2026-10-24T00:00", LONDON, "2026-10-25T01:30"),
    ],
)
def test_until_is_a_time_on_the_wall(text: str, now: str, zone: str, until: str) -> None:
    """The next such time of day, or a date's; one that the clock jumps over is reached at the jump."""
    found = parse_until(text, at(now, zone).astimezone(UTC), ZoneInfo(zone))
    assert (label(found), found.tzinfo) == (until, ZoneInfo(zone))


@pytest.mark.parametrize(
    "text",
    [
        *("", "6:00", "24:00", "06:60", "0600", "6am", "tomorrow", "2h", "2026-06-03", "20260603", "2026-06-31T06:00"),
        *("2026-06-03T25:00", "0001-01-01T00:00+14:00", "9999-12-31T23:59-12:00"),
    ],
)
def test_an_until_that_cannot_be_read_says_how_to_write_it(text: str) -> None:
    """A date alone is refused, too: nobody knows whether it means the day's beginning or its end."""
    with pytest.raises(ValueError, match="is no time") as caught:
        parse_until(text, at("2026-06-01T00:00"), ZoneInfo(LONDON))
    assert str(caught.value) == f'"{text}" is no time; write a time of day like 06:00, or 2026-03-04T06:00'


@pytest.mark.parametrize("text", ["2026-06-01T06:00", "2026-06-01T05:59", "2026-06-01T05:00Z", "1999-12-31T23:59"])
def test_an_until_in_the_past_is_refused(text: str) -> None:
    """The very instant, too: there would be no time to do anything in."""
    with pytest.raises(ValueError, match="past") as caught:
        parse_until(text, at("2026-06-01T06:00"), ZoneInfo(LONDON))
    assert str(caught.value) == f'"{text}" is in the past: it is 2026-06-01T06:00 in Europe/London'


@settings(deadline=None)
@given(minute=MINUTES, zone=ZONES, now=INSTANTS)
def test_a_time_of_day_is_never_far_and_never_over(minute: int, zone: str, now: datetime) -> None:
    """It comes within 24 hours and what the clock is put back by, and it is the first such minute."""
    until = parse_until(f"{minute // 60:02}:{minute % 60:02}", now, ZoneInfo(zone)).astimezone(UTC)
    assert now < until <= now + timedelta(hours=26 if zone == "Antarctica/Troll" else 25)
    step = now.replace(second=0, microsecond=0) + MINUTE
    shown = [step.astimezone(ZoneInfo(zone))]
    while step < until:
        step += MINUTE
        shown.append(step.astimezone(ZoneInfo(zone)))
    assert step == until
    assert minute not in {time.hour * 60 + time.minute for time in shown[:-1]}
    if shown[-1].hour * 60 + shown[-1].minute != minute:  # then it is one that the clock jumps over
        before = (until - MINUTE).astimezone(ZoneInfo(zone))
        assert before.utcoffset() != shown[-1].utcoffset()
        skipped = (minute - before.hour * 60 - before.minute) % 1440
        assert 0 < skipped < (shown[-1].replace(tzinfo=None) - before.replace(tzinfo=None)) / MINUTE


@pytest.mark.parametrize(
    ("text", "now", "far"),
    [
        ("06:00", "2026-06-01T22:00", False),
        ("06:00", "2026-06-01T18:00", False),
        ("06:00", "2026-06-01T17:59:59", True),
        (" 06:00 ", "2026-06-01T06:00", True),
        ("06:00", "2026-10-24T18:00", True),  # 13 hours, that night
        ("06:00", "2026-03-28T17:00", False),  # 12 hours, that night
        ("2026-06-02T06:00", "2026-06-01T06:00", False),
        ("2027-01-01T06:00+00:00", "2026-06-01T06:00", False),
    ],
)
def test_a_time_of_day_that_has_just_gone_by_is_not_tomorrows(text: str, now: str, far: bool) -> None:
    """Who restarts an import after its 06:00 is told; hours are counted as they pass, and a date is never too far."""
    until = parse_until(text, at(now), ZoneInfo(LONDON))
    assert (too_far(until, at(now), text), UNTIL_HOURS) == (far, 12)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2h", 7200),
        ("90m", 5400),
        ("45s", 45),
        ("1h30m", 5400),
        ("1d", 86400),
        ("1d2h3m4s", 93784),
        ("1.5h", 5400),
        ("0h5m", 300),
        ("45", 45),
        ("0.5", 0.5),
        (" 2H ", 7200),
    ],
)
def test_a_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    """Days, hours, minutes and seconds, in that order, or a number alone."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "0", "0s", "0h0m", "-5", "1h30", "30m1h", "1w", "500ms", "h", "1e3", "inf", "nan", "2 h", "٢h", "9" * 400],
)
def test_a_duration_that_is_none_says_how_to_write_it(text: str) -> None:
    """No time at all is none either, and 1h30 leaves open of what."""
    with pytest.raises(ValueError, match="duration") as caught:
        parse_duration(text)
    says = "is no duration above 0; write 45s, 90m, 1h30m, 1d, or a number of seconds"
    assert str(caught.value) == f'"{text}" {says}'


@given(st.integers(0, 5), st.integers(0, 48), st.integers(0, 200), st.integers(1, 200))
def test_a_duration_adds_its_parts_up(days: int, hours: int, minutes: int, seconds: int) -> None:
    """Any parts may be left out, and a part may be more than the next unit holds."""
    parts = [f"{days}d", f"{hours}h", f"{minutes}m", f"{seconds}s"]
    text = "".join(part for part in parts if not part.startswith("0"))
    assert parse_duration(text) == timedelta(days, seconds, 0, 0, minutes, hours).total_seconds()
