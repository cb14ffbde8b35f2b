"""`make bench-limits`: how near an import comes to a limit, known or not, and what it does to others.

The service is the emulator, a process of its own; the contenders are our command with and without adaptation, and a
loop over the official SDK. They take turns on the same machine; each figure is the median of the rounds. 429s come
without Retry-After.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.bench.arena import BrokenRunError, compete
from tests.bench.figures import Figures, as_json, figures_of, median_of
from tests.bench.scenario import CONTENDERS, SCENARIOS, SDK_429, WARM_UP, Scenario
from tests.bench.series import CALM, CALM_GOODPUT, HELD, NEVER, REACHED, STRETCH

SHORTEST = WARM_UP + STRETCH
COLUMNS = ("scenario", "contender", "goodput", "of limit", "429s", "worst 1 s", "ever", "converged", "calm", "back",
           "others' 429s")  # fmt: skip
WIDTHS = (15, 9, 8, 8, 6, 9, 6, 9, 6, 6, 12)
LEGEND = f"""
measured   from {WARM_UP:g} s after the first create to the end; in foreign-*, while the foreign traffic lasts
goodput    accepted creates a second; others' creates are not counted, here and everywhere but in "ever"
of limit   goodput ÷ what the service allows (without any limit: the rate we were told; in concurrency-*: places ÷
           latency; in halving-*: the mean of what it allows; in foreign-*: what the foreign traffic, unrefused, leaves)
429s       their share of all answers; the sdk does not repeat them, so there each is a row lost ({SDK_429} does)
worst 1 s  creates that arrived in the worst second, from samples 0.1 s apart
ever       the same over the whole run, the search included; exact, by the emulator's clock, everybody's creates
converged  seconds from the first create to the first {STRETCH:g} s with at least {REACHED:.0%} of the limit, and
           {HELD:.0%} in each second of them
calm       halving-*: seconds from the halving to the first {STRETCH:g} s with at most {CALM:.0%} 429s, at least
           {CALM_GOODPUT:.0%} of the lower limit and {HELD:.0%} in each second
back       halving-*: seconds from the return of the limit until it is reached, as in "converged"
-          did not happen"""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.limits", description="Measure imports under limits.")
    names = [scenario.name for scenario in SCENARIOS]
    parser.add_argument("--rounds", type=int, default=3, help="how often each is run (3)")
    parser.add_argument("--seconds", type=float, default=30, help="from the first create; some take twice as long (30)")
    parser.add_argument("--only", action="append", choices=names, help="a scenario; may be repeated (all)")
    parser.add_argument("--contender", action="append", choices=[*CONTENDERS, SDK_429], help="may be repeated (three)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round's figures and accounts there")
    options = parser.parse_args(arguments)
    if options.seconds < SHORTEST or options.rounds < 1:
        parser.error(f"at least one round, and {SHORTEST:g} seconds: the first {WARM_UP:g} are not measured")
    return options


async def measure(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Run everything that is asked for and print a line for each; return all figures."""
    found = []
    for scenario in SCENARIOS:
        if options.only and scenario.name not in options.only:
            continue
        seconds = options.seconds * scenario.times
        contenders = filter(scenario.admits, options.contender or CONTENDERS)
        results: dict[str, list[tuple[Figures, Any]]] = {contender: [] for contender in contenders}
        for _ in range(options.rounds):
            for contender, rounds in results.items():
                record, account = await compete(scenario, contender, seconds, folder)
                rounds.append((figures_of(record, scenario, seconds), account))
        for contender, rounds in results.items():
            middle = median_of([figures for figures, _ in rounds])
            print(_line(_cells(scenario, contender, middle)), flush=True)
            found.append(
                {
                    "scenario": scenario.name,
                    "contender": contender,
                    "seconds": seconds,
                    "limit": scenario.limit,
                    "median": as_json(middle),
                    "rounds": [{"figures": as_json(figures), "account": account} for figures, account in rounds],
                }
            )
    return found


def _cells(scenario: Scenario, contender: str, figures: Figures) -> list[str]:
    return [
        scenario.name,
        contender,
        f"{figures.goodput:.1f}",
        f"{figures.of_limit:.1%}",
        f"{figures.refused:.1%}",
        f"{figures.busiest:.0f}",
        f"{figures.busiest_ever:.0f}",
        *(_seconds(value) for value in (figures.converged, figures.calm, figures.back)),
        "" if figures.foreign_refused is None else f"{figures.foreign_refused:.1%}",
    ]


def _seconds(value: float | None) -> str:
    return "" if value is None else "-" if value == NEVER else f"{value:.1f}"


def _line(cells: Iterable[str]) -> str:
    padded = [
        cell.rjust(width) if place > 1 else cell.ljust(width)
        for place, (cell, width) in enumerate(zip(cells, WIDTHS, strict=True))
    ]
    return "  ".join(padded).rstrip()


async def _interruptible(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Measure; SIGTERM and SIGHUP end it as Ctrl-C does, so that no process is left behind."""
    working = asyncio.current_task()
    assert working is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, working.cancel)
    try:
        return await measure(options, folder)
    except asyncio.CancelledError:
        raise BrokenRunError("interrupted") from None


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    options = parse(arguments)
    print(_line(COLUMNS), flush=True)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="bench-limits-") as name:
        try:
            found = asyncio.run(_interruptible(options, Path(name)))
        except* BrokenRunError as group:
            sys.exit("\n".join(map(str, group.exceptions)))
        except* TimeoutError:
            sys.exit("a process did not begin or end in time")
    print(LEGEND)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
