"""One row to one outcome: the only retry loop.

A submission carries what would be true of its row if the lights went out now, from `failed: not sent` to `in doubt`
the instant an attempt leaves, to the verdict's outcome; whoever records it in a `finally` records the truth.
"""

import time
from collections.abc import Awaitable
from typing import Protocol

import anyio
from tenacity import AsyncRetrying, RetryCallState, retry_if_result
from tenacity.stop import stop_base

from worker.model import (
    NOT_SENT,
    Answer,
    Failed,
    Halt,
    InDoubt,
    NotSent,
    Outcome,
    Reply,
    Retry,
    Row,
    Settlement,
    Tally,
    Verdict,
)
from worker.traffic import Permit, Refusal, Traffic, WithdrawnError
from worker.verdict import judge, without_values

_SERVER_ERROR = 500


class Creator(Protocol):
    """What submitting needs of the API."""

    def create(self, row: Row, departure: "Submission") -> Awaitable[Answer]:
        """Try once to add one participant."""
        ...


class OnRetry(Protocol):
    """Told before each wait: why, the number of the attempt that failed, the wait in seconds, and the answer's id."""

    def __call__(self, row: Row, retry: Retry, *, attempt: int, seconds: float, request_id: str | None) -> None:
        """Take note."""
        ...


class Submission:
    """One row on its way. outcome: what would be true if the lights went out now."""

    def __init__(self, row: Row, traffic: Traffic, tally: Tally) -> None:
        self.row = row
        self.outcome: Outcome = NOT_SENT
        self.attempts = 0
        self.answer: Answer | None = None
        self._traffic = traffic
        self._tally = tally
        self._permit: Permit | None = None
        self._away = False
        self._probe = False

    async def enter(self) -> None:
        """Wait until an attempt may begin: before a connection is asked for, since that may be what fails."""
        self._probe = await self._traffic.creates.enter()

    async def ready(self) -> None:
        """Wait until the row may leave. Raises WithdrawnError when the run drains before that.

        A permit lasts until the row has left: when its connection died, it need not stand in line a second time.
        """
        if self._permit is not None and self._traffic.is_held:
            self._give_back()
        if self._permit is None:
            self._permit = await self._traffic.creates.acquire(probe=self._probe)
            self._probe = self._permit.probe

    def left(self) -> None:
        """Take note that the service may act on the row from now on."""
        if self._permit is not None:
            self._traffic.creates.depart(self._permit)
        self._away = True
        self._tally.in_flight += 1
        self.attempts += 1
        self._tally.requests += 1
        self._tally.last_request = time.time()
        self.outcome = InDoubt("cut", "cut off before the answer came: may exist")

    def home(self) -> Permit | None:
        """Take note that the attempt is over; returns its permit if it had left."""
        left = self._away
        self._tally.in_flight -= left
        self._away = False
        permit = self._give_back()
        return permit if left else None

    def end(self) -> None:
        """Let somebody else try a service that is down, if this attempt was to and found nothing out."""
        if self._probe:
            self._probe = False
            self._traffic.withdraw_probe()

    def _give_back(self) -> Permit | None:
        permit, self._permit = self._permit, None
        if permit is not None:
            self._traffic.creates.give_back(permit)
        return permit

    def take(self, answer: Answer, verdict: Verdict) -> None:
        """Make the outcome what an answer's verdict says."""
        self.answer = answer
        match verdict:
            case Retry(code, reason):
                self.outcome = Failed(code, reason)
            case Halt(misconfigured=True):
                self.outcome = NOT_SENT
            case Halt(code, reason, may_exist):
                halted = f"the run was halted: {reason}"
                self.outcome = InDoubt(code, halted, stranger=True) if may_exist else Failed(code, halted)
            case _:
                self.outcome = verdict

    def take_back(self) -> None:
        """Count the attempt that is over no more: it got no further than a proxy of ours."""
        self.attempts -= 1
        self._tally.requests -= 1

    def settlement(self, *, reconciled: bool = False) -> Settlement:
        """Return what is to be recorded now. reconciled: as of `Settlement`."""
        reply = self.answer if isinstance(self.answer, Reply) else None
        return Settlement(
            self.row.key,
            self.outcome,
            reply.status if reply else None,
            self.attempts,
            reply.request_id if reply else None,
            reconciled=reconciled,
        )


class _Enough(stop_base):
    """No further attempt: the run drains, the attempts are used up, or the next wait would go over the budget.

    Being throttled uses up no attempt, nor does an outage of the service: they say nothing about the row.

    tenacity's own budget reads the process's clock; this one reads the event loop's, as every wait here does.
    """

    def __init__(self, draining: anyio.Event, traffic: Traffic) -> None:
        self._draining = draining
        self._traffic = traffic
        self._left = traffic.retry.attempts
        self._deadline = traffic.active() + traffic.retry.budget_seconds

    def __call__(self, retry_state: RetryCallState) -> bool:
        verdict = retry_state.outcome.result() if retry_state.outcome else None
        throttled = isinstance(verdict, Retry) and verdict.throttled
        self._left -= not throttled and not self._traffic.breaker.is_open
        return (
            self._draining.is_set()
            or self._left <= 0
            or self._traffic.active() + retry_state.upcoming_sleep > self._deadline
        )


