import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.ledger_contract import OUTCOMES, Desk
from worker.errors import LedgerRefusedError
from worker.ledger.binding import Binding, Keys, compare, target_of
from worker.ledger.opening import create_ledger, open_ledger
from worker.model import Created, InDoubt, Outcome

TWILIO = "flex-api.twilio.com"
IRELAND = "flex-api.ie1.twilio.com"


def binding(
    *,
    target: str = TWILIO,
    account: str | None = "AC1",
    key: str = "",
    version: int = 1,
    email: str = "{email}",
    profile: str = "",
) -> Binding:
    """Return a binding of an import with digest keys, or with what a test changes of it."""
    return Binding(
        target, account, version, {profile: Keys(key, {"type": "{type}", "media_properties.address": email})}
    )


@pytest.mark.parametrize(
    ("host", "port", "loopback", "target"),
    [
        ("127.0.0.1", 8080, True, "this machine"),
        ("localhost", None, True, "this machine"),
        ("::1", 1, True, "this machine"),
        ("flex-api.twilio.com", None, False, TWILIO),
        ("FLEX-API.Twilio.COM", None, False, TWILIO),
        ("flex-api.us1.twilio.com", None, False, TWILIO),
        ("flex-api.ashburn.us1.twilio.com", None, False, TWILIO),
        ("flex-api.umatilla.us1.twilio.com", 443, False, TWILIO),
        ("flex-api.ie1.twilio.com", None, False, IRELAND),
        ("flex-api.dublin.ie1.twilio.com", None, False, IRELAND),
        ("Flex-API.Dublin.IE1.Twilio.com", None, False, IRELAND),
        ("flex-api.sydney.au1.twilio.com", None, False, "flex-api.au1.twilio.com"),
        ("proxy.example.com", None, False, "proxy.example.com"),
        ("Proxy.Example.com", 443, False, "proxy.example.com"),
        ("proxy.example.com", 8443, False, "proxy.example.com:8443"),
        ("flex-api.example.com", None, False, "flex-api.example.com"),
        ("chat.twilio.com", None, False, "chat.twilio.com"),
        ("flex-api.nottwilio.com", None, False, "flex-api.nottwilio.com"),
    ],
)
def test_a_host_is_remembered_by_where_it_leads(host: str, port: int | None, target: str, *, loopback: bool) -> None:
    """All of loopback is one target, all edges of a region are one, a host of one's own counts with its port."""
    assert target_of(host, port, loopback=loopback) == target


def ask(known: Binding | None, wanted: Binding, done: int = 5, *, target: bool = False, keys: bool = False) -> set[str]:
    """Compare two bindings; returns the fields that are to be stored."""
    fields = {} if known is None else known.fields()
    return set(compare(fields, wanted.fields(), done, accept_target=target, accept_new_keys=keys))


def test_the_first_use_binds() -> None:
    """A ledger that belongs to nothing yet takes everything, and needs no flag."""
    assert ask(None, binding()) == {"target", "account", "key_template", "canonical_version", "mapping"}
    assert ask(None, binding(account=None, key="{ID}")) == {"target", "key_template", "canonical_version"}


def test_the_same_again_stores_nothing() -> None:
    """A second run of the same import changes nothing."""
    assert ask(binding(), binding()) == set()


def test_an_account_may_become_known() -> None:
    """A ledger made with an API key alone learns the account later."""
    assert ask(binding(account=None), binding(account="AC1")) == {"account"}


def test_an_account_is_not_forgotten() -> None:
    """An API key alone may be another account's; the variable says whose it is, so a rotated key locks nobody out."""
    with pytest.raises(LedgerRefusedError, match="Set TWILIO_ACCOUNT_SID to the account of this API key"):
        ask(binding(account="AC1"), binding(account=None))
    assert ask(binding(account="AC1"), binding(account=None), target=True) == set()
    here, unknown = binding(target="this machine"), binding(target="this machine", account=None)
    assert ask(here, unknown) == set()


