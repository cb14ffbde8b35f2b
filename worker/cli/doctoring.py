"""`doctor`: is everything there that a run needs? Local checks, and one call that changes nothing."""

import json
import os
import shutil
import statistics
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import anyio
from yarl import URL

from worker.cli.forecasting import rate_of
from worker.cli.importing import api_of
from worker.cli.loading import configure
from worker.cli.looping import run_loop
from worker.cli.telling import masked, shown, tell
from worker.cli.wiring import binding_of, credentials_for
from worker.config import Config
from worker.credentials import Credentials
from worker.descriptor import allow
from worker.errors import ConfigError, LedgerError, LedgerRefusedError
from worker.ledger.binding import TARGET_FIELDS, compare
from worker.ledger.lock import refuse_network
from worker.ledger.opening import exists, holders_of
from worker.ledger.view import View
from worker.model import Answer, Exit, Failed, Halt, NotSent, Rejected, Reply, Retry
from worker.place import Place
from worker.report import printable
from worker.schedule import Hours
from worker.timetable import Timetable
from worker.verdict import judge

_NOBODY = ("KD" + "0" * 32, "UO" + "0" * 32)
"""An interaction and a channel that do not exist: asking for their list is answered, and changes nothing."""

_ROOM_BYTES = 500_000_000
_ROW_BYTES = 1_000
_SYNCS = 5
_SLOW_COMMIT_SECONDS = 0.05
_CLOCK_SECONDS = 60.0
_COLUMNS = 80
_INDENT = 18


class Grade(StrEnum):
    """What came of a check."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at, and what to do about it if something is wrong."""

    grade: Grade
    name: str
    found: str


def examine(config_file: Path | None, ledger: Place | None, base_url: str | None, *, json_wanted: bool) -> int:
    """Look at everything and print it; returns 0, 2 when something here is missing, 3 when the service is.

    Raises ConfigError for settings that cannot be read at all.
    """
    config = configure(config_file, ledger, {"api": {"base_url": base_url}})
    file = shown(str(config.path)) if config.path else "none: the defaults, and FLEX_IMPORT__ variables"
    here = [Check(Grade.OK, "config", file)]
    credentials, found = _credentials(config)
    files = _files(config)
    here += [found, *_ledger(config, credentials), *_disk(config.ledger_path), files, _hours(config)]
    there: list[Check] = []
    if credentials is not None and files.grade is Grade.OK:
        try:
            there = run_loop(_service, config, credentials)
        except ConfigError as exc:
            here.append(Check(Grade.FAIL, "service", str(exc)))
    code = Exit.USAGE if _failed(here) else Exit.HALTED if _failed(there) else Exit.DONE
    checks = [*here, *there]
    if json_wanted:
        tell(json.dumps({"checks": [asdict(one) for one in checks], "exit_code": int(code)}))
    else:
        verdict = "ready" if code is Exit.DONE else "not ready: see what is marked FAIL"
        tell(printable("\n".join([*(line for one in checks for line in _lines(one)), "", f"exit {code:d}: {verdict}"])))
    return code


def _failed(checks: list[Check]) -> bool:
    return any(one.grade is Grade.FAIL for one in checks)


def _lines(check: Check) -> list[str]:
    start = f"{check.grade:<5} {check.name:<{_INDENT - 6}}"
    return textwrap.wrap(
        check.found, _COLUMNS, initial_indent=start, subsequent_indent=" " * _INDENT, break_on_hyphens=False
    )


# ---- here -----------------------------------------------------------------------------------------------------------


def _credentials(config: Config) -> tuple[Credentials | None, Check]:
    try:
        found = credentials_for(config)
    except ConfigError as exc:
        return None, Check(Grade.FAIL, "credentials", str(exc))
    kind = "an API key" if found.user.startswith("SK") else "the account's token"
    if found.account_sid is None:
        text = f"{kind}; set TWILIO_ACCOUNT_SID too, so that the ledger knows its account"
        return found, Check(Grade.WARN, "credentials", text)
    return found, Check(Grade.OK, "credentials", f"{kind}, {masked(found.account_sid)}")


def _ledger(config: Config, credentials: Credentials | None) -> Iterator[Check]:
    path = config.ledger_path
    name = shown(str(path))
    try:
        if isinstance(path, Path):
            refuse_network(path)
        with View(path) as view:
            created, known = view.counts().get("created", 0), view.binding()
        if credentials is not None:
            wanted = binding_of(config, credentials, ()).fields()
            wanted = {field: wanted[field] for field in TARGET_FIELDS if field in wanted}
            compare(known, wanted, created, accept_target=False, accept_new_keys=True)
        holder = ", ".join(holders_of(path))
    except LedgerRefusedError as exc:
        if exists(path):
            yield Check(Grade.FAIL, "ledger", " ".join(str(exc).split()))
        elif isinstance(path, Path) and not path.parent.is_dir():
            yield Check(Grade.FAIL, "ledger", f"{name}: its folder is not there")
        else:
            yield Check(Grade.WARN, "ledger", f"none yet at {name}: the first run makes it, with --new-ledger")
    except LedgerError as exc:
        yield Check(Grade.FAIL, "ledger", str(exc))
    else:
        at_work = f"{holder} is working on it" if holder else "nobody works on it"
        yield Check(Grade.OK, "ledger", f"{name}: {created:,} rows created, {at_work}")


