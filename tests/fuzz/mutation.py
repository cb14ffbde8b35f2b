"""Other examples made of known ones: bytes, settings and templates are changed, and pieces of two put together."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from tests.fuzz.example import SMALL, Example

ENCODINGS = (
    *("utf-8-sig", "utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7", "cp1252", "latin-1", "mac_roman"),
    *("ascii", "shift_jis", "euc_kr", "gb18030", "big5", "iso2022_jp", "hz", "cp037", "idna", "nonsense"),
)
NAMES = ("odd.csv", "odd.tsv", "odd.txt", "odd.ndjson", "odd.json", "odd.dump", "odd", "odd.csv.gz", "odd.json.zst")
DELIMITERS = ("auto", ",", ";", "tab", "|", "^", " ", "\0", "a", "{", "é", "\\", "\u2028")
PACKS = ("", "", "gz", "bz2", "xz", "zst")
TOKENS = (
    *(b'"', b'""', b",", b";", b"\t", b"|", b"\n", b"\r", b"\r\n", b"\0", b" ", b"\\", b"\x1a", b"\x85", b"\x0c"),
    *(
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xfe\xff",
        b"\xe2\x80\xa8",
        b"\xe9",
        b"\xc3\xa9",
        b"\xed\xa0\x80",
        b"\xf0\x9f\x98\x80",
    ),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b"NaN",
        b"1e999",
        b"\\ud83d",
        b"\\u0000",
        b"null",
        b"true",
        b'{"k":1}',
        b'"k":"1",',
    ),
    *(b"k,v\n", b"1,a\n", b'"x\ny"', b'"x"y', b"sep=;", b"\x1f\x8b\x08", b"PK\x03\x04", b"(\xb5/\xfd", b"+2AA-"),
    *(b"interaction_sid", b"media_properties.address", b"type", b"customer", b"x" * 500, b"[" * 200),
)
WORDS = (
    *("{", "}", "{{", "}}", "{k}", "{v}", "|", ":", '"', '""', " ", "trim", "lower", "upper", "default:", "prefix:"),
    *(
        "whatsapp",
        "map:kind",
        "map:any",
        "split:",
        "digits",
        "{k | ",
        '{"k|v"}',
        "é",
        "\n",
        "9",
        "-1",
        "0",
        "99999999999",
    ),
)


def mutate(dice: Random, corpus: Sequence[Example]) -> Example:
    """Return a new example."""
    example = dice.choice(corpus)
    for _ in range(dice.choice((1, 1, 2, 3, 5))):
        example = dice.choice(_WAYS)(dice, example, corpus)
    return replace(example, content=example.content[:SMALL], template=example.template[:200], key=example.key[:200])


def _flip(dice: Random, example: Example, _: Sequence[Example]) -> Example:
    content = bytearray(example.content or b" ")
    content[dice.randrange(len(content))] = dice.randrange(256)
    return replace(example, content=bytes(content))


def _insert(dice: Random, example: Example, _: Sequence[Example]) -> Example:
    at = dice.randint(0, len(example.content))
    token = dice.choice(TOKENS) * dice.choice((1, 1, 1, 2, 7))
    return replace(example, content=example.content[:at] + token + example.content[at:])


def _delete(dice: Random, example: Example, _: Sequence[Example]) -> Example:
    start, end = sorted(dice.randint(0, len(example.content)) for _ in range(2))
    return replace(example, content=example.content[:start] + example.content[min(end, start + 20) :])


def _repeat(dice: Random, example: Example, _: Sequence[Example]) -> Example:
    start, end = sorted(dice.randint(0, len(example.content)) for _ in range(2))
    piece = example.content[start:end] * dice.choice((2, 3, 20))
    return replace(example, content=example.content[:start] + piece + example.content[end:])


def _splice(dice: Random, example: Example, corpus: Sequence[Example]) -> Example:
    other = dice.choice(corpus).content
    at, from_ = dice.randint(0, len(example.content)), dice.randint(0, len(other))
    return replace(example, content=example.content[:at] + other[from_:])


def _encode(dice: Random, example: Example, _: Sequence[Example]) -> Example:
    """Write what can be written in another encoding, and mostly say so."""
    encoding = dice.choice(ENCODINGS[:-2])
    try:
        content = example.content.decode(example.encoding).encode(encoding)
    except (UnicodeError, LookupError):
        return example
    return replace(example, content=content, encoding=encoding if dice.random() < 0.7 else example.encoding)


def _set(dice: Random, example: Example, _: Sequence[Example]) -> Example:
    choices: tuple[tuple[str, Sequence[str]], ...] = (
        ("encoding", ENCODINGS),
        ("name", NAMES),
        ("delimiter", DELIMITERS),
        ("format", ("auto", "csv", "ndjson")),
        ("pack", PACKS),
        ("template", ("", "{v}", "{k} {v}", "{k | trim | map:any}", '{v | split:" ":2 | default:x}')),
        ("key", ("", "{k}", "row:{k | lower}", "{k}{v}")),
    )
    name, values = dice.choice(choices)
    return replace(example, **{name: dice.choice(values)})  # type: ignore[arg-type]


def _cut(dice: Random, example: Example, _: Sequence[Example]) -> Example:
    return replace(example, cut=dice.choice((-1, -1, dice.randint(0, max(1, len(example.packed()[0]))))))


def _reword(dice: Random, example: Example, _: Sequence[Example]) -> Example:
    field = dice.choice(("template", "template", "key"))
    text = getattr(example, field)
    at = dice.randint(0, len(text))
    gone = dice.choice((0, 0, 1, 4))
    return replace(example, **{field: text[:at] + dice.choice(WORDS) + text[at + gone :]})


_Way = Callable[[Random, Example, Sequence[Example]], Example]
_WAYS: tuple[_Way, ...] = (
    _flip,
    _insert,
    _insert,
    _delete,
    _repeat,
    _splice,
    _encode,
    _set,
    _set,
    _cut,
    _reword,
    _reword,
)
