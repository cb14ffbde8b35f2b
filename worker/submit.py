"""One row to one outcome: the only retry loop.

A submission carries what would be true of its row if the lights went out now, from `failed: not sent` to `in doubt`
the instant an attempt leaves, to the verdict's outcome; whoever records it in a `finally` records the truth.
"""

import random
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio
from tenacity import AsyncRetrying, RetryCallState, retry_if_result
from tenacity.stop import stop_base

from worker.config import Retry as RetrySettings
from worker.limiter import Limiter
from worker.model import NOT_SENT, Answer, Failed, Halt, InDoubt, Outcome, Reply, Retry, Row, Settlement, Tally, Verdict
from worker.verdict import judge


class Creator(Protocol):
    """What submitting needs of the API."""

    def create(self, row: Row, departure: "Submission") -> Awaitable[Answer]:
        """Try once to add one participant."""
        ...


class OnRetry(Protocol):
    """Told before each wait: why, the number of the attempt that failed, and the wait in seconds."""

    def __call__(self, row: Row, retry: Retry, *, attempt: int, seconds: float) -> None:
        """Take note."""
        ...


class WithdrawnError(Exception):
    """The run drained while the row waited for its grant: it never left."""


class Submission:
    """One row on its way. outcome: what would be true if the lights went out now."""

    def __init__(self, row: Row, limiter: Limiter, tally: Tally, draining: anyio.Event) -> None:
        self.row = row
        self.outcome: Outcome = NOT_SENT
        self.attempts = 0
        self.answer: Answer | None = None
        self._limiter = limiter
        self._tally = tally
        self._draining = draining
        self._away = False
        self._granted = False
        self._waiting = anyio.CancelScope()

    async def ready(self) -> None:
        """Wait for the limiter's grant. Raises WithdrawnError when the run drains before the row has left.

        A grant lasts until the row has left: when its connection died, it need not stand in line a second time.
        """
        with anyio.CancelScope() as self._waiting:
            if not self._granted and not self._draining.is_set():
                await self._limiter.acquire()
                self._granted = True
            if not self._draining.is_set():
                return
        raise WithdrawnError

    def withdraw(self) -> None:
        """Wait no longer; harmless when the row has left."""
        self._waiting.cancel()

    def left(self) -> None:
        """Take note that the service may act on the row from now on."""
        self._away = True
        self._granted = False
        self._tally.in_flight += 1
        self.attempts += 1
        self._tally.requests += 1
        self._tally.last_request = time.time()
        self.outcome = InDoubt("cut", "cut off before the answer came: may exist")

    def home(self) -> None:
        """Take note that the attempt is over, whether it had left or not."""
        self._tally.in_flight -= self._away
        self._away = False

    def take(self, answer: Answer, verdict: Verdict) -> None:
        """Make the outcome what an answer's verdict says."""
        self.answer = answer
        match verdict:
            case Retry(code, reason):
                self.outcome = Failed(code, reason)
            case Halt(code, reason):
                self.outcome = Failed(code, f"the run was halted: {reason}")
            case _:
                self.outcome = verdict

    def settlement(self) -> Settlement:
        """Return what is to be recorded now."""
        reply = self.answer if isinstance(self.answer, Reply) else None
        return Settlement(
            self.row.key,
            self.outcome,
            reply.status if reply else None,
            self.attempts,
            reply.request_id if reply else None,
        )


class _Enough(stop_base):
    """No further attempt: the run drains, the attempts are used up, or the next wait would go over the budget.

    Being throttled uses up no attempt: it says nothing about the row.

    tenacity's own budget reads the process's clock; this one reads the event loop's, as every wait here does.
    """

    def __init__(self, draining: anyio.Event, settings: RetrySettings) -> None:
        self._draining = draining
        self._left = settings.attempts
        self._deadline = anyio.current_time() + settings.budget_seconds

    def __call__(self, retry_state: RetryCallState) -> bool:
        verdict = retry_state.outcome.result() if retry_state.outcome else None
        self._left -= not (isinstance(verdict, Retry) and verdict.throttled)
        return (
            self._draining.is_set()
            or self._left <= 0
            or anyio.current_time() + retry_state.upcoming_sleep > self._deadline
        )


class Submitter:
    """Brings submissions to their outcomes. draining: once set, nothing more leaves."""

    def __init__(
        self,
        api: Creator,
        limiter: Limiter,
        settings: RetrySettings,
        tally: Tally,
        draining: anyio.Event,
        *,
        on_retry: OnRetry,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._api = api
        self._limiter = limiter
        self._settings = settings
        self._tally = tally
        self._draining = draining
        self._under_way: set[Submission] = set()
        self._on_retry = on_retry
        self._jitter = jitter
        self._retrying = AsyncRetrying(
            sleep=self._sleep,
            wait=self._wait,
            retry=retry_if_result(lambda verdict: isinstance(verdict, Retry)),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )

    def begin(self, row: Row) -> Submission:
        """Return a row's submission, before its first attempt."""
        return Submission(row, self._limiter, self._tally, self._draining)

    async def submit(self, submission: Submission) -> Verdict:
        """Bring one submission as far as it goes; its outcome is set, and the last verdict is returned."""
        self._under_way.add(submission)
        try:
            verdict = await self._attempt(submission)
            if not isinstance(verdict, Retry):
                return verdict
            return await self._again(submission, verdict)
        finally:
            self._under_way.discard(submission)

    def withdraw(self) -> None:
        """Call back every row that waits for its grant; what has left comes home."""
        for submission in self._under_way:
            submission.withdraw()

    async def _attempt(self, submission: Submission) -> Verdict:
        try:
            answer = await self._api.create(submission.row, submission)
        except WithdrawnError:
            return submission.outcome
        finally:
            submission.home()
        verdict = judge(answer)
        submission.take(answer, verdict)
        if isinstance(verdict, Retry) and verdict.throttled:
            self._tally.throttled += 1
        return verdict

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
                if verdict.throttled:
                    self._limiter.pause(state.next_action.sleep)
                self._on_retry(submission.row, verdict, attempt=state.attempt_number, seconds=state.next_action.sleep)

        retrying = self._retrying.copy(stop=_Enough(self._draining, self._settings), before_sleep=announce)
        return await retrying(attempt)

    def _wait(self, state: RetryCallState) -> float:
        verdict = state.outcome.result() if state.outcome else None
        if isinstance(verdict, Retry) and verdict.after_seconds is not None:
            return min(verdict.after_seconds, self._settings.max_retry_after_seconds)
        exponential = self._settings.initial_seconds * 2.0 ** min(state.attempt_number - 1, 30)
        return self._jitter(0, min(exponential, self._settings.max_seconds))

    async def _sleep(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self._draining.wait()
