"""How the emulated service behaves: every setting in one value that can be swapped while it runs."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from types import NoneType
from typing import Any, Final, get_args

from worker.emulator.fault import Answer, Call, ErrorShape, Fault, Scripted, When, forbid_before, forbid_for


class Echo(StrEnum):
    """How `routing_properties` come back: the API leaves it open, so a client must be right with each [infer]."""

    AS_SENT = "as_sent"
    NULL = "null"
    EXTENDED = "extended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """The settings of the emulated service. The default is a kind and instant one without limits.

    Probabilities are between 0 and 1, per create (or list) request; at most one fault happens to a request.
    Raises ValueError for what cannot be, naming the setting.
    """

    # Time. The latency passes before the participant is made, so a client that gives up does not stop it.
    latency_seconds: float = 0.0
    latency_jitter_seconds: float = 0.0  # up to so much more, evenly spread
    hang_seconds: float = 60.0
    list_lag_seconds: float = 0.0  # from the making to the first list that shows it
    late_seconds: float | None = None  # from the client's going to the making; None: as if it had stayed

    # Limits. 20 a second per endpoint and an unpublished concurrency are what Twilio documents [docs].
    rate_per_second: float | None = None
    list_rate_per_second: float | None = None
    concurrency: int | None = None
    retry_after_seconds: float | None = None  # None: 429 without Retry-After, as documented [docs]
    participants_per_channel: int | None = None

    # Answers.
    created_status: int = 201  # 201 [card], 200 [spec]
    error_shape: ErrorShape = ErrorShape.CLASSIC
    echo_routing: Echo = Echo.AS_SENT
    refuse_members: bool = False  # 50433 for an address or identity that is in the channel; the API may well duplicate
    refusals: Mapping[Call, Answer] = field(default_factory=dict)  # calls that are never served, such as a list
    lists_closed: bool = True  # whether lists show those that were closed [infer]
    closed_again_code: int | None = None  # closing what is closed: 20404, 45310 or 45362; None: as the first time

    # Outages: every call of a kind is answered with this status (429, 500 or 503), and nothing is done.
    create_outage: int | None = None
    list_outage: int | None = None
    update_outage: int | None = None
    outage_seconds: float | None = None  # from the last change of an outage's setting; None: for ever

    # Faults.
    faults_before: Mapping[Fault, float] = field(default_factory=dict)
    faults_after: Mapping[Fault, float] = field(default_factory=dict)
    faults_late: Mapping[Fault, float] = field(default_factory=dict)
    list_faults: Mapping[Fault, float] = field(default_factory=dict)
    update_faults_before: Mapping[Fault, float] = field(default_factory=dict)  # nothing is closed
    update_faults_after: Mapping[Fault, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            if isinstance(value, int | float) and value < 0:
                raise ValueError(f"{setting.name} is {value}, but it cannot be negative")
        if self.created_status not in _CREATED:
            raise ValueError(f"created_status is {self.created_status}, but the API answers 201 or 200")
        if self.closed_again_code not in _GONE:
            raise ValueError(
                f"closed_again_code is {self.closed_again_code}, but it must be one of {_GONE[1:]} or None"
            )
        for name, status in (
            ("create", self.create_outage),
            ("list", self.list_outage),
            ("update", self.update_outage),
        ):
            if status not in _OUTAGES:
                raise ValueError(f"{name}_outage is {status}, but it must be one of {_OUTAGES[1:]} or None")
        for fault in (*self.faults_before, *self.update_faults_before):
            forbid_before(fault)
        for name, call, odds in (
            ("faults_before, faults_after and faults_late", Call.CREATE, self.create_odds),
            ("list_faults", Call.LIST, self.list_odds),
            ("update_faults_before and update_faults_after", Call.UPDATE, self.update_odds),
        ):
            _check_odds(name, *odds.values())
            forbid_for(call, *(one.what for one in odds if isinstance(one.what, Fault)))

    @property
    def create_odds(self) -> dict[Scripted, float]:
        """The probability of everything that may happen to a create."""
        return _odds({When.BEFORE: self.faults_before, When.AFTER: self.faults_after, When.LATE: self.faults_late})

    @property
    def list_odds(self) -> dict[Scripted, float]:
        """The probability of everything that may happen to a list."""
        return _odds({When.AFTER: self.list_faults})

    @property
    def update_odds(self) -> dict[Scripted, float]:
        """The probability of everything that may happen to an update."""
        return _odds({When.BEFORE: self.update_faults_before, When.AFTER: self.update_faults_after})

    @property
    def outages(self) -> tuple[int | None, int | None, int | None, float | None]:
        """Return the settings of outages: while they stay the same, the time of an outage goes on."""
        return self.create_outage, self.list_outage, self.update_outage, self.outage_seconds


def _odds(by_moment: Mapping[When, Mapping[Fault, float]]) -> dict[Scripted, float]:
    return {
        Scripted(what=fault, when=when): odds for when, faults in by_moment.items() for fault, odds in faults.items()
    }


_CREATED: Final = (200, 201)
_GONE: Final = (None, 20404, 45310, 45362)
_OUTAGES: Final = (None, 429, 500, 503)

PLAIN: Final = {
    setting.name: kinds
    for setting in fields(Behaviour)
    if (kinds := frozenset(get_args(setting.type) or (setting.type,))) <= {int, float, NoneType}
}
"""The settings that are a number, or null where that means none, and the types that each may have."""


def read_settings(document: bytes) -> dict[str, float | None]:
    """Read plain settings from a JSON object. Raises ValueError for what is none, with a sentence for people."""
    try:
        found = json.loads(document)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError("the settings must be a JSON object")  # noqa: TRY004 - the asker's document, not our argument
    for name, value in found.items():
        _check_plain(name, value)
    return found


def _check_plain(name: str, value: Any) -> None:
    kinds = PLAIN.get(name)
    if kinds is None:
        raise ValueError(f"{name} is no setting that can be changed here; those are {', '.join(PLAIN)}")
    if value is None and NoneType in kinds:
        return
    if type(value) not in {int, float} or not abs(value) <= sys.float_info.max:  # NaN is none either
        raise ValueError(f"{name} must be a number{' or null' if NoneType in kinds else ''}")
    if type(value) is float and float not in kinds:
        raise ValueError(f"{name} must be a whole number")


def _check_odds(names: str, *odds: float) -> None:
    if any(not 0 <= one <= 1 for one in odds) or sum(odds) > 1 + 1e-9:
        raise ValueError(f"the probabilities in {names} must be between 0 and 1 and together at most 1")
