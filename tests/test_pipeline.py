"""The shape of a run: a real ledger and journal around a fake service."""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes import LOST, NOT_SENT, FakeService, Watcher, always_created, created, error
from tests.samples_of import draft_of, row
from worker.config import Doubt as DoubtSettings
from worker.config import Limits
from worker.config import Retry as RetrySettings
from worker.errors import LedgerError, SourceError
from worker.journal import Journal
from worker.ledger import Asked, Entry, Intent, Known, Settle, SourceFile
from worker.ledger.opening import create_ledger, open_ledger
from worker.ledger.sqlite import SqliteLedger
from worker.ledger.survey import Survey, Surveyed
from worker.ledger.tables import Tables
from worker.ledger.view import View
from worker.model import Answer, Cause, Exit, Misfit, Problem, Reply, Row, State, Tally
from worker.pipeline import FORBIDDEN_CHANNELS, Pipeline, handed_on
from worker.reconcile import Reconciler
from worker.rowqueue import RowQueue
from worker.stopping import NO_THRESHOLDS, Stop, Thresholds
from worker.submit import Submitter
from worker.traffic import Traffic

FREE = Limits(rate_per_second=inf, list_rate_per_second=inf, concurrency=100, adaptive=False)
QUICK = RetrySettings(attempts=2, initial_seconds=0.001, max_seconds=0.001)


