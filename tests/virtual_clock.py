"""An event loop whose time is virtual: a test of an hour's waiting takes milliseconds, and the same ones every time.

When nothing is left to do before the next timer, the loop does not sleep: its clock jumps there. Real sockets, pipes
and threads work. While no timer is set the loop really waits for them, though not for ever; while one is set, virtual
time passes as soon as they have nothing to say, so give `patience` where a thread's answer races a timer.
"""

import asyncio
import functools
import selectors
import threading
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

DAY = 86_400.0
STUCK = 10.0  # real seconds for which a socket or a thread may be silent while no timer is set

P = ParamSpec("P")
T = TypeVar("T")


def on_time() -> float:
    """Fire every timer on time."""
    return 0.0


class _Selector(selectors.DefaultSelector):
    """A selector that asks the loop for leave before it sleeps."""

    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready now; if nothing is, let the loop's clock jump instead of waiting."""
        if timeout is None:
            # Besides the loop's own pipe, only a socket or a thread can end this. A deadlock must not hang the tests.
            alone = len(self.get_map()) == 1 and threading.active_count() == 1
            events = super().select(0 if alone else STUCK)
            if not events:
                raise AssertionError("every task waits for something that nobody is going to do")
            return events
        events = super().select(self.loop.patience if timeout > 0 else 0)
        if not events and timeout > 0:
            self.loop.jump(timeout + self.loop.late())
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop with virtual time, which begins at 0.

    late: called at each jump; how many seconds after its time the next timer fires. patience: how many real seconds
    sockets and threads get before the clock jumps. limit: virtual seconds after which the test fails.
    """

    def __init__(self, *, late: Callable[[], float] = on_time, patience: float = 0.0, limit: float = DAY) -> None:
        self.late = late
        self.patience = patience
        self._now = 0.0
        self._limit = limit
        self._end = limit
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now

    def jump(self, seconds: float) -> None:
        """Let time pass at once: the loop's selector does so instead of sleeping, and a test to play a busy loop."""
        self._now += seconds
        if self._now > self._end:
            self._end = self._now + self._limit  # the cancelled tasks may need some time, too
            raise AssertionError(f"still not finished after {self._limit:g} virtual seconds")


def run(
    coro: Coroutine[Any, Any, T],
    *,
    late: Callable[[], float] = on_time,
    patience: float = 0.0,
    limit: float = DAY,
) -> T:
    """Run a coroutine on a loop of its own with virtual time, and return its result."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(late=late, patience=patience, limit=limit)) as runner:
        return runner.run(coro)


def virtual_time(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Turn an async test into a plain one that runs in virtual time. Fixtures and `@given` (above it) work."""

    @functools.wraps(test)
    def plain(*args: P.args, **kwargs: P.kwargs) -> T:
        return run(test(*args, **kwargs))

    return plain


async def settle() -> None:
    """Let every task run until it waits for something; no time passes."""
    for _ in range(20):
        await asyncio.sleep(0)
