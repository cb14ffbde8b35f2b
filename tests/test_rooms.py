"""The architecture: which room may import what, how large a room may be, and which rooms stay pure.

The table is the whole truth in both directions: an import that it does not allow fails, and so does an allowance
that nobody uses. A new import is therefore a decision, seen in the diff of this file.
"""

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

WORKER = Path(__file__).parents[1] / "worker"
LINES = 400

EVERYTHING = frozenset({"*"})

TABLE: dict[str, frozenset[str]] = {
    # room: the worker's rooms, and the other projects' packages, that it may import besides the standard library
    "errors": frozenset(),
    "state": frozenset(),
    "wording": frozenset(),
    "model": frozenset({"state"}),
    "credentials": frozenset({"errors", "pydantic"}),
    "place": frozenset({"errors"}),
    "descriptor": frozenset({"errors"}),
    "config": frozenset({"errors", "place", "timetable", "wording", "pydantic", "pydantic_settings", "yarl"}),
    "phone": frozenset({"errors", "phonenumbers"}),
    "filter": frozenset({"errors", "phone"}),
    "template": frozenset({"errors", "filter"}),
    "payload": frozenset({"config", "errors", "filter", "model", "template", "yarl"}),
    "proposal": frozenset({"config", "errors", "payload", "template"}),
    "cluster": frozenset({"wording"}),
    "mask": frozenset(),
    "verdict": frozenset({"mask", "model"}),
    "report": frozenset({"cluster", "model", "wording"}),
    "page": frozenset({"model"}),
    "source": frozenset({"config", "errors", "model", "anyio", "xopen"}),
    "lookup": frozenset({"config", "errors", "filter", "model", "source", "template"}),
    "rules": frozenset({"config", "errors", "filter", "payload", "source"}),
    "intake": frozenset({"errors", "ledger", "model", "payload", "rules", "source"}),
    "limiter": frozenset({"anyio"}),
    "adaptive": frozenset(),
    "breaker": frozenset(),
    "schedule": frozenset({"errors", "ledger", "model", "stopping", "timetable", "traffic", "anyio"}),
    "latency": frozenset(),
    "lease": frozenset(),
    "sampler": frozenset({"errors", "journal", "ledger", "anyio", "model"}),
    "traffic": frozenset({"adaptive", "breaker", "config", "latency", "limiter", "model", "anyio"}),
    "timetable": frozenset(),
    "plan": frozenset({"timetable"}),
    "scratch": frozenset({"errors"}),
    "headcount": frozenset({"model", "verdict"}),
    "rowqueue": frozenset({"model"}),
    "api": frozenset({"errors", "model", "verdict", "aiohttp", "yarl"}),
    "submit": frozenset({"model", "traffic", "verdict", "anyio", "tenacity"}),
    "ledger": frozenset({"cluster", "errors", "model", "place", "procrastinate", "psycopg"}),
    "added": frozenset({"ledger"}),
    "rejects": frozenset({"added", "errors", "ledger", "model"}),
    "journal": frozenset({"errors", "ledger", "model", "anyio"}),
    "stopping": frozenset({"model", "anyio"}),
    "logs": frozenset({"errors", "model", "structlog"}),
    "screen": frozenset({"model", "wording", "anyio", "rich"}),
    "metrics": frozenset({"config", "errors", "latency", "model", "anyio", "prometheus_client", "yarl"}),
    "reconcile": frozenset({"config", "ledger", "model", "traffic", "anyio"}),
    "recorder": frozenset({"journal", "ledger", "model"}),
    "doubts": frozenset({"journal", "ledger", "model", "reconcile", "recorder", "rowqueue", "stopping", "anyio"}),
    "fleet": frozenset(
        {
            *("errors", "journal", "lease", "ledger", "limiter", "model", "pipeline", "reconcile", "recorder"),
            *("rowqueue", "stopping", "submit", "anyio"),
        }
    ),
    "undo": frozenset({"journal", "ledger", "model", "stopping", "traffic", "verdict", "anyio"}),
    "verify": frozenset({"journal", "ledger", "model", "stopping", "anyio"}),
    "pipeline": frozenset(
        {
            *("doubts", "errors", "journal", "ledger", "model", "reconcile", "recorder", "rowqueue", "stopping"),
            *("submit", "verdict", "anyio"),
        }
    ),
    "emulator": frozenset({"aiohttp", "yarl"}),
    "cli": EVERYTHING,
    "__main__": frozenset({"cli"}),
    "__init__": frozenset(),
}

