"""A real process dies exactly between two steps: what the ledger says then, and what the next run makes of it."""

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.commands import ROOT
from tests.torture.audit import count_states
from tests.torture.crashing import ROWS, Order, to_line, told
from worker.ledger.opening import open_ledger
from worker.ledger.view import COLUMNS, View

FIRST, SECOND, OTHER = (one.key for one in ROWS)


class Forge:
    """Orders runs from the process that forks them."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, order: Order) -> dict[str, Any]:
        """Let one run happen, and return how its process ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(to_line(order))
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found


@pytest.fixture(scope="module")
def forge() -> Iterator[Forge]:
    """One process for all runs of this module: each of them is a fork of it."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.torture.crashing"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Forge(process)
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


class Death(NamedTuple):
    """Where a run dies, and what is true then. state: of the row in question; made: how often it was."""

    point: str
    nth: int
    state: str
    made: int
    row: str = FIRST


class Story(NamedTuple):
    """Deaths, one a run, and a last run that lives. asked: how often the service was asked for the row in all."""

    script: tuple[str, ...]
    deaths: tuple[Death, ...]
    asked: int
    reconciled: bool


def once(script: str, point: str, nth: int, state: str, made: int, *, asked: int, reconciled: bool = False) -> Story:
    """Return a story with one death."""
    return story(Death(point, nth, state, made), script=script, asked=asked, reconciled=reconciled)


def story(*deaths: Death, asked: int, reconciled: bool = False, script: str = "") -> Story:
    """Return a story with these deaths."""
    return Story(tuple(script.split()), deaths, asked, reconciled)


KILLED = {"code": -signal.SIGKILL}

STORIES = {
    # the first attempt, which is answered
    "before the list for the baseline": once("", "list.asked 1", 1, "absent", 0, asked=1),
    "after that list": once("", "list.given 1", 1, "absent", 0, asked=1),
    "before the baseline is stored": once("", "before Baseline 1", 1, "absent", 0, asked=1),
    "baseline entered, not committed": once("", "inside Baseline 1", 1, "absent", 0, asked=1),
    "before the intent is durable": once("", "before Intent 1", 2, "absent", 0, asked=1),
    "intent entered, not committed": once("", "inside Intent 1", 2, "absent", 0, asked=1),
    "after baseline and intent are durable": once("", "after Baseline 1", 1, "in_doubt", 0, asked=1),
    "after the intent, before the request": once("", "create.asked 1", 1, "in_doubt", 0, asked=1),
    "the request left, and was not made": once("", "left 1", 1, "in_doubt", 0, asked=2),
    "the request left, and was made": once("", "made 1", 1, "in_doubt", 1, asked=1, reconciled=True),
    "after the answer": once("", "before Created 1", 1, "in_doubt", 1, asked=1, reconciled=True),
    "outcome entered, not committed": once("", "inside Created 1", 1, "in_doubt", 1, asked=1, reconciled=True),
    "after the outcome is durable": once("", "after Created 1", 1, "created", 1, asked=1),
    # the answer is lost, and it was made
    "before the doubt is durable": once("lost", "before InDoubt 1", 1, "in_doubt", 1, asked=1, reconciled=True),
    "after the doubt is durable": once("lost", "after InDoubt 1", 1, "in_doubt", 1, asked=1, reconciled=True),
    "before the first look": once("lost", "list.asked 1", 2, "in_doubt", 1, asked=1, reconciled=True),
    "after the first look": once("lost", "list.given 1", 2, "in_doubt", 1, asked=1, reconciled=True),
    "before the sid is adopted": once("lost", "before Created 1", 1, "in_doubt", 1, asked=1, reconciled=True),
    "sid entered, not committed": once("lost", "inside Created 1", 1, "in_doubt", 1, asked=1, reconciled=True),
    "after the sid is adopted": once("lost", "after Created 1", 1, "created", 1, asked=1, reconciled=True),
    # the answer is lost, and it was not made: it is sent again
    "lost unmade, doubt is durable": once("gone", "after InDoubt 1", 1, "in_doubt", 0, asked=2),
    "after a look that finds nobody": once("gone", "list.given 1", 2, "in_doubt", 0, asked=2),
    "before the reopening is durable": once("gone", "before Reopen 1", 1, "in_doubt", 0, asked=2),
    "reopening entered, not committed": once("gone", "inside Reopen 1", 1, "in_doubt", 0, asked=2),
    "after the reopening is durable": once("gone", "after Reopen 1", 1, "in_doubt", 0, asked=2),
    "second attempt left, and was not made": once("gone gone", "left 1", 2, "in_doubt", 0, asked=3),
    "second attempt left, and was made": once("gone", "made 1", 1, "in_doubt", 1, asked=2, reconciled=True),
    "after the second attempt's answer": once("gone", "before Created 1", 1, "in_doubt", 1, asked=2, reconciled=True),
    "second attempt lost": once("gone lost", "after InDoubt 1", 2, "in_doubt", 1, asked=2, reconciled=True),
    "after the second attempt's outcome": once("gone", "after Created 1", 1, "created", 1, asked=2),
    # the second row of a channel whose first one is done
    "the second row's intent is durable": story(Death("after Intent 2", 1, "in_doubt", 0, SECOND), asked=1),
    "the second row was made": story(Death("made 2", 1, "in_doubt", 1, SECOND), asked=1, reconciled=True),
    # death upon death
    "made, and again in the look after it": story(
        Death("made 1", 1, "in_doubt", 1), Death("list.given 1", 1, "in_doubt", 1), asked=1, reconciled=True
    ),
    "made, and again before it is adopted": story(
        Death("made 1", 1, "in_doubt", 1), Death("before Created 1", 1, "in_doubt", 1), asked=1, reconciled=True
    ),
    "made, and again after it is adopted": story(
        Death("made 1", 1, "in_doubt", 1), Death("after Created 1", 1, "created", 1), asked=1, reconciled=True
    ),
    "unmade, and again before the reopening": story(
        Death("left 1", 1, "in_doubt", 0), Death("before Reopen 1", 1, "in_doubt", 0), asked=2
    ),
    "unmade, and again after the reopening": story(
        Death("left 1", 1, "in_doubt", 0), Death("after Reopen 1", 1, "in_doubt", 0), asked=2
    ),
    "unmade, and again when it was made": story(
        Death("left 1", 1, "in_doubt", 0), Death("made 1", 1, "in_doubt", 1), asked=2, reconciled=True
    ),
    "unmade twice, and again when it was made": story(
        Death("left 1", 1, "in_doubt", 0),
        Death("left 1", 1, "in_doubt", 0),
        Death("made 1", 1, "in_doubt", 1),
        asked=3,
        reconciled=True,
        script="gone gone",
    ),
}


def found_in(folder: Path) -> dict[str, dict[str, Any]]:
    """Open a ledger as the next run would, and return key → row."""
    ledger = folder / "imports.db"
    open_ledger(ledger).close()
    with View(ledger) as view:
        return {one[0]: dict(zip(COLUMNS, one, strict=True)) for one in view.export()}


def made_in(folder: Path) -> Counter[str]:
    """Return key → how often the service made it."""
    return Counter(one[1] for one in told(folder / "service") if one[0] == "made")


def check_all_is_done(folder: Path, ended: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each row was made once, and the ledger has its sid."""
    assert (ended["code"], ended["adds_up"]) == (0, True)
    found = found_in(folder)
    sids = {one[1]: one[3] for one in told(folder / "service") if one[0] == "made"}
    assert made_in(folder) == dict.fromkeys((FIRST, SECOND, OTHER), 1)
    assert {key: (one["state"], one["sid"]) for key, one in found.items()} == {
        key: ("created", sids[key]) for key in (FIRST, SECOND, OTHER)
    }
    return found


