"""The event loop of a command, and what wakes it."""

import asyncio
import os
import signal
import threading
from importlib.util import find_spec

import anyio
import pytest

from worker.cli import looping


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(None, id="asyncio"),
        pytest.param(
            find_spec("uvloop"),
            id="uvloop",
            marks=pytest.mark.skipif(find_spec("uvloop") is None, reason="needs the extra `fast`"),
        ),
    ],
)
def test_an_interrupt_that_another_thread_gets_ends_the_loops_sleep(
    found: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As does one that comes just before it sleeps: Python has it, and the system call goes on."""
    asleep = threading.Event()

    def interrupt() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        asleep.wait()
        os.kill(os.getpid(), signal.SIGINT)

    async def sleep() -> None:
        asyncio.get_running_loop().call_soon(asleep.set)
        await anyio.sleep_forever()

    monkeypatch.setattr(looping, "find_spec", lambda _: found)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            looping.run_loop(sleep)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        thread.join()
    assert signal.set_wakeup_fd(-1) == -1
