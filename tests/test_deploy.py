"""The samples for schedules: checked by the tools that will read them, and against what flex-import really does."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands import ROOT
from worker.cli.app import app
from worker.config import Settings, load
from worker.model import Exit
from worker.place import Server

DEPLOY = ROOT / "samples" / "deploy"
UNITS = ("flex-import.service", "flex-import.timer")
GRACE = Settings().stop.grace_seconds
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze, which is not installed here"
)


def documents() -> list[dict[str, Any]]:
    """Return every object of the Kubernetes samples."""
    paths = [*sorted(DEPLOY.glob("*job*.yaml")), DEPLOY / "fleet.yaml"]
    return [one for path in paths for one in yaml.safe_load_all(path.read_text())]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and pod of each job, and of the workers."""
    for one in documents():
        if one["kind"] == "CronJob":
            yield one["metadata"]["name"], one["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        elif one["kind"] in {"Job", "Deployment"}:
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]


def command_lines() -> list[str]:
    """Return every command of flex-import in the samples, as the shell would see it."""
    found = []
    for name in ("crontab", "flex-import.service"):
        lines = [line for line in (DEPLOY / name).read_text().splitlines() if not line.startswith("#")]
        found += re.findall(r"flex-import (?:run|ledger)[^>&\n]*", "\n".join(lines))
    for _, pod in pods():
        [container] = pod["containers"]
        args = container["args"]
        found.append(args[0].removeprefix("exec ") if "command" in container else shlex.join(["flex-import", *args]))
    return [line.strip().rstrip("'") if line.count("'") % 2 else line.strip() for line in found]


def test_every_command_of_the_samples_can_be_parsed() -> None:
    """No schedule fails at night by a misspelt option."""
    lines = command_lines()
    assert len(lines) == 10
    for line in lines:
        app.parse_args(shlex.split(line)[1:], exit_on_error=False, print_error=False)


# ---- cron ------------------------------------------------------------------------------------------------------------


def test_the_nightly_line_hands_the_credentials_on(tmp_path: Path) -> None:
    """From the file of plain NAME=value lines that systemd and kubectl read too."""
    [line] = [one for one in (DEPLOY / "crontab").read_text().splitlines() if "flex-import run" in one]
    (tmp_path / "credentials.env").write_text("TWILIO_ACCOUNT_SID=AC1\n")
    told = tmp_path / "flex-import"
    told.write_text('#!/bin/sh\necho "$TWILIO_ACCOUNT_SID"\n')
    told.chmod(0o700)
    command = line.split(maxsplit=5)[5].replace("/etc/flex-import/credentials.env", f"{tmp_path}/credentials.env")
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    ended = subprocess.run(["/bin/sh", "-c", command], env=env, capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.returncode) == ("AC1\n", 0)


# ---- systemd --------------------------------------------------------------------------------------------------------


@needs_systemd
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    """Neither with the service nor with its timer."""
    program = tmp_path / "flex-import"
    program.touch(0o755)
    paths = [tmp_path / name for name in UNITS]
    for path in paths:
        path.write_text((DEPLOY / path.name).read_text().replace("/usr/local/bin/flex-import", str(program)))
    checked = subprocess.run(["systemd-analyze", "verify", *paths], capture_output=True, text=True, check=False)
    ours = [line for line in checked.stderr.splitlines() if "flex-import." in line]
    assert (checked.returncode, ours) == (0, [])


@needs_systemd
def test_the_service_is_hardened(tmp_path: Path) -> None:
    """Its exposure is below 3 of 10."""
    path = shutil.copy(DEPLOY / "flex-import.service", tmp_path)
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=30", path]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"exposure level for \S+: ([\d.]+)", checked.stdout)
    assert found is not None, checked.stderr
    assert float(found.group(1)) < 3
    assert checked.returncode == 0


def test_the_service_takes_a_stop_as_asked_for_a_success_and_leaves_time_to_drain() -> None:
    """6 is no failure, nor is a stop, and SIGTERM is given longer than the grace."""
    text = (DEPLOY / "flex-import.service").read_text()
    assert re.search(r"^SuccessExitStatus=6 143$", text, re.MULTILINE)
    found = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert found is not None
    assert int(found.group(1)) > GRACE


# ---- Kubernetes -----------------------------------------------------------------------------------------------------


