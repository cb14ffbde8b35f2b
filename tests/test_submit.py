"""One row to one outcome, in virtual time."""

from collections.abc import Callable
from math import inf

import anyio
import pytest

from tests.fakes import LOST, NOT_SENT, FakeService, Watcher, created, error, free_traffic
from tests.samples_of import row, sid
from tests.virtual_clock import settle, virtual_time
from worker.config import Retry as RetrySettings
from worker.model import NOT_SENT as NOT_SENT_YET
from worker.model import Answer, Created, Existed, Failed, Halt, InDoubt, Outcome, Rejected, Row, Tally, Verdict
from worker.submit import Submission, Submitter


class Bench:
    """A submitter with everything around it. jitter takes the longest wait, so that waits are known."""

    def __init__(self, *answers: Answer, settings: RetrySettings | None = None, rate: float = inf) -> None:
        self.service = FakeService(lambda _row, attempt: answers[min(attempt, len(answers)) - 1])
        self.tally = Tally()
        self.watcher = Watcher()
        self.draining = anyio.Event()
        self.traffic = free_traffic(self.draining, retry=settings, rate=rate)
        self.submitter = Submitter(
            self.service, self.traffic, self.tally, self.draining, on_retry=self.watcher.retry_scheduled
        )

    def submission(self, wanted: Row | None = None) -> Submission:
        """Return a submission of a row that has not begun."""
        return self.submitter.begin(wanted or row(1))

    async def send(self) -> tuple[Outcome, Verdict]:
        """Submit one row to its end."""
        submission = self.submission()
        verdict = await self.submitter.submit(submission)
        return submission.outcome, verdict


@pytest.mark.parametrize(
    ("answer", "outcome", "made"),
    [
        (created(row(1)), Created(sid("UT", row(1).key)), 1),
        (error(409, 50433), Existed("50433", "is a participant of this conversation already"), 0),
        (error(400, 20001), Rejected("20001", "a parameter is invalid"), 0),
        (LOST, InDoubt("lost", "the connection broke"), 1),
        (error(500, 20500), InDoubt("20500", "the service failed (status 500): may exist"), 0),
        (error(403, 20403), Failed("20403", "forbidden", forbidden=True), 0),
    ],
)
@virtual_time
async def test_what_is_settled_is_sent_once(answer: Answer, outcome: Outcome, made: int) -> None:
    """A row whose fate is decided, or cannot be known, is never repeated."""
    bench = Bench(answer)
    assert await bench.send() == (outcome, outcome)
    assert bench.service.attempts.total() == 1
    assert bench.service.made.total() == made
    assert bench.tally.requests == 1
    assert bench.watcher.retries == []


@virtual_time
async def test_what_was_certainly_not_processed_is_repeated_with_growing_waits() -> None:
    """Refused connections and conflicts come again after 0.5, 1, 2 s; the fourth attempt succeeds."""
    bench = Bench(NOT_SENT, error(409, 20409), NOT_SENT, created(row(1)))
    outcome, _ = await bench.send()
    assert outcome == Created(sid("UT", row(1).key))
    assert anyio.current_time() == pytest.approx(3.5)
    assert bench.watcher.retries == [
        (row(1).key, "no_connection", 1, 0.5),
        (row(1).key, "20409", 2, 1.0),
        (row(1).key, "no_connection", 3, 2.0),
    ]
    assert (bench.tally.requests, bench.tally.retries, bench.tally.throttled) == (2, 3, 0)


@virtual_time
async def test_attempts_that_are_used_up_leave_the_row_failed() -> None:
    """After six attempts the row is certainly not created, and says why."""
    bench = Bench(NOT_SENT)
    outcome, _ = await bench.send()
    assert outcome == Failed("no_connection", "refused")
    assert bench.service.attempts.total() == 6
    assert anyio.current_time() == pytest.approx(0.5 + 1 + 2 + 4 + 8)


@virtual_time
async def test_the_budget_ends_the_retries_before_the_wait_that_would_exceed_it() -> None:
    """A row may be retried for so many seconds and no longer."""
    bench = Bench(NOT_SENT, settings=RetrySettings(attempts=100, max_seconds=10, budget_seconds=30))
    outcome, _ = await bench.send()
    assert outcome == Failed("no_connection", "refused")
    assert anyio.current_time() == pytest.approx(0.5 + 1 + 2 + 4 + 8 + 10)


@virtual_time
async def test_a_retry_after_is_kept_and_an_absurd_one_is_capped() -> None:
    """The service's word counts, up to max_retry_after_seconds."""
    bench = Bench(error(429, 20429, 7.0), error(429, 45780, 86_400.0), created(row(1)))
    await bench.send()
    assert anyio.current_time() == pytest.approx(307.0)
    assert bench.tally.throttled == 2


