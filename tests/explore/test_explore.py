"""`make explore` in short: no promise breaks, each assumption is needed, and complete runs agree."""

import re
from pathlib import Path
from random import Random

import pytest

from tests.commands import ROOT
from tests.explore import event, runner
from tests.explore.__main__ import main
from tests.explore.assumption import ALL, Assumption
from tests.explore.event import Model, Scope
from tests.explore.explorer import SCOPES, explore, scope_without
from tests.explore.replay import differences, random_story
from tests.explore.world import Budget
from worker.doubts import Doubts
from worker.ledger import statement
from worker.ledger.tables import Tables
from worker.model import Answer, InDoubt, Retry, Row, Verdict
from worker.reconcile import Reconciler, decide
from worker.verdict import judge

STORIES = {
    Assumption.SETTLES: (6, "row 1 is recorded as failed, and exists"),
    Assumption.LISTED: (5, "row 1 is recorded as created with the sid of the stranger"),
    Assumption.STAYS_LISTED: (4, "row 1 is recorded as created with the sid of the resident"),
    Assumption.ALONE: (5, "row 1 is recorded as created with the sid of the stranger"),
    Assumption.EARLIER: (5, "row 1 is recorded as created with the sid of the stranger"),
    Assumption.TYPED: (5, "row 1 is recorded as created with the sid of an agent"),
    Assumption.OWN_ROUTING: (4, "row 1 is recorded as created with the sid of the resident"),
    Assumption.OWN_ANSWER: (3, "row 1 is recorded as created with the sid of nobody in this channel"),
    Assumption.REFUSED: (3, "row 1 is recorded as rejected, and exists"),
    Assumption.MEMBER: (3, "row 1 is recorded as a member, and is none"),
    Assumption.DURABLE: (3, "row 1 was created, and the ledger does not have it"),
    Assumption.ONE_WORKER: (8, "row 1 was created twice: row 1's participant and row 1's participant no. 2"),
    Assumption.ONE_CREATE: (7, "row 1 is recorded as created with the sid of row 2's participant"),
    Assumption.PATIENT: (5, "row 1 is recorded as failed, and exists"),
    Assumption.RIGHT: (4, "row 1 is recorded as failed, and exists"),
}
"""The number of events of the shortest story without each assumption, and what it breaks."""

REPLAYABLE = [
    one for one in Assumption if one not in {Assumption.DURABLE, Assumption.ONE_WORKER, Assumption.ONE_CREATE}
]
"""Assumptions whose stories have one process and an intact disk, so that a complete run can replay them."""


@pytest.mark.parametrize("scope", SCOPES, ids=str)
def test_with_all_assumptions_no_promise_breaks(scope: Scope) -> None:
    """Never twice, never lost, never a wrong sid: in hundreds of states, and the stories are not trivial."""
    found = explore(scope, states=600)
    assert [told.words for told, _ in found.story] == []
    assert found.states >= 600
    assert found.depth >= 4


@pytest.mark.parametrize("assumption", Assumption, ids=lambda one: one.name)
def test_each_assumption_is_needed(assumption: Assumption) -> None:
    """Without it the explorer finds a story that breaks a promise, and the shortest one."""
    found = explore(scope_without(assumption), ALL - {assumption}, seconds=50)
    assert (len(found.story), found.problem) == STORIES[assumption]


@pytest.mark.parametrize("scope", SCOPES, ids=str)
def test_whole_runs_do_what_the_explorer_says(tmp_path: Path, scope: Scope) -> None:
    """Stories of chance, played by `Pipeline.run` on a ledger on the disk, leave it as the explorer says."""
    model, dice, kinds = Model(scope, ALL), Random(7), set()
    for number in range(5):
        story = random_story(model, dice, 20)
        kinds |= {(told.kind, told.dies) for told, _ in story}
        assert differences(tmp_path / f"{number}.db", model, story) == []
    model.close()
    assert {("run", False), ("call", False), ("time", False)} <= kinds
    assert {kind for kind, dies in kinds if dies}


