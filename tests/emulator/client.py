"""A plain client for the emulator, which keeps what came back and hides nothing."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from worker.emulator import Emulator, serve

KD = "KD" + "1" * 32
UO = "UO" + "2" * 32
OTHER = "UO" + "3" * 32
ROUTING = {"task_sid": "WT" + "a" * 32, "worker_sid": "WK" + "b" * 32, "reservation_sid": "WR" + "c" * 32}
FORM = {
    "Type": "customer",
    "MediaProperties": json.dumps({"level": "to", "name": "Random Person", "address": "a@b.example", "type": "email"}),
    "RoutingProperties": json.dumps(ROUTING),
}


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back, completely."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    @property
    def code(self) -> int:
        """The code of an error in the classic shape."""
        code = self.json["code"]
        assert isinstance(code, int)
        return code


class Client:
    """Makes the calls of the API."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str) -> None:
        self.session = session
        self.base_url = base_url

    def url(self, channel: str = UO, *, interaction: str = KD) -> str:
        """Return the address of a channel's participants."""
        return f"{self.base_url}/v1/Interactions/{interaction}/Channels/{channel}/Participants"

    async def call(self, method: str, url: str, **options: Any) -> Reply:
        """Make a request and read everything that comes."""
        if url.startswith("/"):
            url = self.base_url + url
        async with self.session.request(method, url, allow_redirects=False, **options) as response:
            return Reply(response.status, response.headers, await response.read())

    async def create(self, channel: str = UO, *, interaction: str = KD, **form: str) -> Reply:
        """Create a participant; the form is a good one unless told otherwise."""
        return await self.call("POST", self.url(channel, interaction=interaction), data={**FORM, **form})

    async def page(self, channel: str = UO, *, query: str = "") -> Reply:
        """List a channel's participants, one page."""
        return await self.call("GET", self.url(channel) + query)

    async def sids(self, channel: str = UO) -> list[str]:
        """Return the sids on the first page of the list."""
        return [entry["sid"] for entry in (await self.page(channel)).json["participants"]]

    async def start(self, emulator: Emulator, channel: str = UO) -> asyncio.Task[Reply]:
        """Send a create and return as soon as it has arrived."""
        arrived = emulator.stats.arrived
        task = asyncio.create_task(self.create(channel))
        await emulator.until(lambda: emulator.stats.arrived > arrived)
        return task

    async def give_up(self, emulator: Emulator, task: asyncio.Task[Reply]) -> None:
        """Leave a create that is in flight, and wait until the service has noticed."""
        in_flight = emulator.stats.in_flight
        task.cancel()
        await asyncio.wait([task])
        await emulator.until(lambda: emulator.stats.in_flight < in_flight)


@asynccontextmanager
async def serving(emulator: Emulator, *, credentials: tuple[str, str] = ("AC1", "secret")) -> AsyncIterator[Client]:
    """Serve an emulator and open a client to it."""
    headers = {"Authorization": aiohttp.encode_basic_auth(*credentials)}
    async with serve(emulator) as base_url, aiohttp.ClientSession(headers=headers) as session:
        yield Client(session, base_url)


class Clock:
    """A clock that goes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now
