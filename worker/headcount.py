"""How many rows go to each channel, counted on disk: an input may have more channels than memory."""

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

from worker.model import Draft
from worker.verdict import counts_as_chat

CAP = 100
"""Participants that a channel takes, unless the account has another limit; one more is 50417 [docs]."""

NON_CHAT_CAP = 50
"""Of these so many at most are neither agents nor supervisors nor have an identity; one more is 50418 [docs]."""

_CHANNEL = attrgetter("channel_sid")

_COUNTED = """
SELECT count(*), coalesce(sum(rows > :cap), 0), coalesce(sum(max(rows - :cap, 0)), 0), channel, coalesce(max(rows), 0)
FROM (SELECT channel, sum(rows) AS rows FROM heads WHERE :chat OR NOT chat GROUP BY channel)
"""


class Channels(NamedTuple):
    """The channels of an input. crowded: those that get more rows than they take; beyond: how many rows too many.

    fullest: the channel that gets most, None without any; most: how many rows it gets.
    """

    number: int
    crowded: int
    beyond: int
    fullest: str | None
    most: int


class Headcount:
    """Counts rows by channel. scratch: where; a table of its own is made in it."""

    def __init__(self, scratch: sqlite3.Connection) -> None:
        self._scratch = scratch
        # a sid in capitals names the same channel
        scratch.execute(
            "CREATE TABLE heads (channel TEXT NOT NULL COLLATE NOCASE, rows INTEGER NOT NULL, chat INTEGER NOT NULL)"
        )

    def add(self, rows: Sequence[Draft]) -> None:
        """Count a batch; its counts are appended as they are, which is the cheapest that there is, and added up later.

        One statement for all of them costs half of what one for each would.
        """
        chat: list[Draft] = []
        others: list[Draft] = []
        for row in rows:
            (chat if counts_as_chat(row.type, row.media) else others).append(row)
        for some, kind in ((chat, 1), (others, 0)):
            counts = json.dumps(Counter(map(_CHANNEL, some)))
            self._scratch.execute("INSERT INTO heads SELECT key, value, ? FROM json_each(?)", (kind, counts))

    def channels(self) -> Channels:
        """Add up all rows; a channel takes `CAP`."""
        return self._counted(CAP, chat=True)

    def non_chat(self) -> Channels:
        """Add up the rows that are not chat ones, and their channels; a channel takes `NON_CHAT_CAP`."""
        return self._counted(NON_CHAT_CAP, chat=False)

    def _counted(self, cap: int, *, chat: bool) -> Channels:
        return Channels._make(self._scratch.execute(_COUNTED, {"cap": cap, "chat": chat}).fetchone())