def _disk(path: Place) -> Iterator[Check]:
    """Look at the disk that the ledger is on, or will be: its room, how long a commit takes. A server has its own."""
    if not isinstance(path, Path):
        return
    folder = path.resolve().parent
    try:
        free = shutil.disk_usage(folder).free
        rows = f"room for some {free // _ROW_BYTES:,} rows" if free < _ROOM_BYTES else "enough"
        grade = Grade.WARN if free < _ROOM_BYTES else Grade.OK
        yield Check(grade, "disk", f"{free / 1e9:,.1f} GB free: {rows}")
        seconds = _commit_seconds(folder)
    except OSError as exc:
        yield Check(Grade.FAIL, "disk", f"{shown(str(folder))}: cannot be written: {exc.strerror}")
        return
    slow = "; that is slow: is it a network disk?" if seconds > _SLOW_COMMIT_SECONDS else ""
    yield Check(Grade.WARN if slow else Grade.OK, "commit", f"{1000 * seconds:.1f} ms until it is on the disk{slow}")


def _commit_seconds(folder: Path) -> float:
    took = []
    with tempfile.NamedTemporaryFile(prefix=".flex-import-doctor-", dir=folder) as file:
        for _ in range(_SYNCS):
            began = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    return statistics.median(took)


def _files(config: Config) -> Check:
    """Look whether as many files may be open as there are to be connections."""
    concurrency = config.settings.limits.concurrency
    try:
        allow(concurrency)
    except ConfigError as exc:
        return Check(Grade.FAIL, "files", str(exc))
    return Check(Grade.OK, "files", f"as many may be open as {concurrency} requests at once need")


def _hours(config: Config) -> Check:
    limits = config.settings.limits
    if not limits.timetable:
        return Check(Grade.OK, "hours", f"always, {rate_of(limits.rate_per_second)} (limits.timetable has none)")
    hours = Hours(Timetable(limits.timetable, limits.timezone))
    now = datetime.now(UTC)
    zone = hours.timetable.zone
    if closed := hours.closed(now):
        return Check(Grade.WARN, "hours", f"{closed} ({zone}): a run stops at once, or waits with --wait")
    closes = hours.closes(now)
    until = f"open until {closes.astimezone(zone):%a %H:%M}" if closes else "open"
    return Check(Grade.OK, "hours", f"{until} ({zone})")


# ---- there ----------------------------------------------------------------------------------------------------------


class _AtOnce:
    """Leaves without waiting: one call is within any limit. left_at: when it did."""

    def __init__(self) -> None:
        self.left_at = 0.0

    async def ready(self) -> None:
        """Wait for nothing."""
        await anyio.lowlevel.checkpoint()

    def left(self) -> None:
        """Take the time."""
        self.left_at = time.perf_counter()


async def _service(config: Config, credentials: Credentials) -> list[Check]:
    interaction, channel = _NOBODY
    with suppress(LedgerError), View(config.ledger_path) as view:
        interaction, channel = view.a_channel() or _NOBODY
    departure = _AtOnce()
    async with api_of(config, credentials) as api:
        answer, clock = await api.probe(interaction, channel, departure)
        took = time.perf_counter() - departure.left_at
    if isinstance(answer, NotSent) and answer.misconfigured:
        raise ConfigError(answer.reason)
    host = URL(config.settings.api.url).host_port_subcomponent or ""
    reached = f"{host} answers in {1000 * took:,.0f} ms"
    checks = _judged(answer, reached, host, known=channel != _NOBODY[1])
    if clock is not None:
        off = abs(clock - time.time())
        text = f"{off:.0f} s off the service's"
        if off > _CLOCK_SECONDS:
            text += ": hours and waits go by this machine's clock; set it"
        checks.append(Check(Grade.WARN if off > _CLOCK_SECONDS else Grade.OK, "clock", text))
    return checks


def _judged(answer: Answer, reached: str, host: str, *, known: bool) -> list[Check]:
    """Return what an answer says about service, credentials and lists. known: whether the channel is one of ours."""
    if not isinstance(answer, Reply):
        what = "cannot be reached" if isinstance(answer, NotSent) else "gives no answer"
        return [Check(Grade.FAIL, "service", f"{host} {what}: {answer.reason}")]
    ok = Check(Grade.OK, "service", f"{reached}, and takes the credentials")
    if answer.status == 200:  # noqa: PLR2004 - what HTTP calls it
        return [ok, Check(Grade.OK, "lists", "allowed: rows in doubt can be resolved")]
    match judge(answer):
        case Halt(code, reason):
            return [Check(Grade.FAIL, "service", f"{reached}, but {reason} ({code})")]
        case Retry():
            return [ok, Check(Grade.WARN, "lists", "too many requests just now: ask again later")]
        case Failed(forbidden=True):
            return [ok, Check(Grade.WARN, "lists", "refused: no baselines, and rows in doubt wait for a person")]
        case Rejected(closes_channel=True):
            text = "its newest channel is gone" if known else "not tried: there is no channel of ours yet"
            return [ok, Check(Grade.OK, "lists", text)]
        case _:
            text = f"{reached}, but not as the API does (status {answer.status}): is the base URL right?"
            return [Check(Grade.FAIL, "service", text)]
