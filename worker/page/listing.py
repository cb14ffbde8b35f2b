"""What is told line by line: groups, doubts, decisions, runs, the configuration."""

from collections.abc import Sequence

from worker.page.content import Content, Group, RunLine
from worker.page.markup import Html, joined, tag, visible
from worker.page.table import beginning, note, section, table
from worker.page.wording import Calendar, count, measure, span

_MOST = 50
"""Lines of each list: the rest is the command line's."""

_MOST_SETTINGS = 200
_MOST_CANDIDATES = 5

_KEY = 120
"""Characters of a key or a place: they tell rows apart, mostly by their beginning."""


def groups(content: Content) -> Html:
    """Return the rows that need something, by reason."""
    title = "What needs somebody"
    if not content.groups:
        return section("groups", title, note("Nothing: no row was rejected, parked or failed, and none is in doubt."))
    shown = content.groups[:_MOST]
    columns = [("Group", "id code"), ("Rows", "n"), ("State", ""), ("Reason", "grow")]
    lines = [(one.short, count(one.rows), one.state.replace("_", " "), _reason(one)) for one in shown]
    caption = "Rows that need something, by reason; values are masked"
    told = table(caption, "groups", columns, lines)
    return section("groups", title, told, beginning(len(shown), len(content.groups)))


def _reason(group: Group) -> Html:
    return joined(
        tag("p", group.why, class_="strong"),
        tag("p", group.advice) if group.advice else joined(),
        tag("p", group.where, class_="code quiet") if group.where else joined(),
    )


def doubts(content: Content, calendar: Calendar) -> Html:
    """Return the rows that may exist, and what people decided about such rows."""
    return section("doubts", "In doubt, and decided", _doubts(content), _decisions(content, calendar))


def _doubts(content: Content) -> Html:
    total = max(content.doubts_total, len(content.doubts))
    if not total:
        return note("No row is in doubt.")
    columns = [
        *(("Key", "code"), ("Place", "code place"), ("Channel", "code sid")),
        *(("Why", "grow"), ("Candidates", "code sid")),
    ]
    shown = content.doubts[:_MOST]
    lines = [(*_briefly(one.key, one.place, one.channel), one.reason, _few(one.candidates)) for one in shown]
    caption = "Rows that may exist: a request left, and no answer told what became of it"
    return joined(table(caption, "doubts", columns, lines), beginning(len(shown), total))


def _decisions(content: Content, calendar: Calendar) -> Html:
    total = max(content.decisions_total, len(content.decisions))
    if not total:
        return note("Nobody has decided anything by hand.")
    columns = [("When", "when"), ("By", ""), ("Key", "code"), ("Decision", ""), ("Detail", "grow")]
    shown = content.decisions[:_MOST]
    lines = [
        (calendar.moment(one.at), *_briefly(one.by, one.key), one.decision.replace("_", " "), one.detail)
        for one in shown
    ]
    return joined(table("What people decided", "decisions", columns, lines), beginning(len(shown), total))


def _briefly(*texts: str) -> list[str]:
    return [visible(text, _KEY) for text in texts]


def _few(candidates: Sequence[str]) -> Html:
    if not candidates:
        return tag("span", "none", class_="quiet")
    shown = [tag("p", visible(sid, _KEY)) for sid in candidates[:_MOST_CANDIDATES]]
    more = len(candidates) - len(shown)
    return joined(*shown, tag("p", f"and {count(more)} more", class_="quiet") if more else joined())


def runs(content: Content, calendar: Calendar) -> Html:
    """Return the history of runs, the last one first."""
    if not content.runs:
        return section("runs", "Runs", note("There is no run on record."))
    newest = sorted(content.runs, key=lambda run: run.number, reverse=True)
    columns = [
        *(("Run", "n"), ("Started", "when"), ("Ended", "when"), ("Requests", "n"), ("Created", "n"), ("Bad", "n")),
        *(("In doubt", "n"), ("Rows/s", "n"), ("How it ended", "grow")),
    ]
    lines = [
        (
            str(run.number),
            calendar.moment(run.started_at),
            _end(run, calendar),
            count(run.requests),
            count(run.created),
            count(run.bad),
            count(run.in_doubt),
            measure(run.rows_per_second),
            _story(run),
        )
        for run in newest[:_MOST]
    ]
    more = note(f"The last {_MOST} of {count(len(newest))} runs are shown.") if len(newest) > _MOST else joined()
    told = table("Every command that sent something, the last one first", "runs", columns, lines)
    return section("runs", "Runs", told, more)


def _end(run: RunLine, calendar: Calendar) -> Html:
    if run.ended_at is None:
        return joined("not yet")
    took = span(run.ended_at - run.started_at)
    return joined(tag("p", calendar.moment(run.ended_at)), tag("p", took, class_="quiet"))


def _story(run: RunLine) -> Html:
    code = "no end on record" if run.ended_at is None else "" if run.exit_code is None else f"exit {run.exit_code}"
    told = joined(tag("b", code), ": " if code and run.reason else "", run.reason)
    return joined(tag("p", told), tag("p", run.command, class_="code quiet") if run.command else joined())


def settings(content: Content) -> Html:
    """Return the configuration, in the order in which it came."""
    if not content.settings:
        return section("settings", "Configuration", note("No setting is on record."))
    shown = content.settings[:_MOST_SETTINGS]
    lines = [
        tag("div", tag("dt", visible(key, _KEY)), tag("dd", value) if value else tag("dd", "empty", class_="quiet"))
        for key, value in shown
    ]
    told = tag("dl", *lines, class_="settings")
    return section("settings", "Configuration", told, beginning(len(shown), len(content.settings)))
