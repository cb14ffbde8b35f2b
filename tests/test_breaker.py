"""When the service is down: what opens, tries and closes, by a clock that the test sets."""

import math

from hypothesis import given
from hypothesis import strategies as st

from worker.breaker import FAILURES, LONGEST_PROBE_SECONDS, Breaker, RetryQuota


def opened(outage_seconds: float = 3600, *, unreachable: bool = False) -> Breaker:
    """Return a breaker that opened at 0."""
    breaker = Breaker(outage_seconds)
    for number in range(FAILURES):
        assert breaker.fail(0.0, "status 503", unreachable=unreachable) is (number == FAILURES - 1)
    return breaker


def test_nothing_but_failures_opens_it() -> None:
    """One answer between them, and the service is there."""
    breaker = Breaker(3600)
    for _ in range(10):
        for _ in range(FAILURES - 1):
            assert not breaker.fail(0.0, "status 503", unreachable=False)
        breaker.succeed(0.0)
    assert not breaker.is_open
    assert opened().is_open


def test_switched_off_it_never_opens() -> None:
    """stop.outage_seconds = 0."""
    breaker = Breaker(0)
    assert not any(breaker.fail(0.0, "status 503", unreachable=False) for _ in range(100))
    assert not breaker.is_open


def test_one_request_at_a_time_tries_and_the_waits_grow() -> None:
    """Half a minute at first, a minute at most."""
    breaker, now, waits = opened(), 0.0, []
    for _ in range(10):
        waits.append(breaker.next_probe - now)
        assert not breaker.try_probe(breaker.next_probe - 0.01)
        now = breaker.next_probe
        assert breaker.try_probe(now)
        assert breaker.next_probe == math.inf
        assert not breaker.try_probe(now + 1000)
        breaker.fail(now, "status 503", unreachable=False)
    assert waits[:4] == [1, 2, 4, 8]
    assert waits[-1] == LONGEST_PROBE_SECONDS


def test_while_something_else_is_answered_it_tries_every_second() -> None:
    """Forty rows that always fail are passed in as many seconds; nothing is tried sooner than it was due."""
    breaker, now = opened(), 0.0
    for _ in range(6):
        now = breaker.next_probe
        assert breaker.try_probe(now)
        breaker.fail(now, "status 500", unreachable=False)
    for _ in range(6):
        breaker.hasten(now + 0.5)
        now = breaker.next_probe
        assert breaker.try_probe(now)
        breaker.fail(now, "status 500", unreachable=False)
        assert breaker.next_probe == now + 1
    breaker.succeed(now)
    breaker.hasten(now)
    assert not breaker.is_open


def test_what_was_under_way_when_it_opened_puts_nothing_off() -> None:
    """Sixteen requests fail together: that is one outage, not twelve failed probes."""
    breaker = opened()
    for _ in range(20):
        breaker.fail(0.5, "status 503", unreachable=False)
    assert breaker.next_probe == 1.0


def test_a_probe_that_did_not_leave_is_for_somebody_else() -> None:
    """Nothing was found out."""
    breaker = opened()
    assert breaker.try_probe(1.0)
    breaker.withdraw_probe()
    assert breaker.try_probe(1.0)


def test_one_answer_closes_it_and_the_outages_are_added_up() -> None:
    """The next outage begins with a short wait again."""
    breaker = opened()
    breaker.try_probe(1.0)
    assert breaker.succeed(31.0)
    assert not breaker.succeed(32.0)
    assert (breaker.is_open, breaker.open_seconds(100.0)) == (False, 31.0)
    for _ in range(FAILURES):
        breaker.fail(100.0, "refused", unreachable=True)
    assert (breaker.next_probe, breaker.open_seconds(104.0)) == (101.0, 35.0)


def test_it_gives_up_when_the_outage_has_lasted_too_long() -> None:
    """Counted from its beginning."""
    assert Breaker(60).gives_up_at == math.inf
    assert opened(60).gives_up_at == 60


def test_only_failed_connections_mean_that_it_is_unreachable() -> None:
    """One server error among them shows that something is there."""
    assert opened(unreachable=True).unreachable
    assert not opened().unreachable
    breaker = Breaker(60)
    for number in range(FAILURES):
        breaker.fail(0.0, "", unreachable=number != 2)
    assert not breaker.unreachable


def test_retries_come_from_a_store_and_are_a_share_of_the_successes() -> None:
    """A hundred at once, then one for five successes; and one a second, so that nobody waits for ever."""
    quota = RetryQuota()
    assert [quota.spend(0.0) for _ in range(101)] == [0.0] * 100 + [1.0]
    for _ in range(10):
        quota.refund()
    assert [quota.spend(0.0) for _ in range(2)] == [0.0, 1.0]
    assert quota.spend(3.0) == 0.0


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 10)), max_size=400))
def test_retries_in_any_time_are_bounded_by_store_successes_and_seconds(events: list[tuple[bool, float]]) -> None:
    """Whatever happens, no more retries are due by any moment than that."""
    quota, now, successes, due = RetryQuota(), 0.0, 0, []
    for success, seconds in events:
        now += seconds
        if success:
            successes += 1
            quota.refund()
        else:
            due.append(now + quota.spend(now))
        made = sum(at <= now for at in due)
        assert made <= quota.CAPACITY + quota.PER_SUCCESS * successes + quota.PER_SECOND * now + 1e-6
