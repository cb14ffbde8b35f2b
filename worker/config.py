"""The settings of a run: `config.toml`, then `FLEX_IMPORT__SECTION__KEY` variables, then flags; the last one wins.

All problems are reported at once, each with its key path and where it came from. An unknown key or variable is a
problem: a misspelt limit must not pass as the default.
"""

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)
from yarl import URL

from worker.errors import ConfigError

ENV_PREFIX = "FLEX_IMPORT__"
CONFIG_VARIABLE = "FLEX_IMPORT_CONFIG"

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
JsonTemplate = str | dict[str, str]
"""One template that gives a whole JSON text, or one template for each key of a JSON object."""


def parse_rate(value: Any) -> Any:
    """Read a rate the way people write it: `15`, `15/s`, `900/m`, `36000/h`, `inf` (no limit). Requests a second."""
    if not isinstance(value, str):
        return value
    number, _, unit = value.strip().partition("/")
    try:
        return float(number) / {"": 1, "s": 1, "m": 60, "h": 3600}[unit.strip()]
    except (KeyError, ValueError):
        raise ValueError("a rate is written as 15, 15/s, 900/m or 36000/h") from None


def _known_host(url: str) -> str:
    if not url:
        return url
    parsed = URL(url)
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ValueError("must be an http:// or https:// address")
    if parsed.path not in {"", "/"} or parsed.query_string or parsed.fragment or parsed.user or parsed.password:
        raise ValueError("must be an address alone, without a path, a query or a user")
    if parsed.scheme == "http" and not is_loopback(parsed.host):
        raise ValueError("credentials are sent over plain http to this machine only; use https://")
    return str(parsed.origin())


def _known_proxy(url: str) -> str:
    """Refuse what is no proxy's address; the value may hold a password, so no message shows it."""
    try:
        parsed = URL(url)
        user, password = parsed.user or "", parsed.password or ""
        right = parsed.scheme in {"http", "https"} and bool(parsed.host) and bool(parsed.port)
        known = not url or (right and ":" not in user and (user + password).isprintable())
    except ValueError:
        known = False
    if not known:
        raise ValueError("must be an http:// or https:// address, as http://proxy.example:3128")
    return url


def is_loopback(host: str) -> bool:
    """Tell whether a host name is this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:  # another name: 127.example.com is not this machine
        return False


def _host_label(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9-]*", value):
        raise ValueError("must be a name like dublin or ie1, since it becomes part of the host")
    return value


def _one_character(value: str) -> str:
    if value in {"auto", "\\t", "tab"}:
        return {"auto": "auto"}.get(value, "\t")
    if len(value) != 1 or value in '"\r\n':
        raise ValueError('must be "auto", "tab" or one character, not a quote or a line end')
    return value


def _known_encoding(value: str) -> str:
    try:
        "".encode(value)
    except LookupError as exc:
        raise ValueError(f'"{value}" is no encoding that Python knows') from exc
    return value


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Api(_Section):
    """Where the API is, and how long to wait for it."""

    base_url: Annotated[str, AfterValidator(_known_host)] = ""
    edge: Annotated[str, AfterValidator(_host_label)] = ""
    region: Annotated[str, AfterValidator(_host_label)] = ""
    connect_timeout_seconds: Seconds = 10
    read_timeout_seconds: Seconds = 30
    ca_bundle: str = ""
    proxy: Annotated[str, AfterValidator(_known_proxy)] = ""

    @model_validator(mode="after")
    def _stays_here(self) -> Self:
        if self.url.startswith("http:") and self.proxy and not is_loopback(URL(self.proxy).host or ""):
            raise ValueError("proxy: credentials for a plain http base_url would go to another machine in clear")
        return self

    @property
    def url(self) -> str:
        """The address that requests go to: `base_url`, or Twilio's own for this edge and region [docs]."""
        if self.base_url:
            return self.base_url
        region = self.region or ("us1" if self.edge else "")
        return "https://" + ".".join(part for part in ("flex-api", self.edge, region, "twilio.com") if part)


