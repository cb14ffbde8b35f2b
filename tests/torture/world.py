"""The world of one phase: rows to import, a service with every fault, and what is true of a row whatever happens."""

import csv
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.samples_of import sid
from worker.emulator import (
    FAULTS,
    PRESUPPOSES_MAKING,
    UNDECIDABLE,
    Behaviour,
    Call,
    Condition,
    Echo,
    Emulator,
    ErrorShape,
    Fault,
)

TYPES = ("agent", "customer", "supervisor", "external", "unknown")
ROWS_A_CHANNEL = 5
CLOSED = (Condition.CLOSED, Condition.FULL, Condition.MISSING)
"""What the last channels of a world are: their rows must not be made."""

CROWD = 1_100
"""Foreign participants of one channel: more than a page of its list holds."""

RARE = 0.25
"""How often a fault that no client can see through happens, compared with any other."""

LISTS_CLOSED = 0.5
"""How often lists show those that were closed."""

GONE = (None, 20404, 45310, 45362)
"""What closing a participant again may be answered with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How large a phase is, and how fast its time passes; in rows, channels, requests a second and seconds.

    outage: what `stop.outage_seconds` is while the service is down. faults, list_faults, update_faults: the share of
    creates, lists and updates that meet one. spared: those that happen to nobody.
    """

    rows: int
    concurrency: int = 16
    rate: float = 50.0
    latency: float = 0.15
    settle: float = 3.0
    read_timeout: float = 1.0
    hang: float = 1.5
    late: float = 0.5
    list_lag: float = 0.3
    outage: float = 3.0
    faults: float = 0.18
    list_faults: float = 0.08
    update_faults: float = 0.3
    spared: frozenset[Fault] = frozenset()

    @property
    def channels(self) -> int:
        """How many channels the rows are spread over."""
        return max(len(CLOSED) + 1, self.rows // ROWS_A_CHANNEL)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One row of the input. open: whether its channel takes participants."""

    key: str
    address: str
    channel_sid: str
    type: str
    routing: dict[str, str] | None
    open: bool


def unkindness(creates: float, lists: float, updates: float, spared: frozenset[Fault]) -> dict[str, Any]:
    """Return settings of a service in which so large a share of its calls meets a fault, each kind as often."""
    shares = {
        Call.CREATE: (creates, ("faults_before", "faults_after", "faults_late")),
        Call.LIST: (lists, ("list_faults",)),
        Call.UPDATE: (updates, ("update_faults_before", "update_faults_after")),
    }
    settings: dict[str, dict[Fault, float]] = {}
    for call, (share, names) in shares.items():
        weights = {
            (name, fault): RARE if fault in UNDECIDABLE else 1.0
            for name in names
            for fault in FAULTS[call]
            if fault not in spared and not (name.endswith("before") and fault in PRESUPPOSES_MAKING)
        }
        for (name, fault), weight in weights.items():
            settings.setdefault(name, {})[fault] = share * weight / sum(weights.values())
    return settings


class World:
    """The rows, the service and the settings of one phase, all from one seed."""

    def __init__(self, scale: Scale, seed: int) -> None:
        self.scale = scale
        self.dice = random.Random(seed)
        self.wanted = [self._want(number) for number in range(scale.rows)]
        self.dice.shuffle(self.wanted)
        self.emulator = Emulator(self._behaviour(), seed=seed)
        self._people()

    def _want(self, number: int) -> Wanted:
        channel = number % self.scale.channels
        kind = self.dice.choice(TYPES)
        routing = {"task_sid": sid("WT", number), "worker_sid": sid("WK", number)} if self.dice.random() < 0.3 else None
        is_open = channel < self.scale.channels - len(CLOSED)
        return Wanted(f"row:{number}", f"p{number}@example.com", sid("UO", channel), kind, routing, is_open)

    def _behaviour(self) -> Behaviour:
        scale = self.scale
        return Behaviour(
            latency_seconds=scale.latency,
            latency_jitter_seconds=2 * scale.latency,
            hang_seconds=scale.hang,
            list_lag_seconds=scale.list_lag,
            late_seconds=scale.late,
            rate_per_second=scale.rate - 2,  # a little less than what the import keeps to: some meet a 429
            concurrency=scale.concurrency - 2,
            **unkindness(scale.faults, scale.list_faults, scale.update_faults, scale.spared),
        )

    def _people(self) -> None:
        """Put others into some channels, and close a few."""
        emulator, dice, channels = self.emulator, self.dice, self.scale.channels
        for channel in range(channels):
            for _ in range(dice.choice((0, 0, 0, 0, 1, 3))):
                routing = {"task_sid": sid("WT", f"foreign{channel}")} if dice.random() < 0.5 else None
                emulator.add_foreign(sid("UO", channel), type=dice.choice(TYPES), routing_properties=routing)
        for _ in range(CROWD):
            emulator.add_foreign(sid("UO", 0), type=dice.choice(TYPES))
        for channel, condition in zip(range(channels - len(CLOSED), channels), CLOSED, strict=True):
            emulator.declare(sid("UO", channel), condition)

    def shift(self) -> None:
        """Let the service answer in another of the ways that the API leaves open."""
        dice = self.dice
        self.emulator.change(
            echo_routing=dice.choice(list(Echo)),
            error_shape=dice.choice(list(ErrorShape)),
            created_status=dice.choice((200, 201)),
            closed_again_code=dice.choice(GONE),
            lists_closed=dice.random() < LISTS_CLOSED,
        )

    def hasten(self) -> None:
        """Let the service be quick and without limits; its faults stay."""
        self.emulator.change(latency_seconds=0.01, latency_jitter_seconds=0.02, rate_per_second=None, concurrency=None)

    def write(self, folder: Path, base_url: str) -> None:
        """Write the input and the settings of an import into a new folder."""
        folder.mkdir()
        channels = {sid("UO", channel): sid("KD", channel) for channel in range(self.scale.channels)}
        with (folder / "in.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("id", "interaction_sid", "channel_sid", "type", "media_properties", "routing_properties"))
            for one in self.wanted:
                identity = "identity" if one.type == "agent" else "address"
                routing = json.dumps(one.routing) if one.routing else ""
                media = json.dumps({identity: one.address})
                where = (channels[one.channel_sid], one.channel_sid)
                writer.writerow((one.key.removeprefix("row:"), *where, one.type, media, routing))
        scale = self.scale
        sections: dict[str, dict[str, Any]] = {
            "api": {"base_url": base_url, "read_timeout_seconds": scale.read_timeout},
            "limits": {
                "rate_per_second": scale.rate,
                "list_rate_per_second": "inf",
                "concurrency": scale.concurrency,
            },
            "retry": {"initial_seconds": 0.05, "max_seconds": 1.0},
            "doubt": {"baseline": True, "settle_seconds": scale.settle},
            "source": {"key": "row:{id}"},
        }
        lines = [
            line
            for section, values in sections.items()
            for line in (f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items()))
        ]
        (folder / "config.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
