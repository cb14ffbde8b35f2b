"""Finding a limit that nobody tells: the laws alone, by a clock that the test sets."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.adaptive import CUT, HOLD_SECONDS, RateFinder, SlotFinder


def admitted(finder: RateFinder, rate: float, begin: float, seconds: float, *, pressed: bool = True) -> float:
    """Let answers come in evenly for a while; returns when the last one came."""
    count = round(rate * seconds)
    for number in range(1, count + 1):
        finder.admit(begin + number / rate, pressed=pressed)
    return begin + count / rate


def test_without_a_refusal_the_ceiling_is_the_rate() -> None:
    """No burst that is not allowed, and nothing lost where there is no limit."""
    finder = RateFinder(15, 0.5)
    admitted(finder, 15, 0, 100)
    assert (finder.rate, finder.found) == (15, None)


def test_a_refusal_cuts_to_a_little_below_what_was_let_through() -> None:
    """The ceiling is four times as high; what was let through in the last second is the limit."""
    finder = RateFinder(400, 0.5)
    now = admitted(finder, 100, 0, 2)
    assert finder.refuse(now, now - 0.01)
    assert finder.found == pytest.approx(100, rel=0.02)
    assert finder.rate == pytest.approx(100 * CUT, rel=0.02)


def test_an_unlimited_rate_is_cut_too() -> None:
    """There is no number to take a share of."""
    finder = RateFinder(math.inf, 0.5)
    now = admitted(finder, 700, 0, 2)
    assert finder.refuse(now, now)
    assert finder.rate == pytest.approx(700 * CUT, rel=0.02)


def test_one_event_is_answered_once() -> None:
    """What left before the cut was refused for the rate before it; so was what came right after."""
    finder = RateFinder(400, 0.5)
    now = admitted(finder, 100, 0, 2)
    assert finder.refuse(now, now - 0.01)
    rate = finder.rate
    assert not any(finder.refuse(now + late, now - 0.001) for late in (0.0, 0.5, 5.0))
    assert not finder.refuse(now + 0.5, now + 0.4)
    assert finder.rate == rate
    assert finder.refuse(now + 1.5, now + 1.4)


def test_what_all_got_through_is_the_limit_of_all() -> None:
    """Where that is known: here it was a quarter of it."""
    finder = RateFinder(400, 0.5)
    now = admitted(finder, 25, 0, 2)
    assert finder.refuse(now, now - 0.01, let_through=110.0)
    assert finder.found == 110.0
    now = admitted(finder, 25, now, 2)
    assert finder.refuse(now, now - 0.01, let_through=1.0)
    assert finder.found == pytest.approx(26, rel=0.1), "others tell late, but what got through here did"


def test_what_another_one_found_is_taken_over() -> None:
    """From there it goes on by itself; what had left by then says nothing any more."""
    finder, other = RateFinder(400, 0.5), RateFinder(400, 0.5)
    now = admitted(finder, 100, 0, 2)
    assert finder.refuse(now, now - 0.01)
    assert finder.found is not None
    other.adopt(finder.found, now)
    assert (other.rate, other.found) == (finder.rate, finder.found)
    assert not other.refuse(now + 2.0, now - 0.01)
    for one in (finder, other):
        admitted(one, 95, now, HOLD_SECONDS + 4)
    assert other.rate == finder.rate > finder.found
    other.adopt(500.0, now + 20)
    assert (other.rate, other.found) == (400, None)


def test_after_a_cut_it_comes_back_lingers_and_looks_for_more() -> None:
    """Quickly up to just below what was found, then slowly beyond it."""
    finder = RateFinder(math.inf, 0.5)
    now = admitted(finder, 100, 0, 2)
    finder.refuse(now, now)
    found = finder.found or 0.0
    now = admitted(finder, 100, now, HOLD_SECONDS / 2)
    assert 0.98 * found < finder.rate < found
    now = admitted(finder, 100, now, HOLD_SECONDS / 2)
    assert finder.rate == pytest.approx(found, rel=0.01)
    now = admitted(finder, 100, now, 2.5)
    assert found < finder.rate < 1.03 * found
    admitted(finder, 100, now, 10)
    assert finder.rate > 2 * found


def test_what_was_raised_above_the_ceiling_is_the_ceiling_and_forgotten() -> None:
    """The configured limit is never exceeded."""
    finder = RateFinder(110, 0.5)
    now = admitted(finder, 100, 0, 2)
    finder.refuse(now, now)
    admitted(finder, 100, now, 30)
    assert (finder.rate, finder.found) == (110, None)


def test_nothing_grows_without_load() -> None:
    """Answers that nobody had to wait for show nothing about the limit."""
    finder = RateFinder(400, 0.5)
    now = admitted(finder, 100, 0, 2)
    finder.refuse(now, now)
    rate = finder.rate
    admitted(finder, 1, now, 1000, pressed=False)
    assert finder.rate == rate


def test_an_hour_without_an_answer_is_no_hour_of_growth() -> None:
    """A pause ends, and the first answer after it finds the rate where it was."""
    finder = RateFinder(400, 0.5)
    now = admitted(finder, 100, 0, 2)
    finder.refuse(now, now)
    rate = finder.rate
    finder.admit(now + 3600, pressed=True)
    assert finder.rate < 1.05 * rate


def test_a_ceiling_that_is_lowered_holds_at_once_and_comes_back() -> None:
    """Hours, or a person, ask for less; what was found stays known."""
    finder = RateFinder(400, 0.5)
    finder.ceiling = 5
    assert finder.rate == 5
    finder.ceiling = 400
    assert finder.rate == 400


@given(
    ceiling=st.sampled_from([0.1, 0.5, 20.0, 5000.0, math.inf]),
    events=st.lists(st.tuples(st.sampled_from(["admit", "idle", "refuse"]), st.floats(0, 30)), max_size=200),
)
def test_whatever_comes_back_the_rate_stays_between_floor_and_ceiling(
    ceiling: float, events: list[tuple[str, float]]
) -> None:
    """Never zero, never above what was configured, never not a number."""
    finder, now = RateFinder(ceiling, 0.5), 0.0
    for what, seconds in events:
        now += seconds
        if what == "refuse":
            before = finder.rate
            finder.refuse(now, now)
            assert finder.rate <= max(before, 0.5)
        else:
            finder.admit(now, pressed=what == "admit")
        assert min(0.5, ceiling) <= finder.rate <= ceiling


# ---- at once --------------------------------------------------------------------------------------------------------


def test_a_refusal_leaves_what_was_let_in() -> None:
    """Eleven were under way, one was refused: ten is the limit."""
    finder = SlotFinder(64)
    assert finder.refuse(1.0, 0.9, in_flight=11, concurrent=None)
    assert (finder.limit, finder.found) == (10, 10)


def test_of_a_burst_the_first_that_was_refused_tells_the_limit() -> None:
    """64 leave together and 54 come back refused, in any order."""
    finder = SlotFinder(64)
    for number in [40, *range(64, 10, -1)]:
        finder.refuse(1.0, 0.9, in_flight=number, concurrent=None)
    assert finder.limit == 10


def test_the_echo_of_a_refusal_is_none() -> None:
    """What leaves in the same moment may meet the same crowd."""
    finder = SlotFinder(64)
    finder.refuse(1.0, 0.9, in_flight=11, concurrent=None)
    assert not finder.refuse(1.01, 1.005, in_flight=10, concurrent=None)
    assert finder.limit == 10
    assert finder.refuse(1.21, 1.2, in_flight=10, concurrent=None)
    assert finder.limit == 9


def test_refusals_without_end_cut_faster() -> None:
    """One by one would take too long when the limit fell far."""
    finder, limits = SlotFinder(64), []
    for number in range(8):
        finder.refuse(number / 5, number / 5 - 0.01, in_flight=finder.limit, concurrent=None)
        limits.append(finder.limit)
    assert limits == [63, 62, 48, 37, 28, 21, 16, 12]


def test_one_more_is_tried_when_all_were_in_use_for_long() -> None:
    """Only time in which somebody waited for a slot counts, and the first step is one."""
    finder = SlotFinder(64)
    finder.refuse(0.0, -1.0, in_flight=11, concurrent=None)
    for number in range(1000):
        finder.admit(number / 10, pressed=False, in_flight=3, concurrent=None)
    assert finder.limit == 10
    limits = []
    for number in range(130):
        finder.admit(100 + number / 10, pressed=True, in_flight=10, concurrent=None)
        limits.append(finder.limit)
    assert limits[40] == 10
    assert 11 in limits
    assert limits[-1] > 11
    assert limits == sorted(limits)


def test_the_account_s_own_count_makes_room_for_others() -> None:
    """Ten are allowed to the account: what others take is not ours, and comes back when they go."""
    finder = SlotFinder(64)
    finder.refuse(0.0, -1.0, in_flight=11, concurrent=11)
    assert finder.limit == 10
    for _ in range(20):
        finder.admit(1.0, pressed=True, in_flight=6, concurrent=10)
    assert finder.limit == 6
    finder.admit(1.0, pressed=True, in_flight=6, concurrent=6)
    assert finder.limit == 10


@given(
    ceiling=st.integers(1, 100),
    events=st.lists(
        st.tuples(st.booleans(), st.floats(0, 3), st.integers(0, 100), st.none() | st.integers(0, 200)), max_size=100
    ),
)
def test_whatever_comes_back_there_is_a_slot(ceiling: int, events: list[tuple[bool, float, int, int | None]]) -> None:
    """Never zero, never more than configured."""
    finder, now = SlotFinder(ceiling), 0.0
    for refused, seconds, in_flight, concurrent in events:
        now += seconds
        if refused:
            finder.refuse(now, now, in_flight=in_flight, concurrent=concurrent)
        else:
            finder.admit(now, pressed=True, in_flight=in_flight + 1, concurrent=concurrent)
        assert 1 <= finder.limit <= ceiling
