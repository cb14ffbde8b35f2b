"""`make bench-fleet`: what a ledger in PostgreSQL costs, and what a second worker brings when the service is slow.

In turns, medians of several rounds. The database is a real one, started here on loopback with its defaults; the service
is nginx with a constant answer for the first table, and the emulator with a latency of 100 ms for the second.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from statistics import median

import psycopg

from tests.bench.memory import CREDENTIALS, write_rows
from tests.bench.speed import TASKS, nginx
from tests.postgres import Postgres, postgres

ROOT = Path(__file__).parents[2]
LATENCY_SECONDS = 0.1
IN_FLIGHT = 32


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


def work(folder: Path, server: Postgres, base_url: str, workers: int, rows: int) -> float:
    """Queue rows and let so many workers send them; return rows a second, from the first to the last."""
    place = server.new_schema()
    queued = start(folder, "enqueue", "slow.csv", "--ledger", place, "--base-url", base_url, "-q")
    if queued.wait():
        raise RuntimeError("enqueue failed")
    words = ["worker", "--ledger", place, "--base-url", base_url, "-q"]
    words += ["--rate", "inf", "--concurrency", str(IN_FLIGHT)]
    crew = [start(folder, *words, FLEX_IMPORT__LIMITS__LIST_RATE_PER_SECOND="inf") for _ in range(workers)]
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
        for process in crew:
            process.terminate()
            process.wait()


def compare_crews(folder: Path, server: Postgres, rows: int, rounds: int) -> None:
    """Print rows a second of one worker and of two."""
    write_rows(folder / "slow.csv", rows)
    emulator = start(folder, "emulator", "--port", "0", "--forget")
    assert emulator.stdout is not None
    try:
        base_url = emulator.stdout.readline().decode().strip()
        change = json.dumps({"latency_seconds": LATENCY_SECONDS}).encode()
        urllib.request.urlopen(f"{base_url}/emulator/behaviour", change).close()  # noqa: S310 - our own, on loopback
        rates: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(rounds):
            for workers, found in rates.items():
                found.append(work(folder, server, base_url, workers, rows))
    finally:
        emulator.terminate()
        emulator.wait()
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
        compare_crews(Path(name), server, given.slow_rows, min(3, given.rounds))


if __name__ == "__main__":
    main()
