"""The page: all about an import as one HTML file that needs nothing else, neither a script nor a network. Pure."""

from datetime import UTC

from worker.page.content import Content, Decision, Doubt, Group, RunLine, Sample
from worker.page.listing import doubts, groups, runs, settings
from worker.page.markup import Html, joined, tag
from worker.page.outcome import masthead, outcomes, patterns
from worker.page.style import STYLE
from worker.page.timeline import timeline
from worker.page.wording import Calendar

__all__ = ["Content", "Decision", "Doubt", "Group", "RunLine", "Sample", "render"]

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def render(content: Content) -> str:
    """Return the page as one text, to be written as UTF-8."""
    made = Calendar(content.zone).local(content.made_at)
    calendar = Calendar(content.zone, made.year if made else None)
    head = joined(
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="robots", content="noindex"),
        tag("link", rel="icon", href="data:,"),
        tag("title", f"Import report, {content.target}, {calendar.day(content.made_at)}"),
        tag("style", STYLE),
    )
    body = tag(
        "body",
        patterns(),
        tag(
            "main",
            masthead(content, calendar),
            outcomes(content),
            timeline(content, calendar),
            groups(content),
            doubts(content, calendar),
            runs(content, calendar),
            settings(content),
        ),
        tag("footer", tag("p", f"Made {_stamp(content)} by flex-import {content.version}.")),
    )
    return Html(f"<!DOCTYPE html>\n{tag('html', tag('head', head), body, lang='en')}\n")


def _stamp(content: Content) -> str:
    local = Calendar(UTC).local(content.made_at)
    return f"{local:%Y-%m-%dT%H:%M:%SZ}" if local else "at no known time"
