import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from worker.config import Config, Settings, is_loopback, load
from worker.credentials import read_credentials
from worker.errors import ConfigError

Flags = Mapping[str, Mapping[str, Any]]


def written(text: str) -> Path:
    """Return a config file of this content."""
    path = Path("settings.toml")
    path.write_text(text, encoding="utf-8")
    return path


def loaded(text: str = "", flags: Flags | None = None) -> Config:
    """Return the settings of this file, these flags and the environment as it is."""
    return load(written(text), flags or {}, os.environ)


def problems(text: str = "", flags: Flags | None = None) -> list[str]:
    """Return what is said to be wrong with this file, these flags and the environment as it is."""
    with pytest.raises(ConfigError) as caught:
        loaded(text, flags)
    return str(caught.value).splitlines()


# ---- precedence -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "variable", "flag", "holds"),
    [
        ("", None, None, 16),
        ("3", None, None, 3),
        ("3", "4", None, 4),
        ("3", "4", 5, 5),
        ("3", None, 5, 5),
        ("", "4", 5, 5),
        ("0", "4", None, 4),
    ],
)
def test_a_flag_wins_over_a_variable_and_that_over_the_file(
    monkeypatch: pytest.MonkeyPatch, file: str, variable: str | None, flag: int | None, holds: int
) -> None:
    """The last word is the flag's, then the variable's, then the file's, then the default's."""
    if variable:
        monkeypatch.setenv("FLEX_IMPORT__LIMITS__CONCURRENCY", variable)
    config = loaded(
        f"[limits]\nconcurrency = {file}" if file else "", {"limits": {"concurrency": flag}} if flag else {}
    )
    assert config.settings.limits.concurrency == holds


def test_a_flag_leaves_the_other_keys_of_its_section_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers are merged key by key, never section by section."""
    monkeypatch.setenv("FLEX_IMPORT__RETRY__ATTEMPTS", "2")
    retry = loaded("[retry]\nattempts = 9\nmax_seconds = 7", {"retry": {"initial_seconds": 1}}).settings.retry
    assert (retry.attempts, retry.max_seconds, retry.initial_seconds, retry.budget_seconds) == (2, 7, 1, 900)


@pytest.mark.parametrize(
    ("name", "value", "media_properties"),
    [
        ("MEDIA_PROPERTIES", "{whole}", "{whole}"),
        ("MEDIA_PROPERTIES", '{"address": "{mail}"}', {"address": "{mail}"}),
        ("MEDIA_PROPERTIES__ADDRESS", "{mail}", {"address": "{mail}"}),
    ],
)
def test_a_mapping_can_come_from_variables(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, media_properties: object
) -> None:
    """A template in braces is no JSON and stays a template."""
    monkeypatch.setenv(f"FLEX_IMPORT__MAPPING__{name}", value)
    mapping = loaded().settings.mapping
    assert mapping is not None
    assert mapping.media_properties == media_properties


def test_maps_keep_their_values_as_they_are_written() -> None:
    """Upper case, spaces, dots and the star."""
    text = '[map.kind]\n"Agent" = "agent"\n"a. b" = ""\n"*" = "unknown"\n[map.level]\n1 = "to"\n'
    assert loaded(text).settings.map == {
        "kind": {"Agent": "agent", "a. b": "", "*": "unknown"},
        "level": {"1": "to"},
    }
    assert loaded().settings.map == {}


def test_a_map_can_come_from_a_variable_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its values then win over the file's, one by one."""
    monkeypatch.setenv("FLEX_IMPORT__MAP__KIND", '{"Boss": "supervisor"}')
    text = '[map.kind]\n"Boss" = "agent"\n"Client" = "customer"\n'
    assert loaded(text).settings.map == {"kind": {"Boss": "supervisor", "Client": "customer"}}


WHOLE_MAP = """FLEX_IMPORT__MAP__KIND='{"Value": "..."}'"""


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("MAP", "{}", "MAP: unknown variable: it names a section; write FLEX_IMPORT__MAP__KEY (keys: your own)"),
        ("MAP__KIND", "agent", "MAP__KIND: map.kind: must be a section: [map.kind]"),
        (
            "MAP__KIND__BOSS",
            "agent",
            "MAP__KIND__BOSS: unknown variable: names lose their case; write " + WHOLE_MAP,
        ),
    ],
)
def test_a_variable_that_cannot_be_a_map_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    """A value's case would be lost in a variable's name, and the map would not know it."""
    monkeypatch.setenv(f"FLEX_IMPORT__{name}", value)
    assert problems() == [f"FLEX_IMPORT__{says}"]


