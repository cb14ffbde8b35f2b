"""The event loop of a command: uvloop where it is installed (the extra `fast`), Python's own otherwise."""

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TypeVar, TypeVarTuple

import anyio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def run_loop(work: Callable[[*Ts], Awaitable[T]], *arguments: *Ts) -> T:
    """Run an async function to its end and return its result."""

    async def woken() -> T:
        with _woken_by_signals():
            return await work(*arguments)

    if find_spec("uvloop") is None:
        return anyio.run(woken)
    return anyio.run(work, *arguments, backend_options={"use_uvloop": True})


@contextmanager
def _woken_by_signals() -> Iterator[None]:
    """Let a signal wake Python's own loop, as uvloop's does by itself.

    One that comes between Python's last look for signals and the loop's sleep is seen when the loop wakes, and asyncio
    is woken only by signals that it was told of.
    """
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0)
        theirs.settimeout(0)
        loop.add_reader(ours, ours.recv, 64)
        before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            loop.remove_reader(ours)
