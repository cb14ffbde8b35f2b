"""`report`: everything about an import on one page, for whoever reads about it the next day."""

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, tzinfo
from math import inf
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from worker import __version__
from worker.cli.configuring import masked_settings
from worker.cli.exporting import opened, refuse_ledger
from worker.cli.loading import configure
from worker.cli.telling import masked, placed, shown, tell
from worker.cluster import Cluster
from worker.config import Config, as_toml, as_toml_key
from worker.errors import ConfigError
from worker.ledger.view import Run, View
from worker.model import BUCKETS, Exit
from worker.page import Content, Decision, Doubt, Group, RunLine, Sample, render
from worker.place import Place
from worker.wording import Given

_LISTED = 50
_BAD = ("rejected", "parked", "failed", "errored", "missing")


def write_report(config_file: Path | None, ledger: Place | None, output: str) -> int:
    """Write the page; returns exit code 0. It appears when it is whole, for its owner only.

    Raises LedgerRefusedError without a ledger, ConfigError for a file that cannot be written.
    """
    if not output:
        raise ConfigError("--output: is empty: is a variable not set?")
    config = configure(config_file, ledger, {})
    refuse_ledger(output, config.ledger_path)
    with View(config.ledger_path) as view, opened(output) as stream:
        stream.write(render(_gather(config, view)))
    if output != "-":
        tell(f"{shown(str(Path(output).absolute()))}: open it in a browser")
    return Exit.DONE


def _gather(config: Config, view: View) -> Content:
    runs = list(view.runs())
    accounts = {run.number: json.loads(run.summary) if run.summary else {} for run in runs}
    balances = (accounts[run.number] for run in reversed(runs))
    last = next((one for one in balances if "identity_holds" in one), None)  # an enqueue has read rows, and sent none
    bound = view.binding()
    doubts = view.in_doubt()
    decided, decisions = view.decisions(_LISTED)
    return Content(
        ledger=shown(str(config.ledger_path)),
        target=bound.get("target", "no target yet"),
        account=masked(bound.get("account")).removeprefix("account "),
        version=__version__,
        made_at=time.time(),
        zone=_zone(config),
        counts=view.counts(),
        last_account=_rows(last) if last else None,
        identity_holds=bool(last["identity_holds"]) if last else None,
        runs=[_line(run, accounts[run.number], view) for run in runs],
        groups=[
            Group(one.short, one.rows, one.state, one.why, _advice(one, config.given), one.where)
            for one in placed(view.clusters())
        ],
        doubts_total=len(doubts),
        doubts=[
            Doubt(one.key, shown(one.place), one.channel_sid, one.reason, one.candidates) for one in doubts[:_LISTED]
        ],
        decisions_total=decided,
        decisions=[Decision(one.at / 1000, one.by, one.key, one.decision, one.detail) for one in decisions],
        settings=[(as_toml_key(*one.path), as_toml(one.value)) for one in masked_settings(config)],
    )


def _advice(group: Cluster, given: Given) -> str:
    command = group.command(given)
    return f"{group.advice}: {command}" if command else group.advice


def _zone(config: Config) -> tzinfo:
    limits = config.settings.limits
    here = datetime.now().astimezone().tzinfo
    return ZoneInfo(limits.timezone) if limits.timetable or here is None else here


def _rows(account: Mapping[str, Any]) -> dict[str, int]:
    names = ("read", *BUCKETS, "unread", "input_rows")
    return {name: int(account[name]) for name in names if account.get(name) is not None}


def _line(run: Run, account: Mapping[str, Any], view: View) -> RunLine:
    return RunLine(
        run.number,
        run.command,
        run.started_at / 1000,
        None if run.ended_at is None else run.ended_at / 1000,
        run.exit_code,
        run.reason or "",
        requests=account.get("requests", 0),
        created=0 if run.command == "undo" else account.get("created", 0),
        bad=sum(account.get(name, 0) for name in _BAD),
        in_doubt=account.get("in_doubt", 0),
        rows_per_second=account.get("rows_per_second", 0.0),
        samples=_samples(run, view),
    )


def _samples(run: Run, view: View) -> Sequence[Sample]:
    return [
        Sample(
            at / 1000,
            one.created,
            one.settled,
            one.requests,
            one.retries,
            one.throttled,
            one.in_flight,
            inf if one.rate is None else one.rate,
            one.slots,
            one.p50,
            one.p90,
            one.p99,
        )
        for at, one in view.samples(run.number)
    ]