class Limits(_Section):
    """What the account allows, or what we allow ourselves."""

    rate_per_second: Annotated[float, BeforeValidator(parse_rate), Field(gt=0)] = 15
    list_rate_per_second: Annotated[float, BeforeValidator(parse_rate), Field(gt=0)] = 15
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 16


class Retry(_Section):
    """How a request that was certainly not processed is repeated."""

    attempts: Annotated[int, Field(ge=1)] = 6
    initial_seconds: Seconds = 0.5
    max_seconds: Seconds = 30
    max_retry_after_seconds: Seconds = 300
    budget_seconds: Seconds = 900


class Doubt(_Section):
    """What is done about rows that may or may not exist."""

    policy: Literal["reconcile", "hold"] = "reconcile"
    baseline: bool = True
    settle_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 60


class Source(_Section):
    """How inputs are read."""

    format: Literal["auto", "csv", "ndjson"] = "auto"
    encoding: Annotated[str, AfterValidator(_known_encoding)] = "utf-8-sig"
    delimiter: Annotated[str, AfterValidator(_one_character)] = "auto"
    key: str = ""
    queue_rows: Annotated[int, Field(ge=1)] = 4096
    allow_empty: bool = False


class FieldMapping(_Section):
    """Templates over columns, one for each field of the request; what is not named here keeps its own column."""

    interaction_sid: str | None = None
    channel_sid: str | None = None
    type: str | None = None
    media_properties: JsonTemplate | None = None
    routing_properties: JsonTemplate | None = None

    @field_validator("media_properties", "routing_properties", mode="before")
    @classmethod
    def _is_template(cls, value: Any) -> Any:
        parts = value.values() if isinstance(value, dict) else (value,)
        if value is not None and not all(isinstance(part, str) for part in parts):
            raise ValueError("must be a template, or a section with a template for each key")
        return value


class Ledger(_Section):
    """Where the results are kept."""

    path: Annotated[str, Field(min_length=1)] = "imports.db"


class Stop(_Section):
    """What ends a run early."""

    max_in_doubt: Annotated[int, Field(ge=0)] = 50
    grace_seconds: Seconds = 20


