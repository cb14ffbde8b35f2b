"""How the runs went: what was sent, how long answers took, what was refused, and how much was under way."""

from collections.abc import Callable, Sequence
from statistics import median

from worker.page.axis import TimeAxis, ValueAxis
from worker.page.chart import Bars, Chart, Line, bar_chart, bar_seconds, line_chart
from worker.page.content import Content
from worker.page.markup import Html
from worker.page.series import Point, Stride, points, strides
from worker.page.table import note, section
from worker.page.wording import Calendar, count, measure, span

_TALL, _LOW = 180, 120

_FAR_ABOVE = 2.5
"""A limit so many times above all that was sent is told, not drawn: it would press the rest to the floor."""

_WIDE_RANGE = 30.0
"""Latencies whose slowest is so many times the fastest are drawn on a logarithmic scale."""


def timeline(content: Content, calendar: Calendar) -> Html:
    """Return the charts, or the sentence that says why there are none."""
    title = "Over time"
    known = strides(content.runs)
    if not known:
        why = "No run has left samples: there is nothing to draw." if content.runs else "Nothing has been sent yet."
        return section("time", title, note(why))
    axis = TimeAxis.of(known, calendar)
    drawn = [stride for stride in known if stride.start >= axis.start]
    left_out = "" if len(drawn) == len(known) else "Only the last runs are drawn. "
    several = (
        "Hours in which nothing was sent are left out: lines are interrupted there. " if axis.stretches[1:] else ""
    )
    return section(
        "time",
        title,
        note(f"{left_out}{several}Times are those of {content.zone}."),
        _throughput(drawn, axis),
        _latency(drawn, axis),
        _refusals(drawn, axis),
        _under_way(drawn, axis),
    )


def _throughput(of: Sequence[Stride], axis: TimeAxis) -> Html:
    rate = points(of, lambda stride: stride.rate)
    seconds = sum(stride.end - stride.start for stride in of)
    highest = max((dot.value for dot in rate), default=0.0)
    mean = sum(stride.requests for stride in of) / seconds
    sent = f"{measure(mean)} on average, {measure(highest)} at most"
    limits = points(of, lambda stride: stride.sample.rate_limit)
    near = _near(of, lambda stride: stride.sample.rate_limit, max(highest * _FAR_ABOVE, 1.0))
    told = _range(limits)
    if len(near) < len(limits):
        told += "; not drawn where it is far above"
    lines = [Line("sent", "first", rate, sent), Line("limit", "bound", near, told)]
    values = ValueAxis.linear(max((dot.value for dot in [*rate, *near]), default=0.0))
    chart = Chart("Throughput", "requests a second", f"Sent: {sent}. Limit: {told}.", axis, _TALL)
    return line_chart(chart, lines, values)


def _near(of: Sequence[Stride], limit: Callable[[Stride], float], highest: float) -> list[Point]:
    return points(of, lambda stride: found if (found := limit(stride)) <= highest else None)


def _range(limits: Sequence[Point]) -> str:
    if not limits:
        return "none"
    low, high = min(dot.value for dot in limits), max(dot.value for dot in limits)
    return measure(low) if low == high else f"{measure(low)} to {measure(high)}"


def _latency(of: Sequence[Stride], axis: TimeAxis) -> Html:
    asked: list[tuple[str, str, Callable[[Stride], float | None]]] = [
        ("p99", "third", lambda stride: stride.sample.p99_ms),
        ("p90", "second", lambda stride: stride.sample.p90_ms),
        ("p50", "first", lambda stride: stride.sample.p50_ms),
    ]
    lines = []
    for name, look, value in asked:
        dots = points(of, value)
        told = [dot.value for dot in dots]
        usual = f"{measure(median(told))} in the median, {measure(max(told))} at most" if told else "not known"
        lines.append(Line(name, look, dots, usual))
    every = [dot.value for line in lines for dot in line.points if dot.value > 0]
    highest = max(every, default=0.0)
    lowest = max(min(every, default=0.0), highest / 1e6)
    wide = bool(every) and highest / lowest >= _WIDE_RANGE
    values = ValueAxis.decades(lowest, highest) if wide else ValueAxis.linear(highest)
    unit = f"milliseconds until the answer{', on a logarithmic scale' if wide else ''}"
    about = " ".join(f"{line.name}: {line.note}." for line in lines)
    return line_chart(Chart("Latency", unit, about, axis, _TALL), lines, values)


def _refusals(of: Sequence[Stride], axis: TimeAxis) -> Html:
    retries, throttled = sum(stride.retries for stride in of), sum(stride.throttled for stride in of)
    bars = [
        Bars("retries", "behind", lambda stride: stride.retries, 0.86, count(retries)),
        Bars("answers 429", "before", lambda stride: stride.throttled, 0.43, count(throttled)),
    ]
    about = f"{count(retries)} retries, {count(throttled)} answers 429."
    return bar_chart(Chart("Retries and 429s", f"in {span(bar_seconds(axis))}", about, axis, _LOW), bars, of)


def _under_way(of: Sequence[Stride], axis: TimeAxis) -> Html:
    under_way = points(of, lambda stride: float(stride.sample.in_flight))
    slots = points(of, lambda stride: float(stride.sample.slots))
    highest = max((dot.value for dot in under_way), default=0.0)
    near = _near(of, lambda stride: float(stride.sample.slots), max(highest * _FAR_ABOVE * 4, 1.0))
    most = f"{measure(highest)} at most"
    told = _range(slots) + ("; not drawn where it is far above" if len(near) < len(slots) else "")
    lines = [Line("under way", "first", under_way, most), Line("slots", "bound", near, told)]
    values = ValueAxis.linear(max((dot.value for dot in [*under_way, *near]), default=0.0), least_step=1.0)
    about = f"Under way: {most}. Slots: {told}."
    return line_chart(Chart("Requests at once", "", about, axis, _LOW), lines, values)