@pytest.mark.parametrize(
    ("known", "wanted", "names"),
    [
        (binding(target="this machine"), binding(), ("this machine, account AC1", f"{TWILIO}, account AC1")),
        (binding(), binding(target=IRELAND, account=None), (f"{TWILIO}, account AC1", IRELAND)),
        (binding(), binding(account="AC2"), ("account AC1", "account AC2")),
    ],
)
@pytest.mark.parametrize("done", [0, 170936])
def test_another_target_is_refused_until_accepted(
    known: Binding, wanted: Binding, names: tuple[str, str], done: int
) -> None:
    """The refusal names both sides, the rows that would be skipped, and both ways out; the flag stores the new side."""
    with pytest.raises(LedgerRefusedError) as caught:
        ask(known, wanted, done, keys=True)
    message = str(caught.value)
    before, after = message.split("you are about to use")
    assert before.startswith("this ledger belongs to ")
    assert names[0] in before
    assert names[1] in after
    assert f"Its {done:,} created rows would be skipped as done" in message
    assert "--ledger other.db --new-ledger" in message
    assert "--accept-target" in message
    stored = compare(known.fields(), wanted.fields(), done, accept_target=True, accept_new_keys=False)
    assert stored
    assert {**known.fields(), **stored}.items() >= wanted.fields().items()


@pytest.mark.parametrize(
    ("known", "wanted", "says"),
    [
        (
            binding(key="agent:{ID}"),
            binding(key="{ID}"),
            (
                'source.key changed from "agent:{ID}" to "{ID}": 170,936 created rows\n'
                "  would get new keys and be created again.\n  Put source.key back, or"
            ),
        ),
        (
            binding(key="{ID}"),
            binding(),
            'source.key changed from "{ID}" to empty (the row\'s digest): 170,936 created rows',
        ),
        (binding(), binding(key="{ID}"), 'source.key changed from empty (the row\'s digest) to "{ID}": 170,936'),
        (
            binding(),
            binding(email="{mail}"),
            (
                "the mapping changed, and source.key is empty (changed: media_properties.address): "
                "170,936 created rows\n"
                "  would get new keys and be created again.\n  Put the mapping back, or"
            ),
        ),
        (
            binding(),
            binding(version=2),
            (
                "this version writes requests in another canonical form: 170,936 created rows\n"
                "  would get new keys and be created again.\n  Put the earlier version back, or"
            ),
        ),
        (
            binding(profile="nice"),
            binding(profile="nice", key="{ID}"),
            (
                'the key of profile nice changed from empty (the row\'s digest) to "{ID}": 170,936 created rows\n'
                "  would get new keys and be created again.\n  Put the key of profile nice back, or"
            ),
        ),
        (
            binding(profile="nice"),
            binding(profile="nice", email="{mail}"),
            "the mapping of profile nice changed, and its key is empty (changed: media_properties.address): 170,936",
        ),
    ],
)
def test_other_keys_are_refused_until_accepted(known: Binding, wanted: Binding, says: str) -> None:
    """The refusal names both sides, the count, what would happen and the flag; the flag stores the new side."""
    with pytest.raises(LedgerRefusedError) as caught:
        ask(known, wanted, 170936, target=True)
    assert says in str(caught.value)
    assert str(caught.value).endswith("or accept it for rows that are new: --accept-new-keys")
    assert ask(known, wanted, 170936, keys=True)


@pytest.mark.parametrize("change", [binding(key="{ID}"), binding(email="{mail}"), binding(version=2)])
def test_keys_may_change_while_nothing_was_created(change: Binding) -> None:
    """As long as no row could be created again, trying out keys needs no flag."""
    assert ask(binding(), change, 0)


def test_a_mapping_shapes_digest_keys_only() -> None:
    """Under a key template a repaired mapping is welcome: the keys stay what they are."""
    assert ask(binding(key="{ID}"), binding(key="{ID}", email="{mail}")) == set()


def test_rules_of_other_profiles_are_others() -> None:
    """One that was never used is new, and one that is not used this time stays as it was."""
    assert ask(binding(), binding(profile="nice", key="{ID}")) == {"key_template:nice"}
    both = {**binding().fields(), **binding(profile="nice").fields()}
    assert compare(both, binding().fields(), 5, accept_target=False, accept_new_keys=False) == {}