@pytest.mark.parametrize("name", ["", "__ID_", "__IDS__FILE", "__ids__key"])
def test_a_lookup_cannot_come_from_a_variable(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A variable's name has no case, and half a lookup says nothing about the file's."""
    monkeypatch.setenv(f"FLEX_IMPORT__LOOKUP{name}", "x")
    (found,) = problems('[lookup.ids]\nfile = "a.csv"\nkey = "id"')
    assert found == f"FLEX_IMPORT__LOOKUP{name}: unknown variable: [lookup.NAME] is read from the config file only"


# ---- where the file is ----------------------------------------------------------------------------------------------


def test_the_config_file_is_the_flag_s_then_the_variable_s_then_the_folder_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any of them there is no file, and that is fine."""
    assert load(None, {}, os.environ).path is None
    for name in ("config.toml", "by_variable.toml", "by_flag.toml"):
        Path(name).touch()
    assert load(None, {}, os.environ).path == Path("config.toml")
    monkeypatch.setenv("FLEX_IMPORT_CONFIG", "by_variable.toml")
    assert load(None, {}, os.environ).path == Path("by_variable.toml")
    assert load(Path("by_flag.toml"), {}, os.environ).path == Path("by_flag.toml")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "there is no such config file"),
        (b"[limits]\n\nconcurrency 3\n", "not valid TOML: .* line 3"),
        (b"[api]\nproxy = '\xff'\n", "cannot be read"),
    ],
)
def test_a_config_file_that_cannot_be_read_is_named(content: bytes | None, says: str) -> None:
    """A missing file, a syntax error with its line, bytes that are no text."""
    path = Path("broken.toml")
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^broken.toml: {says}"):
        load(path, {}, os.environ)


def test_a_config_file_named_by_the_variable_has_to_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong name never means the defaults."""
    monkeypatch.setenv("FLEX_IMPORT_CONFIG", "absent.toml")
    with pytest.raises(ConfigError, match=r"^absent\.toml: there is no such config file"):
        load(None, {}, os.environ)


def test_a_relative_ledger_is_relative_to_the_config_file(tmp_path: Path) -> None:
    """Cron's working folder does not matter."""
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "c.toml").write_text('[ledger]\npath = "data/rows.db"', encoding="utf-8")
    assert load(Path("etc/c.toml"), {}, os.environ).ledger_path == folder / "data" / "rows.db"
    assert load(None, {}, os.environ).ledger_path == tmp_path / "imports.db"
    elsewhere = {"ledger": {"path": "/srv/rows.db"}}
    assert load(Path("etc/c.toml"), elsewhere, os.environ).ledger_path == Path("/srv/rows.db")


# ---- problems -------------------------------------------------------------------------------------------------------