class Submitter:
    """Brings submissions to their outcomes. draining: once set, nothing more leaves."""

    def __init__(
        self,
        api: Creator,
        traffic: Traffic,
        tally: Tally,
        draining: anyio.Event,
        *,
        on_retry: OnRetry,
    ) -> None:
        self._api = api
        self._traffic = traffic
        self._settings = traffic.retry
        self._tally = tally
        self._draining = draining
        self._on_retry = on_retry
        self._retrying = AsyncRetrying(
            sleep=self._sleep,
            wait=self._wait,
            retry=retry_if_result(lambda verdict: isinstance(verdict, Retry)),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )

    def begin(self, row: Row) -> Submission:
        """Return a row's submission, before its first attempt."""
        return Submission(row, self._traffic, self._tally)

    async def submit(self, submission: Submission) -> Verdict:
        """Bring one submission as far as it goes; its outcome is set, and the last verdict is returned."""
        verdict = await self._attempt(submission)
        if not isinstance(verdict, Retry):
            return verdict
        return await self._again(submission, verdict)

    async def until_open(self) -> None:
        """Wait until something may leave at all."""
        await self._traffic.until_open()

    def withdraw(self) -> None:
        """Call back every row that waits for its grant; what has left comes home."""
        self._traffic.withdraw()

    async def _attempt(self, submission: Submission) -> Verdict:
        permit = None
        try:
            await submission.enter()
            try:
                answer = await self._api.create(submission.row, submission)
            finally:
                permit = submission.home()
            verdict = self._judge(answer, submission.row)
            submission.take(answer, verdict)
            if isinstance(verdict, Halt) and verdict.misconfigured:  # which says nothing about the service
                if permit is not None:
                    submission.take_back()
                return verdict
            self._report(answer, verdict, permit)
        except WithdrawnError:
            return submission.outcome
        finally:
            submission.end()
        return verdict

    def _judge(self, answer: Answer, row: Row) -> Verdict:
        """Judge; an answer that cannot be judged puts its own row in doubt and ends nothing else."""
        try:
            return without_values(judge(answer, row), row.body)
        except Exception as exc:  # noqa: BLE001 - whatever one answer provokes concerns one row
            return InDoubt("unjudged", f"its answer could not be judged ({type(exc).__name__}): may exist")

    def _report(self, answer: Answer, verdict: Verdict, permit: Permit | None) -> None:
        """Tell the traffic what came back: it finds the limits by it, and whether the service is there."""
        lane = self._traffic.creates
        if permit is not None and isinstance(answer, Reply):
            self._traffic.latencies.add(self._traffic.clock() - permit.left_at)
        if not isinstance(answer, Reply):
            lane.fail(answer.reason, unreachable=isinstance(answer, NotSent))
        elif isinstance(verdict, Retry | InDoubt) and verdict.throttled:
            self._tally.throttled += 1
            self._tally.last_throttled = time.time()
            if permit is not None:
                lane.refuse(permit, Refusal(verdict.code, answer.retry_after_seconds, answer.concurrent))
        elif answer.status >= _SERVER_ERROR:
            lane.fail(f"status {answer.status}", unreachable=False)
        else:
            lane.admit(answer.concurrent)
            self._traffic.quota.refund()

    async def _again(self, submission: Submission, verdict: Verdict) -> Verdict:
        # entering tenacity costs more than a row, so the first attempt is made outside and is handed in here
        first = True

        async def attempt() -> Verdict:
            nonlocal first, verdict
            if first:
                first = False
            elif not self._draining.is_set():
                self._tally.retries += 1
                verdict = await self._attempt(submission)
            return verdict

        def announce(state: RetryCallState) -> None:
            if state.next_action is not None and isinstance(verdict, Retry):
                self._on_retry(
                    submission.row,
                    verdict,
                    attempt=state.attempt_number,
                    seconds=state.next_action.sleep,
                    request_id=submission.answer.request_id if isinstance(submission.answer, Reply) else None,
                )

        retrying = self._retrying.copy(stop=_Enough(self._draining, self._traffic), before_sleep=announce)
        return await retrying(attempt)

    def _wait(self, state: RetryCallState) -> float:
        verdict = state.outcome.result() if state.outcome else None
        throttled = isinstance(verdict, Retry) and verdict.throttled
        # what throttles a run is slowed down by its limits; the quota is for what else goes wrong
        least = 0.0 if throttled else self._traffic.quota.spend(anyio.current_time())
        if isinstance(verdict, Retry) and verdict.after_seconds is not None:
            return max(least, min(verdict.after_seconds, self._settings.max_retry_after_seconds))
        # who adapts has the right rate again at once: rows that slept ever longer would leave it unused
        doublings = 0 if throttled and self._traffic.adaptive else min(state.attempt_number - 1, 30)
        exponential = self._settings.initial_seconds * 2.0**doublings
        return max(least, self._traffic.jitter(0, min(exponential, self._settings.max_seconds)))

    async def _sleep(self, seconds: float) -> None:
        self._traffic.patient += 1
        try:
            with anyio.move_on_after(seconds):
                await self._draining.wait()
        finally:
            self._traffic.patient -= 1
