"""`make torture` in small: real runs, let down in every way by a service with every fault."""

from dataclasses import replace
from pathlib import Path

from tests.torture.phases import kill_at_work, outage, undergo, undo
from tests.torture.world import Scale

SMALL = Scale(
    rows=300,
    rate=100.0,
    latency=0.05,
    settle=0.8,
    read_timeout=0.4,
    hang=0.6,
    late=0.1,
    list_lag=0.1,
    outage=1.0,
)


async def test_a_run_that_is_killed_again_and_again_makes_each_row_once(tmp_path: Path) -> None:
    """Six kills: each adds at most `concurrency` doubts, then all is made, nothing twice, and no sid is another's."""
    passed = await undergo("kill", kill_at_work, SMALL, 6, seed=1, folder=tmp_path / "kill")
    assert passed.problems == []
    assert passed.ordeal.blows == 6
    found = passed.audit
    settled = found.created + found.refused + found.in_doubt + found.held + found.undecidable.total()
    assert settled == SMALL.rows


async def test_an_undo_that_is_lied_to_closes_what_it_says_and_nobody_else(tmp_path: Path) -> None:
    """A third of its answers are lost or false, and it is killed: closed is what was closed, and only of that run."""
    passed = await undergo("undo", undo, replace(SMALL, rows=80), 1, seed=2, folder=tmp_path / "undo")
    assert passed.problems == []
    assert 20 <= passed.audit.closed <= 40


async def test_an_outage_of_everything_ends_a_run_in_time(tmp_path: Path) -> None:
    """503 to everything for ever: exit 3 within `stop.outage_seconds` and five more, and nothing is lost."""
    passed = await undergo("outage", outage, replace(SMALL, rows=100), 1, seed=3, folder=tmp_path / "outage")
    assert passed.problems == []
    assert passed.ordeal.blows == 1
