"""How a run went, in a bounded number of samples, and how long its answers took."""

from collections.abc import Sequence
from typing import cast

import anyio
import pytest

from tests.virtual_clock import virtual_time
from worker.errors import LedgerError
from worker.journal import Journal
from worker.latency import Latencies
from worker.ledger import Entry, Thin
from worker.model import Sample
from worker.sampler import MOST, keep_samples


class Notebook:
    """A journal that keeps samples as a ledger does. breaks_at: the sample at which it cannot be written any more."""

    def __init__(self, breaks_at: int = 0) -> None:
        self.times: list[float] = []
        self.most = 0
        self._left = breaks_at or 1_000_000

    async def note(self, entries: Sequence[Entry]) -> None:
        """Keep a sample, or drop every second one."""
        [entry] = entries
        if entry == Thin():
            self.times = self.times[::2]
            return
        self._left -= 1
        if not self._left:
            raise LedgerError("the disk is full")
        self.times.append(anyio.current_time())
        self.most = max(self.most, len(self.times))


async def sample_for(seconds: float, notebook: Notebook) -> None:
    """Keep samples for so long."""
    with anyio.move_on_after(seconds):
        await keep_samples(cast("Journal", notebook), lambda: Sample(0, 0, 0, 0, 0, 0, None, 1))


@virtual_time
async def test_a_short_run_has_a_sample_a_second() -> None:
    """The first at once."""
    notebook = Notebook()
    began = anyio.current_time()
    await sample_for(10.5, notebook)
    assert [time - began for time in notebook.times] == list(range(11))


@virtual_time
async def test_a_long_run_has_as_many_samples_all_equally_far_apart() -> None:
    """A night, or a week: the ledger does not grow with it."""
    notebook = Notebook()
    began = anyio.current_time()
    await sample_for(8 * 3600, notebook)
    assert notebook.most == MOST
    assert MOST / 2 - 1 <= len(notebook.times) <= MOST
    gaps = {later - earlier for earlier, later in zip(notebook.times, notebook.times[1:], strict=False)}
    assert gaps == {64.0}
    assert notebook.times[0] == began


@virtual_time
async def test_a_ledger_that_breaks_ends_the_samples_and_nothing_else() -> None:
    """The run finds that out where it matters."""
    notebook = Notebook(breaks_at=3)
    await sample_for(100, notebook)
    assert len(notebook.times) == 2


# ---- how long answers take ------------------------------------------------------------------------------------------


def test_a_percentile_is_right_to_a_twentieth() -> None:
    """Half, nine tenths and all but one in a hundred were at least as quick."""
    latencies = Latencies()
    for number in range(1, 1001):
        latencies.add(number / 1000)
    found = latencies.take()
    assert found is not None
    assert found == latencies.latest
    assert list(found) == pytest.approx([0.5, 0.9, 0.99], rel=0.05)


def test_a_span_without_answers_has_no_percentiles() -> None:
    """Each span stands for itself."""
    latencies = Latencies()
    assert latencies.take() is None
    latencies.add(0.1)
    assert latencies.take() is not None
    assert latencies.take() is None
    assert latencies.latest is None


@pytest.mark.parametrize(("seconds", "least", "most"), [(0.0, 0.0, 0.001), (-1.0, 0.0, 0.001), (1e6, 250.0, 500.0)])
def test_what_is_outside_counts_as_the_nearest(seconds: float, least: float, most: float) -> None:
    """A clock that stood still, or a day."""
    latencies = Latencies()
    latencies.add(seconds)
    found = latencies.take()
    assert found is not None
    assert least <= found.p50 == found.p99 <= most
