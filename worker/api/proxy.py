"""Which proxy requests go through, if any."""

from contextlib import suppress
from dataclasses import dataclass, field
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from worker.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy. name: the setting or variable that names it. url: its address without credentials.

    headers: its credentials, apart from the address, so that no message can show them.
    """

    name: str
    url: URL
    headers: dict[str, str] = field(repr=False)


def proxy_for(base_url: str, proxy: str, *, trust_environment: bool) -> Proxy | None:
    """Return the proxy for this address, None without one.

    trust_environment: whether HTTPS_PROXY and NO_PROXY count when no proxy is named. aiohttp could look there itself,
    but would read ~/.netrc, too, for every request. Raises ConfigError, which does not show the value either.
    """
    url = URL(base_url)
    name = "api.proxy"
    if not proxy and trust_environment and not proxy_bypass(f"{url.host_subcomponent}:{url.port}"):
        name = f"{url.scheme.upper()}_PROXY"
        proxy = getproxies().get(url.scheme, "")
    if not proxy:
        return None
    with suppress(ValueError):
        found = URL(proxy)
        user, password = found.user or "", found.password or ""
        # aiohttp makes Proxy-Authorization of it, in a CONNECT and in a plain request alike
        known = {"Authorization": aiohttp.encode_basic_auth(user, password)} if user or password else {}
        if found.scheme in {"http", "https"} and found.host and found.port and (user + password).isprintable():
            return Proxy(name, found.origin(), known)
    raise ConfigError(f"{name}: must be an http:// or https:// address, as http://proxy.example:3128")
