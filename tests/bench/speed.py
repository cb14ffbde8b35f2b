"""`make bench`: one table, every contender on the same rows against the same server, in turns; medians and spread.

The server is nginx, which answers a constant 201, so that no contender waits for it; how busy it was is told. It is
started here on loopback and ended here by its pid. The CPU of a contender is what the kernel says when it ends.
"""

import argparse
import json
import os
import resource
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests.bench.memory import CREDENTIALS, write_rows

ROOT = Path(__file__).parents[2]
TASKS = 64
NGINX = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000000;
  default_type application/json;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      if ($request_method = GET) {{ return 200 '{{"participants": [], "meta": {{"next_page_url": null}}}}'; }}
      return 201 '{{"sid": "UT$request_id"}}';
    }}
  }}
}}
"""
HAS_ALL = "ledger resume once limit retry"


@dataclass(slots=True)
class Contender:
    """One who posts. share: of the rows, for those that would take all day. has: what it has that an import needs."""

    title: str
    command: list[str]
    has: str = ""
    share: float = 1.0
    env: dict[str, str] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)
    server: list[float] = field(default_factory=list)


def contenders(base_url: str, folder: Path) -> list[Contender]:
    """Return everybody, in the order of the table. Their words name `{file}` and `{ledger}`."""
    ours = [sys.executable, "-m", "worker", "run", "{file}", "--base-url", base_url, "--ledger", "{ledger}"]
    ours += ["--rate", "inf", "--concurrency", str(TASKS), "-q"]
    off = {"FLEX_IMPORT__DOUBT__BASELINE": "false"}
    on = {"FLEX_IMPORT__LIMITS__LIST_RATE_PER_SECOND": "inf"}

    def rival(name: str, *options: str) -> list[str]:
        return [sys.executable, "-m", "tests.bench.rivals", name, base_url, "{file}", "--tasks", str(TASKS), *options]

    found = [
        Contender("flex-import, baselines off", ours, HAS_ALL, env=off),
        Contender("flex-import, baselines on", ours, HAS_ALL, env=on),
        Contender("plain aiohttp loop", rival("plain")),
        Contender("tuned aiohttp loop", rival("tuned", "--uvloop")),
        Contender("official SDK, async", rival("sdk_async")),
        Contender("official SDK, threads", rival("sdk_threads"), share=0.25),
    ]
    if shutil.which("curl"):
        found.append(Contender("curl --parallel", ["curl", "--config", f"{folder}/curl.config"], share=0.25))
    if shutil.which("parallel"):
        command = f"parallel --will-cite -j {TASKS} -a {folder}/urls curl -s -o /dev/null -d Type=customer {{}}"
        found.append(Contender("GNU parallel + curl", ["sh", "-c", command], share=0.02))
    return found


@contextmanager
def nginx(folder: Path) -> Iterator[tuple[str, int]]:
    """Serve on loopback; yield the address and the pid of the worker."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port))
    server = subprocess.Popen(["nginx", "-c", f"{folder}/nginx.conf", "-p", str(folder)])
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=0.1).close()
                break
            except OSError:
                time.sleep(0.05)
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        yield f"http://127.0.0.1:{port}", int(children[0])
    finally:
        server.terminate()
        server.wait()


