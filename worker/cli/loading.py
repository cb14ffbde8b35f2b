"""The settings of a command, from its flags, the environment and the config file."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worker.config import Config, load
from worker.errors import ConfigError
from worker.place import Place


def configure(config: Path | None, ledger: Place | None, flags: Mapping[str, Mapping[str, Any]]) -> Config:
    """Merge file, environment and flags; a `--ledger` is relative to the working folder. Raises ConfigError."""
    given = {section: {key: value for key, value in values.items() if value is not None}
             for section, values in flags.items()}  # fmt: skip
    try:
        if ledger is not None:
            given["ledger"] = {"path": str(ledger.absolute() if isinstance(ledger, Path) else ledger)}
        found = load(config, {section: values for section, values in given.items() if values}, os.environ)
        found.beside("")
    except FileNotFoundError:
        raise ConfigError("the working folder is gone; change to one that exists") from None
    return found
