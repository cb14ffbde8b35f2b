"""What an exception of the network says: its reason, and whether a setting makes every request meet the same wall."""

import errno
import os
import re
import ssl

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from worker.api.proxy import Proxy

_NUMBER = re.compile(r"\d[\d.,]*")

NOT_HTTP = "the answer is not valid HTTP"

PROXY_AUTHENTICATION_REQUIRED = 407

_OUT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE})

_WRONG_HOST = frozenset({62, 63, 64})
_WRONG_TIME = frozenset({9, 10})
"""OpenSSL's numbers (X509_V_ERR_…) for a certificate of another name, e-mail or address, and for dates."""

_OLD_TLS = frozenset(
    {
        "NO_PROTOCOLS_AVAILABLE",
        "TLSV1_ALERT_PROTOCOL_VERSION",
        "UNSUPPORTED_PROTOCOL",
        "VERSION_TOO_LOW",
        "WRONG_SSL_VERSION",
    }
)
_NO_TLS = frozenset({"HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "PACKET_LENGTH_TOO_LONG", "WRONG_VERSION_NUMBER"})
"""OpenSSL's words (its reasons) for a peer with other versions of TLS, and for one that speaks something else."""


def reason_of(exc: BaseException) -> str:
    """Return why there was no answer; without addresses, and without anything that the other side said.

    Rows with the same reason are one group, so it has no number that differs from one request to the next.
    """
    name = type(exc).__name__
    if isinstance(exc, aiohttp.ConnectionTimeoutError):
        return "no connection in time"
    if isinstance(exc, aiohttp.ClientHttpProxyError):  # these texts have the address, and whatever the server said
        return f"{name} (status {exc.status})"
    if isinstance(exc, aiohttp.ServerDisconnectedError):
        return f"{name}: Server disconnected"
    if isinstance(exc, aiohttp.ClientPayloadError) and str(exc).startswith("Response payload is not completed"):
        return f"{name}: the answer is not complete"
    if isinstance(exc, aiohttp.ClientResponseError | aiohttp.ClientPayloadError | HttpProcessingError):
        return NOT_HTTP
    text = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
    if isinstance(exc, OSError) and _NUMBER.search(text):  # asyncio puts the address in
        text = os.strerror(exc.errno) if exc.errno and exc.errno > 0 else ""
    if not type(exc).__module__.startswith("worker."):  # the numbers of our own are limits, which stay the same
        text = _NUMBER.sub("…", text)
    return f"{name}: {text}" if text else name


def misconfiguration(exc: BaseException, host: str, proxy: Proxy | None) -> str:
    """Return which setting is wrong and what to do, if a connection can never be made as things are; else nothing.

    host: of the API, as it is configured. proxy: the one that is used.
    """
    if isinstance(exc, aiohttp.ClientHttpProxyError):
        return refused_by(proxy) if exc.status == PROXY_AUTHENTICATION_REQUIRED and proxy is not None else ""
    if isinstance(exc, aiohttp.ClientConnectorDNSError) and _is_out_of_files():
        return _TOO_FEW_FILES
    cause = exc.__cause__
    if isinstance(exc, aiohttp.ClientConnectorCertificateError) and isinstance(cause, ssl.SSLCertVerificationError):
        return _unverified(cause, _whose(exc.host, host, proxy))
    if isinstance(exc, aiohttp.ClientConnectorSSLError) and isinstance(cause, ssl.SSLError):
        return _mismatch(cause.reason or "", _whose(exc.host, host, proxy))
    return _TOO_FEW_FILES if isinstance(exc, OSError) and exc.errno in _OUT_OF_FILES else ""


def refused_by(proxy: Proxy) -> str:
    """Return what to do about a proxy that wants other credentials."""
    wrong = "refuses the user name and password" if proxy.headers else "wants a user name and password"
    return f"{proxy.name}: the proxy {wrong} (status 407); write http://USER:PASSWORD@HOST:PORT there"


_TOO_FEW_FILES = (
    "limits.concurrency: this process may open no more files, and so no connection: set it lower, or allow more open "
    "files (ulimit -n; LimitNOFILE= in a systemd unit; docker run --ulimit nofile=)"
)


def _is_out_of_files() -> bool:
    """Tell whether no file can be opened: a resolver that cannot open one only says that it failed."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as exc:
        return exc.errno in _OUT_OF_FILES
    return False


def _whose(peer: str | None, host: str, proxy: Proxy | None) -> str:
    return f"the proxy that {proxy.name} names" if proxy is not None and peer != host else host


def _unverified(exc: ssl.SSLCertVerificationError, whose: str) -> str:
    if exc.verify_code in _WRONG_HOST:
        which = "api.base_url" if " " not in whose else "the proxy's address"
        return (
            f"the certificate of {whose} is for another host: is {which} right? "
            "No CA in api.ca_bundle makes up for a wrong name"
        )
    if exc.verify_code in _WRONG_TIME:
        return (
            f"the certificate of {whose} does not verify ({exc.verify_message}): is this machine's clock right? "
            "If it is, the certificate has to be renewed; no CA in api.ca_bundle makes up for that"
        )
    return (
        f"the certificate of {whose} does not verify ({exc.verify_message}): "
        "if a CA of your own signed it, name that CA's file in api.ca_bundle"
    )


def _mismatch(reason: str, whose: str) -> str:
    which = "api.base_url" if " " not in whose else "its address"
    if reason in _OLD_TLS:
        return f"{whose} offers no TLS version that is safe (TLS 1.2 or newer is needed): is {which} right?"
    if reason in _NO_TLS:
        return f"{whose} speaks no TLS on this port (plain HTTP, perhaps): are {which} and its port right?"
    return ""
