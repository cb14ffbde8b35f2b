"""What happens to a run: its account, how it ends, what changes about its limits. Pure values, no IO."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from worker.model.row import NOT_SENT, Outcome, state_of
from worker.state import Exit, State


@dataclass(slots=True)
class Tally:
    """Where every input row went, in rows; below the line, what it took.

    input_rows is None when the input cannot be counted first (stdin). last_request, last_throttled: when the last
    request left and when the last 429 came, in seconds since 1970. settled: rows that this run brought to a state, as
    the ledger counts them. earlier: those among them that were left over from earlier runs, and not read by this one.
    """

    input_rows: int | None = None
    read: int = 0
    created: int = 0
    existed: int = 0
    already_done: int = 0
    closed: int = 0
    duplicate: int = 0
    rejected: int = 0
    parked: int = 0
    waived: int = 0
    failed: int = 0
    in_doubt: int = 0
    not_sent: int = 0

    changed: int = 0
    repaired: int = 0
    warned: int = 0
    requests: int = 0
    retries: int = 0
    throttled: int = 0
    in_flight: int = 0
    last_request: float | None = None
    last_throttled: float | None = None
    settled: dict[State, int] = field(default_factory=dict)
    earlier: dict[State, int] = field(default_factory=dict)

    @property
    def unread(self) -> int:
        """Rows of the input that this run did not read."""
        return 0 if self.input_rows is None else self.input_rows - self.read

    @property
    def accounted(self) -> int:
        """Rows that were read and have a place in the account."""
        return sum(getattr(self, name) for name in BUCKETS)

    def settle(self, outcome: Outcome, *, of_input: bool = True) -> None:
        """Count a row that this run brought to an outcome; one that was stopped before it left is not sent.

        of_input: whether the row is one of the input's; rows that were left over from earlier runs are counted aside.
        """
        self._count(outcome, 1, of_input=of_input)

    def add(self, bucket: str, rows: int = 1) -> None:
        """Count rows of the input in a bucket."""
        setattr(self, bucket, getattr(self, bucket) + rows)

    def meet(self, state: State, rows: int = 1) -> None:
        """Count rows of the input that this run had already brought to a state, before it read them: they are one."""
        self.add(state.value, rows)
        self._leave_over(state, -rows)

    def remain_in_doubt(self, rows: int) -> None:
        """Count rows that earlier runs left in doubt and that stay so; this run brought them to no state."""
        if rows:
            self.earlier[State.IN_DOUBT] = self.earlier.get(State.IN_DOUBT, 0) + rows

    def unsettle(self, outcome: Outcome, *, of_input: bool = True) -> None:
        """Take back what `settle` counted: the row goes on to another outcome."""
        self._count(outcome, -1, of_input=of_input)

    def _count(self, outcome: Outcome, by: int, *, of_input: bool) -> None:
        state = state_of(outcome)
        self.settled[state] = self.settled.get(state, 0) + by
        if not self.settled[state]:
            del self.settled[state]
        if of_input:
            self.add("not_sent" if outcome == NOT_SENT else state.value, by)
        else:
            self._leave_over(state, by)

    def _leave_over(self, state: State, by: int) -> None:
        self.earlier[state] = self.earlier.get(state, 0) + by
        if not self.earlier[state]:  # until its own row is counted, which may be later, one is below 0
            del self.earlier[state]

    def holds(self) -> bool:
        """Tell whether input = the sum of all outcomes + unread."""
        return self.read == self.accounted and self.unread >= 0


BUCKETS = (
    "created",
    "existed",
    "already_done",
    "closed",
    "duplicate",
    "rejected",
    "parked",
    "waived",
    "failed",
    "in_doubt",
    "not_sent",
)
"""The outcomes of the identity, in the order in which they are shown; `unread` completes them."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a run ends before its input does. reason: a sentence for people."""

    exit: Exit
    reason: str


@dataclass(frozen=True, slots=True)
class Change:
    """Something about a run's limits that people want to know. event: its name in the log; facts: its fields there."""

    event: str
    sentence: str
    facts: Mapping[str, float | int | str]


class Sample(NamedTuple):
    """How the run is doing. Counters since its beginning; rate: its limit in requests a second, None without one.

    slots: requests at once, at most. p50, p90, p99: how long the answers since the sample before took, in milliseconds;
    None when there were none. accounted: of its input_rows, how many were dealt with; None where that is not known.
    """

    settled: int
    created: int
    requests: int
    retries: int
    throttled: int
    in_flight: int
    rate: float | None
    slots: int
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    accounted: int | None = None
    input_rows: int | None = None
