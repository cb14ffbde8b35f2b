"""What became of the rows: the headline, a few figures, and the account of the last run as a bar and a table."""

from collections.abc import Mapping

from worker.model import BUCKETS
from worker.page.content import Content
from worker.page.markup import Html, joined, tag
from worker.page.table import note, section
from worker.page.wording import Calendar, count, rows, share

_NOTES = {
    "existed": "were members already",
    "already_done": "by earlier runs",
    "closed": "by undo; not sent until they are freed",
    "duplicate": "the same record again; the first one counts",
    "rejected": "a definite no",
    "parked": "not sent: their channel is closed, gone or full",
    "waived": "given up by a person",
    "failed": "surely not created; sent again next time",
    "in_doubt": "may exist; never sent again blindly",
    "not_sent": "read, not sent",
    "unread": "not read by this run",
    "started": "in flight; in doubt if no run is under way",
}

_DONE = ("created", "existed", "already_done")
_NARROWEST = 0.4
"""Percent of the bar that a few rows take at least: what there is can be seen."""


def masthead(content: Content, calendar: Calendar) -> Html:
    """Return what a reader in a hurry reads."""
    facts = [
        ("Account", content.account),
        ("Target", content.target),
        ("Ledger", content.ledger),
        ("Made", f"{calendar.moment(content.made_at)}, {content.zone}"),
    ]
    return tag(
        "header",
        tag("p", "Import report", class_="eyebrow"),
        tag("h1", headline(content)),
        tag("p", _last_run(content, calendar), class_="lead"),
        tag("dl", *(_fact(name, value) for name, value in facts), class_="facts"),
        tag("dl", *_figures(content), class_="figures"),
    )


def headline(content: Content) -> str:
    """Return where the import stands, in one sentence."""
    account = content.last_account
    if account is None:
        created = content.counts.get("created", 0)
        return f"{rows(created)} created so far" if created else "Nothing has been created yet"
    total, done = input_rows(account), sum(account.get(name, 0) for name in _DONE)
    if not total:
        return "The input had no rows"
    if done == total:
        return f"All {rows(total)} are done" if total > 1 else "The only row is done"
    return f"{count(done)} of {rows(total)} {'is' if done == 1 else 'are'} done"


def input_rows(account: Mapping[str, int]) -> int:
    """Return how many rows the input has, or what was met of one that could not be counted."""
    return account.get("input_rows", account.get("read", 0) + account.get("unread", 0))


def identity(account: Mapping[str, int], *, holds: bool | None) -> str:
    """Return whether every row is in exactly one place, as a sentence that is true."""
    total = input_rows(account)
    found = sum(account.get(name, 0) for name in (*BUCKETS, "unread"))
    if found != total:
        return f"The identity does not hold: the lines add up to {count(found)}, not to {count(total)}."
    if holds is False:
        return f"{count(total)} = the sum of the lines, but the identity does not hold: the ledger counts otherwise."
    counted = ", and the ledger counts the same" if holds else ""
    return f"{count(total)} = the sum of the lines{counted}."


def patterns() -> Html:
    """Return the hatchings by which outcomes differ from each other, not by their colour alone."""
    lines = [
        tag(
            "pattern",
            tag("path", class_=f"{colour}-pale", d="M0,0h6v6h-6z"),
            tag("path", class_=f"{colour}-ink", d="M-1,1L1,-1M0,6L6,0M5,7L7,5", stroke_width=2),
            id=f"{colour}-lines",
            width=6,
            height=6,
            patternUnits="userSpaceOnUse",
        )
        for colour in ("accent", "grey", "bad", "warn")
    ]
    dots = tag(
        "pattern",
        tag("path", class_="grey-pale", d="M0,0h5v5h-5z"),
        tag("path", class_="grey-dot", d="M1.5,1.5h2v2h-2z"),
        id="grey-dots",
        width=5,
        height=5,
        patternUnits="userSpaceOnUse",
    )
    return tag("svg", tag("defs", *lines, dots), class_="hidden", width=0, height=0, aria_hidden="true")


