"""`make bench-memory`: does memory stay flat? Peak RSS of `check` and `run` at 10,000 and at 1,000,000 made rows.

The service is the emulator without latency, which keeps counters only. Each command is a process of its own; its peak
is what the kernel says when it ends.
"""

import os
import subprocess
import sys
import tempfile
import time
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

ROWS = (10_000, 1_000_000)
ROWS_PER_CHANNEL = 5
TYPES = ("agent", "customer", "supervisor", "external", "unknown")
CREDENTIALS = {"TWILIO_ACCOUNT_SID": "AC" + "1" * 32, "TWILIO_AUTH_TOKEN": "none"}


def write_rows(path: Path, rows: int) -> None:
    """Write a CSV of made rows; the rows of a channel stand far apart."""
    channels = max(1, rows // ROWS_PER_CHANNEL)
    with path.open("w", encoding="utf-8") as stream:
        stream.write("interaction_sid,channel_sid,type,media_properties.address,media_properties.name\n")
        for number in range(rows):
            digest = blake2b(str(number % channels).encode(), digest_size=16).hexdigest()
            kind = TYPES[number % len(TYPES)]
            stream.write(f"KD{digest},UO{digest},{kind},person.{number}@example.com,Person {number}\n")


class Cost(NamedTuple):
    """What a command took. peak: RSS in MB; seconds: by the clock on the wall; cpu: likewise, of a core."""

    peak: float
    seconds: float
    cpu: float


def measure(folder: Path, *words: str) -> Cost:
    """Run one command; return what it took. Raises RuntimeError when it fails."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", *words],
        cwd=folder,
        env={**os.environ, **CREDENTIALS},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)}: exit {process.returncode}")
    return Cost(usage.ru_maxrss / 1024, time.perf_counter() - began, usage.ru_utime + usage.ru_stime)


def main() -> None:
    """Measure and print the table."""
    os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent.parent)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        emulator = subprocess.Popen(
            [sys.executable, "-m", "worker", "emulator", "--port", "0", "--forget"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert emulator.stdout is not None
        try:
            base_url = emulator.stdout.readline().strip()
            peaks: dict[str, list[float]] = {}
            print(f"{'command':<14}{'rows':>11}{'peak RSS':>11}{'rows/s':>10}")
            for rows in ROWS:
                write_rows(folder / f"{rows}.csv", rows)
                sending = ("run", f"{rows}.csv", "--base-url", base_url, "--rate", "inf", "--concurrency", "64")
                commands = {
                    "check": ("check", f"{rows}.csv", "--ledger", f"{rows}.db"),
                    "run": (*sending, "--ledger", f"{rows}.db"),
                    "run again": (*sending, "--ledger", f"{rows}.db"),
                }
                for title, words in commands.items():
                    peak, seconds, _ = measure(folder, *words)
                    peaks.setdefault(title, []).append(peak)
                    print(f"{title:<14}{rows:>11,}{peak:>8.1f} MB{rows / seconds:>10,.0f}", flush=True)
            for title, (small, large) in peaks.items():
                print(f"{title}: {large / small:.2f} times the memory for {ROWS[1] // ROWS[0]} times the rows")
        finally:
            emulator.terminate()
            emulator.wait()
            emulator.stdout.close()


if __name__ == "__main__":
    main()