def test_a_mapping_that_gained_and_lost_fields_is_named() -> None:
    """Fields on either side alone are named too."""
    known = Binding(TWILIO, None, 1, {"": Keys("", {"gone": "{a}", "same": "{b}"})})
    wanted = Binding(TWILIO, None, 1, {"": Keys("", {"same": "{b}", "new": "{c}"})})
    with pytest.raises(LedgerRefusedError, match=r"changed: gone, new\)"):
        ask(known, wanted)


# ---- in a ledger ----------------------------------------------------------------------------------------------------


def bind(
    path: Path, wanted: Binding, *, target: bool = False, keys: bool = False, outcome: Outcome | None = None
) -> None:
    """Open a ledger, bind it, and bring one row to an outcome."""
    if not path.exists():
        create_ledger(path)
    with closing(open_ledger(path)) as ledger:
        ledger.bind(wanted, accept_target=target, accept_new_keys=keys)
        if outcome:
            desk = Desk(ledger)
            desk.bring(desk.row(1), outcome)


def stored(path: Path) -> dict[str, str]:
    """Return what a ledger says it belongs to."""
    with closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT field, value FROM binding"))


def test_a_binding_outlives_its_run(tmp_path: Path) -> None:
    """What was bound or accepted holds for the next run; what was refused leaves no trace."""
    path = tmp_path / "imports.db"
    bind(path, binding(account=None), outcome=Created("UT1"))
    bind(path, binding())
    assert stored(path) == binding().fields()
    for other in (binding(target=IRELAND), binding(email="{mail}")):
        with pytest.raises(LedgerRefusedError, match=r"1 created rows"):
            bind(path, other)
        assert stored(path) == binding().fields()
    bind(path, binding(target=IRELAND), target=True)
    bind(path, binding(target=IRELAND, email="{mail}"), keys=True)
    assert stored(path) == binding(target=IRELAND, email="{mail}").fields()
    bind(path, binding(target=IRELAND, email="{mail}"))
    with pytest.raises(LedgerRefusedError):
        bind(path, binding(target=IRELAND))


@pytest.mark.parametrize("outcome", OUTCOMES[1:], ids=lambda outcome: type(outcome).__name__)
def test_rows_that_may_exist_keep_their_keys(tmp_path: Path, outcome: Outcome) -> None:
    """A row in doubt, or one that existed, would be sent again under a new key: that is refused as well."""
    path = tmp_path / "imports.db"
    bind(path, binding(), outcome=outcome)
    if outcome in (OUTCOMES[1], OUTCOMES[5]):
        with pytest.raises(LedgerRefusedError, match=r"1 rows that exist, are in doubt or are waived\n.*sent again"):
            bind(path, binding(key="{ID}"))
    bind(path, binding(key="{ID}"), keys=outcome in (OUTCOMES[1], OUTCOMES[5]))
    assert stored(path)["key_template"] == "{ID}"


def test_a_refused_binding_gives_the_ledger_back(tmp_path: Path) -> None:
    """After a refusal the ledger can be opened again."""
    path = tmp_path / "imports.db"
    bind(path, binding(), outcome=InDoubt("x", "y"))
    with pytest.raises(LedgerRefusedError):
        bind(path, binding(account="AC2"))
    bind(path, binding())


def test_another_target_whose_account_is_unknown_forgets_the_first_one_s() -> None:
    """Once accepted, the next account that is known is the ledger's, not the one of the target before."""
    known = {"target": "a", "account": "AC1", "key_template": "{ID}", "canonical_version": "1"}
    wanted = {"target": "b", "key_template": "{ID}", "canonical_version": "1"}
    stored = known | compare(known, wanted, 1, accept_target=True, accept_new_keys=False)
    assert stored["account"] == ""
    later = {**wanted, "account": "AC2"}
    assert compare(stored, later, 1, accept_target=False, accept_new_keys=False) == {"account": "AC2"}
