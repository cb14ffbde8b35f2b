"""The settings that variables give. pydantic-settings reads them; it is slow to load, and mostly there are none."""

from collections.abc import Mapping
from typing import Any

from worker.config.section import Settings

ENV_PREFIX = "FLEX_IMPORT__"


class VariableError(ValueError):
    """A variable holds a whole section and is no JSON."""


def read_variables(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return section → key → value of all variables `FLEX_IMPORT__SECTION__KEY` of this process, unvalidated.

    environ: tells whether there are any. Raises VariableError.
    """
    if not any(name.upper().startswith(ENV_PREFIX) for name in environ):
        return {}
    from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict, SettingsError  # noqa: PLC0415

    class Variables(Settings, BaseSettings):
        model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid")

    try:
        return EnvSettingsSource(Variables)()
    except SettingsError as exc:
        raise VariableError(str(exc)) from exc
