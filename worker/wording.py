"""How screens say things: counts with their nouns, shares, and commands to type next that can be pasted. Pure."""

import shlex
from datetime import datetime, timedelta
from typing import NamedTuple

_CALL_THE_SERVICE = frozenset({"doctor", "run", "enqueue", "worker", "retry", "undo", "reconcile", "resolve"})


class Given(NamedTuple):
    """The options of a command that the next one needs too, as they were typed; empty where it does not need them."""

    config: str = ""
    ledger: str = ""
    base_url: str = ""

    def command(self, verb: str, *words: str) -> str:
        """Return a command that works when it is pasted into a shell.

        Args:
            verb: the command's name.
            words: its arguments and options as a shell reads them; names of the user's own go through `shlex.quote`.
        """
        options = {"--config": self.config, "--ledger": self.ledger}
        if verb in _CALL_THE_SERVICE:
            options["--base-url"] = self.base_url
        needed = [f"{name} {shlex.quote(value)}" for name, value in options.items() if value]
        return " ".join(["flex-import", verb, *words, *needed])


NOTHING_GIVEN = Given()

_WEEK = timedelta(days=6)


def plural(count: int, noun: str, many: str = "") -> str:
    """Return a count with its noun: "1 row", "2,000 rows". many: the plural, when it is not noun + s."""
    return f"{count:,} {noun if count == 1 else many or f'{noun}s'}"


def share(part: int, whole: int, digits: int = 1) -> str:
    """Return part / whole in percent; "100 %" only for all, and 0 only for nothing, however it would be rounded."""
    if not whole or part in {0, whole}:
        return f"{100 if part else 0:.{digits}f} %"
    least = 10.0**-digits
    return f"{min(100 - least, max(least, 100 * part / whole)):.{digits}f} %"


def clock(at: datetime, now: datetime) -> str:
    """Return a time in the zone of now, as far as it needs to be said: "18:25", "Mon 18:25", "02 Mar 2026 18:25"."""
    at = at.astimezone(now.tzinfo)
    if at.date() == now.date():
        return f"{at:%H:%M}"
    return f"{at:%a %H:%M}" if abs(at - now) < _WEEK else f"{at:%d %b %Y %H:%M}"
