"""How many rows go to each channel, counted on disk: an input may have more channels than memory."""

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

from worker.model import Draft

CAP = 100
"""Participants that a channel takes, unless the account has another limit; one more is 50417 [docs]."""

_CHANNEL = attrgetter("channel_sid")

_COUNTED = f"""
SELECT count(*), coalesce(sum(rows > {CAP}), 0), coalesce(sum(max(rows - {CAP}, 0)), 0), channel, coalesce(max(rows), 0)
FROM (SELECT channel, sum(rows) AS rows FROM heads GROUP BY channel)
"""


class Channels(NamedTuple):
    """The channels of an input. crowded: those that get more rows than `CAP`; beyond: how many rows too many.

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
        scratch.execute("CREATE TABLE heads (channel TEXT NOT NULL, rows INTEGER NOT NULL)")

    def add(self, rows: Sequence[Draft]) -> None:
        """Count a batch; its counts are appended as they are, which is the cheapest that there is, and added up later.

        One statement for all of them costs half of what one for each would.
        """
        counts = json.dumps(Counter(map(_CHANNEL, rows)))
        self._scratch.execute("INSERT INTO heads SELECT key, value FROM json_each(?)", (counts,))

    def channels(self) -> Channels:
        """Add up."""
        return Channels._make(self._scratch.execute(_COUNTED).fetchone())
