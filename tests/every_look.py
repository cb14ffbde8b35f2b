"""Every command that only looks, one after the other in one process: `python -m tests.every_look`, JSON on stdin."""

import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

from worker.cli import call


def looks(ledger: str, service: str, folder: str) -> list[list[str]]:
    """Return the words of each command. folder: a new one, for what is written into files."""
    commands = [
        ["status"],
        ["status", "--json"],
        ["status", "--quiet"],
        ["history"],
        ["history", "--json"],
        ["failures"],
        ["failures", "--json"],
        *(["failures", "--state", state] for state in ("rejected", "parked", "failed", "in_doubt")),
        ["export"],
        ["export", "--format", "ndjson"],
        ["export", "--state", "in_doubt"],
        ["export", "--for-excel"],
        ["export", "--rejects", f"{folder}/rejects"],
        ["report", "-o", f"{folder}/report.html"],
        ["ledger", "info"],
        ["ledger", "info", "--json"],
        ["ledger", "backup", f"{folder}/backup.db"],
        ["check", "a.csv"],
        ["check", "a.csv", "--json"],
        ["doctor", "--base-url", service],
        ["doctor", "--base-url", service, "--json"],
        ["config", "show"],
        ["config", "show", "--json"],
        ["control", "rate", "inf"],
    ]
    return [[*words, "--ledger", ledger] for words in commands]


def main() -> None:
    """Call each command; print its words, exit code, stdout and stderr."""
    found = []
    for words in looks(**json.load(sys.stdin)):
        out, err = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = call(words)
        found.append((words, code, out.getvalue(), err.getvalue()))
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
