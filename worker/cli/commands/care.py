"""The commands that take care of things around an import."""

from typing import Annotated, Literal

from cyclopts import App, Parameter

from worker.cli.app import CARE, app, typed
from worker.cli.parameter import ConfigFile, Json, LedgerFile, Yes, flag

ledger_app = App(name="ledger", help="Look at the ledger as a whole, copy it, make it smaller.", group=CARE)
app.command(ledger_app)


@ledger_app.command(name="info")
def ledger_info(*, config: ConfigFile = None, ledger: LedgerFile = None, json: Json = False) -> int:
    """Show what a ledger belongs to, how large it is, and who works on it.

    Example: flex-import ledger info
    """
    from worker.cli.keeping import show_info

    return show_info(config, ledger, json_wanted=json)


@ledger_app.command(name="backup")
def ledger_backup(
    file: Annotated[str, Parameter(help="The copy's name; an existing file is never replaced.")],
    /,
    *,
    config: ConfigFile = None,
    ledger: LedgerFile = None,
) -> int:
    """Copy the ledger as it is now, even while a run is at work on it.

    Example: flex-import ledger backup imports-2026-03-02.db
    """
    from worker.cli.keeping import back_up_ledger

    return back_up_ledger(config, ledger, typed([file])[0])


@ledger_app.command(name="prune")
def ledger_prune(
    *,
    before: Annotated[str, Parameter(help="A date: 2026-03-01, or 2026-03-01T06:00.")],
    config: ConfigFile = None,
    ledger: LedgerFile = None,
    yes: Yes = False,
) -> int:
    """Drop old records of rows that were refused, old findings and samples; never a row.

    Example: flex-import ledger prune --before 2026-03-01
    """
    from worker.cli.keeping import prune_ledger

    return prune_ledger(config, ledger, before, yes=yes)


@ledger_app.command(name="copy")
def ledger_copy(
    source: Annotated[str, Parameter(help="The ledger; no run may be at work on it.")],
    target: Annotated[str, Parameter(help="Where it is to be; an existing file is never replaced.")],
    /,
    *,
    config: ConfigFile = None,
) -> int:
    """Copy a ledger to another place, to go on there.

    Example: flex-import ledger copy imports.db /srv/import/imports.db
    """
    from worker.cli.keeping import copy_whole_ledger

    return copy_whole_ledger(config, *typed([source, target]))


@app.command(group=CARE)
def completion(
    shell: Annotated[
        Literal["bash", "zsh", "fish"] | None, Parameter(help="The shell; the one you are in when left out.")
    ] = None,
    /,
    *,
    print_: Annotated[bool, flag("Print the script instead of installing it.", "--print")] = False,
) -> int:
    """Let the shell complete commands, options and files.

    Example: flex-import completion
    """
    from worker.cli.completing import install_completion

    return install_completion(shell, print_only=print_)


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
