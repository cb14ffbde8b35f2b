"""Services that are down for ever, and the real command: it ends in time, whoever waits for what."""

import time
from collections.abc import Mapping
from pathlib import Path

import anyio
import pytest

from tests.commands import QUICK, Ended, flex_import
from tests.samples_of import sid
from worker.emulator import Answer, Behaviour, Call, Emulator, Fault, after, ordinary, serve

SECONDS = 2
ENV = {**QUICK, "FLEX_IMPORT__STOP__OUTAGE_SECONDS": str(SECONDS)}
MOST_SECONDS = SECONDS + 5 + 8
"""From start to end: five more are allowed, some to open the breaker, and the rest is the process's own."""

ROWS = "".join(
    f"{sid('KD', number % 20)},{sid('UO', number % 20)},customer,p{number}@example.com\n" for number in range(100)
)
RUN = ("run", "a.csv", "--rate", "inf")
DOWN = Answer(status=503, code=20503)
BROKEN = Answer(status=500, code=20500)
THROTTLED = Answer(status=429, code=20429)

pytestmark = pytest.mark.timeout(60)


async def command(folder: Path, base_url: str, *words: str, env: Mapping[str, str] = ENV) -> Ended:
    """Run a command over a file of rows; it has to end in time."""
    (folder / "a.csv").write_text("interaction_sid,channel_sid,type,media_properties.address\n" + ROWS)
    began = time.monotonic()
    ended = await flex_import(*words, "--base-url", base_url, cwd=folder, env=env)
    assert time.monotonic() - began < MOST_SECONDS
    return ended


@pytest.mark.parametrize("baseline", ["true", "false"])
async def test_creates_and_lists_are_down(tmp_path: Path, baseline: str) -> None:
    """From the start: the run ends all the same, whether rows wait for baselines or for creates, and made nothing."""
    emulator = Emulator(Behaviour(refusals={Call.CREATE: DOWN, Call.LIST: DOWN}))
    async with serve(emulator) as base_url:
        ended = await command(tmp_path, base_url, *RUN, env={**ENV, "FLEX_IMPORT__DOUBT__BASELINE": baseline})
    assert ended.code == 3, ended.out + ended.err
    assert "down for 2.0 s" in ended.out
    assert "identity holds" in ended.out
    assert emulator.stats.created == 0


async def test_everything_goes_down_in_the_middle(tmp_path: Path) -> None:
    """Some rows are in doubt and wait for lists by then, others for creates."""
    emulator = Emulator()
    emulator.script_next(*[after(Fault.RESET), ordinary()] * 4)

    async def go_down() -> None:
        while emulator.stats.created < 20:  # noqa: ASYNC110 - the emulator has no event for it
            await anyio.sleep(0.01)
        emulator.change(refusals={Call.CREATE: DOWN, Call.LIST: DOWN})

    async with serve(emulator) as base_url, anyio.create_task_group() as tasks:
        tasks.start_soon(go_down)
        ended = await command(tmp_path, base_url, "run", "a.csv", "--rate", "30")
    assert ended.code == 3, ended.out + ended.err
    assert "down for 2.0 s" in ended.out
    assert "identity holds" in ended.out


async def test_only_lists_are_down(tmp_path: Path) -> None:
    """Rows wait for their channels' baselines, which never come."""
    emulator = Emulator(Behaviour(refusals={Call.LIST: BROKEN}))
    async with serve(emulator) as base_url:
        ended = await command(tmp_path, base_url, *RUN)
    assert ended.code == 3, ended.out + ended.err
    assert "(lists: status 500)" in ended.out
    assert "identity holds" in ended.out


async def test_creates_come_back_and_lists_do_not(tmp_path: Path) -> None:
    """What creates answer says nothing about lists."""
    emulator = Emulator(Behaviour(refusals={Call.CREATE: DOWN, Call.LIST: BROKEN}))

    async def come_back() -> None:
        while not emulator.stats.listed:  # noqa: ASYNC110 - the emulator has no event for it
            await anyio.sleep(0.01)
        await anyio.sleep(0.5)
        emulator.change(refusals={Call.LIST: BROKEN})

    async with serve(emulator) as base_url, anyio.create_task_group() as tasks:
        tasks.start_soon(come_back)
        ended = await command(tmp_path, base_url, *RUN)
    assert ended.code == 3, ended.out + ended.err
    assert "(lists: status 500)" in ended.out


async def test_reconciling_alone_while_lists_are_down(tmp_path: Path) -> None:
    """Rows in doubt stay in doubt, and the command ends."""
    emulator = Emulator()
    emulator.script_next(*[after(Fault.RESET)] * 3)
    async with serve(emulator) as base_url:
        await command(tmp_path, base_url, *RUN, env={**ENV, "FLEX_IMPORT__DOUBT__POLICY": "hold"})
        emulator.change(refusals={Call.LIST: BROKEN})
        ended = await command(tmp_path, base_url, "reconcile")
        assert ended.code == 3, ended.out + ended.err
        assert "(lists: status 500)" in ended.out
        emulator.change(refusals={})
        ended = await command(tmp_path, base_url, "reconcile")
    assert ended.code == 4, ended.out + ended.err  # they are listed, and wait for a person: there is no baseline


async def test_nothing_listens(tmp_path: Path) -> None:
    """Every connection is refused."""
    async with serve(Emulator()) as base_url:
        pass
    ended = await command(tmp_path, base_url, *RUN)
    assert ended.code == 3, ended.out + ended.err
    assert "down for 2.0 s" in ended.out
    assert "identity holds" in ended.out


async def test_closings_are_down(tmp_path: Path) -> None:
    """An undo ends as a run does."""
    emulator = Emulator()
    async with serve(emulator) as base_url:
        assert (await command(tmp_path, base_url, *RUN)).code == 0
        emulator.change(refusals={Call.UPDATE: DOWN})
        ended = await command(tmp_path, base_url, "undo", "--all", "--yes")
    assert ended.code == 3, ended.out + ended.err
    assert "(status 503)" in ended.out
    assert emulator.stats.updated == 0


@pytest.mark.parametrize("answer", [THROTTLED, Answer(status=429, code=45780, headers={"Retry-After": "600"})])
async def test_creates_get_nothing_but_429(tmp_path: Path, answer: Answer) -> None:
    """The service is there, but a row that waits for it would wait for a quarter of an hour, and the next one, too."""
    emulator = Emulator(Behaviour(refusals={Call.CREATE: answer}))
    async with serve(emulator) as base_url:
        ended = await command(tmp_path, base_url, *RUN)
        assert ended.code == 3, ended.out + ended.err
        assert f"(nothing but 429 ({answer.code}))" in ended.out
        assert "identity holds" in ended.out
        emulator.change(refusals={})
        assert (await command(tmp_path, base_url, *RUN)).code == 0
    assert emulator.stats.created == 100


async def test_closings_get_nothing_but_429(tmp_path: Path) -> None:
    """An undo ends as a run does."""
    emulator = Emulator()
    async with serve(emulator) as base_url:
        assert (await command(tmp_path, base_url, *RUN)).code == 0
        emulator.change(refusals={Call.UPDATE: THROTTLED})
        ended = await command(tmp_path, base_url, "undo", "--all", "--yes")
    assert ended.code == 3, ended.out + ended.err
    assert "(nothing but 429 (20429))" in ended.out
