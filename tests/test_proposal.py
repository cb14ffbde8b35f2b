import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.samples_of import sid
from worker.config import Settings, as_toml, load
from worker.errors import ConfigError
from worker.payload import Mapper
from worker.proposal import File, Sample, choose, write
from worker.proposal.sample import MOST_RECORDS, MOST_WORDS
from worker.proposal.word import first_word, likeness, role_of, tokens

FILE = File("export.csv", "in/export.csv")
OWN = ["interaction_sid", "channel_sid", "type", "media_properties.address"]


def sampled(header: Sequence[str], *rows: Sequence[Any]) -> Sample:
    """Return a sample of these rows."""
    sample = Sample(header)
    for row in rows:
        sample.take(dict(zip(header, row, strict=True)))
    return sample


def proposed(header: Sequence[str], *rows: Sequence[Any], file: File = FILE) -> str:
    """Return the proposal for these rows."""
    sample = sampled(header, *rows)
    return write(file, sample, choose(sample))


def loaded(text: str) -> Settings:
    """Return the settings that a proposal gives."""
    path = Path("config.toml")
    path.write_text(text, encoding="utf-8")
    return load(path, {}, {}).settings


def uncommented(text: str) -> dict[str, Any]:
    """Return what a proposal says once the signs before its settings are taken away."""
    wanted = [re.sub(r'^# (?=\[|"[^"]*" = |[a-z_]+ = )', "", line) for line in text.splitlines()]
    return tomllib.loads("\n".join(wanted))


def unwrapped(text: str) -> str:
    """Return a proposal with its comments on one line."""
    return text.replace("\n# ", " ")


def squeezed(text: str) -> str:
    """Return a text without what wrapping a comment may change."""
    return re.sub(r"[\s#]", "", text)


def kd(number: int) -> str:
    """Return an interaction's sid."""
    return sid("KD", number)


def uo(number: int) -> str:
    """Return a channel's sid."""
    return sid("UO", number)


