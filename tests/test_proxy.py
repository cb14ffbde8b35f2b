"""Proxies, seen from where they stand: what reaches them, and what is said of them."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from tests.commands import CREDENTIALS, HOLDING, Ended, flex_import
from tests.samples_of import row, sid
from worker.api import Api
from worker.cli import call
from worker.emulator import Emulator, serve
from worker.model import Answer, NotSent, Reply

THERE = "https://flex.example.com"
PASSWORD = "pro-xy-pass"
OURS = b64encode(b"SK1:a-twilio-secret")
THEIRS = b64encode(b"someone:" + PASSWORD.encode())
REFUSAL = b"HTTP/1.1 407 Proxy Authentication Required\r\nX-Echo: someone:pro-xy-pass\r\nContent-Length: 0\r\n\r\n"
FAILURE = b"HTTP/1.1 502 someone:pro-xy-pass\r\nContent-Length: 0\r\n\r\n"
CREATED = b'HTTP/1.1 201 Created\r\nContent-Length: 45\r\n\r\n{"sid": "%s"}' % sid("UT", 1).encode()
ROW = f"{sid('KD', 1)},{sid('UO', 1)},customer,someone@example.com\n"
FILE = "interaction_sid,channel_sid,type,media_properties.address\n" + ROW
QUICK = {**HOLDING, "FLEX_IMPORT__RETRY__ATTEMPTS": "1", "FLEX_IMPORT__LOG__FILE": "run.log"}


class Gate:
    """A departure that lets every row go."""

    async def ready(self) -> None:
        """Wait for nothing."""

    def left(self) -> None:
        """Take note of nothing."""


@asynccontextmanager
async def proxy(answer: bytes) -> AsyncIterator[tuple[list[bytes], str]]:
    """Serve on loopback whatever is asked with the same bytes; yields the heads of the requests, and where it is."""
    heads: list[bytes] = []

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    async with server:
        yield heads, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def asked(base_url: str, proxy_url: str = "", *, trust_environment: bool = False) -> Answer:
    """Ask for one participant through a proxy."""
    api = Api(
        base_url,
        "SK1",
        "a-twilio-secret",
        concurrency=1,
        read_timeout=5,
        proxy=proxy_url,
        trust_environment=trust_environment,
    )
    async with api:
        return await api.create(row(1), Gate())


def fields(head: bytes) -> dict[bytes, bytes]:
    """Return the header fields of a request."""
    pairs = (line.split(b": ", 1) for line in head.strip().split(b"\r\n")[1:])
    return {name.lower(): value for name, value in pairs}


# ---- what a proxy is told -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "shown"), [(f"someone:{PASSWORD}@", b"Basic " + THEIRS), ("", None)], ids=["known there", "unknown there"]
)
async def test_a_tunnel_is_asked_for_with_the_proxys_credentials_and_not_with_twilios(
    known: str, shown: bytes | None
) -> None:
    """Who runs the proxy sees where we go and who we are to it, nothing else."""
    async with proxy(REFUSAL) as (heads, where):
        answer = await asked(THERE, f"http://{known}{where}")
    assert heads[0].startswith(b"CONNECT flex.example.com:443 HTTP/1.1\r\n")
    assert fields(heads[0]).get(b"proxy-authorization") == shown
    assert b"authorization" not in fields(heads[0])
    assert OURS not in heads[0]
    assert isinstance(answer, NotSent)
    assert answer.reason.startswith("api.proxy: the proxy ")
    assert answer.misconfigured


async def test_a_proxy_on_this_machine_gets_a_plain_request_with_both_apart() -> None:
    """For an emulator behind it: Twilio's credentials are the request's, the proxy's are the proxy's."""
    async with proxy(CREATED) as (heads, where):
        answer = await asked("http://127.0.0.1:9", f"http://someone:{PASSWORD}@{where}")
    assert heads[0].startswith(b"POST http://127.0.0.1:9/v1/Interactions/KD")
    assert fields(heads[0])[b"proxy-authorization"] == b"Basic " + THEIRS
    assert fields(heads[0])[b"authorization"] == b"Basic " + OURS
    assert isinstance(answer, Reply)


@pytest.mark.parametrize("known", ["someone:", f":{PASSWORD}", "J%C3%BCrgen%40home:p%3Aw%2F%C4%8D"])
async def test_a_proxys_credentials_may_be_unusual(known: str) -> None:
    """One half of them, or what has to be escaped in an address."""
    expected = {"someone:": b"someone:", f":{PASSWORD}": f":{PASSWORD}".encode()}
    async with proxy(REFUSAL) as (heads, where):
        await asked(THERE, f"http://{known}@{where}")
    wanted = b64encode(expected.get(known, "Jürgen@home:p:w/č".encode()))
    assert fields(heads[0])[b"proxy-authorization"] == b"Basic " + wanted


async def test_no_netrc_changes_what_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A default entry would send somebody else's password to the service, or to a proxy."""
    (tmp_path / ".netrc").write_text("default login thief password stolen\n", encoding="utf-8")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    async with proxy(REFUSAL) as (heads, where):
        await asked(f"http://{where}")
        monkeypatch.setenv("HTTPS_PROXY", f"http://{where}")
        await asked(THERE, trust_environment=True)
    assert fields(heads[0])[b"authorization"] == b"Basic " + OURS
    assert not {b"authorization", b"proxy-authorization"} & set(fields(heads[1]))


