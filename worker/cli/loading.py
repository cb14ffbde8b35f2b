"""The settings of a command, from its flags, the environment and the config file."""

import os
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from worker.config import CONFIG_VARIABLE, ENV_PREFIX, Config, load
from worker.errors import ConfigError
from worker.ledger.view import Run
from worker.place import Place, server_of
from worker.wording import Given

_LEDGER = "imports.db"
"""The default of `ledger.path`."""


def configure(config: Path | None, ledger: Place | None, flags: Mapping[str, Mapping[str, Any]]) -> Config:
    """Merge file, environment and flags; a `--ledger` is relative to the working folder. Raises ConfigError."""
    given = {section: {key: value for key, value in values.items() if value is not None}
             for section, values in flags.items()}  # fmt: skip
    try:
        if ledger is not None:
            given["ledger"] = {"path": str(ledger.absolute() if isinstance(ledger, Path) else ledger)}
        found = load(config, {section: values for section, values in given.items() if values}, os.environ)
        found.beside("")
        return found._replace(given=_given(config, ledger, given, found))
    except FileNotFoundError:
        raise ConfigError("the working folder is gone; change to one that exists") from None


def _given(config: Path | None, ledger: Place | None, flags: Mapping[str, Mapping[str, Any]], found: Config) -> Given:
    """Return the options that the next command needs to mean the same settings and the same ledger."""
    unsaid = os.environ.get(CONFIG_VARIABLE) or "config.toml"
    needs_config = config is not None and config.expanduser().absolute() != Path(unsaid).expanduser().absolute()
    from_file = found.from_file.get("ledger", {}).get("path", _LEDGER)
    name = os.environ.get(f"{ENV_PREFIX}LEDGER__PATH", from_file)
    needs_ledger = ledger is not None and found.ledger_path != (server_of(name) or found.beside(name))
    return Given(
        config=str(config) if needs_config else "",
        ledger=str(ledger) if needs_ledger else "",
        base_url=flags.get("api", {}).get("base_url", ""),
    )


def new_folder(name: str = "fix") -> str:
    """Return a folder's name that is not taken yet here, for rejects: what exists may hold repairs."""
    for number in count(1):
        folder = name if number == 1 else f"{name}-{number}"
        if not os.path.lexists(folder):
            return f"{folder}/"
    raise AssertionError


def refuse_no_run(run: int | None, last: Run | None) -> None:
    """Raise ConfigError for a run that does not exist, with those that do. run: as `--run` names it, if it does."""
    if run is None or (last and 0 < run <= last.number):
        return
    there_are = "no run yet" if last is None else "run 1 only" if last.number == 1 else f"runs 1 to {last.number}"
    raise ConfigError(f"--run: {run}: there is no such run; this ledger has {there_are}")
