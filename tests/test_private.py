"""What belongs to people, and what opens doors, is nowhere that it should not be: not in a log, not in a traceback."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

from tests.commands import ROOT, Ended, finish, flex_import
from tests.samples_of import sid
from worker.emulator import Answer, Emulator, Fault, after, before, serve, throttled

SECRETS = {
    "TWILIO_ACCOUNT_SID": "AC" + "5ec4e7" * 5 + "00",
    "TWILIO_API_KEY": "SK" + "5ec4e7" * 5 + "11",
    "TWILIO_API_SECRET": "sesame-opens-this",
}
DOORS = ("sesame-opens-this", "hunter2", "c2VzYW1l", SECRETS["TWILIO_ACCOUNT_SID"])
PEOPLE = ("Ermintrude", "Quackenbush", "7700900123", "Sherringham", "Elderflower")

HEADER = "interaction_sid,channel_sid,type,media_properties,routing_properties,note\n"


def media(number: int, **others: str) -> str:
    """Return what a participant is, quoted for CSV."""
    value = {
        "name": "Ermintrude Quackenbush",
        "address": f"ermintrude.q+{number}@quackenbush.example",
        "phone": "+447700900123",
        "street": "4 Elderflower Lane, Sherringham",
        **others,
    }
    return '"' + json.dumps(value).replace('"', '""') + '"'


def write(path: Path) -> None:
    """Write rows in which everything goes wrong that can."""
    rows = [f"{sid('KD', n)},{sid('UO', n)},customer,{media(n)},,Ermintrude\n" for n in range(60)]
    rows += [
        f"{sid('KD', 70)},Quackenbush,customer,{media(70)},,x\n",
        f"{sid('KD', 71)},{sid('UO', 71)},Ermintrude,{media(71)},,x\n",
        f"{sid('KD', 72)},{sid('UO', 72)},customer,Ermintrude Quackenbush,,x\n",
        f"{sid('KD', 73)},{sid('UO', 73)},customer,{media(73)},Sherringham,x\n",
        f"{sid('KD', 74)},{sid('UO', 74)},customer,{media(74, address='4.47E+11')},,x\n",
        f"{sid('KD', 75)},{sid('UO', 75)},customer,{media(75, address='Ermintrude')},,x\n",
        "Ermintrude,Quackenbush\n",
        rows[0],
        f"{sid('KD', 76)},{sid('UO', 76)},customer,{media(76)},,x,Sherringham,Elderflower\n",
    ]
    path.write_text(HEADER + "".join(rows), encoding="utf-8")
    path.with_name("config.toml").write_text('[mapping]\nmedia_properties = "{media_properties}"\n')


def rude(emulator: Emulator) -> None:
    """Let the service throttle, fail, and repeat what it was told in its errors."""
    message = 'Ermintrude Quackenbush at "4 Elderflower Lane, Sherringham" (+447700900123) is unwelcome'
    for number, code in ((1, 45004), (2, 59999), (3, 20001), (4, 45354), (5, 20403)):
        status = 403 if code == 20403 else 400
        emulator.script(sid("UO", number), before(Answer(status=status, code=code, message=message)))
    emulator.script(sid("UO", 6), throttled(), throttled())
    emulator.script(sid("UO", 7), after(Fault.RESET))
    emulator.script(sid("UO", 8), after(Fault.GARBAGE))
    emulator.script(sid("UO", 9), *[before(Fault.UNAVAILABLE)] * 2)
    emulator.script(sid("UO", 10), before(Answer(status=409, code=20409, message=message)))


def refuse(text: str, where: str) -> None:
    """Fail when something is told that must not be."""
    for private in (*PEOPLE, *DOORS):
        assert private.lower() not in text.lower(), f"{private} in {where}"


def read_all(folder: Path, *suffixes: str) -> dict[str, str]:
    """Return the text of the files with these suffixes."""
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir() if path.suffix in suffixes}


async def test_nothing_that_is_told_about_a_faulty_import_is_anybodys(tmp_path: Path) -> None:
    """Screen, log at its most talkative, JSON, groups, report and metrics, of the run and of every look at it."""
    write(tmp_path / "a.csv")
    env = {
        **SECRETS,
        "FLEX_IMPORT__LOG__FILE": "run.log",
        "FLEX_IMPORT__LOG__LEVEL": "debug",
        "FLEX_IMPORT__METRICS__TEXTFILE": "flex.prom",
        "FLEX_IMPORT__METRICS__PUSHGATEWAY": "http://user:hunter2@127.0.0.1:9",
        "FLEX_IMPORT__DOUBT__SETTLE_SECONDS": "0.2",
        "FLEX_IMPORT__LIMITS__LIST_RATE_PER_SECOND": "inf",
        "FLEX_IMPORT__RETRY__INITIAL_SECONDS": "0.01",
    }
    emulator = Emulator()
    rude(emulator)
    told: dict[str, Ended] = {}
    async with serve(emulator) as base_url:
        for words in (
            ("check", "a.csv"),
            ("check", "a.csv", "--json", "--strict"),
            ("doctor", "--base-url", base_url),
            ("run", "a.csv", "--base-url", base_url, "--rate", "200"),
            ("run", "a.csv", "--base-url", base_url, "--json"),
            ("retry", "--base-url", base_url),
            ("reconcile", "--base-url", base_url),
            *(("status",), ("status", "--json"), ("history",), ("failures",), ("failures", "--json")),
            *(("failures", "--state", "in_doubt"), ("config", "show"), ("ledger", "info"), ("report",), ("export",)),
            *(("verify", "--base-url", base_url), ("verify", "--json", "--base-url", base_url)),
            ("undo", "--run", "1", "--yes", "--base-url", base_url),
        ):
            told[" ".join(words)] = await flex_import(*words, cwd=tmp_path, env=env)
    assert [ended.code for line, ended in told.items() if line.startswith("run")] == [1, 1]
    for line, ended in told.items():
        refuse(ended.out, f"the output of {line}")
        refuse(ended.err, f"what {line} says beside it")
    files = read_all(tmp_path, ".log", ".html", ".prom")
    assert set(files) == {"run.log", "report.html", "flex.prom"}
    for name, text in files.items():
        refuse(text, name)
    events = [json.loads(line) for line in files["run.log"].splitlines()]
    kinds = {event["event"] for event in events}
    assert {"retry.scheduled", "row.settled", "run.finished", "metrics.undelivered"} <= kinds
    settled = [event for event in events if event["event"] == "row.settled"]
    assert all({"run", "key", "line", "channel", "request_id"} <= event.keys() for event in settled)
    assert sum(event["event"] == "run.finished" for event in events) == 7


BUG = """
import sys
from worker import pipeline
from worker.cli import main

def broken(self, row, outcome, *, answered):
    name = "Ermintrude Quackenbush"
    raise ValueError(f"{name}: {row.text}") from KeyError(row.body.decode())

pipeline.Pipeline._heed = broken
main(sys.argv[1:])
"""


async def test_a_bugs_traceback_shows_where_it_is_and_not_whose_row_it_was(tmp_path: Path) -> None:
    """On the screen and in the log: exit 70, the place in the code, and no word of the row."""
    write(tmp_path / "a.csv")
    async with serve(Emulator()) as base_url:
        inherited = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "HOME", "LANG"))}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", BUG, "run", "a.csv", "--base-url", base_url, "--rate", "inf"),
            cwd=tmp_path,
            env={**inherited, **SECRETS, "PYTHONPATH": str(ROOT), "FLEX_IMPORT__LOG__FILE": "run.log"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
        )
        ended = await finish(process)
    assert ended.code == 70
    log = read_all(tmp_path, ".log")["run.log"]
    for text in (ended.err, log):
        assert "ValueError" in text
        assert "pipeline.py" in text
        refuse(text, "a traceback")
    refuse(ended.out, "the output")
