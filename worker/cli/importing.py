"""`run`, `retry` and `reconcile`: from words to a job, and from its account to an exit code."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import structlog
from yarl import URL

from worker.api import Api
from worker.cli.looping import run_loop
from worker.cli.parameter import Window
from worker.cli.repairing import find_rows
from worker.cli.running import Job, run_job
from worker.cli.telling import tell
from worker.cli.windowing import hours_of
from worker.cli.wiring import LedgerChoice, credentials_for, open_lookups, spare_collector
from worker.config import Config, is_loopback
from worker.credentials import Credentials
from worker.descriptor import allow
from worker.errors import WorkerError
from worker.ledger import Why
from worker.logs import configure
from worker.model import Exit, State
from worker.report import as_json, as_text
from worker.rules import asked, assign
from worker.stopping import ignore_requests

SWITCH_SECONDS = 0.0005
"""How long the reader's thread may keep the interpreter from the event loop; Python's own 5 ms makes timers late."""


def run_files(
    files: Sequence[str],
    config: Config,
    choice: LedgerChoice,
    window: Window,
    *,
    profile: str | None,
    limit: int | None,
    quiet: bool,
    json_wanted: bool,
) -> int:
    """Import files and print the account; returns the exit code. profile: the one for all of them.

    Raises WorkerError for what stops it before anything is sent.
    """
    settings = config.settings
    credentials = credentials_for(config)
    with open_lookups(config) as lookups:
        inputs = assign(find_rows(files, quiet=quiet or json_wanted), settings, lookups.tables, profile)
        lookups.load(asked(inputs))
        job = Job(
            "run",
            config,
            credentials,
            choice,
            inputs,
            limit,
            earlier=(State.FAILED,),
            resend=True,
            hours=hours_of(settings.limits, window),
            quiet=quiet,
            json_wanted=json_wanted,
        )
        return _carry_out(job)


def work_on_ledger(
    command: str,
    config: Config,
    states: Sequence[State],
    window: Window,
    *,
    why: Why | None = None,
    also: Sequence[Why] = (),
    quiet: bool,
    json_wanted: bool,
) -> int:
    """Resolve the rows in doubt of a ledger, and send those in some states again; returns the exit code.

    states: none means that nothing is sent. why: only rows of this cluster are. also: rejected rows with
    these reasons are, too. Raises WorkerError for what stops it
    before that.
    """
    job = Job(
        command,
        config,
        credentials_for(config),
        None,
        (),
        None,
        earlier=states,
        resend=bool(states),
        hours=hours_of(config.settings.limits, window),
        quiet=quiet,
        json_wanted=json_wanted,
        why=why,
        also=also,
    )
    return _carry_out(job)


def _carry_out(job: Job) -> int:
    api = api_of(job.config, job.credentials)
    with logged(job.config, quiet=job.quiet):
        sys.setswitchinterval(SWITCH_SECONDS)
        spare_collector()
        ignore_requests()
        account = run_loop(run_job, job, api)
    code = account.exit_code
    if job.json_wanted:
        tell(json.dumps(as_json(account)))
    elif not job.quiet or code is not Exit.DONE:
        tell(as_text(account))
    return code


@contextmanager
def logged(config: Config, *, quiet: bool) -> Iterator[None]:
    """Set the log up for a command that sends. What breaks it is in the log's file, too."""
    settings = config.settings.log
    file = str(config.beside(settings.file)) if settings.file else ""
    log = configure(form=settings.format, level=settings.level, file=file, quiet=quiet)
    try:
        yield
    except Exception as exc:
        if log and not isinstance(exc, WorkerError):
            structlog.get_logger().critical("run.failed", exc_info=True)
        raise
    finally:
        if log:
            with suppress(OSError):
                log.close()


def api_of(config: Config, credentials: Credentials) -> Api:
    """Return the API of this import; what its settings cannot be shows here, before anything is made.

    Raises ConfigError.
    """
    settings = config.settings
    allow(settings.limits.concurrency)
    return Api(
        settings.api.url,
        credentials.user,
        credentials.secret.get_secret_value(),
        concurrency=settings.limits.concurrency,
        connect_timeout=settings.api.connect_timeout_seconds,
        read_timeout=settings.api.read_timeout_seconds,
        ca_bundle=str(config.beside(settings.api.ca_bundle)) if settings.api.ca_bundle else "",
        proxy=settings.api.proxy,
        trust_environment=not is_loopback(URL(settings.api.url).host or ""),
    )
