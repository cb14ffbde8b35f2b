import pytest

from worker.cluster import Cluster, cluster_id, short_ids
from worker.model import State
from worker.verdict import CLOSED
from worker.wording import Given


def cluster(state: str, code: str, reason: str = "some reason", *places: tuple[str, int]) -> Cluster:
    """Return a cluster of as many rows as places."""
    return Cluster(cluster_id(state, code, reason), "a07c", state, code, reason, len(places), places)


def test_an_id_stays_the_same() -> None:
    """It is written down, mailed, and typed days later: a change of how it is made is a change of the contract."""
    assert cluster_id("rejected", "invalid", "type: is missing") == "0fd7d9d1ba746ef6"


def test_each_part_makes_another_cluster() -> None:
    """State, code and reason, and where one ends."""
    parts = [("a", "b", "c"), ("x", "b", "c"), ("a", "x", "c"), ("a", "b", "x"), ("ab", "", "c"), ("a", "", "bc")]
    assert len({cluster_id(*part) for part in parts}) == len(parts)


def test_a_reason_that_is_no_text_has_an_id_too() -> None:
    """Half of a surrogate pair, as JSON can carry it."""
    assert len(cluster_id("rejected", "1", "\ud800")) == 16


def test_short_ids_are_as_long_as_it_takes() -> None:
    """Four digits, and more only for those that begin alike."""
    assert short_ids(["abcdef", "abcdxx", "123456", "123456"]) == {
        "abcdef": "abcde",
        "abcdxx": "abcdx",
        "123456": "1234",
    }
    assert short_ids(["abcd", "abcde"]) == {"abcd": "abcd", "abcde": "abcde"}
    assert short_ids([]) == {}


@pytest.mark.parametrize(
    ("code", "reason", "field", "problem"),
    [
        ("invalid", "type: is missing", "type", "is missing"),
        ("invalid", "media_properties.address: has no @", "media_properties.address", "has no @"),
        ("invalid", "media_properties.First name: a: b", "media_properties.First name", "a: b"),
        ("key_empty", "source.key: ID empty", "source.key", "ID empty"),
        ("invalid", "type: is missing; channel_sid: is missing", None, None),
        ("malformed", 'has text after a closing quote; it is written twice: ""', None, None),
        ("malformed", "has 3 fields, the header has 4", None, None),
        ("20001", "Type: is wrong", None, None),
    ],
)
def test_what_is_wrong_with_one_field_is_split_off(
    code: str, reason: str, field: str | None, problem: str | None
) -> None:
    """Of a row that was not sent; several fields, whole records and what the service says stay as they are."""
    found = cluster("rejected", code, reason)
    assert (found.field, found.problem) == (field, problem or reason)


@pytest.mark.parametrize(
    ("state", "code", "says"),
    [
        ("rejected", "invalid", "repair it in the file"),
        ("rejected", "key_conflict", "another key"),
        ("rejected", "20001", "repair it in the file"),
        ("rejected", "20404", "correct the sids"),
        ("parked", "20404", "correct the sids"),
        ("parked", "45354", "open it again, then send its rows again"),
        ("rejected", "50417", "make room in it, then send its rows again"),
        ("parked", "45999", "once it takes people, send its rows again"),
        ("failed", "no_connection", "nothing to do"),
        ("failed", "404", "nothing to do"),
        ("failed", "403", "allow it to this account"),
        ("in_doubt", "404", "look at its candidates"),
    ],
)
def test_each_cluster_says_what_to_do(state: str, code: str, says: str) -> None:
    """By what the code says of the row or its channel; a proxy's 404 says nothing of either."""
    assert says in cluster(state, code).advice


@pytest.mark.parametrize(
    ("state", "code", "command"),
    [
        ("parked", "45354", "flex-import retry --group a07c --ledger l.db"),
        ("parked", "45999", "flex-import retry --group a07c --ledger l.db"),
        ("in_doubt", "404", "flex-import failures --state in_doubt --ledger l.db"),
        ("rejected", "20404", ""),
        ("failed", "no_connection", ""),
    ],
)
def test_what_a_command_can_do_has_its_command(state: str, code: str, command: str) -> None:
    """With the options that it needs; a repair takes a person's hand."""
    assert cluster(state, code).command(Given(ledger="l.db")) == command


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ('column "ID" has a value that lookup.ids does not have', "add the value to the lookup's file"),
        ('column "ID" has a value that lookup.ids has twice, with different values', "keep one of the two"),
        ('column "ID" has a value that [map.type] does not have', "repair it in the file"),
    ],
)
def test_what_a_lookup_lacks_is_not_the_inputs_fault(reason: str, says: str) -> None:
    """It is the lookup's file that has no such value."""
    assert says in cluster("rejected", "invalid", f"channel_sid: {reason}").advice


@pytest.mark.parametrize("state", [State.REJECTED, State.PARKED])
@pytest.mark.parametrize("code", CLOSED)
def test_each_reason_to_park_a_channel_has_its_advice(state: State, code: int) -> None:
    """Who is refused by a channel and who is parked for it hear the same, and never to repair the row."""
    advice = cluster(state, str(code)).advice
    assert advice == cluster("rejected", str(code)).advice
    assert "repair" not in advice


def test_advice_fits_beside_the_table() -> None:
    """A command that is broken over two lines cannot be copied."""
    for state in (State.REJECTED, State.PARKED, State.FAILED, State.IN_DOUBT):
        for code in (*map(str, CLOSED), "403", "key_conflict", "other"):
            assert len(cluster(state, code).advice) <= 56


def test_only_the_services_codes_are_shown() -> None:
    """Our own are words for programs; its numbers can be looked up."""
    assert cluster("parked", "45354", "the conversation is closed").why == "45354 the conversation is closed"
    assert cluster("failed", "no_connection", "refused").why == "refused"


def test_places_name_an_input_once() -> None:
    """A line alone is of the input before it; the detail stands behind the first place, whose it is."""
    found = cluster("rejected", "invalid", "x", ("a.csv", 1), ("a.csv", 7), ("b.csv", 2))
    assert found.where == "a.csv:1, :7, b.csv:2"
    assert found._replace(detail='"j***"').where == 'a.csv:1 ("j***"), :7, b.csv:2'


def test_only_what_was_rejected_before_it_was_sent_is_local() -> None:
    """What failed without an answer has a word for a code, too, and can be sent again."""
    assert cluster("rejected", "invalid").local
    assert not cluster("rejected", "20001").local
    assert not cluster("failed", "no_connection").local
