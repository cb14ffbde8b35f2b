"""From a choice to a config with comments: each line of it says what it rests on, and what a person has to fill in."""

import textwrap
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from worker.config import as_toml, as_toml_key
from worker.errors import ConfigError
from worker.payload import FIELDS, Mapper
from worker.proposal.choice import SIDS, Choice, Line
from worker.proposal.sample import Sample
from worker.proposal.word import first_word
from worker.template import Expression

_WIDTH = 80
_LOOKUP = "interactions"


class File(NamedTuple):
    """The file that a config is for. word: how it is typed on the command line. encoding, delimiter: None as usual."""

    word: str
    path: str
    encoding: str | None = None
    delimiter: str | None = None


def write(file: File, sample: Sample, choice: Choice) -> str:
    """Return a commented config that loads as it is."""
    key = f"{first_word(file.path)}:{{{Expression(choice.key).source}}}" if choice.key else ""
    lines = [*_head(file, sample), "", "[source]", *_source(file), *_key(choice, key, sample)]
    columns = [column.name for column in sample.columns]
    if _needs_mapping(columns, key, choice):
        lines += [*_mapping(choice), *_roles(choice, sample), *_lookup(choice), *_unused(columns, choice)]
    else:
        lines += ["", *_note("The columns are named as flex-import names them: no [mapping] is needed.")]
    return "\n".join([*lines, "", *_next(file)]) + "\n"


def _needs_mapping(columns: Iterable[str], key: str, choice: Choice) -> bool:
    if any(line.key in FIELDS and line.template for line in choice.fields):
        return True
    try:
        Mapper(None, key).check_columns(columns, "")
    except ConfigError:
        return True
    return False


def _note(text: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False
    )


def _assigned(line: Line) -> str:
    return f"{as_toml_key(line.key)} = {as_toml(line.template)}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(as_toml(name) for name in names)


def _rows(count: int) -> str:
    return "the first row" if count == 1 else f"the first {count:,} rows"


def _typed(word: str) -> str:
    return word if word.isprintable() else as_toml(word)


def _head(file: File, sample: Sample) -> list[str]:
    seen = f"its header and {_rows(sample.records)}" if sample.records else "its header alone: it has no rows"
    return _note(
        f"A proposal for {_typed(file.word)}, by {seen}. Read it, correct it, keep it as config.toml. All other "
        "settings have their defaults: flex-import config show"
    )


def _next(file: File) -> list[str]:
    command = f"flex-import check {_typed(file.word)} --show 3"
    return ["# Next: what becomes of your rows, without a network:", f"#   {command}"]


# ---- source ---------------------------------------------------------------------------------------------------------


def _source(file: File) -> Iterator[str]:
    if file.encoding is not None:
        yield from _note("The file is no UTF-8, and this is likely: look whether names have their accents right.")
        yield f"encoding = {as_toml(file.encoding)}"
    if file.delimiter is not None:
        yield f"delimiter = {as_toml('tab' if file.delimiter == chr(9) else file.delimiter)}"


def _key(choice: Choice, key: str, sample: Sample) -> Iterator[str]:
    others = f" So could: {_listed(choice.others)}." if choice.others else ""
    if key:
        yield from _note(
            f"What makes a row the same row, in any file: {as_toml(choice.key)} has another value in each of "
            f"{_rows(sample.records)}. If it has one twice further on, check shows it.{others}"
        )
        yield f"key = {as_toml(key)}"
        return
    if others:
        found = f"no column looks like an id.{others.replace('So could', 'These have another value in each row')}"
    else:
        found = "no column was found that has another value in each row." if sample.records > 1 else "too few to tell."
    yield from _note(
        f"What makes a row the same row, in any file: by {_rows(sample.records)}, {found} "
        "Without a key it is the content, which is fine as long as rows are not corrected."
        if sample.records
        else "What makes a row the same row, in any file. Without a key it is the content."
    )
    yield '# key = "row:{ID}"'


# ---- mapping --------------------------------------------------------------------------------------------------------