@pytest.mark.parametrize("name", STORIES)
def test_a_row_is_made_once_wherever_the_process_dies(tmp_path: Path, forge: Forge, name: str) -> None:
    """After each death the ledger says what is true, and the last run makes what is missing, and nothing twice."""
    story = STORIES[name]
    for death in story.deaths:
        order = Order(folder=str(tmp_path), script=story.script, point=death.point, nth=death.nth)
        assert forge.run(order) == KILLED, death
        state = found_in(tmp_path).get(death.row, {"state": "absent"})["state"]
        assert (state, made_in(tmp_path)[death.row]) == (death.state, death.made)
    found = check_all_is_done(tmp_path, forge.run(Order(folder=str(tmp_path), script=story.script)))
    wanted = story.deaths[-1].row
    assert sum(one == ["asked", wanted] for one in told(tmp_path / "service")) == story.asked
    assert bool(found[wanted]["reconciled"]) is story.reconciled


def test_no_step_is_left_out(tmp_path: Path, forge: Forge) -> None:
    """Death at the first step, at the second and so on, to the last: one worker, so at most one doubt by it."""
    words = ("gone", "lost")  # this has every kind of step there is
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    ended = forge.run(Order(folder=str(undisturbed), script=words))
    check_all_is_done(undisturbed, ended)
    steps = ended["steps"]
    assert len(steps) > 30
    for nth, step in enumerate(steps, start=1):
        folder = tmp_path / str(nth)
        folder.mkdir()
        assert forge.run(Order(folder=str(folder), script=words, point="any", nth=nth)) == KILLED, step
        assert count_states(folder / "imports.db")["started"] <= 1, step
        assert {one["state"] for one in found_in(folder).values()} <= {"created", "in_doubt"}, step
        assert max(made_in(folder).values(), default=0) <= 1, step
        check_all_is_done(folder, forge.run(Order(folder=str(folder), script=words)))
