"""`report`: a page about a real import, made by the real command, and looked at in a real browser."""

import re
import stat
from pathlib import Path

import pytest

from tests.browser import BROWSER, Tab
from tests.commands import CREDENTIALS, HOLDING, flex_import
from tests.ledger_contract import OUTCOMES, at_work
from tests.samples_of import sid
from tests.test_command import HEADER, csv_of
from tests.test_ledger_sqlite import SqlitePlace
from worker.cli import call
from worker.emulator import Answer, Behaviour, Emulator, Fault, after, before, serve
from worker.ledger import Decision, Settle
from worker.model import Failed, Settlement

SECRET = CREDENTIALS["TWILIO_AUTH_TOKEN"]


async def imported(folder: Path) -> None:
    """Import a file in which something of each kind goes wrong."""
    emulator = Emulator(Behaviour(latency_seconds=0.01))
    (folder / "config.toml").write_text('[api]\nproxy = "http://user:hunter2@127.0.0.1:9"\n')
    (folder / "a.csv").write_text(csv_of(60, 60) + f"{sid('KD', 1)},UOx,customer,grace@example.com\n")
    async with serve(emulator) as base_url:
        no = Answer(status=400, code=45004, message="heidi@example.com is not wanted")
        emulator.script(sid("UO", 3), before(no))
        emulator.script(sid("UO", 4), after(Fault.RESET))
        env = {**HOLDING, "FLEX_IMPORT__API__PROXY": ""}
        ended = await flex_import("run", "a.csv", "--base-url", base_url, "--rate", "60", cwd=folder, env=env)
    assert ended.code == 4, ended.err


async def test_a_report_tells_what_an_import_came_to_and_nothing_of_people(tmp_path: Path) -> None:
    """Totals, groups, doubts, the run and the settings; no address, no secret, no password of a proxy."""
    await imported(tmp_path)
    ended = await flex_import("report", cwd=tmp_path)
    assert (ended.code, ended.out) == (0, "report.html: open it in a browser\n")
    path = tmp_path / "report.html"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    page = path.read_text(encoding="utf-8")
    for text in ("61 = the sum of the lines", "58 of 61", "45004", "channel_sid", "exit 4", "limits.rate_per_second"):
        assert text in page, text
    assert len(re.findall(r'<svg[^>]* role="img"', page)) == 5
    for private in ("@example.com", "hunter2", SECRET, CREDENTIALS["TWILIO_ACCOUNT_SID"]):
        assert private not in page, private
    piped = await flex_import("report", "-o", "-", cwd=tmp_path)
    assert piped.out.startswith("<!DOCTYPE html>")


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium, which is not installed here")
async def test_the_report_of_a_real_import_works_in_a_browser(tmp_path: Path) -> None:
    """Nothing is complained about or asked for, the charts have something in them, and a phone need not scroll."""
    await imported(tmp_path)
    assert (await flex_import("report", cwd=tmp_path)).code == 0
    path = tmp_path / "report.html"
    async with Tab.opened(tmp_path / "profile") as tab:
        for width, theme in ((390, "light"), (1280, "dark")):
            await tab.show(path, width=width, theme=theme)
            assert await tab.value("document.documentElement.scrollWidth") == width
            assert await tab.value("document.querySelectorAll('svg[role=img] path[d^=M]').length") > 4
        assert tab.said == []
        assert set(tab.asked) == {path.as_uri()}


@pytest.mark.parametrize("name", ["imports.db", "imports.db-wal", ""])
def test_a_report_never_replaces_the_ledger(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That would be the end of every promise."""
    SqlitePlace(tmp_path / "imports.db").open().close()
    assert call(["report", "-o", name]) == 2
    assert "--output: " in capsys.readouterr().err


def test_a_report_beside_a_run_and_of_decisions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that goes on has no end yet; what people decided is told, with who and when."""
    with at_work(SqlitePlace(tmp_path / "imports.db")) as desk:
        number = desk.doubt(desk.row(1))
        ended = Settlement(desk.row(1).key, Failed("not_created", "as decided"), ends_doubt=True)
        desk.ledger.write([Decision(number, "ada@desk", "not_created"), Settle(number, ended)])
        desk.bring(desk.row(2), OUTCOMES[0])
        desk.ledger.end_run(0, "finished", '{"closed": 1, "created": 1, "requests": 1}')
        desk.ledger.start_run("undo")
        assert call(["report"]) == 0
    page = Path("report.html").read_text(encoding="utf-8")
    assert "ada@desk" in page
    assert HEADER not in page
    capsys.readouterr()
