"""Where each setting came from: its default, the file, a variable, or a flag."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from worker.config.loading import Config, twilio_variables
from worker.config.variable import ENV_PREFIX, read_variables

Origin = Literal["default", "file", "environment", "flag"]
_Path = tuple[str, ...]


class Setting(NamedTuple):
    """One value that holds. path: section, key, and further keys of a table. name: the file's, variable's or flag's."""

    path: _Path
    value: Any
    origin: Origin
    name: str | None


def settings_of(config: Config, flags: Mapping[_Path, str], environ: Mapping[str, str]) -> Iterator[Setting]:
    """Yield every setting in the order of the sections; what has no value, as a mapping that is not there, is left out.

    flags: path → the flag that gave it. environ: as of `load`.
    """
    variables = read_variables(environ)
    twilio = twilio_variables(environ)
    for path, value in _leaves((), config.settings.model_dump(exclude_none=True)):
        if path in flags:
            yield Setting(path, value, "flag", flags[path])
        elif _holds(variables, path):
            yield Setting(path, value, "environment", _variable(path, environ))
        elif _holds(config.from_file, path):
            yield Setting(path, value, "file", str(config.path))
        elif _holds(twilio, path):
            yield Setting(path, value, "environment", f"TWILIO_{path[-1].upper()}")
        else:
            yield Setting(path, value, "default", None)


def _leaves(path: _Path, value: Any) -> Iterator[tuple[_Path, Any]]:
    if not isinstance(value, dict):
        yield path, value
        return
    for key, inner in value.items():
        yield from _leaves((*path, key), inner)


def _holds(layer: Any, path: _Path) -> bool:
    for key in path:
        if not isinstance(layer, dict) or key not in layer:
            return False
        layer = layer[key]
    return True


def _variable(path: _Path, environ: Collection[str]) -> str:
    """Return the variable that gave a setting: its own, or one that holds a whole table as JSON."""
    given = {name.upper(): name for name in environ}
    names = [ENV_PREFIX + "__".join(path[:length]).upper() for length in range(len(path), 1, -1)]
    return next(given[name] for name in names if name in given)