def test_all_problems_come_at_once_with_key_path_and_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody repairs a config one message at a time."""
    monkeypatch.setenv("FLEX_IMPORT__RETRY__ATTEMPTS", "0")
    monkeypatch.setenv("FLEX_IMPORT__LIMITS__CONCURENCY", "3")
    monkeypatch.setenv("FLEX_IMPORT__LMITS__RATE", "3")
    monkeypatch.setenv("TWILIO_EDGE", "evil.example/")
    found = problems(
        'limitz = 1\n[log]\nlevel = "loud"\ncolour = 1\n[ledger]\npath = ""\n[limits]\nconcurrency = 5000',
        {"limits": {"rate_per_second": "quick"}, "api": {"base_url": "ftp://here"}},
    )
    expected = {
        "FLEX_IMPORT__LIMITS__CONCURENCY: unknown variable: [limits] has no key concurency (did you mean concurrency?)",
        "FLEX_IMPORT__LMITS__RATE: unknown variable: there is no section [lmits] (did you mean limits?)",
        "FLEX_IMPORT__RETRY__ATTEMPTS: retry.attempts: must be at least 1",
        "--base-url: api.base_url: must be an http:// or https:// address",
        "--rate: limits.rate_per_second: a rate is written as 15, 15/s, 900/m or 36000/h",
        "settings.toml: limits.concurrency: must be at most 1000",
        "settings.toml: log.level: must be 'debug', 'info', 'warning' or 'error'",
        "settings.toml: log.colour: unknown key (known: format, level, file)",
        "settings.toml: ledger.path: must not be empty",
        "settings.toml: limitz: unknown key (did you mean limits?)",
        "TWILIO_EDGE: api.edge: must be a name like dublin or ie1, since it becomes part of the host",
    }
    assert set(found) == expected
    assert len(found) == len(expected)


def test_a_flag_does_not_hide_a_section_that_is_none() -> None:
    """`limits = 15` is wrong whether or not a flag sets a key of [limits]."""
    Path("config.toml").write_text("limits = 15\n")
    with pytest.raises(ConfigError, match=r"^config\.toml: limits: must be a section: \[limits\]$"):
        load(None, {"limits": {"concurrency": 2}}, {})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("limits = 15", "limits: must be a section: [limits]"),
        ("[mapping]\nmedia_properties = 5", "mapping.media_properties: must be a template, or a section"),
        ("[mapping.routing_properties]\ntask_sid = 5", "mapping.routing_properties: must be a template, or a section"),
        ("map = 5", "map: must be a section: [map]"),
        ("[map]\nkind = 5", "map.kind: must be a section: [map.kind]"),
        ("[map.kind]\nAgent = 5", "map.kind.Agent: must be a text"),
        ("lookup = 5", "lookup: must be a section: [lookup]"),
        ("[lookup]\nids = 5", "lookup.ids: must be a section: [lookup.ids]"),
        ('[lookup.ids]\nfile = "a"', "lookup.ids.key: is missing"),
        ('[lookup.ids]\nfile = ""\nkey = "a"', "lookup.ids.file: must not be empty"),
        (
            '[lookup.ids]\nfile = "a"\nkey = "b"\nencodin = "c"',
            "lookup.ids.encodin: unknown key (did you mean encoding?)",
        ),
        ('[lookup.ids]\nfile = "a"\nkey = "b"\nencoding = "klingon"', 'lookup.ids.encoding: "klingon" is no encoding'),
        ('[lookup."a.b"]\nfile = "a"\nkey = "b"', 'lookup: the name "a.b" has a dot; choose another one'),
        ('[source]\ndelimiter = ",,"', 'source.delimiter: must be "auto", "tab" or one character'),
        ("[source]\ndelimiter = '\"'", 'source.delimiter: must be "auto", "tab" or one character'),
        ('[source]\nencoding = "unicode_escape"', 'source.encoding: "unicode_escape" is no encoding of files'),
        ('[source]\nencoding = "utf-7"', 'source.encoding: "utf-7" is no encoding of files'),
        ('[source]\nencoding = "klingon"', 'source.encoding: "klingon" is no encoding'),
        ("[retry]\nmax_seconds = inf", "retry.max_seconds: must be a finite number"),
        ("[api]\nread_timeout_seconds = 0", "api.read_timeout_seconds: must be more than 0"),
    ],
)
def test_a_problem_names_its_file_and_key(text: str, says: str) -> None:
    """One sentence a problem, in the words of the config, not of a library."""
    (found,) = problems(text)
    assert found.startswith(f"settings.toml: {says}")


@pytest.mark.parametrize("value", ["abc", '{"concurrency": 3}', ""])
def test_a_variable_for_a_whole_section_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """A variable without a key is a slip, whatever its value, and no traceback."""
    monkeypatch.setenv("FLEX_IMPORT__LIMITS", value)
    (found,) = problems()
    assert found.startswith("FLEX_IMPORT__LIMITS: unknown variable: it names a section; write FLEX_IMPORT__LIMITS__KEY")


@pytest.mark.parametrize(("given", "kept"), [("auto", "auto"), ("tab", "\t"), ("\\t", "\t"), (";", ";")])
def test_a_delimiter_is_one_character_or_a_word_for_it(given: str, kept: str) -> None:
    """A tab has two names, since nobody can see one."""
    assert loaded(flags={"source": {"delimiter": given}}).settings.source.delimiter == kept


# ---- rates ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written_as", "per_second"),
    [(15, 15), ("15", 15), ("15/s", 15), (" 900 / m ", 15), ("36000/h", 10), ("0.5", 0.5), ("inf", math.inf)],
)
def test_a_rate_is_read_the_way_people_write_it(written_as: object, per_second: float) -> None:
    """Requests a second, a minute or an hour; inf is no limit."""
    assert loaded(flags={"limits": {"rate_per_second": written_as}}).settings.limits.rate_per_second == per_second


@pytest.mark.parametrize("written_as", ["", "fast", "15/d", "15/s/s", "nan", "-1", "0", 0, -1, "/s"])
def test_a_rate_that_is_none_is_refused(written_as: object) -> None:
    """Zero and less are no rates, and neither is what cannot be read."""
    (found,) = problems(flags={"limits": {"rate_per_second": written_as}})
    assert found.startswith("--rate: limits.rate_per_second: ")


# ---- the host -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("api", "url"),
    [
        ({}, "https://flex-api.twilio.com"),
        ({"edge": "dublin"}, "https://flex-api.dublin.us1.twilio.com"),
        ({"region": "ie1"}, "https://flex-api.ie1.twilio.com"),
        ({"edge": "dublin", "region": "ie1"}, "https://flex-api.dublin.ie1.twilio.com"),
        ({"base_url": ""}, "https://flex-api.twilio.com"),
        ({"base_url": "https://proxy.example:8443/"}, "https://proxy.example:8443"),
        ({"base_url": "https://proxy.example", "edge": "dublin"}, "https://proxy.example"),
        ({"base_url": "http://localhost:8080"}, "http://localhost:8080"),
        ({"base_url": "http://LOCALHOST:8080"}, "http://localhost:8080"),
        ({"base_url": "http://127.0.0.5"}, "http://127.0.0.5"),
        ({"base_url": "http://[::1]:8080"}, "http://[::1]:8080"),
    ],
)
def test_the_host_follows_edge_region_or_base_url(api: dict[str, str], url: str) -> None:
    """Twilio's own address for an edge and a region, unless a base URL is given."""
    assert loaded(flags={"api": api}).settings.api.url == url


