"""`make bench-growth`: does a row cost more once the ledger has millions? A run of new rows, and a look, at both sizes.

The rows of the large ledger are copies, made by SQLite, of what real runs write; keys, sids and channels are their own.
The service is nginx with a constant answer, as in `speed`; the CPU of a command is what the kernel says when it ends.
"""

import argparse
import multiprocessing
import os
import shutil
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from statistics import median

from tests.bench.files import fill
from tests.bench.memory import ROWS_PER_CHANNEL, measure, write_rows
from tests.bench.speed import nginx

ROOT = Path(__file__).parents[2]
FIRST = 1_000
_GROWN = """
WITH RECURSIVE made(n) AS (SELECT :first UNION ALL SELECT n + 1 FROM made WHERE n < :last)
"""
_CHANNELS = f"""
INSERT INTO channels (channel_sid, interaction_sid) {_GROWN}
SELECT 'UO' || lower(hex(randomblob(16))), 'KD' || lower(hex(randomblob(16))) FROM made
"""
_ROWS = f"""
INSERT INTO rows (key, fingerprint, state, run_id, source_id, line, mark, channel_id, type, sid, http_status, attempts,
    request_id, started_at, settled_at) {_GROWN}
SELECT lower(hex(randomblob(16))), randomblob(16), 'created', run_id, source_id, n, mark, :channel + n / :share, type,
    'UT' || lower(hex(randomblob(16))), 201, 1, 'RQ' || lower(hex(randomblob(16))), started_at, settled_at
FROM made, (SELECT * FROM rows LIMIT 1)
"""


def grow(ledger: Path, rows: int) -> None:
    """Add so many created rows to a ledger."""
    with closing(sqlite3.connect(ledger)) as connection, connection:
        connection.execute("PRAGMA cache_size = -1000000")
        channel = connection.execute("SELECT max(id) + 1 FROM channels").fetchone()[0]
        connection.execute(_CHANNELS, {"first": 0, "last": rows // ROWS_PER_CHANNEL})
        values = {"first": 0, "last": rows - 1, "channel": channel, "share": ROWS_PER_CHANNEL}
        connection.execute(_ROWS, values)
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs=2, default=(10_000, 5_000_000))
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if shutil.which("nginx") is None:
        sys.exit("make bench-growth needs nginx: install it (on Debian: apt-get install nginx-light)")
    os.environ.update(PYTHONPATH=str(ROOT), FLEX_IMPORT__DOUBT__BASELINE="false")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder / "first.csv", FIRST)
        write_rows(folder / "all.csv", FIRST + given.rows)
        header, *lines = (folder / "all.csv").read_text().splitlines(keepends=True)
        (folder / "new.csv").write_text("".join([header, *lines[FIRST:]]))
        for size in given.sizes:
            fill(folder / f"{size}.db", folder / "first.csv")
            # a child's peak is counted from what its parent had: what takes much memory is a process of its own
            growing = multiprocessing.get_context("spawn").Process(target=grow, args=(folder / f"{size}.db", size))
            growing.start()
            growing.join()
        figures: dict[tuple[str, int], list[float]] = {}
        peaks: dict[tuple[str, int], float] = {}
        with nginx(folder) as (base_url, _):
            for _ in range(given.rounds):
                for size in given.sizes:
                    shutil.copyfile(folder / f"{size}.db", folder / "now.db")
                    run = ("run", "new.csv", "--base-url", base_url, "--rate", "inf", "--concurrency", "64")
                    for title, words in (("run", run), ("run again", run), ("status", ("status",))):
                        peak, _, cpu = measure(folder, *words, "--ledger", "now.db")
                        figures.setdefault((title, size), []).append(1e6 * cpu / given.rows)
                        peaks[title, size] = max(peak, peaks.get((title, size), 0))
                    for left in folder.glob("now.db*"):
                        left.unlink()
    print(f"CPU in microseconds a row of {given.rows:,}, the start included; medians of {given.rounds}; peak RSS in MB")
    print(f"{'':<12}" + "".join(f"{f'{size:,} in ledger':>24}" for size in given.sizes) + f"{'ratio':>8}")
    for title in dict.fromkeys(title for title, _ in figures):
        small, large = (median(figures[title, size]) for size in given.sizes)
        cells = "".join(f"{median(figures[title, s]):>16,.0f}{peaks[title, s]:>5.0f} MB" for s in given.sizes)
        print(f"{title:<12}{cells}{large / small:>8.2f}")


if __name__ == "__main__":
    main()
