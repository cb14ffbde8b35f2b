"""How a run ends early: it ends, it drains, or it is cut.

Ending: no further row is begun, those that are come to their outcome. Draining: nothing more leaves, what is in flight
comes home. Cutting: what is in flight is recorded as what it is, in doubt.
"""

import signal
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, NamedTuple

import anyio

from worker.model import Cause, Exit, State, Tally

SIGNALS = {signal.SIGINT: Exit.SIGINT, signal.SIGTERM: Exit.SIGTERM, signal.SIGHUP: Exit.SIGHUP}


FIRST_ANSWERS = 5
"""If so many first answers are all somebody else's (redirects, a proxy's pages), the base URL is wrong."""

NOT_THE_API = (
    f"halted: the first {FIRST_ANSWERS} answers were not the API's (redirects, or no JSON of Twilio's); "
    "is the base URL right, is a proxy in the way?"
)

Task = Callable[[], Coroutine[Any, Any, None]]

_BAD = (State.REJECTED, State.PARKED, State.FAILED)


class Thresholds(NamedTuple):
    """So many rejected, parked and failed rows are too many; 0 is off.

    max_failure_ratio: of the rows that this run brought to a state, once there are min_sample of them.
    """

    max_failures: int = 0
    max_failure_ratio: float = 0.0
    min_sample: int = 1

    def exceeded(self, tally: Tally) -> Cause | None:
        """Return why a run has to stop, if it has to."""
        bad = sum(tally.settled.get(state, 0) for state in _BAD)
        if 0 < self.max_failures <= bad:
            return Cause(Exit.HALTED, f"halted: {bad:,} rows were rejected, parked or failed, see stop.max_failures")
        total = sum(tally.settled.values())
        if self.max_failure_ratio and total >= self.min_sample and bad > self.max_failure_ratio * total:
            share = f"{bad:,} of {total:,} rows were rejected, parked or failed"
            return Cause(Exit.HALTED, f"halted: {share}, see stop.max_failure_ratio")
        return None


NO_THRESHOLDS = Thresholds()


def final_causes(causes: Sequence[Cause], requests: int) -> list[Cause]:
    """Return the causes of a run's end, as they are told once it is over.

    A setting that cannot work is a usage error (`Exit.USAGE`) if the run sent nothing; otherwise it halted the run.

    Args:
        causes: in the order in which they came.
        requests: requests of this run that reached the service and may have changed something there.
    """
    return [_final(cause, requests) if cause.exit is Exit.USAGE else cause for cause in causes]


def _final(cause: Cause, requests: int) -> Cause:
    if requests:
        return Cause(Exit.HALTED, f"halted: {cause.reason}")
    return Cause(Exit.USAGE, f"nothing was sent: {cause.reason}")


class Stop:
    """The state of stopping, shared by everybody in a run. causes: in the order in which they came."""

    def __init__(self) -> None:
        self.ending = anyio.Event()
        self.draining = anyio.Event()
        self.causes: list[Cause] = []

    def end(self, cause: Cause) -> None:
        """Let no further row begin."""
        if cause not in self.causes:
            self.causes.append(cause)
        self.ending.set()

    def drain(self, cause: Cause) -> None:
        """Let nothing more leave; a later cause is remembered, too."""
        self.end(cause)
        self.draining.set()


async def heed_signals(
    stop: Stop, cut: anyio.CancelScope, *, grace_seconds: float, on_first: Callable[[], None]
) -> None:
    """Drain at the first signal; cut at the second, or when the grace is over. Runs until it is cancelled.

    Signals that the process was started to ignore stay ignored: that is how nohup keeps a run alive at logout.
    """
    heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    if not heeded:
        return
    try:
        with anyio.open_signal_receiver(*heeded) as received:
            async with anyio.create_task_group() as tasks:
                signalled = False
                async for number in received:
                    if signalled:
                        cut.cancel()
                        continue
                    signalled = True
                    stop.drain(Cause(SIGNALS[number], f"stopped by {number.name}"))
                    on_first()
                    tasks.start_soon(_cut_later, cut, grace_seconds)
    finally:
        for number in heeded:
            signal.signal(number, signal.SIG_IGN)  # the work is over: its account is still to be given


async def conduct(
    work: Task,
    stop: Stop,
    *,
    grace_seconds: float,
    on_first: Callable[[], None],
    beside: Sequence[Task],
) -> None:
    """Do the work of a run while signals are heeded and others go on beside it; those end with it."""
    async with anyio.create_task_group() as aside:
        with anyio.CancelScope() as cut:
            aside.start_soon(partial(heed_signals, stop, cut, grace_seconds=grace_seconds, on_first=on_first))
            for one in beside:
                aside.start_soon(one)
            await work()
        aside.cancel_scope.cancel()


async def heed_requests(tell: Callable[[], None]) -> None:
    """Tell how far the run is whenever SIGUSR1 asks. Runs until it is cancelled."""
    try:
        with anyio.open_signal_receiver(signal.SIGUSR1) as received:
            async for _ in received:
                tell()
    finally:
        ignore_requests()


def ignore_requests() -> None:
    """Let SIGUSR1 do nothing where nobody can answer it: it ends a process that does not heed it."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


async def _cut_later(cut: anyio.CancelScope, grace_seconds: float) -> None:
    await anyio.sleep(grace_seconds)
    cut.cancel()
