"""The settings of a run: `config.toml`, then `FLEX_IMPORT__SECTION__KEY` variables, then flags; the last one wins.

All problems are reported at once, each with its key path and where it came from. An unknown key or variable is a
problem: a misspelt limit must not pass as the default.
"""

from worker.config.loading import Config, load
from worker.config.notation import as_toml, as_toml_key
from worker.config.origin import Setting, settings_of
from worker.config.section import (
    Doubt,
    FieldMapping,
    Limits,
    Lookup,
    Profile,
    Retry,
    Settings,
    Source,
    is_loopback,
    parse_rate,
)
from worker.config.section import (
    Metrics as MetricsSettings,
)
from worker.config.variable import CONFIG_VARIABLE, ENV_PREFIX

__all__ = [
    "CONFIG_VARIABLE",
    "ENV_PREFIX",
    "Config",
    "Doubt",
    "FieldMapping",
    "Limits",
    "Lookup",
    "MetricsSettings",
    "Profile",
    "Retry",
    "Setting",
    "Settings",
    "Source",
    "as_toml",
    "as_toml_key",
    "is_loopback",
    "load",
    "parse_rate",
    "settings_of",
]
