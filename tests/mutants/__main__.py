"""`make mutants`: put each deliberate bug into a copy of the tree, and see the tests named with it fail.

Prints what became of each, and exits 1 when one survives, when its place is not found exactly once, or when a named
test fails without any bug.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.commands import ROOT
from tests.mutants.catalogue import MUTANTS, Mutant

AT_ONCE = 2
SECONDS = 120.0
"""How long the tests of one mutant may take; a mutant that hangs them is noticed, too."""

NEEDED = ("worker", "tests", "pyproject.toml")
_FAILED = 1  # pytest: tests ran, and some failed


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def copy_tree(folder: Path) -> Path:
    """Copy what the tests need."""
    for name in NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, folder)
    return folder


def misplaced(mutant: Mutant, root: Path = ROOT) -> str:
    """Return why a mutant cannot be made, or nothing."""
    path = root / mutant.file
    if not path.exists():
        return f"there is no {mutant.file}"
    count = path.read_text(encoding="utf-8").count(mutant.old)
    return "" if count == 1 else f"its place is found {count} times in {mutant.file}, not once"


def infect(mutant: Mutant, root: Path) -> None:
    """Put the bug in."""
    path = root / mutant.file
    text = path.read_text(encoding="utf-8").replace(mutant.old, mutant.new)
    compile(text, str(path), "exec")
    path.write_text(text, encoding="utf-8")


def run_tests(tests: Sequence[str], root: Path) -> tuple[int | None, str]:
    """Run tests in a copy; return pytest's exit code (None: they hung) and what it printed."""
    words = (sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE", "PYTEST"))}
    with subprocess.Popen(
        words, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            out, _ = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return None, ""
    return process.returncode, out


def try_out(mutant: Mutant, root: Path = ROOT) -> tuple[str, str]:
    """Return what became of a mutant (killed, survived or broken), and the test that killed it or what is wrong."""
    if why := misplaced(mutant, root):
        return "broken", why
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        folder = copy_tree(Path(name))
        infect(mutant, folder)
        code, out = run_tests(mutant.tests, folder)
    if code is None:
        return "killed", f"hangs for {SECONDS:g} s"
    if code == _FAILED:
        failed = [line for line in out.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return "killed", failed[0].partition(" - ")[0].removeprefix("FAILED ") if failed else ""
    if not code:
        return "survived", f"of {', '.join(mutant.tests)}"
    return "broken", f"pytest ended with {code}:\n{out[-2000:]}"


def check_tests(mutants: Sequence[Mutant]) -> str:
    """Return what is wrong with the named tests themselves: they have to pass where there is no bug."""
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        code, out = run_tests(tests, copy_tree(Path(name)))
    return "" if code == 0 else out[-3000:]


def main(arguments: Sequence[str] | None = None) -> int:
    """Try all mutants out, or those whose name has a word; print what became of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Try deliberate bugs out.")
    parser.add_argument("word", nargs="?", default="", help="only mutants with this in their name")
    word = parser.parse_args(arguments).word
    mutants = [mutant for mutant in MUTANTS if word in mutant.name]
    began = time.monotonic()
    survivors = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        healthy = pool.submit(check_tests, mutants)
        for mutant, (fate, detail) in zip(mutants, pool.map(partial(try_out), mutants), strict=True):
            survivors += fate != "killed"
            say(f"{fate:<9} {mutant.name}  ({detail})")
        problem = healthy.result()
    if problem:
        say(f"without any bug the named tests do not pass:\n{problem}")
    killed = len(mutants) - survivors
    say(f"{killed} of {len(mutants)} killed in {time.monotonic() - began:.0f} s")
    return bool(survivors or problem or not mutants)


if __name__ == "__main__":
    sys.exit(main())
