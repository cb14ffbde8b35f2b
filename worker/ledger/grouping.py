"""What needs something in a ledger, in groups: one pass over it, of which little stays in memory."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from worker.cluster import Cluster, cluster_id, short_ids
from worker.ledger.connection import Connection
from worker.ledger.presence import as_read
from worker.ledger.statement import OPEN_FINDING, REPAIRED_ROW
from worker.place import Place

_TO_CLUSTER = (
    """
    SELECT {state}, {code}, {reason}, source_id, line, NULL, run_id FROM rows
    WHERE {abandoned} AND state NOT IN ('created', 'existed') ORDER BY id
    """,
    """
    SELECT state, code, reason, source_id, line, NULL, run_id FROM rows
    WHERE state IN ('rejected', 'parked', 'failed', 'in_doubt') AND state NOT IN ('created', 'existed')
        AND coalesce(code, '') <> 'not_sent' AND NOT ({repaired})
    ORDER BY state, id
    """,
    """
    SELECT 'rejected', code, reason, source_id, line, detail, run_id FROM findings
    WHERE {open}
    ORDER BY source_id, line
    """,
)
"""All in the order of an index, so that nothing is sorted. What was not sent needs nothing: the next run sends it."""

_PLACES = 3


def gather(connection: Connection, place: Place, run: int | None) -> list[Cluster]:
    """Do as `View.clusters` does."""
    read_as = as_read(connection, place) | {"open": OPEN_FINDING, "repaired": REPAIRED_ROW}
    queries = (query.format_map(read_as) for query in _TO_CLUSTER)
    found = _gathered(chain.from_iterable(map(connection.each, queries)), run)
    paths = dict(connection.execute("SELECT id, path FROM sources").fetchall())
    ids = {why: cluster_id(*why) for why in found}
    short = short_ids(ids.values())
    clusters = [
        Cluster(
            ids[why], short[ids[why]], *why, one.rows, tuple((paths[n], line) for n, line in one.places), one.detail
        )
        for why, one in found.items()
        if one.rows
    ]
    return sorted(clusters, key=lambda one: (-one.rows, one.state, one.code, one.reason))


@dataclass(slots=True)
class _Gathered:
    """What one pass over the rows of a cluster leaves in memory."""

    rows: int = 0
    places: list[tuple[int, int]] = field(default_factory=list)
    detail: str | None = None


def _gathered(rows: Iterable[tuple[Any, ...]], run: int | None) -> dict[tuple[str, str, str], _Gathered]:
    """Return state, code and reason → what is there; of another run's rows only that there are some."""
    found: dict[tuple[str, str, str], _Gathered] = {}
    for state, code, reason, source, line, detail, by in rows:
        why = (state, code, reason)
        one = found.get(why)
        if one is None:
            one = found[why] = _Gathered()
        if run is not None and by != run:
            continue
        one.rows += 1
        if one.rows <= _PLACES:
            one.places.append((source, line))
            if one.rows == 1:
                one.detail = detail
    return found
