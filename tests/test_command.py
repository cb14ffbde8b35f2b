"""The real command in a process of its own, against the emulator on a real socket."""

import asyncio
import csv
import io
import json
import os
import pty
import re
import signal
import sqlite3
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from tests.commands import CREDENTIALS, HOLDING, QUICK, Ended, finish, flex_import, start
from tests.samples_of import sid
from worker.emulator import Behaviour, Emulator, Fault, after, serve
from worker.ledger.view import COLUMNS

HEADER = "interaction_sid,channel_sid,type,media_properties.address\n"


def csv_of(rows: int, channels: int = 1000, *, first: int = 0) -> str:
    """Return a file of well-formed rows."""
    lines = (
        f"{sid('KD', number % channels)},{sid('UO', number % channels)},customer,p{number}@example.com\n"
        for number in range(first, first + rows)
    )
    return HEADER + "".join(lines)


@pytest.fixture
async def service() -> AsyncIterator[tuple[Emulator, str]]:
    """An emulated service on loopback."""
    emulator = Emulator()
    async with serve(emulator) as base_url:
        yield emulator, base_url


async def run(folder: Path, base_url: str, *words: str | Path, env: Mapping[str, str] = QUICK) -> Ended:
    """Run an import at full speed, with a settle time of a moment."""
    return await flex_import("run", *words, "--base-url", base_url, "--rate", "inf", cwd=folder, env=env)


def account_of(ended: Ended) -> dict[str, int]:
    """Return the account that a run printed: name → rows."""
    found = re.findall(r"^  ([a-z ]+?) +([\d,]+)", ended.out, re.MULTILINE)
    return {"failed": 0, **{name: int(count.replace(",", "")) for name, count in found}}


def states(folder: Path, ledger: str = "imports.db") -> dict[str, int]:
    """Return state → rows, read from the ledger's file itself."""
    connection = sqlite3.connect(folder / ledger)
    try:
        return dict(connection.execute("SELECT state, count(*) FROM rows GROUP BY state"))
    finally:
        connection.close()


async def test_an_import_ends_with_an_account_and_a_second_one_sends_nothing(
    tmp_path: Path, service: tuple[Emulator, str]
) -> None:
    """The first run creates every row; the same command again sees that all is done, in any order of the file."""
    emulator, base_url = service
    (tmp_path / "a.csv").write_text(csv_of(300, 40))
    ended = await run(tmp_path, base_url, "a.csv")
    assert ended.code == 0, ended.err
    assert "300 = the sum of the lines above" in ended.out
    assert ended.out.splitlines()[-1] == "run 1 finished, exit 0: 300 rows = 300 created; identity holds"
    header, *lines = csv_of(300, 40).splitlines(keepends=True)
    (tmp_path / "a.csv").write_text(header + "".join(sorted(lines)))
    ended = await run(tmp_path, base_url, "a.csv")
    assert ended.code == 0
    assert "Everything was already done" in ended.out
    assert emulator.stats.created == emulator.stats.arrived == 300
    assert emulator.stats.max_in_flight_in_a_channel == 1


