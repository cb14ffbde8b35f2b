"""What a check found out: rows counted by what would become of them, and grouped by what is wrong with them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from worker.cli.previewing import Preview
from worker.cli.telling import shown
from worker.cluster import cluster_id, short_ids
from worker.ledger.survey import Surveyed
from worker.model import Draft, State
from worker.payload import ready

NOT_SENT = ("already_done", "closed", "duplicate", "rejected", "parked", "waived", "in_doubt", "changed")
"""What a row that is not sent is counted as; `changed` ones are counted under another name, too."""

_EXAMPLES = 3


@dataclass(slots=True)
class Group:
    """Rows about which the same is to be said. examples: `file:line` of the first few; detail: the first one's own."""

    rows: int = 0
    examples: list[str] = field(default_factory=list)
    detail: str | None = None

    def add(self, name: str, line: int, detail: str | None = None) -> None:
        """Add a row. name: how its input is called."""
        self.rows += 1
        self.detail = self.detail or detail
        if len(self.examples) < _EXAMPLES:
            self.examples.append(f"{shown(name)}:{line}")

    def as_object(self) -> dict[str, object]:
        """Return it for `--json`."""
        return {"rows": self.rows, "examples": self.examples, "detail": self.detail}


@dataclass(slots=True)
class Findings:
    """What a check found, in rows. wanted: how many of those to send are to be shown.

    read: the number of an input → its rows. groups: code and reason → what is rejected here, not by the API. warnings:
    sentence → rows that are sent all the same.
    """

    wanted: int = 0
    send: int = 0
    read: dict[int, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    groups: dict[tuple[str, str], Group] = field(default_factory=dict)
    warnings: dict[str, Group] = field(default_factory=dict)
    previews: list[Preview] = field(default_factory=list)

    def take(self, batch: Surveyed[Draft], names: Mapping[int, str]) -> None:
        """Add a batch. names: the number of an input → how it is called."""
        self.read[batch.source] = self.read.get(batch.source, 0) + batch.read
        self.send += len(batch.send)
        for row in batch.send[: self.wanted - len(self.previews)]:
            self.previews.append(Preview(shown(names[row.source]), ready(row)))
        for name, count in batch.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
        if batch.counts.get("warned"):
            for row in batch.send:
                for warning in row.warnings:
                    self.warnings.setdefault(warning, Group()).add(names[row.source], row.line)
        for finding in batch.findings:
            if finding.kind == "rejected":
                group = self.groups.setdefault((finding.code, finding.reason), Group())
                group.add(names[finding.source], finding.line, finding.detail)

    @property
    def rejected(self) -> int:
        """Rows that a run would count as rejected."""
        return self.counts.get("rejected", 0)

    def largest_first(self) -> list[tuple[str, str, str, Group]]:
        """Return the cluster's id as people see it, code, reason and group, for everything that is rejected here."""
        ids = {one: cluster_id(State.REJECTED, *one) for one in self.groups}
        short = short_ids(ids.values())
        ordered = sorted(self.groups.items(), key=lambda item: -item[1].rows)
        return [(short[ids[one]], *one, group) for one, group in ordered]