MAPPINGS: dict[str, tuple[list[str], list[list[Any]], dict[str, Any], str]] = {
    # header, rows, the mapping without what is not set, the key
    "values say more than names": (
        ["ID", "Channel", "Interaction", "Type", "Contact"],
        [["a1", kd(1), uo(1), "email", "ada@x.org"], ["a2", kd(2), uo(2), "email", "bob@x.org"]],
        {
            "interaction_sid": "{Channel}",
            "channel_sid": "{Interaction}",
            "type": "customer",
            "media_properties": {"address": "{Contact}", "level": "to", "type": "email"},
        },
        "export:{ID}",
    ),
    "names alone": (
        ["InteractionSid", "Channel SID", "Participant-Type", "E-Mail", "FirstName", "LastName", "WorkerSid"],
        [],
        {
            "interaction_sid": "{InteractionSid}",
            "channel_sid": "{Channel SID}",
            "type": "{Participant-Type}",
            "media_properties": {
                "address": "{E-Mail}",
                "name": "{FirstName} {LastName}",
                "level": "to",
                "type": "email",
            },
            "routing_properties": {"worker_sid": "{WorkerSid}"},
        },
        "",
    ),
    "German": (
        ["Vorgang", "KD", "UO", "Rolle", "Vorname", "Name", "Handynummer"],
        [
            [1, kd(1), uo(1), "Kunde", "Ada", "Abel", "+49 171 22"],
            [1, kd(1), uo(1), "Teamleiter", "B", "C", "+49 17 1"],
        ],
        {
            "interaction_sid": "{KD}",
            "channel_sid": "{UO}",
            "type": "{Rolle | map:kind}",
            "media_properties": {"address": "{Handynummer | digits}", "name": "{Vorname} {Name}"},
        },
        "",
    ),
    "French": (
        ["Identifiant", "kd", "uo", "Fonction", "Prénom", "Nom", "Téléphone"],
        [["x", kd(1), uo(1), " Conseiller", "Ada", "Abel", "0612345678"]] * 2,
        {
            "interaction_sid": "{kd}",
            "channel_sid": "{uo}",
            "type": "{Fonction | trim | map:kind}",
            "media_properties": {"address": "{Téléphone}", "name": "{Prénom} {Nom}"},
        },
        "",
    ),
    "Spanish": (
        ["kd", "uo", "rol", "Nombre", "Apellidos", "Correo electrónico"],
        [[kd(1), uo(1), "agent", "Ada", "Abel", "a@x.es"], [kd(2), uo(2), "customer", "B", "C", "b@x.es"]],
        {
            "interaction_sid": "{kd}",
            "channel_sid": "{uo}",
            "type": "{rol}",
            "media_properties": {
                "address": "{Correo electrónico}",
                "name": "{Nombre} {Apellidos}",
                "level": "to",
                "type": "email",
            },
        },
        "",
    ),
    "agents with a login and routing": (
        ["AgentNr", "k", "u", "Login", "t", "w", "r"],
        [[n, kd(n), uo(n), f"login{n}", sid("WT", n), sid("WK", n), sid("WR", n)] for n in range(1, 4)],
        {
            "interaction_sid": "{k}",
            "channel_sid": "{u}",
            "type": "customer",
            "media_properties": {"identity": "{Login}"},
            "routing_properties": {"task_sid": "{t}", "worker_sid": "{w}", "reservation_sid": "{r}"},
        },
        "export:{AgentNr}",
    ),
    "whole JSON": (
        ["k", "u", "body", "route"],
        [[kd(1), uo(1), '{"address": "a@x.org"}', {"task_sid": sid("WT", 1)}]],
        {
            "interaction_sid": "{k}",
            "channel_sid": "{u}",
            "type": "customer",
            "media_properties": "{body}",
            "routing_properties": "{route}",
        },
        "",
    ),
    "WhatsApp, without a +": (
        ["k", "u", "WhatsApp", "Birthday"],
        [[kd(1), uo(1), "(0171) 2233-44", "1970-01-01"], [kd(1), uo(1), "0049 171 22", "1971-02-02"]],
        {
            "interaction_sid": "{k}",
            "channel_sid": "{u}",
            "type": "customer",
            "media_properties": {"address": "{WhatsApp | digits | whatsapp}"},
        },
        "",
    ),
    "more numbers than addresses": (
        ["k", "u", "mail", "msisdn"],
        [[kd(1), uo(1), "", "4915112345678"], [kd(2), uo(2), "a@x.org", "4915112345679"]],
        {
            "interaction_sid": "{k}",
            "channel_sid": "{u}",
            "type": "customer",
            "media_properties": {"address": "{msisdn}"},
        },
        "",
    ),
    "own names, and others": (
        [*OWN, "Notes"],
        [[kd(1), uo(1), "Agent", "a@x.org", "n"]],
        {"type": "{type | map:kind}"},
        "",
    ),
    "own names, and a better type": (
        [*OWN, "Role"],
        [[kd(1), uo(1), "email", "a@x.org", "agent"]],
        {"type": "{Role}"},
        "",
    ),
    "own names, and what nobody reads": ([*OWN, "Notes"], [[kd(1), uo(1), "agent", "a@x.org", "n"]], {}, ""),
    "odd names": (
        ["a|b", '"k"', "u}", "Ro{le"],
        [["a@x.org", kd(1), uo(1), "Agent"]],
        {
            "interaction_sid": '{"""k"""}',
            "channel_sid": '{"u}"}',
            "type": '{"Ro{le" | map:kind}',
            "media_properties": {"address": '{"a|b"}', "level": "to", "type": "email"},
        },
        "",
    ),
}


@pytest.mark.parametrize("case", MAPPINGS)
def test_the_most_plausible_column_is_proposed_for_each_field(case: str) -> None:
    """By what values look like, and by names in four languages; the config works for this header as it is."""
    header, rows, mapping, key = MAPPINGS[case]
    settings = loaded(proposed(header, *rows))
    assert settings.mapping is not None
    assert settings.mapping.model_dump(exclude_none=True) == mapping
    assert settings.source.key == key
    Mapper(settings.mapping, key, maps=settings.map).check_columns(header, "export.csv:1")


@pytest.mark.parametrize(
    ("header", "row", "key"),
    [
        (OWN, ["", "", "agent", "a@x.org"], ""),
        ([*OWN, "ID"], ["", "", "customer", "a@x.org"], "export:{ID}"),
        (["interaction_sid", "channel_sid", "type", "media_properties"], ["", "", "", '{"address": "a"}'], ""),
    ],
)
def test_our_own_columns_need_no_mapping(header: list[str], row: list[str], key: str) -> None:
    """Also beside an id that is the key."""
    rows = [[*row, str(number)][: len(header)] for number in range(2)]
    text = proposed(header, *rows)
    settings = loaded(text)
    assert settings.mapping is None
    assert "no [mapping] is needed" in text
    assert settings.source.key == key
    Mapper(None, key).check_columns(header, "export.csv:1")