async def test_the_crosswalk_is_what_the_service_really_made(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """Each exported key leads to the sid of the participant that this very row made."""
    emulator, base_url = service
    (tmp_path / "config.toml").write_text('[source]\nkey = "row:{id}"\n')
    rows = csv_of(50, 7).replace(HEADER, "id," + HEADER).splitlines(keepends=True)
    (tmp_path / "a.csv").write_text(rows[0] + "".join(f"{number},{line}" for number, line in enumerate(rows[1:])))
    assert (await run(tmp_path, base_url, "a.csv")).code == 0
    exported = await flex_import("export", "--state", "created", "-o", "ids.csv", cwd=tmp_path)
    assert exported.code == 0, exported.err
    made = {one.sid: one.media_properties["address"] for one in emulator.participants}
    with (tmp_path / "ids.csv").open() as stream:
        found = {line["key"]: made[line["sid"]] for line in csv.DictReader(stream)}
    assert found == {f"row:{number}": f"p{number}@example.com" for number in range(50)}


async def test_exports_have_the_contracts_columns_in_both_formats(
    tmp_path: Path, service: tuple[Emulator, str]
) -> None:
    """CSV and NDJSON say the same, with null for what is absent."""
    emulator, base_url = service
    (tmp_path / "a.csv").write_text(csv_of(3) + "too,few\n")
    emulator.script_next(after(Fault.NULL_SID))
    await run(tmp_path, base_url, "a.csv", env=HOLDING)
    as_csv = await flex_import("export", cwd=tmp_path)
    as_json = await flex_import("export", "--format", "ndjson", "-o", "-", cwd=tmp_path)
    table = list(csv.DictReader(io.StringIO(as_csv.out)))
    objects = [json.loads(line) for line in as_json.out.splitlines()]
    assert as_csv.out.splitlines()[0] == ",".join(COLUMNS)
    assert [list(one) for one in objects] == [list(COLUMNS)] * 4
    assert [one["state"] for one in table] == [one["state"] for one in objects]
    assert sorted(one["state"] for one in objects) == ["created", "created", "in_doubt", "rejected"]
    rejected = next(one for one in objects if one["state"] == "rejected")
    assert (rejected["key"], rejected["sid"], rejected["line"]) == (None, None, 5)
    assert rejected["reconciled"] is False


async def test_stdin_is_read_to_its_end(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """A pipe of NDJSON is an input like any other, only its length is unknown."""
    emulator, base_url = service
    lines = [
        json.dumps(
            {
                "interaction_sid": sid("KD", number),
                "channel_sid": sid("UO", number),
                "type": "agent",
                "media_properties": {"identity": f"a{number}"},
            }
        )
        for number in range(20)
    ]
    process = await start("run", "-", "--base-url", base_url, "--rate", "inf", "--json", cwd=tmp_path, stdin=PIPE)
    ended = await finish(process, "\n".join(lines).encode() + b"\n")
    account = json.loads(ended.out)
    assert (account["input_rows"], account["read"], account["created"], account["unread"]) == (None, 20, 20, 0)
    assert account["identity_holds"] is True
    assert emulator.stats.created == 20


async def test_a_pipe_that_breaks_off_inside_a_record_is_not_taken_for_whole(
    tmp_path: Path, service: tuple[Emulator, str]
) -> None:
    """Its producer may be dead: the run halts (exit 3), sends no half record, and the whole input settles all."""
    emulator, base_url = service
    whole = csv_of(3)
    cut = whole.rstrip()[:-1].encode()  # the last value lacks a character, and would do

    async def piped(command: str, content: bytes) -> Ended:
        process = await start(command, "-", "--base-url", base_url, cwd=tmp_path, env=QUICK, stdin=PIPE)
        return await finish(process, content)

    for content in (cut, whole.rstrip().encode()):
        ended = await piped("run", content)
        assert ended.code == 3, ended.err
        assert "tdin: line 4: the last line has no line end" in ended.out
        assert "{ COMMAND; echo; } | flex-import" in " ".join(ended.out.split())
        assert emulator.stats.created <= 2
    assert (await piped("run", whole.rstrip().encode() + b"\n")).code == 0
    assert states(tmp_path) == {"created": 3}
    assert emulator.stats.created == 3


async def test_a_check_of_a_broken_pipe_is_refused(tmp_path: Path) -> None:
    """With the same words as a run has, and exit 2; a file that is redirected needs no last line end."""
    (tmp_path / "a.csv").write_text(csv_of(3).rstrip())
    process = await start("check", "-", cwd=tmp_path, stdin=PIPE)
    ended = await finish(process, csv_of(3).rstrip().encode())
    assert ended.code == 2
    assert "stdin: line 4: the last line has no line end" in ended.err
    with (tmp_path / "a.csv").open("rb") as redirected:
        process = await start("check", "-", cwd=tmp_path, stdin=redirected.fileno())
        ended = await finish(process)
    assert ended.code == 0, ended.err
    assert "3 rows" in ended.out


async def test_quiet_says_nothing_when_all_is_well_and_everything_otherwise(
    tmp_path: Path, service: tuple[Emulator, str]
) -> None:
    """Cron's contract."""
    _, base_url = service
    (tmp_path / "a.csv").write_text(csv_of(3))
    assert await run(tmp_path, base_url, "a.csv", "-q") == Ended(0, "", "")
    (tmp_path / "a.csv").write_text(csv_of(3) + "too,few\n")
    ended = await run(tmp_path, base_url, "a.csv", "-q")
    assert (ended.code, ended.err) == (1, "")
    assert "has 2 fields, the header has 4" in ended.out


async def test_a_limit_stops_with_exit_6_and_the_next_run_goes_on(
    tmp_path: Path, service: tuple[Emulator, str]
) -> None:
    """Ten rows first; then the rest, without the ten."""
    emulator, base_url = service
    (tmp_path / "a.csv").write_text(csv_of(30))
    ended = await run(tmp_path, base_url, "a.csv", "--limit", "10")
    assert ended.code == 6
    assert ended.out.startswith("Stopped after 10 rows, as --limit says.")
    assert states(tmp_path) == {"created": 10}
    assert (await run(tmp_path, base_url, "a.csv")).code == 0
    assert emulator.stats.arrived == 30


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=str
)
async def test_the_first_signal_drains(
    tmp_path: Path, service: tuple[Emulator, str], number: signal.Signals, code: int
) -> None:
    """What is in flight comes home, nothing is in doubt, and the exit code names the signal."""
    emulator, base_url = service
    emulator.change(latency_seconds=0.3)
    (tmp_path / "a.csv").write_text(csv_of(5000))
    process = await start("run", "a.csv", "--base-url", base_url, "--rate", "inf", cwd=tmp_path, env=HOLDING)
    await emulator.until(lambda: emulator.stats.created >= 16)
    process.send_signal(number)
    ended = await finish(process)
    assert ended.code == code
    assert "Stopping: " in ended.err
    assert f"Stopped by {number.name}. Nothing lost." in ended.out
    found = states(tmp_path)
    assert found.pop("created") == emulator.stats.created
    assert set(found) <= {"failed"}, "rows whose intent was on record were called back"
    assert account_of(ended)["failed"] == 0


async def test_the_second_signal_cuts_and_leaves_doubts(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """Who will not wait gets at most `concurrency` rows in doubt, and they are recorded as such."""
    emulator, base_url = service
    emulator.change(latency_seconds=30.0)
    (tmp_path / "a.csv").write_text(csv_of(500))
    words = ("run", "a.csv", "--base-url", base_url, "--rate", "inf", "--concurrency", "5")
    process = await start(*words, cwd=tmp_path, env=HOLDING)
    await emulator.until(lambda: emulator.stats.in_flight == 5)
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    while b"Stopping" not in await process.stderr.readline():
        pass
    process.send_signal(signal.SIGTERM)
    ended = await finish(process)
    assert ended.code == 143
    assert states(tmp_path) == {"in_doubt": 5}
    assert "5 in doubt" in ended.out.splitlines()[-1]
    assert "identity holds" in ended.out.splitlines()[-1]


async def test_the_grace_ends(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """A service that hangs cannot hold a drain for longer than stop.grace_seconds."""
    emulator, base_url = service
    emulator.change(latency_seconds=30.0)
    (tmp_path / "config.toml").write_text("[stop]\ngrace_seconds = 0.2\n")
    (tmp_path / "a.csv").write_text(csv_of(5))
    process = await start("run", "a.csv", "--base-url", base_url, "--rate", "inf", cwd=tmp_path, env=HOLDING)
    await emulator.until(lambda: emulator.stats.in_flight == 5)
    process.send_signal(signal.SIGINT)
    assert (await finish(process)).code == 130
    assert states(tmp_path) == {"in_doubt": 5}


async def test_a_killed_run_leaves_only_doubts_and_the_next_one_resolves_them_and_sends_the_rest(
    tmp_path: Path, service: tuple[Emulator, str]
) -> None:
    """Kill -9: what was in flight is in doubt and is not sent again; nothing is made twice."""
    emulator, base_url = service
    emulator.change(latency_seconds=0.02)
    (tmp_path / "a.csv").write_text(csv_of(400))
    process = await start("run", "a.csv", "--base-url", base_url, "--rate", "inf", cwd=tmp_path, env=QUICK)
    await emulator.until(lambda: emulator.stats.created >= 50)
    process.kill()
    await finish(process)
    await emulator.settled()
    ended = await run(tmp_path, base_url, "a.csv", "--json")
    account = json.loads(ended.out)
    assert ended.code == 0
    assert account["identity_holds"] is True
    assert account["already_done"] + account["created"] == 400
    addresses = [one.media_properties["address"] for one in emulator.participants]
    assert len(addresses) == len(set(addresses)) == 400


async def test_two_processes_do_not_share_a_ledger(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """The second one ends at once with exit 5 and names the first."""
    emulator, base_url = service
    emulator.change(latency_seconds=30.0)
    (tmp_path / "a.csv").write_text(csv_of(5))
    first = await start("run", "a.csv", "--base-url", base_url, "--rate", "inf", cwd=tmp_path, env=HOLDING)
    await emulator.until(lambda: emulator.stats.in_flight == 5)
    second = await run(tmp_path, base_url, "a.csv")
    looked = await flex_import("status", cwd=tmp_path)
    first.kill()
    await finish(first)
    assert second.code == 5
    assert f"process {first.pid} is working on this ledger" in second.err
    assert (looked.code, "run, running since" in looked.out) == (0, True)


async def test_two_first_runs_at_the_same_moment_make_one_ledger(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """Cron and a person: one of them works, the other is told so, or finds everything done; nothing is made twice."""
    emulator, base_url = service
    (tmp_path / "a.csv").write_text(csv_of(60))
    words = ("run", "a.csv", "--base-url", base_url, "--rate", "100")
    ended = await asyncio.gather(*(flex_import(*words, cwd=tmp_path, env=QUICK) for _ in range(3)))
    assert {one.code for one in ended} <= {0, 5}, [one.err for one in ended]
    assert 0 in {one.code for one in ended}
    assert all("exit 5, nothing was sent" in one.err for one in ended if one.code == 5)
    assert states(tmp_path) == {"created": 60}
    assert emulator.stats.created == 60


async def test_the_rate_is_never_exceeded(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """Counted by the service: no second sees more than the configured rate and the one that begins it."""
    emulator, base_url = service
    (tmp_path / "a.csv").write_text(csv_of(150))
    ended = await flex_import("run", "a.csv", "--base-url", base_url, "--rate", "50/s", cwd=tmp_path, env=QUICK)
    assert ended.code == 0
    assert emulator.stats.busiest_second_arrived <= 52


async def test_a_throttling_service_gets_its_rows_later(tmp_path: Path) -> None:
    """429s are no failures: every row is created in the end, none is made twice."""
    emulator = Emulator(Behaviour(rate_per_second=50, retry_after_seconds=1))
    async with serve(emulator) as base_url:
        (tmp_path / "a.csv").write_text(csv_of(80))
        words = ("run", "a.csv", "--base-url", base_url, "--rate", "100", "--json")
        ended = await flex_import(*words, cwd=tmp_path, env=HOLDING)
    account = json.loads(ended.out)
    assert (ended.code, account["created"], emulator.stats.created) == (0, 80, 80)
    assert account["throttled"] == emulator.stats.throttled > 0


async def test_a_person_at_a_terminal_sees_a_display_and_the_account(
    tmp_path: Path, service: tuple[Emulator, str]
) -> None:
    """On a real terminal of 80 columns the display is drawn in place, and no line is wider."""
    _, base_url = service
    (tmp_path / "a.csv").write_text(csv_of(60))
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker", "run", "a.csv", "--base-url", base_url, "--rate", "60/s"),
        cwd=tmp_path,
        env={**CREDENTIALS, "PYTHONPATH": str(Path(__file__).parent.parent), "TERM": "xterm", "COLUMNS": "80"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb", buffering=0)
    )
    shown = b""
    try:
        while chunk := await reader.read(4096):
            shown += chunk
    except OSError:
        pass  # a terminal whose last process has gone
    assert await process.wait() == 0
    assert b"in flight" in shown
    assert b"Ctrl-C" in shown
    assert b"60 = the sum of the lines above" in shown


async def test_a_pipe_gets_plain_lines(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """Nothing is drawn into a pipe, and no secret or address shows."""
    _, base_url = service
    (tmp_path / "a.csv").write_text(csv_of(60))
    ended = await run(tmp_path, base_url, "a.csv")
    assert "\x1b" not in ended.out + ended.err
    assert "p1@example.com" not in ended.out + ended.err
    assert CREDENTIALS["TWILIO_AUTH_TOKEN"] not in ended.out + ended.err


async def test_the_emulator_command_serves_until_it_is_stopped(tmp_path: Path) -> None:
    """It prints its address, serves, and ends on a signal with exit 0."""
    process = await start("emulator", "--port", "0", "--rate", "1000", cwd=tmp_path)
    assert process.stdout is not None
    base_url = (await process.stdout.readline()).decode().strip()
    (tmp_path / "a.csv").write_text(csv_of(5))
    assert (await run(tmp_path, base_url, "a.csv")).code == 0
    process.send_signal(signal.SIGTERM)
    assert (await finish(process)).code == 0


async def test_a_run_that_is_asked_says_how_far_it_is_even_when_it_is_quiet(tmp_path: Path) -> None:
    """SIGUSR1 is a question, and ends nothing."""
    emulator = Emulator(Behaviour(latency_seconds=0.05))
    async with serve(emulator) as base_url:
        (tmp_path / "a.csv").write_text(csv_of(400, 400))
        words = ("run", "-q", "a.csv", "--base-url", base_url, "--concurrency", "2", "--rate", "inf")
        process = await start(*words, cwd=tmp_path, env=QUICK)
        await emulator.until(lambda: emulator.stats.created >= 5)
        process.send_signal(signal.SIGUSR1)
        assert process.stderr is not None
        line = (await process.stderr.readline()).decode()
        assert re.fullmatch(r"\d\d:\d\d run 1: [\d,]+/400 rows, [\d,]+ created, [\d.]+/s, no limit.*\n", line)
        process.send_signal(signal.SIGTERM)
        ended = await finish(process)
    assert ended.code == 143


@pytest.mark.parametrize("words", [("a.csv", "b.csv"), ("-",)])
async def test_an_input_with_too_few_rows_is_not_sent(
    tmp_path: Path, service: tuple[Emulator, str], words: tuple[str, ...]
) -> None:
    """Twelve rows instead of five thousand: files are counted first, of stdin no row leaves before there are enough."""
    emulator, base_url = service
    (tmp_path / "a.csv").write_text(csv_of(5))
    (tmp_path / "b.csv").write_text(csv_of(7, first=5))
    code = 3 if words == ("-",) else 2
    for least, expected in ((13, code), (12, 0)):
        env = {**QUICK, "FLEX_IMPORT__SOURCE__MIN_ROWS": str(least)}
        given = ("run", *words, "--base-url", base_url)
        process = await start(*given, cwd=tmp_path, env=env, stdin=PIPE)
        ended = await finish(process, csv_of(12).encode())
        assert ended.code == expected, ended.err
        if expected:
            assert "12 rows" in ended.out + ended.err
            assert "source.min_rows" in ended.out + ended.err
            assert emulator.stats.arrived == 0
    assert emulator.stats.created == 12
    env = {"FLEX_IMPORT__SOURCE__MIN_ROWS": "13"}
    assert (await flex_import("check", "a.csv", "b.csv", cwd=tmp_path, env=env)).code == 2
