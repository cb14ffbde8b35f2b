"""Undoing: what was created is closed, once and for all, and nothing else is."""

import functools
import json
import re
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.commands import QUICK, Ended, flex_import, start
from tests.fakes import free_traffic
from tests.ledger_contract import Desk
from tests.samples_of import sid
from tests.test_command import csv_of, states
from tests.test_ledger_sqlite import SqlitePlace
from tests.virtual_clock import run
from worker.cli import call, undoing
from worker.emulator import Answer as Canned
from worker.emulator import Behaviour, Call, Emulator, Fault, after, before, serve
from worker.journal import Journal
from worker.ledger import Baseline, Settle
from worker.ledger.view import View
from worker.model import (
    Answer,
    Cause,
    Created,
    Exit,
    Halt,
    InDoubt,
    Listed,
    Listing,
    Lost,
    NotSent,
    Reply,
    Retry,
    Settlement,
)
from worker.stopping import NOT_THE_API, Stop
from worker.traffic import LaneDeparture
from worker.undo import FIRST_FORBIDDEN, FIRST_REFUSED, Reversal, Undoer, Undone
from worker.verdict import Closed, Refused, judge_closing

UT = sid("UT", 1)
SETTLE_SECONDS = 60


def reply(status: int, code: int | None = None) -> Reply:
    """Return an answer of the API's."""
    body: dict[str, object] = {"status": status, "message": "no", "code": code}
    return Reply(status, json.dumps(body).encode(), "RQ", None, None)


def closed(participant: str = UT, said: str | None = "closed") -> Reply:
    """Return what the API says of a participant that was closed, or of one in another status."""
    return Reply(200, json.dumps({"sid": participant, "status": said}).encode(), "RQ", None, None)


NOT_SAID = Retry("not_closed", "the answer does not say that this participant is closed")
STRANGERS = Reply(404, b"<html>", None, None, None)


# ---- what an answer means -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (closed(), Closed()),
        (closed(UT.replace("UT", "ut").upper()), Closed()),
        (closed(said="open"), NOT_SAID),
        (closed(said=None), NOT_SAID),
        (closed(sid("UT", 2)), NOT_SAID),
        (reply(401, 20003), Halt("20003", "the credentials were refused")),
        (reply(403, 20403), Refused("20403", "forbidden", forbidden=True)),
        (reply(404, 20404), Refused("20404", "no such participant: it may be gone already", gone=True)),
        (reply(400, 45354), Refused("45354", "the conversation is closed")),
        (reply(400, 45004), Refused("45004", "a parameter is invalid or missing")),
        (STRANGERS, Retry("404", "status 404", stranger=True)),
        (Reply(302, b"", None, None, None), Retry("302", "status 302", stranger=True)),
        (reply(503, 20503), Retry("20503", "status 503")),
        (reply(408), Retry("408", "status 408")),
        (reply(400, 45362), Refused("45362", "no such participant: it may be gone already", gone=True)),
        (reply(400, 45310), Refused("45310", "no such participant: it may be gone already", gone=True)),
        (Lost("no answer"), Retry("lost", "no answer")),
        (NotSent("refused"), Retry("no_connection", "refused")),
    ],
)
def test_what_cannot_be_known_is_asked_again(answer: Answer, verdict: object) -> None:
    """A participant that is closed twice is closed, so nothing is ever in doubt."""
    assert judge_closing(answer, UT) == verdict


@pytest.mark.parametrize("body", [b"", b"<html>Welcome to our wifi</html>", b"null", b"[]", b'{"ok": true}'])
def test_a_page_with_a_2xx_closes_nothing(body: bytes) -> None:
    """A captive portal answers 200 to everything."""
    verdict = judge_closing(Reply(200, body, None, None, None), UT)
    assert isinstance(verdict, Retry)
    assert verdict.stranger


def test_being_throttled_is_one_too_many_and_nothing_else() -> None:
    """Whatever the code."""
    verdict = judge_closing(reply(429, 45780), UT)
    assert isinstance(verdict, Retry)
    assert verdict.throttled


def in_virtual_time(test: Callable[[SqlitePlace], Coroutine[Any, Any, None]]) -> Callable[[SqlitePlace], None]:
    """Let hours pass in moments, but wait for the ledger's thread, whose commits are bounded in time."""

    @functools.wraps(test)
    def plain(place: SqlitePlace) -> None:
        run(test(place), patience=0.1)

    return plain