ASIDE: dict[str, frozenset[str]] = {
    # a folder is entered by its door; the rooms inside it that others may enter directly, and who
    "ledger.binding": frozenset({"cli"}),
    "ledger.crew": frozenset({"cli"}),
    "ledger.fleet": frozenset({"cli", "fleet"}),
    "ledger.keeping": frozenset({"cli"}),
    "ledger.lock": frozenset({"cli"}),
    "ledger.opening": frozenset({"cli"}),
    "ledger.postgres": frozenset({"cli"}),
    "ledger.pruning": frozenset({"cli"}),
    "ledger.queue": frozenset({"cli", "fleet"}),
    "ledger.retrying": frozenset({"cli"}),
    "ledger.steering": frozenset({"cli", "schedule"}),
    "ledger.survey": frozenset({"cli", "fleet", "intake", "pipeline"}),
    "ledger.tables": frozenset({"cli"}),
    "ledger.fate": frozenset({"cli"}),
    "ledger.verifying": frozenset({"cli"}),
    "ledger.view": frozenset({"cli", "rejects"}),
    "ledger.waiving": frozenset({"cli"}),
}

PURE: dict[str, frozenset[str]] = {
    # core rooms do no IO, read no clock, roll no dice and do not log: all that they need of the standard library
    "errors": frozenset(),
    "state": frozenset({"enum"}),
    "wording": frozenset({"datetime", "shlex", "typing"}),
    "model": frozenset({"collections", "dataclasses", "typing"}),
    "phone": frozenset({"collections", "re"}),
    "filter": frozenset({"collections", "dataclasses", "difflib", "re", "typing"}),
    "template": frozenset({"collections", "dataclasses", "json", "re", "typing"}),
    "payload": frozenset({"collections", "difflib", "functools", "hashlib", "json", "math", "re", "typing"}),
    "proposal": frozenset({"collections", "dataclasses", "difflib", "re", "textwrap", "typing", "unicodedata"}),
    "cluster": frozenset({"collections", "hashlib", "re", "typing"}),
    "mask": frozenset({"collections", "json", "re", "typing", "urllib"}),
    "verdict": frozenset({"dataclasses", "json", "re", "typing", "urllib"}),
    "report": frozenset({"collections", "dataclasses", "re", "textwrap", "typing"}),
    "page": frozenset({"collections", "dataclasses", "datetime", "html", "itertools", "math", "statistics", "typing"}),
    "plan": frozenset({"collections", "dataclasses", "datetime"}),
    "adaptive": frozenset({"collections", "math"}),
    "breaker": frozenset({"math"}),
    "latency": frozenset({"math", "typing"}),
}

IMPURE_CALLS = frozenset({"open", "print", "input", "exec", "eval", "__import__", "breakpoint"})


class Import(NamedTuple):
    """One import. name: the whole dotted name that is imported; a relative one begins with a dot."""

    line: int
    name: str


class Module(NamedTuple):
    """A module of the worker. name: below `worker`, dotted; of a folder's door, the folder's."""

    name: str
    text: str

    @property
    def room(self) -> str:
        """The room that it is, or is a part of."""
        return self.name.partition(".")[0]

    @property
    def imports(self) -> list[Import]:
        """Every import, those inside functions too."""
        return list(imports_of(ast.parse(self.text)))


def imports_of(tree: ast.AST) -> Iterator[Import]:
    """Yield what a module imports; `from a import b` is both a and a.b, when a is a package of ours."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            for alias in node.names:
                inner = f"{origin}.{alias.name}"
                yield Import(node.lineno, inner if inner.removeprefix("worker.") in NAMES else origin)


def module_at(path: Path) -> Module:
    """Return the module in this file."""
    parts = path.relative_to(WORKER).with_suffix("").parts
    return Module(".".join(parts[:-1] if parts[1:] and parts[-1] == "__init__" else parts), path.read_text("utf-8"))


PATHS = sorted(WORKER.rglob("*.py"))
NAMES = {".".join(path.relative_to(WORKER).with_suffix("").parts).removesuffix(".__init__") for path in PATHS}
MODULES = [module_at(path) for path in PATHS]
ROOMS = {module.room for module in MODULES}


def target_of(name: str) -> str:
    """Return what an import is in the table's words: a room, another project's package, or nothing of interest."""
    top, _, inner = name.partition(".")
    if name == "worker" or top in sys.stdlib_module_names:  # the worker itself has its version, and no more
        return ""
    return inner.partition(".")[0] if top == "worker" else top or name


def trespasses(module: Module) -> list[str]:
    """Return what a module does that the tables forbid."""
    allowed, found = TABLE[module.room], []
    for line, name in module.imports:
        target, inside = target_of(name), name.removeprefix("worker.")
        if target in {"", module.room}:
            continue
        if name.startswith("."):
            found.append(f"{module.name}:{line} imports {name}: write the whole name")
        elif allowed != EVERYTHING and target not in allowed:
            found.append(f"{module.name}:{line} imports {name}: TABLE does not allow {module.room} → {target}")
        elif name.startswith("worker.") and "." in inside and module.room not in ASIDE.get(inside, ()):
            found.append(f"{module.name}:{line} imports {name}: go through the door of {target}")
    return found


def stains(module: Module) -> list[str]:
    """Return what a core module does that is not pure."""
    allowed = PURE[module.room]
    tops = [(line, name.partition(".")[0]) for line, name in module.imports]
    found = [f"{module.name}:{line} imports {top}" for line, top in tops if top in sys.stdlib_module_names - allowed]
    for node in ast.walk(ast.parse(module.text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
            found.append(f"{module.name}:{node.lineno} calls {node.func.id}")
        if isinstance(node, ast.AsyncFunctionDef | ast.Await):
            found.append(f"{module.name}:{node.lineno} waits")
    return found


def named(module: Module) -> str:
    """Return a test's name."""
    return module.name


