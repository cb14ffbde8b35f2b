"""`rehearse`: the user's own files, killed in the middle, and nothing leaves this machine."""

import re
from pathlib import Path

import pytest

from tests.commands import CREDENTIALS, flex_import
from tests.samples_of import sid
from tests.test_command import HEADER, csv_of
from worker.cli import call
from worker.cli.rehearsing import _environment, _every, _Rehearsed
from worker.config import Source
from worker.source import Input, Reader

BAD = f"{sid('KD', 1)},UOx,customer,grace@example.com\n"


def names(folder: Path) -> set[str]:
    """Return what is in a folder."""
    return {path.name for path in folder.iterdir()}


async def test_a_rehearsal_tells_what_would_be_rejected_how_long_it_takes_and_what_a_crash_leaves(
    tmp_path: Path,
) -> None:
    """It makes nothing twice and loses nothing, asks nobody's service and leaves nothing behind."""
    (tmp_path / "a.csv").write_text(HEADER + BAD + csv_of(400, 150).removeprefix(HEADER))
    (tmp_path / "config.toml").write_text(
        '[limits]\nrate_per_second = 6\n[source]\nmin_rows = 300\n[log]\nfile = "run.log"\n'
    )
    ended = await flex_import("rehearse", "a.csv", "--rows", "200", cwd=tmp_path, env={})
    assert ended.code == 1, ended.err
    assert "Rehearsed with 200 of 401 rows" in ended.out
    found = dict(re.findall(r"^  ([a-z ]+?) +([\d,]+)", ended.out, re.MULTILINE))
    assert (found["made twice"], found["lost"]) == ("0", "0")
    assert int(found["created"]) + int(found.get("rejected", 0)) + int(found.get("in doubt", 0)) == 200
    assert re.search(r"crash +killed after \d+ rows with \d+ in flight, and run again", ended.out)
    assert "at 6/s: at least 1 min" in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80
    assert "grace@" not in ended.out + ended.err
    assert names(tmp_path) == {"a.csv", "config.toml"}
    assert ended.out.splitlines()[-1].startswith("exit 1: ")


async def test_files_of_several_kinds_are_rehearsed_by_their_rules(tmp_path: Path) -> None:
    """A profile knows the sample by the whole path of its file; encoding and delimiter are the file's."""
    (tmp_path / "in").mkdir()
    lines = [f"{sid('KD', n)};{sid('UO', n)};Zoë{n}@x.org\n" for n in range(20)]
    (tmp_path / "in" / "agents.csv").write_bytes(("KD;UO;Mail\n" + "".join(lines)).encode("cp1252"))
    (tmp_path / "b.csv").write_text(csv_of(20))
    (tmp_path / "config.toml").write_text(
        '[profile.a]\nfiles = ["in/agents*.csv"]\n[profile.a.source]\nencoding = "cp1252"\n'
        '[profile.a.mapping]\ninteraction_sid = "{KD}"\nchannel_sid = "{UO}"\ntype = "agent"\n'
        '[profile.a.mapping.media_properties]\naddress = "{Mail}"\n'
    )
    ended = await flex_import("rehearse", "in/agents.csv", "b.csv", cwd=tmp_path, env={})
    assert ended.code in {0, 4}, ended.out + ended.err
    assert "Rehearsed with 40 of 40 rows" in ended.out


async def test_settings_that_are_wrong_end_a_rehearsal_as_they_would_a_run(tmp_path: Path) -> None:
    """With the same message."""
    (tmp_path / "a.csv").write_text(csv_of(5))
    (tmp_path / "config.toml").write_text('[mapping]\ntype = "{Nobody}"\n')
    ended = await flex_import("rehearse", "a.csv", cwd=tmp_path, env={})
    assert ended.code == 2
    assert "Nobody" in ended.err


@pytest.mark.parametrize(
    ("words", "says"), [(["-"], "stdin cannot be rehearsed"), (["a.csv", "--rows", "0"], "must be at least 1")]
)
def test_what_cannot_be_rehearsed_is_refused(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is started."""
    Path("a.csv").write_text(csv_of(5))
    assert call(["rehearse", *words]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(("rows", "step", "lines"), [(10, 1.0, 10), (10, 3.0, 4), (1000, 2.5, 400)])
def test_a_sample_comes_from_all_over_a_file(rows: int, step: float, lines: int) -> None:
    """Byte for byte, evenly spread, the first record among them."""
    path = Path("a.csv")
    path.write_text(csv_of(rows))
    with Reader(Input("a.csv", path), Source()) as reader:
        found = list(_every(reader, step))
    assert len(found) == lines
    assert found[0].line == 2
    assert found[-1].line > rows - step
    assert all(one.record in path.read_text() for one in found if one.record)


def test_an_import_that_is_rehearsed_has_nobodys_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real ones have no business on an emulated service."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    environment = _environment()
    assert CREDENTIALS["TWILIO_AUTH_TOKEN"] not in environment.values()
    assert environment["FLEX_IMPORT__API__PROXY"] == ""


@pytest.mark.parametrize(("twice", "lost", "code"), [(0, 0, 1), (1, 0, 70), (0, 1, 70)])
def test_a_promise_that_was_not_kept_is_a_bug(twice: int, lost: int, code: int) -> None:
    """Whatever the import itself said."""
    found = _Rehearsed(1, 1, 1, 1, 1, {}, (), 1, twice, lost, 0, 0)
    assert found.exit_code == code
