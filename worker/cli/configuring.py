"""`config`: the settings that hold, with where each came from, and a proposal for a file that has no config yet."""

import io
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from types import MappingProxyType

from worker.cli.loading import configure
from worker.cli.telling import shown, tell
from worker.config import Config, Setting, Source, as_toml, as_toml_key, load, settings_of
from worker.credentials import VARIABLES
from worker.errors import ConfigError, SourceError
from worker.model import Exit, Problem
from worker.place import Place
from worker.proposal import File, Sample, choose, write
from worker.report import printable
from worker.source import Input, Reader, find_inputs, likely_encoding

_KEY_WIDTH = 24
_VALUE_WIDTH = 40
_WIDTH = 80
_PASSWORD = re.compile(r"(?<=://)([^:/?#]*):[^/?#]*@")


# ---- config init ----------------------------------------------------------------------------------------------------


def propose_config(word: str) -> int:
    """Print a commented config for a file; returns exit code 0.

    Of the settings that there are already only variables count, as FLEX_IMPORT__SOURCE__ENCODING: a config is what
    this command is to make, and in `config init a.csv > config.toml` the shell has emptied the old one. Raises
    SourceError for a file that cannot be read, ConfigError for variables.
    """
    source = _only(word)
    settings = load(Path(os.devnull), {}, os.environ).settings.source
    try:
        sample, file = _sampled(source, settings)
    except SourceError as exc:
        likely = likely_encoding(str(exc))
        if likely is None or settings.encoding != Source().encoding:
            raise
        sample, file = _sampled(source, settings.model_copy(update={"encoding": likely}))
    _print_whole(write(file, sample, choose(sample)))
    return Exit.DONE


def _only(word: str) -> Input:
    found = find_inputs([word])
    if found[0].path is None:
        raise SourceError("config init: stdin can be read only once, and a proposal may need more; give a file")
    if len(found) > 1:
        raise SourceError(f"{word}: matches {len(found)} files, and a proposal is for one; give one that is like all")
    return found[0]


def _sampled(source: Input, settings: Source) -> tuple[Sample, File]:
    """Read the first records of a file, in this encoding."""
    first: tuple[int, Problem] | None = None
    with Reader(source, settings.model_copy(update={"allow_empty": True})) as reader:
        sample = Sample(reader.columns or ())
        for record in (record for batch in reader for record in batch):
            if sample.enough:
                break
            if record.values is not None:
                sample.take(record.values)
            elif record.problem and first is None:
                first = record.line, record.problem
    if not sample.columns:
        why = f"line {first[0]}: {first[1].reason}, and no other line can be read" if first else "is empty"
        raise SourceError(f"{source.name}: {why}: without any column nothing can be proposed")
    usual = Source()
    encoding = None if settings.encoding == usual.encoding else settings.encoding
    delimiter = None if reader.delimiter in {"", ","} else reader.delimiter
    return sample, File(shlex.quote(source.name), source.name, encoding, delimiter)


def _print_whole(text: str) -> None:
    """Print a config, in UTF-8 wherever it goes; half of one must not pass for one."""
    if sys.stdout is None:
        raise ConfigError("config init: stdout is closed; write: flex-import config init FILE > config.toml")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="strict")
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        return
    except OSError as exc:
        raise ConfigError(f"config init: stdout cannot be written: {exc.strerror}") from exc


# ---- config show ----------------------------------------------------------------------------------------------------


def show_config(config_file: Path | None, ledger: Place | None, *, json_wanted: bool) -> int:
    """Print every setting with where it came from, credentials as set or missing; returns exit code 0.

    Raises ConfigError with all that is wrong with the settings.
    """
    config = configure(config_file, ledger, {})
    flags: dict[tuple[str, ...], str] = {} if ledger is None else {("ledger", "path"): "--ledger"}
    settings = masked_settings(config, flags)
    credentials = {name: "set" if os.environ.get(name) else "missing" for name in VARIABLES}
    if json_wanted:
        tell(json.dumps(_as_object(config, settings, credentials)))
    else:
        lines = [*_origins(config, config_file, settings), *_sections(settings)]
        lines += ["", "credentials, from the environment only"]
        lines += [f"  {name:<{_KEY_WIDTH}} {state}" for name, state in credentials.items()]
        tell(printable("\n".join(lines)))
    return Exit.DONE


def masked_settings(config: Config, flags: Mapping[tuple[str, ...], str] = MappingProxyType({})) -> list[Setting]:
    """Return every setting without its secrets. flags: key path → the option that gave its value."""
    return [_masked(setting) for setting in settings_of(config, flags, os.environ)]


def _masked(setting: Setting) -> Setting:
    """Hide what stands between a user's name and the @ of an address."""
    if isinstance(setting.value, str):
        return setting._replace(value=_PASSWORD.sub(r"\1:***@", setting.value))
    return setting


def _as_object(config: Config, settings: Sequence[Setting], credentials: dict[str, str]) -> dict[str, object]:
    def item(path: tuple[str, ...], value: object, origin: str, name: str | None) -> dict[str, object]:
        finite = str(value) if value == float("inf") else value  # JSON has no such number
        return {"key": as_toml_key(*path), "value": finite, "origin": origin, "from": name}

    return {
        "config": str(config.path) if config.path else None,
        "ledger": str(config.ledger_path),
        "settings": [item(*setting) for setting in settings],
        "credentials": credentials,
    }


def _origins(config: Config, config_file: Path | None, settings: Sequence[Setting]) -> list[str]:
    """Say which file, which variables and which flags there are; the table has only room for one word."""
    if config.path is None:
        file = "none: no --config, no FLEX_IMPORT_CONFIG, no ./config.toml"
    else:
        chosen = "--config" if config_file else "FLEX_IMPORT_CONFIG" if os.environ.get("FLEX_IMPORT_CONFIG") else ""
        file = shown(str(config.path)) + (f"   ({chosen})" if chosen else "")
    lines = [f"file         {file}"]
    names = {kind: [found.name for found in settings if found.origin == kind] for kind in ("environment", "flag")}
    for kind, found in names.items():
        lines += [f"{kind if not number else '':<12} {name}" for number, name in enumerate(dict.fromkeys(found))]
    return [*lines, f"ledger       {shown(str(config.ledger_path))}"]


def _sections(settings: Sequence[Setting]) -> Iterator[str]:
    for section, found in groupby(settings, key=lambda setting: setting.path[:-1]):
        yield ""
        yield f"[{as_toml_key(*section)}]"
        for path, value, origin, _ in found:
            yield from _row(as_toml_key(path[-1]), as_toml(value), origin)


def _row(key: str, value: str, origin: str) -> Iterator[str]:
    """Yield a key with its value, folded where it is long: nothing is cut off."""
    if len(key) > _KEY_WIDTH:
        yield from (f"  {part}" for part in _folded(key, _WIDTH - 2))
        key = ""
    for number, part in enumerate(_folded(value, _VALUE_WIDTH)):
        yield f"  {'' if number else key:<{_KEY_WIDTH}} {part:<{_VALUE_WIDTH}} {'' if number else origin}".rstrip()


def _folded(text: str, width: int) -> list[str]:
    return [text[start : start + width] for start in range(0, len(text), width)]