# ---- the work -------------------------------------------------------------------------------------------------------


class FakeCloser:
    """Closes participants as told: sid → answers, each once; after that, or without any, it agrees."""

    def __init__(self, answers: dict[str, list[Answer]] | None = None) -> None:
        self.answers = answers or {}
        self.asked: dict[str, list[str]] = defaultdict(list)
        self.most_in_a_channel = 0
        self.gone: dict[str, set[str]] = {}
        self.flaps: set[str] = set()
        self.late: dict[str, float] = {}
        self._open: dict[str, int] = defaultdict(int)

    async def close(self, interaction_sid: str, channel_sid: str, sid: str, departure: LaneDeparture) -> Answer:
        """Answer when there is an answer."""
        assert interaction_sid
        await departure.ready()
        departure.left()
        self._open[channel_sid] += 1
        self.most_in_a_channel = max(self.most_in_a_channel, self._open[channel_sid])
        await anyio.sleep(0.1)
        self._open[channel_sid] -= 1
        self.asked[channel_sid].append(sid)
        left = self.answers.get(sid)
        return left.pop(0) if left else closed(sid)

    async def list(self, interaction_sid: str, channel_sid: str, departure: LaneDeparture) -> Listing:
        """List everybody but those who left, and those who are not listed before some time."""
        assert interaction_sid
        await departure.ready()
        departure.left()
        here = [Listed(sid("UT", number), None, None) for number in range(12)]
        if channel_sid in self.flaps:
            self.flaps.discard(channel_sid)
            return Listing(())
        away = self.gone.get(channel_sid, set()) | {
            late for late, since in self.late.items() if anyio.current_time() < since
        }
        return Listing(tuple(one for one in here if one.sid not in away))


async def undo(
    place: SqlitePlace, closer: FakeCloser, run: int | None = None, *, agents: Collection[str] = ()
) -> tuple[Undone, Stop, list[str]]:
    """Close what a ledger has as created, as the command does. agents: the sids of those that are agents."""
    with closing(place.open()) as ledger:
        ledger.start_run("undo")
        stop, undone, errors = Stop(), Undone(), list[str]()

        async def channels() -> AsyncIterator[Sequence[Reversal]]:
            with View(place.path) as view:
                rows = map(Reversal._make, view.created(run))
                found = [one._replace(type="agent" if one.sid in agents else "customer") for one in rows]
            for channel in dict.fromkeys(one.channel_sid for one in found):
                yield [one for one in found if one.channel_sid == channel]

        async with Journal(ledger) as journal:
            traffic = free_traffic()
            traffic.draining = stop.draining
            undoer = Undoer(
                closer,
                traffic,
                journal,
                undone,
                stop,
                settle_seconds=SETTLE_SECONDS,
                on_error=lambda one, code, _: errors.append(f"{one.key} {code}"),
            )
            await undoer.run(channels(), 4)
    return undone, stop, errors


@pytest.fixture
def place(tmp_path: Path) -> SqlitePlace:
    """Return a ledger in which run 1 has created nine rows in three channels, run 2 three more in one of them."""
    place = SqlitePlace(tmp_path / "imports.db")
    with closing(place.open()) as ledger:
        desk = Desk(ledger)
        for number in range(9):
            desk.bring(desk.row(number, number % 3), Created(sid("UT", number)))
        desk.begin_next_run()
        for number in range(9, 12):
            desk.bring(desk.row(number, 0), Created(sid("UT", number)))
    return place


@in_virtual_time
async def test_the_newest_of_a_channel_goes_first_one_at_a_time(place: SqlitePlace) -> None:
    """So that a channel is taken apart in the order opposite to that in which it was filled."""
    closer = FakeCloser()
    undone, stop, errors = await undo(place, closer)
    assert (undone.closed, undone.errored, errors, stop.causes) == (12, 0, [], [])
    assert closer.asked[sid("UO", 0)] == [sid("UT", number) for number in (11, 10, 9, 6, 3, 0)]
    assert closer.most_in_a_channel == 1
    assert {row["state"] for row in place.rows()} == {"closed"}


@in_virtual_time
async def test_only_what_a_run_created_is_undone(place: SqlitePlace) -> None:
    """The rows of another one stay as they are."""
    undone, _, _ = await undo(place, FakeCloser(), run=2)
    assert undone.closed == 3
    assert [row["state"] for row in place.rows()] == ["created"] * 9 + ["closed"] * 3


