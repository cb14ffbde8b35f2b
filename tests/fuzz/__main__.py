"""`make fuzz`: makes new examples of those that reached new lines, until its minutes are over or a bug is found.

No fuzzing library: the one that follows coverage has no build for every machine, and what can go wrong here needs
well-formed settings around damaged bytes, which mutations that know an example make at once.
"""

import argparse
import faulthandler
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from time import monotonic
from types import FrameType, TracebackType
from typing import Any, Self

from tests.commands import ROOT
from tests.fuzz.example import SEEDS, Example, seeds, write
from tests.fuzz.mutation import mutate
from tests.fuzz.oracle import examine

UNDER_TEST = ("source/", "payload/", "template.py", "filter.py")
PATIENCE_SECONDS = 20
KEPT_BYTES = 300


class Trail:
    """The steps from line to line that the code under test takes while this is entered."""

    def __init__(self) -> None:
        self.steps: set[tuple[str, int, int]] = set()
        self._worker = str(ROOT / "worker") + "/"
        self._wanted: dict[str, bool] = {}

    def __enter__(self) -> Self:
        self._before = sys.gettrace()
        sys.settrace(self._enter)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.settrace(self._before)

    def _enter(self, frame: FrameType, event: str, _: Any) -> Any:
        name = frame.f_code.co_filename
        if name not in self._wanted:
            self._wanted[name] = name.startswith(self._worker) and name[len(self._worker) :].startswith(UNDER_TEST)
        if event != "call" or not self._wanted[name]:
            return None
        last = 0

        def step(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal last
            if event == "line":
                self.steps.add((name, last, frame.f_lineno))
                last = frame.f_lineno
            return step

        return step


def shrink(example: Example, fails: Callable[[Example], bool]) -> Example:
    """Return a smaller example that still fails: settings back to the usual, and bytes taken away."""
    usual = Example(b"")
    for name in ("pack", "cut", "format", "encoding", "delimiter", "name", "key", "template"):
        simpler = replace(example, **{name: getattr(usual, name)})
        if fails(simpler):
            example = simpler
    size = max(1, len(example.content) // 2)
    while size:
        at = 0
        while at < len(example.content):
            simpler = replace(example, content=example.content[:at] + example.content[at + size :])
            if fails(simpler):
                example = simpler
            else:
                at += size
        size //= 2
    return example


def main() -> int:
    """Fuzz, and return 0, or 1 when a bug was found."""
    asked = argparse.ArgumentParser(prog="make fuzz ARGS=", description="Fuzz the reader and the mapping.")
    asked.add_argument("--minutes", type=float, default=1)
    asked.add_argument("--seed", type=int, default=0, help="of the dice; 0: another one each time")
    asked.add_argument("--keep", action="store_true", help="keep small examples that reached new lines as seeds")
    given = asked.parse_args()
    signal.signal(signal.SIGALRM, _hang)
    dice = Random(given.seed or None)
    memory = Path("/dev/shm")  # noqa: S108 - where files cost nothing, if there is such a place
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        return _fuzz(dice, given.minutes * 60, Path(name), keep=given.keep)


class HangError(Exception):
    """An example took too long."""


def _hang(*_: Any) -> None:
    raise HangError(f"no result after {PATIENCE_SECONDS} s")


def _fuzz(dice: Random, seconds: float, folder: Path, *, keep: bool) -> int:
    trail, corpus, found = Trail(), list(seeds().values()), Counter[str]()
    began = told = monotonic()
    for example in corpus:
        if not _try(example, folder, trail, found):
            return 1
    print(f"{len(corpus)} seeds, {len(trail.steps)} steps", flush=True)
    while (now := monotonic()) - began < seconds:
        before = len(trail.steps)
        example = mutate(dice, corpus)
        if not _try(example, folder, trail, found):
            return 1
        if len(trail.steps) > before:
            corpus.append(example)
            if keep and len(write(example)) <= KEPT_BYTES:
                _keep(example, "reached")
        if now - told > 30:
            told = now
            print(_account(found, corpus, trail, now - began), flush=True)
    print(_account(found, corpus, trail, monotonic() - began))
    return 0


def _account(found: Counter[str], corpus: list[Example], trail: Trail, seconds: float) -> str:
    total = sum(found.values())
    outcomes = ", ".join(f"{count:,} {word}" for word, count in found.most_common())
    lines = len({(name, line) for name, _, line in trail.steps})
    return (
        f"{seconds:,.0f} s, {total:,} executions ({total / seconds:,.0f}/s): {outcomes}; "
        f"corpus {len(corpus)}, {len(trail.steps)} steps over {lines} lines"
    )


def _try(example: Example, folder: Path, trail: Trail, found: Counter[str]) -> bool:
    """Examine an example; a bug is printed, made small and kept as a seed."""
    (folder / "current").write_bytes(write(example))
    faulthandler.dump_traceback_later(2 * PATIENCE_SECONDS, exit=True)  # when not even a signal gets through
    signal.alarm(PATIENCE_SECONDS)
    try:
        with trail:
            found[examine(example, folder)] += 1
    except Exception as exc:  # noqa: BLE001 - whatever it is, it is a bug
        bug = exc
    else:
        return True
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
    traceback.print_exception(bug)

    def fails(other: Example) -> bool:
        signal.alarm(PATIENCE_SECONDS)
        try:
            examine(other, folder)
        except Exception as exc:  # noqa: BLE001 - as above
            return type(exc) is type(bug)
        finally:
            signal.alarm(0)
        return False

    small = shrink(example, fails) if fails(example) else example
    print(f"BUG: {small}\nkept as {_keep(small, 'bug')}")
    return False


def _keep(example: Example, why: str) -> Path:
    numbers = {path.name for path in SEEDS.glob(f"{why}-*.seed")}
    number = next(number for number in range(1, 10_000) if f"{why}-{number}.seed" not in numbers)
    path = SEEDS / f"{why}-{number}.seed"
    path.write_bytes(write(example))
    return path


if __name__ == "__main__":
    sys.exit(main())
