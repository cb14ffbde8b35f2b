"""`worker`: one of those who send what was queued. It ends when it is told to, and outlives its database."""

import json
import sys
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial

import anyio
import structlog

from worker.api import Api
from worker.cli.importing import SWITCH_SECONDS, api_of, logged
from worker.cli.looping import run_loop
from worker.cli.measuring import measured
from worker.cli.running import Job, Running, leaves
from worker.cli.telling import say, tell
from worker.cli.together import open_fleet, server_in
from worker.cli.wiring import binding_of, bound, credentials_for, spare_collector
from worker.config import Config
from worker.errors import LedgerError, LedgerHeldError
from worker.fleet import BEAT_SECONDS, SILENT_SECONDS, Crew, Parts, SharedPace, Slots
from worker.journal import Journal
from worker.lease import Lease
from worker.ledger.crew import look_at_fleet
from worker.ledger.fleet import FleetLedger
from worker.ledger.queue import Desk, Pacer, Reserved, Told
from worker.ledger.steering import Orders
from worker.metrics import SECONDS, Metrics, Queue, Reading
from worker.model import Cause, Exit, Tally
from worker.report import Account, as_json, as_text
from worker.schedule import Hours
from worker.screen import Moment
from worker.stopping import Stop, Task, conduct, heed_requests, ignore_requests
from worker.traffic import Alone, Lane, Pace
from worker.wording import plural

_LONGEST_WAIT_SECONDS = 15.0
_CHUNK_SLOTS = 8
"""How many rows at once one chunk may have: they are of few channels."""

_MOST_CHUNKS = 32


def attend(config: Config, hours: Hours, *, exit_when_empty: bool, quiet: bool, json_wanted: bool) -> int:
    """Send what is queued until told to stop, or until the queue is empty; returns the exit code.

    Raises WorkerError for what stops it before.
    """
    server_in(config)
    credentials = credentials_for(config)
    job = Job(
        "worker",
        config,
        credentials,
        None,
        (),
        None,
        earlier=(),
        resend=True,
        hours=hours,
        quiet=quiet,
        json_wanted=json_wanted,
        exit_when_empty=exit_when_empty,
    )
    api = api_of(config, credentials)
    with logged(config, quiet=quiet):
        sys.setswitchinterval(SWITCH_SECONDS)
        spare_collector()
        ignore_requests()
        account = run_loop(_attend, job, api)
    if json_wanted:
        tell(json.dumps(as_json(account)))
    elif not quiet or account.exit_code is not Exit.DONE:
        tell(as_text(account))
    return account.exit_code


async def _attend(job: Job, api: Api) -> Account:
    stop = Stop()
    with measured(job.config) as metrics:
        shift = _Shift(job, api, metrics, stop)
        await conduct(
            shift.work,
            stop,
            grace_seconds=job.config.settings.stop.grace_seconds,
            on_first=shift.say_stopping,
            beside=[partial(heed_requests, shift.say_where)],
        )
    if shift.account is None:
        raise LedgerError(shift.trouble or "stopped before the ledger could be used")
    return shift.account


class _Shift:
    """A worker from its start to its end: sessions, one after the other, as the database comes and goes."""

    def __init__(self, job: Job, api: Api, metrics: Metrics, stop: Stop) -> None:
        self._job = job
        self._api = api
        self._metrics = metrics
        self._stop = stop
        self._session: Session | None = None
        self.account: Account | None = None
        self.trouble = ""

    async def work(self) -> None:
        """Work until told to stop, or until something else than the database is wrong."""
        wait = BEAT_SECONDS
        async with self._api:
            while not self._stop.draining.is_set():
                try:
                    lost = await self._work_once()
                    wait = BEAT_SECONDS
                except LedgerHeldError:
                    raise
                except LedgerError as exc:
                    if self.account is None and not self.trouble:
                        raise  # it was never there: that is said at once, as of any command
                    lost = str(exc)
                if not lost:
                    return
                self.trouble = lost
                structlog.get_logger().warning("fleet.disconnected", reason=lost, seconds=wait)
                with anyio.move_on_after(wait):
                    await self._stop.draining.wait()
                wait = min(2 * wait, _LONGEST_WAIT_SECONDS)

    async def _work_once(self) -> str:
        """Have one session; return why it has to be followed by another one, or nothing."""
        server = server_in(self._job.config)
        ledger = await anyio.to_thread.run_sync(partial(open_fleet, server))
        bound(ledger, binding_of(self._job.config, self._job.credentials, ()))
        try:
            with (
                closing(await anyio.to_thread.run_sync(partial(Desk, server))) as desk,
                closing(await anyio.to_thread.run_sync(partial(Pacer, server))) as pacer,
            ):
                parts = (self._api, ledger, self._metrics)
                self._session = Session(self._job, *parts, desk=desk, pacer=pacer, outer=self._stop)
                self.account = await self._session.attend()
                return self._session.lost
        finally:
            ledger.close()

    def say_where(self) -> None:
        """Tell how far it is."""
        if self._session:
            self._session.say_where()

    def say_stopping(self) -> None:
        """Tell that it stops, and how a second signal cuts."""
        if self._session:
            self._session.say_stopping()


