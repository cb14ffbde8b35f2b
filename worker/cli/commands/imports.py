"""The commands that import, and what prepares them."""

from typing import Annotated

from cyclopts import App, Parameter

from worker.cli.app import IMPORT, app, typed
from worker.cli.parameter import (
    ANY_TIME,
    BaseUrl,
    Concurrency,
    ConfigFile,
    Files,
    GroupId,
    Json,
    LedgerFile,
    ProfileName,
    Quiet,
    Rate,
    Strict,
    Window,
    Yes,
    flag,
)
from worker.errors import ConfigError
from worker.state import State

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

    return propose_config(typed([file])[0])


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
    rejects: Annotated[
        str | None, Parameter(help="A folder for the records that would be rejected, to repair.")
    ] = None,
    profile: ProfileName = None,
    rate: Annotated[str | None, Parameter(help="Plan with this rate instead of the configured one: 15, 900/m.")] = None,
    strict: Strict = False,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Look at every row without a network: what would be sent, what is done, what is wrong.

    Example: flex-import check export.csv
    """
    from worker.cli.checking import Wish, check_files

    folder = None if rejects is None else typed([rejects])[0]
    return check_files(typed(files), config, ledger, Wish(show, folder, profile, strict, quiet, json, rate))


@app.command(group=IMPORT)
def doctor(
    *, config: ConfigFile = None, ledger: LedgerFile = None, base_url: BaseUrl = None, json: Json = False
) -> int:
    """Look whether all is there that a run needs, and call the service once; changes nothing.

    Example: flex-import doctor
    """
    from worker.cli.doctoring import examine

    return examine(config, ledger, base_url, json_wanted=json)


@app.command(group=IMPORT)
def rehearse(
    files: Files,
    /,
    *,
    config: ConfigFile = None,
    rows: Annotated[int, Parameter(help="How many rows, from all over the files.")] = 2000,
    profile: ProfileName = None,
    quiet: Quiet = False,
) -> int:
    """Import a sample of your files into an unkind service on this machine, kill it, and see what comes of it.

    Example: flex-import rehearse export.csv
    """
    from worker.cli.rehearsing import rehearse_files

    return rehearse_files(typed(files), config, rows, profile, quiet=quiet)


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
    profile: ProfileName = None,
    strict: Strict = False,
    base_url: BaseUrl = None,
    new_ledger: Annotated[bool, flag("Make the ledger; refused when there is one.")] = False,
    yes: Yes = False,
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
    from worker.cli.loading import configure
    from worker.cli.wiring import LedgerChoice

    settings = configure(
        config,
        ledger,
        {
            "limits": {"rate_per_second": rate, "concurrency": concurrency},
            "api": {"base_url": base_url},
            "source": {"strict": strict or None},
        },
    )
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit: {limit} is no number of rows to send; it must be at least 1")
    choice = LedgerChoice(new_ledger, yes, accept_target, accept_new_keys)
    return run_files(
        typed(files), settings, choice, window, profile=profile, limit=limit, quiet=quiet, json_wanted=json
    )


@app.command(group=IMPORT)
def retry(
    *,
    config: ConfigFile = None,
    ledger: LedgerFile = None,
    state: Annotated[
        list[State] | None, Parameter(negative="", help="rejected, parked or failed, may be repeated; or closed.")
    ] = None,
    group: GroupId = None,
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
    from worker.cli.clustering import prepare_retry, to_send_again
    from worker.cli.importing import work_on_ledger
    from worker.cli.loading import configure

    limits = {"rate_per_second": rate, "concurrency": concurrency}
    settings = configure(config, ledger, {"limits": limits, "api": {"base_url": base_url}})
    if state == [State.CLOSED]:
        from worker.cli.undoing import free_closed_rows

        return free_closed_rows(settings, group)
    states, why = to_send_again(settings, state, group)
    also = prepare_retry(settings, states, why)
    return work_on_ledger("retry", settings, states, window, why=why, also=also, quiet=quiet, json_wanted=json)


@app.command(group=IMPORT)
def enqueue(
    files: Files,
    /,
    *,
    config: ConfigFile = None,
    ledger: LedgerFile = None,
    profile: ProfileName = None,
    strict: Strict = False,
    base_url: BaseUrl = None,
    new_ledger: Annotated[bool, flag("Make the ledger; refused when there is one.")] = False,
    yes: Yes = False,
    accept_target: Annotated[bool, flag("Go on although the ledger belongs to another target.")] = False,
    accept_new_keys: Annotated[bool, flag("Go on although rows get other keys than before.")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Queue every row that the ledger does not have yet, for workers on several hosts. Run it again to go on.

    Example: flex-import enqueue export.csv --ledger postgresql://db.internal/imports
    """
    from worker.ledger.opening import require_driver

    require_driver("the command enqueue")
    from worker.cli.enqueueing import enqueue_files
    from worker.cli.loading import configure
    from worker.cli.wiring import LedgerChoice

    settings = configure(config, ledger, {"api": {"base_url": base_url}, "source": {"strict": strict or None}})
    choice = LedgerChoice(new_ledger, yes, accept_target, accept_new_keys)
    return enqueue_files(typed(files), settings, choice, profile=profile, quiet=quiet, json_wanted=json)


@app.command(group=IMPORT)
def worker(
    *,
    config: ConfigFile = None,
    ledger: LedgerFile = None,
    rate: Rate = None,
    concurrency: Concurrency = None,
    base_url: BaseUrl = None,
    window: Window = ANY_TIME,
    exit_when_empty: Annotated[bool, flag("End once no chunk is left, instead of waiting for enqueue.")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Send what was queued, beside any number of other workers, until told to stop (SIGTERM, control drain).

    Example: flex-import worker --ledger postgresql://db.internal/imports
    """
    from worker.ledger.opening import require_driver

    require_driver("the command worker")
    from worker.cli.loading import configure
    from worker.cli.windowing import hours_of
    from worker.cli.working import attend

    limits = {"rate_per_second": rate, "concurrency": concurrency}
    settings = configure(config, ledger, {"limits": limits, "api": {"base_url": base_url}})
    hours = hours_of(settings.settings.limits, window)
    return attend(settings, hours, exit_when_empty=exit_when_empty, quiet=quiet, json_wanted=json)
