"""One ledger, the same rows in other clothes, and rules that change: what is sent again, and what is refused."""

import csv
import io
import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.commands import QUICK, Ended, flex_import
from tests.samples_of import sid
from tests.test_command import states
from tests.test_compression import compress
from worker.emulator import Answer, Emulator, serve

COLUMNS = ("id", "kd", "uo", "kind", "mail", "name")
ROWS = 12
MAPPING = """
[source]
key = "{key}"

[mapping]
interaction_sid = "{{kd}}"
channel_sid = "{{uo}}"
type = "{{kind}}"

[mapping.media_properties]
address = "{{mail}}"
name = "{name}"
"""

Row = dict[str, str]
Files = dict[str, bytes]


def row(number: int, **other: str) -> Row:
    """Return a row of the legacy system; its name needs more than ASCII, and quotes."""
    made = dict(
        zip(
            COLUMNS,
            (f"{number}", sid("KD", number), sid("UO", number), "agent", f"p{number}@example.com"),
            strict=False,
        )
    )
    return {**made, "name": f"Zoë; nº {number},\nb", **other}


def table(rows: list[Row], encoding: str = "utf-8", **dialect: Any) -> bytes:
    """Return rows as a CSV in some dialect."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), **dialect)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode(encoding)


def lines(rows: list[Row], **style: Any) -> bytes:
    """Return rows as NDJSON."""
    return b"".join(json.dumps(one, **style).encode() + b"\n" for one in rows)


def turned(rows: list[Row]) -> list[Row]:
    """Return rows with their columns in the other order."""
    return [dict(reversed(one.items())) for one in rows]


ORIGINAL = [row(number) for number in range(ROWS)]

CLOTHES: dict[str, tuple[Files, Mapping[str, str]]] = {
    "as it was": ({"a.csv": table(ORIGINAL)}, {}),
    "sorted": ({"a.csv": table(sorted(ORIGINAL, key=lambda one: one["uo"]))}, {}),
    "split": ({"b.csv": table(ORIGINAL[7:]), "a.csv": table(ORIGINAL[:7])}, {}),
    "columns in another order, and one more": ({"a.csv": table([{**one, "x": "y"} for one in turned(ORIGINAL)])}, {}),
    "all quoted, semicolons, LF": (
        {"a.csv": table(ORIGINAL, quoting=csv.QUOTE_ALL, delimiter=";", lineterminator="\n")},
        {},
    ),
    "in another encoding": ({"a.csv": table(ORIGINAL, "utf-16", delimiter="\t")}, {"ENCODING": "utf-16"}),
    "as NDJSON": ({"a.ndjson": lines(ORIGINAL)}, {}),
    "as NDJSON without escapes, compressed": ({"a.json.zst": compress("zst", lines(ORIGINAL, ensure_ascii=False))}, {}),
    "compressed": ({"a.csv.gz": compress("gz", table(ORIGINAL))}, {}),
}


@pytest.fixture
async def service() -> AsyncIterator[tuple[Emulator, str]]:
    """An emulated service on loopback."""
    emulator = Emulator()
    async with serve(emulator) as base_url:
        yield emulator, base_url


def configure(folder: Path, key: str, name: str = "{name}") -> None:
    """Write the config with this key and this template of names."""
    (folder / "config.toml").write_text(MAPPING.format(key=key, name=name))


async def run(folder: Path, base_url: str, files: Files, *words: str, source: Mapping[str, str] | None = None) -> Ended:
    """Write files, and import them at full speed."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    env = {**QUICK, **{f"FLEX_IMPORT__SOURCE__{name}": value for name, value in (source or {}).items()}}
    line = ("run", *files, "--base-url", base_url, "--rate", "inf", *words)
    return await flex_import(*line, cwd=folder, env=env)


def account(ended: Ended) -> dict[str, int]:
    """Return what is not zero in the account of a run with --json, which must hold."""
    told = json.loads(ended.out)
    assert told["identity_holds"] is True
    names = ("created", "already_done", "duplicate", "rejected", "changed", "failed", "in_doubt", "not_sent", "unread")
    return {name: told[name] for name in names if told[name]}


@pytest.mark.parametrize("key", ["", "row:{id}"])
async def test_the_same_rows_in_other_clothes_are_the_same_rows(
    tmp_path: Path, service: tuple[Emulator, str], key: str
) -> None:
    """Sorted, split, in another dialect, encoding or format, or compressed: all is done, nothing is sent again."""
    emulator, base_url = service
    configure(tmp_path, key)
    first = await run(tmp_path, base_url, {"first.csv": table(ORIGINAL)}, "--json")
    assert (first.code, account(first)) == (0, {"created": ROWS}), first.err
    for name, (files, source) in CLOTHES.items():
        ended = await run(tmp_path, base_url, files, "--json", source=source)
        assert (ended.code, account(ended)) == (0, {"already_done": ROWS}), f"{name}: {ended.err}"
    together = await run(tmp_path, base_url, {"a.csv": table(ORIGINAL), "a.ndjson": lines(ORIGINAL)}, "--json")
    assert account(together) == {"already_done": ROWS, "duplicate": ROWS}
    assert emulator.stats.arrived == ROWS


class Step(NamedTuple):
    """What happened to the rows since the step before, and the account of the run that follows, under either key."""

    edit: Callable[[list[Row]], list[Row]]
    by_key: dict[str, int]
    by_digest: dict[str, int]


