"""What Prometheus is told: in a file, on a port, through a gateway; and what is never told."""

import re
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml
from aiohttp import ClientSession, web
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.commands import CREDENTIALS, QUICK, ROOT, Ended, finish, flex_import, start
from tests.test_command import csv_of
from worker import metrics as room
from worker.config import MetricsSettings, load
from worker.emulator import Behaviour, Emulator, serve
from worker.errors import ConfigError
from worker.latency import Percentiles
from worker.metrics import Metrics, Queue, Reading, serving
from worker.model import Tally

PAGE = (ROOT / "docs" / "metrics.md").read_text()
ALERTS = ROOT / "samples" / "deploy" / "alerts.yml"
GATEWAY = "http://user:hunter2@127.0.0.1:9"


def reading(**counts: int) -> Reading:
    """Return a run in which these rows have their places."""
    tally = Tally(input_rows=9, read=sum(counts.values()), requests=7, retries=2, throttled=1, in_flight=3)
    tally.last_request = 123.0
    for name, count in counts.items():
        setattr(tally, name, count)
    return Reading(2, "run", "1.0", 100.0, tally, float("inf"), 16, Percentiles(0.1, 0.2, 0.3), Queue(900, 5, 3, 1, 2))


def told(text: str) -> dict[str, float]:
    """Return name with labels → value of everything that was told."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = "".join(f"{{{value}}}" for value in sample.labels.values())
            found[sample.name + labels] = sample.value
    return found


def metrics_of(textfile: Path | None = None, failures: list[str] | None = None, **settings: Any) -> Metrics:
    """Return the metrics of a run with two created rows and one in doubt."""
    known = [] if failures is None else failures
    metrics = Metrics(MetricsSettings(**settings), textfile, lambda key, reason: known.append(f"{key}: {reason}"))
    metrics.watch(lambda: reading(created=2, in_doubt=1))
    return metrics


def files_in(folder: Path) -> list[Path]:
    """Return what is in a folder."""
    return list(folder.iterdir())


def text_of(metrics: Metrics) -> str:
    """Return what is told now."""
    return generate_latest(metrics.registry).decode()


# ---- what is told ---------------------------------------------------------------------------------------------------


async def test_a_run_tells_its_account_its_limits_and_how_it_ended() -> None:
    """While it goes on that it does; afterwards when it ended, how, and after how long."""
    metrics = metrics_of()
    found = told(text_of(metrics))
    assert found["flex_import_rows{created}"] == 2
    assert found["flex_import_rows{in_doubt}"] == 1
    assert found["flex_import_rows{unread}"] == 6
    assert found["flex_import_input_rows"] == 9
    assert found["flex_import_requests_total"] == 7
    assert found["flex_import_rate_limit"] == float("inf")
    assert found["flex_import_answer_seconds{99}"] == 0.3
    assert found["flex_import_run_in_progress"] == 1
    assert [found[f"flex_import_{name}"] for name in ("queued_rows", "left_rows", "workers")] == [900, 5, 2]
    assert (found["flex_import_chunks{waiting}"], found["flex_import_chunks{taken}"]) == (3, 1)
    assert "flex_import_last_run_exit_code" not in found
    await metrics.finish(4, 12.5)
    found = told(text_of(metrics))
    assert (found["flex_import_last_run_exit_code"], found["flex_import_last_run_duration_seconds"]) == (4, 12.5)
    assert found["flex_import_run_in_progress"] == 0
    assert "flex_import_last_success_timestamp_seconds" not in found


async def test_every_metric_is_documented_and_every_alert_is_about_one() -> None:
    """The table has what is told, and the alerts ask for nothing else."""
    metrics = metrics_of()
    await metrics.finish(0, 1.0)
    names = {re.sub(r"\{.*", "", name) for name in told(text_of(metrics))}
    assert len(names) == 21
    for name in names:
        assert f"`{name}`" in PAGE, name
    asked = set(re.findall(r"flex_import_\w+", ALERTS.read_text()))
    assert asked <= names
    assert len(asked) >= 6


def test_the_alerts_are_rules_that_say_what_to_do() -> None:
    """Each has an expression, a severity, and a first step for whoever is woken."""
    [group] = yaml.safe_load(ALERTS.read_text())["groups"]
    assert len(group["rules"]) == 9
    for rule in group["rules"]:
        assert rule["alert"].startswith("FlexImport")
        assert rule["expr"]
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert set(rule["annotations"]) == {"summary", "runbook"}


def promtool(*words: str, given: str = "") -> "subprocess.CompletedProcess[str]":
    """Run Prometheus' own tool."""
    return subprocess.run(["promtool", *words], input=given, capture_output=True, text=True, check=False)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs Prometheus' promtool, which is not installed here")
