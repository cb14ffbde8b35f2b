"""Charts as inline SVG: lines or bars over time. They stretch to any width; their words keep their size."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from worker.page.axis import WIDTH, TimeAxis, ValueAxis
from worker.page.markup import Html, joined, tag
from worker.page.series import Band, Point, Stride, banded

_UNITS = 4
"""Of a chart's own, for a pixel of its height: finer than a pixel, and still whole numbers."""

_MOST_BARS = 120


@dataclass(frozen=True, slots=True)
class Line:
    """A line. look: its class. note: what is said of it in the legend, a few numbers.

    A long one is drawn as its mean, in a band from the lowest to the highest.
    """

    name: str
    look: str
    points: Sequence[Point]
    note: str


@dataclass(frozen=True, slots=True)
class Bars:
    """How often something happened, in spans of one length. look: its class. part: of a span's width that is filled."""

    name: str
    look: str
    count: Callable[[Stride], int]
    part: float
    note: str


@dataclass(frozen=True, slots=True)
class Chart:
    """What a chart is: its name, its unit, what it says in one sentence, its time axis, its height in pixels."""

    title: str
    unit: str
    about: str
    axis: TimeAxis
    height: int


def line_chart(chart: Chart, lines: Sequence[Line], values: ValueAxis) -> Html:
    """Return lines over time."""
    drawn = [piece for line in lines for piece in _drawn(line, chart, values)]
    keys = [_key(tag("path", class_=f"line {line.look}", d="M1,6H27"), line.name, line.note) for line in lines]
    return _figure(chart, drawn, keys, values)


def bar_chart(chart: Chart, bars: Sequence[Bars], of: Sequence[Stride]) -> Html:
    """Return bars over time; those of the first name stand behind those of the next."""
    spans = [spanned(of, one.count, chart.axis) for one in bars]
    highest = max((times for span in spans for times in span.values()), default=0)
    values = ValueAxis.linear(highest, least_step=1.0)
    drawn, keys = [], []
    for one, span in zip(bars, spans, strict=True):
        drawn.append(tag("path", class_=f"bars {one.look}", d=_blocks(span, one.part, chart, values)))
        sample = tag("rect", class_=one.look, x=8, y=1, width=round(10 * one.part), height=11)
        keys.append(_key(sample, one.name, one.note))
    return _figure(chart, drawn, keys, values)


def bar_seconds(axis: TimeAxis) -> int:
    """Return the span of one bar."""
    return axis.step(_MOST_BARS)


