"""What a ledger belongs to. A run with another target or other keys would skip or repeat rows that it should not."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from worker.errors import LedgerRefusedError

THIS_MACHINE = "this machine"
TARGET_FIELDS = ("target", "account")
KEY_FIELDS = ("key_template", "mapping", "canonical_version")
"""The first one that changed is the one that is told."""


class Keys(NamedTuple):
    """How rows get their keys. template: empty for digest keys. mapping: key path → template; it shapes those only."""

    template: str
    mapping: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Binding:
    """target: the API's host, all of loopback and all edges of a region being one. account: its sid, None when unknown.

    keys: profile → its rules, of all that this run uses; "" for those of no profile. inputs: each path, and whose rules
    hold for it.
    """

    target: str
    account: str | None
    canonical_version: int
    keys: Mapping[str, Keys]
    inputs: Sequence[tuple[str, str]] = ()

    def fields(self) -> dict[str, str]:
        """Return what a ledger stores, as text."""
        fields = {"target": self.target, "canonical_version": str(self.canonical_version)}
        if self.account is not None:
            fields["account"] = self.account
        for profile, (template, mapping) in self.keys.items():
            fields[_of("key_template", profile)] = template
            if not template:
                fields[_of("mapping", profile)] = json.dumps(mapping, sort_keys=True)
        return fields


def changed_profiles(known: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Return the profiles whose keys alone changed; none when more than those did, or nothing."""
    changed = {field for field in wanted if field in known and known[field] != wanted[field]}
    parts = [field.partition(":") for field in changed]
    return [profile for field, _, profile in parts] if {field for field, _, _ in parts} <= set(KEY_FIELDS[:2]) else []


def _of(field: str, profile: str) -> str:
    return f"{field}:{profile}" if profile else field


def target_of(host: str, port: int | None, *, loopback: bool) -> str:
    """Return the name under which a host is remembered: edges and the default region of Twilio's are one [docs]."""
    if loopback:
        return THIS_MACHINE
    host = host.lower()
    parts = host.split(".")
    if host.endswith(".twilio.com") and parts[0] == "flex-api":
        region = parts[-3] if len(parts) > len(("flex-api", "twilio", "com")) else "us1"
        return "flex-api.twilio.com" if region == "us1" else f"flex-api.{region}.twilio.com"
    return host if port in {None, 443} else f"{host}:{port}"


def compare(
    known: dict[str, str],
    wanted: dict[str, str],
    done: int,
    *,
    kept: int = 0,
    accept_target: bool,
    accept_new_keys: bool,
) -> dict[str, str]:
    """Return the fields to store: what is new or was accepted.

    known, wanted: field → value. done: rows that the ledger holds as created. kept: rows that must not be sent again,
    created or not (in doubt, say, or waived). Raises LedgerRefusedError, naming both sides and what would happen, for a
    difference that was not accepted.
    """
    changed = {field for field in wanted if field in known and known[field] != wanted[field]}
    if not known.get("account"):
        changed.discard("account")
    if changed & set(TARGET_FIELDS) and not accept_target:
        raise LedgerRefusedError(_other_target(known, wanted, done))
    if _hides_account(known, wanted) and not accept_target:
        raise LedgerRefusedError(_no_account(known))
    keys = sorted(field for field in changed if field.partition(":")[0] in KEY_FIELDS)
    if keys and (done or kept) and not accept_new_keys:
        rows = f"{done:,} created rows\n  would get new keys and be created again."
        if not done:
            rows = f"{kept:,} rows that exist, are in doubt or are waived\n  would get new keys and be sent again."
        raise LedgerRefusedError(_other_keys(known, wanted, rows, keys))
    if "target" in changed and "account" not in wanted:
        wanted = {**wanted, "account": ""}  # the other target's account is not known: the next one that is counts
    return {field: value for field, value in wanted.items() if known.get(field) != value}


def _hides_account(known: dict[str, str], wanted: dict[str, str]) -> bool:
    """Tell whether it cannot be known if this is the ledger's account. An API key alone does not say whose it is."""
    elsewhere = wanted.get("target") != THIS_MACHINE
    return (
        elsewhere
        and bool(known.get("account"))
        and "account" not in wanted
        and known.get("target") == wanted.get("target")
    )


def _no_account(known: dict[str, str]) -> str:
    return (
        f"this ledger belongs to {known['target']}, account {known['account']}; an API key alone does not say which\n"
        "  account it is of. Set TWILIO_ACCOUNT_SID to the account of this API key."
    )


def _other_target(known: dict[str, str], wanted: dict[str, str], done: int) -> str:
    names = {side: values["target"] + (f", account {values['account']}" if values.get("account") else "")
             for side, values in (("known", known), ("wanted", wanted))}  # fmt: skip
    return (
        f"this ledger belongs to {names['known']}; you are about to use\n"
        f"  {names['wanted']}. Its {done:,} created rows would be skipped as done.\n"
        "  Use another ledger: --ledger other.db --new-ledger    Or, if both are the same place: --accept-target"
    )


def refuse_other_rules(
    path: str, before: str, now: str, rows: int, *, known: Mapping[str, str], wanted: Mapping[str, str]
) -> None:
    """Raise LedgerRefusedError when an input is of another profile than before, and its rows would get other keys.

    before, now: the profiles. rows: of this input that must not be sent again. known, wanted: field → value.
    """
    if [known.get(_of(field, before), "") for field in ("key_template", "mapping")] == [
        wanted.get(_of(field, now), "") for field in ("key_template", "mapping")
    ]:
        return
    was, would_be = (f"profile {name}" if name else "no profile" for name in (before, now))
    how = f"--profile {before}" if before else "let no profile's files fit its name"
    raise LedgerRefusedError(
        f"{path}: was read by the rules of {was}, and now it would be by those of {would_be}:\n"
        f"  {rows:,} rows of it that must not be sent again would get new keys, and be sent.\n"
        f"  Read it as before ({how}), or accept it for rows that are new: --accept-new-keys"
    )


def _other_keys(known: dict[str, str], wanted: dict[str, str], rows: str, changed: list[str]) -> str:
    explains_most = min(changed, key=lambda field: KEY_FIELDS.index(field.partition(":")[0]))
    field, _, profile = explains_most.partition(":")
    of = f" of profile {profile}" if profile else ""
    if field == "key_template":
        sides = (_shown(values[_of(field, profile)]) for values in (known, wanted))
        key = f"the key{of}" if profile else "source.key"
        what = "{} changed from {} to {}".format(key, *sides)
        undo = key
    elif field == "mapping":
        before, now = (json.loads(values[_of(field, profile)]) for values in (known, wanted))
        paths = sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))
        empty = "its key" if profile else "source.key"
        what = f"the mapping{of} changed, and {empty} is empty (changed: {', '.join(paths)})"
        undo = f"the mapping{of}"
    else:
        what, undo = "this version writes requests in another canonical form", "the earlier version"
    return f"{what}: {rows}\n  Put {undo} back, or accept it for rows that are new: --accept-new-keys"


def _shown(template: str) -> str:
    return f'"{template}"' if template else "empty (the row's digest)"
