"""The commands that take care of things around an import."""

from typing import Annotated

from cyclopts import Parameter

from worker.cli.app import CARE, app
from worker.cli.parameter import flag


@app.command(group=CARE)
def emulator(
    *,
    port: Annotated[int, Parameter(help="The port on 127.0.0.1; 0 takes a free one.")] = 8080,
    latency: Annotated[float, Parameter(help="Seconds that each answer takes.")] = 0.0,
    rate: Annotated[float | None, Parameter(help="Creates a second before it answers 429 (45780).")] = None,
    concurrency: Annotated[int | None, Parameter(help="Requests at once before it answers 429 (20429).")] = None,
    faults: Annotated[float, Parameter(help="Share of creates that go wrong, in all ways it knows.")] = 0.0,
    forget: Annotated[bool, flag("Keep counters only, so that millions of rows need no memory.")] = False,
) -> int:
    """Serve a Flex API on this machine, for trying things out.

    Example: flex-import emulator --port 8080 --faults 0.05
    """
    from worker.cli.emulating import behave, serve_emulator

    return serve_emulator(port, behave(latency, rate, concurrency, faults), remember=not forget)