@in_virtual_time
async def test_what_may_work_later_is_tried_again_and_what_never_will_is_told(place: SqlitePlace) -> None:
    """A lost answer, a refused connection and a 429 are no reason to give up; a definite no is one."""
    answers: dict[str, list[Answer]] = {
        sid("UT", 1): [Lost("no answer"), reply(503, 20503)],
        sid("UT", 2): [reply(429, 45780)] * 20,
        sid("UT", 4): [NotSent("refused")],
        sid("UT", 5): [reply(404, 20404)],
        sid("UT", 7): [Lost("no answer")] * 99,
    }
    undone, stop, errors = await undo(place, FakeCloser(answers))
    assert (undone.closed, undone.errored) == (10, 2)
    assert sorted(error.partition(" ")[2] for error in errors) == ["20404", "lost"]
    assert undone.throttled == 20
    assert stop.causes == []
    assert undone.errors[("20404", "no such participant: it may be gone already")][0] == 1


@in_virtual_time
async def test_a_participant_that_is_not_found_after_a_lost_answer_is_closed(place: SqlitePlace) -> None:
    """The request whose answer was lost has closed it."""
    gone: dict[str, list[Answer]] = {
        sid("UT", number): [Lost("no answer"), reply(status, code)]
        for number, (status, code) in enumerate([(404, 20404), (400, 45362), (400, 45310)])
    }
    undone, _, errors = await undo(place, FakeCloser(gone))
    assert (undone.closed, undone.errored, errors) == (12, 0, [])


@pytest.mark.parametrize(("status", "code"), [(404, 20404), (400, 45362), (400, 45310)])
def test_a_participant_that_an_undo_closed_before_it_was_killed_is_closed(
    place: SqlitePlace, status: int, code: int
) -> None:
    """It is said to be gone, and is not listed; one that a list shows, if only the second, stays as it is."""

    @in_virtual_time
    async def again(place: SqlitePlace) -> None:
        closer = FakeCloser({sid("UT", number): [reply(status, code)] for number in (1, 2)})
        closer.gone[sid("UO", 1)] = {sid("UT", 1)}
        closer.flaps.add(sid("UO", 2))
        undone, _, errors = await undo(place, closer)
        assert (undone.closed, [error.partition(" ")[2] for error in errors]) == (11, [str(code)])

    again(place)


@in_virtual_time
async def test_a_list_shows_what_the_answer_leaves_open(place: SqlitePlace) -> None:
    """An answer without a status is believed when its participant is not listed any more."""
    silent: dict[str, list[Answer]] = {sid("UT", number): [closed(said=None)] * 99 for number in (1, 2)}
    silent = {participant: [closed(participant, None)] * 99 for participant in silent}
    closer = FakeCloser(silent)
    closer.gone[sid("UO", 1)] = {sid("UT", 1)}
    undone, _, errors = await undo(place, closer)
    assert (undone.closed, [error.partition(" ")[2] for error in errors]) == (11, ["not_closed"])


@in_virtual_time
async def test_a_list_that_lags_closes_nothing(place: SqlitePlace) -> None:
    """Lists may lack for a while who was created just before the undo began."""
    closer = FakeCloser({sid("UT", 1): [closed(said=None)] * 99})
    closer.late = {sid("UT", 1): anyio.current_time() + SETTLE_SECONDS - 1}
    undone, _, errors = await undo(place, closer)
    assert (undone.closed, [error.partition(" ")[2] for error in errors]) == (11, ["not_closed"])


@in_virtual_time
async def test_an_undo_halts_when_the_first_answers_are_nobodys(place: SqlitePlace) -> None:
    """A proxy's login page says 200 to everything: the base URL is wrong, or the network is."""
    page = Reply(200, b"<html>Welcome</html>", None, None, None)
    undone, stop, _ = await undo(place, FakeCloser({sid("UT", number): [page] * 9 for number in range(12)}))
    assert undone.closed == 0
    assert stop.causes == [Cause(Exit.HALTED, NOT_THE_API)]


@in_virtual_time
async def test_refused_credentials_halt_it(place: SqlitePlace) -> None:
    """Every other participant would meet the same wall."""
    undone, stop, _ = await undo(place, FakeCloser({sid("UT", 7): [reply(401, 20003)]}))
    assert [cause.exit for cause in stop.causes] == [3]
    assert undone.closed < 12


