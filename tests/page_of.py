"""Made reports: an import of two nights, one of each kind of emptiness, and one full of what nobody should write."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from tests.samples_of import sid
from worker.page import Content, Decision, Doubt, Group, RunLine, Sample

LONDON = ZoneInfo("Europe/London")
FIRST_NIGHT = datetime(2026, 3, 2, 22, 0, tzinfo=LONDON).timestamp()
NIGHT = 8 * 3600.0
DAY = 86_400.0

HOSTILE = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "</title></style><b>",
    "&amp;&lt;",
    "\x00\x1b[31mred\x07\n\r\t",
    "\u202eevil\u202c\u2066\u2028",
    "\ud800",
    "]]>--><!--",
    "x" * 10_000,
)


def sample_of(at: float, **others: Any) -> Sample:
    """Return a sample in which nothing has happened yet."""
    made: dict[str, Any] = {
        **dict.fromkeys(("created", "settled", "requests", "retries", "throttled", "in_flight"), 0),
        "at": at,
        "rate_limit": 6.0,
        "slots": 16,
        "p50_ms": None,
        "p90_ms": None,
        "p99_ms": None,
    }
    return Sample(**(made | others))


def run_of(number: int, samples: Sequence[Sample] = (), **others: Any) -> RunLine:
    """Return a run that lasted as long as its samples."""
    started = samples[0].at - 3 if samples else FIRST_NIGHT
    made: dict[str, Any] = {
        "number": number,
        "command": "flex-import run 'export/*.csv'",
        "started_at": started,
        "ended_at": samples[-1].at if samples else started + 1,
        "exit_code": 0,
        "reason": "finished, every row is done",
        **dict.fromkeys(("requests", "created", "bad", "in_doubt"), 0),
        "rows_per_second": 0.0,
        "samples": samples,
    }
    return RunLine(**(made | others))


def content_of(**others: Any) -> Content:
    """Return what there is to say about a ledger in which there is nothing."""
    made: dict[str, Any] = {
        "ledger": "./imports.db",
        "target": "flex-api.twilio.com",
        "account": "AC…4f21",
        "version": "0.9.0",
        "made_at": FIRST_NIGHT + 2 * DAY,
        "zone": LONDON,
        "counts": {},
        "last_account": None,
        "identity_holds": None,
        "runs": (),
        "groups": (),
        "doubts_total": 0,
        "doubts": (),
        "decisions_total": 0,
        "decisions": (),
        "settings": (),
    }
    return Content(**(made | others))


def night_of(began: float, seconds: float, *, every: float, seed: int, limit: float = 6.0) -> list[Sample]:
    """Return the samples of a night: a steady rate, two storms of 429s, answers that are slow at times."""
    dice = random.Random(seed)  # noqa: S311 - keeps no secrets
    requests, retries, throttled, made = 0.0, 0, 0, list[Sample]()
    for number in range(1, int(seconds / every) + 1):
        part = number * every / seconds
        storm = 0.2 < part < 0.23 or 0.71 < part < 0.73
        rate = limit * (0.7 if storm else 1.0)
        requests += rate * every * dice.uniform(0.985, 1.0)
        refused = dice.randrange(3) if storm else int(dice.random() < 0.003)
        throttled += refused
        retries += refused + int(dice.random() < 0.02)
        half = 170 + 25 * math.sin(9 * part) + dice.uniform(-12, 12) + 240 * storm
        made.append(
            sample_of(
                began + number * every,
                created=int(requests * 0.99) - retries,
                settled=int(requests) - retries,
                requests=int(requests),
                retries=retries,
                throttled=throttled,
                in_flight=min(16, max(0, round(rate * half / 1000 + dice.uniform(0, 2)))),
                rate_limit=rate,
                p50_ms=half,
                p90_ms=half * dice.uniform(1.5, 1.9),
                p99_ms=half * dice.uniform(3, 7) * (4 if dice.random() < 0.01 else 1),
            )
        )
    return made


def two_nights() -> Content:
    """Return an import of 400,000 rows after its second night."""
    first = night_of(FIRST_NIGHT, NIGHT, every=10, seed=1)
    second = night_of(FIRST_NIGHT + DAY, NIGHT, every=10, seed=2)
    trial = [
        replace(one, requests=50 * n // 3, created=50 * n // 3, rate_limit=6.0)
        for n, one in enumerate(night_of(FIRST_NIGHT - 31_800, 9, every=3, seed=3), start=1)
    ]
    window = "06:00 has passed and the window is over; run it again to go on"
    return content_of(
        counts={"created": 342_371, "existed": 190, "rejected": 98, "parked": 342, "failed": 9, "in_doubt": 5},
        last_account={
            "input_rows": 400_000,
            "read": 346_017,
            "created": 171_385,
            "existed": 88,
            "already_done": 171_088,
            "duplicate": 352,
            "rejected": 2_748,
            "parked": 342,
            "waived": 0,
            "failed": 9,
            "in_doubt": 5,
            "not_sent": 0,
            "unread": 53_983,
        },
        identity_holds=True,
        runs=(
            run_of(
                1,
                trial,
                command="flex-import run 'export/*.csv' --limit 50",
                requests=50,
                created=50,
                rows_per_second=5.6,
            ),
            run_of(
                2,
                first,
                started_at=FIRST_NIGHT,
                exit_code=6,
                reason=window,
                requests=172_204,
                created=170_936,
                bad=1_835,
                in_doubt=5,
                rows_per_second=5.94,
                command="flex-import run 'export/*.csv' --until 06:00",
            ),
            run_of(
                3,
                second,
                started_at=FIRST_NIGHT + DAY,
                exit_code=6,
                reason=window,
                requests=172_688,
                created=171_385,
                bad=3_099,
                in_doubt=5,
                rows_per_second=5.95,
                command="flex-import run 'export/*.csv' --until 06:00",
            ),
        ),
        groups=(
            Group(
                "k3f9",
                1_904,
                "rejected",
                'address is an Excel number, as in "4.4***11"',
                "export it as text",
                "customers_1.csv:88, :91, :140",
            ),
            Group(
                "a07c",
                502,
                "rejected",
                'address has no @, as in "j***"',
                "repair it in the file",
                "customers_2.csv:17, :60, :61",
            ),
            Group(
                "d5e2",
                244,
                "rejected",
                "ConvID not in interactions.csv",
                "add it there",
                "agents.csv:4021, :4022, :5107",
            ),
            Group(
                "c418",
                342,
                "parked",
                "45354 conversation closed",
                "open it again, then: flex-import retry --cluster c418",
                "customers_1.csv:901, :902, :2210",
            ),
            Group(
                "77b0",
                98,
                "rejected",
                "20404 Twilio: no such channel",
                "correct the sids in the file",
                "customers_1.csv:3310, :3311, customers_2.csv:902",
            ),
            Group(
                "e001",
                9,
                "failed",
                "could not connect, 6 attempts",
                "nothing to do: the next run sends them",
                "customers_2.csv:88120, :88121, :88122",
            ),
            Group(
                "db70",
                5,
                "in_doubt",
                "no answer within 30 s: may exist",
                "flex-import failures --state in_doubt shows candidates",
                "customers_1.csv:5120, :77410, customers_2.csv:12",
            ),
        ),
        doubts_total=5,
        doubts=tuple(
            Doubt(
                f"cust-{n:06}",
                f"customers_{1 + n % 2}.csv:{4100 + 731 * n}",
                sid("UO", n),
                "no answer within 30 s; two of the channel's participants are unknown"
                if n % 2
                else "no answer within 30 s",
                [sid("UT", n), sid("UT", n + 50)][: 2 * (n % 2)],
            )
            for n in range(1, 6)
        ),
        decisions_total=2,
        decisions=(
            Decision(FIRST_NIGHT + 38_500, "anna@ops", "cust-000917", "created", sid("UT", 917)),
            Decision(
                FIRST_NIGHT + 38_620, "anna@ops", "cust-001204", "not_created", "asked the agent: nobody was added"
            ),
        ),
        settings=(
            *(("traffic.rate", "6/s"), ("traffic.concurrency", "16"), ("traffic.timeout_seconds", "30.0")),
            *(("traffic.adaptive", "false"), ("retry.attempts", "6"), ("retry.first_wait_seconds", "0.5")),
            *(
                ("schedule.windows", "Mon-Fri 22:00-06:00"),
                ("schedule.zone", "Europe/London"),
                ("ledger.path", "./imports.db"),
            ),
            *(("source.encoding", "auto"), ("source.delimiter", "auto"), ("source.key", "{CustomerId}")),
            *(
                ("mapping.media_properties.address", "{Phone | e164:GB}"),
                ("mapping.media_properties.name", "{First} {Last}"),
            ),
            *(
                ("doubt.baseline", "false"),
                ("log.format", "auto"),
                ("api.base_url", "https://flex-api.twilio.com"),
                ("proxy", ""),
            ),
        ),
    )


def hostile() -> Content:
    """Return a report in which every text is what nobody should write into a file."""
    text = " ".join(HOSTILE)
    return content_of(
        ledger=text,
        target=text,
        account=text,
        version=text,
        counts={text: 1, "created": 10**12},
        last_account={"input_rows": 10**15, "read": 3, text: 7},
        identity_holds=False,
        runs=(run_of(1, night_of(FIRST_NIGHT, 3600, every=10, seed=4), command=text, reason=text, requests=10**15),),
        groups=tuple(Group(bad, 10**12, bad, bad, text, text) for bad in HOSTILE),
        doubts_total=10**9,
        doubts=tuple(Doubt(bad, bad, bad, text, [bad] * 30) for bad in HOSTILE * 8),
        decisions_total=10**9,
        decisions=tuple(Decision(1e30, bad, bad, bad, text) for bad in HOSTILE * 8),
        settings=tuple((bad, bad) for bad in HOSTILE),
    )


def empty_ones() -> dict[str, Content]:
    """Return every kind of emptiness."""
    alone = sample_of(FIRST_NIGHT + 60, requests=60, in_flight=1, p50_ms=100.0)
    return {
        "no runs": content_of(),
        "no samples": content_of(runs=[run_of(1)], counts={"created": 1}),
        "one sample": content_of(runs=[run_of(1, [alone])]),
        "no limit": content_of(
            runs=[run_of(1, [alone, sample_of(FIRST_NIGHT + 120, requests=90, rate_limit=math.inf)])]
        ),
        "no rows": content_of(last_account={"input_rows": 0, "read": 0}, identity_holds=True, runs=[run_of(1)]),
        "not ended": content_of(runs=[run_of(1, [alone], ended_at=None, exit_code=None, reason="")]),
        "utc": content_of(zone=UTC, runs=[run_of(1, [alone])]),
    }
