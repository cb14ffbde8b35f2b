import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.samples_of import row
from worker.errors import ConfigError
from worker.logs import LogObserver, configure, redact
from worker.model import (
    Cause,
    Created,
    Existed,
    Exit,
    Failed,
    InDoubt,
    Outcome,
    Parked,
    Rejected,
    Retry,
    Settlement,
)

LEVELS = ["debug", "info", "warning", "error"]
LOG = Path("run.log")


@pytest.fixture(autouse=True)
def _log_of_its_own() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def say_everything(**fields: Any) -> None:
    """Log one event of each level."""
    log = structlog.get_logger()
    for level in LEVELS:
        getattr(log, level)(f"{level}.said", **fields)


def shown(text: str) -> list[str]:
    """Return the levels that came through."""
    return [level for level in LEVELS if f"{level}.said" in text]


@contextmanager
def events() -> Iterator[list[dict[str, Any]]]:
    """Yield the list that gets the log file's events when the log is closed."""
    found: list[dict[str, Any]] = []
    stream = configure(form="auto", level="debug", file=str(LOG))
    assert stream is not None
    with stream:
        yield found
    found += map(json.loads, LOG.read_text(encoding="utf-8").splitlines())


# ---- redaction ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "private",
    [
        *("body", "record", "text", "values", "request", "media_properties", "MediaProperties"),
        *("name", "address", "proxy_address", "identity", "email", "phone"),
        *("secret", "password", "Authorization", "auth_token", "api_secret", "token"),
    ],
)
def test_what_belongs_to_people_or_opens_doors_is_redacted(private: str) -> None:
    """By name, in any case, at any depth; everything else stays."""
    event = {private: "Ada", "key": "agent:7", "deep": {"list": [{private: "Ada", "line": 3}]}}
    expected = {private: "***", "key": "agent:7", "deep": {"list": [{private: "***", "line": 3}]}}
    assert redact(None, "info", event) == expected


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_redactor_stands_before_every_renderer(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Text for people or JSON for programs, neither shows a secret."""
    configure(form=form, level="debug", file="")
    say_everything(secret="opensesame", body=b"Type=customer&Name=Ada", deep={"address": "ada@example.org"})
    said = capsys.readouterr().err
    assert shown(said) == LEVELS
    assert not [word for word in ("opensesame", "Ada", "ada@") if word in said]


# ---- levels and forms -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("form", "quiet", "least"),
    [("text", False, "debug"), ("json", False, "debug"), ("auto", False, "warning"), ("auto", True, "error"),
     ("text", True, "error"), ("json", True, "error")],
)  # fmt: skip
def test_stderr_shows_what_is_asked_for_and_no_less_than_a_person_needs(
    level: str, form: str, least: str, capsys: pytest.CaptureFixture[str], *, quiet: bool
) -> None:
    """A person sees the display already, so by default only warnings; quiet leaves errors."""
    assert configure(form=form, level=level, file="", quiet=quiet) is None
    say_everything()
    captured = capsys.readouterr()
    assert shown(captured.err) == LEVELS[max(LEVELS.index(level), LEVELS.index(least)) :]
    assert captured.out == ""


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("quiet", [False, True])
def test_a_file_gets_its_level_as_json_whatever_is_quiet(
    level: str, capsys: pytest.CaptureFixture[str], *, quiet: bool
) -> None:
    """One object a line, appended; nothing of it on stderr."""
    LOG.write_text('{"event": "earlier"}\n', encoding="utf-8")
    stream = configure(form="auto", level=level, file=str(LOG), quiet=quiet)
    assert stream is not None
    with stream:
        say_everything(reason="Zoë")
        written = [json.loads(line) for line in LOG.read_text(encoding="utf-8").splitlines()]  # flushed by the line
    assert written[0] == {"event": "earlier"}
    assert [event["level"] for event in written[1:]] == LEVELS[LEVELS.index(level) :]
    assert {event["reason"] for event in written[1:]} == {"Zoë"}
    assert all(event["timestamp"].endswith("Z") for event in written[1:])
    assert capsys.readouterr().err == ""


def test_a_file_can_have_text() -> None:
    """When a person reads it."""
    stream = configure(form="text", level="info", file=str(LOG))
    assert stream is not None
    with stream:
        say_everything()
    lines = LOG.read_text(encoding="utf-8").splitlines()
    assert shown("\n".join(lines)) == LEVELS[1:]
    assert not [line for line in lines if line.startswith("{")]


def test_a_file_that_cannot_be_opened_names_its_key(tmp_path: Path) -> None:
    """Before anything is sent."""
    with pytest.raises(ConfigError, match=r"^log\.file: .*absent.*: cannot be opened: No such file"):
        configure(form="auto", level="info", file=str(tmp_path / "absent" / "run.log"))


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_is_written_without_a_warning(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A bug's traceback reaches the log in either form, without values of its variables or what its error quotes."""
    configure(form=form, level="info", file="")
    person = "ada@example.org"
    try:
        try:
            {"somebody": 1}[person]
        except KeyError as exc:
            raise ExceptionGroup(person, [ValueError(person)]) from exc
    except ExceptionGroup:
        structlog.get_logger().exception("run.failed")
    said = capsys.readouterr().err
    assert all(name in said for name in ("KeyError", "ExceptionGroup", "ValueError", "test_logs.py", "member 1 of 1"))
    assert person not in said


# ---- what a pipeline tells ------------------------------------------------------------------------------------------

ROW = row(1)
SETTLED: list[tuple[Outcome, str | None]] = [
    (Created("UT"), None),
    (Existed("50433", "is a member"), "debug"),
    (Rejected("20001", "is bad"), "debug"),
    (Parked("45354", "is closed"), "debug"),
    (Failed("not_sent", "not sent"), "warning"),
    (InDoubt("lost", "may exist"), "warning"),
]


@pytest.mark.parametrize(("outcome", "level"), SETTLED)
def test_a_row_that_was_simply_created_is_not_logged_and_a_doubt_is(outcome: Outcome, level: str | None) -> None:
    """A million good rows leave no lines; whatever may need a person is a warning that finds its row."""
    with events() as found:
        LogObserver(3).row_settled(ROW, Settlement(ROW.key, outcome, 200, 1, "RQ1"))
    expected = {
        "run": 3,
        "key": ROW.key,
        "line": ROW.line,
        "channel": ROW.channel_sid,
        "code": getattr(outcome, "code", None),
        "reason": getattr(outcome, "reason", None),
        "request_id": "RQ1",
        "event": "row.settled",
        "level": level,
    }
    assert [event.items() >= expected.items() for event in found] == ([True] if level else [])


def test_a_retry_is_for_debugging_and_a_stop_is_a_warning() -> None:
    """With why, which attempt and how long; with the exit code to come."""
    with events() as found:
        observer = LogObserver(3)
        retry = Retry("429", "too many", throttled=True)
        observer.retry_scheduled(ROW, retry, attempt=2, seconds=1.5, request_id="RQ7")
        observer.run_stopping(Cause(Exit.STOPPED, "stopped as asked"))
    names = ("event", "level", "run", "code", "reason", "attempt", "seconds", "request_id", "exit_code")
    assert [tuple(event.get(name) for name in names) for event in found] == [
        ("retry.scheduled", "debug", 3, "429", "too many", 2, 1.5, "RQ7", None),
        ("run.stopping", "warning", 3, None, "stopped as asked", None, None, None, 6),
    ]


def test_nothing_of_a_record_is_in_the_log() -> None:
    """Neither its text nor its body, whatever becomes of it."""
    personal = ROW._replace(body=b"MediaProperties=Ada", text="Ada Lovelace,ada@example.org\n")
    with events():
        observer = LogObserver(3)
        observer.retry_scheduled(personal, Retry("429", "too many"), attempt=1, seconds=1, request_id=None)
        for outcome, _level in SETTLED:
            observer.row_settled(personal, Settlement(ROW.key, outcome))
    assert "Ada" not in LOG.read_text(encoding="utf-8")
    assert "ada@" not in LOG.read_text(encoding="utf-8")
