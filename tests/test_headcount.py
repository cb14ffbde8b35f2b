"""How many rows each channel of an input gets."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.samples_of import draft_of, row, sid
from worker.errors import LedgerError
from worker.headcount import CAP, Channels, Headcount
from worker.scratch import scratch


def counted(*batches: list[int]) -> Channels:
    """Return what counting finds. batches: the channel of each row."""
    with scratch("a test's channels") as connection:
        headcount = Headcount(connection)
        for batch in batches:
            headcount.add([draft_of(row(number, channel)) for number, channel in enumerate(batch)])
        return headcount.channels()


@pytest.mark.parametrize(
    ("batches", "found"),
    [
        ((), Channels(0, 0, 0, None, 0)),
        (([],), Channels(0, 0, 0, None, 0)),
        (([1, 2, 1],), Channels(2, 0, 0, sid("UO", 1), 2)),
        (([1] * CAP,), Channels(1, 0, 0, sid("UO", 1), CAP)),
        (([1] * (CAP + 1),), Channels(1, 1, 1, sid("UO", 1), CAP + 1)),
        (([1] * 60 + [2] * 90, [1] * 60, [2] * 90 + [3]), Channels(3, 2, 100, sid("UO", 2), 180)),
    ],
)
def test_channels_are_counted_over_all_batches(batches: tuple[list[int], ...], found: Channels) -> None:
    """A channel is crowded by the row after the hundredth, wherever in the input its rows stand."""
    assert counted(*batches) == found


@given(st.lists(st.lists(st.integers(0, 3), max_size=120), max_size=6))
def test_it_is_what_a_counter_in_memory_finds(batches: list[list[int]]) -> None:
    """However the rows lie."""
    heads = Counter(channel for batch in batches for channel in batch)
    found = counted(*batches)
    assert found.number == len(heads)
    assert found.crowded == sum(rows > CAP for rows in heads.values())
    assert found.beyond == sum(max(0, rows - CAP) for rows in heads.values())
    assert found.most == max(heads.values(), default=0)
    assert found.fullest in {None, *(sid("UO", channel) for channel in heads if heads[channel] == found.most)}


def test_a_disk_that_gives_out_is_named() -> None:
    """With what was kept there, and where it lies."""
    with (
        pytest.raises(LedgerError, match=r"^the rows could not be kept in a temporary file: .*\$SQLITE_TMPDIR"),
        scratch("the rows") as connection,
    ):
        connection.execute("INSERT INTO nowhere VALUES (1)")