@dataclass
class Bench:
    """One ledger, and as many runs over it as a test wants."""

    path: Path
    service: FakeService = field(default_factory=FakeService)
    watcher: Watcher = field(default_factory=Watcher)
    stop: Stop = field(default_factory=Stop)
    tally: Tally = field(default_factory=Tally)
    recorded: dict[State, int] = field(default_factory=dict)
    wrap: Callable[[Tables], Tables] | None = None
    doubt: DoubtSettings = DoubtSettings(policy="hold")  # noqa: RUF009 - it is frozen
    max_in_doubt: int = 0
    thresholds: Thresholds = NO_THRESHOLDS
    outage_seconds: float = 0
    limits: Limits = FREE

    async def run(
        self,
        *batches: Sequence[Row | Misfit],
        limit: int | None = None,
        concurrency: int = 4,
        queue_rows: int = 100,
        then: Exception | None = None,
        cut: anyio.CancelScope | None = None,
    ) -> Tally:
        """Run over these batches of one input; `then` is what reading raises at their end."""
        if not self.path.exists():
            create_ledger(self.path)
        ledger = open_ledger(self.path)
        if self.wrap:
            ledger = self.wrap(ledger)
        self.stop, self.tally, self.watcher = Stop(), Tally(sum(map(len, batches))), Watcher()
        run = ledger.start_run("run")
        traffic = Traffic(self.limits, QUICK, self.stop.draining, outage_seconds=self.outage_seconds)
        submitter = Submitter(
            self.service, traffic, self.tally, self.stop.draining, on_retry=self.watcher.retry_scheduled
        )
        reconciler = Reconciler(
            self.service,
            traffic,
            self.doubt,
            self.stop.draining,
            on_refused=self.watcher.lists_refused,
        )
        try:
            with Survey(self.path, {1: "input.csv"}, hand_on=handed_on(reconciler), run=run) as survey:
                async with Journal(ledger) as journal:
                    pipeline = Pipeline(
                        ledger=ledger,
                        journal=journal,
                        queue=RowQueue(queue_rows),
                        submitter=submitter,
                        reconciler=reconciler,
                        tally=self.tally,
                        stop=self.stop,
                        observer=self.watcher,
                        limit=limit,
                        attempts=3,
                        max_in_doubt=self.max_in_doubt,
                        thresholds=self.thresholds,
                    )
                    with cut or anyio.CancelScope():
                        await pipeline.run(self._read(journal, ledger, survey, batches, then), concurrency)
            self.recorded = ledger.settled_by_run()
            ledger.end_run(0, "", "{}")
        finally:
            ledger.close()
        return self.tally

    async def _read(
        self,
        journal: Journal,
        ledger: Tables,
        survey: Survey,
        batches: Sequence[Sequence[Row | Misfit]],
        then: Exception | None,
    ) -> AsyncGenerator[Surveyed[Row], None]:
        number = await journal.call(partial(ledger.register, SourceFile("input.csv", "csv", "utf-8", ",", "a\n")))
        assert number == 1
        for batch in batches:
            rows = {one.key: one for one in batch if isinstance(one, Row)}
            found = survey.sort([draft_of(one) if isinstance(one, Row) else one for one in batch])
            send = [rows[draft.key] for draft in found.send]
            parts = (found.findings, found.repairs, found.counts, found.again)
            yield Surveyed(found.source, found.read, found.last_line, send, *parts)
        if then:
            raise then

    def states(self) -> dict[str, str]:
        """Return key → state as the ledger has it."""
        with View(self.path) as view:
            return {str(one[0]): str(one[3]) for one in view.export()}

    def adds_up(self) -> bool:
        """Tell whether the identity holds, counted twice."""
        return self.tally.holds() and self.recorded == self.tally.settled


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A bench with a new ledger and a service without faults."""
    return Bench(tmp_path / "imports.db")


async def test_every_row_is_created_once_and_a_second_run_sends_nothing(bench: Bench) -> None:
    """The plain case, and the same command again."""
    rows = [row(number, number % 7) for number in range(50)]
    tally = await bench.run(rows[:30], rows[30:])
    assert (tally.created, tally.requests) == (50, 50)
    assert bench.adds_up()
    assert set(bench.states().values()) == {"created"}
    tally = await bench.run(rows[::-1])
    assert (tally.already_done, tally.requests) == (50, 0)
    assert bench.adds_up()
    assert set(bench.service.made.values()) == {1}


async def test_one_row_of_a_channel_is_in_flight_at_a_time_in_file_order(bench: Bench) -> None:
    """Ten rows of one channel go one by one, in the order of the file, while other channels go ahead."""
    rows = [row(number, 0 if number % 2 else number) for number in range(20)]
    bench.service.seconds = 0.001
    await bench.run(rows, concurrency=8)
    assert bench.service.most_in_channel == 1
    assert bench.service.most_at_once > 1
    lines = [one.line for one in bench.service.order if one.channel_sid == rows[1].channel_sid]
    assert lines == sorted(lines)


def shouted(wanted: Row) -> Row:
    """Return a row whose sids are written in capital letters."""
    upper = {name: getattr(wanted, name).upper() for name in ("interaction_sid", "channel_sid")}
    return wanted._replace(**upper)


async def test_a_channel_in_two_cases_has_one_row_in_flight_and_is_held_as_one(bench: Bench) -> None:
    """What holds for a channel holds however a row writes it, in this run and the next; it is sent as written."""
    rows = [row(number, 1) if number % 2 else shouted(row(number, 1)) for number in range(8)]
    bench.service.seconds = 0.001
    bench.service.respond = lambda wanted, _attempt: LOST if wanted.key == rows[5].key else created(wanted)
    tally = await bench.run(rows, concurrency=8)
    assert bench.service.most_in_channel == 1
    assert [one.channel_sid for one in bench.service.order] == [one.channel_sid for one in rows[:6]]
    assert (tally.created, tally.in_doubt, tally.not_sent) == (5, 1, 2)
    tally = await bench.run(rows)
    assert (tally.already_done, tally.in_doubt, tally.not_sent, tally.requests) == (5, 1, 2, 0)
    assert bench.adds_up()


async def test_no_request_leaves_without_a_durable_intent(bench: Bench) -> None:
    """Whenever a row reaches the service, another look at the ledger's file finds its intent."""
    seen: list[str] = []

    def look(wanted: Row, attempt: int) -> Answer:
        seen.append(bench.states()[wanted.key])
        return always_created(wanted, attempt)

    bench.service.respond = look
    await bench.run([row(number) for number in range(10)])
    assert seen == ["started"] * 10


async def test_a_row_in_doubt_is_not_sent_again_and_holds_its_channel(bench: Bench) -> None:
    """A lost answer stops its channel, in this run and the next, and no other channel."""
    lost, same, other = row(1, 1), row(2, 1), row(3, 2)
    bench.service.respond = lambda wanted, _attempt: LOST if wanted.key == lost.key else created(wanted)
    tally = await bench.run([lost, same, other])
    assert (tally.in_doubt, tally.not_sent, tally.created) == (1, 1, 1)
    assert bench.adds_up()
    tally = await bench.run([lost, same, other])
    assert (tally.in_doubt, tally.not_sent, tally.already_done, tally.requests) == (1, 1, 1, 0)
    assert bench.service.made == {lost.key: 1, other.key: 1}


async def test_refusals_stay_refused_and_failures_are_sent_first(bench: Bench) -> None:
    """The next run sends a failed row from its stored record, also without the file; a rejected one is not sent."""
    refused, failed = row(1), row(2)
    answers: dict[str, Answer] = {refused.key: error(400, 20001), failed.key: NOT_SENT}
    bench.service.respond = lambda wanted, _attempt: answers[wanted.key]
    tally = await bench.run([refused, failed])
    assert (tally.rejected, tally.failed) == (1, 1)
    answers[failed.key] = created(failed)
    tally = await bench.run([refused])
    assert (tally.rejected, tally.created, tally.requests, tally.earlier) == (1, 0, 1, {State.CREATED: 1})
    assert bench.adds_up()
    tally = await bench.run([refused, failed])
    assert (tally.rejected, tally.already_done, tally.requests, tally.earlier) == (1, 1, 0, {})


