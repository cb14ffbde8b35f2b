"""The fuzz target in short: every seed again, and a few hundred examples made of them, always the same ones."""

import json
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.__main__ import Trail, shrink
from tests.fuzz.example import SEEDS, Example, read, seeds, write
from tests.fuzz.mutation import mutate
from tests.fuzz.oracle import examine

KNOWN = seeds()


@pytest.mark.parametrize("example", KNOWN.values(), ids=KNOWN)
def test_every_seed_is_read_or_refused(tmp_path: Path, example: Example) -> None:
    """What once was interesting, or went wrong, goes well."""
    examine(example, tmp_path)


def test_some_hundred_new_examples_are_read_or_refused(tmp_path: Path) -> None:
    """None is lost in part, read in two ways, or ends in an error that is not ours; and they are not all alike."""
    dice, corpus = Random(5), list(KNOWN.values())
    found = {examine(mutate(dice, corpus), tmp_path) for _ in range(600)}
    assert found == {"misconfigured", "refused", "other columns", "rejected", "sent"}


def test_a_seed_is_written_as_it_was_read() -> None:
    """A line of JSON and the bytes: whoever looks at one sees what it is about."""
    for path in SEEDS.glob("*.seed"):
        assert write(read(path.read_bytes())) == path.read_bytes()
    odd = Example(b"\0\n\xff", "odd.tsv", encoding="utf-16", pack="gz", cut=3, key="{k}", template="é")
    assert read(write(odd)) == odd
    assert json.loads(write(Example(b"x")).splitlines()[0]) == {}


def test_a_bug_is_found_and_made_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that drops what follows a semicolon does not pass; what is left of the example is a few bytes."""
    monkeypatch.setattr("worker.source.decoder._is_blank", lambda text: not text.strip(" \r\n") or ";" in text)

    def fails(example: Example) -> bool:
        try:
            examine(example, tmp_path)
        except (AssertionError, StopIteration) as exc:  # a header that it drops, too, leaves nothing to begin with
            return isinstance(exc, AssertionError)
        return False

    example = Example(b"k,v\n1,a\n2,b\n" + b"3;c\n" + b"4,d\n" * 20, template="{v}", key="{k}")
    assert fails(example)
    small = shrink(example, fails)
    assert len(small.content) <= 6
    assert b";" in small.content


def test_a_trail_tells_which_lines_were_reached(tmp_path: Path) -> None:
    """Examples that go other ways leave other trails, of lines in the rooms under test."""
    trail = Trail()
    with trail:
        examine(Example(b"k,v\n1,a\n"), tmp_path)
    first = set(trail.steps)
    with trail:
        examine(Example(b"k,v\n1,a,x\n"), tmp_path)
    assert {name.rpartition("/")[2] for name, _, _ in first} >= {"decoder.py", "reader.py", "template.py"}
    assert set(trail.steps) - first