def test_roles_are_listed_with_the_type_that_is_clear() -> None:
    """A person says what the others become; until then their rows are rejected."""
    words = ["Agent", "Client", "Call Center Supervisor", "Springer", "Customer Service Agent", "Extern", "n/a"]
    text = proposed(["Role"], *([word] for word in words))
    assert loaded(text).map == {
        "kind": {
            "Agent": "agent",
            "Client": "customer",
            "Call Center Supervisor": "supervisor",
            "Extern": "external",
        }
    }
    assert set(uncommented(text)["map"]["kind"]) == {*words, "*"}


def test_what_may_be_about_a_person_is_not_listed_among_roles() -> None:
    """Addresses, numbers and long texts are counted only."""
    text = proposed(["Role"], ["Agent"], ["Agent"], ["ada@x.org"], ["0171 2233"], ["long " * 20])
    assert list(uncommented(text)["map"]["kind"]) == ["Agent", "*"]
    assert "and 3 more" in text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Type", ["email", "sms"]),
        ("Kind", ["Ada Abel", "Bob Baker", "Agent"]),
        ("Team", ["North", "South", "Agent"]),
        ("Role", [f"role {word}" for word in "abcdefghijklmnopqrstuvwxyz"]),
        ("Role", ["a@x.org", "b@x.org"]),
    ],
)
def test_a_column_that_is_not_one_of_roles_gives_none_of_its_values_away(name: str, words: list[str]) -> None:
    """Few values are not enough, and neither is a name."""
    text = proposed([name], *([word] for word in words))
    assert loaded(text).map == {}
    assert not [word for word in words if word in text]


def test_no_value_but_a_role_is_in_a_proposal() -> None:
    """A config is shown around; what is in the file is not."""
    planted = [
        "Planted",
        "Ada",
        "Abel",
        "ada@planted.example",
        "+44 20 7946 0999",
        "planted-id",
        '{"address": "planted"}',
    ]
    header = ["Notes", "First name", "Last name", "Email", "Phone", "ID", "Media"]
    text = proposed(["Role", *header], ["Agent", *planted], ["Agent", *(f"{value}2" for value in planted)])
    assert '"Agent"' in text
    assert not re.search("planted|Ada|Abel|7946", text, re.IGNORECASE)


# ---- keys -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "rows", "key", "others"),
    [
        (["ConvID", "Row No", "x"], [["c1", "1", "a"], ["c2", "2", "b"]], "{Row No}", ["ConvID", "x"]),
        (["ConvID", "x"], [["c1", "a"], ["c2", "a"]], "{ConvID}", []),
        (["ID", "x"], [["1", "a"], ["1 ", "b"]], "", ["x"]),
        (["ID", "x"], [["1", "a"], [" ", "b"]], "", ["x"]),
        (["ID"], [["1"]], "", []),
        (["Email", "Phone Number", "UO id"], [["a@x.org", "017122", uo(1)], ["b@x.org", "017123", uo(2)]], "", []),
    ],
)
def test_a_key_is_an_id_that_no_two_rows_share(
    header: list[str], rows: list[list[str]], key: str, others: list[str]
) -> None:
    """Never empty, no address, no sid; further candidates are named."""
    text = proposed(header, *rows)
    assert loaded(text).source.key == (key and f"export:{key}")
    choice = choose(sampled(header, *rows))
    assert choice.others == others
    assert all(f'"{other}"' in unwrapped(text) for other in others)


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("export.csv", "export"),
        ("/a/2024-Agents_old.csv.gz", "agents"),
        ("a b.csv", "a"),
        ("2024.csv", "row"),
        (".csv", "row"),
        ("Übersicht.csv", "übersicht"),
    ],
)
def test_a_key_begins_with_the_first_word_of_the_file_s_name(path: str, word: str) -> None:
    """So that the ids of two systems stay apart."""
    assert first_word(path) == word


