"""What `check --show` prints: the requests of the first rows, as a run would send them, with their values."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qsl

from worker.model import Row

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


@dataclass(frozen=True, slots=True)
class Preview:
    """One row that would be sent. source: how its input is called."""

    source: str
    row: Row

    @property
    def form(self) -> dict[str, str]:
        """The form's fields as the service reads them, the JSON ones as the text that is sent."""
        return dict(parse_qsl(self.row.body.decode("ascii"), keep_blank_values=True, strict_parsing=True))

    def as_object(self) -> dict[str, object]:
        """Return it for `--json`."""
        row = self.row
        where = {"source": self.source, "line": row.line, "key": row.key}
        return {**where, "method": "POST", "path": row.path, "form": self.form}

    def as_text(self) -> str:
        """Return it for a person."""
        row = self.row
        key = row.key.replace("\n", "\\n")  # data must not look like lines of ours
        lines = [f"{self.source}:{row.line}  {key}", f"  POST {row.path}"]
        for name, text in self.form.items():
            whole = f"  {name}: {indented(text) if text.startswith('{') else text}"
            lines.append(whole.replace("\n", "\n  "))
        return "\n".join(lines)


def written(previews: Iterable[Preview]) -> str:
    """Return all of them for a person, with an empty line after each."""
    return "".join(f"{preview.as_text()}\n\n" for preview in previews)


def indented(text: str) -> str:
    """Return a JSON text on lines of its own, its strings and numbers written as they are: it is what is sent."""
    depth, before = 0, ""
    parts: list[str] = []
    for token in _TOKEN.findall(text):
        closes = token in {"}", "]"}
        depth -= closes
        if (before in {"{", "["}) is not closes or before == ",":  # an empty one stays on its line
            parts.append("\n" + "  " * depth)
        elif before == ":":
            parts.append(" ")
        parts.append(token)
        depth += token in {"{", "["}
        before = token
    return "".join(parts)
