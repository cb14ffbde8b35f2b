"""From the file, the variables and the flags to one value: merge, validate, and say all that is wrong."""

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import ValidationError

from worker.config.section import Settings
from worker.config.variable import CONFIG_VARIABLE, ENV_PREFIX, VariableError, read_variables, stray_variables
from worker.errors import ConfigError
from worker.place import Place, server_of
from worker.wording import NOTHING_GIVEN, Given

_FILE_ONLY = frozenset({"lookup", "profile"})
"""Sections of sections whose names are the user's own: a variable's name has no case."""


_WORDS = {
    "missing": "is missing",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_type": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be a text",
    "string_too_short": "must not be empty",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "literal_error": "must be {expected}",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
}
"""The validator's kinds of errors, in our words."""


class Config(NamedTuple):
    """The settings, the file that they came from (None: defaults, variables and flags alone), and what it says.

    given: the options that a command to type next needs, too.
    """

    settings: Settings
    path: Path | None
    from_file: Mapping[str, Any]
    given: Given = NOTHING_GIVEN

    @property
    def ledger_path(self) -> Place:
        """Where the ledger is kept: its file, or the address of its database."""
        name = self.settings.ledger.path
        return server_of(name) or self.beside(name)

    def beside(self, name: str) -> Path:
        """Return where a file that the settings name is: relative to the config file, not to the working folder."""
        folder = self.path.parent if self.path else Path()
        return (folder / Path(name).expanduser()).absolute()


def load(path: Path | None, flags: Mapping[str, Mapping[str, Any]], environ: Mapping[str, str]) -> Config:
    """Read, merge and validate the settings.

    path: the `--config` flag; without it `FLEX_IMPORT_CONFIG`, then `./config.toml` if it is there.
    flags: section → key → value, only for flags that were given. environ: usually `os.environ`, which is also where
    `read_variables` reads. Raises ConfigError with all problems, one a line.
    """
    path = _find(path, environ)
    from_file = _read_toml(path) if path else {}
    problems = [*stray_variables(environ), *_unknown_variables(environ)]
    prefixes = {section: f"{ENV_PREFIX}{section}".upper() for section in _FILE_ONLY}
    meddled = {section for section in prefixes for name in environ if name.upper().startswith(prefixes[section])}
    try:
        settings = Settings(**_merged(twilio_variables(environ), from_file, read_variables(environ), flags))
    except ValidationError as exc:
        for error in exc.errors(include_url=False):
            variable, described = _describe(error, flags, environ, from_file, path)
            # unknown variables are in the list already, and what they break is not the file's fault
            if not (variable and error["type"] == "extra_forbidden") and error["loc"][0] not in meddled:
                problems.append(described)
        raise ConfigError("\n".join(problems)) from None
    except VariableError as exc:  # one that names a whole section and is no JSON; it is in the list already
        raise ConfigError("\n".join(problems) or str(exc)) from None
    if problems:
        raise ConfigError("\n".join(problems))
    return Config(settings, path, from_file)


def _merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return all layers as one, key by key; the last one wins."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            before = merged.get(key)
            if isinstance(before, Mapping) and isinstance(value, Mapping):
                merged[key] = _merged(before, value)
            else:
                merged[key] = value
    return merged


def twilio_variables(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return what Twilio's own tools read from the environment [docs]; ours and the file win over it."""
    api = {
        key: environ[name] for key, name in (("edge", "TWILIO_EDGE"), ("region", "TWILIO_REGION")) if environ.get(name)
    }
    return {"api": api} if api else {}


def _find(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    if path is None and environ.get(CONFIG_VARIABLE):
        path = Path(environ[CONFIG_VARIABLE])
    if path is not None:
        return path.expanduser()
    default = Path("config.toml")
    return default if default.exists() else None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such config file") from None
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: cannot be read: {exc}") from exc
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{path}: not valid TOML: {exc}") from exc
    # a flag for the same section would replace such a value in silence
    values = [name for name, value in found.items() if name in Settings.model_fields and not isinstance(value, dict)]
    if values:
        raise ConfigError("\n".join(f"{path}: {name}: must be a section: [{name}]" for name in values))
    return found


def _unknown_variables(environ: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(environ):
        if not name.upper().startswith(ENV_PREFIX):
            continue
        section, _, key = name[len(ENV_PREFIX) :].lower().partition("__")
        known = Settings.model_fields.get(section)
        if known is None:
            yield f"{name}: unknown variable: there is no section [{section}]{_hint(section, Settings.model_fields)}"
            continue
        if section in _FILE_ONLY:
            yield f"{name}: unknown variable: [{section}.NAME] is read from the config file only"
            continue
        if section == "map" and key:  # the keys are the user's own, but a variable's name has no case
            if "__" in key:
                whole = name[: name.upper().index("__", len(ENV_PREFIX + "MAP__"))]
                yield f'{name}: unknown variable: names lose their case; write {whole}=\'{{"Value": "..."}}\''
            continue
        keys = _keys_of(section)
        if not key:
            known_keys = ", ".join(keys) or "your own"
            yield f"{name}: unknown variable: it names a section; write {name}__KEY (keys: {known_keys})"
        elif key.partition("__")[0] not in keys:
            yield f"{name}: unknown variable: [{section}] has no key {key}{_hint(key, keys)}"


def _keys_of(*path: str) -> Mapping[str, Any]:
    """Return the keys of the section at this key path; none where they are the user's own."""
    kind: Any = Settings
    for part in path:
        kind = get_args(kind)[1] if get_origin(kind) is dict else kind.model_fields[part].annotation
        if isinstance(kind, UnionType):  # a section that may be missing
            kind = get_args(kind)[0]
    keys: Mapping[str, Any] = getattr(kind, "model_fields", {})
    return keys


def _describe(
    error: Any,
    flags: Mapping[str, Mapping[str, Any]],
    environ: Mapping[str, str],
    from_file: Mapping[str, Any],
    path: Path | None,
) -> tuple[bool, str]:
    """Return whether an environment variable is to blame, and the sentence that names who is."""
    location = [str(part) for part in error["loc"]]
    section, key = location[0], location[1] if len(location) > 1 else ""
    by_variable = False
    variable = ENV_PREFIX + "__".join(location[:2]).upper()
    if key in flags.get(section, {}):
        origin = "--" + key.removesuffix("_per_second").replace("_", "-")
    elif by_variable := variable in {name.upper() for name in environ}:
        origin = variable
    elif section == "api" and key in twilio_variables(environ).get("api", {}) and key not in from_file.get("api", {}):
        origin = f"TWILIO_{key.upper()}"
    else:
        origin = str(path) if path else "settings"
    message = _in_our_words(error)
    if error["type"] in {"model_type", "model_attributes_type", "dict_type"}:
        message = f"must be a section: [{'.'.join(location)}]"
    elif error["type"] == "extra_forbidden":
        message = f"unknown key{_hint(location[-1], _keys_of(*location[:-1]))}"
    return by_variable, f"{origin}: {'.'.join(location)}: {message}"


def _in_our_words(error: Any) -> str:
    """Return what is wrong with a value, without the validator's names for it."""
    kind, limits = str(error["type"]), error.get("ctx", {})
    if kind in _WORDS:
        return _WORDS[kind].format(**limits)
    return str(error["msg"]).removeprefix("Value error, ")


def _hint(word: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]}?)" if close else f" (known: {', '.join(known)})"