@in_virtual_time
async def test_an_account_that_may_not_close_is_found_out(place: SqlitePlace) -> None:
    """Some noes are about participants; only noes are about the account."""
    forbidden: dict[str, list[Answer]] = {sid("UT", number): [reply(403, 20403)] for number in range(12)}
    undone, stop, _ = await undo(place, FakeCloser(forbidden), agents=forbidden)
    assert [cause.exit for cause in stop.causes] == [3]
    assert FIRST_FORBIDDEN <= undone.errored <= FIRST_FORBIDDEN + 3


AGENTS = [sid("UT", number) for number in (0, 4, 9)]
OTHERS = [sid("UT", number) for number in range(12) if sid("UT", number) not in AGENTS]


@in_virtual_time
async def test_others_than_agents_are_kept_once_some_were_refused(place: SqlitePlace) -> None:
    """Twilio documents that only agents can be closed: not all of the others are asked for, and all agents are."""
    noes = (reply(400, 45004), reply(403, 20403))
    closer = FakeCloser({one: [noes[number % 2]] for number, one in enumerate(OTHERS)})
    undone, stop, errors = await undo(place, closer, agents=AGENTS)
    assert FIRST_REFUSED <= undone.errored <= FIRST_REFUSED + 3
    assert (undone.closed, undone.spared) == (3, 9 - undone.errored)
    assert (len(errors), stop.causes) == (undone.errored, [])
    assert sum(map(len, closer.asked.values())) == 3 + undone.errored
    states_ = {row["sid"]: row["state"] for row in place.rows()}
    assert {one for one, state in states_.items() if state == "closed"} == set(AGENTS)


@in_virtual_time
async def test_one_of_the_others_that_is_closed_refutes_the_documentation(place: SqlitePlace) -> None:
    """Then each of them is asked for, whatever is refused; one that is gone refutes nothing and proves nothing."""
    answers: dict[str, list[Answer]] = {one: [reply(400, 45004)] for one in OTHERS if one != sid("UT", 11)}
    undone, _, _ = await undo(place, FakeCloser(answers), agents=AGENTS)
    assert (undone.closed, undone.errored, undone.spared) == (4, 8, 0)
    gone: dict[str, list[Answer]] = {one: [reply(404, 20404)] for one in OTHERS}
    undone, _, _ = await undo(place, FakeCloser(gone), agents=AGENTS)
    assert (undone.errored, undone.spared) == (8, 0)


def test_a_channel_in_capitals_is_undone_with_itself(tmp_path: Path) -> None:
    """The newest first, whichever way its sid was written."""
    place = SqlitePlace(tmp_path / "other.db")
    with closing(place.open()) as ledger:
        desk = Desk(ledger)
        for number in range(4):
            row = desk.row(number, 0)
            upper = row._replace(channel_sid="UO" + row.channel_sid[2:].upper())
            desk.bring(upper if number % 2 else row, Created(sid("UT", number)))
            desk.bring(desk.row(number + 10), Created(sid("UT", number + 10)))
    with View(place.path) as view:
        found = [(str(one[4]).lower(), one[2]) for one in view.created()]
        assert view.reversible()[:2] == (8, 5)
    assert [one for channel, one in found if channel == sid("UO", 0).lower()] == [sid("UT", n) for n in (3, 2, 1, 0)]
    assert [channel for channel, _ in groupby(channel for channel, _ in found)] == sorted({one for one, _ in found})


def test_what_may_be_somebody_elses_is_kept(tmp_path: Path) -> None:
    """A sid that was adopted without a baseline is not closed; one with a baseline is."""
    place = SqlitePlace(tmp_path / "other.db")
    with closing(place.open()) as ledger:
        desk = Desk(ledger)
        for number in (1, 2):
            row = desk.row(number)
            if number == 2:
                desk.ledger.write([Baseline(row, ())])
            doubted = desk.bring(row, InDoubt("lost", "may exist"))
            ended = Settlement(row.key, Created(sid("UT", number)), ends_doubt=True, reconciled=True)
            desk.begin_next_run()
            desk.ledger.write([Settle(doubted, ended)])
    with View(place.path) as view:
        assert view.reversible()[:3] == (1, 1, 1)
        assert [found[2] for found in view.created()] == [sid("UT", 2)]


# ---- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def service() -> AsyncIterator[tuple[Emulator, str]]:
    """An emulated service on loopback."""
    emulator = Emulator()
    async with serve(emulator) as base_url:
        yield emulator, base_url


