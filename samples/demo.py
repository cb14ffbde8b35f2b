"""`make run`: imports the samples into a Flex API that is emulated in this process, and explains what happened.

The import itself is the real command, in a process of its own, over a real socket. Its ledger stays in `run/`, so a
second `make run` finds everything done and sends nothing.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from worker.emulator import Behaviour, Condition, Emulator, serve
from worker.model import Exit

HERE = Path(__file__).parent
LEDGER = Path("run") / "imports.db"
FILES = ("samples/participants.csv", "samples/participants.ndjson")
BEHAVIOUR = Behaviour(
    latency_seconds=0.02,
    latency_jitter_seconds=0.06,
    rate_per_second=120,
    concurrency=14,
    retry_after_seconds=1,
)


async def main() -> int:
    """Run the demonstration; 0 when the import ended as the samples make it end."""
    emulator = Emulator(BEHAVIOUR)
    for name, channels in json.loads((HERE / "channels.json").read_text(encoding="utf-8")).items():
        for channel in channels:
            emulator.declare(channel, Condition[name.upper()])
    LEDGER.parent.mkdir(exist_ok=True)
    async with serve(emulator) as base_url:
        limits = f"{BEHAVIOUR.rate_per_second:g} creates a second, {BEHAVIOUR.concurrency} at once"
        _say(f"A Flex API is emulated at {base_url}; it allows {limits}.")
        # a list for each new channel comes before its first create; the emulator would answer many more
        lists = {"FLEX_IMPORT__LIMITS__LIST_RATE_PER_SECOND": "100"}
        command = ["flex-import", "run", *FILES, "--base-url", base_url, "--rate", "130/s", "--ledger", str(LEDGER)]
        _say(f"$ {' '.join(f'{name}={value}' for name, value in lists.items())} {' '.join(command)}\n")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "worker",
            *command[1:],
            env={**os.environ, **lists, "TWILIO_ACCOUNT_SID": "AC" + "0" * 32, "TWILIO_AUTH_TOKEN": "not-a-secret"},
        )
        code = Exit(await process.wait())
        stats = emulator.stats
    _say(f"\nThat import's exit code was {code:d}: {code.meaning}.")
    if code is Exit.BAD_ROWS:
        _say("That is what these samples are made for: some of their rows are wrong on purpose.")
    _say(f"The API says: {stats.created:,} participants made by this run, {stats.throttled:,} requests throttled.")
    flex = Path(sys.executable).with_name("flex-import")
    shown = flex.relative_to(Path.cwd()) if flex.is_relative_to(Path.cwd()) else flex
    _say(
        "\nNext, try:\n"
        "  make run                                          again: everything is done, nothing is sent\n"
        f"  {shown} status --ledger {LEDGER}      where it stands, and what needs something\n"
        f"  {shown} report --ledger {LEDGER}      all of it on one page, report.html\n"
        f"  {shown} export --ledger {LEDGER} --state created\n"
        f"  {shown} check {FILES[0]}     a file of your own, without a network\n"
        "  rm -r run                                         to see it all again from the beginning"
    )
    return 0 if code in {Exit.DONE, Exit.BAD_ROWS} else 1


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
