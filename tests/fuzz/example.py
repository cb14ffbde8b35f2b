"""One thing to try: the bytes of an input, and how it is read and mapped. In a file: a line of JSON, then the bytes."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tests.test_compression import compress
from tests.test_odd_inputs import CASES

SEEDS = Path(__file__).parent / "seeds"
SMALL = 4096


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


def write(example: Example) -> bytes:
    """Return an example as the bytes of a seed."""
    settings = asdict(replace(example, content=b""))
    del settings["content"]
    usual = asdict(Example(b""))
    told = {name: value for name, value in settings.items() if value != usual[name]}
    return json.dumps(told).encode() + b"\n" + example.content


def read(seed: bytes) -> Example:
    """Return the example of a seed."""
    settings, _, content = seed.partition(b"\n")
    return Example(content, **json.loads(settings))


def seeds() -> dict[str, Example]:
    """Return name → example for what was kept, and for the odd inputs of their table that are small."""
    kept = {path.name: read(path.read_bytes()) for path in sorted(SEEDS.glob("*.seed"))}
    for name, case in CASES.items():
        if len(case.content) <= SMALL:
            given = {one: case.given[one] for one in ("format", "encoding", "delimiter") if one in case.given}
            kept[name] = Example(case.content, case.name, **given, key="{k}", template="{v}")
    return kept
