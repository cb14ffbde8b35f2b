"""The account after any story: each record that the inputs hold is in exactly one line, on either ledger."""

import csv
import io
import json
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from tests.commands import QUICK, Ended, flex_import
from tests.postgres import Postgres
from tests.samples_of import sid
from worker.emulator import Answer, Emulator, Fault, Scripted, after, before, serve
from worker.state import State

HEADER = ("nr", "interaction_sid", "channel_sid", "type", "address")
CONFIG = (
    '[mapping]\ninteraction_sid = "{interaction_sid}"\nchannel_sid = "{channel_sid}"\ntype = "{type}"\n'
    '[mapping.media_properties]\naddress = "{address}"\n[source]\nkey = "p:{nr}"\n'
)
ANSWERS: dict[str, Scripted | Answer] = {
    "no": Answer(status=400, code=20001),
    "lost": after(Fault.RESET),
    "void": before(Fault.RESET),
}
ROWS = 14
STEPS = 9


@pytest.fixture
async def service() -> AsyncIterator[tuple[Emulator, str]]:
    """An emulated service on loopback."""
    emulator = Emulator()
    async with serve(emulator) as base_url:
        yield emulator, base_url


class Story:
    """Random commands over one ledger, as a person types them in some week. files: what was read by then."""

    def __init__(self, folder: Path, emulator: Emulator, words: Sequence[str], dice: random.Random) -> None:
        self._folder = folder
        self._emulator = emulator
        self._words = words
        self._dice = dice
        self._read: list[Path] = []
        self._fixes = 0
        self.told: list[str] = []

    async def flex(self, *words: str, plain: bool = False) -> Ended:
        """Run a command on the ledger."""
        self.told.append(" ".join(words))
        ended = await flex_import(*words, *(self._words[: 2 if plain else None]), cwd=self._folder, env=QUICK)
        assert ended.code not in {2, 5, 70}, f"{self.told}\n{ended.out}{ended.err}"
        return ended

    async def run(self, path: Path) -> None:
        """Import a file."""
        for number in range(ROWS):
            fate = self._dice.choice(["", "", "", "no", "lost", "void"])
            if fate:
                self._emulator.script(sid("UO", number), ANSWERS[fate])
        if path not in self._read:
            self._read.append(path)
        await self.flex("run", path.relative_to(self._folder).as_posix())

    async def step(self) -> None:
        """Do something."""
        kind = self._dice.choice(["run", "again", "repair", "undo", "free", "retry", "waive", "reconcile", "resolve"])
        if kind in {"run", "again"}:
            await self.run(self._dice.choice(self._read))
        elif kind == "repair":
            self._fixes += 1
            reasons = ["--with-reasons"] * self._dice.choice([0, 1])
            await self.flex("export", "--rejects", f"fix{self._fixes}", *reasons, plain=True)
            for path in sorted((self._folder / f"fix{self._fixes}").glob("*.csv")):
                if not path.name.endswith(".reasons.csv"):
                    self._mend(path)
                    await self.run(path)
        elif kind == "undo":
            await self.flex("undo", "--run", str(self._dice.choice([1, 2])), "--yes")
        elif kind == "free":
            await self.flex("retry", "--state", "closed")
        elif kind == "retry":
            await self.flex("retry", *["--state", "rejected"] * self._dice.choice([0, 1]))
        elif kind == "reconcile":
            await self.flex("reconcile")
        else:
            await self._decide(kind)

    def _mend(self, path: Path) -> None:
        """Repair some of the records."""
        with path.open(newline="", encoding="utf-8-sig") as stream:
            head, *records = list(csv.reader(stream))
        place = head.index("type")
        for one in records:
            if self._dice.random() < 0.6 and one[place] == "custmer":
                one[place] = "customer"
        with path.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([head, *records])

    async def _decide(self, kind: str) -> None:
        groups = json.loads((await self.flex("failures", "--json", plain=True)).out)
        if kind == "waive":
            fit = [one["id"] for one in groups if one["state"] in {"rejected", "parked", "failed"}]
            if fit:
                await self.flex("waive", "--cluster", self._dice.choice(fit), "--reason", "enough", "--yes", plain=True)
            return
        exported = await self.flex("export", "--state", "in_doubt", "--format", "ndjson", plain=True)
        for line in exported.out.splitlines()[:1]:
            await self.flex("resolve", json.loads(line)["key"], "--not-created", "--force", plain=True)

    async def check(self) -> None:
        """Each record that was read is in one line of `status`, and the export says the same."""
        keys = set()
        for path in self._read:
            with path.open(newline="", encoding="utf-8-sig") as stream:
                keys |= {f"p:{one['nr']}" for one in csv.DictReader(stream)}
        status = json.loads((await self.flex("status", "--json", plain=True)).out)
        counts = {state.value: status[state.value] for state in State if status[state.value]}
        story = "\n".join(self.told)
        assert sum(counts.values()) == len(keys), f"{counts}, {len(keys)} records\n{story}"
        export = (await self.flex("export", plain=True)).out
        rows = list(csv.DictReader(io.StringIO(export)))
        assert {one["key"] for one in rows} == keys, story
        assert len(rows) == len(keys), story
        open_rows = sum(counts.get(name, 0) for name in ("rejected", "parked", "failed", "in_doubt"))
        groups = json.loads((await self.flex("failures", "--json", plain=True)).out)
        assert sum(one["rows"] for one in groups) == open_rows, f"{groups}\n{counts}\n{story}"


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("engine", "seed"), [("sqlite", 1), ("sqlite", 2), ("sqlite", 3), ("postgresql", 4)])
async def test_after_any_story_each_record_is_in_one_line(
    tmp_path: Path, service: tuple[Emulator, str], server: Postgres, engine: str, seed: int
) -> None:
    """Imports, repairs, undos, retries and decisions in any order."""
    emulator, base_url = service
    (tmp_path / "config.toml").write_text(CONFIG)
    dice = random.Random(seed)  # noqa: S311 - a story needs no secret
    with (tmp_path / "a.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(HEADER)
        for number in range(ROWS):
            kind = dice.choice(["customer", "customer", "custmer"])
            writer.writerow((number, sid("KD", number), sid("UO", number), kind, f"p{number}@example.com"))
    place = "imports.db" if engine == "sqlite" else str(server.new_schema())
    words = ("--ledger", place, "--base-url", base_url)
    story = Story(tmp_path, emulator, words, dice)
    await story.run(tmp_path / "a.csv")
    await story.check()
    for _ in range(STEPS):
        await story.step()
        await story.check()
