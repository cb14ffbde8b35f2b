"""The command line: parse, call a command, turn what stops it into one message and one exit code.

Heavy rooms are imported by the command that needs them, so that `--help` and `status` start at once.
"""

import io
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

from cyclopts import App, CycloptsError, Group, Parameter

from worker import __version__
from worker.cli.parameter import (
    ANY_TIME,
    BaseUrl,
    Concurrency,
    ConfigFile,
    Files,
    Json,
    LedgerFile,
    Quiet,
    Rate,
    Window,
    flag,
)
from worker.errors import ClosedError, ConfigError, LedgerHeldError, WorkerError
from worker.model import Exit, State

_STDIN = "\0stdin"
"""Stands for a lone `-` while the words are parsed; no argument can hold a NUL, so nothing else is meant by it."""

_FIRST_OWN = 3
"""The descriptors before it are the standard streams'."""

IMPORT = Group.create_ordered("Import")
LOOK = Group.create_ordered("Look")
DECIDE = Group.create_ordered("Decide")
CARE = Group.create_ordered("Care")

app = App(
    name="flex-import",
    help="Adds participants to Twilio Flex interaction channels from CSV or NDJSON: each row once.",
    version=__version__,
    version_flags=["--version"],
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # `call` says so
)
config_app = App(name="config", help="Propose a config for a file, or show the settings that hold.", group=IMPORT)
app.command(config_app)


@config_app.command(name="init")
def config_init(
    file: Annotated[str, Parameter(help="A CSV or NDJSON file (also .gz, .bz2, .xz, .zst) like those to come.")], /
) -> int:
    """Propose a config with a mapping for a file, by its header and first rows; prints it.

    Example: flex-import config init export.csv > config.toml
    """
    from worker.cli.configuring import propose_config

    return propose_config(_stdin([file])[0])


@config_app.command(name="show")
def config_show(*, config: ConfigFile = None, ledger: LedgerFile = None, json: Json = False) -> int:
    """Show every setting and where it came from; credentials as set or missing.

    Example: flex-import config show
    """
    from worker.cli.configuring import show_config

    return show_config(config, ledger, json_wanted=json)