def change(number: int, **other: str) -> Callable[[list[Row]], list[Row]]:
    """Return the edit that changes one row."""
    return lambda rows: [one | other if one["id"] == str(number) else one for one in rows]


WRONG = [row(20, kind="costumer"), row(21, mail="p21@refused.example")]

STEPS: dict[str, Step] = {
    "the first import": Step(lambda rows: rows + WRONG, *[{"created": 12, "rejected": 2}] * 2),
    "nothing changed": Step(lambda rows: rows, *[{"already_done": 12, "rejected": 2}] * 2),
    "three rows more": Step(
        lambda rows: [row(30), *rows[:5], row(31), *rows[5:], row(32)],
        *[{"created": 3, "already_done": 12, "rejected": 2}] * 2,
    ),
    "a created row edited": Step(
        change(3, name="Ada"),
        {"already_done": 15, "changed": 1, "rejected": 2},
        {"created": 1, "already_done": 14, "rejected": 2},
    ),
    "a row that was never valid repaired": Step(
        change(20, kind="customer"),
        {"created": 1, "already_done": 15, "changed": 1, "rejected": 1},
        {"created": 1, "already_done": 15, "rejected": 1},
    ),
    "a row that the API rejected repaired": Step(
        change(21, mail="p21@example.com"),
        {"created": 1, "already_done": 16, "changed": 1},
        {"created": 1, "already_done": 16},
    ),
    "a row gone": Step(lambda rows: rows[1:], {"already_done": 16, "changed": 1}, {"already_done": 16}),
    "the edit taken back": Step(change(3, name=ORIGINAL[3]["name"]), {"already_done": 16}, {"already_done": 16}),
}


@pytest.mark.parametrize("key", ["", "row:{id}"])
async def test_only_what_is_new_or_repaired_is_sent(tmp_path: Path, service: tuple[Emulator, str], key: str) -> None:
    """File by file: new and repaired rows go out; an edited one is another row only where its content is its key."""
    emulator, base_url = service
    emulator.script(sid("UO", 21), Answer(status=400, code=20001, message="Address is wrong"))
    configure(tmp_path, key)
    rows, arrived = ORIGINAL, 0
    for name, step in STEPS.items():
        rows = step.edit(rows)
        ended = await run(tmp_path, base_url, {"a.csv": table(rows)}, "--json")
        wanted = step.by_key if key else step.by_digest
        assert (account(ended), ended.code) == (wanted, 1 if "rejected" in wanted else 0), f"{name}: {ended.err}"
        arrived += wanted.get("created", 0) + (name == "the first import")
        assert emulator.stats.arrived == arrived, name
    addresses = [one.media_properties["address"] for one in emulator.participants]
    assert sorted(set(addresses)) == sorted({f"p{number}@example.com" for number in (*range(12), 20, 21, 30, 31, 32)})
    assert len(addresses) == len(set(addresses)) + (not key), "one row was edited, and is there twice under its digest"


REFUSED = (
    "12 created rows\n  would get new keys and be created again.\n"
    "  Put {} back, or accept it for rows that are new: --accept-new-keys"
)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        (
            {"key": "row:{id}"},
            {"key": "{id}"},
            'source.key changed from "row:{id}" to "{id}": ' + REFUSED.format("source.key"),
        ),
        (
            {"key": "row:{id}"},
            {"key": ""},
            'source.key changed from "row:{id}" to empty (the row\'s digest): ' + REFUSED.format("source.key"),
        ),
        (
            {"key": ""},
            {"key": "", "name": "{name | upper}"},
            "the mapping changed, and source.key is empty (changed: mapping.media_properties.name): "
            + REFUSED.format("the mapping"),
        ),
    ],
)
async def test_rules_that_would_make_new_keys_are_refused(
    tmp_path: Path, service: tuple[Emulator, str], before: dict[str, str], after: dict[str, str], says: str
) -> None:
    """Exit 2 with the count, and nothing is sent; put back, all is done; accepted, the rows go out as new ones."""
    emulator, base_url = service
    files = {"a.csv": table(ORIGINAL)}
    configure(tmp_path, **before)
    assert (await run(tmp_path, base_url, files, "-q")).code == 0
    configure(tmp_path, **after)
    refused = await run(tmp_path, base_url, files)
    assert (refused.code, refused.out) == (2, "")
    assert says in refused.err
    configure(tmp_path, **before)
    assert account(await run(tmp_path, base_url, files, "--json")) == {"already_done": ROWS}
    assert emulator.stats.arrived == ROWS
    configure(tmp_path, **after)
    accepted = await run(tmp_path, base_url, files, "--json", "--accept-new-keys")
    assert (accepted.code, account(accepted)) == (0, {"created": ROWS})
    assert states(tmp_path) == {"created": 2 * ROWS}


async def test_a_mapping_may_change_where_a_column_is_the_key(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """The rows are the same ones, told as changed; a new one is made by the new mapping."""
    emulator, base_url = service
    configure(tmp_path, "row:{id}")
    assert (await run(tmp_path, base_url, {"a.csv": table(ORIGINAL)}, "-q")).code == 0
    configure(tmp_path, "row:{id}", "{name | upper}")
    ended = await run(tmp_path, base_url, {"a.csv": table([*ORIGINAL, row(40, name="Ada")])}, "--json")
    assert (ended.code, account(ended)) == (0, {"created": 1, "already_done": ROWS, "changed": ROWS})
    assert emulator.participants[-1].media_properties["name"] == "ADA"