async def test_prometheus_own_tool_finds_nothing_wrong() -> None:
    """Neither with the rules nor with the names."""
    checked = promtool("check", "rules", str(ALERTS))
    assert (checked.returncode, "9 rules found" in checked.stdout) == (0, True), checked.stderr
    metrics = metrics_of()
    await metrics.finish(0, 1.0)
    checked = promtool("check", "metrics", given=text_of(metrics))
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


# ---- the file -------------------------------------------------------------------------------------------------------


async def test_the_file_is_whole_at_any_moment_and_new_every_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is replaced, never written into, and for everybody to read."""
    monkeypatch.setattr(room, "SECONDS", 0.01)
    path = tmp_path / "flex.prom"
    metrics = metrics_of(path)
    seen: set[int] = set()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(metrics.keep)
        while len(seen) < 3:
            await anyio.sleep(0.005)
            seen |= {found.stat().st_ino for found in files_in(tmp_path) if found.suffix == ".prom"}
        tasks.cancel_scope.cancel()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert told(path.read_text())["flex_import_rows{created}"] == 2


async def test_nothing_is_left_beside_the_file(tmp_path: Path) -> None:
    """node_exporter reads a folder."""
    await metrics_of(tmp_path / "flex.prom").finish(0, 1.0)
    assert [one.name for one in files_in(tmp_path)] == ["flex.prom"]


async def test_a_run_that_fails_does_not_forget_the_last_success(tmp_path: Path) -> None:
    """Otherwise nobody would be told that none has succeeded for a day; a success is remembered from its end on."""
    path = tmp_path / "flex.prom"
    before = time.time()
    await metrics_of(path).finish(0, 1.0)
    first = told(path.read_text())["flex_import_last_success_timestamp_seconds"]
    assert before <= first <= time.time()
    await metrics_of(path).finish(3, 1.0)
    found = told(path.read_text())
    assert found["flex_import_last_success_timestamp_seconds"] == first
    assert found["flex_import_last_run_exit_code"] == 3


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"no metrics {", b"flex_import_last_success x\n"])
async def test_a_file_that_makes_no_sense_is_replaced(tmp_path: Path, content: bytes) -> None:
    """It is ours, and it says nothing."""
    path = tmp_path / "flex.prom"
    path.write_bytes(content)
    await metrics_of(path).finish(1, 1.0)
    assert told(path.read_text())["flex_import_last_run_exit_code"] == 1


async def test_what_cannot_be_delivered_is_said_once(tmp_path: Path) -> None:
    """And the run goes on; no password is said."""
    failures: list[str] = []
    metrics = metrics_of(tmp_path / "gone" / "flex.prom", failures, pushgateway=GATEWAY)
    for _ in range(3):
        await metrics.finish(0, 1.0)
    assert len(failures) == 2
    assert failures[0] == "metrics.textfile: No such file or directory"
    assert failures[1].startswith("metrics.pushgateway: ")
    assert "hunter2" not in "".join(failures)


# ---- the gateway and the port ---------------------------------------------------------------------------------------


@asynccontextmanager
async def gateway() -> AsyncIterator[tuple[str, list[tuple[str, str, str, dict[str, float]]]]]:
    """Be a Pushgateway on loopback; yield its address, and what it is told: method, path, who, metrics."""
    heard: list[tuple[str, str, str, dict[str, float]]] = []

    async def answer(request: web.Request) -> web.Response:
        body = (await request.read()).decode()
        heard.append((request.method, request.path, request.headers.get("Authorization", ""), told(body)))
        return web.Response(status=202)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}", heard
    finally:
        await runner.cleanup()


async def test_a_gateway_keeps_what_is_not_told_again() -> None:
    """POST adds: the last success of an earlier run stays; PUT would erase it."""
    async with gateway() as (address, heard):
        metrics = metrics_of(pushgateway=f"http://user:hunter2@{address}")
        await metrics.finish(3, 1.0)
    [(method, path, authorization, found)] = heard
    assert (method, path.startswith("/metrics/job/flex_import/instance/")) == ("POST", True)
    assert authorization == "Basic dXNlcjpodW50ZXIy"
    assert found["flex_import_last_run_exit_code"] == 3
    assert "flex_import_last_success_timestamp_seconds" not in found


def test_a_port_that_is_taken_is_named() -> None:
    """Before anything is sent."""
    metrics = metrics_of()
    with _listening() as port, pytest.raises(ConfigError, match=rf"metrics\.port: {port} of 127\.0\.0\.1"):  # noqa: SIM117
        with serving(MetricsSettings(port=port), metrics):
            pass


@contextmanager
def _listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


# ---- the command ----------------------------------------------------------------------------------------------------


async def run(folder: Path, base_url: str, **settings: str) -> Ended:
    """Run an import with these metrics."""
    env = {**QUICK, **{f"FLEX_IMPORT__METRICS__{name.upper()}": value for name, value in settings.items()}}
    return await flex_import("run", "a.csv", "--base-url", base_url, "--rate", "inf", cwd=folder, env=env)


async def test_a_real_run_leaves_a_file_and_tells_a_gateway(tmp_path: Path) -> None:
    """Both with its account, and with nothing about any row."""
    (tmp_path / "a.csv").write_text(csv_of(50, 50))
    async with serve(Emulator()) as base_url, gateway() as (address, heard):
        ended = await run(tmp_path, base_url, textfile=str(tmp_path / "flex.prom"), pushgateway=f"http://{address}")
    assert ended.code == 0, ended.err
    text = (tmp_path / "flex.prom").read_text()
    assert told(text)["flex_import_rows{created}"] == heard[-1][3]["flex_import_rows{created}"] == 50
    assert told(text)["flex_import_last_run_exit_code"] == 0
    for private in ("@example.com", "KD", "UO", *CREDENTIALS.values()):
        assert private not in text


async def test_a_run_is_asked_on_its_port_while_it_goes_on(tmp_path: Path) -> None:
    """On this machine alone."""
    (tmp_path / "a.csv").write_text(csv_of(300, 300))
    emulator = Emulator(Behaviour(latency_seconds=0.1))
    with _listening() as free:
        pass
    async with serve(emulator) as base_url, ClientSession() as client:
        env = {**QUICK, "FLEX_IMPORT__METRICS__PORT": str(free)}
        process = await start("run", "a.csv", "--base-url", base_url, "--concurrency", "4", cwd=tmp_path, env=env)
        await emulator.until(lambda: emulator.stats.created >= 8)
        async with client.get(f"http://127.0.0.1:{free}/metrics") as answer:
            found = told(await answer.text())
        process.terminate()
        await finish(process)
    assert found["flex_import_run_in_progress"] == 1
    assert found["flex_import_requests_total"] >= 8


async def test_a_gateway_that_is_not_there_is_a_warning(tmp_path: Path) -> None:
    """The run ends as it would have, and soon."""
    (tmp_path / "a.csv").write_text(csv_of(5, 5))
    async with serve(Emulator()) as base_url:
        ended = await run(tmp_path, base_url, pushgateway=GATEWAY)
    assert ended.code == 0
    assert "metrics.undelivered" in ended.err
    assert "hunter2" not in ended.err + ended.out


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("textfile", "flex.txt", "must end with .prom"),
        ("port", "70000", "must be at most 65535"),
        ("pushgateway", "ftp://user:hunter2@x", "must be an http:// or https:// address"),
        ("pushgateway", "http://[hunter2", "must be an http:// or https:// address"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(key: str, value: str, says: str) -> None:
    """With its key, and without what it says of a password."""
    with pytest.raises(ConfigError) as caught:
        load(None, {"metrics": {key: value}}, {})
    assert f"metrics.{key}" in str(caught.value)
    assert says in str(caught.value)
    assert "hunter2" not in str(caught.value)


async def test_a_folder_that_is_not_there_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    """Exit 2, and no ledger is made."""
    (tmp_path / "a.csv").write_text(csv_of(5, 5))
    emulator = Emulator()
    async with serve(emulator) as base_url:
        ended = await run(tmp_path, base_url, textfile="absent/flex.prom")
    assert (ended.code, emulator.stats.arrived) == (2, 0)
    assert "metrics.textfile: " in ended.err
    assert not (tmp_path / "imports.db").exists()