def _mapping(choice: Choice) -> Iterator[str]:
    yield from ("", "[mapping]")
    if kept := [field for field in FIELDS if field in choice.own]:
        yield from _note(f"{', '.join(kept)}: from the columns of this name")
    for line in choice.fields:
        if line.key == "type" and not line.columns:
            yield from _note(
                "No column says who a participant is, so that each row is a customer; or: agent, supervisor, "
                "external, unknown."
            )
        yield _assigned(line)
    yield from _missing(choice)
    yield from _media(choice)
    if choice.routing:
        yield from ("", "[mapping.routing_properties]", *map(_assigned, choice.routing))


def _missing(choice: Choice) -> Iterator[str]:
    if not choice.missing:
        return
    prefixes = " or ".join(f"{SIDS[field]}…" for field in choice.missing)
    name = choice.conversation or "ID"
    yield from _note(
        f"No column has a sid that begins with {prefixes}. flex-import creates no interactions and no channels: they "
        f"have to exist, and their sids have to come from somewhere. If a second file has them beside "
        f"{as_toml(name)}, take the signs away, here and below:"
    )
    for field in choice.missing:
        template = f"{{{Expression(name).source} | lookup:{_LOOKUP}.{field}}}"
        yield f"# {_assigned(Line(field, template))}"


def _media(choice: Choice) -> Iterator[str]:
    if "media_properties" in choice.own or any(line.key == "media_properties" for line in choice.fields):
        return
    yield ""
    if not choice.reach:
        yield from _note(
            "No column was found that says how a participant is reached. Fill in the column with an e-mail address, "
            "a phone number (address) or a chat's identity, and take the signs away:"
        )
        yield from ("# [mapping.media_properties]", '# address = "{...}"')
        return
    yield "[mapping.media_properties]"
    for line in choice.media:
        if line.key == "address" and choice.reach == "phone":
            yield from _phone(choice, line)
        yield _assigned(line)
    for line in choice.instead:
        yield from (*_note("There is this address, too; a participant has one:"), f"# {_assigned(line)}")
    if choice.reach == "phone":
        yield from (*_note("SMS and WhatsApp need your own number, too:"), '# proxy_address = "+15550100"')


def _phone(choice: Choice, line: Line) -> list[str]:
    digits = "The digits and a + remain of each number. " if choice.spaced else ""
    column = Expression(line.columns[0]).source
    return _note(
        f"{digits}Are there numbers without + and a country code? Then say of which country: "
        f"{as_toml(f'{{{column} | e164:GB}}')}"
    )


def _roles(choice: Choice, sample: Sample) -> Iterator[str]:
    if choice.roles is None:
        return
    yield from ("", "[map.kind]")
    yield from _note(
        f"The values in {_rows(sample.records)}, and what becomes of each: agent, customer, supervisor, external or "
        "unknown. Rows with a value that is not here are rejected, and check shows them."
    )
    for word, kind in choice.roles.items():
        if kind:
            yield f"{as_toml(word)} = {as_toml(kind)}"
        else:
            yield f'# {as_toml(word)} = "customer"  # which of the five?'
    if choice.untold:
        yield from _note(f"and {choice.untold} more, which are not shown as they do not look like roles")
    yield '# "*" = "unknown"  # any other value'


def _lookup(choice: Choice) -> Iterator[str]:
    if not choice.missing:
        return
    name = as_toml(choice.conversation or "ID")
    columns = ", ".join((name, *choice.missing[:-1]))
    yield ""
    yield from _note(f"The second file, with the columns {columns} and {choice.missing[-1]}:")
    yield from (f"# [lookup.{_LOOKUP}]", f'# file = "{_LOOKUP}.csv"', f"# key = {name}")


def _unused(columns: Iterable[str], choice: Choice) -> Iterator[str]:
    read = choice.read
    unused = [name for name in columns if name not in read and not choice.keeps(name)]
    if unused:
        yield from ("", *_note(f"Read by nothing above, so not sent: {_listed(unused)}"))