def test_a_sample_ends_when_more_would_tell_nothing() -> None:
    """After 10,000 rows only what may be unique is looked for, and not for ever."""
    sample = Sample(["ID"])
    while not sample.enough:
        sample.take({"ID": sample.records})
    assert sample.records == MOST_RECORDS
    assert sample.columns[0].words is None
    sample = Sample(["ID"])
    while not sample.enough:
        sample.take({"ID": sample.records % (MOST_WORDS + 1)})
    assert sample.records == 10_000


def test_a_sample_keeps_few_keys_however_many_columns_there_are() -> None:
    """Memory does not grow with the width of a file."""
    sample = Sample([f"c{number}" for number in range(100)])
    while not sample.enough:
        sample.take(dict.fromkeys((column.name for column in sample.columns), sample.records))
    assert sample.records == 10_000
    sample = Sample()
    while not sample.enough:
        sample.take({f"c{sample.records}": 1})
    assert len(sample.columns) == 1_001


def test_columns_of_records_without_a_header_are_found_as_they_come() -> None:
    """One that the first record does not have is in no row's key."""
    sample = Sample()
    for record in ({"ID": 1, "KD": kd(1)}, {"ID": 2, "No": 7, "UO": uo(1), "": 5}, {"ID": 3, "": 6}):
        sample.take(record)
    text = write(FILE, sample, choose(sample))
    settings = loaded(text)
    assert settings.mapping is not None
    assert (settings.mapping.interaction_sid, settings.mapping.channel_sid) == ("{KD}", "{UO}")
    assert settings.source.key == "export:{ID}"
    assert 'Read by nothing above, so not sent: "No", ""' in text


# ---- what cannot be known -------------------------------------------------------------------------------------------


def test_without_sids_a_lookup_is_proposed_in_comments() -> None:
    """They have to come from somewhere, and check leads there until they do."""
    header = ["Nr", "Conversation ID", "Email"]
    text = proposed(header, ["1", "c|1", "a@x.org"])
    settings = loaded(text)
    with pytest.raises(ConfigError, match=r'no column "interaction_sid".*say in'):
        Mapper(settings.mapping).check_columns(header, "export.csv:1")
    meant = uncommented(text)
    assert meant["mapping"]["interaction_sid"] == "{Conversation ID | lookup:interactions.interaction_sid}"
    assert meant["mapping"]["channel_sid"] == "{Conversation ID | lookup:interactions.channel_sid}"
    assert meant["lookup"] == {"interactions": {"file": "interactions.csv", "key": "Conversation ID"}}


def test_one_sid_of_two_is_looked_up() -> None:
    """Beside the column that would find it."""
    text = proposed(["KD", "Ticket"], [kd(1), "t"])
    assert loaded(text).mapping is not None
    assert "channel_sid" in uncommented(text)["mapping"]
    assert 'the columns "Ticket" and channel_sid:' in unwrapped(text)


def test_without_an_address_no_properties_are_proposed() -> None:
    """A name alone reaches nobody; check leads to what is missing."""
    header = ["KD", "UO", "Name"]
    text = proposed(header, [kd(1), uo(1), "Ada"])
    settings = loaded(text)
    with pytest.raises(ConfigError, match='no column "media_properties"'):
        Mapper(settings.mapping).check_columns(header, "export.csv:1")
    assert "address" in uncommented(text)["mapping"]["media_properties"]


def test_a_name_that_its_values_contradict_does_not_count() -> None:
    """A channel by its medium and a consent to be written to are neither sids nor addresses."""
    text = proposed(["Interaction", "Channel", "Email", "Phone"], ["i1", "email", "yes", "no"])
    mapping = loaded(text).mapping
    assert mapping is not None
    assert mapping.model_dump(exclude_none=True) == {"type": "customer"}
    assert 'so not sent: "Interaction", "Channel", "Email", "Phone"' in unwrapped(text)


def test_a_column_of_a_field_s_name_that_another_one_replaces_is_listed() -> None:
    """It is no longer read."""
    text = proposed([*OWN, "Role"], [kd(1), uo(1), "email", "a@x.org", "agent"])
    assert 'so not sent: "type"' in unwrapped(text)