async def test_a_row_that_fails_again_is_sent_once_in_a_run(bench: Bench) -> None:
    """From its stored record; it is counted once, as the file's row, and not tried a second time."""
    bench.service.respond = lambda _wanted, _attempt: NOT_SENT
    await bench.run([row(1)])
    tally = await bench.run([row(1)])
    assert (tally.failed, tally.earlier) == (1, {})
    assert bench.service.attempts[row(1).key] == 4
    assert bench.adds_up()


async def test_a_closed_channel_parks_its_other_rows_without_sending_them(bench: Bench) -> None:
    """One 45354 is enough to know about the rest of the conversation."""
    rows = [row(number, 1) for number in range(5)]
    bench.service.respond = lambda _wanted, _attempt: error(400, 45354)
    tally = await bench.run(rows)
    assert (tally.rejected, tally.parked, tally.requests) == (1, 4, 1)
    assert bench.adds_up()
    assert sorted(bench.states().values()) == ["parked"] * 4 + ["rejected"]
    tally = await bench.run(rows)
    assert (tally.rejected, tally.parked, tally.requests) == (1, 4, 0)


async def test_misfits_duplicates_and_conflicts_are_counted_and_not_sent(bench: Bench) -> None:
    """What reading finds out goes into the account and into the ledger's findings."""
    first = row(1, key="k1")
    batch: list[Row | Misfit] = [
        first,
        first._replace(line=9),
        row(1, key="k1", content="other", line=10),
        Misfit(None, 1, 11, Problem("malformed", "has 1 field, the header has 5"), "x\n"),
    ]
    tally = await bench.run(batch)
    assert (tally.created, tally.duplicate, tally.rejected) == (1, 1, 2)
    assert bench.adds_up()
    with View(bench.path) as view:
        assert {(one.code, one.places) for one in view.clusters()} == {
            ("key_conflict", (("input.csv", 10),)),
            ("malformed", (("input.csv", 11),)),
        }


@pytest.mark.parametrize("code", [20003, 20005])
async def test_refused_credentials_halt_the_run_and_burn_no_row(bench: Bench, code: int) -> None:
    """After the first such answer nothing new is sent; every row can be sent later."""
    bench.service.respond = lambda _wanted, _attempt: error(401, code)
    tally = await bench.run([row(number) for number in range(100)], concurrency=2)
    assert tally.requests <= 2
    assert tally.failed + tally.not_sent == 100
    assert [cause.exit for cause in bench.stop.causes] == [Exit.HALTED]
    assert bench.adds_up()
    bench.service.respond = always_created
    tally = await bench.run([row(number) for number in range(100)])
    assert tally.created + tally.earlier.get(State.CREATED, 0) == 100
    assert bench.adds_up()


async def test_403s_halt_when_several_channels_get_nothing_else(bench: Bench) -> None:
    """One channel may be out of bounds; three at the beginning mean that we are."""
    bench.service.respond = lambda _wanted, _attempt: error(403, 20403)
    tally = await bench.run([row(number, number) for number in range(9)], concurrency=1)
    assert (tally.failed, tally.not_sent) == (FORBIDDEN_CHANNELS, 9 - FORBIDDEN_CHANNELS)
    assert bench.stop.causes == [Cause(Exit.HALTED, "halted: forbidden (20403) in 3 channels")]


async def test_rows_that_were_forbidden_earlier_do_not_halt_a_later_run(bench: Bench) -> None:
    """They are sent first in each later run: as evidence they would keep all other rows from being sent for ever."""
    bad = {row(number).key for number in range(6)}
    bench.service.respond = lambda wanted, _attempt: error(403, 50056) if wanted.key in bad else created(wanted)
    rows = [row(number, number) for number in range(12)]
    tally = Tally()
    for _ in range(3):
        tally = await bench.run(rows, concurrency=1)
    assert bench.stop.causes == []
    assert (tally.created, tally.failed, tally.earlier) == (6, 6, {})


async def test_once_something_was_created_a_403_is_about_its_row(bench: Bench) -> None:
    """Until so many come on end that the rights must have been taken away."""
    bench.service.respond = lambda wanted, _attempt: error(403, 20403) if wanted.line > 2 else created(wanted)
    few = [row(number, number) for number in range(2 + 10)]
    tally = await bench.run(few, concurrency=1)
    assert (tally.created, tally.failed, bench.stop.causes) == (1, 11, [])


