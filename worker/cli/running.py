"""One job on its ledger: the rooms wired together, what is told on the way, and the account at the end."""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from math import isfinite

import anyio
import structlog
from yarl import URL

from worker import __version__
from worker.api import Api
from worker.cli.loading import new_folder
from worker.cli.measuring import measured
from worker.cli.telling import masked, placed, say, shown
from worker.cli.wiring import LedgerChoice, obtain_ledger, open_own_ledger
from worker.cluster import Cluster
from worker.config import Config
from worker.credentials import Credentials
from worker.errors import LedgerError
from worker.intake import Intake
from worker.journal import Journal
from worker.lease import Lease
from worker.ledger import SourceFile, Why
from worker.ledger.pruning import forget_records
from worker.ledger.steering import Order, Orders
from worker.ledger.survey import Survey
from worker.ledger.tables import Tables
from worker.ledger.view import View
from worker.logs import LogObserver
from worker.metrics import Metrics, Reading
from worker.model import Cause, Change, Exit, Sample, State, Tally
from worker.pipeline import Pipeline, handed_on
from worker.place import Server
from worker.reconcile import Reconciler
from worker.report import Account, as_json, duration
from worker.rowqueue import RowQueue
from worker.rules import Ruled
from worker.sampler import keep_samples
from worker.schedule import Hours, Schedule
from worker.screen import Moment, News, as_line, show
from worker.stopping import Stop, Task, Thresholds, conduct, final_causes, heed_requests
from worker.submit import Submitter
from worker.traffic import Alone, Lane, Pace, Traffic
from worker.wording import plural

_DAY_SECONDS = 86_400
_BEAT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Job:
    """What was ordered on the command line, checked. earlier, why, also, resend: as in `Pipeline`; the last: `Crew`."""

    command: str
    config: Config
    credentials: Credentials
    choice: LedgerChoice | None
    inputs: Sequence[Ruled]
    limit: int | None
    earlier: Sequence[State]
    resend: bool
    hours: Hours
    quiet: bool
    json_wanted: bool
    why: Why | None = None
    also: Sequence[Why] = ()
    exit_when_empty: bool = False

    @property
    def silent(self) -> bool:
        """Whether nothing is said while it works."""
        return self.quiet or self.json_wanted


async def run_job(job: Job, api: Api) -> Account:
    """Count the input, open its ledger and do the job. Raises WorkerError for what stops it before anything is sent."""
    async with Intake(job.inputs, job.config.settings.source.min_rows) as intake:
        input_rows = await intake.count()
        with measured(job.config) as metrics:
            if job.choice is None:
                ledger = open_own_ledger(job.config, job.credentials)
            else:
                ledger = obtain_ledger(job.config, job.credentials, job.inputs, job.choice)
            try:
                if days := job.config.settings.ledger.keep_payload_days:
                    with ledger.transaction() as connection:
                        forget_records(connection, round((time.time() - days * _DAY_SECONDS) * 1000))
                return await Running(job, api, ledger, Tally(input_rows), metrics).send(intake)
            finally:
                ledger.close()


