import codecs
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.commands import CREDENTIALS, ROOT, flex_import
from tests.samples_of import sid
from worker.cli import call
from worker.config import Settings, as_toml, as_toml_key, load, settings_of

PROXY = "http://porter:pass:w0rd@proxy.example:3128"
LEGACY_HEADER = "Vorgang;ID;Interaktion;Kanal;Rolle;Vorname;Name;E-Mail;Notiz"


def legacy(rows: int) -> str:
    """Return an export as old systems write it: semicolons, German, two rows of each conversation."""
    lines = [
        f"V{n // 2};{n};{sid('KD', n // 2)};{sid('UO', n // 2)};{('Kunde', 'Agent')[n % 2]};Zoë;Größer;z{n}@x.de;geheim"
        for n in range(rows)
    ]
    return "".join(f"{line}\r\n" for line in (LEGACY_HEADER, *lines))


# ---- config init ----------------------------------------------------------------------------------------------------


async def test_a_legacy_export_is_checked_with_the_config_that_is_proposed_for_it(tmp_path: Path) -> None:
    """Init, redirected as a person would, then check: every row can be sent, with its accents and its type."""
    (tmp_path / "alt 2024.csv").write_text(legacy(40), encoding="cp1252", newline="")
    made = await flex_import("config", "init", "alt 2024.csv", cwd=tmp_path)
    assert (made.code, made.err) == (0, "")
    assert "geheim" not in made.out
    assert made.out.endswith("flex-import check 'alt 2024.csv' --show 3\n")
    (tmp_path / "config.toml").write_text(made.out, encoding="utf-8")
    checked = await flex_import("check", "alt 2024.csv", "--json", "--show", "2", cwd=tmp_path)
    assert checked.code == 0, checked.err + checked.out
    found = json.loads(checked.out)
    assert (found["to_send"], found["rejected"]) == (40, 0)
    assert [row["key"] for row in found["show"]] == ["alt:0", "alt:1"]
    assert [row["form"]["Type"] for row in found["show"]] == ["customer", "agent"]
    assert json.loads(found["show"][0]["form"]["MediaProperties"])["name"] == "Zoë Größer"


