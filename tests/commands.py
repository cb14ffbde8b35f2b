"""Starting the real command, as a person or cron would."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CREDENTIALS = {"TWILIO_ACCOUNT_SID": "AC" + "1" * 32, "TWILIO_AUTH_TOKEN": "a-token-that-must-not-show"}
HOLDING = {**CREDENTIALS, "FLEX_IMPORT__DOUBT__POLICY": "hold"}
QUICK = {**CREDENTIALS, "FLEX_IMPORT__DOUBT__SETTLE_SECONDS": "0.5", "FLEX_IMPORT__LIMITS__LIST_RATE_PER_SECOND": "inf"}
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


async def start(
    *words: str | Path,
    cwd: Path,
    env: Mapping[str, str] = CREDENTIALS,
    stdin: int | None = asyncio.subprocess.DEVNULL,
    before: Sequence[str] = (),
    module: Sequence[str] = ("worker",),
) -> Process:
    """Start `flex-import WORDS` in a folder, with an environment of its own.

    before: words before the command. module: what is run instead, with words of its own.
    """
    inherited = {
        name: value for name, value in os.environ.items() if name.startswith(("PATH", "HOME", "COVERAGE", "LANG"))
    }
    return await asyncio.create_subprocess_exec(
        *before,
        sys.executable,
        "-m",
        *module,
        *map(str, words),
        cwd=cwd,
        env={**inherited, "PYTHONPATH": str(ROOT), **env},
        stdin=stdin,
        stdout=PIPE,
        stderr=PIPE,
        preexec_fn=_heed_signals,
    )


def _heed_signals() -> None:
    """Undo what a shell does to commands in the background: they would be born deaf to Ctrl-C, and stay so."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


async def finish(process: Process, given: bytes | None = None) -> Ended:
    """Wait for a command and return how it ended."""
    out, err = await process.communicate(given)
    return Ended(process.returncode or 0, out.decode(), err.decode())


async def flex_import(*words: str | Path, cwd: Path, env: Mapping[str, str] = CREDENTIALS) -> Ended:
    """Run `flex-import WORDS` to its end."""
    return await finish(await start(*words, cwd=cwd, env=env))
