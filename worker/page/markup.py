"""HTML and SVG that cannot be broken by what stands in it: whatever is not markup is made visible, cut and escaped."""

from html import escape

_LONGEST = 300
"""Characters of one text that are shown: a page is read by people, and mailed."""

_EMPTY = frozenset({"circle", "link", "meta", "path", "rect"})
"""Elements that are closed where they open; any other may be empty by chance."""


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def visible(text: str, longest: int = _LONGEST) -> str:
    """Return a text without what steers: control characters, bidi overrides and the like are written as escapes."""
    signs = (sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text[: longest + 1])
    seen = "".join(signs)
    return seen if len(seen) <= longest else f"{seen[: longest - 1]}…"


def tag(name: str, /, *children: str, **attributes: str | float) -> Html:
    """Return an element. Children that are no markup are text; a name's underscores are hyphens, a last one is dropped.

    Of an attribute's name and an element's, the caller is sure: they come from no file.
    """
    named = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    opening = "".join([name, *(f' {key}="{escape(visible(str(value), _LONGEST**2))}"' for key, value in named)])
    return Html(f"<{opening}/>" if name in _EMPTY else f"<{opening}>{joined(*children)}</{name}>")


def joined(*children: str) -> Html:
    """Return pieces one behind the other, those that are no markup as text."""
    return Html("".join(child if isinstance(child, Html) else escape(visible(child)) for child in children))
