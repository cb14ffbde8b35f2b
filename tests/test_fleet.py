"""Several workers on one ledger: a small ordeal each time, and what only a fleet can get wrong."""

import json
import re
import time
from asyncio.subprocess import PIPE
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from tests.commands import finish, start
from tests.ledger_contract import OUTCOMES, SOURCE
from tests.ledger_contract import Desk as Bench
from tests.postgres import Postgres
from tests.samples_of import row, sid
from tests.test_command import csv_of
from tests.torture.fleet import Fleet, Scale, kill, nothing, undergo
from worker.emulator import UNDECIDABLE
from worker.errors import ConfigError, LedgerError, LedgerHeldError, LedgerRefusedError
from worker.fleet import Crew, Parts
from worker.lease import Lease
from worker.ledger import FENCED, Fence, Fenced, Intent, Known, Settle, opening, steering
from worker.ledger.crew import look_at_fleet
from worker.ledger.fleet import FleetLedger
from worker.ledger.keeping import copy_ledger
from worker.ledger.postgres import create_ledger, open_ledger, open_together
from worker.ledger.queue import CHUNK_ROWS, Desk, Filling, Pacer, Told, partition_of, set_up
from worker.model import Failed, Row, Settlement, State
from worker.place import Server
from worker.stopping import Stop

NOTHING = Told(0, None)


@pytest.fixture
def place(server: Postgres) -> Server:
    """Return a schema with a ledger and a queue."""
    found = server.new_schema()
    create_ledger(found)
    set_up(found)
    return found


@pytest.fixture
def ledger(place: Server) -> Iterator[FleetLedger]:
    """Return a ledger that is open for several, with a run and an input."""
    with closing(open_together(place)) as opened:
        opened.start_run("worker")
        opened.register(SOURCE)
        yield opened


@pytest.fixture
def desk(place: Server, ledger: FleetLedger) -> Iterator[Desk]:
    """Return the desk of a worker, whose run is the ledger's."""
    assert ledger.path == place
    with closing(Desk(place)) as opened:
        opened.join(1)
        yield opened


def rows(count: int, channel: int = 0) -> list[Row]:
    """Return rows of one channel."""
    return [row(number, channel)._replace(source=1) for number in range(count)]


def fill(place: Server, wanted: list[Row]) -> Filling:
    """Queue rows, and hand them out."""
    with closing(Filling(place)) as filling:
        filling.resume()
        filling.put(wanted)
        filling.finish()
        return filling


# ---- steering -------------------------------------------------------------------------------------------------------


def test_a_lone_worker_is_steered_after_other_runs_have_ended(place: Server, ledger: FleetLedger) -> None:
    """Another worker or an `enqueue` came and went: its run is no longer the newest, but it is one of the crew."""
    with closing(open_together(place)) as other:
        other.start_run("enqueue")
        other.end_run(0, "queued", "{}")
    with pytest.raises(LedgerRefusedError, match="has only just opened it"):
        steering.give_order(place, "pause", None, "me")  # it has not joined yet, and will look for standing orders
    with closing(Desk(place)) as desk:
        desk.join(1)
        given: tuple[tuple[steering.Command, float | None], ...]
        given = (("pause", None), ("rate", 5.0), ("resume", None), ("drain", None))
        for command, rate in given:
            assert steering.give_order(place, command, rate, "me") == [1]
    with closing(steering.Orders(place, 1)) as orders:
        assert [order.command for order in orders.next()] == ["pause", "rate", "resume", "drain"]
    assert ledger.path == place


# ---- the queue ------------------------------------------------------------------------------------------------------


def test_rows_are_queued_once_and_handed_out_in_their_order(place: Server, ledger: FleetLedger, desk: Desk) -> None:
    """A chunk is full at some hundreds of rows; one of a partition is out at a time, the first one first."""
    wanted = rows(2 * CHUNK_ROWS + 10)
    first = fill(place, wanted)
    assert (first.queued, first.known, first.chunks) == (len(wanted), 0, 3)
    again = fill(place, wanted)
    assert (again.queued, again.known, again.chunks) == (0, len(wanted), 0)
    taken = desk.take()
    assert taken is not None
    assert desk.take() is None
    found = [one.row for one in ledger.queued(taken.chunk, 0, 1000)]
    assert found == wanted[: len(found)]
    assert desk.finish(taken)
    later = desk.take()
    assert later is not None
    assert later.chunk > taken.chunk


