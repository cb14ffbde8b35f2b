"""`make torture`: real imports, killed, frozen, stopped and undone while everything goes wrong; then the truth.

It prints a table and exits 1 when something is true that must not be. It takes some minutes; `--rows` and `--kills`
make it smaller, `--seed` makes another one.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.torture.audit import FATES, add_fates
from tests.torture.phases import Passed, freeze, kill, outage, terminate, undergo, undo
from tests.torture.world import Scale
from worker.emulator import Fault

SMALLER = 5
"""The later phases have so many times fewer rows, and a third of the blows."""

OUTAGES_AT_MOST = 10
"""Each of them takes some seconds."""

SLOWEST = 20.0
"""Requests a second, at least."""

HEADINGS = ("phase", "blows", "runs", "made", "created", "reconciled", "closed", "refused", "in doubt", "undecidable",
            "held", "duplicates", "wrong", "lost", "most added", "ends s", "lag s", "seconds")  # fmt: skip


def say(text: str = "") -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description="Torture real imports.")
    parser.add_argument("--rows", type=int, default=5000, help="rows of the first phase (5000)")
    parser.add_argument("--kills", type=int, default=100, help="times that it is killed while at work (100)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="what chance begins with (the time)")
    parser.add_argument("--minutes", type=float, default=20.0, help="when to give up (20)")
    parser.add_argument("--spare", nargs="*", type=Fault, default=[], metavar="FAULT", help="faults that do not happen")
    return parser.parse_args(arguments)


async def torture(rows: int, kills: int, seed: int, spared: frozenset[Fault], folder: Path) -> list[Passed]:
    """Go through all phases."""
    less, blows = max(20, rows // SMALLER), max(1, kills // 3)
    phases = (
        ("kill", kill, rows, kills),
        ("freeze", freeze, less, blows),
        ("terminate", terminate, less, blows),
        ("undo", undo, less, blows),
        ("outage", outage, less, min(blows, OUTAGES_AT_MOST)),
    )
    passed = []
    for number, (name, torment, count, strikes) in enumerate(phases):
        # slow enough that there is work left for every blow
        rate = SLOWEST if torment is outage else max(SLOWEST, count / strikes)
        scale = Scale(rows=count, rate=rate, spared=spared)
        passed.append(await undergo(name, torment, scale, strikes, seed=seed + number, folder=folder / name))
        say(f"{name} is over after {passed[-1].seconds:.0f} s, {len(passed[-1].problems)} problems")
    return passed


def show(passed: Sequence[Passed]) -> None:
    """Print what was done, what became of it, and what must not be."""
    lines = []
    for one in passed:
        found, ordeal = one.audit, one.ordeal
        counts = (found.made, found.created, found.reconciled, found.closed, found.refused, found.in_doubt,
                  found.undecidable.total(), found.held, found.duplicates, found.wrong, found.lost,
                  ordeal.most_added)  # fmt: skip
        lines.append((one.name, str(ordeal.blows), str(ordeal.runs), *map(str, counts), f"{ordeal.slowest_end:.1f}",
                      f"{ordeal.lag:.2f}", f"{one.seconds:.0f}"))  # fmt: skip
    say()
    _print_table(HEADINGS, lines)
    total: dict[str, Counter[str]] = {}
    for one in passed:
        total = add_fates(total, one.fates)
    say()
    _print_table(("a create met", *FATES), [(name, *(str(met[fate]) for fate in FATES)) for name, met in total.items()])
    for heading, counters in (
        ("what no client can know", [one.audit.undecidable for one in passed]),
        ("in doubt at the end, by reason", [one.audit.reasons for one in passed]),
    ):
        reasons = sum(counters, Counter[str]())
        say()
        _print_table((heading, "rows"), [(reason, str(rows)) for reason, rows in reasons.most_common()])
    say()
    for one in passed:
        for doubt in one.audit.doubts:
            say(f"{one.name}: left to a person: {doubt}")
        for problem in one.problems:
            say(f"{one.name}: {problem}")


def _print_table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(headings, *lines, strict=True)]
    for line in (headings, *lines):
        first, *rest = (text.ljust(width) if not place else text.rjust(width)
                        for place, (text, width) in enumerate(zip(line, widths, strict=True)))  # fmt: skip
        say("  ".join((first, *rest)))


async def _bounded(options: argparse.Namespace, folder: Path) -> list[Passed]:
    async with asyncio.timeout(options.minutes * 60):
        return await torture(options.rows, options.kills, options.seed, frozenset(options.spare), folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Torture, print the tables and return 1 when something is true that must not be."""
    options = parse(arguments)
    say(f"seed {options.seed}, {options.rows} rows, {options.kills} kills")
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        try:
            passed = asyncio.run(_bounded(options, Path(name)))
        except TimeoutError:
            say(f"not finished after {options.minutes:g} minutes")
            return 1
    show(passed)
    problems = sum(len(one.problems) for one in passed)
    say("\nnothing twice, nothing lost, nothing wrong" if not problems else f"\n{problems} problems")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