def test_twilio_s_own_variables_give_edge_and_region_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """TWILIO_EDGE and TWILIO_REGION are honoured, and our own settings win over them."""
    monkeypatch.setenv("TWILIO_EDGE", "sydney")
    monkeypatch.setenv("TWILIO_REGION", "au1")
    assert loaded().settings.api.url == "https://flex-api.sydney.au1.twilio.com"
    assert loaded('[api]\nedge = "dublin"\nregion = "ie1"').settings.api.url == "https://flex-api.dublin.ie1.twilio.com"


@pytest.mark.parametrize(
    "base_url",
    [
        "http://flex-api.twilio.com",
        "http://127.example.com",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "http://10.0.0.1",
        "http://0.0.0.0",
        "ftp://localhost",
        "flex-api.twilio.com",
        "https://",
        "https://proxy.example/path",
        "https://proxy.example?a=b",
        "https://proxy.example#a",
        "https://user@proxy.example",
        "https://:secret@proxy.example",
        "https://proxy.example:99999",
    ],
)
def test_a_base_url_is_an_address_alone_and_http_stays_on_this_machine(base_url: str) -> None:
    """Credentials never go over plain http to another machine, however its name begins."""
    (found,) = problems(flags={"api": {"base_url": base_url}})
    assert found.startswith("--base-url: api.base_url: ")


@pytest.mark.parametrize("key", ["edge", "region"])
@pytest.mark.parametrize("value", ["evil.example/", "evil.example", "a@b", "Dublin", "a b", "dublin\n"])
def test_an_edge_or_a_region_is_one_label_of_a_host(key: str, value: str) -> None:
    """Otherwise credentials could go to any host in the world."""
    (found,) = problems(flags={"api": {key: value}})
    assert f": api.{key}: must be a name like dublin or ie1" in found


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("127.x.org", False), ("", False)],
)
def test_loopback_is_a_matter_of_addresses(host: str, *, expected: bool) -> None:
    """A name that begins like an address is not one."""
    assert is_loopback(host) is expected


# ---- credentials ----------------------------------------------------------------------------------------------------

