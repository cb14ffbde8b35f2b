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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from time import monotonic
from types import FrameType, TracebackType
from typing import Any, Generic, Self, TypeVar

from tests.commands import ROOT
from tests.fuzz import answer, answer_mutation, answer_oracle, example, mutation, oracle, wire
from tests.fuzz.example import SEEDS, Case, write

C = TypeVar("C", bound=Case)


@dataclass(frozen=True)
class Target(Generic[C]):
    """Something to fuzz: its examples, how others are made of them, and what must be true of each.

    under_test: the beginnings of the names of the files below `worker` whose lines an example may reach.
    """

    seeds: Callable[[], dict[str, C]]
    mutate: Callable[[Random, Sequence[C]], C]
    examine: Callable[[C, Path], str]
    folder: Path
    under_test: tuple[str, ...]


TARGETS: dict[str, Target[Any]] = {
    "inputs": Target(
        example.seeds, mutation.mutate, oracle.examine, SEEDS, ("source/", "payload/", "template.py", "filter.py")
    ),
    "answers": Target(
        *(answer.seeds, answer_mutation.mutate, answer_oracle.examine, answer.FOLDER),
        ("verdict", "mask", "api", "reconcile", "undo"),
    ),
    "wire": Target(wire.seeds, wire.mutate, wire.examine, wire.FOLDER, ("api",)),
}
PATIENCE_SECONDS = 20
KEPT_BYTES = 300


class Trail:
    """The steps from line to line that the code under test takes while this is entered."""

    def __init__(self, under_test: tuple[str, ...] = TARGETS["inputs"].under_test) -> None:
        self._under_test = under_test
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
            self._wanted[name] = name.startswith(self._worker) and name[len(self._worker) :].startswith(
                self._under_test
            )
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


def shrink(case: C, fails: Callable[[C], bool]) -> C:
    """Return a smaller example that still fails: settings back to the usual, and bytes taken away."""
    for name, field in case.__dataclass_fields__.items():
        if name != "content" and fails(simpler := _with(case, name, field.default)):
            case = simpler
    size = max(1, len(case.content) // 2)
    while size:
        at = 0
        while at < len(case.content):
            simpler = _with(case, "content", case.content[:at] + case.content[at + size :])
            if fails(simpler):
                case = simpler
            else:
                at += size
        size //= 2
    return case


def _with(case: C, name: str, value: Any) -> C:
    return replace(case, **{name: value})


def main() -> int:
    """Fuzz, and return 0, or 1 when a bug was found."""
    asked = argparse.ArgumentParser(prog="make fuzz ARGS=", description="Fuzz what reads inputs, and answers.")
    asked.add_argument("--minutes", type=float, default=1, help="of all targets together")
    asked.add_argument("--target", choices=TARGETS, action="append", help="may be repeated; all of them by default")
    asked.add_argument("--seed", type=int, default=0, help="of the dice; 0: another one each time")
    asked.add_argument("--keep", action="store_true", help="keep small examples that reached new lines as seeds")
    given = asked.parse_args()
    signal.signal(signal.SIGALRM, _hang)
    targets = given.target or list(TARGETS)
    memory = Path("/dev/shm")  # noqa: S108 - where files cost nothing, if there is such a place
    for target in targets:
        dice, seconds = Random(given.seed or None), given.minutes * 60 / len(targets)
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
            print(f"{target}: ", end="")
            if _fuzz(TARGETS[target], dice, seconds, Path(name), keep=given.keep):
                return 1
    return 0


class HangError(Exception):
    """An example took too long."""


def _hang(*_: Any) -> None:
    raise HangError(f"no result after {PATIENCE_SECONDS} s")


def _fuzz(target: Target[C], dice: Random, seconds: float, folder: Path, *, keep: bool) -> int:
    trail, corpus, found = Trail(target.under_test), list(target.seeds().values()), Counter[str]()
    began = told = monotonic()
    for case in corpus:
        if not _try(target, case, folder, trail, found):
            return 1
    print(f"{len(corpus)} seeds, {len(trail.steps)} steps", flush=True)
    while (now := monotonic()) - began < seconds:
        before = len(trail.steps)
        case = target.mutate(dice, corpus)
        if not _try(target, case, folder, trail, found):
            return 1
        if len(trail.steps) > before:
            corpus.append(case)
            if keep and len(write(case)) <= KEPT_BYTES:
                _keep(target, case, "reached")
        if now - told > 30:
            told = now
            print(_account(found, corpus, trail, now - began), flush=True)
    print(_account(found, corpus, trail, monotonic() - began))
    return 0


def _account(found: Counter[str], corpus: Sequence[Case], trail: Trail, seconds: float) -> str:
    total = sum(found.values())
    outcomes = ", ".join(f"{count:,} {word}" for word, count in found.most_common())
    lines = len({(name, line) for name, _, line in trail.steps})
    return (
        f"{seconds:,.0f} s, {total:,} executions ({total / seconds:,.0f}/s): {outcomes}; "
        f"corpus {len(corpus)}, {len(trail.steps)} steps over {lines} lines"
    )


def _try(target: Target[C], case: C, folder: Path, trail: Trail, found: Counter[str]) -> bool:
    """Examine an example; a bug is printed, made small and kept as a seed."""
    (folder / "current").write_bytes(write(case))
    faulthandler.dump_traceback_later(2 * PATIENCE_SECONDS, exit=True)  # when not even a signal gets through
    signal.alarm(PATIENCE_SECONDS)
    try:
        with trail:
            found[target.examine(case, folder)] += 1
    except Exception as exc:  # noqa: BLE001 - whatever it is, it is a bug
        bug = exc
    else:
        return True
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
    traceback.print_exception(bug)

    def fails(other: C) -> bool:
        signal.alarm(PATIENCE_SECONDS)
        try:
            target.examine(other, folder)
        except Exception as exc:  # noqa: BLE001 - as above
            return type(exc) is type(bug)
        finally:
            signal.alarm(0)
        return False

    small = shrink(case, fails) if fails(case) else case
    print(f"BUG: {small}\nkept as {_keep(target, small, 'bug')}")
    return False


def _keep(target: Target[Any], case: Case, why: str) -> Path:
    numbers = {path.name for path in target.folder.glob(f"{why}-*.seed")}
    number = next(number for number in range(1, 10_000) if f"{why}-{number}.seed" not in numbers)
    target.folder.mkdir(exist_ok=True)
    path = target.folder / f"{why}-{number}.seed"
    path.write_bytes(write(case))
    return path


if __name__ == "__main__":
    sys.exit(main())