def outcomes(content: Content) -> Html:
    """Return the account of the last run, and what the ledger has of all runs."""
    account, counts = content.last_account, {name: number for name, number in content.counts.items() if number}
    ledger = _lines("In the ledger, over all runs", counts, sum(counts.values())) if counts else joined()
    if account is None:
        return section("rows", "Where the rows are", ledger or note("The ledger has no rows yet."))
    total = input_rows(account)
    found = {name: account.get(name, 0) for name in (*BUCKETS, "unread")}
    told = {name: number for name, number in found.items() if number > 0 or name == "created"}
    empty = tag("td")
    last = tag("tr", tag("th", "input", scope="row"), tag("td", count(total), class_="n"), empty, empty, class_="sum")
    sentence = identity(account, holds=content.identity_holds)
    broken = "does not hold" in sentence
    said = tag("p", tag("b", "✗ " if broken else "✓ "), sentence, class_="bad" if broken else "identity")
    lines = tag("div", _lines("The input of the last run", told, total, last), said)
    return section("rows", "Where the rows are", _bar(told, total), tag("div", lines, ledger, class_="accounts"))


def _last_run(content: Content, calendar: Calendar) -> str:
    if not content.runs:
        return "There is no run on record."
    run = max(content.runs, key=lambda run: run.number)
    if run.ended_at is None:
        began = calendar.moment(run.started_at)
        return f"Run {run.number} began {began} and has no end on record: it goes on, or was killed."
    exit_code = "" if run.exit_code is None else f" with exit {run.exit_code}"
    reason = f": {run.reason}" if run.reason else ""
    stop = "" if reason.endswith((".", "!", "?")) else "."
    return f"Run {run.number} ended {calendar.moment(run.ended_at)}{exit_code}{reason}{stop}"


def _fact(name: str, value: str) -> Html:
    return tag("div", tag("dt", name), tag("dd", value))


def _figures(content: Content) -> list[Html]:
    account, groups = content.last_account, len(content.groups)
    bad = sum(group.rows for group in content.groups)
    to_go = None if account is None else account.get("not_sent", 0) + account.get("unread", 0)
    figures: list[tuple[str, int | None, str, str]] = [
        ("Created", content.counts.get("created", 0), "by all runs", ""),
        ("To go", to_go, "not known yet" if to_go is None else "not sent, or unread", ""),
        ("Need something", bad, f"in {groups} group{'' if groups == 1 else 's'}", "groups"),
        ("In doubt", content.doubts_total, "may exist", "doubts"),
    ]
    return [
        tag(
            "div",
            tag("dt", name),
            tag("dd", "?" if number is None else count(number), class_="figure" if number else "figure none"),
            tag("dd", tag("a", about, href=f"#{link}") if link and number else about),
        )
        for name, number, about, link in figures
    ]


def _lines(caption: str, found: Mapping[str, int], total: int, *last: Html) -> Html:
    lines = [
        tag(
            "tr",
            tag("th", _swatch(name), name.replace("_", " "), scope="row"),
            tag("td", count(number), class_="n"),
            tag("td", share(number, total), class_="n part"),
            tag("td", _NOTES.get(name, ""), class_="about"),
        )
        for name, number in found.items()
    ]
    return tag("table", tag("caption", caption), tag("tbody", *lines, *last), class_="account")


def _look(name: str) -> str:
    return f"of-{name.replace('_', '-')}" if name in {*BUCKETS, "unread"} else "of-other"


def _swatch(name: str) -> Html:
    square = tag("rect", class_=_look(name), x=0.5, y=0.5, width=11, height=11, rx=2)
    return tag("svg", square, class_="swatch", width=12, height=12, aria_hidden="true")


def _bar(found: Mapping[str, int], total: int) -> Html:
    there = {name: number for name, number in found.items() if number}
    if not there:
        return joined()
    parts = {name: max(100 * number / max(total, *there.values()), _NARROWEST) for name, number in there.items()}
    left, drawn, room = 0.0, [], sum(parts.values())
    for name, part in parts.items():
        width = 100 * part / room
        drawn.append(tag("rect", class_=_look(name), x=f"{left:.3f}%", y=0.5, width=f"{width:.3f}%", height=31))
        left += width
    said = ", ".join(f"{count(number)} {name.replace('_', ' ')}" for name, number in there.items())
    return tag(
        "svg",
        tag("title", "Where the rows are"),
        tag("desc", said),
        *drawn,
        class_="bar",
        role="img",
        aria_label=f"Where the rows are: {said}",
        width="100%",
        height=32,
    )
