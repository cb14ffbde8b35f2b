"""The fuzz targets for answers in short: every seed again, and some examples made of them, always the same ones."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.fuzz import answer, answer_mutation, answer_oracle, wire
from tests.fuzz.__main__ import TARGETS, Target, Trail, shrink
from tests.fuzz.answer import Answered
from tests.fuzz.example import Case, read_as, write
from tests.fuzz.wire import Written
from worker.model import Created, InDoubt, Rejected, Retry
from worker.verdict import judge

ANSWERS, WIRE = answer.seeds(), wire.seeds()


@pytest.mark.parametrize("answered", ANSWERS.values(), ids=ANSWERS)
def test_every_answer_means_what_the_table_says(tmp_path: Path, answered: Answered) -> None:
    """To a create, to a closing, and to a list."""
    answer_oracle.examine(answered, tmp_path)


def test_some_hundred_new_answers_mean_what_the_table_says(tmp_path: Path) -> None:
    """None is believed further than it goes; and they are not all alike."""
    dice, corpus = Random(5), list(ANSWERS.values())
    found = Counter(answer_oracle.examine(answer_mutation.mutate(dice, corpus), tmp_path) for _ in range(600))
    kinds = {kind for outcome in found for kind in outcome.split(", ")}
    assert kinds == {
        *("Created", "Existed", "Rejected", "Failed", "InDoubt", "Retry", "Halt"),
        *("Closed", "Refused", "Listing", "Unlisted"),
    }


@pytest.mark.parametrize("written", WIRE.values(), ids=WIRE)
def test_whatever_a_server_writes_is_an_answer(tmp_path: Path, written: Written) -> None:
    """Or lost, but never an error of somebody else's."""
    wire.examine(written, tmp_path)


def test_some_dozen_new_bytes_are_an_answer(tmp_path: Path) -> None:
    """Whether they are HTTP or not."""
    dice, corpus = Random(7), [one for one in WIRE.values() if not one.stays]
    examples = [replace(wire.mutate(dice, corpus), stays=False) for _ in range(80)]
    assert {wire.examine(one, tmp_path) for one in examples} >= {"Reply", "Lost", "Unlisted"}


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_that_were_kept_are_written_as_they_were_read(name: str) -> None:
    """A line of JSON and the bytes."""
    target: Target[Case] = TARGETS[name]
    one = next(iter(target.seeds().values()))
    for path in target.folder.glob("*.seed"):
        assert write(read_as(type(one), path.read_bytes())) == path.read_bytes()
    assert read_as(type(one), write(one)) == one


LIES: dict[str, tuple[int, bytes, object]] = {
    # what must not be said of an answer
    "a 5xx is rejected": (503, b'{"code": 20404}', Rejected("20404", "no", closes_channel=True)),
    "a 5xx is sent again": (500, b'{"code": 20429}', Retry("20429", "slow down", throttled=True)),
    "a stranger's 404 is rejected": (404, b"<html>", Rejected("404", "no", closes_channel=True)),
    "a stranger's 400 is sent again": (400, b"<html>", Retry("400", "no")),
    "a page is created": (200, b"<html>", Created(answer.UT)),
    "no sid is created": (201, b'{"sid": null}', Created(answer.UT)),
    "another channel is created": (
        201,
        b'{"sid": "%s", "channel_sid": "UO1"}' % answer.UT.encode(),
        Created(answer.UT),
    ),
    "a created one is in doubt": (201, b'{"sid": "%s"}' % answer.UT.encode(), InDoubt("no_sid", "x")),
    "a 429 is in doubt": (429, b"", InDoubt("429", "x")),
    "a redirect is sent again": (302, b"", Retry("302", "x")),
    "a 101 is rejected": (101, b'{"code": 80102}', Rejected("80102", "no")),
    "a name is told": (400, b'{"code": 99999}', Rejected("99999", "Zyxwvut is not welcome")),
    "half a name is told": (400, b'{"code": 99999, "message": "Zyxwvut"}', Rejected("99999", "no, Zyxw")),
    "a reason is endless": (400, b'{"code": 99999}', Rejected("99999", "x" * 641)),
}


@pytest.mark.parametrize(("status", "body", "verdict"), LIES.values(), ids=LIES)
def test_a_verdict_outside_of_the_table_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, verdict: object
) -> None:
    """The oracle does not just repeat what the code says."""
    example = Answered(body, status)
    answer_oracle.examine(example, tmp_path)
    monkeypatch.setattr(answer_oracle, "judge", lambda *_: verdict)
    monkeypatch.setattr(answer_oracle, "without_values", lambda verdict, _: verdict)
    with pytest.raises(AssertionError):
        answer_oracle.examine(example, tmp_path)


def test_a_bug_in_an_answer_is_made_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of the example are the bytes and the status that matter."""
    real: Any = judge

    def believing(reply: Any, row: Any) -> object:
        return Created(answer.UT) if b"UT" in reply.body and reply.status == 201 else real(reply, row)

    monkeypatch.setattr(answer_oracle, "judge", believing)

    def fails(example: Answered) -> bool:
        try:
            answer_oracle.examine(example, tmp_path)
        except (AssertionError, KeyError, TypeError):
            return True
        return False

    small = shrink(Answered(ANSWERS["created-nulls"].content + b"UT", 201, retry_after="7"), fails)
    assert small == Answered(b"UT", 201)


def test_the_trail_of_an_answer_leads_through_what_handles_answers(tmp_path: Path) -> None:
    """So that examples which reach new lines of it are followed."""
    trail = Trail(TARGETS["answers"].under_test)
    with trail:
        answer_oracle.examine(ANSWERS["two-pages"], tmp_path)
        answer_oracle.examine(ANSWERS["classic-without-code"], tmp_path)
    reached = {name.rpartition("/worker/")[2].partition("/")[0].removesuffix(".py") for name, _, _ in trail.steps}
    assert reached == {"api", "mask", "reconcile", "undo", "verdict"}