@pytest.mark.parametrize(
    ("name", "content", "source"),
    [
        ("a.csv", legacy(3).encode("cp1252"), {"encoding": "cp1252", "delimiter": ";", "key": "a:{ID}"}),
        ("a.csv.gz", gzip.compress(legacy(3).encode(), mtime=0), {"delimiter": ";", "key": "a:{ID}"}),
        ("a.csv", legacy(3).encode("utf-16"), {"encoding": "utf-16", "delimiter": ";", "key": "a:{ID}"}),
        ("a.csv", codecs.BOM_UTF8 + b"a\tb\n1\t2\n", {"delimiter": "tab"}),
        ("a.csv", b"a,b\n", {}),
        ("a.ndjson", b'[]\n{"ID": 1}\n{"ID": 2}\n', {"key": "a:{ID}"}),
        ("a.csv", b"ID,b\n1,2,3\n1,x\n2,x\n", {"key": "a:{ID}"}),
    ],
)
def test_how_a_file_is_read_is_proposed(
    name: str, content: bytes, source: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Encoding, delimiter and key; broken records are passed over, and compressed files opened."""
    Path(name).write_bytes(content)
    assert call(["config", "init", name]) == 0
    text = capsys.readouterr().out
    Path("config.toml").write_text(text, encoding="utf-8")
    assert load(None, {}, {}).from_file["source"] == source


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", None, "a.csv: there is no such file"),
        ("a.csv", b"", "a.csv: is empty: without any column nothing can be proposed"),
        ("a.ndjson", b"\n[1]\n{\n", "a.ndjson: line 2: is a JSON array, not an object, and no other line can be read"),
        ("a.csv", b"a,a\n1,2\n", 'a.csv: line 1: the header has the column "a" twice'),
        (
            "a.csv",
            b"a,b\n\x81\x8d,1\n",
            "a.csv: line 2: byte 0x81 at offset 4 (0x4) is not utf-8-sig; the line is damag",
        ),
        ("-", None, "config init: stdin can be read only once"),
        ("*.csv", b"a\n1\n", "*.csv: matches 2 files, and a proposal is for one"),
    ],
)
def test_a_file_that_tells_nothing_is_refused(
    name: str, content: bytes | None, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one sentence with its name; nothing is printed that could pass for a config."""
    if content is not None:
        Path(name.replace("*", "a")).write_bytes(content)
        Path("b.csv").write_bytes(content)
    assert call(["config", "init", name]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"error: {says}")


def test_an_encoding_that_is_set_is_the_one_that_is_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A variable says what a proposal cannot find; a config that is there says nothing, since it may be half made."""
    Path("config.toml").write_text("this is no TOML")
    Path("a.csv").write_bytes("Vorname\nZoë\n".encode("cp850"))
    monkeypatch.setenv("FLEX_IMPORT__SOURCE__ENCODING", "cp850")
    assert call(["config", "init", "a.csv"]) == 0
    assert 'encoding = "cp850"' in capsys.readouterr().out
    monkeypatch.setenv("FLEX_IMPORT__SOURCE__ENCODING", "ascii")
    assert call(["config", "init", "a.csv"]) == 2
    assert "is not ascii" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_half_a_config_does_not_pass_for_one() -> None:
    """A full disk is an error, not a warning."""
    Path("a.csv").write_text("ID\n1\n")
    words = [sys.executable, "-m", "worker", "config", "init", "a.csv"]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            words, stdout=full, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
        )
    assert ended.returncode == 2
    assert b"stdout cannot be written: No space left on device" in ended.stderr


# ---- config show ----------------------------------------------------------------------------------------------------

CONFIG = f"""
[api]
proxy = "{PROXY}"
[limits]
rate_per_second = inf
timetable = ["Mon-Fri 06:00-22:00 0", "Sat 06:00-22:00 0"]
[mapping]
type = '{{"Role|Type" | map:kind}}'
[mapping.media_properties]
address = "{{mail}}"
[map.kind]
Agent = "agent"
"Team Lead of the whole of southern Germany" = "supervisor"
"""


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Return what `config show` prints."""
    assert call(["config", "show", *words]) == 0
    return capsys.readouterr().out


def test_every_value_is_shown_with_where_it_came_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Default, file, variable, flag: the one that holds."""
    Path("c.toml").write_text(CONFIG)
    monkeypatch.setenv("FLEX_IMPORT__LIMITS__RATE_PER_SECOND", "900/m")
    monkeypatch.setenv("FLEX_IMPORT__MAP__KIND", '{"Agent": "external"}')
    monkeypatch.setenv("FLEX_IMPORT__MAPPING__MEDIA_PROPERTIES__NAME", "{first}")
    monkeypatch.setenv("TWILIO_EDGE", "dublin")
    text = shown(capsys, "--config", "c.toml", "--ledger", "x.db")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for expected in (
        "file c.toml (--config)",
        "flag --ledger",
        "ledger x.db",
        "rate_per_second 15 environment",
        "concurrency 16 default",
        'edge "dublin" environment',
        "type '{\"Role|Type\" | map:kind}' file",
        "[mapping.media_properties]",
        'address "{mail}" file',
        'name "{first}" environment',
        'Agent "external" environment',
        '"supervisor" file',
    ):
        assert expected in lines
    named = ("TWILIO_EDGE", "FLEX_IMPORT__LIMITS__RATE_PER_SECOND", "FLEX_IMPORT__MAPPING__MEDIA_PROPERTIES__NAME")
    for name in (*named, "FLEX_IMPORT__MAP__KIND"):
        assert name in lines or f"environment {name}" in lines


def test_a_long_value_is_folded_and_nothing_is_wider_than_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    """Folded, not cut: put together again it is whole."""
    long = "{a column} " * 12
    Path("config.toml").write_text(f'[mapping]\ntype = "{long}"\n[map.{"m" * 30}]\n"{"k" * 100}" = "v"\n')
    text = shown(capsys)
    assert max(map(len, text.splitlines())) <= 80
    joined = "".join(line[27:67] for line in text.partition("[mapping]")[2].partition("\n\n")[0].splitlines())
    assert f'"{long}"' in joined
    assert "k" * 76 in text


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_no_secret_is_ever_shown(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither a credential nor a proxy's password."""
    for name, value in (*CREDENTIALS.items(), ("TWILIO_API_SECRET", "another-secret")):
        monkeypatch.setenv(name, value)
    Path("config.toml").write_text(CONFIG)
    text = shown(capsys, *words)
    assert "http://porter:***@proxy.example:3128" in text
    assert not [word for word in ("pass", "w0rd", *CREDENTIALS.values(), "another-secret") if word in text]
    flat = " ".join(text.replace('"', "").replace(":", " ").split())
    assert "TWILIO_AUTH_TOKEN set" in flat
    assert "TWILIO_API_KEY missing" in flat


def test_settings_can_be_had_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each with its key as the config writes it, its value, and the name of what gave it."""
    Path("config.toml").write_text(CONFIG)
    monkeypatch.setenv("FLEX_IMPORT__LIMITS__CONCURRENCY", "3")
    found = json.loads(shown(capsys, "--json"))
    assert found["config"] == "config.toml"
    assert found["ledger"] == str(Path("imports.db").absolute())
    settings = {item.pop("key"): item for item in found["settings"]}
    assert settings["limits.rate_per_second"] == {"value": "inf", "origin": "file", "from": "config.toml"}
    variable = "FLEX_IMPORT__LIMITS__CONCURRENCY"
    assert settings["limits.concurrency"] == {"value": 3, "origin": "environment", "from": variable}
    assert settings["api.base_url"] == {"value": "", "origin": "default", "from": None}
    assert settings['map.kind."Team Lead of the whole of southern Germany"']["value"] == "supervisor"
    assert len(settings) > 40


@pytest.mark.parametrize(
    ("environ", "chosen"),
    [({}, "none: no --config"), ({"FLEX_IMPORT_CONFIG": "c.toml"}, "c.toml   (FLEX_IMPORT_CONFIG)")],
)
def test_the_file_that_was_chosen_is_named(
    environ: Mapping[str, str], chosen: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Or that there is none."""
    Path("c.toml").touch()
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert shown(capsys).startswith(f"file         {chosen}")


def test_settings_that_do_not_load_are_refused_with_all_that_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    """As every other command does."""
    Path("config.toml").write_text("[limits]\nconcurrency = 0\n[log]\nlevel = 'loud'\n")
    assert call(["config", "show"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "limits.concurrency: " in printed.err
    assert "log.level: " in printed.err


def test_every_setting_is_among_those_that_are_told() -> None:
    """None is forgotten, whatever sections come."""
    config = load(None, {}, {})
    told = {setting.path for setting in settings_of(config, {}, {})}
    sections = Settings().model_dump(exclude_none=True)
    assert told == {(section, key) for section, keys in sections.items() for key in keys}


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("a", '"a"'),
        ('a "b"', "'a \"b\"'"),
        ('it\'s "b"', '"it\'s \\"b\\""'),
        ("a\n\x7f\u2028\U000e0001", '"a\\n\\u007F\\u2028\\U000E0001"'),
        (True, "true"),
        (0.1, "0.1"),
        (900.0, "900"),
        (float("inf"), "inf"),
        (("a", "b"), '["a", "b"]'),
    ],
)
def test_a_value_is_written_as_a_config_has_it(value: object, written: str) -> None:
    """On one line, with nothing invisible."""
    assert as_toml(value) == written


def test_a_key_is_quoted_where_it_has_to_be() -> None:
    """Letters, digits, _ and - are bare."""
    assert as_toml_key("map", "kind_1", "Team Lead", "") == 'map.kind_1."Team Lead".""'
