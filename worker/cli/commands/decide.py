"""The commands by which people decide."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from worker.cli.app import DECIDE, app
from worker.cli.parameter import (
    ANY_TIME,
    BaseUrl,
    Concurrency,
    ConfigFile,
    GroupIds,
    Json,
    LedgerFile,
    Quiet,
    Rate,
    WaiverReason,
    Window,
    Yes,
    flag,
)
from worker.errors import ConfigError


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
    from worker.cli.loading import configure

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
    force: Annotated[bool, flag("Take a sid that is no candidate, and not created before its time.")] = False,
) -> int:
    """Record your decision about rows in doubt, by key or the beginning of one.

    A sid is taken if failures shows it as a candidate of the row; any other one has to be confirmed.

    Example: flex-import resolve 164b10bd --not-created
    """
    from worker.cli.deciding import resolve_rows
    from worker.cli.loading import configure

    settings = configure(config, ledger, {"api": {"base_url": base_url}})
    return resolve_rows(keys, settings, created=created, not_created=not_created, file=file, force=force)


@app.command(group=DECIDE)
def waive(
    *, group: GroupIds, reason: WaiverReason, config: ConfigFile = None, ledger: LedgerFile = None, yes: Yes = False
) -> int:
    """Sign off the rows of a group: from now on they count as waived and are not sent. Shows them and asks first.

    Example: flex-import waive --group a07c --reason "test accounts"
    """
    from worker.cli.waiving import waive_groups

    return waive_groups(config, ledger, groups=group, reason=reason, yes=yes)


@app.command(group=DECIDE)
def unwaive(
    group: Annotated[str, Parameter(help="The group: its id as failures --state waived shows it.")],
    /,
    *,
    config: ConfigFile = None,
    ledger: LedgerFile = None,
) -> int:
    """Take a waiver back: the rows of the group get the state that they had before.

    Example: flex-import unwaive a07c
    """
    from worker.cli.waiving import unwaive_group

    return unwaive_group(config, ledger, group)


@app.command(group=DECIDE)
def verify(
    *,
    run: Annotated[int | None, Parameter(help="Only what this run created: its number in history.")] = None,
    sample: Annotated[int | None, Parameter(help="Only so many channels, drawn at random, the same each time.")] = None,
    config: ConfigFile = None,
    ledger: LedgerFile = None,
    base_url: BaseUrl = None,
    window: Window = ANY_TIME,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """List the channels of created rows and report which participants are in them; changes nothing in Flex.

    Example: flex-import verify --run 2
    """
    from worker.cli.loading import configure
    from worker.cli.verifying import Wish, verify_runs

    settings = configure(config, ledger, {"api": {"base_url": base_url}})
    return verify_runs(settings, window, Wish(run, sample, quiet, json))


@app.command(group=DECIDE)
def undo(
    *,
    run: Annotated[int | None, Parameter(help="Close what this run created: its number in history.")] = None,
    all_: Annotated[bool, flag("Close what any run created.", "--all")] = False,
    config: ConfigFile = None,
    ledger: LedgerFile = None,
    rate: Rate = None,
    concurrency: Concurrency = None,
    base_url: BaseUrl = None,
    yes: Yes = False,
    window: Window = ANY_TIME,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Close the participants that a run created, the newest of a channel first; run it again to finish it.

    Example: flex-import undo --run 2
    """
    from worker.cli.loading import configure
    from worker.cli.undoing import Wish, undo_runs

    if (run is None) == (not all_):
        raise ConfigError("undo: say whose participants are to be closed, --run N or --all")
    limits = {"rate_per_second": rate, "concurrency": concurrency}
    settings = configure(config, ledger, {"limits": limits, "api": {"base_url": base_url}})
    return undo_runs(settings, window, Wish(run, yes, quiet, json))


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