def busy_seconds(pid: int) -> float:
    """Return the CPU that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def race(contender: Contender, files: dict[float, tuple[Path, int]], folder: Path, server: int) -> None:
    """Let one contender post its share of the rows, and note how it did."""
    path, rows = files[contender.share]
    ledger = folder / f"{time.monotonic_ns()}.db"
    words = [word.replace("{file}", str(path)).replace("{ledger}", str(ledger)) for word in contender.command]
    env = {**os.environ, **CREDENTIALS, "PYTHONPATH": str(ROOT), **contender.env}
    busy, began = busy_seconds(server), time.perf_counter()
    process = subprocess.Popen(words, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.stdout, process.stderr
    assert out
    assert err
    text, complaints = out.read(), err.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{contender.title}: exit {process.returncode}: {complaints.decode()[-2000:]}")
    contender.server.append((busy_seconds(server) - busy) / seconds)
    if text.startswith(b'{"seconds"'):
        seconds = json.loads(text)["seconds"]
    elif ledger.exists():
        seconds = _elapsed(ledger)
    contender.rates.append(rows / seconds)
    contender.cpu.append(1e6 * (usage.ru_utime + usage.ru_stime) / rows)
    contender.peaks.append(usage.ru_maxrss / 1024)
    for left in folder.glob(f"{ledger.name}*"):
        left.unlink()


def _elapsed(ledger: Path) -> float:
    """Return how long a run says that it took, from its first look at the input to its account."""
    with closing(sqlite3.connect(ledger)) as connection:
        summary = connection.execute("SELECT summary FROM runs").fetchone()[0]
    return float(json.loads(summary)["elapsed_seconds"])


def prepare(folder: Path, base_url: str, rows: int, shares: set[float]) -> dict[float, tuple[Path, int]]:
    """Write a file for each share of the rows, and what the programs of others read."""
    files = {}
    for share in shares:
        count = max(1, int(rows * share))
        path = folder / f"{count}.csv"
        write_rows(path, count)
        files[share] = (path, count)
    lines = (folder / f"{files[0.25][1]}.csv").read_text().splitlines()[1:] if 0.25 in files else []
    urls = []
    for line in lines:
        interaction, channel, *_ = line.split(",")
        urls.append(f"{base_url}/v1/Interactions/{interaction}/Channels/{channel}/Participants")
    parts = "\nnext\n".join(
        f'url = "{url}"\noutput = "/dev/null"\ndata = "Type=customer"\nuser = "AC1:x"\nsilent' for url in urls
    )
    (folder / "curl.config").write_text(f"parallel\nparallel-max = {TASKS}\n{parts}\n")
    (folder / "urls").write_text("\n".join(urls[: max(1, int(rows * 0.02))]) + "\n")
    return files


def commit_milliseconds(folder: Path) -> float:
    """Return how long the disk takes for one synced write, in the median."""
    took = []
    with (folder / "sync").open("wb") as file:
        for _ in range(50):
            began = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            took.append(1000 * (time.perf_counter() - began))
    return median(took)


def main() -> None:
    """Race, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[], help="beginnings of the contenders' names")
    parser.add_argument("--least", type=float, default=0.0, help="fail when flex-import is below so much of plain")
    given = parser.parse_args()
    if shutil.which("nginx") is None:
        sys.exit("make bench needs nginx: install it (on Debian: apt-get install nginx-light)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with nginx(folder) as (base_url, server):
            racing = contenders(base_url, folder)
            if given.only:
                racing = [one for one in racing if one.title.startswith(tuple(given.only))]
            files = prepare(folder, base_url, given.rows, {one.share for one in racing} | {0.25})
            for number in range(given.rounds):
                for one in racing:
                    race(one, files, folder, server)
                print(f"round {number + 1} of {given.rounds}", file=sys.stderr, flush=True)
            sync = commit_milliseconds(folder)
    floor = next((one for one in racing if one.title.startswith("tuned")), racing[0])
    plain = next((one for one in racing if one.title.startswith("plain")), racing[0])
    print(f"{given.rows:,} rows, {TASKS} at once; a synced write takes {sync:.2f} ms; {os.cpu_count()} cores")
    print(f"{'':<28}{'rows/s':>8}{'spread':>15}{'x plain':>9}{'CPU us':>8}{'over':>7}{'MB':>6}{'server':>8}  has")
    for one in racing:
        rate, cpu = median(one.rates), median(one.cpu)
        spread = f"{min(one.rates):,.0f}-{max(one.rates):,.0f}"
        print(
            f"{one.title:<28}{rate:>8,.0f}{spread:>15}{rate / median(plain.rates):>9.2f}{cpu:>8.0f}"
            f"{cpu - median(floor.cpu):>7.0f}{max(one.peaks):>6.0f}{100 * median(one.server):>7.0f}%  {one.has}"
        )
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    share = median(racing[0].rates) / median(plain.rates)
    if share < given.least:
        sys.exit(f"{racing[0].title} is at {share:.2f} of the plain loop; it must be at {given.least:.2f} at least")
    print(f"server: how much of one core nginx used; open files at most: {soft:,}")


if __name__ == "__main__":
    main()