class Log(_Section):
    """The log on stderr, or in a file."""

    format: Literal["auto", "text", "json"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"
    file: str = ""


class Settings(BaseSettings):
    """Every setting of a run, validated."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    api: Api = Api()
    limits: Limits = Limits()
    retry: Retry = Retry()
    doubt: Doubt = Doubt()
    source: Source = Source()
    mapping: FieldMapping | None = None
    ledger: Ledger = Ledger()
    stop: Stop = Stop()
    log: Log = Log()


class Config(NamedTuple):
    """The settings and the file that they came from (None: defaults, variables and flags alone)."""

    settings: Settings
    path: Path | None

    @property
    def ledger_path(self) -> Path:
        """The ledger's file."""
        return self.beside(self.settings.ledger.path)

    def beside(self, name: str) -> Path:
        """Return where a file that the settings name is: relative to the config file, not to the working folder."""
        folder = self.path.parent if self.path else Path()
        return (folder / Path(name).expanduser()).absolute()


def load(path: Path | None, flags: Mapping[str, Mapping[str, Any]], environ: Mapping[str, str]) -> Config:
    """Read, merge and validate the settings.

    path: the `--config` flag; without it `FLEX_IMPORT_CONFIG`, then `./config.toml` if it is there.
    flags: section → key → value, only for flags that were given. environ: usually `os.environ`, which is also where
    pydantic-settings reads. Raises ConfigError with all problems, one a line.
    """
    path = _find(path, environ)
    from_file = _read_toml(path) if path else {}

    class Layers(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            del dotenv_settings, file_secret_settings
            weakest = InitSettingsSource(settings_cls, _twilio_variables(environ))
            return init_settings, env_settings, InitSettingsSource(settings_cls, from_file), weakest

    problems = list(_unknown_variables(environ))
    try:
        given: dict[str, Any] = {section: dict(values) for section, values in flags.items()}
        settings = Layers(**given)
    except ValidationError as exc:
        for error in exc.errors(include_url=False):
            variable, described = _describe(error, flags, environ, from_file, path)
            if not (variable and error["type"] == "extra_forbidden"):  # unknown variables are in the list already
                problems.append(described)
        raise ConfigError("\n".join(problems)) from None
    except SettingsError as exc:  # a variable that names a whole section and is no JSON; it is in the list already
        raise ConfigError("\n".join(problems) or str(exc)) from None
    if problems:
        raise ConfigError("\n".join(problems))
    return Config(settings, path)


def _twilio_variables(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return what Twilio's own tools read from the environment [docs]; ours and the file win over it."""
    api = {
        key: environ[name] for key, name in (("edge", "TWILIO_EDGE"), ("region", "TWILIO_REGION")) if environ.get(name)
    }
    return {"api": api} if api else {}


def _find(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    if path is None and environ.get(CONFIG_VARIABLE):
        path = Path(environ[CONFIG_VARIABLE])
    if path is not None:
        return path.expanduser()
    default = Path("config.toml")
    return default if default.exists() else None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such config file") from None
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: cannot be read: {exc}") from exc
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{path}: not valid TOML: {exc}") from exc
    # a flag for the same section would replace such a value in silence
    values = [name for name, value in found.items() if name in Settings.model_fields and not isinstance(value, dict)]
    if values:
        raise ConfigError("\n".join(f"{path}: {name}: must be a section: [{name}]" for name in values))
    return found


def _unknown_variables(environ: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(environ):
        if not name.upper().startswith(ENV_PREFIX):
            continue
        section, _, key = name[len(ENV_PREFIX) :].lower().partition("__")
        known = Settings.model_fields.get(section)
        if known is None:
            yield f"{name}: unknown variable: there is no section [{section}]{_hint(section, Settings.model_fields)}"
            continue
        keys = _keys_of(section)
        if not key:
            yield f"{name}: unknown variable: it names a section; write {name}__KEY (keys: {', '.join(keys)})"
        elif key.partition("__")[0] not in keys:
            yield f"{name}: unknown variable: [{section}] has no key {key}{_hint(key, keys)}"


def _keys_of(section: str) -> Mapping[str, Any]:
    annotation: Any = Settings.model_fields[section].annotation
    model = FieldMapping if section == "mapping" else annotation
    keys: Mapping[str, Any] = model.model_fields
    return keys


def _describe(
    error: Any,
    flags: Mapping[str, Mapping[str, Any]],
    environ: Mapping[str, str],
    from_file: Mapping[str, Any],
    path: Path | None,
) -> tuple[bool, str]:
    """Return whether an environment variable is to blame, and the sentence that names who is."""
    location = [str(part) for part in error["loc"]]
    section, key = location[0], location[1] if len(location) > 1 else ""
    by_variable = False
    variable = ENV_PREFIX + "__".join(location[:2]).upper()
    if key in flags.get(section, {}):
        origin = "--" + key.removesuffix("_per_second").replace("_", "-")
    elif by_variable := variable in {name.upper() for name in environ}:
        origin = variable
    elif section == "api" and key in _twilio_variables(environ).get("api", {}) and key not in from_file.get("api", {}):
        origin = f"TWILIO_{key.upper()}"
    else:
        origin = str(path) if path else "settings"
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] in {"model_type", "model_attributes_type"}:
        message = f"must be a section: [{section}]"
    elif error["type"] == "extra_forbidden":
        siblings = _keys_of(section) if key and section in Settings.model_fields else Settings.model_fields
        message = f"unknown key{_hint(key or section, siblings)}"
    return by_variable, f"{origin}: {'.'.join(location)}: {message}"


def _hint(word: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]}?)" if close else f" (known: {', '.join(known)})"
