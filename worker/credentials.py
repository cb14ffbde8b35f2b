"""Who we are to the API: from the environment only, and never shown."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from pydantic import SecretStr

from worker.errors import ConfigError

VARIABLES = (
    "TWILIO_ACCOUNT_SID",
    "TWILIO_AUTH_TOKEN",
    "TWILIO_API_KEY",
    "TWILIO_API_SECRET",
    "TWILIO_API_KEY_SECRET",
)
"""Where credentials come from; the last one is another name of the one before it."""

_ACCOUNT_SID = re.compile(r"AC[0-9a-fA-F]{32}")
_KEY_SID = re.compile(r"SK[0-9a-fA-F]{32}")


class Credentials(NamedTuple):
    """What the API is told about who we are. The secret shows itself only when asked for."""

    user: str
    secret: SecretStr
    account_sid: str | None


def read_credentials(environ: Mapping[str, str]) -> Credentials:
    """Read them from the environment; an API key is preferred to the account's token when both are there.

    Raises ConfigError naming the variables to set, or the one that cannot be right.
    """
    for name in VARIABLES:
        if not environ.get(name, "").isprintable():  # neither are bytes that are no UTF-8
            raise ConfigError(f"{name}: has characters that no credential has; was it copied whole?")
    account = environ.get("TWILIO_ACCOUNT_SID") or None
    key = environ.get("TWILIO_API_KEY")
    key_secret = environ.get("TWILIO_API_SECRET") or environ.get("TWILIO_API_KEY_SECRET")
    token = environ.get("TWILIO_AUTH_TOKEN")
    if key and key_secret:
        return Credentials(key, SecretStr(key_secret), account)
    if account and token:
        return Credentials(account, SecretStr(token), account)
    missing = "TWILIO_API_SECRET" if key else "TWILIO_AUTH_TOKEN" if account else ""
    found = f"{'TWILIO_API_KEY' if key else 'TWILIO_ACCOUNT_SID'} is set, {missing} is not. " if missing else ""
    raise ConfigError(
        f"credentials are missing: {found}Set TWILIO_API_KEY and TWILIO_API_SECRET (and TWILIO_ACCOUNT_SID), "
        "or TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN, in the environment"
    )


def refuse_malformed(credentials: Credentials) -> None:
    """Raise ConfigError for sids that Twilio cannot have issued. Their values are not shown: one may be a secret.

    The ledger remembers the account's sid, so that a wrong one would bind it to an account that does not exist.
    """
    account, user = credentials.account_sid, credentials.user
    if account is not None and not _ACCOUNT_SID.fullmatch(account):
        raise ConfigError("TWILIO_ACCOUNT_SID: is not an account sid, which is AC and 32 hexadecimal digits")
    if user != account and not _KEY_SID.fullmatch(user):
        raise ConfigError("TWILIO_API_KEY: is not the sid of an API key, which is SK and 32 hexadecimal digits")
