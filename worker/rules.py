"""By which rules an input is read: those of `[source]` and `[mapping]`, or those of the profile that its name fits.

A name is compared without the ending of its compression, as are the patterns: `a.csv.gz` and the `a.csv` that
`export --rejects` makes of it are of one profile.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from worker.config import Profile, Settings, Source
from worker.errors import ConfigError
from worker.filter import Lookups
from worker.payload import Mapper
from worker.source import Input

_COMPRESSION = re.compile(r"\.(gz|bz2|xz|zst)$", re.IGNORECASE)


class Rules(NamedTuple):
    """How inputs are read, and what becomes of their records. profile: its name; "" for the rules of no profile."""

    profile: str
    source: Source
    mapper: Mapper


Ruled = tuple[Input, Rules]
"""An input and the rules for it."""


def assign(inputs: Iterable[Input], settings: Settings, lookups: Lookups, profile: str | None = None) -> list[Ruled]:
    """Return every input with its rules. profile: the one for all of them, whatever they are called.

    Raises ConfigError for a profile that there is not, an input that fits several, and rules that cannot be understood.
    """
    if profile is not None and profile not in settings.profile:
        raise ConfigError(f'--profile: there is no profile "{profile}"{_hint(profile, settings.profile)}')
    made: dict[str, Rules] = {}
    assigned = []
    for source in inputs:
        name = _fitting(source, settings.profile) if profile is None else profile
        if name not in made:
            made[name] = _rules(name, settings, lookups)
        assigned.append((source, made[name]))
    return assigned


def asked(inputs: Sequence[Ruled]) -> dict[str, dict[str, str]]:
    """Return what all rules together ask of lookups, as `Mapper.asked` does."""
    found: dict[str, dict[str, str]] = {}
    for mapper in {id(rules.mapper): rules.mapper for _, rules in inputs}.values():
        for name, columns in mapper.asked().items():
            found[name] = {**columns, **found.get(name, {})}
    return found


def _rules(name: str, settings: Settings, lookups: Lookups) -> Rules:
    profile = settings.profile[name] if name else Profile(files=("*",))
    own = profile.source.model_dump(exclude_none=True)
    source = settings.source.model_copy(update=own)
    mapper = Mapper(
        profile.mapping or settings.mapping,
        source.key,
        maps=settings.map,
        lookups=lookups,
        strict=source.strict,
        key_at=f"profile.{name}.source.key" if "key" in own else "source.key",
        mapping_at=f"profile.{name}.mapping" if profile.mapping else "mapping",
    )
    return Rules(name, source, mapper)


def _fitting(source: Input, profiles: Mapping[str, Profile]) -> str:
    """Return the profile that an input's name fits; "" when it fits none, as that of stdin never does."""
    if source.path is None:
        return ""
    fits = {name: pattern for name, profile in profiles.items() if (pattern := _fit(source.path, profile.files))}
    if len(fits) > 1:
        (one, first), (other, second), *_ = fits.items()
        raise ConfigError(
            f'{source.name}: fits two profiles, {one} ("{first}") and {other} ("{second}"); let their files differ, '
            "or name one with --profile"
        )
    return next(iter(fits), "")


def _fit(path: Path, patterns: Sequence[str]) -> str | None:
    whole = _COMPRESSION.sub("", str(path.absolute()))
    name = _COMPRESSION.sub("", path.name)
    for pattern in patterns:
        bare = _COMPRESSION.sub("", pattern)
        if fnmatchcase(whole, f"*/{bare}") if "/" in bare else fnmatchcase(name, bare):
            return pattern
    return None


def _hint(word: str, known: Iterable[str]) -> str:
    names = list(known)
    if close := difflib.get_close_matches(word, names, n=1):
        return f' (did you mean "{close[0]}"?)'
    return f" (profiles: {', '.join(names)})" if names else "; it is a section [profile.NAME]"
