"""How much may go wrong before a run has to stop, and how it heeds signals until its work is over."""

import re
import signal

import anyio
import pytest

from worker.model import Cause, Exit, State, Tally
from worker.stopping import NO_THRESHOLDS, Stop, Thresholds, conduct, final_causes


def tally(**states: int) -> Tally:
    """Return the tally of a run that brought so many rows to these states."""
    return Tally(settled={State(state): count for state, count in states.items()})


@pytest.mark.parametrize(
    ("thresholds", "settled", "reason"),
    [
        (NO_THRESHOLDS, {"rejected": 10_000}, None),
        (Thresholds(max_failures=10), {"rejected": 4, "parked": 3, "failed": 2, "in_doubt": 50}, None),
        (Thresholds(max_failures=10), {"rejected": 4, "parked": 3, "failed": 3}, "10 rows were .* stop.max_failures$"),
        (Thresholds(0, 0.5, 100), {"rejected": 99}, None),
        (Thresholds(0, 0.5, 100), {"rejected": 50, "created": 50}, None),
        (Thresholds(0, 0.5, 100), {"rejected": 51, "created": 49}, "51 of 100 rows were .* stop.max_failure_ratio$"),
        (Thresholds(0, 0.5, 100), {"rejected": 51, "created": 49, "existed": 2}, None),
    ],
)
def test_too_much_is_more_than_was_set(thresholds: Thresholds, settled: dict[str, int], reason: str | None) -> None:
    """A number of bad rows, or more than a share of those that came to an end; doubts are counted elsewhere."""
    cause = thresholds.exceeded(tally(**settled))
    if reason is None:
        assert cause is None
    else:
        assert cause is not None
        assert cause.exit is Exit.HALTED
        assert re.search(reason, cause.reason)


async def test_signals_are_ignored_once_the_work_is_over() -> None:
    """Its account is still to be given, which takes a moment; what was started deaf to a signal stays so."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    during: list[object] = []

    async def work() -> None:
        await anyio.wait_all_tasks_blocked()
        during.append(signal.getsignal(signal.SIGTERM))

    await conduct(work, Stop(), grace_seconds=1, on_first=lambda: None, beside=[])
    assert len(during) == 1
    assert during[0] is not signal.SIG_IGN
    assert {signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)} == {signal.SIG_IGN}


@pytest.mark.parametrize(("requests", "told"), [(0, "nothing was sent: api.proxy"), (1, "halted: api.proxy")])
def test_a_wrong_setting_is_a_usage_error_as_long_as_nothing_was_sent(requests: int, told: str) -> None:
    """A script that reads exit 2 as `nothing was sent` is right; other causes stay as they are."""
    drained = Cause(Exit.STOPPED, "drained")
    found = final_causes([Cause(Exit.USAGE, "api.proxy"), drained], requests)
    assert found == [Cause(Exit.HALTED if requests else Exit.USAGE, told), drained]