def test_a_proxys_address_is_kept_without_its_credentials() -> None:
    """So that no message of a library can show them."""
    api = Api(THERE, "SK1", "secret", concurrency=1, proxy=f"http://someone:{PASSWORD}@proxy.example:3128/")
    assert api._proxy is not None
    assert str(api._proxy.url) == "http://proxy.example:3128"
    assert "Authorization" not in repr(api._proxy)


# ---- what is said of a proxy ----------------------------------------------------------------------------------------


async def imported(folder: Path, base_url: str = THERE, **more: str) -> Ended:
    """Import one row, with the log in a file."""
    (folder / "a.csv").write_text(FILE, encoding="utf-8")
    words = ("run", "a.csv", "--base-url", base_url, "--new-ledger")
    return await flex_import(*words, cwd=folder, env={**QUICK, **more})


def traces(folder: Path, ended: Ended) -> str:
    """Return all that an import said and left behind."""
    kept = [path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file()]
    assert len(kept) >= 3
    return "\n".join([ended.out, ended.err, *kept])


@asynccontextmanager
async def refusing() -> AsyncIterator[str]:
    """Yield a proxy that wants another password, and repeats the wrong one."""
    async with proxy(REFUSAL) as (_, where):
        yield where


@asynccontextmanager
async def failing() -> AsyncIterator[str]:
    """Yield a proxy that says the password in its status line."""
    async with proxy(FAILURE) as (_, where):
        yield where


@asynccontextmanager
async def absent() -> AsyncIterator[str]:
    """Yield where no proxy listens any more."""
    async with proxy(b"") as (_, where):
        pass
    yield where


@asynccontextmanager
async def unresolvable() -> AsyncIterator[str]:
    """Yield a name that no resolver knows."""
    yield "proxy.invalid:3128"


@pytest.mark.parametrize(
    ("which", "variable", "code", "says"),
    [
        (refusing, "FLEX_IMPORT__API__PROXY", 2, "not sent"),
        (failing, "HTTPS_PROXY", 1, "surely not created"),
        (absent, "FLEX_IMPORT__API__PROXY", 1, "surely not created"),
        (unresolvable, "HTTPS_PROXY", 1, "surely not created"),
    ],
)
async def test_no_trace_of_an_import_has_the_proxys_password_or_address(
    tmp_path: Path, which: Callable[[], AbstractAsyncContextManager[str]], variable: str, code: int, says: str
) -> None:
    """Neither what is printed nor the ledger nor the log; the row certainly was not sent."""
    async with which() as where:
        ended = await imported(tmp_path, **{variable: f"http://someone:{PASSWORD}@{where}"})
    assert ended.code == code, ended.err
    found = traces(tmp_path, ended)
    assert says in ended.out
    assert not [secret for secret in (PASSWORD, THEIRS.decode(), "someone:", f"//{where}") if secret in found]


