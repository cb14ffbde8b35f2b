"""Rows in doubt inside a run, over a real ledger: adopted, sent again, or left to a person."""

import time

import anyio
import pytest

from tests.fakes import LOST, LOST_BEFORE, LOST_LATE, FakeService, always_created, created, error
from tests.samples_of import row, sid
from tests.test_pipeline import Bench
from worker import breaker
from worker.config import Doubt as DoubtSettings
from worker.ledger.view import COLUMNS, View
from worker.model import Answer, Cause, Exit, Listed, Reply, Row, State, Unlisted

QUICK = DoubtSettings(settle_seconds=0.05)


@pytest.fixture
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A bench that reconciles, with a settle time of a moment."""
    return new_bench(tmp_path_factory)


def new_bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return a bench with a ledger of its own."""
    return Bench(tmp_path_factory.mktemp("run") / "imports.db", doubt=QUICK)


def first(*answers: Answer) -> dict[str, list[Answer]]:
    """Return a script for row 1: these answers, then success."""
    return {row(1).key: list(answers)}


def play(service: FakeService, script: dict[str, list[Answer]]) -> None:
    """Let a service answer by a script, and create what is not in it."""
    service.respond = lambda wanted, attempt: (
        script[wanted.key][attempt - 1]
        if attempt <= len(script.get(wanted.key, []))
        else always_created(wanted, attempt)
    )


def exported(bench: Bench) -> dict[str, dict[str, object]]:
    """Return key → row as it would be exported."""
    with View(bench.path) as view:
        rows = [dict(zip(COLUMNS, found, strict=True)) for found in view.export()]
    return {str(found["key"]): found for found in rows}


async def test_a_lost_row_that_was_made_is_adopted(bench: Bench) -> None:
    """The new participant of its channel is its own: created, reconciled, and sent once."""
    play(bench.service, first(LOST))
    tally = await bench.run([row(1), row(2, 1)])
    assert (tally.created, tally.in_doubt, tally.requests) == (2, 0, 2)
    assert bench.adds_up()
    assert bench.service.made == {row(1).key: 1, row(2, 1).key: 1}
    found = exported(bench)[row(1).key]
    assert (found["state"], found["sid"], found["reconciled"]) == ("created", sid("UT", row(1).key), 1)
    assert bench.watcher.resolved == [(row(1).key, "created")]


async def test_a_lost_row_that_was_not_made_is_sent_again(bench: Bench) -> None:
    """Nobody new after the settle time: it is safe to send it again, and file order holds in its channel."""
    play(bench.service, first(LOST_BEFORE))
    tally = await bench.run([row(1), row(2, 1)])
    assert (tally.created, tally.in_doubt, tally.requests) == (2, 0, 3)
    assert bench.adds_up()
    assert bench.service.made == {row(1).key: 1, row(2, 1).key: 1}
    assert [one.key for one in bench.service.order] == [row(1).key, row(1).key, row(2, 1).key]
    assert exported(bench)[row(1).key]["reconciled"] == 0


async def test_a_row_that_is_made_late_is_not_made_twice(bench: Bench) -> None:
    """The first list does not show it yet; a later one does, before anything is sent again."""
    play(bench.service, first(LOST_LATE))
    tally = await bench.run([row(1)])
    assert (tally.created, tally.requests) == (1, 1)
    assert bench.service.made[row(1).key] == 1


async def test_other_channels_go_on_while_one_is_in_doubt(bench: Bench) -> None:
    """One worker is enough: a row in doubt waits without holding it."""
    bench.doubt = DoubtSettings(settle_seconds=0.3)
    play(bench.service, first(LOST_BEFORE))
    others = [row(number) for number in range(2, 30)]
    await bench.run([row(1), row(99, 1), *others], concurrency=1)
    order = [one.key for one in bench.service.order]
    assert order[0] == order[-2] == row(1).key
    assert order[-1] == row(99, 1).key
    assert bench.service.made.total() == 30


