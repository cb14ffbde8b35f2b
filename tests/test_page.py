import math
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.page_of import (
    DAY,
    FIRST_NIGHT,
    HOSTILE,
    LONDON,
    NIGHT,
    content_of,
    empty_ones,
    hostile,
    night_of,
    run_of,
    sample_of,
    two_nights,
)
from worker.page import Content, Decision, Doubt, Group, RunLine, render
from worker.page.axis import WIDTH, TimeAxis, ValueAxis
from worker.page.chart import spanned
from worker.page.markup import tag, visible
from worker.page.outcome import headline, identity
from worker.page.series import COLUMNS, IDLE, Point, banded, points, strides
from worker.page.style import THEMES
from worker.page.wording import Calendar, measure, share, span

EMPTY = empty_ones()
CALENDAR = Calendar(LONDON, 2026)


class Reader(HTMLParser):
    """Reads a page strictly: every element is closed by its own name."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.told: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: D102 - the parser's
        self.handle_startendtag(tag, attrs)
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: D102
        self.names.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:  # noqa: D102
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:  # noqa: D102
        self.told.append(data)

    @property
    def text(self) -> str:
        """All that people read, and the style sheet."""
        return " ".join(self.told)


def read(page: str) -> Reader:
    """Return a page as read from beginning to end."""
    page.encode()
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def drawings(page: str) -> list[ET.Element]:
    """Return the charts, the bar of outcomes among them."""
    found = re.findall(r"<svg(?:(?!<svg|</svg>).|<svg(?:(?!</svg>).)*</svg>)*</svg>", page, re.DOTALL)
    parsed = [ET.fromstring(text) for text in found]  # noqa: S314 - our own
    return [drawing for drawing in parsed if drawing.get("role") == "img"]


def numbers(drawing: ET.Element) -> Iterator[int]:
    """Yield how many places each path of a drawing has."""
    for path in drawing.iter("path"):
        yield len(re.findall(r"[ML]", path.get("d", "")))


# ---- the page as a whole ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [two_nights(), hostile(), *EMPTY.values()])
def test_a_page_is_well_formed(content: Content) -> None:
    """Whatever is in it, and the charts are well-formed by themselves."""
    page = render(content)
    reader = read(page)
    assert reader.names >= {"html", "head", "body", "main", "h1", "svg"}
    assert page.count("<svg") >= len(drawings(page))


def test_a_page_says_what_happened() -> None:
    """The headline, the identity, each part, and the numbers of both nights."""
    text = read(render(two_nights())).text
    for said in (
        *("342,561 of 400,000 rows are done", "400,000 = the sum of the lines, and the ledger counts the same."),
        *("in 7 groups", "45354 conversation closed", "cust-000005", "anna@ops", "172,688", "traffic.rate"),
        *("Tue 3 Mar 22:00", "Wed 4 Mar 06:00", "8 h 00 min", "Europe/London"),
    ):
        assert said in text, said


def test_a_page_needs_nothing_else() -> None:
    """No script, nothing that is loaded, and a policy that forbids both."""
    for content in (two_nights(), hostile()):
        page = render(content)
        reader = read(page)
        assert not reader.names & {"script", "img", "iframe", "object", "embed", "base", "form", "video", "audio"}
        assert not [name for name, _ in reader.attributes if name.startswith("on")]
        loaded = [value for name, value in reader.attributes if name in {"src", "href", "srcset", "xlink:href"}]
        assert loaded.count("data:,") == 1
        assert all(value == "data:," or value.startswith("#") for value in loaded)
        style = page.partition("<style>")[2].partition("</style>")[0]
        assert "@import" not in style
        assert set(re.findall(r"url\((.)", style)) == {"#"}
        assert ("content", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in reader.attributes


def test_links_lead_to_somewhere_on_the_page() -> None:
    """A group or a doubt is one click from its number."""
    reader = read(render(two_nights()))
    wanted = {value[1:] for name, value in reader.attributes if name == "href" and value.startswith("#")}
    assert wanted == {"groups", "doubts"}
    named = [value for name, value in reader.attributes if name == "id"]
    assert wanted <= set(named)
    assert len(named) == len(set(named))


def test_a_page_is_the_same_each_time() -> None:
    """It depends on nothing but its content."""
    assert render(two_nights()) == render(two_nights())


@pytest.mark.parametrize("every", [1.0, 10.0])
def test_a_page_stays_small_however_long_an_import_takes(every: float) -> None:
    """50,000 samples and more: it can still be mailed."""
    nights = [night_of(FIRST_NIGHT + n * DAY, NIGHT, every=every, seed=n) for n in range(2 if every < 10 else 18)]
    assert sum(map(len, nights)) > 50_000
    page = render(replace(two_nights(), runs=[run_of(n, samples) for n, samples in enumerate(nights, start=1)]))
    assert 40_000 < len(page.encode()) < 150_000


def test_long_lists_are_cut_and_say_so() -> None:
    """The command line has the rest."""
    content = content_of(
        runs=[run_of(number) for number in range(1, 301)],
        groups=[Group(f"{number:04x}", 1, "failed", "why", "", "") for number in range(70)],
        doubts_total=1_234,
        doubts=[Doubt(str(number), "", "", "", ()) for number in range(50)],
        decisions_total=51,
        decisions=[Decision(FIRST_NIGHT, "", "", "created", "")] * 50,
        settings=[("key", "value")] * 201,
    )
    page = render(content)
    told = re.findall(r"The (?:first|last) \d+ of [\d,]+", read(page).text)
    assert told == [
        *("The first 50 of 70", "The first 50 of 1,234", "The first 50 of 51", "The last 50 of 300"),
        "The first 200 of 201",
    ]
    assert len(page.encode()) < 150_000
    assert "run 300" not in page


# ---- texts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_is_only_shown(text: str) -> None:
    """Wherever it stands it adds no element, steers nothing, and is cut when it is long."""
    clean = content_of(
        runs=[run_of(1, command="command", reason="reason")],
        groups=[Group("short", 1, "state", "why", "advice", "where")],
        doubts=[Doubt("key", "place", "channel", "reason", ["candidate"])],
        decisions=[Decision(FIRST_NIGHT, "by", "key", "decision", "detail")],
        settings=[("key", "value")],
        counts={"state": 1},
    )
    dirty = replace(
        clean,
        ledger=text,
        target=text,
        account=text,
        version=text,
        runs=[run_of(1, command=text, reason=text)],
        groups=[Group(text, 1, text, text, text, text)],
        doubts=[Doubt(text, text, text, text, [text])],
        decisions=[Decision(FIRST_NIGHT, text, text, text, text)],
        settings=[(text, text)],
        counts={text: 1},
    )
    page = render(dirty)
    assert read(page).names == read(render(clean)).names
    assert re.findall(r"<\w+", page) == re.findall(r"<\w+", render(clean))
    assert visible(text)[:60].replace("_", " ") in read(page).text.replace("_", " ")
    assert not [sign for sign in page if not sign.isprintable() and sign != "\n"]
    assert "x" * 301 not in page


@given(text=st.text(), longest=st.integers(1, 80))
def test_what_is_shown_of_a_text_is_short_and_harmless(text: str, longest: int) -> None:
    """Of any text; and what is harmless and short stays as it is."""
    shown = visible(text, longest)
    assert shown.isprintable()
    assert len(shown) <= longest
    if text.isprintable() and len(text) <= longest:
        assert shown == text


@given(text=st.text())
def test_a_text_comes_back_from_an_element_as_it_is_shown(text: str) -> None:
    """As content and as an attribute, and markup stays markup."""
    reader = read(tag("p", text, tag("b", "bold"), title=text))
    assert reader.names == {"p", "b"}
    assert reader.attributes == [("title", visible(text, 10**5))]
    assert "".join(reader.told) == f"{visible(text)}bold"


texts = st.text(max_size=40) | st.sampled_from(HOSTILE)
rows_of = st.integers(0, 2**63 - 1)
moments = st.floats() | st.floats(FIRST_NIGHT, FIRST_NIGHT + 9 * DAY)
samples = st.builds(
    sample_of,
    moments,
    requests=rows_of,
    retries=rows_of,
    throttled=rows_of,
    in_flight=rows_of,
    slots=rows_of,
    rate_limit=st.floats(),
    **dict.fromkeys(("p50_ms", "p90_ms", "p99_ms"), st.none() | st.floats()),
)
contents = st.builds(
    Content,
    **dict.fromkeys(("ledger", "target", "account", "version"), texts),
    made_at=moments,
    zone=st.sampled_from([UTC, LONDON]),
    counts=st.dictionaries(texts, rows_of, max_size=4),
    last_account=st.none()
    | st.dictionaries(st.sampled_from(["input_rows", "read", "created", "unread", "failed"]) | texts, rows_of),
    identity_holds=st.sampled_from([True, False, None]),
    runs=st.lists(
        st.builds(
            RunLine,
            number=rows_of,
            command=texts,
            started_at=moments,
            ended_at=st.none() | moments,
            exit_code=st.none() | st.integers(0, 255),
            reason=texts,
            **dict.fromkeys(("requests", "created", "bad", "in_doubt"), rows_of),
            rows_per_second=st.floats(),
            samples=st.lists(samples, max_size=5),
        ),
        max_size=3,
    ),
    groups=st.lists(st.builds(Group, texts, rows_of, texts, texts, texts, texts), max_size=2),
    doubts_total=rows_of,
    doubts=st.lists(st.builds(Doubt, texts, texts, texts, texts, st.lists(texts, max_size=9)), max_size=2),
    decisions_total=rows_of,
    decisions=st.lists(st.builds(Decision, moments, texts, texts, texts, texts), max_size=2),
    settings=st.lists(st.tuples(texts, texts), max_size=2),
)


@given(content=contents)
def test_a_page_can_be_made_of_anything(content: Content) -> None:
    """Of no moment, number or text that a ledger may hold does it break."""
    page = render(content)
    assert "script" not in read(page).names
    for drawing in drawings(page):
        assert "nan" not in ET.tostring(drawing, "unicode").lower()


# ---- what is not there -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sentence", "charts"),
    [
        ("no runs", "Nothing has been created yet", 0),
        ("no runs", "Nothing has been sent yet.", 0),
        ("no runs", "The ledger has no rows yet.", 0),
        ("no runs", "There is no run on record.", 0),
        ("no samples", "No run has left samples: there is nothing to draw.", 0),
        ("no samples", "1 row created so far", 0),
        ("one sample", "20 on average", 4),
        ("no limit", "Limit: 6.", 4),
        ("no rows", "The input had no rows", 0),
        ("no rows", "0 = the sum of the lines, and the ledger counts the same.", 0),
        ("not ended", "has no end on record: it goes on, or was killed.", 4),
        ("utc", "Times are those of UTC.", 4),
    ],
)
def test_what_is_not_there_is_told_in_a_sentence(name: str, sentence: str, charts: int) -> None:
    """A ledger without runs, a run without samples, and so on."""
    page = render(EMPTY[name])
    assert sentence in read(page).text
    figures = [drawing for drawing in drawings(page) if drawing.find("svg") is not None]
    assert len(figures) == charts


def test_a_limit_that_is_none_is_not_drawn() -> None:
    """An infinite one has no place on an axis; the legend says what the others were."""
    endless = [sample_of(FIRST_NIGHT + n, requests=6 * n, rate_limit=math.inf) for n in range(1, 9)]
    assert "Limit: none." in read(render(content_of(runs=[run_of(1, endless)]))).text


def test_a_limit_far_above_is_told_and_not_drawn() -> None:
    """It would press what was sent to the floor."""
    far = [sample_of(FIRST_NIGHT + n, requests=6 * n, rate_limit=1000.0) for n in range(9)]
    page = render(content_of(runs=[run_of(1, far)]))
    assert "Limit: 1,000; not drawn where it is far above." in read(page).text
    assert ">1,000</text>" not in page


@pytest.mark.parametrize(
    ("account", "said"),
    [
        (None, "Nothing has been created yet"),
        ({"input_rows": 3, "read": 3, "created": 1, "existed": 1, "already_done": 1}, "All 3 rows are done"),
        ({"input_rows": 1, "read": 1, "created": 1}, "The only row is done"),
        ({"input_rows": 9, "read": 9, "created": 1, "failed": 8}, "1 of 9 rows is done"),
        ({"read": 2_000, "created": 1_000, "failed": 1_000}, "1,000 of 2,000 rows are done"),
    ],
)
def test_the_headline_says_where_the_import_stands(account: dict[str, int] | None, said: str) -> None:
    """Created, existed and done earlier are done; what came from stdin is what was read."""
    assert headline(content_of(last_account=account)) == said


@pytest.mark.parametrize(
    ("created", "holds", "said"),
    [
        (3, True, "4 = the sum of the lines, and the ledger counts the same."),
        (3, None, "4 = the sum of the lines."),
        (3, False, "4 = the sum of the lines, but the identity does not hold: the ledger counts otherwise."),
        (2, True, "The identity does not hold: the lines add up to 3, not to 4."),
    ],
)
def test_the_identity_is_added_up_again(created: int, holds: bool | None, said: str) -> None:
    """The page does not repeat what is not so."""
    assert identity({"input_rows": 4, "read": 3, "created": created, "unread": 1}, holds=holds) == said


# ---- charts ----------------------------------------------------------------------------------------------------------


def test_a_chart_speaks_to_those_who_do_not_see_it() -> None:
    """Each has a role, a title, a description with its numbers, and a legend in words."""
    page = render(two_nights())
    found = drawings(page)
    assert [drawing.findtext("title") for drawing in found] == [
        "Where the rows are",
        "Throughput, requests a second",
        "Latency, milliseconds until the answer, on a logarithmic scale",
        "Retries and 429s, in 10 min",
        "Requests at once",
    ]
    for drawing in found:
        assert drawing.findtext("desc")
        assert drawing.get("aria-label", "").startswith(drawing.findtext("title") or "?")
    assert re.findall(r"<li><svg.*?</svg><span><b>(.*?)</b>", page) == [
        *("sent", "limit", "p99", "p90", "p50", "retries", "answers 429", "under way", "slots")
    ]


def test_a_long_line_is_drawn_in_few_points() -> None:
    """No path has more than 400 places, and of those of a mean no more than 200."""
    samples = night_of(FIRST_NIGHT, NIGHT, every=1, seed=1)
    for drawing in drawings(render(content_of(runs=[run_of(1, samples)]))):
        assert max(numbers(drawing), default=0) <= 2 * COLUMNS


@given(values=st.lists(st.floats(0, 1e6), min_size=1))
def test_of_many_points_the_extremes_and_the_mean_stay(values: list[float]) -> None:
    """A spike of one sample in a night is seen."""
    values = [*values, *[500.0] * (4 * COLUMNS)]
    dots = [Point(0, float(at), value) for at, value in enumerate(values)]
    bands = banded(dots, lambda at: int(at * COLUMNS / len(dots)))
    assert len(bands) <= COLUMNS
    assert max(band.highest for band in bands) == max(values)
    assert min(band.lowest for band in bands) == min(values)
    assert all(band.lowest <= band.mean * (1 + 1e-9) and band.mean <= band.highest * (1 + 1e-9) for band in bands)


def test_runs_that_are_apart_are_not_joined() -> None:
    """The hours between two nights are left out, and no line goes across."""
    drawn = strides(two_nights().runs)
    axis = TimeAxis.of(drawn, CALENDAR)
    assert len(axis.stretches) == 3
    assert [stretch.end - stretch.start for stretch in axis.stretches[1:]] == [NIGHT, NIGHT]
    for before, after in pairwise(axis.stretches):
        assert before.left + before.width < after.left
    page = render(two_nights())
    (trace,) = re.findall(r'<path class="line first" d="([^"]*)"/><path class="floor"', page)[-1:]
    assert trace.count("M") == 3


def test_idle_hours_of_one_run_are_left_out() -> None:
    """A run that waits for its hours sends nothing all day: that is not drawn; a short pause is."""
    evening = [sample_of(FIRST_NIGHT + 60 * n, requests=100 * n) for n in range(60)]
    day = [sample_of(evening[-1].at + 60 * n, requests=5900) for n in range(1, 600)]
    night = [sample_of(day[-1].at + 60 * n, requests=5900 + 100 * n) for n in range(1, 60)]
    drawn = strides([run_of(1, [*evening, *day, *night])])
    assert {stride.piece for stride in drawn} == {0, 1}
    assert not [stride for stride in drawn if not stride.requests and stride.start > evening[-1].at]
    assert len(TimeAxis.of(drawn, CALENDAR).stretches) == 2
    short = [sample_of(FIRST_NIGHT + n * IDLE / 3, requests=min(n, 3)) for n in range(6)]
    assert {stride.piece for stride in strides([run_of(1, short)])} == {0}


def test_a_sample_just_before_the_end_makes_no_spike() -> None:
    """One request in a hundredth of a second is no rate."""
    samples = [sample_of(FIRST_NIGHT + at, requests=requests) for at, requests in ((10, 60), (20, 120), (20.01, 122))]
    drawn = strides([run_of(1, samples, started_at=FIRST_NIGHT)])
    assert [round(stride.rate, 1) for stride in drawn] == [6.0, 6.2]
    assert sum(stride.requests for stride in drawn) == 122


def test_a_line_is_interrupted_where_it_has_no_value() -> None:
    """Nothing was answered there: no latency is made up."""
    samples = [sample_of(FIRST_NIGHT + n, requests=n, p50_ms=None if n == 3 else 100.0) for n in range(1, 6)]
    line = points(strides([run_of(1, samples)]), lambda stride: stride.sample.p50_ms)
    assert [dot.value for dot in line] == [100.0] * 6
    assert line[2].piece != line[3].piece
    assert line[3].at == samples[2].at


def test_bars_count_every_retry_once() -> None:
    """However they are put together."""
    drawn = strides(two_nights().runs)
    axis = TimeAxis.of(drawn, CALENDAR)
    total = sum(spanned(drawn, lambda stride: stride.retries, axis).values())
    assert total == sum(run.samples[-1].retries for run in two_nights().runs)


# ---- axes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("highest", "ticks"),
    [
        (0, [0, 0.5, 1]),
        (1, [0, 0.5, 1]),
        (5.97, [0, 2, 4, 6]),
        (6.0, [0, 2, 4, 6]),
        (6.1, [0, 2, 4, 6, 8]),
        (99, [0, 50, 100]),
        (1_001, [0, 500, 1_000, 1_500]),
    ],
)
def test_values_have_round_ticks(highest: float, ticks: list[float]) -> None:
    """From nothing to just above the highest."""
    assert list(ValueAxis.linear(highest).ticks) == pytest.approx(ticks)


def test_what_is_counted_has_whole_ticks() -> None:
    """There is no half a retry."""
    assert ValueAxis.linear(1, least_step=1.0).ticks == (0.0, 1.0)


@pytest.mark.parametrize(
    ("highest", "labels"),
    [
        (1, ["0", "0.5", "1.0"]),
        (4_000, ["0", "1,000", "2,000", "3,000", "4,000"]),
        (12_000, ["0", "5,000", "10k", "15k"]),
        (3e6, ["0", "1M", "2M", "3M"]),
        (1e15, ["0", "5e14", "1e15"]),
    ],
)
def test_labels_of_values_are_short(highest: float, labels: list[str]) -> None:
    """They stand beside the chart, on a telephone too."""
    axis = ValueAxis.linear(highest)
    assert [axis.label(tick) for tick in axis.ticks] == labels


@pytest.mark.parametrize(
    ("lowest", "highest", "ticks"),
    [
        (120, 11_000, [100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000]),
        (100, 5_000, [100, 200, 500, 1_000, 2_000, 5_000]),
        (3, 60_000, [10, 100, 1_000, 10_000, 100_000]),
    ],
)
def test_a_logarithmic_axis_has_round_ticks(lowest: float, highest: float, ticks: list[float]) -> None:
    """1, 2 and 5 if there is room, else the powers of ten."""
    axis = ValueAxis.decades(lowest, highest)
    expected = ticks if len(ticks) <= 7 else [tick for tick in ticks if math.log10(tick).is_integer()]
    assert list(axis.ticks) == pytest.approx(expected)
    assert axis.part(axis.bottom) == 0.0
    assert axis.part(axis.top) == 1.0


def axis_of(*times: tuple[float, float]) -> TimeAxis:
    """Return the axis of runs that sent all the time."""
    runs = [
        run_of(n, [sample_of(start), sample_of(end, requests=9)], started_at=start)
        for n, (start, end) in enumerate(times, start=1)
    ]
    return TimeAxis.of(strides(runs), CALENDAR)


@pytest.mark.parametrize(
    ("seconds", "times"),
    [
        (60, ["22:00:00", "22:00:10", "22:00:20"]),
        (3600, ["22:00", "22:05", "22:10"]),
        (NIGHT, ["22:00", "23:00", "00:00"]),
        (2 * DAY, ["00:00", "06:00", "12:00"]),
    ],
)
def test_times_are_round_by_the_clock_on_the_wall(seconds: float, times: list[str]) -> None:
    """Seconds, minutes, hours or days, as long as it takes."""
    axis = axis_of((FIRST_NIGHT, FIRST_NIGHT + seconds))
    ticks = sorted(tick for tick in axis.ticks() if tick.kind != "day")
    assert [tick.text for tick in ticks][:3] == times


def test_times_are_round_on_the_night_when_clocks_change() -> None:
    """An hour is left out or comes twice: the labels stay those of the wall, in order."""
    spring = 1_774_735_200.0  # 2026-03-28 22:00 in London; at 01:00 it is 02:00
    axis = axis_of((spring, spring + NIGHT))
    assert [CALENDAR.time(at) for _, at in axis.marks()] == [
        *("22:00", "23:00", "00:00", "02:00", "03:00", "04:00", "05:00", "06:00", "07:00")
    ]


def test_labels_do_not_touch_each_other() -> None:
    """Neither on a wide screen nor on a telephone, where fewer are shown."""
    axis = TimeAxis.of(strides(two_nights().runs), CALENDAR)
    for kind, wide, apart in (("time", True, 0.06), ("time", False, 0.16), ("day", True, 0.095), ("day", False, 0.26)):
        places = sorted(tick.x for tick in axis.ticks() if tick.kind == kind and (wide or not tick.wide))
        assert len(places) >= 2
        assert min(after - before for before, after in pairwise(places)) >= apart * WIDTH


def test_no_more_stretches_are_drawn_than_can_be_read() -> None:
    """The last ones; the page says that there are others."""
    nights = [(FIRST_NIGHT + n * DAY, FIRST_NIGHT + n * DAY + 60) for n in range(40)]
    axis = axis_of(*nights)
    assert len(axis.stretches) == 12
    assert axis.stretches[-1].end == nights[-1][1]
    runs = [run_of(n, [sample_of(at), sample_of(end, requests=9)]) for n, (at, end) in enumerate(nights)]
    assert "Only the last runs are drawn." in read(render(content_of(runs=runs))).text


# ---- words and colours -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [(0, 9, "0.0 %"), (9, 9, "100.0 %"), (1, 10**6, "< 0.1 %"), (10**6 - 1, 10**6, "> 99.9 %"), (1, 0, "")],
)
def test_a_share_is_all_or_nothing_only_if_it_is(part: int, whole: int, said: str) -> None:
    """399,999 of 400,000 are not 100.0 %."""
    assert share(part, whole) == said


def test_numbers_and_spans_are_short() -> None:
    """About three digits, and the unit that people use."""
    told = [measure(number) for number in (0, 5.984, 12.34, 182.4, 1240.5, math.inf, math.nan)]
    assert told == ["0", "5.98", "12.3", "182", "1,240", "∞", "?"]
    assert [span(seconds) for seconds in (9, 600, 28_800, -1, math.nan)] == ["9 s", "10 min", "8 h 00 min", "?", "?"]
    assert Calendar(UTC, 2026).moment(FIRST_NIGHT) == "Mon 2 Mar 22:00"
    assert Calendar(UTC, 2027).moment(FIRST_NIGHT) == "Mon 2 Mar 2026 22:00"
    assert Calendar(UTC).moment(1e30) == "?"


def luminance(colour: str) -> float:
    """Return a colour's relative luminance [WCAG 2.2]."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", THEMES)
def test_contrast_is_enough_to_read(theme: str) -> None:
    """4.5 for text, on the panel too; 3 for what is drawn [WCAG 2.2 AA]."""
    colours = THEMES[theme]

    def contrast(one: str, other: str) -> float:
        high, low = sorted((luminance(colours[one]), luminance(colours[other])), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for ground in ("paper", "panel"):
        assert [name for name in ("ink", "quiet", "accent", "bad") if contrast(name, ground) < 4.5] == []
    drawn = ("accent", "accent-soft", "warn", "bad", "grey", "ink")
    assert [name for name in drawn if contrast(name, "paper") < 3] == []
    assert [name for name in ("accent", "grey", "bad", "warn") if contrast(name, f"{name}-pale") < 3] == []


def test_both_themes_have_the_same_colours() -> None:
    """None is forgotten in the dark, and each that is used is there."""
    assert THEMES["light"].keys() == THEMES["dark"].keys()
    assert set(re.findall(r"var\(--([\w-]+)\)", render(content_of()))) == THEMES["light"].keys()
