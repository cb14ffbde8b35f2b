"""The loop that one writes first: so many tasks over the official SDK's asynchronous client, with its retries on.

`max_retries` of AsyncTwilioHttpClient becomes `ExponentialRetry(attempts=max_retries)` of aiohttp-retry with nothing
else set: it repeats a POST after any 5xx, and never after a 429, which it raises at once (twilio 9.13,
twilio/http/async_http_client.py). Whoever is throttled is therefore lost, and the loop goes on. `--repeat 429` reaches
into the client to have that status repeated, too, which no parameter of the SDK can.
"""

import argparse
import asyncio
import json
import signal
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import count

from twilio.base.exceptions import TwilioException
from twilio.http.async_http_client import AsyncTwilioHttpClient
from twilio.rest import Client

from tests.samples_of import sid

MAX_RETRIES = 5


async def add(client: Client, number: int, ends: Counter[str]) -> None:
    """Add one participant to a channel of its own, and count how it ended."""
    channel = client.flex_api.v1.interaction(sid("KD", number)).channels(sid("UO", number))
    try:
        await channel.participants.create_async(
            type="customer", media_properties={"address": f"person.{number}@example.com"}
        )
    except (TwilioException, OSError) as exc:
        status = getattr(exc, "status", None)
        ends[f"refused_{status}" if status else "broken"] += 1
    else:
        ends["created"] += 1


async def loop(base_url: str, tasks: int, seconds: float, repeat: set[int]) -> Counter[str]:
    """Create until SIGTERM, or until the time is up; return how often what happened."""
    ends: Counter[str] = Counter()
    async with AsyncTwilioHttpClient(max_retries=MAX_RETRIES) as http:
        http.session.retry_options.statuses = repeat
        client = Client("AC1", "x", http_client=http)
        client.flex_api.base_url = base_url
        numbers = count()

        async def work() -> None:
            while True:
                await add(client, next(numbers), ends)

        async def work_in_tasks() -> None:
            async with asyncio.TaskGroup() as group:
                for _ in range(tasks):
                    group.create_task(work())

        working = asyncio.create_task(work_in_tasks())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
        with suppress(asyncio.CancelledError, TimeoutError):
            await asyncio.wait_for(working, seconds)
    return ends


def main(arguments: Sequence[str] | None = None) -> None:
    """Loop, and print what happened as a JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sdk_loop", description=__doc__)
    parser.add_argument("base_url")
    parser.add_argument("--tasks", type=int, default=16, help="how many at once (16)")
    parser.add_argument("--seconds", type=float, default=60, help="when to end (60)")
    parser.add_argument("--repeat", type=int, action="append", default=[], help="a status that is repeated, too")
    options = parser.parse_args(arguments)
    ends = asyncio.run(loop(options.base_url, options.tasks, options.seconds, set(options.repeat)))
    print(json.dumps(ends))


if __name__ == "__main__":
    main()