ACCOUNT = {"TWILIO_ACCOUNT_SID": "ACmine", "TWILIO_AUTH_TOKEN": "token-secret"}
KEY = {"TWILIO_API_KEY": "SKmine", "TWILIO_API_SECRET": "key-secret"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (ACCOUNT, ("ACmine", "token-secret", "ACmine")),
        (KEY, ("SKmine", "key-secret", None)),
        (ACCOUNT | KEY, ("SKmine", "key-secret", "ACmine")),
        ({"TWILIO_API_KEY": "SKmine", "TWILIO_API_KEY_SECRET": "alias-secret"}, ("SKmine", "alias-secret", None)),
        (KEY | {"TWILIO_API_KEY_SECRET": "alias-secret"}, ("SKmine", "key-secret", None)),
        (ACCOUNT | {"TWILIO_API_KEY": "SKmine"}, ("ACmine", "token-secret", "ACmine")),
        (KEY | {"TWILIO_ACCOUNT_SID": ""}, ("SKmine", "key-secret", None)),
    ],
)
def test_an_api_key_is_preferred_to_the_account_s_token(
    environ: dict[str, str], expected: tuple[str, str, str | None]
) -> None:
    """Whole pairs only; the account's sid is kept when it is known."""
    found = read_credentials(environ)
    assert (found.user, found.secret.get_secret_value(), found.account_sid) == expected
    assert "secret" not in f"{found!r} {found} {found.secret}".replace("secret=", "").replace("SecretStr", "")


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({}, "credentials are missing: Set TWILIO_API_KEY and TWILIO_API_SECRET"),
        ({"TWILIO_API_KEY": "SKmine"}, "TWILIO_API_KEY is set, TWILIO_API_SECRET is not"),
        ({"TWILIO_ACCOUNT_SID": "ACmine"}, "TWILIO_ACCOUNT_SID is set, TWILIO_AUTH_TOKEN is not"),
        ({"TWILIO_AUTH_TOKEN": "token-secret"}, "or TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN"),
    ],
)
def test_missing_credentials_name_the_variables_to_set(environ: dict[str, str], says: str) -> None:
    """The message says which half is missing, and never shows the other one."""
    with pytest.raises(ConfigError, match=says) as caught:
        read_credentials(environ)
    assert "token-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("FLEX_IMPORT_LIMITS__RATE_PER_SECOND", " (did you mean FLEX_IMPORT__LIMITS__RATE_PER_SECOND?)"),
        ("FLEX_IMPORT_LIMITS_RATE_PER_SECOND", " (did you mean FLEX_IMPORT__LIMITS__RATE_PER_SECOND?)"),
        ("FLEX_IMPORT_RATE", " (did you mean FLEX_IMPORT__LIMITS__RATE_PER_SECOND?)"),
        ("flex_import_concurency", " (did you mean FLEX_IMPORT__LIMITS__CONCURRENCY?)"),
        ("FLEX_IMPORT_METRICS_PORT", " (did you mean FLEX_IMPORT__METRICS__PORT?)"),
        ("FLEX_IMPORT_CONFG", " (did you mean FLEX_IMPORT_CONFIG?)"),
        ("FLEX_IMPORT_TYPOGRAPHY", "; a setting is FLEX_IMPORT__SECTION__KEY"),
        ("FLEX_IMPORT", "; a setting is FLEX_IMPORT__SECTION__KEY"),
    ],
)
def test_a_variable_that_only_looks_like_ours_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, hint: str) -> None:
    """One underscore too few must not leave a limit at its default."""
    monkeypatch.setenv(name, "9090")
    assert problems() == [f"{name}: unknown variable{hint}"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FLEX_IMPORT_CONFIG", "settings.toml"),
        ("FLEX_IMPORT_NOTIFY_URLS", "mailto://somebody"),
        ("FLEX_IMPORTER_HOME", "/opt"),
        ("FLEX_IMPORT_SERVICE_HOST", "10.0.0.1"),
        ("FLEX_IMPORT_METRICS_SERVICE_PORT_HTTP", "9090"),
        ("FLEX_IMPORT_METRICS_PORT", "tcp://10.0.0.1:9090"),
        ("FLEX_IMPORT_METRICS_PORT_9090_TCP_ADDR", "10.0.0.1"),
    ],
)
def test_what_is_not_a_misspelt_setting_passes(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """Kubernetes sets variables in each pod for a Service; one named `flex-import-metrics` must not stop a run."""
    Path("settings.toml").write_text("")
    monkeypatch.setenv(name, value)
    assert loaded("").settings == Settings()
