"""Made rows and sids for tests."""

from hashlib import blake2b

from worker.model import Draft, Row


def sid(prefix: str, number: int | str) -> str:
    """Return a well-formed sid, always the same one for a number."""
    return prefix + blake2b(f"{prefix}{number}".encode(), digest_size=16).hexdigest()


def row(number: int, channel: int | None = None, *, key: str | None = None, content: str = "", line: int = 0) -> Row:
    """Return a row of its own content in a channel (its own one by default)."""
    where = number if channel is None else channel
    fingerprint = blake2b(f"{number}{content}".encode(), digest_size=16).digest()
    return Row(
        key=key or fingerprint.hex(),
        fingerprint=fingerprint,
        source=1,
        line=line or number + 2,
        interaction_sid=sid("KD", where),
        channel_sid=sid("UO", where),
        type="customer",
        body=b"Type=customer&MediaProperties=%7B%7D",
        text=f"record {number}{content}\n",
    )


def draft_of(row: Row) -> Draft:
    """Return what a row was before its form was made."""
    place = (row.interaction_sid, row.channel_sid, row.type)
    return Draft(row.key, row.fingerprint, row.source, row.line, *place, "{}", None, row.text)