class Running:
    """One run on an open ledger."""

    def __init__(self, job: Job, api: Api, ledger: Tables, tally: Tally, metrics: Metrics) -> None:
        self._job = job
        self._api = api
        self._settings = job.config.settings
        self._ledger = ledger
        self._tally = tally
        self._stop = Stop()
        self._number = ledger.start_run(job.command)
        self._observer = LogObserver(self._number)
        self._news = News()
        self._traffic = Traffic(
            self._settings.limits,
            self._settings.retry,
            self._stop.draining,
            outage_seconds=self._settings.stop.outage_seconds,
            clock=asyncio.get_running_loop().time,
            on_change=self._tell_change,
            on_outage=self._give_up,
            share=self._share,
        )
        self._orders: Orders | None = None
        self._schedule = Schedule(
            job.hours,
            self._traffic,
            self._stop,
            self._new_orders,
            tell=self._tell_change,
            on_stop=self._observer.run_stopping,
            wall=time.time,
        )
        self._queue = RowQueue(self._settings.source.queue_rows)
        self._ledger_broke = False
        self._began = time.monotonic()
        self._started = time.time()
        self._metrics = metrics
        metrics.watch(self._read_off)

    def _share(self, name: str, limiter: Alone, lane: Lane) -> Pace:
        """Return the pace of a lane: of a run that is alone its limiter."""
        del name, lane
        return limiter

    async def send(self, intake: Intake) -> Account:
        """Import, record how it ended, and return the account."""
        self._announce()
        await self._pump(intake)
        account = self._account(time.monotonic() - self._began)
        await self._metrics.finish(account.exit_code, account.elapsed_seconds)
        structlog.get_logger().info("run.finished", **as_json(account))
        return account

    def _reconciler(self) -> Reconciler:
        return Reconciler(
            self._api,
            self._traffic,
            self._settings.doubt,
            self._stop.draining,
            on_refused=self._observer.lists_refused,
            on_misconfigured=self._end_misconfigured,
        )

    def _submitter(self) -> Submitter:
        return Submitter(
            self._api,
            self._traffic,
            self._tally,
            self._stop.draining,
            on_retry=self._observer.retry_scheduled,
        )

    @property
    def _thresholds(self) -> Thresholds:
        stop = self._settings.stop
        return Thresholds(stop.max_failures, stop.max_failure_ratio, stop.min_sample)

    async def _pump(self, intake: Intake) -> None:
        reconciler = self._reconciler()
        with Survey(self._ledger.path, intake.names, hand_on=handed_on(reconciler), run=self._number) as survey:
            try:
                with closing(Orders(self._ledger.path, self._number)) as self._orders:
                    async with Journal(self._ledger) as journal, self._api:
                        await self._drive(self._pipeline(journal, reconciler), intake, survey, journal)
            except* LedgerError as group:
                self._ledger_broke = True
                reason = str(next(iter(leaves(group))))
                self._stop.drain(Cause(Exit.HALTED, f"halted: {reason}"))

    def _pipeline(self, journal: Journal, reconciler: Reconciler) -> Pipeline:
        return Pipeline(
            ledger=self._ledger,
            journal=journal,
            queue=self._queue,
            submitter=self._submitter(),
            reconciler=reconciler,
            tally=self._tally,
            stop=self._stop,
            observer=self._observer,
            limit=self._job.limit,
            attempts=self._settings.retry.attempts,
            max_in_doubt=self._settings.stop.max_in_doubt,
            thresholds=self._thresholds,
            earlier=self._job.earlier,
            why=self._job.why,
            also=self._job.also,
            resend=self._job.resend,
        )

    async def _drive(self, pipeline: Pipeline, intake: Intake, survey: Survey, journal: Journal) -> None:
        async def register(source: SourceFile) -> int:
            return await journal.call(partial(self._ledger.register, source))

        rows = intake.rows(survey, register)
        await conduct(
            partial(pipeline.run, rows, self._settings.limits.concurrency),
            self._stop,
            grace_seconds=self._settings.stop.grace_seconds,
            on_first=self.say_stopping,
            beside=[partial(heed_requests, self.say_where), *self._beside(journal)],
        )
        await journal.note([self._sample()])

    def _beside(self, journal: Journal) -> list[Task]:
        """Return what goes on while rows are sent."""
        beside: list[Task] = [partial(self._keep_lease, journal)] if isinstance(self._ledger.path, Server) else []
        beside += [
            self._schedule.keep,
            self._traffic.watch_outage,
            partial(keep_samples, journal, self._sample),
            self._metrics.keep,
        ]
        if not self._job.silent:
            beside.append(partial(show, self._look, interactive=sys.stderr.isatty()))
        return beside

    async def _keep_lease(self, journal: Journal) -> None:
        """Send only as long as the database is there: when the connection is gone, so is the lock that goes with it."""
        lease = self._traffic.lease = Lease()
        try:
            while True:
                at = lease.clock()
                await journal.call(self._ledger.beat)
                held = lease()
                lease.renew(at)
                if not held:
                    self._traffic.wake()
                await anyio.sleep(_BEAT_SECONDS)
        except LedgerError as exc:
            self._ledger_broke = True
            self._stop.drain(Cause(Exit.HALTED, f"halted: {exc}"))

    def _sample(self) -> Sample:
        tally, rate, took = self._tally, self._traffic.creates.rate, self._traffic.latencies.take()
        p50, p90, p99 = (1000 * seconds for seconds in took) if took else (None, None, None)
        return Sample(
            sum(tally.settled.values()),
            tally.settled.get(State.CREATED, 0),
            tally.requests,
            tally.retries,
            tally.throttled,
            tally.in_flight,
            rate if isfinite(rate) else None,
            self._traffic.slot_finder.limit,
            p50,
            p90,
            p99,
            tally.accounted,
            tally.input_rows,
        )

    def _read_off(self) -> Reading:
        traffic = self._traffic
        limits = (traffic.creates.rate, traffic.slot_finder.limit)
        return Reading(
            self._number, self._job.command, __version__, self._started, self._tally, *limits, traffic.latencies.latest
        )

    def _new_orders(self) -> list[Order]:
        return self._orders.next() if self._orders else []

    def _look(self) -> Moment:
        return Moment(
            self._number,
            self._tally,
            rate=self._traffic.creates.rate,
            ceiling=self._traffic.creates.ceiling,
            slots=self._traffic.slot_finder.limit,
            concurrency=self._settings.limits.concurrency,
            in_flight=self._tally.in_flight,
            waiting=self._queue.waiting,
            held=self._traffic.held_by,
            stops=self._stops(),
            stopping=self._stop.ending.is_set(),
            took=(latest.p50, latest.p99) if (latest := self._traffic.latencies.latest) else None,
            throttled_at=self._tally.last_throttled,
        )

    def _stops(self) -> str:
        ends_at = self._schedule.ends_at
        if ends_at is None:
            return ""
        left = duration(max(0.0, ends_at.timestamp() - time.time()))
        return f"{ends_at.astimezone(self._job.hours.timetable.zone):%a %H:%M} in {left}"

    def say_where(self) -> None:
        """Tell how far it is."""
        seconds = time.monotonic() - self._began
        pace = self._tally.requests / seconds if seconds else 0.0
        say(as_line(self._look(), pace, datetime.now().astimezone()))

    def _tell_change(self, change: Change) -> None:
        self._observer.limits_changed(change)
        line = self._news.line(change, datetime.now().astimezone())
        if line and not self._job.silent:
            say(line)

    def _give_up(self, reason: str) -> None:
        cause = Cause(
            Exit.HALTED, f"halted: the service was down for {duration(self._settings.stop.outage_seconds)} ({reason})"
        )
        self._drain(cause)

    def _end_misconfigured(self, reason: str) -> None:
        self._drain(Cause(Exit.USAGE, reason))

    def _drain(self, cause: Cause) -> None:
        if cause not in self._stop.causes:
            self._observer.run_stopping(cause)
        self._stop.drain(cause)

    def say_stopping(self) -> None:
        """Tell that it stops, and how a second signal cuts."""
        if not self._job.silent:
            grace = self._settings.stop.grace_seconds
            requests = plural(self._tally.in_flight, "request")
            say(f"Stopping: {requests} in flight, at most {grace:g} s. Press Ctrl-C again to abort them.")

    def _announce(self) -> None:
        if self._job.silent:
            return
        with View(self._ledger.path) as view:
            counts = view.counts()
        done, doubt = counts.get(State.CREATED, 0), counts.get(State.IN_DOUBT, 0)
        account = masked(self._job.credentials.account_sid)
        config = self._job.config.path or "none found, defaults"
        say(
            f"ledger  {shown(str(self._ledger.path))}: {plural(done, 'row')} created so far, {doubt:,} in doubt\n"
            f"target  {URL(self._settings.api.url).host_port_subcomponent}{', ' if account else ''}{account}\n"
            f"config  {config}"
        )

    def _unsendable(self, groups: Sequence[Cluster]) -> int:
        wanted = self._job.command == "retry" and self._job.why is None and State.REJECTED in self._job.earlier
        return sum(one.rows for one in groups if one.local) if wanted else 0

    def _account(self, elapsed: float) -> Account:
        recorded = self._tally.settled
        groups: list[Cluster] = []
        if not self._ledger_broke:
            try:
                recorded = self._ledger.settled_by_run()
                with View(self._ledger.path) as view:
                    groups = placed(view.clusters())
            except LedgerError as exc:
                self._ledger_broke = True
                self._stop.end(Cause(Exit.HALTED, f"halted: {exc}"))
        account = Account(
            run=self._number,
            tally=self._tally,
            recorded=recorded,
            elapsed_seconds=elapsed,
            ledger=shown(str(self._ledger.path)),
            inputs=sum(source.path is not None for source, _ in self._job.inputs),
            last_request_at=_rfc3339(self._tally.last_request) if self._tally.last_request else None,
            causes=final_causes(self._stop.causes, self._tally.requests),
            ledger_broke=self._ledger_broke,
            groups=groups,
            tolerate_ratio=self._settings.exit.tolerate_ratio,
            command=self._job.command,
            given=self._job.config.given,
            folder=new_folder(),
            unsendable=self._unsendable(groups),
        )
        try:
            self._ledger.end_run(account.exit_code, account.reason, json.dumps(as_json(account)))
        except LedgerError as exc:
            structlog.get_logger().error("run.unrecorded", reason=str(exc))
        return account


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def leaves(group: BaseExceptionGroup[LedgerError]) -> list[LedgerError]:
    """Return the errors in a group, and in the groups in it."""
    parts = ([error] if isinstance(error, LedgerError) else leaves(error) for error in group.exceptions)
    return [leaf for part in parts for leaf in part]
