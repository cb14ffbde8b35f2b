"""Who we are to the API: from the environment only, and never shown."""

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
