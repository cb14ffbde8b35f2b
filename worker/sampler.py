"""Samples of a run, kept in its ledger while it goes on: what its report draws.

Their number is bounded: when there are enough, every second one is dropped and the next ones come half as often.
"""

from collections.abc import Callable

import anyio

from worker.errors import LedgerError
from worker.journal import Journal
from worker.ledger import Thin
from worker.model import Sample

FIRST_SECONDS = 1.0
MOST = 601
"""An odd number, so that the newest one stays when every second one goes, and all are equally far apart."""


async def keep_samples(journal: Journal, take: Callable[[], Sample]) -> None:
    """Record a sample now, then one a second, later more rarely. Runs until it is cancelled, or the ledger breaks.

    That the ledger broke is found out by those who need it, so it is not raised here.
    """
    seconds, kept = FIRST_SECONDS, 0
    try:
        while True:
            await journal.note([take()])
            kept += 1
            if kept == MOST:
                await journal.note([Thin()])
                seconds, kept = 2 * seconds, (kept + 1) // 2
            await anyio.sleep(seconds)
    except LedgerError:
        return