async def test_a_conversation_full_of_non_chat_participants_takes_agents(bench: Bench) -> None:
    """Only the channel's rows of that kind are parked."""
    agent = row(2, 1)._replace(type="agent")
    bench.service.respond = lambda wanted, _attempt: created(wanted) if wanted.type == "agent" else error(400, 50418)
    tally = await bench.run([row(0, 1), row(1, 1), agent], concurrency=1)
    assert (tally.rejected, tally.parked, tally.created) == (1, 1, 1)


async def test_first_answers_that_are_nobodys_halt_before_a_file_is_in_doubt(bench: Bench) -> None:
    """Five redirects in a row at the beginning mean a wrong base URL, not five doubtful rows and then all others."""
    bench.service.respond = lambda _wanted, _attempt: Reply(302, b"")
    tally = await bench.run([row(number) for number in range(100)], concurrency=1)
    assert (tally.in_doubt, tally.not_sent) == (5, 95)
    assert "is the base URL right" in bench.stop.causes[0].reason


async def test_later_answers_that_are_nobodys_do_not_halt(bench: Bench) -> None:
    """Once the API has spoken, a gateway's pages are doubts of their rows only."""
    bench.service.respond = lambda wanted, _attempt: created(wanted) if wanted.line == 2 else Reply(502, b"<html>")
    tally = await bench.run([row(number) for number in range(20)], concurrency=1)
    assert (tally.created, tally.in_doubt, bench.stop.causes) == (1, 19, [])


@pytest.mark.parametrize(("limit", "code"), [(10, [Exit.STOPPED]), (30, []), (40, [])])
async def test_a_limit_counts_rows_sent_and_stops_only_if_more_are_left(
    bench: Bench, limit: int, code: list[Exit]
) -> None:
    """--limit 10 of 30 stops early; a limit that is never reached, or just reached, is no early end."""
    rows = [row(number) for number in range(30)]
    tally = await bench.run(rows, limit=limit)
    assert tally.created == bench.service.made.total() == min(limit, 30)
    assert tally.not_sent == 30 - tally.created
    assert [cause.exit for cause in bench.stop.causes] == code
    assert bench.adds_up()


async def test_rows_already_done_do_not_count_against_a_limit(bench: Bench) -> None:
    """The next --limit 10 sends the next ten."""
    rows = [row(number) for number in range(30)]
    await bench.run(rows, limit=10)
    tally = await bench.run(rows, limit=10)
    assert (tally.already_done, tally.created, tally.not_sent) == (10, 10, 10)


async def test_a_drain_lets_what_is_in_flight_come_home(bench: Bench) -> None:
    """After the first signal nothing new is sent, and the rows in flight get their outcome."""
    bench.service.hold = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(bench.run, [row(number) for number in range(50)], concurrency=3))
        while bench.service.in_flight.total() < 3:
            await anyio.lowlevel.checkpoint()
        bench.stop.drain(Cause(Exit.SIGTERM, "stopped by SIGTERM"))
        bench.service.hold.set()
    assert (bench.tally.created, bench.tally.not_sent) == (3, 47)
    assert bench.adds_up()


async def test_a_cut_records_what_is_in_flight_as_in_doubt(bench: Bench) -> None:
    """After the second signal the rows that had left are in doubt, those that had not are not sent."""
    bench.service.hold = anyio.Event()
    cut = anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(bench.run, [row(number) for number in range(50)], concurrency=3, cut=cut))
        while bench.service.in_flight.total() < 3:
            await anyio.lowlevel.checkpoint()
        cut.cancel()
    assert (bench.tally.in_doubt, bench.tally.not_sent) == (3, 47)
    assert bench.adds_up()
    assert sorted(bench.states().values()) == ["in_doubt"] * 3


async def test_an_input_that_breaks_on_the_way_halts_after_the_rows_before_it(bench: Bench) -> None:
    """What was read before is sent and recorded; the sentence says what broke."""
    tally = await bench.run([row(1), row(2)], then=SourceError("input.csv: changed while it was read"))
    assert tally.created + tally.not_sent == 2
    assert bench.stop.causes == [Cause(Exit.HALTED, "input.csv: changed while it was read")]
    assert bench.adds_up()


