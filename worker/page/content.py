"""What a report is about, as plain values: whoever reads ledgers fills it in, the page shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo


@dataclass(frozen=True, slots=True)
class Sample:
    """How a run stood at one moment. Counters since the run's start: created, settled, requests, retries, throttled.

    at: seconds since 1970. in_flight and slots: requests at once, and how many may be. rate_limit: requests a second,
    infinite when there is none. p50_ms and so on: latencies of the answers since the sample before, None without any.
    """

    at: float
    created: int
    settled: int
    requests: int
    retries: int
    throttled: int
    in_flight: int
    rate_limit: float
    slots: int
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class RunLine:
    """A run. started_at, ended_at: seconds since 1970; ended_at and exit_code are None while it goes on, or was killed.

    bad: rows rejected, parked or failed.
    """

    number: int
    command: str
    started_at: float
    ended_at: float | None
    exit_code: int | None
    reason: str
    requests: int
    created: int
    bad: int
    in_doubt: int
    rows_per_second: float
    samples: Sequence[Sample]


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that need something for one reason; its values are masked already."""

    short: str
    rows: int
    state: str
    why: str
    advice: str
    where: str


@dataclass(frozen=True, slots=True)
class Doubt:
    """A row that may exist. place: its input and line. candidates: sids that may be its participant."""

    key: str
    place: str
    channel: str
    reason: str
    candidates: Sequence[str]


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decided about a row. at: seconds since 1970. detail: a sid, or a reason."""

    at: float
    by: str
    key: str
    decision: str
    detail: str


@dataclass(frozen=True, slots=True)
class Content:
    """All that a report says.

    made_at: seconds since 1970. zone: in which times are told. counts: state → rows of the ledger, over all runs.
    last_account: bucket → rows of the last run's input, with `read`, `unread` and `input_rows`; None before the first
    run has ended. identity_holds: what that run said about it. doubts, decisions: the first few of so many in total.
    settings: key and value of the configuration, without secrets.
    """

    ledger: str
    target: str
    account: str
    version: str
    made_at: float
    zone: tzinfo
    counts: Mapping[str, int]
    last_account: Mapping[str, int] | None
    identity_holds: bool | None
    runs: Sequence[RunLine]
    groups: Sequence[Group]
    doubts_total: int
    doubts: Sequence[Doubt]
    decisions_total: int
    decisions: Sequence[Decision]
    settings: Sequence[tuple[str, str]]
