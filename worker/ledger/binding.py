"""What a ledger belongs to. A run with another target or other keys would skip or repeat rows that it should not."""

import json
from dataclasses import dataclass

from worker.errors import LedgerRefusedError

TARGET_FIELDS = ("target", "account")
KEY_FIELDS = ("key_template", "canonical_version", "mapping")


@dataclass(frozen=True, slots=True)
class Binding:
    """target: the API's host, all of loopback and all edges of a region being one. account: its sid, None when unknown.

    key_template: empty for digest keys. mapping: key path → template; it shapes digest keys only.
    """

    target: str
    account: str | None
    key_template: str
    canonical_version: int
    mapping: dict[str, str]

    def fields(self) -> dict[str, str]:
        """Return what a ledger stores, as text."""
        fields = {
            "target": self.target,
            "key_template": self.key_template,
            "canonical_version": str(self.canonical_version),
        }
        if self.account is not None:
            fields["account"] = self.account
        if not self.key_template:
            fields["mapping"] = json.dumps(self.mapping, sort_keys=True)
        return fields


def target_of(host: str, port: int | None, *, loopback: bool) -> str:
    """Return the name under which a host is remembered: edges and the default region of Twilio's are one [docs]."""
    if loopback:
        return "this machine"
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
    if changed & set(KEY_FIELDS) and (done or kept) and not accept_new_keys:
        rows = f"{done:,} created rows\n  would get new keys and be created again."
        if not done:
            rows = f"{kept:,} rows that exist, are in doubt or are waived\n  would get new keys and be sent again."
        raise LedgerRefusedError(_other_keys(known, wanted, rows, changed))
    if "target" in changed and "account" not in wanted:
        wanted = {**wanted, "account": ""}  # the other target's account is not known: the next one that is counts
    return {field: value for field, value in wanted.items() if known.get(field) != value}


def _other_target(known: dict[str, str], wanted: dict[str, str], done: int) -> str:
    names = {side: values["target"] + (f", account {values['account']}" if values.get("account") else "")
             for side, values in (("known", known), ("wanted", wanted))}  # fmt: skip
    return (
        f"this ledger belongs to {names['known']}; you are about to use\n"
        f"  {names['wanted']}. Its {done:,} created rows would be skipped as done.\n"
        "  Use another ledger: --ledger other.db --new-ledger    Or, if both are the same place: --accept-target"
    )


def _other_keys(known: dict[str, str], wanted: dict[str, str], rows: str, changed: set[str]) -> str:
    if "key_template" in changed:
        what = f"source.key changed from {_shown(known['key_template'])} to {_shown(wanted['key_template'])}"
        undo = "source.key"
    elif "mapping" in changed:
        before, now = json.loads(known["mapping"]), json.loads(wanted["mapping"])
        paths = sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))
        what = f"the mapping changed, and source.key is empty (changed: {', '.join(paths)})"
        undo = "the mapping"
    else:
        what, undo = "this version writes requests in another canonical form", "the earlier version"
    return f"{what}: {rows}\n  Put {undo} back, or accept it for rows that are new: --accept-new-keys"


def _shown(template: str) -> str:
    return f'"{template}"' if template else "empty (the row's digest)"
