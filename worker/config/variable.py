"""The settings that variables give. pydantic-settings reads them; it is slow to load, and mostly there are none."""

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from worker.config.section import Settings

ENV_PREFIX = "FLEX_IMPORT__"
CONFIG_VARIABLE = "FLEX_IMPORT_CONFIG"

_OURS = "FLEX_IMPORT"
_OTHERS = (CONFIG_VARIABLE, "FLEX_IMPORT_NOTIFY_URLS")
"""The variables that are no setting."""

_KUBERNETES = re.compile(r"_SERVICE_(HOST|PORT)(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$")
_KUBERNETES_PORT = re.compile(r"(tcp|udp|sctp)://")
"""Kubernetes sets these in each pod for a Service whose name begins so [docs]; `…_PORT` is an address there."""


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


def stray_variables(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each variable that begins as ours do and is not one: a misspelt one would be ignored."""
    for name in sorted(environ):
        upper = name.upper()
        if upper in _OTHERS or upper.startswith(ENV_PREFIX) or not (upper == _OURS or upper.startswith(f"{_OURS}_")):
            continue
        if not (_KUBERNETES.search(upper) or (upper.endswith("_PORT") and _KUBERNETES_PORT.match(environ[name]))):
            yield f"{name}: unknown variable{_nearest(upper)}"


def _nearest(name: str) -> str:
    """Return a hint: the variable with the same words, with this key or the beginning of it, or with a similar name."""
    words = name.removeprefix(_OURS).strip("_")
    names = [
        (section, key, f"{ENV_PREFIX}{section}__{key}".upper())
        for section, kind in Settings.model_fields.items()
        for key in getattr(kind.annotation, "model_fields", {})
    ]
    found = [full for section, key, full in names if _plain(words) in {_plain(section + key), _plain(key)}]
    found += [full for _, key, full in names if words and key.upper().startswith(f"{words}_")]
    if words and not found:
        plain = {_plain(full): full for full in (*_OTHERS, *(full for _, _, full in names))}
        plain |= {_plain(_OURS + key): full for _, key, full in names}
        found = [plain[one] for one in difflib.get_close_matches(_plain(name), plain, n=1, cutoff=0.8)]
    return f" (did you mean {found[0]}?)" if found else f"; a setting is {ENV_PREFIX}SECTION__KEY"


def _plain(name: str) -> str:
    return name.replace("_", "").upper()
