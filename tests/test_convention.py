from typing import Any

import pytest

from tests.samples_of import sid
from worker.filter import EXCEL_NUMBER, is_excel_number
from worker.model import Draft, Misfit, Problem, Record
from worker.payload import Mapper
from worker.payload.convention import damage, oddities
from worker.payload.fault import Fault, mask

MAIL = {"address": "ada@example.org", "name": "Ada", "level": "to", "type": "email"}
SMS = {"address": "+441632960123", "proxy_address": "+15550000001"}
WHATSAPP = {"address": "whatsapp:+441632960123", "proxy_address": "whatsapp:+15550000001"}
PLUS = "media_properties.address: has no + before its digits (lost in a spreadsheet?)"
PROXY = "media_properties.proxy_address: is missing; SMS and WhatsApp have one"
ONE = "; the API wants one of them (45351)"


def said(media: dict[str, Any], routing: dict[str, Any] | None = None) -> list[str]:
    """Return what is unusual."""
    return [fault.sentence for fault in oddities(media, routing)]


@pytest.mark.parametrize(
    "media",
    [
        MAIL,
        {**MAIL, "level": "bcc"},
        {"address": "ada@example.org"},
        SMS,
        WHATSAPP,
        {"identity": "ada_1"},
        {"identity": "4711"},
        {"address": "messenger:4711", "colour": 1},
        {"address": 4711},
    ],
)
def test_what_the_documentation_shows_is_not_unusual(media: dict[str, Any]) -> None:
    """Mail, SMS, WhatsApp, chat, and channels of which nothing is known."""
    assert said(media) == []


@pytest.mark.parametrize(
    ("media", "sentences"),
    [
        ({}, [f"media_properties: has neither an address nor an identity{ONE}"]),
        ({**MAIL, "identity": "x"}, [f"media_properties: has both an address and an identity{ONE}"]),
        ({**MAIL, "address": "ada"}, ["media_properties.address: has no @, and its type is email"]),
        ({**MAIL, "level": "from"}, ["media_properties.level: is not to, cc or bcc"]),
        ({**MAIL, "level": ["to"]}, ["media_properties.level: is not to, cc or bcc"]),
        ({**MAIL, "proxy_address": "x"}, ["media_properties.proxy_address: an e-mail has none"]),
        ({**SMS, "address": "441632960123"}, [PLUS]),
        ({**WHATSAPP, "address": "whatsapp:441632960123"}, [PLUS]),
        ({**SMS, "address": "(0163) 296 0123"}, ["media_properties.address: is no phone number like +441632960123"]),
        ({**SMS, "address": "+0163296"}, ["media_properties.address: is no phone number like +441632960123"]),
        ({"address": "+441632960123"}, [PROXY]),
        (
            {**WHATSAPP, "proxy_address": "+15550000001"},
            ["media_properties.proxy_address: has no whatsapp: before it, and the other one has"],
        ),
        (
            {**SMS, "proxy_address": "whatsapp:+15550000001"},
            ["media_properties.address: has no whatsapp: before it, and the other one has"],
        ),
        ({"address": "441632960123"}, [PLUS, PROXY]),
    ],
)
def test_a_broken_convention_is_named(media: dict[str, Any], sentences: list[str]) -> None:
    """Each with its place; the sentence is the same for all such rows, so that they make one group."""
    assert said(media) == sentences


def test_routing_sids_have_their_forms() -> None:
    """Those that are there; other keys and absent routing say nothing."""
    right = {"task_sid": sid("WT", 1), "worker_sid": sid("WK", 1), "reservation_sid": sid("WR", 1), "x": 1}
    assert said(SMS, right) == []
    assert said(SMS, {"task_sid": None}) == []
    assert said(SMS, {"task_sid": sid("WK", 1), "worker_sid": 5}) == [
        "routing_properties.task_sid: is not WT and 32 hexadecimal digits",
        "routing_properties.worker_sid: is not WK and 32 hexadecimal digits",
    ]


@pytest.mark.parametrize("text", ["4.41E+11", "4,41E+11", "4E+11", "-1.2e+9", "+4.41E+11", "whatsapp:4.41E+11"])
def test_an_excel_number_is_known(text: str) -> None:
    """As spreadsheets write it, in any language."""
    assert is_excel_number(text)
    for name in ("address", "proxy_address", "identity"):
        assert damage({name: text}) == [Fault(f"media_properties.{name}", EXCEL_NUMBER, text)]


@pytest.mark.parametrize("text", ["", "+441632960123", "4.41E11", "E+11", "4.41E+", "ada+1E+2@x.org", "4.41E+1234"])
def test_other_texts_are_no_excel_numbers(text: str) -> None:
    """Nothing that could be a person's address."""
    assert not is_excel_number(text)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("", "***"),
        ("ab", "***"),
        ("ada", "a***"),
        ("j.smith", "j.***"),
        ("ada.lovelace@example.org", "ada***"),
        ("4.41E+11", "4.***11"),
        ("+441632960123", "+44***23"),
        ("1234567", "12***"),
    ],
)
def test_a_masked_value_shows_a_third_at_most(text: str, masked: str) -> None:
    """Enough to find it in a file; of long numbers the last digits too."""
    assert mask(text) == masked


# ---- in a record ----------------------------------------------------------------------------------------------------

GOOD = {"interaction_sid": sid("KD", 1), "channel_sid": sid("UO", 1), "type": "customer"}


def mapped(values: dict[str, Any], key: str = "", *, strict: bool = False) -> Draft | Misfit:
    """Return what becomes of a record."""
    return Mapper(None, key, strict=strict).map(Record(2, "x\n", {**GOOD, **values}), 1)


def test_what_is_unusual_is_sent_with_a_warning_and_refused_when_strict() -> None:
    """A convention is no rule; who wants it to be one says so."""
    unusual = {"media_properties": {"address": "441632960123"}}
    draft = mapped(unusual)
    assert isinstance(draft, Draft)
    assert draft.warnings == (PLUS, PROXY)
    misfit = mapped(unusual, strict=True)
    assert isinstance(misfit, Misfit)
    assert misfit.problem == Problem("invalid", f"{PLUS}; {PROXY}", 'media_properties.address is "441***23"')


def test_damage_is_an_error_beside_all_others() -> None:
    """Strict or not; every value is shown, masked."""
    misfit = mapped({"type": "Customer", "media_properties.address": "4.41E+11"})
    assert isinstance(misfit, Misfit)
    assert misfit.problem.reason == (
        f"type: must be agent, customer, supervisor, external or unknown; media_properties.address: {EXCEL_NUMBER}"
    )
    assert misfit.problem.detail == 'type is "Cu***"; media_properties.address is "4.***11"'


@pytest.mark.parametrize(("number", "fits"), [("4.41E+11", False), ("4711", True), ("E+1", True)])
def test_a_damaged_key_is_no_key(number: str, *, fits: bool) -> None:
    """Other rows have got the same one by the same damage."""
    made = mapped({"media_properties": MAIL, "ID": number}, "agent:{ID}")
    assert isinstance(made, Draft) is fits
    if isinstance(made, Misfit):
        assert made.problem == Problem("invalid", f'source.key: column "ID": {EXCEL_NUMBER}', made.problem.detail)
        assert made.problem.detail == 'source.key: column "ID" is "4.***11"'
