"""What several commands need before they begin: settings from flags, the ledger for this import, its refusals."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarl import URL

from worker.config import Config, Credentials, is_loopback, load
from worker.errors import LedgerRefusedError
from worker.ledger.binding import Binding, target_of
from worker.ledger.sqlite import SqliteLedger, create_ledger, open_ledger
from worker.payload import CANONICAL_VERSION, Mapper


def configure(config: Path | None, ledger: Path | None, flags: Mapping[str, Mapping[str, Any]]) -> Config:
    """Merge file, environment and flags; a `--ledger` is relative to the working folder. Raises ConfigError."""
    given = {section: {key: value for key, value in values.items() if value is not None}
             for section, values in flags.items()}  # fmt: skip
    if ledger is not None:
        given["ledger"] = {"path": str(ledger.absolute())}
    return load(config, {section: values for section, values in given.items() if values}, os.environ)


@dataclass(frozen=True, slots=True)
class LedgerChoice:
    """What the flags say about the ledger."""

    new: bool = False
    yes: bool = False
    accept_target: bool = False
    accept_new_keys: bool = False


def obtain_ledger(config: Config, credentials: Credentials, mapper: Mapper, choice: LedgerChoice) -> SqliteLedger:
    """Open the ledger of this import, or make it when that was asked for; bind it to its target and keys.

    On loopback a missing ledger is made; elsewhere only by `--new-ledger`, or when a person at a terminal says yes.
    Raises LedgerRefusedError and LedgerHeldError with what to do instead.
    """
    path = config.ledger_path
    loopback = is_loopback(URL(config.settings.api.url).host or "")
    if choice.new:
        create_ledger(path)
    elif not path.exists():
        if not loopback and not choice.yes and not _agreed(config, path):
            raise LedgerRefusedError(_no_ledger(config, path))
        create_ledger(path)
    ledger = open_ledger(path)
    try:
        ledger.bind(
            binding_of(config, credentials, mapper),
            accept_target=choice.accept_target,
            accept_new_keys=choice.accept_new_keys,
        )
    except BaseException:
        ledger.close()
        raise
    return ledger


def shown(path: str) -> str:
    """Return a path the way a person would type it in this folder."""
    return path.removeprefix(f"{Path.cwd()}/")


def binding_of(config: Config, credentials: Credentials, mapper: Mapper) -> Binding:
    """Return what a ledger of this import belongs to."""
    url = URL(config.settings.api.url)
    host = url.host or ""
    return Binding(
        target=target_of(host, url.explicit_port, loopback=is_loopback(host)),
        account=credentials.account_sid,
        key_template=mapper.key_template,
        canonical_version=CANONICAL_VERSION,
        mapping=mapper.describe(),
    )


def _agreed(config: Config, path: Path) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(
        f"There is no ledger at {path} yet, so every row of the input will be sent\n"
        f"to {config.settings.api.url}. Without an old ledger that is right for a first import only.",
        file=sys.stderr,
    )
    print("Make a new ledger and begin? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _no_ledger(config: Config, path: Path) -> str:
    origin = f"config: {config.path}" if config.path else "config: none found, defaults"
    return (
        f"there is no ledger at {path} ({origin}).\n"
        "  Without the old ledger every row would be sent again.\n"
        "  First run ever?  add --new-ledger      Otherwise: --ledger /path/imports.db"
    )
