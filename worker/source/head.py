"""A first look at an input: files that hold no text, and text that is not the CSV or NDJSON that it is read as."""

import re
from typing import Literal

_STRANGERS: dict[bytes, str] = {
    b"PK\x03\x04": "is an Excel workbook or another zip archive, not text: save its sheet as CSV, or unpack it",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "is an old Excel workbook, not text: save its sheet as CSV",
    b"%PDF-": "is a PDF, not text: get the table as CSV",
    b"PAR1": "is a Parquet file, not text: write it as CSV or NDJSON",
    b"SQLite format 3\0": "is a SQLite database, not text: write its table as CSV",
}

# An array of objects, or the beginning of one; an array of anything else is a record that is no object.
_ARRAY = re.compile(r"\s*\[\s*(?:\{|$)")
_UNCLOSED = re.compile(r"\s*\{(?:.*[\[{])?\s*$")
_JSON = re.compile(r'\s*\{\s*"|\s*\[\s*\{')
_EXCEL_MARK = re.compile(r'"?sep=.?"?\s*$', re.IGNORECASE)


def stranger(head: bytes) -> str | None:
    """Return what a file is that holds no text, and what to do, to follow its name; None for what may be text."""
    return next((what for magic, what in _STRANGERS.items() if head.startswith(magic)), None)


def begins_json(first: str) -> bool:
    """Tell whether the first line that is not blank begins a JSON object, or an array of them."""
    return first.lstrip().startswith("{") or _ARRAY.match(first) is not None


def misread(first: str, format_: Literal["csv", "ndjson"], *, told: bool) -> str | None:
    """Return what the first line that is not blank is instead, and what to do; None when it fits the format.

    told: the format is from the settings, not from the file's name.
    """
    if format_ == "csv":
        if _EXCEL_MARK.match(first):
            return "tells Excel the delimiter and is no header; remove this line"
        if _JSON.match(first) and not told:
            return 'is JSON, and read as CSV because of the file\'s name; set source.format = "ndjson"'
    elif _ARRAY.match(first):
        return "is the beginning of a JSON array; write each of its objects on a line of its own, as jq -c '.[]' does"
    elif _UNCLOSED.match(first):
        return "is a JSON object of several lines; write each object on a line of its own, as jq -c . does"
    return None