def test_the_queue_is_empty_when_no_chunk_waits_or_is_held(place: Server, desk: Desk) -> None:
    """A worker that ends with the queue relies on it."""
    assert desk.is_empty()
    fill(place, rows(5))
    assert not desk.is_empty()
    taken = desk.take()
    assert taken is not None
    assert not desk.is_empty()
    assert desk.finish(taken)
    assert desk.is_empty()


def test_what_an_enqueue_left_open_is_handed_out_by_the_next(place: Server, desk: Desk) -> None:
    """Rows whose chunk has no job are not lost: a crash between them, or a chunk that ended with rows in it."""
    with closing(Filling(place)) as filling:
        filling.put(rows(5))
    assert desk.take() is None
    assert fill(place, []).chunks == 1
    taken = desk.take()
    assert taken is not None
    assert desk.finish(taken)
    assert desk.take() is None
    found = look_at_fleet(place)
    assert found is not None
    assert found[:4] == (5, 0, 0, 5)
    assert fill(place, []).chunks == 1
    assert desk.take() is not None


def test_rows_that_failed_are_queued_once_more(place: Server, ledger: FleetLedger) -> None:
    """From their stored records, whatever file is read."""
    wanted, *_ = rows(1)
    [number] = ledger.write([Intent(wanted)])
    assert isinstance(number, int)
    ledger.write([Settle(number, Settlement(wanted.key, OUTCOMES[4]))])
    assert fill(place, []).queued == 1
    assert fill(place, []).queued == 0


