"""How many rows each channel of an input gets."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.samples_of import draft_of, row, sid
from worker.errors import LedgerError
from worker.headcount import CAP, NON_CHAT_CAP, Channels, Headcount
from worker.model import Document
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


IDENTITY = '{"identity": "ada"}'
ADDRESS = '{"address": "+441632960123"}'


@pytest.mark.parametrize(
    ("type_", "media", "counts"),
    [
        ("customer", ADDRESS, True),
        ("customer", {"address": "a@example.com"}, True),
        ("external", "{}", True),
        ("customer", '{"address": "a@example.com", "name": "identity"}', True),
        ("customer", '{"identity": "ada", "address": "a@example.com"}', True),
        ("customer", '{"identity": ""}', True),
        ("unknown", IDENTITY, False),
        ("customer", {"identity": "ada"}, False),
        ("customer", '{"\\u0069dentity": "ada"}', False),
        ("agent", ADDRESS, False),
        ("supervisor", "{}", False),
    ],
)
def test_fifty_are_the_most_that_are_not_in_the_chat(type_: str, media: Document, *, counts: bool) -> None:
    """Agents, supervisors and participants with an identity do not count; the fifty-first of the others is too many."""
    drafts = [
        *(draft_of(row(number, 1))._replace(media=ADDRESS) for number in range(NON_CHAT_CAP)),
        draft_of(row(NON_CHAT_CAP, 1))._replace(type=type_, media=media),
    ]
    with scratch("a test's channels") as connection:
        headcount = Headcount(connection)
        headcount.add(drafts[:30])
        headcount.add(drafts[30:])
        found, among = headcount.channels(), headcount.non_chat()
    assert found == Channels(1, 0, 0, sid("UO", 1), NON_CHAT_CAP + 1)
    assert among == Channels(1, int(counts), int(counts), sid("UO", 1), NON_CHAT_CAP + counts)


def test_a_channel_is_the_same_in_capitals() -> None:
    """A file may write one sid in two ways, in one batch or in several."""
    drafts = [draft_of(row(number, 1)) for number in range(CAP + 1)]
    capitals = [draft._replace(channel_sid="UO" + draft.channel_sid[2:].upper()) for draft in drafts]
    mixed = [pair[number % 2] for number, pair in enumerate(zip(drafts, capitals, strict=True))]
    with scratch("a test's channels") as connection:
        headcount = Headcount(connection)
        headcount.add(mixed[:60])
        headcount.add(mixed[60:])
        found = headcount.channels()
    assert (found.number, found.crowded, found.beyond, found.most) == (1, 1, 1, CAP + 1)
    assert str(found.fullest).casefold() == sid("UO", 1).casefold()


def test_a_disk_that_gives_out_is_named() -> None:
    """With what was kept there, and where it lies."""
    with (
        pytest.raises(LedgerError, match=r"^the rows could not be kept in a temporary file: .*\$SQLITE_TMPDIR"),
        scratch("the rows") as connection,
    ):
        connection.execute("INSERT INTO nowhere VALUES (1)")