async def test_a_row_that_is_never_made_is_failed_after_its_attempts(bench: Bench) -> None:
    """Three times lost, three times proved absent: surely not created, and the next run sends it again."""
    play(bench.service, first(LOST_BEFORE, LOST_BEFORE, LOST_BEFORE))
    tally = await bench.run([row(1), row(2, 1)])
    assert (tally.failed, tally.created, tally.in_doubt) == (1, 1, 0)
    assert bench.adds_up()
    assert exported(bench)[row(1).key]["code"] == "not_created"
    tally = await bench.run([row(1), row(2, 1)])
    assert (tally.already_done, tally.created, tally.earlier) == (1, 1, {})


async def test_foreign_participants_that_were_there_before_are_not_adopted(bench: Bench) -> None:
    """The baseline knows them."""
    bench.service.present[row(1).channel_sid] = [Listed(sid("UT", "foreign"), "customer", None)]
    play(bench.service, first(LOST))
    tally = await bench.run([row(1)])
    assert tally.created == 1
    assert exported(bench)[row(1).key]["sid"] == sid("UT", row(1).key)


async def test_without_a_baseline_somebody_else_s_participant_is_not_adopted(bench: Bench) -> None:
    """It may be ours or not: a person decides, the candidate is kept, and the channel sends nothing more."""
    bench.doubt = DoubtSettings(settle_seconds=0.05, baseline=False)
    play(bench.service, first(LOST))
    tally = await bench.run([row(1), row(2, 1), row(3)])
    assert (tally.in_doubt, tally.not_sent, tally.created) == (1, 1, 1)
    assert bench.adds_up()
    assert bench.service.lists == {row(1).channel_sid: 1}
    assert bench.watcher.undecided[0][0] == row(1).key


async def test_without_baselines_absence_can_still_be_proved(bench: Bench) -> None:
    """An empty channel is an empty channel."""
    bench.doubt = DoubtSettings(settle_seconds=0.05, baseline=False)
    play(bench.service, first(LOST_BEFORE))
    tally = await bench.run([row(1)])
    assert (tally.created, tally.requests) == (1, 2)


async def test_a_baseline_is_taken_once_for_a_channel_and_run(bench: Bench) -> None:
    """Before its first create; again in the next run, if something is sent there."""
    await bench.run([row(1), row(2, 1), row(3)])
    assert bench.service.lists == {row(1).channel_sid: 1, row(3).channel_sid: 1}
    await bench.run([row(1), row(2, 1), row(3), row(4, 1)])
    assert bench.service.lists == {row(1).channel_sid: 2, row(3).channel_sid: 1}


async def test_a_member_of_whom_we_know_nothing_is_not_adopted_for_a_later_row(bench: Bench) -> None:
    """Row 1 existed, and its participant was not in the baseline; row 2 of the channel is lost and never made."""
    member = Listed(sid("UT", "member"), "customer", None)

    def respond(wanted: Row, attempt: int) -> Answer:
        if wanted.line == row(1).line:
            bench.service.present.setdefault(wanted.channel_sid, []).append(member)
            return error(409, 50433)
        return LOST_BEFORE if attempt == 1 else created(wanted)

    bench.service.respond = respond
    tally = await bench.run([row(1), row(2, 1)], concurrency=1)
    assert (tally.existed, tally.created, tally.in_doubt) == (1, 1, 0)
    assert bench.service.attempts[row(2, 1).key] == 2


async def test_refused_lists_are_said_once_and_doubts_are_held(bench: Bench) -> None:
    """It works without lists, only more carefully."""
    bench.service.list_answer = Unlisted("status 403", refused=True)
    play(bench.service, first(LOST))
    others = [row(number) for number in range(3, 10)]
    tally = await bench.run([row(1), row(2, 1), *others], concurrency=1)
    assert (tally.in_doubt, tally.not_sent, tally.created) == (1, 1, len(others))
    assert bench.watcher.refused == ["status 403"]
    assert bench.adds_up()


