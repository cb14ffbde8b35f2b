"""A real `flex-import run` in a process of its own, to be let down."""

import asyncio
import json
import os
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tests.commands import CREDENTIALS, Ended, finish, start

ENDS_WITHIN = 240.0
"""Seconds after which a run that was left alone is stuck."""


class Victim:
    """One process, whose output is read all the time, so that it never waits for us."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._ending = asyncio.create_task(finish(process))

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self._process.returncode is not None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; who is gone does not hear it."""
        # the process's own method would first see whether it has ended, and take its exit code from who waits for it
        if not self.ended:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    async def wait(self, seconds: float) -> bool:
        """Wait so long, or until it is over; tell whether it is."""
        await asyncio.wait([self._ending], timeout=seconds)
        return self._ending.done()

    async def end(self, seconds: float = ENDS_WITHIN) -> Ended:
        """Return how it ended. Raises TimeoutError when it does not end."""
        async with asyncio.timeout(seconds):
            return await asyncio.shield(self._ending)

    async def bury(self) -> None:
        """End it whatever it does, frozen or not."""
        if not self._ending.done():
            self.send(signal.SIGKILL)
        await self._ending


@asynccontextmanager
async def running(folder: Path, *words: str, env: Mapping[str, str] | None = None) -> AsyncIterator[Victim]:
    """Start a command in a folder; it does not outlive the block. env: besides the credentials."""
    victim = Victim(await start(*words, cwd=folder, env={**CREDENTIALS, **(env or {})}))
    try:
        yield victim
    finally:
        await victim.bury()


@asynccontextmanager
async def importing(
    folder: Path, rate: float, *words: str, env: Mapping[str, str] | None = None
) -> AsyncIterator[Victim]:
    """Start an import in a folder, as `running` does."""
    async with running(folder, "run", "in.csv", "--rate", f"{rate:g}", "--json", *words, env=env) as victim:
        yield victim


def account_of(ended: Ended) -> dict[str, Any] | None:
    """Return the account that a run printed, or None when it printed none."""
    text = ended.out.strip()
    if not text:
        return None
    found: dict[str, Any] = json.loads(text.splitlines()[-1])
    return found
