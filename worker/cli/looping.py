"""The event loop of a command that sends: uvloop where it is installed (the extra `fast`), Python's own otherwise."""

from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import TypeVar, TypeVarTuple

import anyio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def run_loop(work: Callable[[*Ts], Awaitable[T]], *arguments: *Ts) -> T:
    """Run an async function to its end and return its result."""
    options = {"use_uvloop": find_spec("uvloop") is not None}
    return anyio.run(work, *arguments, backend_options=options)
