"""`control`: a word to the run that is at work on a ledger. It never disturbs that run."""

from collections.abc import Sequence
from math import inf
from pathlib import Path

from worker.cli.loading import configure
from worker.cli.telling import person, tell
from worker.config import parse_rate
from worker.errors import ConfigError
from worker.ledger.steering import Command, give_order
from worker.model import Exit
from worker.place import Place


def steer(command: Command, rate: str | None, config: Path | None, ledger: Place | None) -> int:
    """Give the run that is at work an order; returns exit code 0.

    Raises ConfigError for a rate that is missing, odd or none, LedgerRefusedError when no run can be steered there.
    """
    ceiling = _ceiling(command, rate)
    runs = sorted(give_order(configure(config, ledger, {}).ledger_path, command, ceiling, person()))
    who, look = (f"run {runs[0]} is", "it looks") if len(runs) == 1 else (f"runs {_listed(runs)} are", "they look")
    tell(f"{who} told to {_said(command, ceiling)} ({look} every second)")
    return Exit.DONE


def _ceiling(command: Command, rate: str | None) -> float | None:
    """Return the rate that belongs to a command: requests a second, None unless the command is `rate`."""
    if command != "rate":
        if rate is not None:
            raise ConfigError(f"control {command}: takes no rate; to slow a run down: flex-import control rate {rate}")
        return None
    if rate is None:
        raise ConfigError("control rate: say how many requests a second at most: 5, 900/m; inf: as configured")
    try:
        found = float(parse_rate(rate))
    except ValueError as exc:
        raise ConfigError(f"control rate: {exc}") from None
    if not found > 0:  # not a number is not, either
        raise ConfigError("control rate: must be more than 0; to send nothing for a while: flex-import control pause")
    return found


def _listed(runs: Sequence[int]) -> str:
    *others, last = map(str, runs)
    return f"{', '.join(others)} and {last}"


def _said(command: Command, ceiling: float | None) -> str:
    if ceiling is None:
        return command
    return "send as fast as its settings allow" if ceiling == inf else f"send {ceiling:g}/s at most"
