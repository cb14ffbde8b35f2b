"""The commands that look at a ledger and disturb nothing."""

from typing import Annotated

from cyclopts import Parameter

from worker.cli.app import LOOK, app, typed
from worker.cli.parameter import ConfigFile, Files, Json, LedgerFile, OfRun, ProfileName, Quiet, flag
from worker.errors import ConfigError
from worker.state import State


@app.command(group=LOOK)
def status(
    *,
    config: ConfigFile = None,
    ledger: LedgerFile = None,
    watch: Annotated[bool, flag("Show it again once a second, until Ctrl-C.")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Show where the import stands, during a run or after it.

    Example: flex-import status --watch
    """
    from worker.cli.looking import show_status, watch_status

    if watch:
        if json or quiet:
            raise ConfigError(f"--watch: shows a screen again and again; leave out {'--json' if json else '--quiet'}")
        return watch_status(config, ledger)
    return show_status(config, ledger, quiet=quiet, json_wanted=json)


@app.command(group=LOOK)
def history(*, config: ConfigFile = None, ledger: LedgerFile = None, json: Json = False) -> int:
    """Show a line for each run: when, how much, how it ended.

    Example: flex-import history
    """
    from worker.cli.looking import show_history

    return show_history(config, ledger, json_wanted=json)


@app.command(group=LOOK)
def failures(
    *,
    config: ConfigFile = None,
    ledger: LedgerFile = None,
    state: Annotated[
        State | None, Parameter(help="Only this state; in_doubt shows candidates, waived who signed off.")
    ] = None,
    run: OfRun = None,
    json: Json = False,
) -> int:
    """Show what needs something, in groups, and what to do about each.

    Example: flex-import failures --state in_doubt
    """
    if state is State.WAIVED:
        from worker.cli.waiving import show_waived

        return show_waived(config, ledger, run=run, json_wanted=json)
    from worker.cli.clustering import show_failures

    return show_failures(config, ledger, state=state, run=run, json_wanted=json)


@app.command(group=LOOK)
def report(
    *,
    config: ConfigFile = None,
    ledger: LedgerFile = None,
    output: Annotated[str, Parameter(name=["--output", "-o"], help="A file, or - for stdout.")] = "report.html",
) -> int:
    """Write everything about the import on one page of HTML that loads nothing.

    Example: flex-import report -o report.html
    """
    from worker.cli.reporting import write_report

    return write_report(config, ledger, typed([output])[0])


@app.command(group=LOOK)
def export(
    *,
    config: ConfigFile = None,
    ledger: LedgerFile = None,
    state: Annotated[
        list[State] | None, Parameter(negative="", help="Only rows in this state; may be repeated.")
    ] = None,
    run: OfRun = None,
    format: Annotated[  # noqa: A002 - the contract's name
        str | None, Parameter(help="csv, which is the default, or ndjson.")
    ] = None,
    output: Annotated[
        str | None, Parameter(name=["--output", "-o"], help="A file, or - for stdout, which is the default.")
    ] = None,
    rejects: Annotated[
        str | None, Parameter(help="A folder for rejected, parked and failed records as they were, to repair.")
    ] = None,
    with_reasons: Annotated[
        bool, flag("With --rejects: add columns that say what is wrong, and settle the old record once it is repaired.")
    ] = False,
    for_excel: Annotated[bool, flag("CSV for a spreadsheet: marked as UTF-8, and nothing in it is a formula.")] = False,
) -> int:
    """Write the crosswalk, key to sid, and every other column; or, with --rejects, the records to repair.

    Example: flex-import export --state created --output ids.csv
    """
    if rejects is not None:
        from worker.cli.repairing import export_rejects

        options = {"--state": state, "--format": format, "--output": output, "--for-excel": for_excel or None}
        for name, given in options.items():
            if given is not None:
                raise ConfigError(f"--rejects: writes original records into files of their own; leave out {name}")
        return export_rejects(config, ledger, folder=typed([rejects])[0], run=run, with_reasons=with_reasons)
    if with_reasons:
        raise ConfigError("--with-reasons: belongs to --rejects; add it, or leave this out")
    from worker.cli.exporting import export_rows

    chosen = [one.value for one in state or ()]
    form, target = "csv" if format is None else format, "-" if output is None else typed([output])[0]
    return export_rows(config, ledger, states=chosen, run=run, form=form, output=target, for_excel=for_excel)


@app.command(group=LOOK)
def annotate(
    files: Files,
    /,
    *,
    output: Annotated[str, Parameter(name=["--output", "-o"], help="A folder for the annotated files.")],
    config: ConfigFile = None,
    ledger: LedgerFile = None,
    profile: ProfileName = None,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Write the input again with what became of each record: its state, sid, code and reason.

    Example: flex-import annotate export.csv --output annotated/
    """
    from worker.cli.annotating import annotate_files

    target = typed([output])[0]
    return annotate_files(typed(files), config, ledger, output=target, profile=profile, quiet=quiet, json_wanted=json)
