"""One thing to try: the bytes of an input, and how it is read and mapped. In a file: a line of JSON, then the bytes."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, cast

from tests.test_compression import compress
from tests.test_odd_inputs import CASES

SEEDS = Path(__file__).parent / "seeds"
SMALL = 4096


class Case(Protocol):
    """What can be tried: a dataclass of bytes and of settings that have a usual value each."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def content(self) -> bytes:
        """The bytes."""
        ...


C = TypeVar("C", bound=Case)


@dataclass(frozen=True, slots=True)
class Example:
    """content: the input before it is packed ("gz" and so on, or "") and cut to its first bytes (-1: left whole).

    key and template: of the mapping; template "": without a mapping.
    """

    content: bytes
    name: str = "odd.csv"
    format: str = "auto"
    encoding: str = "utf-8-sig"
    delimiter: str = "auto"
    pack: str = ""
    cut: int = -1
    key: str = ""
    template: str = ""

    def packed(self) -> tuple[bytes, bool]:
        """Return the bytes of the file, and whether that is all of them."""
        packed = compress(self.pack, self.content) if self.pack else self.content
        return (packed, True) if self.cut < 0 else (packed[: self.cut], self.cut >= len(packed))


def write(case: Case) -> bytes:
    """Return an example as the bytes of a seed."""
    settings = asdict(case)
    del settings["content"]
    usual = {name: field.default for name, field in case.__dataclass_fields__.items()}
    told = {name: value for name, value in settings.items() if value != usual[name]}
    return json.dumps(told).encode() + b"\n" + case.content


def read(seed: bytes) -> Example:
    """Return the example of a seed."""
    return read_as(Example, seed)


def read_as(kind: type[C], seed: bytes) -> C:
    """Return the example of this kind in a seed."""
    settings, _, content = seed.partition(b"\n")
    made: Any = kind
    return cast("C", made(content=content, **json.loads(settings)))


def seeds() -> dict[str, Example]:
    """Return name → example for what was kept, and for the odd inputs of their table that are small."""
    kept = {path.name: read(path.read_bytes()) for path in sorted(SEEDS.glob("*.seed"))}
    for name, case in CASES.items():
        if len(case.content) <= SMALL:
            given = {one: case.given[one] for one in ("format", "encoding", "delimiter") if one in case.given}
            kept[name] = Example(case.content, case.name, **given, key="{k}", template="{v}")
    return kept
