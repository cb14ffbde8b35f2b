"""The sections of the settings, each key with its default and what it may be."""

import codecs
import re
from ipaddress import ip_address
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)
from yarl import URL

from worker.timetable import Timetable

# Ways to write something else in ASCII, which Python knows as encodings of text; UTF-7 reads as halves of characters.
_NO_FILES = frozenset({"idna", "punycode", "raw-unicode-escape", "unicode-escape", "utf-7"})

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
    if codecs.lookup(value).name in _NO_FILES:
        raise ValueError(f'"{value}" is no encoding of files')
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
    adaptive: bool = True
    min_rate_per_second: Annotated[float, BeforeValidator(parse_rate), Field(gt=0, allow_inf_nan=False)] = 0.5
    timezone: str = "UTC"
    timetable: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _hours_are_known(self) -> Self:
        Timetable(self.timetable, self.timezone)
        return self


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
    baseline_max_age_seconds: Annotated[float, Field(gt=0)] = 900
    settle_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 60


class Source(_Section):
    """How inputs are read."""

    format: Literal["auto", "csv", "ndjson"] = "auto"
    encoding: Annotated[str, AfterValidator(_known_encoding)] = "utf-8-sig"
    delimiter: Annotated[str, AfterValidator(_one_character)] = "auto"
    key: str = ""
    queue_rows: Annotated[int, Field(ge=1)] = 4096
    strict: bool = False
    allow_empty: bool = False
    min_rows: Annotated[int, Field(ge=0)] = 0


class Lookup(_Section):
    """A second file with a key. Its other keys are those of [source], and mean the same."""

    file: Annotated[str, Field(min_length=1)]
    key: Annotated[str, Field(min_length=1)]
    format: Literal["auto", "csv", "ndjson"] = "auto"
    encoding: Annotated[str, AfterValidator(_known_encoding)] = "utf-8-sig"
    delimiter: Annotated[str, AfterValidator(_one_character)] = "auto"


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


class ProfileSource(_Section):
    """What a profile has instead of the same key of [source]."""

    format: Literal["auto", "csv", "ndjson"] | None = None
    encoding: Annotated[str, AfterValidator(_known_encoding)] | None = None
    delimiter: Annotated[str, AfterValidator(_one_character)] | None = None
    key: str | None = None
    allow_empty: bool | None = None


class Profile(_Section):
    """Rules for the inputs whose names fit; its [mapping] is instead of the whole other one."""

    files: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
    source: ProfileSource = ProfileSource()
    mapping: FieldMapping | None = None


class Ledger(_Section):
    """Where the results are kept."""

    path: Annotated[str, Field(min_length=1)] = "imports.db"
    keep_payload_days: Annotated[int, Field(ge=0)] = 90


class Stop(_Section):
    """What ends a run early; 0 is off."""

    max_failures: Annotated[int, Field(ge=0)] = 0
    max_failure_ratio: Annotated[float, Field(ge=0, le=1)] = 0.5
    min_sample: Annotated[int, Field(ge=1)] = 100
    max_in_doubt: Annotated[int, Field(ge=0)] = 50
    outage_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 3600
    grace_seconds: Seconds = 20


class ExitCode(_Section):
    """What a finished run's exit code says."""

    tolerate_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0


class Log(_Section):
    """The log on stderr, or in a file."""

    format: Literal["auto", "text", "json"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"
    file: str = ""


def _known_gateway(url: str) -> str:
    """Refuse what is no gateway's address; the value may hold a password, so no message shows it."""
    try:
        known = not url or (URL(url).scheme in {"http", "https"} and bool(URL(url).host))
    except ValueError:
        known = False
    if not known:
        raise ValueError("must be an http:// or https:// address, as http://pushgateway:9091")
    return url


def _read_by_node_exporter(path: str) -> str:
    if path and not path.endswith(".prom"):
        raise ValueError("must end with .prom: node_exporter reads no other files")
    return path


class Metrics(_Section):
    """What Prometheus is told, and how."""

    textfile: Annotated[str, AfterValidator(_read_by_node_exporter)] = ""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    pushgateway: Annotated[str, AfterValidator(_known_gateway)] = ""


class Settings(_Section):
    """Every setting of a run, validated."""

    api: Api = Api()
    limits: Limits = Limits()
    retry: Retry = Retry()
    doubt: Doubt = Doubt()
    source: Source = Source()
    mapping: FieldMapping | None = None
    map: dict[str, dict[str, str]] = {}
    lookup: dict[str, Lookup] = {}
    profile: dict[str, Profile] = {}
    ledger: Ledger = Ledger()
    stop: Stop = Stop()
    exit: ExitCode = ExitCode()
    log: Log = Log()
    metrics: Metrics = Metrics()

    @field_validator("lookup")
    @classmethod
    def _can_be_named(cls, lookups: dict[str, Lookup]) -> dict[str, Lookup]:
        for name in lookups:
            if "." in name:  # which ends the name in a template
                raise ValueError(f'the name "{name}" has a dot; choose another one')
        return lookups

    @field_validator("profile")
    @classmethod
    def _can_be_shown(cls, profiles: dict[str, Profile]) -> dict[str, Profile]:
        for name in profiles:
            if not re.fullmatch("[A-Za-z0-9_-]+", name):
                raise ValueError(f'the name "{name}" has more than letters, digits, _ and -; choose another one')
        return profiles
