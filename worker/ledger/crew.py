"""Looking at a fleet: what is queued, who has what, and who was heard of when."""

import json
from collections.abc import Mapping
from contextlib import closing
from typing import Any, NamedTuple

from worker.ledger.postgres import open_readonly
from worker.ledger.steering import Order, standing_orders
from worker.place import Server

_QUEUE = """
SELECT (SELECT count(*) FROM queued), count(*) FILTER (WHERE status = 'todo'),
    count(*) FILTER (WHERE status = 'doing'),
    (SELECT count(*) FROM queued JOIN chunks ON chunks.id = chunk_id
        LEFT JOIN procrastinate_jobs AS job ON job.id = job_id WHERE job.id IS NULL)
FROM procrastinate_jobs
"""
_HOSTS = """
SELECT runs.id, host, pid, sample, extract(epoch FROM now() - last_heartbeat)::double precision,
    (SELECT count(*) FROM procrastinate_jobs AS job WHERE job.worker_id = crew.worker_id AND status = 'doing')
FROM crew JOIN runs ON runs.id = run_id JOIN procrastinate_workers ON procrastinate_workers.id = crew.worker_id
ORDER BY runs.id
"""


class Host(NamedTuple):
    """A worker. silent_seconds: since it was heard of. chunks: that it has. sample: as it said of itself."""

    run: int
    host: str
    pid: int
    silent_seconds: float
    chunks: int
    sample: Mapping[str, Any]


class Fleet(NamedTuple):
    """What a fleet has to do. waiting, taken: chunks. left: rows that wait for `enqueue`, as their chunk is over.

    orders: what workers have to heed, also those that join later.
    """

    queued: int
    waiting: int
    taken: int
    left: int
    hosts: list[Host]
    orders: list[Order]


def look_at_fleet(server: Server) -> Fleet | None:
    """Return how a fleet stands; None when there never was one. Raises LedgerError."""
    with closing(open_readonly(server)) as connection:
        if not connection.execute("SELECT to_regclass('procrastinate_jobs') IS NOT NULL").fetchone()[0]:
            return None
        connection.snapshot()
        queued, waiting, taken, left = connection.execute(_QUEUE).fetchone()
        hosts = [
            Host(run, host, pid, silent, chunks, json.loads(sample))
            for run, host, pid, sample, silent, chunks in connection.execute(_HOSTS).fetchall()
        ]
        return Fleet(queued, waiting, taken, left, hosts, standing_orders(connection))
