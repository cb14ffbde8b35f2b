"""Puts an emulator on a port, tells other processes the truth, and lets them steer."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from itertools import islice
from typing import Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from worker.emulator import reply
from worker.emulator.behaviour import PLAIN, read_settings
from worker.emulator.desk import Desk
from worker.emulator.emulator import Emulator

_BACKLOG: Final = 1024
_LINES_AT_ONCE: Final = 500
_SHUTDOWN_SECONDS: Final = 0.2  # only a client that stops in the middle of a request makes it last so long


@asynccontextmanager
async def serve(emulator: Emulator, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve an emulator while the block lasts; yields its base URL, such as `http://127.0.0.1:40123`.

    Port 0 takes a free one. Leaving the block cuts what waits and makes at once what was to be made, in well under a
    second. The same emulator can be served again, with all it knows. Raises OSError when the port is not to be had.
    """
    desk = Desk(emulator, aside=_Aside(emulator).answer)
    runner = web.ServerRunner(_Server(desk), shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=_BACKLOG).start()
        bound = runner.addresses[0][1]
        yield f"http://{f'[{host}]' if ':' in host else host}:{bound}"
    finally:
        desk.close()
        emulator.hurry()
        await runner.cleanup()


class _Server(web.Server):
    """A server that tells when a client goes, and never cancels a request because of it."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk.answer, handler_cancellation=False, access_log=None)
        self._lose_client: Callable[[RequestHandler], None] = desk.lose_client

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        self._lose_client(handler)
        super().connection_lost(handler, exc)


class _Aside:
    """Answers what is no call of the API."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Tell the truth, change the behaviour, count who follows a redirect, and know nothing else."""
        match request.method, request.path:
            case "GET", "/emulator/stats":
                return web.json_response(asdict(self._emulator.stats))
            case "GET", "/emulator/truth":
                return await self._tell(request)
            case "POST", "/emulator/behaviour":
                return await self._change(request)
            case _, reply.REDIRECTED:
                self._emulator.truth.counts["redirects_followed"] += 1
                return web.json_response({})
            case _:
                return reply.render_error(
                    20404, "The requested resource was not found", self._emulator.behaviour.error_shape, {}
                )

    async def _change(self, request: web.BaseRequest) -> web.Response:
        try:
            self._emulator.change(**read_settings(await request.read()))
        except ValueError as exc:
            return web.json_response({"message": str(exc)}, status=400)
        return web.json_response({name: getattr(self._emulator.behaviour, name) for name in PLAIN})

    async def _tell(self, request: web.BaseRequest) -> web.StreamResponse:
        if not self._emulator.truth.remember:
            return web.json_response({"message": "This emulator only keeps counters: see /emulator/stats"}, status=409)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        participants = iter(self._emulator.participants)
        while batch := list(islice(participants, _LINES_AT_ONCE)):
            await response.write(b"".join(json.dumps(asdict(one)).encode() + b"\n" for one in batch))
        return response
