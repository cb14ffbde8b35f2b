from worker.cluster import cluster_id, short_ids


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