async def test_rows_that_stay_in_doubt_halt_the_run_when_they_are_too_many(bench: Bench) -> None:
    """stop.max_in_doubt: something is wrong, and it must not go on through a whole file."""
    bench.doubt = DoubtSettings(policy="hold")
    bench.max_in_doubt = 3
    bench.service.respond = lambda _wanted, _attempt: LOST
    tally = await bench.run([row(number) for number in range(50)], concurrency=1)
    assert (tally.in_doubt, tally.not_sent) == (3, 47)
    assert [cause.exit for cause in bench.stop.causes] == [Exit.HALTED]


async def test_the_next_run_resolves_what_a_crash_left(bench: Bench) -> None:
    """Against the baseline that was taken before the intent; they are rows of the file, and are counted there."""
    made, not_made = row(1), row(2)
    play(bench.service, {made.key: [LOST], not_made.key: [LOST_BEFORE]})
    bench.service.hold = anyio.Event()
    cut = anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: bench.run([made, not_made], cut=cut))
        while bench.service.in_flight.total() < 2:
            await anyio.lowlevel.checkpoint()
        cut.cancel()
    assert bench.tally.in_doubt == 2
    assert bench.adds_up()
    bench.service.hold = None
    tally = await bench.run([not_made, made, row(3)])
    assert bench.adds_up()
    assert tally.earlier == {}
    assert (tally.already_done, tally.created, tally.in_doubt) == (0, 3, 0)
    assert bench.service.made == {made.key: 1, not_made.key: 1, row(3).key: 1}
    assert exported(bench)[made.key]["sid"] == sid("UT", made.key)


async def test_a_doubt_that_stays_is_counted_where_its_row_is_read(bench: Bench) -> None:
    """The next run cannot tell either: the row is in doubt, its channel sends nothing, the exit says so."""
    bench.doubt = DoubtSettings(settle_seconds=0.05, baseline=False)
    play(bench.service, first(LOST))
    await bench.run([row(1)])
    tally = await bench.run([row(1), row(2, 1)])
    assert (tally.in_doubt, tally.not_sent, tally.requests) == (1, 1, 0)
    assert tally.earlier == {State.IN_DOUBT: 1}
    assert bench.adds_up()


async def test_an_existing_member_after_a_lost_attempt_is_adopted(bench: Bench) -> None:
    """The attempt that was thought absent was made after all: 50433 says so, and the list has its sid."""
    wanted = row(1)
    late = [Listed(sid("UT", wanted.key), wanted.type, None)]

    def respond(_wanted: Row, attempt: int) -> Answer:
        if attempt == 1:
            return LOST_BEFORE
        bench.service.present.setdefault(wanted.channel_sid, []).extend(late)
        return error(409, 50433)

    bench.service.respond = respond
    tally = await bench.run([wanted])
    assert (tally.created, tally.existed) == (1, 0)
    assert bench.adds_up()
    found = exported(bench)[wanted.key]
    assert (found["sid"], found["reconciled"]) == (late[0].sid, 1)


async def test_a_member_whose_sid_nobody_knows_closes_its_channel_for_this_run(bench: Bench) -> None:
    """Its participant would be the only new one for the next row that is lost, and be taken for that row's."""
    first_row, second = row(1), row(2, 1)

    def respond(wanted: Row, attempt: int) -> Answer:
        if wanted.key == second.key or attempt == 1:
            return LOST_BEFORE
        late = Listed(sid("UT", first_row.key), wanted.type, None)
        bench.service.late.setdefault(wanted.channel_sid, []).append(late)
        bench.service.list_answer = Unlisted("status 500")
        return error(409, 50433)

    bench.service.respond = respond
    tally = await bench.run([first_row, second])
    assert (tally.existed, tally.not_sent) == (1, 1)
    assert bench.service.attempts[second.key] == 0
    assert bench.adds_up()