def test_a_ledger_with_queued_rows_is_not_moved(place: Server, tmp_path: Path) -> None:
    """They would stay behind."""
    with closing(open_together(place)) as opened:
        opened.start_run("enqueue")
        opened.register(SOURCE)
    fill(place, rows(3))
    with pytest.raises(LedgerRefusedError, match="3 rows are queued"):
        copy_ledger(place, tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


def test_a_row_that_failed_at_a_worker_may_be_sent_by_it_again(place: Server, ledger: FleetLedger, desk: Desk) -> None:
    """A worker's run lasts for days: what is queued once more is sent once more."""
    [wanted] = rows(1)
    for attempt in (1, 2):
        assert fill(place, [wanted] if attempt == 1 else []).queued == 1
        taken = desk.take()
        assert taken is not None
        [number] = ledger.write([Fenced(Intent(wanted), taken.fence)])
        assert isinstance(number, int)
        ledger.write([Fenced(Settle(number, Settlement(wanted.key, OUTCOMES[4])), taken.fence)])
        assert desk.finish(taken)


def test_one_enqueue_at_a_time(place: Server) -> None:
    """Two would fill each other's chunks."""
    with closing(Filling(place)), pytest.raises(LedgerHeldError, match="another enqueue"):
        Filling(place)
    Filling(place).close()


def test_rows_of_a_channel_are_in_one_partition() -> None:
    """Whatever process asks, and however the sid is written."""
    assert [partition_of(sid("UO", number)) for number in range(4)] == [102, 99, 131, 14]
    assert [partition_of(sid("UO", number).upper()) for number in range(4)] == [102, 99, 131, 14]


# ---- fences ---------------------------------------------------------------------------------------------------------


def test_who_lost_a_chunk_records_nothing_more_for_it(place: Server, ledger: FleetLedger, desk: Desk) -> None:
    """Neither an intent, so that nothing is sent, nor an outcome: its rows are somebody else's."""
    wanted = rows(3)
    fill(place, wanted)
    taken = desk.take()
    assert taken is not None
    number, other = ledger.write([Fenced(Intent(wanted[0]), taken.fence), Fenced(Intent(wanted[1]), taken.fence)])
    assert isinstance(number, int)
    assert isinstance(other, int)
    assert ledger.write([Fenced(Settle(other, Settlement(wanted[1].key, OUTCOMES[0])), taken.fence)]) == [None]
    assert desk.give_back(taken)
    late = Fenced(Settle(number, Settlement(wanted[0].key, OUTCOMES[0])), taken.fence)
    group = [late, Fenced(Intent(wanted[2]), taken.fence)]
    assert ledger.write([*group, Intent(row(50)._replace(source=1))])[:2] == [FENCED, FENCED]
    assert not desk.give_back(taken)
    assert not desk.finish(taken)
    again = desk.take()
    assert again is not None
    assert again.fence == Fence(taken.fence.job, taken.fence.taken + 1)
    with pytest.raises(LedgerError, match="another worker"):
        ledger.take_over(*taken)
    ledger.take_over(*again)
    assert [one.key for one in ledger.doubts(again.chunk, 0, 10)] == [wanted[0].key]
    assert ledger.held(again.chunk) == {wanted[0].channel_sid: {wanted[0].key}}
    assert [one.row.key for one in ledger.queued(again.chunk, 0, 10)] == [wanted[0].key, wanted[2].key]


@pytest.mark.parametrize(
    ("outcome", "left"),
    [*((one, 0) for one in OUTCOMES[:5]), (OUTCOMES[5], 1), (Failed("not_sent", "was stopped"), 1)],
    ids=lambda one: getattr(one, "code", type(one).__name__) if not isinstance(one, int) else "",
)
def test_a_row_leaves_the_queue_once_it_is_settled(
    place: Server, ledger: FleetLedger, desk: Desk, outcome: object, left: int
) -> None:
    """What is in doubt, or was stopped before it left, is for whoever has the chunk next."""
    [wanted] = rows(1)
    fill(place, [wanted])
    taken = desk.take()
    assert taken is not None
    [number] = ledger.write([Fenced(Intent(wanted), taken.fence)])
    assert isinstance(number, int)
    ledger.write([Fenced(Settle(number, Settlement(wanted.key, outcome)), taken.fence)])  # type: ignore[arg-type]
    assert len(ledger.queued(taken.chunk, 0, 10)) == left


def test_a_row_that_the_ledger_forbids_leaves_the_queue(place: Server, ledger: FleetLedger, desk: Desk) -> None:
    """Another way has created it meanwhile."""
    [wanted] = rows(1)
    fill(place, [wanted])
    Bench.bring(_bench(ledger), wanted, OUTCOMES[0])
    taken = desk.take()
    assert taken is not None
    [answer] = ledger.write([Fenced(Intent(wanted), taken.fence)])
    assert isinstance(answer, Known)
    assert answer.state is State.CREATED
    assert ledger.queued(taken.chunk, 0, 10) == []


def _bench(ledger: FleetLedger) -> Bench:
    bench = Bench.__new__(Bench)
    bench.ledger, bench.source = ledger, 1
    return bench


def test_the_silent_are_relieved_and_know_it(place: Server, ledger: FleetLedger, desk: Desk) -> None:
    """Their chunks are free at once, and their next sign of life is answered with no."""
    fill(place, rows(3))
    taken = desk.take()
    assert taken is not None
    with closing(Desk(place)) as other:
        other.join(ledger.start_run("worker"))
        assert other.relieve(60.0) == 0
        assert desk.beat({"requests": 1})
        silent = "UPDATE procrastinate_workers SET last_heartbeat = now() - interval '61 seconds' WHERE id = 1"
        with ledger.transaction() as connection:
            connection.execute(silent)
        assert other.relieve(60.0) == 1
        assert other.take() is not None
    assert not desk.beat({})
    assert not desk.finish(taken)


def test_who_leaves_gives_back_what_it_has(place: Server, ledger: FleetLedger, desk: Desk) -> None:
    """Another worker need not wait until it is missed."""
    fill(place, rows(3))
    assert desk.take() is not None
    desk.leave()
    desk.join(ledger.start_run("worker"))
    assert desk.take() is not None


def test_slots_of_all_hosts_are_on_one_schedule(place: Server) -> None:
    """Whoever asks gets what comes after the others', and a pause holds for all."""
    with closing(Pacer(place)) as one, closing(Pacer(place)) as other:
        first = one.slots("rate", 1.0, 10, NOTHING).seconds
        assert first <= 0
        assert 9 < other.slots("rate", 1.0, 5, NOTHING).seconds <= 10
        assert 14 < one.slots("rate", 1.0, 1, NOTHING).seconds <= 15
        assert other.slots("list rate", 1.0, 1, NOTHING).seconds <= 0
        one.hold("list rate", 30.0)
        assert 29 < other.slots("list rate", 1.0, 1, NOTHING).seconds <= 30


def test_what_one_host_found_is_told_with_the_slots(place: Server) -> None:
    """Of what several find at the same moment the least counts; later the newest, also that there is no limit."""

    def pass_on(seconds: int) -> None:
        with closing(open_together(place)) as ledger, ledger.transaction() as connection:
            connection.execute("UPDATE pace SET found_at = found_at - ?", (seconds,))

    with closing(Pacer(place)) as one, closing(Pacer(place)) as other:
        assert one.slots("rate", 50.0, 2, NOTHING)[1:] == (0, inf, 0)
        assert other.slots("rate", 50.0, 1, Told(3, None))[1:] == (3, inf, 0)
        first = other.slots("rate", 50.0, 1, Told(2, 20.0))
        assert (first.admitted, first.found) == (5, 20.0)
        assert one.slots("rate", 50.0, 1, NOTHING)[1:] == first[1:]
        pass_on(-3600)  # however long the next statement takes, it is the same moment
        assert one.slots("rate", 50.0, 0, Told(0, 30.0)).found == 20.0
        pass_on(3600)
        assert one.slots("rate", 50.0, 0, Told(0, 30.0)).found == 30.0
        pass_on(3600)
        assert one.slots("rate", 50.0, 0, Told(1, inf))[1:3] == (6, inf)
        assert one.slots("list rate", inf, 0, Told(1, 7.0))[1:3] == (1, 7.0)


# ---- the ledger of several ------------------------------------------------------------------------------------------


def test_workers_share_a_ledger_and_whoever_wants_it_alone_waits(place: Server, ledger: FleetLedger) -> None:
    """A run would take what they have under way for a crash's."""
    open_together(place).close()
    with pytest.raises(LedgerHeldError, match="is working on this ledger"):
        open_ledger(place)
    ledger.close()
    with closing(open_ledger(place)), pytest.raises(LedgerHeldError):
        open_together(place)


def test_without_the_extra_one_is_told_which(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a traceback."""
    monkeypatch.setattr(opening, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"flex-import\[fleet\]"):
        opening.require_driver("the command worker")


# ---- ordeals --------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(180)
@pytest.mark.parametrize("torment", [nothing, kill], ids=lambda torment: torment.__name__)
async def test_no_row_is_made_twice_or_lost(tmp_path: Path, torment: object) -> None:
    """Three workers, a service that breaks connections, and one of them killed now and then."""
    scale = Scale(rows=900, channels=60, rate=100, minutes=2, spared=UNDECIDABLE)
    passed = await undergo("small", torment, scale, tmp_path)  # type: ignore[arg-type]
    assert passed.problems == []
    assert (passed.made, passed.blows > 0) == (900, torment is kill)


async def test_a_fleet_is_seen_and_steered(tmp_path: Path, server: Postgres) -> None:
    """Status shows the queue and who is there; control reaches every worker; each ends as it was told."""
    from worker.emulator import Emulator, serve  # noqa: PLC0415 - only here

    emulator = Emulator()
    async with serve(emulator) as base_url:
        fleet = Fleet(Scale(rows=600, channels=100, rate=30, workers=2), tmp_path, server, emulator, base_url)
        fleet.env["FLEX_IMPORT__METRICS__TEXTFILE"] = "worker.prom"

        async def look() -> dict[str, Any]:
            found: dict[str, Any] = json.loads((await fleet.command("status", "--json"))[1])["fleet"]
            return found

        async def paused(workers: int) -> None:
            seen: list[dict[str, Any]] = []
            while [(one.get("held"), one.get("in_flight")) for one in seen] != [("paused", 0)] * workers:
                seen = [host["sample"] for host in (await look())["hosts"]]

        await fleet.enqueue()
        code, out, _ = await fleet.command("status")
        assert (code, "queue: 600 rows, 0 chunks being sent" in out, "no worker is running" in out) == (0, True, True)
        for _ in range(2):
            await fleet.hire()
        await emulator.until(lambda: emulator.stats.created > 20)
        found = await look()
        assert {one["pid"] for one in found["hosts"]} == {one.pid for one in fleet.workers}
        assert f"process {fleet.workers[0].pid} (run " in (await fleet.command("status"))[1]
        one, other = (host["run"] for host in found["hosts"])
        said = f"runs {one} and {other} are told to pause (they look every second)\n"
        assert await fleet.command("control", "pause") == (0, said, "")
        await paused(2)
        before = emulator.stats.arrived
        assert (await fleet.command("retry"))[0] == 5
        assert (await fleet.command("control", "drain"))[0] == 0
        assert [await one.wait() for one in fleet.workers] == [6, 6]
        found = await look()
        assert (found["hosts"], found["taken"]) == ([], 0)
        told = (tmp_path / "worker.prom").read_text()
        assert "flex_import_queued_rows" in told
        assert re.search(r"^flex_import_workers [12]\.0$", told, re.MULTILINE)
        assert [one["command"] for one in found["orders"]] == ["pause"]
        late = await fleet.hire()
        await paused(1)
        assert "pause, as " in (await fleet.command("status"))[1]
        assert emulator.stats.arrived == before < 600
        assert (await fleet.command("control", "resume"))[0] == 0
        await emulator.until(lambda: emulator.stats.arrived > before)
        late.terminate()
        assert await late.wait() == 143
        await fleet.finish()


async def test_a_worker_ends_with_the_queue(tmp_path: Path, server: Postgres) -> None:
    """It ends when no chunk is left, also when there never was one; rows that nobody can take are not called done."""
    from worker.emulator import Emulator, serve  # noqa: PLC0415 - only here

    emulator = Emulator()
    async with serve(emulator) as base_url:
        fleet = Fleet(Scale(rows=120, channels=40, rate=60, workers=1), tmp_path, server, emulator, base_url)
        await fleet.enqueue()
        ended = await finish(await fleet.hire("--exit-when-empty"))
        assert (ended.code, emulator.stats.created) == (0, 120)
        ended = await finish(await fleet.hire("--exit-when-empty"))
        assert (ended.code, json.loads(ended.out)["reason"]) == (0, "finished, every row is done")
        with closing(Filling(fleet.place)) as cut_off:
            cut_off.put(rows(5))
        ended = await finish(await fleet.hire("--exit-when-empty"))
        reason = "no chunk is left, but 5 rows in the queue wait for the next enqueue"
        assert (ended.code, json.loads(ended.out)["reason"]) == (4, reason)


class _LookingDesk(Desk):
    """A desk that keeps what it answered; another worker's chunk is over at the second look."""

    def __init__(self, place: Server, over: Callable[[], bool]) -> None:
        super().__init__(place)
        self.looks: list[bool] = []
        self._over = over

    def is_empty(self) -> bool:
        self.looks.append(super().is_empty())
        if len(self.looks) == 2:
            assert self._over()
        return self.looks[-1]


async def test_chunks_of_others_are_not_the_end(place: Server, ledger: FleetLedger, desk: Desk) -> None:
    """A worker that ends with the queue looks again while another one has a chunk: it may come back."""
    fill(place, rows(5))
    taken = desk.take()
    assert taken is not None
    with closing(_LookingDesk(place, partial(desk.finish, taken))) as mine, closing(Pacer(place)) as pacer:
        mine.join(ledger.start_run("worker"))
        crew = Crew(
            mine,
            pacer,
            Lease(),
            Stop(),
            slots=[],
            sample=dict,
            wake=lambda: None,
            on_relieved=lambda _: None,
            clock=time.monotonic,
            exit_when_empty=True,
        )
        with anyio.fail_after(20):
            await crew.work(cast("Parts", None), 1)  # no chunk comes to it
        assert mine.looks == [False, False, True]


async def test_rows_that_wait_for_their_slot_are_no_outage(tmp_path: Path, server: Postgres) -> None:
    """A worker has more rows in its chunks than connections: none of them waits for one until it counts as broken."""
    from worker.emulator import Emulator, serve  # noqa: PLC0415 - only here

    emulator = Emulator()
    async with serve(emulator) as base_url:
        scale = Scale(rows=2_000, channels=2_000, rate=0.4, workers=1, concurrency=2)
        fleet = Fleet(scale, tmp_path, server, emulator, base_url)
        fleet.env |= {"FLEX_IMPORT__API__CONNECT_TIMEOUT_SECONDS": "1.5"}
        fleet.env |= {"FLEX_IMPORT__LOG__FILE": "log", "FLEX_IMPORT__LOG__LEVEL": "debug"}
        await fleet.enqueue()
        worker = await fleet.hire()
        await emulator.until(lambda: emulator.stats.created >= 3)
        worker.terminate()
        assert (await finish(worker)).code == 143
        assert "no connection in time" not in (tmp_path / "log").read_text()


async def test_of_a_pipe_that_breaks_off_no_half_record_is_queued(tmp_path: Path, server: Postgres) -> None:
    """Exit 2, with the line; the whole input queues each row once."""
    whole = csv_of(3).encode()
    words = ("enqueue", "-", "--json", "--base-url", "http://127.0.0.1:9", "--ledger", server.new_schema())
    cut = await finish(await start(*words, cwd=tmp_path, stdin=PIPE), whole.rstrip()[:-1])
    assert cut.code == 2
    assert "stdin: line 4: the last line has no line end" in cut.err
    assert "what was queued so far is handed out by the same command again" in cut.err
    ended = await finish(await start(*words, cwd=tmp_path, stdin=PIPE), whole)
    told = json.loads(ended.out)
    assert (ended.code, told["read"], told["queued"] + told["known"]) == (0, 3, 3)


async def test_a_file_is_no_place_for_several(tmp_path: Path) -> None:
    """The message says what is."""
    from tests.commands import flex_import  # noqa: PLC0415 - only here

    (tmp_path / "a.csv").write_text("a\n1\n")
    for words in (("enqueue", "a.csv"), ("worker",)):
        ended = await flex_import(*words, cwd=tmp_path)
        assert (ended.code, "--ledger postgresql://HOST/NAME" in ended.err) == (2, True)
