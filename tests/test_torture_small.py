"""`make torture` in small: real runs, killed at random against a service with every fault."""

from pathlib import Path

from tests.torture.phases import kill_at_work, undergo
from tests.torture.world import Scale

SMALL = Scale(rows=300, rate=100.0, latency=0.05, settle=0.8, read_timeout=0.4, hang=0.6, late=0.1, list_lag=0.1)


async def test_a_run_that_is_killed_again_and_again_makes_each_row_once(tmp_path: Path) -> None:
    """Six kills: each adds at most `concurrency` doubts, then all is made, nothing twice, and no sid is another's."""
    passed = await undergo("kill", kill_at_work, SMALL, 6, seed=1, folder=tmp_path / "kill")
    assert passed.problems == []
    assert passed.ordeal.blows == 6
    assert passed.audit.created + passed.audit.refused + passed.audit.in_doubt + passed.audit.held == SMALL.rows