async def test_an_answer_with_a_sid_that_is_known_is_another_requests(bench: Bench) -> None:
    """A cached 201, one of another row and one of somebody who was there before: the lists show who was made."""
    first_row, again, there = row(1), row(2), row(3)
    stranger = sid("UT", "stranger")
    bench.service.present[there.channel_sid] = [Listed(stranger, there.type, None)]
    answers = {again.key: created(first_row), there.key: Reply(201, b'{"sid": "%s"}' % stranger.encode())}
    bench.service.respond = lambda wanted, _attempt: answers.get(wanted.key, created(wanted))
    tally = await bench.run([first_row, again, there], concurrency=1)
    assert (tally.created, tally.in_doubt) == (3, 0)
    assert {key: (found["sid"], found["reconciled"]) for key, found in exported(bench).items()} == {
        first_row.key: (sid("UT", first_row.key), 0),
        again.key: (sid("UT", again.key), 1),
        there.key: (sid("UT", there.key), 1),
    }
    assert bench.service.made == {first_row.key: 1, again.key: 1, there.key: 1}
    assert bench.adds_up()


async def test_rows_that_always_fail_are_no_outage_while_lists_are_answered(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty of them at the top of the file: one is tried after the other, and then the rest is sent."""
    monkeypatch.setattr(breaker, "FIRST_PROBE_SECONDS", 0.01)
    bench.outage_seconds = 20
    bench.doubt = DoubtSettings(settle_seconds=0.05)
    bad = {row(number).key for number in range(40)}
    bench.service.respond = lambda wanted, _: error(500, 20500) if wanted.key in bad else created(wanted)
    tally = await bench.run([row(number) for number in range(60)], cut=anyio.move_on_after(30))
    assert (tally.created, tally.failed, tally.in_doubt) == (20, 40, 0)
    assert bench.stop.causes == []
    assert bench.adds_up()


async def test_a_drain_leaves_doubts_as_they_are(bench: Bench) -> None:
    """Nobody waits a settle time out while the run is stopping."""
    bench.doubt = DoubtSettings(settle_seconds=600)
    play(bench.service, first(LOST_BEFORE))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: bench.run([row(1), row(2, 1), row(3)]))
        while bench.tally.in_doubt == 0 or bench.tally.created == 0:
            await anyio.lowlevel.checkpoint()
        bench.stop.drain(Cause(Exit.SIGINT, "stopped"))
    assert (bench.tally.in_doubt, bench.tally.created, bench.tally.not_sent) == (1, 1, 1)
    assert bench.adds_up()


@pytest.mark.parametrize("moment", range(12))
async def test_a_cut_at_any_moment_leaves_the_account_right(bench: Bench, moment: int) -> None:
    """Doubts, baselines and lists under way: whatever is cut, each row has its place, and the ledger agrees."""
    play(bench.service, {row(n).key: [LOST_BEFORE if n % 2 else LOST] for n in range(6)})
    cut = anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: bench.run([row(n, n % 4) for n in range(12)], cut=cut))
        while bench.service.lists.total() + bench.service.attempts.total() < moment:
            await anyio.lowlevel.checkpoint()
        cut.cancel()
    assert bench.adds_up()
    await bench.run([row(n, n % 4) for n in range(12)])
    assert bench.adds_up()
    assert max(bench.service.made.values()) == 1
    assert bench.service.most_in_channel == 1


async def test_a_wall_clock_that_jumps_back_shortens_no_wait(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """All waits are by a clock that does not jump; only the times in the ledger are the wall's."""
    hour = 3600 * 10**9
    jumping = iter(range(10**6, 0, -1))
    monkeypatch.setattr(time, "time_ns", lambda: next(jumping) * hour)
    monkeypatch.setattr(time, "time", lambda: next(jumping) * 3600.0)
    play(bench.service, first(LOST_BEFORE))
    tally = await bench.run([row(1), row(2, 1), row(3)])
    assert (tally.created, tally.in_doubt) == (3, 0)
    assert bench.adds_up()
    left = dict(zip([one.key for one in reversed(bench.service.order)], reversed(bench.service.left_at), strict=True))
    attempts = [at for one, at in zip(bench.service.order, bench.service.left_at, strict=True) if one.key == row(1).key]
    assert attempts[1] - attempts[0] >= QUICK.settle_seconds
    assert left[row(2, 1).key] > attempts[1]
    found = exported(bench)[row(1).key]
    assert str(found["settled_at"]) < str(found["started_at"])