def test_an_address_that_was_not_chosen_is_named() -> None:
    """A participant has one address, and which one is a person's decision."""
    text = proposed(["Email", "Mobile"], ["a@x.org", "+44 20 7946"], ["b@x.org", ""])
    assert '# address = "{Mobile | digits}"' in text.splitlines()
    text = proposed(["Email", "Mobile"], ["a@x.org", "+44 20 7946"], ["", "+44 20 7947"])
    assert '# address = "{Email}"' in text.splitlines()
    assert '"{Mobile | e164:GB}"' in unwrapped(text)


def test_the_file_s_own_ways_and_what_to_type_next_are_said() -> None:
    """Encoding and delimiter only where they are not the usual ones."""
    text = proposed(OWN, file=File("'a b.csv'", "a b.csv", "cp1252", "\t"))
    assert tomllib.loads(text)["source"] == {"encoding": "cp1252", "delimiter": "tab"}
    assert loaded(text).source.delimiter == "\t"
    assert text.endswith("\n#   flex-import check 'a b.csv' --show 3\n")
    assert "its header alone" in text
    assert tomllib.loads(proposed(OWN)) == {"source": {}}


# ---- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ConvID", ("conv", "id")),
        ("E-Mail", ("e", "mail")),
        ("SMSNumber", ("sms", "number")),
        ("Schlüssel_Nr.", ("schlussel", "nr")),
        ("STRASSE", ("strasse",)),
        ("---", ()),
    ],
)
def test_a_name_is_taken_apart_into_words(name: str, words: tuple[str, ...]) -> None:
    """Whatever a system puts between them, and without accents."""
    assert tokens(name) == words


@pytest.mark.parametrize(
    ("column", "meaning", "alike"),
    [
        ("E-Mail", "email", 3),
        ("Kunde Email Address", "email", 2),
        ("Emial Address", "email", 1),
        ("Hotel", "phone", 0),
        ("Queue name", "full", 0),
        ("Customer Full Name", "full", 2),
    ],
)
def test_names_are_alike_by_degrees(column: str, meaning: str, alike: int) -> None:
    """The same, inside a longer one, misspelt, or not at all."""
    assert likeness(column, meaning) == alike


@pytest.mark.parametrize(
    ("word", "kind"),
    [("AGENT", "agent"), ("Team Leader", "supervisor"), ("Kunde (extern)", None), ("Ada", None), ("", None)],
)
def test_a_role_is_clear_or_it_is_not(word: str, kind: str | None) -> None:
    """Two meanings are as good as none."""
    assert role_of(word) == kind


# ---- anything at all ------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
TELLING = st.sampled_from(
    [
        *(*OWN, "media_properties", "routing_properties", "media_properties.", "Role", "Type", "ID", "ConvID", "Email"),
        *("Mobile", "WhatsApp", "First Name", "Vorname", "Name", "Login", "WorkerSid", "Channel", '{"', "a|b", " "),
    ]
)
VALUE = st.sampled_from(
    [
        *("", " ", "agent", "Agent", " Kunde", "*", "a@x.org", "+44 20 7946", "0171/22", '{"address": "x"}', "7", "8"),
        *(sid(prefix, number) for prefix in ("KD", "UO", "WT", "WK", "WR") for number in (1, 2)),
    ]
)


@given(st.data())
def test_a_proposal_always_loads(data: st.DataObject) -> None:
    """Whatever a header and its rows hold; every template can be parsed, and every column is in it."""
    header = data.draw(st.lists((TEXT | TELLING).filter(bool), min_size=1, max_size=12, unique=True))
    rows = data.draw(st.lists(st.tuples(*(VALUE | TEXT for _ in header)), max_size=5))
    sample = sampled(header, *rows)
    choice = choose(sample)
    text = write(
        File("x.csv", data.draw(TEXT), delimiter=data.draw(st.sampled_from([None, ";", "\t"]))), sample, choice
    )
    settings = loaded(text)
    mapper = Mapper(settings.mapping, settings.source.key, maps=settings.map)
    assert all(column in header for _, column in mapper._wanted())
    told = {column for _, column in mapper._wanted()} | {name for name in header if choice.keeps(name)}
    if settings.mapping is None:
        mapper.check_columns(header, "")
        told.update(header)
    assert all(squeezed(as_toml(name)) in squeezed(text) for name in header if name not in told)
    assert all(line.startswith(("#", "[")) or "=" in line or not line for line in text.split("\n"))