@virtual_time
async def test_a_throttled_answer_holds_everybody_back() -> None:
    """While one row waits out a Retry-After, no other row is sent either."""
    bench = Bench(error(429, 20429, 10.0), created(row(1)))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.send)
        await settle()
        bystander = bench.submission(row(2))
        await bystander.ready()
        assert anyio.current_time() == pytest.approx(10.0)


@virtual_time
async def test_a_conflict_holds_nobody_else_back() -> None:
    """A conflict is the row's own affair."""
    bench = Bench(error(409, 20409, 10.0), created(row(1)))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.send)
        await settle()
        await bench.submission(row(2)).ready()
        assert anyio.current_time() == 0.0


@virtual_time
async def test_waiting_for_the_limiter_uses_up_no_attempts() -> None:
    """At a row every hundred seconds five rows still take one attempt each."""
    bench = Bench(created(row(1)), rate=0.01)
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(bench.send)
    assert anyio.current_time() == pytest.approx(400.0)
    assert bench.tally.requests == 5
    assert bench.watcher.retries == []


@virtual_time
async def test_nobody_waits_for_another_attempt_once_the_run_stops() -> None:
    """A drain ends the wait at once; the row is failed, which means it is sent again next time."""
    bench = Bench(NOT_SENT)
    submission = bench.submission()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.submitter.submit, submission)
        await settle()
        bench.draining.set()
    assert anyio.current_time() == 0.0
    assert bench.service.attempts.total() == 1
    assert submission.outcome == Failed("no_connection", "refused")


@virtual_time
async def test_a_drain_calls_back_who_waits_for_a_grant_and_nobody_else() -> None:
    """The row that has left comes home with its answer; the one at the limiter's gate never leaves."""
    bench = Bench(created(row(1)), rate=0.01)
    bench.service.seconds = 5.0
    away, waiting = bench.submission(row(1)), bench.submission(row(2))
    async with anyio.create_task_group() as tasks:
        for submission in (away, waiting):
            tasks.start_soon(bench.submitter.submit, submission)
            await settle()
        assert bench.tally.in_flight == 1
        bench.draining.set()
        bench.submitter.withdraw()
    assert anyio.current_time() == pytest.approx(5.0)
    assert isinstance(away.outcome, Created)
    assert waiting.outcome == NOT_SENT_YET
    assert (bench.tally.requests, bench.tally.in_flight, bench.traffic.in_flight) == (1, 0, 0)


@virtual_time
async def test_a_halt_does_not_burn_its_row() -> None:
    """Refused credentials say nothing against the row: it is certainly not created and will be sent again."""
    bench = Bench(error(401, 20003))
    outcome, verdict = await bench.send()
    assert verdict == Halt("20003", "the credentials were refused")
    assert outcome == Failed("20003", "the run was halted: the credentials were refused")


def _before_leaving(bench: Bench) -> None:
    bench.traffic.creates.pause_all(100)


def _in_flight(bench: Bench) -> None:
    bench.service.hold = anyio.Event()


@pytest.mark.parametrize(
    ("prepare", "answers", "state", "requests"),
    [
        (_before_leaving, [created(row(1))], NOT_SENT_YET, 0),
        (_in_flight, [created(row(1))], InDoubt("cut", "cut off before the answer came: may exist"), 1),
        (lambda _bench: None, [error(429, 20429, 60.0)], Failed("20429", "too many requests at once"), 1),
    ],
    ids=["before leaving", "in flight", "between attempts"],
)
@virtual_time
async def test_the_standing_outcome_is_true_whenever_the_lights_go_out(
    prepare: Callable[[Bench], None], answers: list[Answer], state: Outcome, requests: int
) -> None:
    """A cut before leaving is `not sent`, in flight it is a doubt, between two attempts it is the last refusal."""
    bench = Bench(*answers)
    prepare(bench)
    submission = bench.submission()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.submitter.submit, submission)
        await settle()
        tasks.cancel_scope.cancel()
    settlement = submission.settlement()
    assert settlement.outcome == state
    assert settlement.attempts == bench.tally.requests == requests


@virtual_time
async def test_many_rows_may_be_retried_at_once_without_mixing_up() -> None:
    """Each of two hundred rows in retry keeps its own answers and its own count."""
    bench = Bench()
    bench.service.respond = lambda wanted, attempt: NOT_SENT if attempt <= int(wanted.line) % 4 else created(wanted)
    submissions = [bench.submission(row(number)) for number in range(200)]
    async with anyio.create_task_group() as tasks:
        for submission in submissions:
            tasks.start_soon(bench.submitter.submit, submission)
    assert all(one.outcome == Created(sid("UT", one.row.key)) for one in submissions)
    assert all(bench.service.attempts[one.row.key] == one.row.line % 4 + 1 for one in submissions)
