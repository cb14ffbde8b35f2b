"""What a run says while it works: structlog events on stderr or in a file, and nothing that belongs to people.

Events carry run, key, line, channel, code. Media properties, names, addresses and secrets are never logged; a
redactor takes them out should somebody try.
"""

import logging
import os
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from typing import Any, Protocol, TextIO, cast

import structlog

from worker.errors import ConfigError
from worker.model import NOT_SENT, Cause, Change, Created, Failed, InDoubt, Retry, Row, Settlement, state_of

_PRIVATE = frozenset(
    {
        *("body", "record", "text", "values", "request", "media_properties", "mediaproperties"),
        *("name", "address", "proxy_address", "identity", "email", "phone"),
        *("secret", "password", "authorization", "auth_token", "api_secret", "token"),
    }
)


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace what belongs to people, or opens doors, by `***`, however deep it is."""
    for name, value in event.items():
        event[name] = _redacted(name, value)
    return event


def show_controls(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Make control characters visible, as JSON does by itself: data must not steer a terminal."""
    for name, value in event.items():
        if isinstance(value, str) and name != "exception":
            event[name] = "".join(one if one.isprintable() else repr(one)[1:-1] for one in value)
    return event


def _redacted(name: str, value: Any) -> Any:
    if name.lower() in _PRIVATE:
        return "***"
    if isinstance(value, Mapping):
        return {key: _redacted(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted("", inner) for inner in value]
    return value


def outline(error: BaseException) -> str:
    """Return an error's traceback, of its causes and of a group's members too, without what it says.

    An exception's text may quote what a row or an answer holds. Its kind and where it came from tell enough.
    """
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    parts = [outline(before), "", "that led to:"] if before else []
    parts += ["Traceback (most recent call last):", *"".join(traceback.format_tb(error.__traceback__)).splitlines()]
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    parts.append(f"{name} (what it says is left out: it may quote a row)")
    if isinstance(error, BaseExceptionGroup):
        for number, member in enumerate(error.exceptions, 1):
            parts.append(f"member {number} of {len(error.exceptions)}:")
            parts += [f"  {line}" for line in outline(member).splitlines()]
    return "\n".join(parts)


def configure(*, form: str, level: str, file: str, quiet: bool = False) -> TextIO | None:
    """Set the process's log up; returns the file to close, if there is one.

    form: text, json or auto: json in a file, and on stderr text that is not below warning, since a person sees the
    display and the summary already. level: the least to be shown; quiet raises it to error.
    Raises ConfigError when the file cannot be opened.
    """
    stream = None
    if file:
        try:
            stream = open(file, "a", encoding="utf-8", errors="backslashreplace", buffering=1, opener=_for_owner)  # noqa: SIM115 - the run's
        except OSError as exc:
            raise ConfigError(f"log.file: {file}: cannot be opened: {exc.strerror}") from exc
    as_json = form == "json" or (form == "auto" and bool(file))
    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=not file)  # a terminal obeys some of what is not ASCII
        if as_json
        else structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0, sort_keys=False)
    )
    lowest = logging.getLevelNamesMapping()[level.upper()]
    if not file and form == "auto":
        lowest = max(lowest, logging.WARNING)
    if not file and quiet:
        lowest = max(lowest, logging.ERROR)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact,
            structlog.processors.ExceptionRenderer(lambda found: outline(found[1])),
            *([] if as_json else [show_controls]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(lowest),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _Stream(stream))),
        cache_logger_on_first_use=False,
    )
    return stream


def _for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)  # keys may be people's


class Kept(Protocol):
    """A row whose participant could not be closed."""

    @property
    def key(self) -> str:
        """Its key."""
        ...

    @property
    def channel_sid(self) -> str:
        """Where it is."""
        ...

    @property
    def sid(self) -> str:
        """The participant's."""
        ...


class LogObserver:
    """Puts what a pipeline tells into the log. run: the number that every event carries."""

    def __init__(self, run: int) -> None:
        self._log: Any = structlog.get_logger().bind(run=run)

    def retry_scheduled(self, row: Row, retry: Retry, *, attempt: int, seconds: float, request_id: str | None) -> None:
        """Log why a row waits; throttling is routine, so it is for debugging."""
        self._log.debug(
            "retry.scheduled",
            **_where(row),
            code=retry.code,
            reason=retry.reason,
            attempt=attempt,
            seconds=seconds,
            request_id=request_id,
        )

    def row_settled(self, row: Row, settlement: Settlement) -> None:
        """Log every row that was not simply created; a doubt or a failure is a warning."""
        outcome = settlement.outcome
        if isinstance(outcome, Created):
            return
        loud = isinstance(outcome, InDoubt | Failed) and outcome != NOT_SENT
        log = self._log.warning if loud else self._log.debug
        log(
            "row.settled",
            **_where(row),
            state=state_of(outcome).value,
            code=outcome.code,
            reason=outcome.reason,
            request_id=settlement.request_id,
        )

    def row_kept(self, row: Kept, code: str, reason: str) -> None:
        """Log which row could not be undone."""
        self._log.warning("row.kept", key=row.key, channel=row.channel_sid, sid=row.sid, code=code, reason=reason)

    def doubt_resolved(self, row: Row, how: str) -> None:
        """Log what a list showed."""
        self._log.info("doubt.resolved", **_where(row), how=how)

    def doubt_undecided(self, row: Row, reason: str) -> None:
        """Log what a person has to decide."""
        self._log.warning("doubt.undecided", **_where(row), reason=reason)

    def lists_refused(self, reason: str) -> None:
        """Say loudly, and once, that doubts will wait for a person."""
        self._log.error("lists.refused", reason=reason, consequence="no baselines; rows in doubt wait for a person")

    def limits_changed(self, change: Change) -> None:
        """Log what was decided about the limits, and why."""
        self._log.info(change.event, **change.facts)

    def run_stopping(self, cause: Cause) -> None:
        """Log why a run ends early."""
        self._log.warning("run.stopping", exit_code=int(cause.exit), reason=cause.reason)


def _where(row: Row) -> dict[str, Any]:
    return {"key": row.key, "line": row.line, "channel": row.channel_sid}


class _Stream:
    """Where the log goes: a file, or stderr as it is at the moment of writing, since a display may stand before it.

    A log that cannot be written must not stop a run: a full disk is the ledger's to notice.
    """

    def __init__(self, file: TextIO | None) -> None:
        self._file = file

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError, AttributeError):
            return (self._file or sys.stderr).write(text)
        return 0

    def flush(self) -> None:
        with suppress(OSError, ValueError, AttributeError):
            (self._file or sys.stderr).flush()