# ---- which proxy ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exceptions", "through_it"),
    [
        ("", True),
        ("twilio.com", True),
        ("example.com", False),
        ("flex.example.com", False),
        ("flex.example.com:443", False),
        ("flex.example.com:8443", True),
        ("*", False),
    ],
)
async def test_the_environments_proxy_is_used_but_for_its_exceptions(
    monkeypatch: pytest.MonkeyPatch, exceptions: str, *, through_it: bool
) -> None:
    """HTTPS_PROXY and NO_PROXY, as with every other program."""
    monkeypatch.setenv("NO_PROXY", exceptions)
    async with proxy(REFUSAL) as (heads, where):
        monkeypatch.setenv("HTTPS_PROXY", f"http://{where}")
        api = Api(THERE, "SK1", "secret", concurrency=1, trust_environment=True)
    assert (api._proxy is not None) is through_it
    assert heads == []


async def test_the_environments_proxies_are_nothing_to_this_machine(tmp_path: Path) -> None:
    """An emulator on loopback is reached directly, whatever the environment says."""
    async with proxy(REFUSAL) as (heads, where), serve(Emulator()) as base_url:
        names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
        ended = await imported(tmp_path, base_url, **dict.fromkeys(names, f"http://{where}"))
    assert (ended.code, heads) == (0, [])


INVALID = [
    "proxy.example:3128",
    "//proxy.example:3128",
    "http://",
    "http://:3128",
    f"socks5://someone:{PASSWORD}@proxy.example:1080",
    f"http://someone:{PASSWORD}@proxy.example:99999",
    f"http://someone:{PASSWORD}@proxy.example:port",
    f"http://someone:{PASSWORD}@[::1",
    f"https://someone:{PASSWORD}@",
    f"http://some%3Aone:{PASSWORD}@proxy.example:3128",
    f"http://someone:{PASSWORD}%0D%0A@proxy.example:3128",
]


@pytest.mark.parametrize("value", INVALID)
@pytest.mark.parametrize("variable", ["FLEX_IMPORT__API__PROXY", "HTTPS_PROXY"])
def test_what_is_no_proxy_is_refused_before_anything_is_made(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """Exit 2 and one sentence that names the setting and not its value, instead of a file of failed rows."""
    for name, known in {**CREDENTIALS, variable: value}.items():
        monkeypatch.setenv(name, known)
    Path("a.csv").write_text(FILE, encoding="utf-8")
    if variable != "HTTPS_PROXY":  # which counts only where something is sent
        assert call(["check", "a.csv"]) == 2
    assert call(["run", "a.csv", "--base-url", THERE, "--new-ledger"]) == 2
    said = capsys.readouterr()
    assert "must be an http:// or https:// address" in said.err
    assert "api.proxy" in said.err or "HTTPS_PROXY" in said.err
    assert not [secret for secret in (PASSWORD, "someone", "Traceback") if secret in said.err + said.out]
    assert [path.name for path in Path().iterdir()] == ["a.csv"]


@pytest.mark.parametrize(
    ("base_url", "value", "code"),
    [
        ("http://127.0.0.1:9", "http://proxy.example:3128", 2),
        ("http://localhost:9", f"https://someone:{PASSWORD}@10.0.0.1:3128", 2),
        ("http://127.0.0.1:9", "http://127.0.0.1:9", 0),
        ("https://127.0.0.1:9", "http://proxy.example:3128", 0),
    ],
)
def test_credentials_do_not_cross_the_network_in_clear_to_a_proxy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, base_url: str, value: str, code: int
) -> None:
    """A plain http address is this machine's, so its proxy must be this machine's, too."""
    monkeypatch.setenv("FLEX_IMPORT__API__BASE_URL", base_url)
    monkeypatch.setenv("FLEX_IMPORT__API__PROXY", value)
    Path("a.csv").write_text(FILE, encoding="utf-8")
    assert call(["check", "a.csv"]) == code
    said = capsys.readouterr().err
    assert ("would go to another machine in clear" in said) is bool(code)
    assert PASSWORD not in said
