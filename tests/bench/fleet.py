"""`make bench-fleet`: the price of PostgreSQL, what a second worker brings, and how near to a limit several come.

The second one brings something when the service is slow; the limit is one that they have to find together.

In turns, medians of several rounds; the last one is one round. The database is a real one, started here on loopback
with its defaults; the service is nginx with a constant answer for the first table, and the emulator for the others.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from statistics import median

import psycopg

from tests.bench.memory import CREDENTIALS, write_rows
from tests.bench.speed import TASKS, nginx
from tests.postgres import Postgres, postgres

ROOT = Path(__file__).parents[2]
LATENCY_SECONDS = 0.1
IN_FLIGHT = 32
LIMIT = 20.0
TOLD = 60.0
"""What the service allows a second, and what the workers are told."""

SETTLED, JOINED, OVER = 10.0, 35.0, 70.0
"""Seconds: from when on the limit counts as found; when a third worker joins; when all end."""


def start(folder: Path, *words: str, **env: str) -> subprocess.Popen[bytes]:
    """Start a command."""
    settings = {**os.environ, **CREDENTIALS, "PYTHONPATH": str(ROOT), **env}
    command = [sys.executable, "-m", "worker", *words]
    return subprocess.Popen(command, cwd=folder, env=settings, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def run_on(folder: Path, ledger: str, base_url: str) -> float:
    """Import a file; return rows a second."""
    words = ["run", "rows.csv", "--ledger", ledger, "--base-url", base_url, "--rate", "inf"]
    process = start(folder, *words, "--concurrency", str(TASKS), "--json", FLEX_IMPORT__DOUBT__BASELINE="false")
    out, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"exit {process.returncode}: {out.decode()[-1000:]}")
    return float(json.loads(out)["rows_per_second"])


def compare_ledgers(folder: Path, server: Postgres, rows: int, rounds: int) -> None:
    """Print rows a second of `run` on both engines."""
    write_rows(folder / "rows.csv", rows)
    rates: dict[str, list[float]] = {"SQLite": [], "PostgreSQL": []}
    with nginx(folder) as (base_url, _):
        for number in range(rounds):
            rates["SQLite"].append(run_on(folder, str(folder / f"{number}.db"), base_url))
            rates["PostgreSQL"].append(run_on(folder, server.new_schema(), base_url))
    for name, found in rates.items():
        share = median(found) / median(rates["SQLite"])
        print(f"run on {name:<12}{median(found):>8,.0f} rows/s{share:>7.2f}   {min(found):,.0f}-{max(found):,.0f}")


@contextmanager
def emulator(folder: Path, **behaviour: float) -> Iterator[str]:
    """Serve; yields where."""
    process = start(folder, "emulator", "--port", "0", "--forget")
    assert process.stdout is not None
    try:
        base_url = process.stdout.readline().decode().strip()
        change = json.dumps(behaviour).encode()
        urllib.request.urlopen(f"{base_url}/emulator/behaviour", change).close()  # noqa: S310 - our own, on loopback
        yield base_url
    finally:
        process.terminate()
        process.wait()


def hire(folder: Path, place: str, base_url: str, rate: float) -> subprocess.Popen[bytes]:
    """Start a worker."""
    words = ["worker", "--ledger", place, "--base-url", base_url, "-q"]
    words += ["--rate", str(rate), "--concurrency", str(IN_FLIGHT)]
    return start(folder, *words, FLEX_IMPORT__LIMITS__LIST_RATE_PER_SECOND="inf")


def dismiss(crew: list[subprocess.Popen[bytes]]) -> None:
    """End workers."""
    for process in crew:
        process.terminate()
        process.wait()


def fill(folder: Path, server: Postgres, base_url: str) -> str:
    """Queue rows in a ledger of their own; return its place."""
    place = server.new_schema()
    if start(folder, "enqueue", "slow.csv", "--ledger", place, "--base-url", base_url, "-q").wait():
        raise RuntimeError("enqueue failed")
    return place


def work(folder: Path, server: Postgres, base_url: str, workers: int, rows: int) -> float:
    """Queue rows and let so many workers send them; return rows a second, from the first to the last."""
    place = fill(folder, server, base_url)
    crew = [hire(folder, place, base_url, inf) for _ in range(workers)]
    began, first = 0.0, rows
    try:
        with psycopg.connect(place, autocommit=True) as connection:
            while True:
                found = connection.execute("SELECT count(*) FROM queued").fetchone()
                left = found[0] if found else rows
                if left < rows and not began:
                    began, first = time.monotonic(), left
                if not left:
                    return first / (time.monotonic() - began)
                time.sleep(0.05)
    finally:
        dismiss(crew)


def find_limit(folder: Path, server: Postgres) -> None:
    """Print how near two workers, and later three, come to a limit that nobody told them."""

    def counted() -> tuple[int, int]:
        with urllib.request.urlopen(f"{base_url}/emulator/stats") as answer:  # noqa: S310 - as above
            stats = json.load(answer)
        return stats["created"], stats["throttled"]

    with emulator(folder, latency_seconds=0.05, rate_per_second=LIMIT) as base_url:
        place = fill(folder, server, base_url)
        crew = [hire(folder, place, base_url, TOLD) for _ in range(2)]
        try:
            while not counted()[0]:
                time.sleep(0.05)
            seen = [(0.0, *counted())]
            began = time.monotonic()
            for until in (SETTLED, JOINED, OVER):
                if until == OVER:
                    crew.append(hire(folder, place, base_url, TOLD))
                time.sleep(began + until - time.monotonic())
                seen.append((time.monotonic() - began, *counted()))
        finally:
            dismiss(crew)
    print(f"{TOLD:g}/s told, {LIMIT:g}/s allowed")
    for name, before, after in zip(("found", "two workers", "a third one joins"), seen, seen[1:], strict=False):
        seconds, created, refused = (later - earlier for earlier, later in zip(before, after, strict=True))
        print(f"  {name:<18}{seconds:>4.0f} s{created / seconds / LIMIT:>7.1%} of the limit, {refused:.0f} 429s")


def compare_crews(folder: Path, server: Postgres, rows: int, rounds: int) -> None:
    """Print rows a second of one worker and of two."""
    with emulator(folder, latency_seconds=LATENCY_SECONDS) as base_url:
        rates: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(rounds):
            for workers, found in rates.items():
                found.append(work(folder, server, base_url, workers, rows))
    for workers, found in rates.items():
        share = median(found) / median(rates[1])
        print(f"{workers} worker{'s' * (workers > 1):<16}{median(found):>8,.0f} rows/s{share:>7.2f}   "
              f"{min(found):,.0f}-{max(found):,.0f}")  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--slow-rows", type=int, default=6_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, postgres() as server:
        compare_ledgers(Path(name), server, given.rows, given.rounds)
        write_rows(Path(name) / "slow.csv", given.slow_rows)
        compare_crews(Path(name), server, given.slow_rows, min(3, given.rounds))
        find_limit(Path(name), server)


if __name__ == "__main__":
    main()
