"""Tables that are cards on a telephone: each cell carries its column's name."""

from collections.abc import Iterable, Sequence

from worker.page.markup import Html, joined, tag
from worker.page.wording import count


def table(caption: str, look: str, columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]]) -> Html:
    """Return a table. columns: name and class of each. The roles stay when cells are no longer laid out as a table."""
    head = [tag("th", name, scope="col", class_=kind, role="columnheader") for name, kind in columns]
    body = [
        tag(
            "tr",
            *(
                tag("td", cell, class_=kind, role="cell", data_label=name)
                for (name, kind), cell in zip(columns, row, strict=True)
            ),
            role="row",
        )
        for row in rows
    ]
    return tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", *head, role="row"), role="rowgroup"),
        tag("tbody", *body, role="rowgroup"),
        class_=f"cards {look}",
        role="table",
    )


def section(name: str, title: str, *children: str) -> Html:
    """Return a part of the page, with its heading."""
    return tag("section", tag("h2", title, id=f"{name}-title"), *children, id=name, aria_labelledby=f"{name}-title")


def note(*children: str) -> Html:
    """Return a quiet sentence."""
    return tag("p", *children, class_="note")


def beginning(shown: int, total: int) -> Html:
    """Return the sentence that says how much is not shown; nothing if all is."""
    return note(f"The first {count(shown)} of {count(total)} are shown.") if shown < total else joined()