def spanned(of: Sequence[Stride], count: Callable[[Stride], int], axis: TimeAxis) -> dict[tuple[int, int], int]:
    """Return (stretch, span) → how often; what happened between two samples counts where its middle is."""
    seconds, sums = bar_seconds(axis), dict[tuple[int, int], int]()
    for stride in of:
        if found := count(stride):
            middle = (stride.start + stride.end) / 2
            stretch = next((n for n, one in enumerate(axis.stretches) if middle <= one.end), len(axis.stretches) - 1)
            place = (stretch, int(middle // seconds))
            sums[place] = sums.get(place, 0) + found
    return sums


def _drawn(line: Line, chart: Chart, values: ValueAxis) -> list[Html]:
    def place(band: Band, value: float) -> tuple[int, int]:
        return round(chart.axis.x(band.at)), round(chart.height * _UNITS * (1 - values.part(value)))

    traces, ribbons = list[str](), list[str]()
    for unbroken in _unbroken(banded(line.points, chart.axis.column)):
        mean = _bends([place(band, band.mean) for band in unbroken])
        traces.append(f"M{_path(mean)}{'' if mean[1:] else 'h0'}")
        if any(band.lowest < band.highest for band in unbroken):
            upper = [place(band, band.highest) for band in unbroken]
            lower = [place(band, band.lowest) for band in reversed(unbroken)]
            ribbons.append(f"M{_path(_bends(upper) + _bends(lower))}z")
    drawn = tag("path", class_=f"line {line.look}", d="".join(traces))
    return [tag("path", class_=f"band {line.look}", d="".join(ribbons)), drawn] if ribbons else [drawn]


def _unbroken(bands: Sequence[Band]) -> Iterator[list[Band]]:
    taken: list[Band] = []
    for band in bands:
        if taken and taken[-1].last_piece != band.piece:
            yield taken
            taken = []
        taken.append(band)
    if taken:
        yield taken


def _bends(places: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Leave out what lies on a level line."""
    return [
        place
        for number, place in enumerate(places)
        if not 0 < number < len(places) - 1 or not places[number - 1][1] == place[1] == places[number + 1][1]
    ]


def _path(places: Sequence[tuple[int, int]]) -> str:
    return "L".join(f"{x},{y}" for x, y in places)


def _blocks(span: dict[tuple[int, int], int], part: float, chart: Chart, values: ValueAxis) -> str:
    seconds, made, bottom = bar_seconds(chart.axis), [], chart.height * _UNITS
    for (stretch, number), times in sorted(span.items()):
        place = chart.axis.stretches[stretch]
        left, right = place.x(number * seconds), place.x((number + 1) * seconds)
        width = max((right - left) * part, 2)
        top = min(round(bottom * (1 - values.part(times))), bottom - _UNITS)
        made.append(f"M{(left + right - width) / 2:.0f},{bottom}V{top}h{width:.0f}V{bottom}z")
    return "".join(made)


def _key(sample: Html, name: str, note: str) -> Html:
    picture = tag("svg", sample, class_="sample", width=28, height=12, aria_hidden="true")
    return tag("li", picture, tag("span", tag("b", name), f" {note}" if note else ""))


def _figure(chart: Chart, drawn: Sequence[Html], keys: Sequence[Html], values: ValueAxis) -> Html:
    axis, units = chart.axis, chart.height * _UNITS
    named = f"{chart.title}, {chart.unit}" if chart.unit else chart.title
    levels = [(units * (1 - values.part(tick)), tick) for tick in values.ticks]
    across = [f"M{one.left:.0f},{y:.0f}h{one.width:.0f}" for one in axis.stretches for y, _ in levels[1:]]
    floor = [f"M{one.left:.0f},{units}h{one.width:.0f}" for one in axis.stretches]
    marks = [f"M{x:.0f},{units}v{-units}" for x, _ in axis.marks()]
    plot = tag(
        "svg",
        tag("path", class_="grid", d="".join(across)),
        tag("path", class_="grid upright", d="".join(marks)),
        *drawn,
        tag("path", class_="floor", d="".join(floor)),
        width="100%",
        height=chart.height,
        viewBox=f"0 0 {WIDTH} {units}",
        preserveAspectRatio="none",
        class_="plot",
    )
    picture = tag(
        "svg",
        tag("title", named),
        tag("desc", chart.about),
        plot,
        *(tag("text", values.label(tick), class_="level", x=-8, y=f"{y / _UNITS:.0f}") for y, tick in levels),
        _labels(axis, chart.height),
        role="img",
        aria_label=f"{named}. {chart.about}",
        width="100%",
        height=chart.height + 38,
    )
    heading = tag("h3", f"{chart.title} ", tag("small", chart.unit))
    caption = tag("figcaption", heading, tag("ul", *keys, class_="keys"))
    return tag("figure", caption, tag("div", picture, class_="chart"))


def _labels(axis: TimeAxis, height: int) -> Html:
    made = []
    for tick in axis.ticks():
        place = "end" if tick.x > WIDTH * 0.95 and tick.kind != "time" else "middle"
        look = f"{tick.kind} {place}{' wide' if tick.wide else ''}"
        y = height + (34 if tick.kind == "day" else 18)
        made.append(tag("text", tick.text, class_=look, x=f"{100 * tick.x / WIDTH:.2f}%", y=y))
    return joined(*made)
