"""`make bench-files`: how fast files are read, mapped, passed over and exported, beside a bare loop over the same file.

Each figure is the median of several rounds of real commands; the contenders take turns within a round, since a machine
is not as fast at one moment as at another. A ratio says how many times as long as the bare loop a command took: that is
what can be compared between machines. Everything stays on this machine; nothing is sent.
"""

import argparse
import csv
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import median

from tests.bench.memory import CREDENTIALS, measure, write_rows
from worker.config import Source, load
from worker.intake import stored_path
from worker.ledger import Intent, Settle, SourceFile
from worker.ledger.opening import create_ledger, open_ledger
from worker.model import Created, Misfit, Settlement
from worker.payload import Mapper, ready
from worker.source import Input, Reader

STARTS = 5
"""How often each command is started, for the median of how long that takes."""

RICH = """
[source]
key = "agent:{ID}"
delimiter = ";"
[mapping]
interaction_sid = "{KD}"
channel_sid = "{UO}"
type = "{Kind | trim | map:kind}"
[mapping.media_properties]
address = "+44{Phone | digits}"
proxy_address = "+441632960000"
name = "{First | trim} {Last | trim}"
[map.kind]
Client = "customer"
"""


def write_rich(path: Path, plain: Path) -> None:
    """Write the rows of a plain file in a legacy system's columns."""
    with plain.open(encoding="utf-8", newline="") as rows, path.open("w", encoding="utf-8") as stream:
        stream.write("ID;KD;UO;Kind;First;Last;Phone;Note;Queue\n")
        for number, row in enumerate(csv.DictReader(rows)):
            place = f"{row['interaction_sid']};{row['channel_sid']}"
            stream.write(f"{number};{place};Client;First {number};Last;(0)1632 {number:06};none;sales\n")


def fill(ledger: Path, file: Path) -> None:
    """Make a ledger in which every row of a file is created."""
    create_ledger(ledger)
    mapper = Mapper(None)
    with closing(open_ledger(ledger)) as writer, Reader(Input(file.name, file), Source()) as reader:
        writer.start_run("run")
        dialect = (reader.format, reader.encoding, reader.delimiter, reader.header)
        number = writer.register(SourceFile(stored_path(file), *dialect))
        for batch in reader:
            drafts = [mapper.map(record, number) for record in batch]
            rows = [ready(one, mapper.mark(one.text)) for one in drafts if not isinstance(one, Misfit)]
            numbers = writer.write([Intent(row) for row in rows])
            settlements = [Settlement(row.key, Created(f"UT{row.fingerprint.hex()}")) for row in rows]
            done = [Settle(at, one) for at, one in zip(numbers, settlements, strict=True) if isinstance(at, int)]
            writer.write(done)
        writer.end_run(0, "made by a bench", "{}")
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def bare_loop(path: Path, delimiter: str) -> float:
    """Return the seconds that a process of its own takes to make a dictionary of each record, and no more."""
    code = (
        "import csv,sys\n"
        "with open(sys.argv[1], encoding='utf-8', newline='') as f:\n"
        "    for row in csv.DictReader(f, delimiter=sys.argv[2]): pass\n"
    )
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, str(path), delimiter], check=True)
    return time.perf_counter() - began


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent.parent)
    os.environ.update(CREDENTIALS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder / "plain.csv", given.rows)
        write_rich(folder / "rich.csv", folder / "plain.csv")
        (folder / "rich.toml").write_text(RICH)
        load(folder / "rich.toml", {}, {})
        fill(folder / "done.db", folder / "plain.csv")
        here = ("--base-url", "http://127.0.0.1:9", "--ledger", "done.db")  # nothing is sent, so nobody need be there
        plain, rich, out = ("plain.csv", ","), ("rich.csv", ";"), ("--ledger", "done.db", "-o", "out", "--format")
        contenders = {
            "check, default mapping": (plain, ("check", "plain.csv", "--ledger", "none.db")),
            "check, rich mapping": (rich, ("check", "rich.csv", "--config", "rich.toml", "--ledger", "none.db")),
            "check, all done before": (plain, ("check", "plain.csv", "--ledger", "done.db")),
            "run, all done before": (plain, ("run", "plain.csv", *here)),
            "export, CSV": (plain, ("export", *out, "csv")),
            "export, NDJSON": (plain, ("export", *out, "ndjson")),
        }
        seconds: dict[str, list[float]] = {title: [] for title in contenders}
        ratios: dict[str, list[float]] = {title: [] for title in contenders}
        peaks: dict[str, float] = {}
        for _ in range(given.rounds):
            for title, ((file, delimiter), words) in contenders.items():
                bare = bare_loop(folder / file, delimiter)
                peaks[title], took, _ = measure(folder, *words)
                seconds[title].append(took)
                ratios[title].append(took / bare)
        commands = (("--version",), ("status", "--ledger", "done.db")) * STARTS
        starts = [measure(folder, *words).seconds for words in commands]
    print(f"{'':<24}{'rows/s':>10}{'slowest':>10}{'x bare loop':>13}{'peak RSS':>11}   {given.rows:,} rows")
    for title, times in seconds.items():
        rate, slowest = given.rows / median(times), given.rows / max(times)
        print(f"{title:<24}{rate:>10,.0f}{slowest:>10,.0f}{median(ratios[title]):>13.1f}{peaks[title]:>8.1f} MB")
    print(f"start-up: --version {median(starts[::2]):.3f} s, status {median(starts[1::2]):.3f} s")


if __name__ == "__main__":
    main()
