"""What several commands need before they begin: lookups, the ledger for this import, its refusals."""

import gc
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from yarl import URL

from worker.cli.telling import agreed, at_terminal, shown
from worker.config import Config, is_loopback
from worker.credentials import Credentials, read_credentials, refuse_malformed
from worker.errors import LedgerRefusedError
from worker.intake import stored_path
from worker.ledger.binding import Binding, Keys, target_of
from worker.ledger.opening import create_ledger, exists, open_ledger
from worker.ledger.tables import Tables
from worker.lookup import Lookups, Table
from worker.payload import CANONICAL_VERSION
from worker.place import Place
from worker.rules import Ruled

L = TypeVar("L", bound=Tables)

_COLLECTED = 50_000
"""New objects before they are looked at. Python's own 700 are less than a batch has."""


def spare_collector() -> None:
    """Let the garbage collector pass over what was imported, and look at batches rarely: records make no cycles."""
    gc.freeze()
    gc.set_threshold(_COLLECTED, 20, 20)


def credentials_for(config: Config) -> Credentials:
    """Return the credentials that the environment has for this service.

    Raises ConfigError when they are missing, or malformed. On loopback they may be anything, as an emulator's are.
    """
    found = read_credentials(os.environ)
    if not is_loopback(URL(config.settings.api.url).host or ""):
        refuse_malformed(found)
    return found


def open_lookups(config: Config) -> Lookups:
    """Return the lookups of the config; a file is relative to it."""
    paths = {name: config.beside(lookup.file) for name, lookup in config.settings.lookup.items()}
    return Lookups(
        {name: Table(name, config.settings.lookup[name], path, shown(str(path))) for name, path in paths.items()}
    )


@dataclass(frozen=True, slots=True)
class LedgerChoice:
    """What the flags say about the ledger."""

    new: bool = False
    yes: bool = False
    accept_target: bool = False
    accept_new_keys: bool = False


def obtain_ledger(config: Config, credentials: Credentials, inputs: Sequence[Ruled], choice: LedgerChoice) -> Tables:
    """Open the ledger of this import, or make it when that was asked for; bind it to its target and keys.

    Raises LedgerRefusedError and LedgerHeldError with what to do instead.
    """
    provide_ledger(config, choice)
    return bound(open_ledger(config.ledger_path), binding_of(config, credentials, inputs), choice)


def provide_ledger(config: Config, choice: LedgerChoice) -> None:
    """See that there is a ledger: on loopback a missing one is made; elsewhere only by `--new-ledger`, or when a person
    at a terminal says yes. Raises LedgerRefusedError with what to do instead.
    """  # noqa: D205 - one sentence
    path = config.ledger_path
    loopback = is_loopback(URL(config.settings.api.url).host or "")
    if choice.new:
        create_ledger(path)
    elif not exists(path):
        if not loopback and not (at_terminal() and (choice.yes or _agreed(config, path))):
            raise LedgerRefusedError(_no_ledger(config, path))
        try:
            create_ledger(path)
        except LedgerRefusedError:
            if not exists(path):  # otherwise another run has made it at this moment, and its lock decides
                raise


def bound(ledger: L, binding: Binding, choice: LedgerChoice | None = None) -> L:
    """Bind an open ledger, or close it. choice: None for a command that reads no input, so that its target counts."""
    try:
        ledger.bind(
            binding,
            accept_target=choice is not None and choice.accept_target,
            accept_new_keys=choice is not None and choice.accept_new_keys,
            target_only=choice is None,
        )
    except BaseException:
        ledger.close()
        raise
    return ledger


def open_own_ledger(config: Config, credentials: Credentials) -> Tables:
    """Open the ledger for a command that reads no input; it must exist, and be of this target."""
    return bound(open_ledger(config.ledger_path), binding_of(config, credentials, ()))


def binding_of(config: Config, credentials: Credentials, inputs: Sequence[Ruled]) -> Binding:
    """Return what a ledger of this import belongs to."""
    url = URL(config.settings.api.url)
    host = url.host or ""
    return Binding(
        target=target_of(host, url.explicit_port, loopback=is_loopback(host)),
        account=credentials.account_sid,
        canonical_version=CANONICAL_VERSION,
        keys={rules.profile: Keys(rules.mapper.key_template, rules.mapper.describe()) for _, rules in inputs},
        inputs=[(stored_path(source.path), rules.profile) for source, rules in inputs if source.path],
    )


def _agreed(config: Config, path: Place) -> bool:
    return agreed(
        f"There is no ledger at {path} yet, so every row of the input will be sent\n"
        f"to {config.settings.api.url}. Without an old ledger that is right for a first import only.",
        "Make a new ledger and begin?",
    )


def _no_ledger(config: Config, path: Place) -> str:
    origin = f"config: {config.path}" if config.path else "config: none found, defaults"
    return (
        f"there is no ledger at {path} ({origin}).\n"
        "  Without the old ledger every row would be sent again.\n"
        "  First run ever?  add --new-ledger      Otherwise: --ledger /path/imports.db"
    )