async def command(folder: Path, base_url: str, *words: str) -> Ended:
    """Run a command at full speed."""
    return await flex_import(*words, "--base-url", base_url, "--rate", "inf", cwd=folder, env=QUICK)


async def test_a_run_is_undone_and_may_be_done_again(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """Its participants are closed; the same file sends nothing until the closed rows are freed, and then each once."""
    emulator, base_url = service
    (tmp_path / "a.csv").write_text(csv_of(60, 20))
    assert (await command(tmp_path, base_url, "run", "a.csv")).code == 0
    ended = await command(tmp_path, base_url, "undo", "--run", "1", "--yes")
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[-1] == ("undo of run 1 ended, exit 0: 60 created = 60 closed + 0 errors + 0 left")
    assert {one.status for one in emulator.truth.participants.values()} == {"closed"}
    assert states(tmp_path) == {"closed": 60}
    again = await command(tmp_path, base_url, "run", "a.csv")
    assert (again.code, "60 closed" in again.out, "already done" in again.out) == (4, True, False)
    assert "flex-import retry --state closed" in again.out
    freed = await command(tmp_path, base_url, "retry", "--state", "closed")
    assert "60 rows closed by undo: free to be sent again" in freed.out
    once_more = await command(tmp_path, base_url, "run", "a.csv")
    assert (once_more.code, states(tmp_path)) == (0, {"created": 60})
    assert emulator.stats.created == 120


async def test_an_undo_that_was_killed_is_finished_by_the_next_one(
    tmp_path: Path, service: tuple[Emulator, str]
) -> None:
    """Whatever it had closed and not recorded is closed once more, which changes nothing."""
    emulator, base_url = service
    (tmp_path / "a.csv").write_text(csv_of(300, 60))
    assert (await command(tmp_path, base_url, "run", "a.csv")).code == 0
    emulator.change(latency_seconds=0.02, faults_after={})
    words = ("undo", "--all", "--yes", "--base-url", base_url, "--rate", "inf")
    process = await start(*words, cwd=tmp_path, env=QUICK)
    await emulator.until(lambda: emulator.stats.updated >= 50)
    process.send_signal(signal.SIGKILL)
    await process.communicate()
    left = states(tmp_path)["created"]
    assert 0 < left < 300
    ended = await command(tmp_path, base_url, *words[:3], "--json")
    told = json.loads(ended.out)
    assert (ended.code, told["closed"], told["left"]) == (0, left, 0)
    assert states(tmp_path) == {"closed": 300}
    assert {one.status for one in emulator.truth.participants.values()} == {"closed"}


async def test_a_signal_drains_an_undo(tmp_path: Path) -> None:
    """What is in flight comes home and is recorded; the rest is left, and said."""
    emulator = Emulator(Behaviour())
    async with serve(emulator) as base_url:
        (tmp_path / "a.csv").write_text(csv_of(200, 200))
        assert (await command(tmp_path, base_url, "run", "a.csv")).code == 0
        emulator.change(latency_seconds=0.1)
        words = ("undo", "--run", "1", "--yes", "--base-url", base_url, "--rate", "inf")
        process = await start(*words, cwd=tmp_path, env=QUICK)
        await emulator.until(lambda: emulator.stats.updated >= 16)
        process.send_signal(signal.SIGTERM)
        out, err = await process.communicate()
        closed = emulator.stats.updated
    assert process.returncode == 143
    assert states(tmp_path) == {"closed": closed, "created": 200 - closed}
    found = re.search(r"200 created = (\d+) closed \+ 0 errors \+ (\d+) left", out.decode())
    assert found is not None
    assert list(map(int, found.groups())) == [closed, 200 - closed]
    assert b"Stopping: " in err


async def test_what_the_service_refuses_is_told_with_its_reason(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """Exit 1, and its row stays created, so that the next undo asks once more."""
    emulator, base_url = service
    (tmp_path / "a.csv").write_text(csv_of(10, 10))
    assert (await command(tmp_path, base_url, "run", "a.csv")).code == 0
    no = Canned(status=400, code=45004, message="not for agents")
    emulator.script(sid("UO", 3), before(no), on=Call.UPDATE)
    emulator.script(sid("UO", 4), after(Fault.RESET), on=Call.UPDATE)
    ended = await command(tmp_path, base_url, "undo", "--run", "1", "--yes")
    assert ended.code == 1
    assert re.search(r"1 x 45004 a parameter is invalid or missing, first \w+", ended.out)
    assert states(tmp_path) == {"closed": 9, "created": 1}
    assert (await command(tmp_path, base_url, "undo", "--run", "1", "--yes")).code == 0


@pytest.mark.parametrize("run", ["0", "3"])
def test_a_run_that_there_never_was_is_not_undone(
    place: SqlitePlace, run: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A misread number closes nothing, and says so."""
    assert place.path.exists()
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)
    assert call(["undo", "--run", run, "--yes", "--base-url", "http://127.0.0.1:9"]) == 2
    assert "there is no such run" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--run", "1", "--all"]])
def test_whose_participants_has_to_be_said(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody undoes everything by leaving something out."""
    assert call(["undo", *words]) == 2
    assert "--run N or --all" in capsys.readouterr().err


@pytest.mark.parametrize("yes", [True, False])
def test_a_person_is_asked_with_the_count(
    place: SqlitePlace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, yes: bool
) -> None:
    """And nothing is closed without a yes; where nobody can be asked, it takes --yes."""
    assert place.path.name == "imports.db"
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)
    nobody = ["undo", "--all", "--base-url", "http://127.0.0.1:9"]
    assert call(nobody) == 2
    told = capsys.readouterr().err
    assert "12 participants that all runs created would be closed, in 3 channels" in told
    assert "Only agents can be closed, as Twilio documents it: 0 agents can be closed;\n" in told
    assert "12 customers cannot. Those are tried all the same, and kept once 5 were refused." in told
    asked: list[str] = []

    def answer(plan: str, question: str) -> bool:
        asked.append(f"{plan}\n{question}")
        return yes

    async def carry_out(_self: Any, _api: Any) -> int:
        await anyio.lowlevel.checkpoint()
        return 77

    monkeypatch.setattr(undoing, "at_terminal", lambda: True)
    monkeypatch.setattr(undoing, "agreed", answer)
    monkeypatch.setattr(undoing._Undoing, "carry_out", carry_out)
    assert call(nobody) == (77 if yes else 2)
    assert asked[0].endswith("Close 12 participants?")


async def test_what_can_be_closed_is_said_by_type(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """Before the question, without one, and in the account; what is not tried is no error and is not left either."""
    emulator, base_url = service
    lines = csv_of(24).splitlines(keepends=True)
    for number in (3, 7, 20):
        lines[number] = lines[number].replace(",customer,", ",agent,")
    lines[24] = lines[24].replace(",customer,", ",external,")
    (tmp_path / "a.csv").write_text("".join(lines))
    assert (await command(tmp_path, base_url, "run", "a.csv")).code == 0
    for one in emulator.participants:
        if one.type != "agent":
            emulator.script(one.channel_sid, before(Canned(status=400, code=45004, message="no")), on=Call.UPDATE)
    said = (
        "Only agents can be closed, as Twilio documents it: 3 agents can be closed;\n",
        "20 customers, 1 external cannot. Those are tried all the same, and kept once 5 were refused.\n",
    )
    asked = await command(tmp_path, base_url, "undo", "--all")
    assert asked.code == 2
    assert all(line in asked.err for line in said)
    ended = await command(tmp_path, base_url, "undo", "--all", "--yes", "--concurrency", "1")
    assert ended.code == 1
    assert all(line in ended.err for line in said)
    assert "not tried            16   only agents can be closed, as the refusals above show" in ended.out
    assert ended.out.endswith("24 created = 3 closed + 5 errors + 0 left + 16 not tried\n")
    assert states(tmp_path) == {"closed": 3, "created": 21}
    ended = await command(tmp_path, base_url, "undo", "--all", "--yes", "--concurrency", "1", "--json")
    told = json.loads(ended.out)
    assert told["types"] == {"customer": 20, "external": 1}
    assert (told["created"], told["closed"], told["errored"], told["left"]) == (21, 5, 16, 0)
    assert told["spared"] == 0
    assert "Only agents" not in ended.err


async def test_of_agents_alone_nothing_is_said(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """All of them can be closed."""
    _, base_url = service
    (tmp_path / "a.csv").write_text(csv_of(3).replace(",customer,", ",agent,"))
    assert (await command(tmp_path, base_url, "run", "a.csv")).code == 0
    asked = await command(tmp_path, base_url, "undo", "--all")
    assert "Only agents" not in asked.err
    assert (await command(tmp_path, base_url, "undo", "--all", "--yes")).code == 0