# ---- the tables hold ------------------------------------------------------------------------------------------------


def test_every_room_is_in_the_table_and_every_row_of_it_is_a_room() -> None:
    """Nothing is missing, nothing is left over."""
    assert sorted(ROOMS) == sorted(TABLE)
    assert PURE.keys() <= TABLE.keys()
    assert ASIDE.keys() <= NAMES


@pytest.mark.parametrize("module", MODULES, ids=named)
def test_a_module_imports_only_what_its_room_may(module: Module) -> None:
    """Rooms know few others, foreign libraries live in one room each, and folders are entered by their doors."""
    assert trespasses(module) == []


@pytest.mark.parametrize("module", [module for module in MODULES if module.room in PURE], ids=named)
def test_a_core_room_is_pure(module: Module) -> None:
    """No IO, no clock, no dice, no log, no waiting: decisions are values."""
    assert stains(module) == []


@pytest.mark.parametrize("room", [room for room in TABLE if TABLE[room] != EVERYTHING])
def test_no_allowance_goes_unused(room: str) -> None:
    """The table says what is true, not what once was."""
    modules = [module for module in MODULES if module.room == room]
    used = {target_of(found.name) for module in modules for found in module.imports}
    assert TABLE[room] <= used
    if room in PURE:
        assert {name.partition(".")[0] for module in modules for _, name in module.imports} >= PURE[room]


def test_no_side_door_goes_unused() -> None:
    """A door that nobody takes is closed."""
    taken = {(found.name.removeprefix("worker."), module.room) for module in MODULES for found in module.imports}
    assert {(inside, room) for inside, rooms in ASIDE.items() for room in rooms} <= taken


def test_no_room_imports_itself_through_others() -> None:
    """Rooms stand on each other, never in a circle."""
    known = {room: set(TABLE[room] & TABLE.keys()) for room in TABLE}
    order = list(TopologicalSorter(known).static_order())
    assert order.index("model") < order.index("payload") < order.index("intake")


@pytest.mark.parametrize("module", MODULES, ids=named)
def test_a_module_fits_on_its_page(module: Module) -> None:
    """When a room outgrows it, it becomes a folder of rooms with one door."""
    assert len(module.text.splitlines()) <= LINES


# ---- the tables bite ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "line", "says"),
    [
        ("model", "import pydantic", "does not allow model → pydantic"),
        ("model", "from worker.errors import WorkerError", "does not allow model → errors"),
        ("model", "from worker import errors", "does not allow model → errors"),
        ("model", "from worker.ledger import view", "does not allow model → ledger"),
        ("submit", "from worker.api import Api", "does not allow submit → api"),
        ("source.reader", "import aiohttp.web", "does not allow source → aiohttp"),
        ("pipeline", "def later():\n    import structlog", "does not allow pipeline → structlog"),
        ("pipeline", "from worker.ledger.sqlite import SqliteLedger", "go through the door of ledger"),
        ("pipeline", "from worker.ledger import sqlite", "go through the door of ledger"),
        ("cli.importing", "from worker.source.reader import Reader", "go through the door of source"),
        ("rowqueue", "from .model import Row", "write the whole name"),
        ("rowqueue", "from . import model", "write the whole name"),
    ],
)
def test_a_forbidden_import_is_found(name: str, line: str, says: str) -> None:
    """Wherever it hides, and however it is written."""
    (found,) = trespasses(Module(name, f"import os\nfrom worker import __version__\n{line}\n"))
    assert found.endswith(says)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        *((f"import {name}", f"imports {name}") for name in ("os", "time", "socket", "logging", "asyncio", "random")),
        ("from datetime import datetime", "imports datetime"),
        ("from pathlib import Path", "imports pathlib"),
        ("def f():\n    import threading", "imports threading"),
        ("open('x')", "calls open"),
        ("print('x')", "calls print"),
        ("__import__('os')", "calls __import__"),
        ("async def f(): ...", "waits"),
    ],
)
def test_an_impure_core_is_found(line: str, says: str) -> None:
    """The clock, the disk, the network, the dice, the log."""
    (found,) = stains(Module("verdict", f"import json\n{line}\n"))
    assert found.endswith(says)
