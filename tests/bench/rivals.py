"""What one would write instead: loops over a CSV that post each row, with nothing that makes an import safe.

`plain` is the aiohttp loop of a tutorial; `tuned` is what our own stack can do at most; the others are the official
SDK's. Each reads the same file, posts every row once and ends when all were answered.
"""

import argparse
import asyncio
import csv
import json
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import uvloop
from twilio.http.async_http_client import AsyncTwilioHttpClient
from twilio.rest import Client
from yarl import URL

AUTHORIZATION = aiohttp.encode_basic_auth("AC1", "x")


def rows_of(path: Path) -> Iterator[dict[str, str]]:
    """Read the file as everybody does."""
    with path.open(encoding="utf-8", newline="") as stream:
        yield from csv.DictReader(stream)


def media_of(row: dict[str, str]) -> dict[str, str]:
    """Return the media properties of a row."""
    return {
        "address": row["media_properties.address"],
        "name": row["media_properties.name"],
    }


async def in_tasks(rows: Iterator[dict[str, str]], tasks: int, post: Callable[[dict[str, str]], Any]) -> None:
    """Post rows by so many tasks."""

    async def work() -> None:
        for row in rows:
            await post(row)

    await asyncio.gather(*(work() for _ in range(tasks)))


async def plain(base_url: str, path: Path, tasks: int) -> None:
    """Post with aiohttp and nothing else."""
    async with aiohttp.ClientSession(headers={"Authorization": AUTHORIZATION}) as session:

        async def post(row: dict[str, str]) -> None:
            url = f"{base_url}/v1/Interactions/{row['interaction_sid']}/Channels/{row['channel_sid']}/Participants"
            form = {"Type": row["type"], "MediaProperties": json.dumps(media_of(row))}
            async with session.post(url, data=form) as answer:
                answer.raise_for_status()
                (await answer.json())["sid"]

        await in_tasks(rows_of(path), tasks, post)


async def tuned(base_url: str, path: Path, tasks: int) -> None:
    """Post with all that is known to make aiohttp quick: no cookies, encoded addresses, made headers, bytes."""
    headers = {
        "Authorization": AUTHORIZATION,
        "Accept": "application/json",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    connector = aiohttp.TCPConnector(limit=tasks)
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), headers=headers
    ) as session:

        async def post(row: dict[str, str]) -> None:
            place = f"/v1/Interactions/{row['interaction_sid']}/Channels/{row['channel_sid']}/Participants"
            body = urlencode({"Type": row["type"], "MediaProperties": json.dumps(media_of(row))}).encode()
            async with session.post(URL(base_url + place, encoded=True), data=body, allow_redirects=False) as answer:
                if answer.status >= 300:
                    raise RuntimeError(answer.status)
                json.loads(await answer.read())["sid"]

        await in_tasks(rows_of(path), tasks, post)


async def sdk_async(base_url: str, path: Path, tasks: int) -> None:
    """Post with the official SDK's asynchronous client."""
    async with AsyncTwilioHttpClient() as http:
        client = Client("AC1", "x", http_client=http)
        client.flex_api.base_url = base_url

        async def post(row: dict[str, str]) -> None:
            channel = client.flex_api.v1.interaction(row["interaction_sid"]).channels(row["channel_sid"])
            await channel.participants.create_async(type=row["type"], media_properties=media_of(row))

        await in_tasks(rows_of(path), tasks, post)


async def sdk_threads(base_url: str, path: Path, tasks: int) -> None:
    """Post with the official SDK's ordinary client, by so many threads."""
    client = Client("AC1", "x")
    client.flex_api.base_url = base_url

    def post(row: dict[str, str]) -> None:
        channel = client.flex_api.v1.interaction(row["interaction_sid"]).channels(row["channel_sid"])
        channel.participants.create(type=row["type"], media_properties=media_of(row))

    with ThreadPoolExecutor(tasks) as pool:
        list(pool.map(post, rows_of(path)))


RIVALS: dict[str, Callable[[str, Path, int], Coroutine[Any, Any, None]]] = {
    "plain": plain,
    "tuned": tuned,
    "sdk_async": sdk_async,
    "sdk_threads": sdk_threads,
}


def main() -> None:
    """Post a file, and print how long that took without the start of the interpreter."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.rivals", description=__doc__)
    parser.add_argument("rival", choices=RIVALS)
    parser.add_argument("base_url")
    parser.add_argument("file", type=Path)
    parser.add_argument("--tasks", type=int, default=64)
    parser.add_argument("--uvloop", action="store_true")
    given = parser.parse_args()
    began = time.perf_counter()
    work = RIVALS[given.rival](given.base_url, given.file, given.tasks)
    if given.uvloop:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work)
    else:
        asyncio.run(work)
    print(json.dumps({"seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    main()