def test_the_nightly_job_makes_of_each_exit_code_what_is_right() -> None:
    """Every code that flex-import can end with has its place; what would end the same is not tried again."""
    [cron] = [one for one in documents() if one["kind"] == "CronJob"]
    spec = cron["spec"]
    assert (spec["concurrencyPolicy"], spec["timeZone"]) == ("Forbid", "Europe/London")
    job = spec["jobTemplate"]["spec"]
    rules = job["podFailurePolicy"]["rules"]
    by_action = {rule["action"]: set(rule["onExitCodes"]["values"]) for rule in rules if "onExitCodes" in rule}
    assert by_action == {"FailJob": {1, 2, 4, 6, 70}, "Count": {3, 5, 129, 130, 143}}
    assert set().union(*by_action.values()) == {int(code) for code in Exit} - {0}
    names = {rule["onExitCodes"]["containerName"] for rule in rules if "onExitCodes" in rule}
    assert names == {container["name"] for container in job["template"]["spec"]["containers"]}
    assert rules[0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]


def test_the_samples_are_what_kubernetes_expects() -> None:
    """By its own schemas, where the package that has them is installed: they are too large for every test run."""
    package = pytest.importorskip("kubernetes_validate", reason="needs pip install kubernetes-validate")
    for one in documents():
        package.validate(one, "1.34", strict=True)


@pytest.mark.parametrize(("name", "pod"), list(pods()), ids=[name for name, _ in pods()])
def test_a_pod_may_do_as_little_as_it_can(name: str, pod: dict[str, Any]) -> None:
    """No rights, nothing to write but its volumes, time to drain, credentials from a secret."""
    assert name
    assert pod.get("restartPolicy") == (None if name == "flex-import-worker" else "Never")
    assert pod["terminationGracePeriodSeconds"] > GRACE
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["automountServiceAccountToken"] is False
    [container] = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["envFrom"] == [{"secretRef": {"name": "flex-import-credentials"}}]
    assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in pod["volumes"]}
    assert all(isinstance(word, str) for word in container["args"])


def test_the_config_of_the_map_is_one(tmp_path: Path) -> None:
    """It loads, and its ledger is on the volume."""
    config = config_map("flex-import")
    (tmp_path / "config.toml").write_text(config["data"]["config.toml"])
    found = load(tmp_path / "config.toml", {}, {})
    assert found.ledger_path == Path("/data/imports.db")
    assert found.settings.log.format == "json"
    [claim] = [one for one in documents() if one["kind"] == "PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]


def config_map(name: str) -> dict[str, Any]:
    """Return one of the samples' configs."""
    [found] = [one for one in documents() if one["kind"] == "ConfigMap" and one["metadata"]["name"] == name]
    return found


def test_the_workers_share_a_database_and_sleep_through_closed_hours(tmp_path: Path) -> None:
    """A Deployment starts again whatever ends, so they must not end each night."""
    (tmp_path / "config.toml").write_text(config_map("flex-import-fleet")["data"]["config.toml"])
    assert isinstance(load(tmp_path / "config.toml", {}, {}).ledger_path, Server)
    [workers] = [one for one in documents() if one["kind"] == "Deployment"]
    [container] = workers["spec"]["template"]["spec"]["containers"]
    assert container["args"][-1] == "--wait"
    assert workers["spec"]["selector"]["matchLabels"] == workers["spec"]["template"]["metadata"]["labels"]
    [budget] = [one for one in documents() if one["kind"] == "PodDisruptionBudget"]
    assert budget["spec"]["selector"] == workers["spec"]["selector"]


def test_the_compose_file_starts_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands can be parsed, its variables are settings, and its ledger is in its database."""
    found = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for name in ("worker", "enqueue"):
        service = found["services"][name]
        words = [*service.get("entrypoint", ["flex-import"]), *service.get("command", ["/inbox/export.csv"])]
        app.parse_args(words[1:], exit_on_error=False, print_error=False)
        for variable, value in service["environment"].items():
            monkeypatch.setenv(variable, value)
        place = load(None, {}, os.environ).ledger_path
        database = found["services"]["database"]["environment"]
        assert place == f"postgresql://{database['POSTGRES_USER']}@database/{database['POSTGRES_DB']}"
        built = DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]
        assert built.resolve() == DEPLOY / "Dockerfile"
    assert int(found["services"]["worker"]["stop_grace_period"].removesuffix("s")) > GRACE


# ---- the image ------------------------------------------------------------------------------------------------------


def test_the_image_is_made_of_what_is_here_and_runs_without_rights() -> None:
    """From the lock with its hashes; as a user with a number; every file that it copies exists."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    copied = [word for line in lines if line[0] == "COPY" and "--from=built" not in line for word in line[1:-1]]
    assert copied
    for name in copied:
        assert (ROOT / name).exists(), name
    assert [line[1] for line in lines if line[0] == "USER"] == ["10001:10001"]
    assert "--require-hashes -r requirements.lock" in text
    assert 'ENTRYPOINT ["flex-import"]' in text
    user = {pod["securityContext"]["runAsUser"] for _, pod in pods()}
    assert user == {10001}