@pytest.mark.parametrize("assumption", REPLAYABLE, ids=lambda one: one.name)
def test_a_whole_run_breaks_the_same_promise(tmp_path: Path, assumption: Assumption) -> None:
    """A story that breaks a promise is no fault of the explorer's own."""
    scope = scope_without(assumption)
    found, model = explore(scope, ALL - {assumption}), Model(scope, ALL - {assumption})
    assert differences(tmp_path / "imports.db", model, found.story) == []
    model.close()


def test_a_story_that_is_told_wrong_is_noticed(tmp_path: Path) -> None:
    """A ledger that holds something else than the explorer says makes a difference."""
    model = Model(Scope(1), ALL)
    story = random_story(model, Random(1), 10)
    told, state = story[-1]
    rows = tuple(row._replace(state="existed", sid=None) for row in state.held.rows)
    story[-1] = told, state._replace(held=state.held._replace(rows=rows))
    assert rows
    assert differences(tmp_path / "imports.db", model, story) != []
    model.close()


# ---- the explorer bites ---------------------------------------------------------------------------------------------


def adopt_without_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a channel that was not listed before for an empty one."""
    monkeypatch.setattr(
        "worker.reconcile.decide",
        lambda row, listed, around: decide(row, listed, around._replace(baseline=around.baseline or frozenset())),
    )


def believe_absence_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the settle time."""
    monkeypatch.setattr(event, "SETTINGS", runner.SETTINGS.model_copy(update={"settle_seconds": 0.0}))


def count_from_an_earlier_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the settle time of an earlier run's row from long before the ledger was opened."""
    expect = Doubts.expect
    monkeypatch.setattr(Doubts, "expect", lambda self, row, since: expect(self, row, since - 1000))


def repeat_after_a_500(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send again what a 500 answered."""

    def judge_it(answer: Answer, row: Row | None = None) -> Verdict:
        verdict = judge(answer, row)
        return Retry("500", "again") if isinstance(verdict, InDoubt) and verdict.code == "20500" else verdict

    monkeypatch.setattr("worker.submit.judge", judge_it)


def take_any_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not compare an answer with its request."""
    monkeypatch.setattr("worker.submit.judge", lambda answer, _row=None: judge(answer, None))


def take_a_known_sid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Believe an answer that names a participant that is known."""
    monkeypatch.setattr(Tables, "_is_known", lambda *_: False)


def forget_the_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take nobody for there before."""

    async def baseline(_reconciler: Reconciler, _row: Row) -> tuple[str, ...]:
        return ()

    monkeypatch.setattr(Reconciler, "baseline", baseline)


def fail_what_a_crash_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take rows that were being sent in a crash for rows that were not created."""
    monkeypatch.setattr(statement, "CRASHED", statement.CRASHED.replace("'in_doubt'", "'failed'", 1))


@pytest.mark.parametrize(
    "fault",
    [
        adopt_without_baseline,
        believe_absence_at_once,
        count_from_an_earlier_run,
        repeat_after_a_500,
        take_any_answer,
        take_a_known_sid,
        forget_the_baseline,
        fail_what_a_crash_left,
    ],
    ids=lambda fault: fault.__name__,
)
def test_a_fault_in_the_code_is_found(monkeypatch: pytest.MonkeyPatch, fault: object) -> None:
    """What the explorer takes for granted is not what it is to find out."""
    assert callable(fault)
    fault(monkeypatch)
    found = explore(Scope(1, Budget(starts=2, joins=0, unlisted=1)), seconds=50)
    assert found.problem


def test_without_a_fault_the_same_stories_break_nothing() -> None:
    """What these tests find are the faults."""
    found = explore(Scope(1, Budget(starts=2, joins=0, unlisted=1)), states=2000)
    assert not found.problem


def test_the_command_tells_stories(capsys: pytest.CaptureFixture[str]) -> None:
    """In numbered lines, with what they break."""
    assert main(["--without", "member"]) == 0
    out = capsys.readouterr().out
    assert "   1. A run starts\n" in out
    assert "So row 1 is recorded as a member, and is none." in out


def test_the_docs_list_each_assumption() -> None:
    """Whoever reads what is promised reads what it rests on."""
    page = (ROOT / "docs" / "guarantees.md").read_text()
    assert re.findall(r"^\| (\S.*?) \|", page.partition("## What it rests on")[2], re.MULTILINE)[1:] == [
        one.value for one in Assumption
    ]
