"""Steering from another process: what a running emulator can be told over its port."""

import json
from pathlib import Path

import pytest

from worker.emulator import Behaviour, Emulator
from worker.emulator.behaviour import PLAIN

from .client import Clock, serving

DOCS = Path(__file__).parents[2] / "docs" / "emulator.md"
LIMITS = {"rate_per_second": 2, "list_rate_per_second": 1.5, "concurrency": 7, "retry_after_seconds": 3.0}


async def test_another_process_can_change_the_limits() -> None:
    """The new settings hold from the next request, come back in the answer, and null takes a limit away."""
    emulator = Emulator(Behaviour(rate_per_second=1), clock=Clock())
    async with serving(emulator) as client:
        assert [(await client.create()).status for _ in range(2)] == [201, 429]
        changed = await client.call("POST", "/emulator/behaviour", json=LIMITS)
        assert (changed.status, changed.json) == (
            200,
            {**{name: getattr(Behaviour(), name) for name in PLAIN}, **LIMITS},
        )
        assert [(await client.create()).status for _ in range(2)] == [201, 429]
        await client.call("POST", "/emulator/behaviour", json=dict.fromkeys(LIMITS))
        assert (await client.create()).status == 201
    assert emulator.behaviour == Behaviour()


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("", "the settings must be a JSON object"),
        ("[1]", "the settings must be a JSON object"),
        ("[" * 100_000, "the settings must be a JSON object"),
        ('{"rate": 1}', f"rate is no setting that can be changed here; those are {', '.join(PLAIN)}"),
        ('{"refusals": null}', f"refusals is no setting that can be changed here; those are {', '.join(PLAIN)}"),
        ('{"rate_per_second": "9"}', "rate_per_second must be a number or null"),
        ('{"rate_per_second": true}', "rate_per_second must be a number or null"),
        ('{"rate_per_second": NaN}', "rate_per_second must be a number or null"),
        (f'{{"rate_per_second": 1{"0" * 400}}}', "rate_per_second must be a number or null"),
        ('{"latency_seconds": null}', "latency_seconds must be a number"),
        ('{"concurrency": 2.5}', "concurrency must be a whole number"),
        ('{"concurrency": -1}', "concurrency is -1, but it cannot be negative"),
        ('{"created_status": 204}', "created_status is 204, but the API answers 201 or 200"),
        (
            '{"participants_per_channel": 3}',
            "refuse_members and participants_per_channel need an emulator that remembers",
        ),
    ],
)
async def test_a_setting_that_cannot_be_is_refused_and_changes_nothing(body: str, sentence: str) -> None:
    """The answer is 400 with a sentence, and what stands beside the bad setting is not taken over either."""
    emulator = Emulator(Behaviour(latency_jitter_seconds=0.25), remember=False)
    before = emulator.behaviour
    async with serving(emulator) as client:
        for text in (body, body.replace("{", '{"latency_jitter_seconds": 0, ')):
            refused = await client.call("POST", "/emulator/behaviour", data=text)
            assert (refused.status, refused.json) == (400, {"message": sentence})
        assert (await client.call("GET", "/emulator/behaviour")).status == 404
    assert emulator.behaviour is before


async def test_the_counters_tell_when_they_were_taken() -> None:
    """A rate can be had from two looks at the counters, by the emulator's own clock."""
    clock = Clock()
    async with serving(Emulator(clock=clock)) as client:
        first = (await client.call("GET", "/emulator/stats")).json
        clock.now += 0.5
        assert (await client.call("GET", "/emulator/stats")).json == {**first, "at": first["at"] + 0.5}


def test_every_setting_that_can_be_changed_is_in_the_docs() -> None:
    """The list in the docs is the list in the code."""
    text = DOCS.read_text("utf-8")
    assert [name for name in PLAIN if f"`{name}`" not in text] == []
    assert json.loads(text.partition("--json '")[2].partition("'")[0]).keys() <= PLAIN.keys()