class Session(Running):
    """A worker while its database is there. lost: why it had to end, when that is a reason to begin another one."""

    def __init__(
        self, job: Job, api: Api, ledger: FleetLedger, metrics: Metrics, *, desk: Desk, pacer: Pacer, outer: Stop
    ) -> None:
        self._slots: list[Slots] = []
        self._lease = Lease()
        super().__init__(job, api, ledger, Tally(), metrics)
        self._fleet_ledger = ledger
        self._desk = desk
        self._outer = outer
        self._traffic.lease = self._lease
        self.lost = ""
        self._queued: Queue | None = None
        self._most_queued = 0
        self._crew = Crew(
            desk,
            pacer,
            self._lease,
            self._stop,
            slots=self._slots,
            sample=self._told,
            wake=self._traffic.wake,
            on_relieved=self._tell_relieved,
            clock=time.monotonic,
            exit_when_empty=job.exit_when_empty,
        )

    def _share(self, name: str, limiter: Alone, lane: Lane) -> Pace:
        slots = Slots(name, self._reserve, lane, clock=time.monotonic)
        self._slots.append(slots)
        return SharedPace(limiter, slots)

    async def _keep_lease(self, journal: Journal) -> None:
        """Leave that to the crew's heartbeat."""

    async def _reserve(self, lane: str, rate: float, slots: int, told: Told) -> Reserved:
        return await self._crew.reserve(lane, rate, slots, told)

    def _told(self) -> Mapping[str, int | str]:
        tally = self._tally
        return {
            "requests": tally.requests,
            "retries": tally.retries,
            "throttled": tally.throttled,
            "in_flight": tally.in_flight,
            "settled": sum(tally.settled.values()),
            "held": self._traffic.held_by,
        }

    def _read_off(self) -> Reading:
        return super()._read_off()._replace(queue=self._queued)

    def _beside(self, journal: Journal) -> list[Task]:
        wanted = self._metrics.wanted or not self._job.silent
        return [*super()._beside(journal), *([self._watch_queue] if wanted else [])]

    def _look(self) -> Moment:
        moment, queue = super()._look(), self._queued
        if queue is None:
            return moment
        self._most_queued = max(self._most_queued, queue.rows)
        left = f"{queue.rows:,} of {self._most_queued:,} left, {plural(queue.workers, 'worker')}"
        empty = "queue empty" if self._job.exit_when_empty else "queue empty: waiting for enqueue"
        return replace(moment, queue=left if queue.rows else empty)

    async def _watch_queue(self) -> None:
        """Look how much there is to do as often as that is told to others."""
        while True:
            with suppress(LedgerError):  # the crew finds out what is wrong with the database
                look = partial(look_at_fleet, server_in(self._job.config))
                fleet = await anyio.to_thread.run_sync(look, abandon_on_cancel=True)
                if fleet:
                    alive = sum(host.silent_seconds < SILENT_SECONDS for host in fleet.hosts)
                    self._queued = Queue(fleet.queued, fleet.left, fleet.waiting, fleet.taken, alive)
            await anyio.sleep(SECONDS)

    async def attend(self) -> Account:
        """Take chunks until told to stop; record how it ended, and return the account."""
        began = time.monotonic()
        async with anyio.create_task_group() as aside:
            aside.start_soon(self._follow)
            try:
                await self._take_chunks()
            except* LedgerError as group:
                self._ledger_broke = True
                self._stop.drain(Cause(Exit.HALTED, f"halted: {next(iter(leaves(group)))}"))
            aside.cancel_scope.cancel()
        if not self._outer.draining.is_set() and (broke := self._database_trouble()):
            self.lost = broke
        for cause in self._stop.causes:
            if not self.lost:
                self._outer.drain(cause)
        account = self._account(time.monotonic() - began)
        await self._metrics.finish(account.exit_code, account.elapsed_seconds)
        structlog.get_logger().info("run.finished", **as_json(account))
        return account

    def _database_trouble(self) -> str:
        causes = [cause.reason for cause in self._stop.causes if cause.exit is Exit.HALTED]
        return causes[0].removeprefix("halted: ") if causes and (self._crew.broke or self._ledger_broke) else ""

    async def _follow(self) -> None:
        await self._outer.draining.wait()
        for cause in self._outer.causes:
            self._stop.drain(cause)

    async def _take_chunks(self) -> None:
        await self._crew.ask(partial(self._desk.join, self._number))
        self._announce()
        settings = self._settings
        with closing(Orders(self._ledger.path, self._number, standing=True)) as self._orders:
            async with Journal(self._ledger) as journal, anyio.create_task_group() as aside:
                for task in self._beside(journal):
                    aside.start_soon(task)
                parts = Parts(
                    ledger=self._fleet_ledger,
                    journal=journal,
                    submitter=self._submitter(),
                    reconciler=self._reconciler(),
                    tally=self._tally,
                    stop=self._stop,
                    observer=self._observer,
                    attempts=settings.retry.attempts,
                    max_in_doubt=settings.stop.max_in_doubt,
                    thresholds=self._thresholds,
                    queue_rows=settings.source.queue_rows,
                    concurrency=min(_CHUNK_SLOTS, settings.limits.concurrency),
                    places=anyio.Semaphore(settings.limits.concurrency),
                )
                await self._crew.work(parts, min(_MOST_CHUNKS, settings.limits.concurrency))
                aside.cancel_scope.cancel()
        await self._crew.ask(self._desk.leave)
        if not self._stop.draining.is_set():
            await self._tell_left()

    async def _tell_left(self) -> None:
        """Do not end as if all were done while rows are queued that only `enqueue` hands out."""
        look = partial(look_at_fleet, server_in(self._job.config))
        fleet = await anyio.to_thread.run_sync(look)
        if fleet and fleet.left:
            rest = f"{plural(fleet.left, 'row')} in the queue wait for the next enqueue"
            self._stop.drain(Cause(Exit.DOUBT, f"no chunk is left, but {rest}"))

    def _tell_relieved(self, chunks: int) -> None:
        structlog.get_logger().warning("fleet.relieved", chunks=chunks)
        if not self._job.silent:
            say(f"{plural(chunks, 'chunk')} of a silent worker reassigned")