@app.command(group=IMPORT)
def check(
    files: Files,
    /,
    *,
    config: ConfigFile = None,
    ledger: LedgerFile = None,
    show: Annotated[
        int | None, Parameter(help="Print what would be sent for the first rows, so many, with their values.")
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Look at every row without a network: what would be sent, what is done, what is wrong.

    Example: flex-import check export.csv
    """
    from worker.cli.checking import check_files

    return check_files(_stdin(files), config, ledger, show=show, quiet=quiet, json_wanted=json)


@app.command(group=IMPORT)
def run(
    files: Files,
    /,
    *,
    config: ConfigFile = None,
    ledger: LedgerFile = None,
    rate: Rate = None,
    concurrency: Concurrency = None,
    limit: Annotated[int | None, Parameter(help="Stop after sending this many rows.")] = None,
    base_url: BaseUrl = None,
    new_ledger: Annotated[bool, flag("Make the ledger; refused when there is one.")] = False,
    yes: Annotated[bool, flag("Do not ask.", "--yes", "-y")] = False,
    accept_target: Annotated[bool, flag("Go on although the ledger belongs to another target.")] = False,
    accept_new_keys: Annotated[bool, flag("Go on although rows get other keys than before.")] = False,
    window: Window = ANY_TIME,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Send every row that the ledger does not have yet. Run it again to resume.

    Example: flex-import run export.csv --limit 10
    """
    from worker.cli.importing import run_files
    from worker.cli.wiring import LedgerChoice, configure

    settings = configure(
        config,
        ledger,
        {"limits": {"rate_per_second": rate, "concurrency": concurrency}, "api": {"base_url": base_url}},
    )
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit: {limit} is no number of rows to send; it must be at least 1")
    choice = LedgerChoice(new_ledger, yes, accept_target, accept_new_keys)
    return run_files(_stdin(files), settings, choice, window, limit=limit, quiet=quiet, json_wanted=json)


@app.command(group=LOOK)
def status(*, config: ConfigFile = None, ledger: LedgerFile = None, quiet: Quiet = False, json: Json = False) -> int:
    """Show where the import stands, beside a run or after it.

    Example: flex-import status
    """
    from worker.cli.looking import show_status

    return show_status(config, ledger, quiet=quiet, json_wanted=json)


@app.command(group=IMPORT)
def retry(
    *,
    config: ConfigFile = None,
    ledger: LedgerFile = None,
    state: Annotated[
        list[State] | None, Parameter(negative="", help="rejected, parked or failed; may be repeated.")
    ] = None,
    rate: Rate = None,
    concurrency: Concurrency = None,
    base_url: BaseUrl = None,
    window: Window = ANY_TIME,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Send rejected, parked and failed rows again, from their stored records.

    Example: flex-import retry --state parked
    """
    from worker.cli.importing import work_on_ledger
    from worker.cli.wiring import configure

    states = state or [State.REJECTED, State.PARKED, State.FAILED]
    if unfit := [one.value for one in states if one not in {State.REJECTED, State.PARKED, State.FAILED}]:
        raise ConfigError(f"--state: {unfit[0]}: only rejected, parked and failed rows can be sent again")
    limits = {"rate_per_second": rate, "concurrency": concurrency}
    settings = configure(config, ledger, {"limits": limits, "api": {"base_url": base_url}})
    return work_on_ledger("retry", settings, states, window, quiet=quiet, json_wanted=json)


@app.command(group=DECIDE)
def reconcile(
    *,
    config: ConfigFile = None,
    ledger: LedgerFile = None,
    base_url: BaseUrl = None,
    window: Window = ANY_TIME,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Resolve rows in doubt by listing their channels; sends nothing.

    Example: flex-import reconcile
    """
    from worker.cli.importing import work_on_ledger
    from worker.cli.wiring import configure

    settings = configure(config, ledger, {"api": {"base_url": base_url}})
    return work_on_ledger("reconcile", settings, (), window, quiet=quiet, json_wanted=json)


@app.command(group=DECIDE)
def resolve(
    *keys: str,
    config: ConfigFile = None,
    ledger: LedgerFile = None,
    base_url: BaseUrl = None,
    created: Annotated[str | None, Parameter(help="It exists, and this is its sid.")] = None,
    not_created: Annotated[bool, flag("It does not exist; the next run sends it.")] = False,
    file: Annotated[Path | None, Parameter(name="--from", help="A CSV with the columns key and sid.")] = None,
) -> int:
    """Record your decision about rows in doubt, by key or the beginning of one.

    Example: flex-import resolve 164b10bd --not-created
    """
    from worker.cli.deciding import resolve_rows
    from worker.cli.wiring import configure

    settings = configure(config, ledger, {"api": {"base_url": base_url}})
    return resolve_rows(keys, settings, created=created, not_created=not_created, file=file)


@app.command(group=DECIDE)
def control(
    command: Annotated[Literal["pause", "resume", "drain", "rate"], Parameter(help="What the run is to do.")],
    rate: Annotated[str | None, Parameter(help="With rate: requests a second at most: 5, 900/m, inf.")] = None,
    /,
    *,
    config: ConfigFile = None,
    ledger: LedgerFile = None,
) -> int:
    """Steer the run that is at work: pause it, resume it, let it drain, or keep it below a rate.

    Example: flex-import control rate 5
    """
    from worker.cli.controlling import steer

    return steer(command, rate, config, ledger)


@app.command(group=LOOK)
def failures(
    *,
    config: ConfigFile = None,
    ledger: LedgerFile = None,
    state: Annotated[
        State | None, Parameter(help="Only this state; in_doubt shows each row with its candidates.")
    ] = None,
) -> int:
    """Show what needs something, in groups.

    Example: flex-import failures --state in_doubt
    """
    from worker.cli.looking import show_failures

    return show_failures(config, ledger, state=state.value if state else None)


@app.command(group=LOOK)
def export(
    *,
    config: ConfigFile = None,
    ledger: LedgerFile = None,
    state: Annotated[
        list[State] | None, Parameter(negative="", help="Only rows in this state; may be repeated.")
    ] = None,
    run: Annotated[int | None, Parameter(help="Only what this run brought to its state.")] = None,
    format: Annotated[  # noqa: A002 - the contract's name
        str | None, Parameter(help="csv, which is the default, or ndjson.")
    ] = None,
    output: Annotated[
        str | None, Parameter(name=["--output", "-o"], help="A file, or - for stdout, which is the default.")
    ] = None,
    rejects: Annotated[
        str | None, Parameter(help="A folder for rejected, parked and failed records as they were, to repair.")
    ] = None,
) -> int:
    """Write the crosswalk, key to sid, and every other column; or, with --rejects, the records to repair.

    Example: flex-import export --state created --output ids.csv
    """
    if rejects is not None:
        from worker.cli.repairing import export_rejects

        for name, given in (("--state", state), ("--format", format), ("--output", output)):
            if given is not None:
                raise ConfigError(f"--rejects: writes original records into files of their own; leave out {name}")
        return export_rejects(config, ledger, folder=_stdin([rejects])[0], run=run)
    from worker.cli.looking import export_rows

    chosen = [one.value for one in state or ()]
    form, target = "csv" if format is None else format, "-" if output is None else _stdin([output])[0]
    return export_rows(config, ledger, states=chosen, run=run, form=form, output=target)


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


def _stdin(words: Sequence[str]) -> list[str]:
    return ["-" if word == _STDIN else word for word in words]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code, whatever has become of the standard streams."""
    _replace_closed_streams()
    code = call(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        _let_go(stream)
    sys.exit(code)


def _replace_closed_streams() -> None:
    """Occupy the numbers of closed standard streams: a ledger opened as number 2 would get what is meant for stderr."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < _FIRST_OWN:
        pass
    os.close(descriptor)
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - the process's
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr does: a name that is no text must not end a run


def _let_go(stream: TextIO | None) -> None:
    """Flush a stream; what cannot be written any more must not become the exit code 120 of the interpreter."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def call(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; whatever stops it becomes a message on stderr."""
    words = [_STDIN if word == "-" else word for word in arguments]
    try:
        result: Any = app(words, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as exc:
        return _refuse(f"{exc}".replace(_STDIN, "-"), "flex-import --help shows the commands")
    except WorkerError as exc:
        return _stopped(exc)
    except KeyboardInterrupt:
        _say("stopped by SIGINT")
        return Exit.SIGINT
    except Exception:  # noqa: BLE001 - a bug in here, whatever it is
        _say(traceback.format_exc())
        _say(f"exit {Exit.BUG:d}: {Exit.BUG.meaning}; rows are intact, run it again")
        return Exit.BUG
    return int(result or 0)


def _stopped(error: WorkerError) -> int:
    code = Exit.USAGE
    if isinstance(error, LedgerHeldError):
        code = Exit.HELD
    elif isinstance(error, ClosedError):
        code = Exit.STOPPED
    _say(f"error: {error}\nexit {code:d}, nothing was sent")
    return code


def _refuse(message: str, hint: str) -> int:
    _say(f"error: {message}\n{hint}\nexit {Exit.USAGE:d}, nothing was sent")
    return Exit.USAGE


def _say(text: str) -> None:
    from worker.cli.wiring import say

    say(text)
