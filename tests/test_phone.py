import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.commands import flex_import
from tests.samples_of import sid
from worker.errors import ConfigError
from worker.filter import EXCEL_NUMBER, UnknownValueError
from worker.phone import e164
from worker.template import parse

BRITISH = "+442079460018"


@pytest.mark.parametrize(
    ("region", "text", "number"),
    [
        ("GB", "020 7946 0018", BRITISH),
        ("GB", "(020) 7946-0018", BRITISH),
        ("GB", " 020\u00a07946.0018 ", BRITISH),
        ("GB", "020/7946\u20130018", BRITISH),
        ("GB", "+44 (0)20 7946 0018", BRITISH),
        ("GB", "(+44) 20 7946 0018", BRITISH),
        ("GB", "\uff0b44 20 7946 0018", BRITISH),
        ("GB", "tel:+442079460018", BRITISH),
        ("GB", "442079460018", BRITISH),
        ("GB", "0044 20 7946 0018", BRITISH),
        ("DE", "0044 20 7946 0018", BRITISH),
        ("GB", "٠٢٠ ٧٩٤٦ ٠٠١٨", BRITISH),
        ("DE", "030 12345678", "+493012345678"),
        ("GB", "+49 30 12345678", "+493012345678"),
        ("US", "(202) 456-1111", "+12024561111"),
        ("US", "011 44 20 7946 0018", BRITISH),
    ],
)
def test_a_number_is_brought_to_one_form(region: str, text: str, number: str) -> None:
    """However people of a region write it; a country's code outranks the region."""
    assert e164(region, "mapping.type")(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "4.41E+11",
        "n/a",
        "+",
        "-",
        "0",
        "112",
        "020 7946",
        "020 7946 0018 0",
        "020 7946 0018 / 020 7946 0019",
        "020 7946 0018 x12",
        "020 7946 0018;ext=12",
        "call 020 7946 0018",
        "0800 FLOWERS",
        "++442079460018",
        "+999 2079460018",
        "0" * 300,
        "(" * 9999,
        " " * 9999,
    ],
)
def test_what_is_more_or_less_than_a_number_is_none(text: str) -> None:
    """An extension, a word or a second number would be lost, and a damaged one would reach somebody else."""
    assert e164("GB", "mapping.type")(text) is None


@given(st.text(st.characters(exclude_categories=["Cs"])) | st.text("+0123456789 ()-/tel:", max_size=20))
def test_any_text_is_a_number_or_none(text: str) -> None:
    """What comes out is a plus and digits, and comes out of itself again."""
    write = e164("GB", "mapping.type")
    number = write(text)
    if number is not None:
        assert number[0] == "+"
        assert number[1:].isascii()
        assert number[1:].isdigit()
        assert write(number) == number


@pytest.mark.parametrize(
    ("region", "hint"),
    [
        ("UK", 'did you mean "GB"?'),
        ("gb", 'did you mean "GB"?'),
        ("GBR", "two letters of ISO 3166, as in e164:GB"),
        ("001", "two letters of ISO 3166, as in e164:GB"),
        ('""', "two letters of ISO 3166, as in e164:GB"),
    ],
)
def test_a_region_that_is_none_is_refused_with_a_hint(region: str, hint: str) -> None:
    """Before the first row; many say UK."""
    with pytest.raises(ConfigError) as caught:
        parse(f"{{Phone | e164:{region}}}", "mapping.media_properties.address")
    said = region.strip('"')
    assert str(caught.value) == f'mapping.media_properties.address: filter e164 knows no region "{said}" ({hint})'


def test_in_a_template_nothing_stays_nothing_and_a_bad_number_is_not_told() -> None:
    """The column and the rule are named; the value could be anybody's."""
    template = parse("{Phone | trim | e164:GB | whatsapp}", "mapping.type")
    assert template.render({"Phone": " 020 7946 0018 "}) == f"whatsapp:{BRITISH}"
    assert template.render({"Phone": " "}) is None
    with pytest.raises(UnknownValueError) as caught:
        template.render({"Phone": "07700 900123"})
    assert str(caught.value) == 'column "Phone" has a value that is no valid phone number (e164:GB)'


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a template that has the filter needs it; the message says what to type."""
    monkeypatch.setitem(sys.modules, "phonenumbers", None)
    assert parse("{Phone | digits}", "mapping.type").render({"Phone": "(1)"}) == "1"
    with pytest.raises(ConfigError) as caught:
        parse("{Phone | e164:GB}", "source.key")
    assert str(caught.value) == (
        'source.key: filter e164 needs the extra "phone", which is not installed: pip install "flex-import[phone]"'
    )


async def test_a_row_with_a_bad_number_is_rejected_and_the_others_go_on(tmp_path: Path) -> None:
    """With the field, the column and the rule."""
    mapping = 'channel_sid = "{UO}"\nmedia_properties = { address = "{Phone | e164:GB}" }'
    (tmp_path / "config.toml").write_text(f"[mapping]\n{mapping}\n")
    phones = ("020 7946 0018", "4.41E+11", "020 79")
    rows = [f"{sid('KD', n)},{sid('UO', n)},customer,{phone}" for n, phone in enumerate(phones)]
    (tmp_path / "a.csv").write_text("\n".join(["interaction_sid,UO,type,Phone", *rows, ""]))
    ended = await flex_import("check", "a.csv", "--show", "1", cwd=tmp_path)
    assert ended.code == 1, ended.err
    assert f'"address": "{BRITISH}"' in ended.out
    told = json.loads((await flex_import("check", "a.csv", "--json", cwd=tmp_path)).out)["groups"]
    field = "media_properties.address"
    assert [(one["reason"], one["detail"]) for one in told] == [
        (f'{field}: column "Phone" {EXCEL_NUMBER}', f'{field} is "4.***11"'),
        (f'{field}: column "Phone" has a value that is no valid phone number (e164:GB)', f'{field} is "02***"'),
    ]