class _DiesAt(SqliteLedger):
    """A ledger whose disk gives out at the first entry of a kind after some that went well."""

    kind: type = Intent
    after = 3

    @classmethod
    def wrap(cls, kind: type, ledger: Tables) -> Tables:
        """Make an open ledger die later."""
        ledger.__class__ = cls
        ledger.kind = kind  # type: ignore[attr-defined]  # it is one of these now
        return ledger

    def write(self, group: Sequence[Entry]) -> list[int | Known | Asked | None]:
        """Write, or fail from some entry on."""
        self.after -= sum(isinstance(entry, self.kind) for entry in group)
        if self.after < 0:
            raise LedgerError("disk full")
        return super().write(group)


@pytest.mark.parametrize("kind", [Intent, Settle])
async def test_a_dead_ledger_stops_everything_at_once(bench: Bench, kind: type) -> None:
    """Nothing is sent without a durable intent, and what had left reads as in doubt."""
    bench.wrap = partial(_DiesAt.wrap, kind)
    with pytest.raises(ExceptionGroup) as caught:
        await bench.run([row(number) for number in range(100)], concurrency=2)
    assert caught.group_contains(LedgerError, match="disk full")
    ledger = open_ledger(bench.path)
    ledger.close()
    states = bench.states()
    assert set(bench.service.made) <= set(states)
    assert len(states) < 10
    assert bench.tally.holds()
    assert set(states.values()) <= {"created", "in_doubt", "failed"}


async def test_an_intent_that_the_ledger_refuses_is_counted_where_the_row_stands(bench: Bench) -> None:
    """The ledger has the last word: a row that another way has created meanwhile is already done."""
    wanted = row(1)
    await bench.run([wanted])

    async def stale(self: Bench, journal: Journal, *_rest: object) -> AsyncGenerator[Surveyed[Row], None]:
        del self, journal
        yield Surveyed(source=1, read=1, last_line=2, send=[wanted])

    bench._read = partial(stale, bench)  # type: ignore[method-assign]  # a reader that did not look
    tally = await bench.run([wanted])
    assert (tally.already_done, tally.requests) == (1, 0)


ANSWERS = st.sampled_from(["created", "lost", "not_sent", "rejected", "closed", "garbage", "500", "throttled"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    script=st.lists(st.tuples(st.integers(0, 5), ANSWERS), max_size=25),
    queue_rows=st.integers(1, 10),
    concurrency=st.integers(1, 6),
)
async def test_whatever_the_service_says_no_row_is_made_twice_and_the_account_adds_up(
    tmp_path_factory: pytest.TempPathFactory, script: list[tuple[int, str]], queue_rows: int, concurrency: int
) -> None:
    """Random rows, channels and answers, run three times over."""
    bench = Bench(tmp_path_factory.mktemp("run") / "imports.db")
    rows = [row(number, channel) for number, (channel, _) in enumerate(script)]
    answers: dict[str, Answer] = {
        "lost": LOST,
        "not_sent": NOT_SENT,
        "rejected": error(400, 20001),
        "closed": error(400, 45354),
        "garbage": Reply(200, b"<html>"),
        "500": error(500, 20500),
        "throttled": error(429, 20429, 0.0),
    }
    said = {one.key: answer for one, (_, answer) in zip(rows, script, strict=True)}

    def respond(wanted: Row, attempt: int) -> Answer:
        answer = answers.get(said[wanted.key])
        return created(wanted) if answer is None or (said[wanted.key] == "throttled" and attempt > 9) else answer

    bench.service.respond = respond
    for _ in range(3):
        await bench.run(rows, queue_rows=queue_rows, concurrency=concurrency)
        assert bench.adds_up()
        assert bench.service.most_in_channel <= 1
        assert all(count == 1 for count in bench.service.made.values())
        states = bench.states()
        assert {key for key, state in states.items() if state == "created"} <= set(bench.service.made)
        assert set(bench.service.made) <= {key for key, state in states.items() if state in {"created", "in_doubt"}}


async def test_a_file_that_was_read_to_its_end_retires_all_its_earlier_findings(bench: Bench) -> None:
    """What stood beyond the last line of a file that got shorter is no longer wrong with it."""
    bad = Misfit(None, 1, 900, Problem("malformed", "x"), "x\n")
    await bench.run([row(1), bad])
    await bench.run([row(1)])
    with View(bench.path) as view:
        assert view.clusters() == []


async def test_a_file_that_was_read_in_part_keeps_the_findings_beyond(bench: Bench) -> None:
    """A --limit looks at the beginning only."""
    bad = Misfit(None, 1, 900, Problem("malformed", "x"), "x\n")
    await bench.run([row(1), row(2), bad])
    bench.service.respond = lambda _wanted, _attempt: NOT_SENT
    await bench.run([row(3), row(4)], [bad], limit=0)
    with View(bench.path) as view:
        assert [one.code for one in view.clusters()] == ["malformed"]
