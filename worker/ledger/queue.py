"""The queue of a fleet in PostgreSQL: chunks of rows, and procrastinate's jobs that hand them out.

procrastinate has no transaction that spans its jobs and other tables, so its own statements are run on our connection:
a chunk's rows and its job appear in one transaction, and so do the end of a job and what it left.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import islice
from typing import NamedTuple

from procrastinate.schema import SchemaManager
from procrastinate.sql import queries

from worker.errors import LedgerHeldError
from worker.ledger import Fence
from worker.ledger.connection import read
from worker.ledger.pgconnection import PostgresConnection, connect
from worker.ledger.transaction import guarded
from worker.model import Row, comparable
from worker.place import Server

PARTITIONS = 256
"""Rows of a channel are all in one of them, and of each of them one chunk is handed out at a time."""

CHUNK_ROWS = 300

_QUEUE = "flex-import"
_PUT = """
INSERT INTO queued (chunk_id, key, fingerprint, source_id, line, interaction_sid, channel_sid, type, request, record,
    mark)
SELECT chunk, key, fingerprint, source, line, interaction_sid, channel_sid, type, request, record, mark
FROM unnest(%(chunk)s::bigint[], %(key)s::text[], %(fingerprint)s::bytea[], %(source)s::bigint[], %(line)s::bigint[],
    %(interaction)s::text[], %(channel)s::text[], %(type)s::text[], %(request)s::bytea[], %(record)s::bytea[],
    %(mark)s::bigint[]) WITH ORDINALITY AS given (chunk, key, fingerprint, source, line, interaction_sid, channel_sid,
    type, request, record, mark, place)
ORDER BY place
ON CONFLICT (key) DO NOTHING
RETURNING chunk_id
"""
_NEW_CHUNKS = "INSERT INTO chunks (partition) SELECT unnest(%(partitions)s::integer[]) RETURNING partition, id"
_DEFER = """
WITH given AS (
    SELECT chunk, 'import-' || partition AS lock FROM unnest(%(chunks)s::bigint[], %(partitions)s::integer[])
        WITH ORDINALITY AS given (chunk, partition, place) ORDER BY place
), jobs AS (
    SELECT unnest(procrastinate_defer_jobs_v1((
        SELECT array_agg(ROW(%(queue)s, 'import_chunk', 0, lock, NULL, jsonb_build_object('chunk', chunk),
            NULL)::procrastinate_job_to_defer_v1) FROM given))) AS id
)
SELECT id FROM jobs
"""
_NAME_JOBS = """
UPDATE chunks SET job_id = procrastinate_jobs.id FROM procrastinate_jobs
WHERE procrastinate_jobs.id = ANY(%(jobs)s::bigint[]) AND chunks.id = (args ->> 'chunk')::bigint
RETURNING chunks.id
"""
_IDLE = """
SELECT chunks.id, partition FROM chunks LEFT JOIN procrastinate_jobs ON procrastinate_jobs.id = job_id
WHERE coalesce(status, 'failed') NOT IN ('todo', 'doing') AND EXISTS (SELECT 1 FROM queued WHERE chunk_id = chunks.id)
ORDER BY chunks.id
"""
_FAILED = """
SELECT key, fingerprint, source_id, line, interaction_sid, channel_sid, type, request, record, 0, mark
FROM rows JOIN payloads ON payloads.row_id = rows.id JOIN channels ON channels.id = channel_id
WHERE state = 'failed' AND state NOT IN ('created', 'existed') AND key NOT IN (SELECT key FROM queued)
ORDER BY rows.id
"""
_FENCE = """
SELECT 1 FROM procrastinate_jobs WHERE id = ? AND attempts = ? AND status = 'doing' FOR UPDATE
"""
_WANTED_OR_HELD = "SELECT 1 FROM procrastinate_jobs WHERE status IN ('todo', 'doing') LIMIT 1"
_EMPTY = "DELETE FROM chunks WHERE id = ? AND NOT EXISTS (SELECT 1 FROM queued WHERE chunk_id = chunks.id)"
_LOST = """
SELECT procrastinate_jobs.id, attempts FROM procrastinate_jobs
    LEFT JOIN procrastinate_workers AS holder ON holder.id = worker_id
WHERE status = 'doing' AND (holder.id IS NULL OR last_heartbeat < now() - make_interval(secs => ?))
"""
_MINE = "SELECT id, attempts FROM procrastinate_jobs WHERE status = 'doing' AND worker_id = ?"
_BEAT = "UPDATE procrastinate_workers SET last_heartbeat = now() WHERE id = ? RETURNING 1"
_ALONE = "SELECT pg_try_advisory_lock(1179408465, hashtext(current_schema()))"
"""`FLXQ`, and the schema."""

_SLOTS = """
INSERT INTO pace AS kept (lane, due, held_until, admitted, found, found_at)
VALUES (%(lane)s, extract(epoch FROM clock_timestamp()) + %(step)s * %(slots)s, 0, %(admitted)s,
    coalesce(%(news)s::float8, 'Infinity'),
    CASE WHEN %(news)s::float8 IS NULL THEN 0 ELSE extract(epoch FROM clock_timestamp()) END)
ON CONFLICT (lane) DO UPDATE SET
    due = greatest(kept.due, kept.held_until, extract(epoch FROM clock_timestamp())) + %(step)s * %(slots)s,
    admitted = kept.admitted + %(admitted)s,
    found = CASE WHEN %(news)s::float8 IS NULL THEN kept.found
        WHEN extract(epoch FROM clock_timestamp()) < kept.found_at + %(event)s THEN least(kept.found, %(news)s::float8)
        ELSE %(news)s::float8 END,
    found_at = CASE WHEN %(news)s::float8 IS NULL THEN kept.found_at ELSE extract(epoch FROM clock_timestamp()) END
RETURNING due - %(step)s * %(slots)s - extract(epoch FROM clock_timestamp()), admitted, found, found_at
"""
_EVENT_SECONDS = 1.0
"""What several workers find in so short a time is one event: the least of it counts."""

_HOLD = """
INSERT INTO pace AS kept (lane, due, held_until) VALUES (?, 0, extract(epoch FROM clock_timestamp()) + ?)
ON CONFLICT (lane) DO UPDATE SET held_until = greatest(kept.held_until, excluded.held_until)
"""


class Taken(NamedTuple):
    """A chunk that was handed out."""

    chunk: int
    fence: Fence


def set_up(server: Server) -> None:
    """Make procrastinate's tables in the ledger's schema, unless they are there."""
    with closing(connect(server, "makes a queue")) as connection, guarded(connection, server):
        connection.hold("ledger_version")
        if not connection.execute("SELECT to_regclass('procrastinate_jobs') IS NOT NULL").fetchone()[0]:
            connection.execute(SchemaManager.get_schema())


class Filling:
    """Puts rows into the queue. For one thread; a chunk is handed out once it is full.

    queued, known: rows that were put there, and those that already were. chunks: how many were handed out. Raises
    LedgerHeldError while another process does the same.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection = connect(server, "fills the queue")
        if not self._connection.execute(_ALONE).fetchone()[0]:
            self._connection.close()
            raise LedgerHeldError(f"{server}: another enqueue is under way; wait until it has ended")
        self._open: dict[int, list[int]] = {}  # partition → the number of its chunk, and its rows
        self.queued = 0
        self.known = 0
        self.chunks = 0

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()

    def resume(self) -> int:
        """Hand out what an earlier filling left, and chunks that ended with rows in them; queue failed rows again.

        Returns how many failed rows there were.
        """
        with guarded(self._connection, self._server):
            self._defer(self._connection.execute(_IDLE).fetchall())
            before = self.queued
            failed = self._connection.each(_FAILED)
            while rows := list(islice(failed, CHUNK_ROWS)):
                self._put([Row._make((*one[:8], read(one[8]), *one[9:])) for one in rows])
            return self.queued - before

    def put(self, rows: Sequence[Row]) -> None:
        """Queue rows; those that are there already stay as they are."""
        with guarded(self._connection, self._server):
            for start in range(0, len(rows), CHUNK_ROWS):
                self._put(rows[start : start + CHUNK_ROWS])

    def finish(self) -> None:
        """Hand out the chunks that are not full."""
        with guarded(self._connection, self._server):
            self._seal(list(self._open))

    def _put(self, rows: Sequence[Row]) -> None:
        partitions = [partition_of(row.channel_sid) for row in rows]
        missing = sorted(set(partitions) - self._open.keys())
        if missing:
            for partition, chunk in self._connection.batch(_NEW_CHUNKS, {"partitions": missing}):
                self._open[partition] = [chunk, 0]
        values = {
            "chunk": [self._open[partition][0] for partition in partitions],
            "key": [row.key for row in rows],
            "fingerprint": [row.fingerprint for row in rows],
            "source": [row.source for row in rows],
            "line": [row.line for row in rows],
            "interaction": [row.interaction_sid for row in rows],
            "channel": [row.channel_sid for row in rows],
            "type": [row.type for row in rows],
            "request": [row.body for row in rows],
            "record": [row.text.encode() for row in rows],
            "mark": [row.mark for row in rows],
        }
        put = [chunk for (chunk,) in self._connection.batch(_PUT, values)]
        self.queued += len(put)
        self.known += len(rows) - len(put)
        counts = {chunk: put.count(chunk) for chunk in set(put)}
        for one in self._open.values():
            one[1] += counts.get(one[0], 0)
        self._seal([partition for partition, (_, held) in self._open.items() if held >= CHUNK_ROWS])

    def _seal(self, partitions: Sequence[int]) -> None:
        found = [(partition, *self._open.pop(partition)) for partition in partitions]
        self._defer([(chunk, partition) for partition, chunk, held in found if held])
        for _, chunk, held in found:
            if not held:
                self._connection.execute(_EMPTY, (chunk,))

    def _defer(self, chunks: Sequence[tuple[int, int]]) -> None:
        if not chunks:
            return
        values = {
            "queue": _QUEUE,
            "chunks": [chunk for chunk, _ in chunks],
            "partitions": [partition for _, partition in chunks],
        }
        jobs = [job for (job,) in self._connection.batch(_DEFER, values)]
        self._connection.batch(_NAME_JOBS, {"jobs": jobs})
        self.chunks += len(chunks)


def partition_of(channel_sid: str) -> int:
    """Return the partition of a channel, the same one however its sid is written."""
    return zlib.crc32(comparable(channel_sid).encode()) % PARTITIONS


class Desk:
    """Where a worker gets its chunks, gives them back, and says that it is alive. For one thread at a time.

    Raises LedgerError when the database cannot be used.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection: PostgresConnection = connect(server, "takes chunks")
        self._worker = 0

    def join(self, run: int) -> None:
        """Become one of the crew."""
        with guarded(self._connection, self._server):
            self._worker = self._connection.execute("SELECT procrastinate_register_worker_v1()").fetchone()[0]
            self._connection.execute(
                "INSERT INTO crew (run_id, worker_id, sample) VALUES (?, ?, '{}')", (run, self._worker)
            )

    def leave(self) -> None:
        """Go, and give back what was not given back."""
        with guarded(self._connection, self._server):
            for job, taken in self._connection.execute(_MINE, (self._worker,)).fetchall():
                self._again(Fence(job, taken))
            self._connection.execute("DELETE FROM crew WHERE worker_id = ?", (self._worker,))
            self._connection.execute("SELECT procrastinate_unregister_worker_v1(?)", (self._worker,))

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()

    def beat(self, sample: Mapping[str, int | str]) -> bool:
        """Say that this worker is alive, and how it is; False when the others do not think so any more."""
        with guarded(self._connection, self._server):
            values = (json.dumps(dict(sample)), self._worker)
            self._connection.execute("UPDATE crew SET sample = ? WHERE worker_id = ?", values)
            return self._connection.execute(_BEAT, (self._worker,)).fetchone() is not None

    def take(self) -> Taken | None:
        """Take a chunk of a partition that nobody has one of; None when there is none now."""
        found = self._connection.batch(queries["fetch_job"], {"queues": [_QUEUE], "worker_id": self._worker})
        job, *_, args, _, _, taken, _ = found[0]
        return None if job is None else Taken(int(args["chunk"]), Fence(job, taken))

    def is_empty(self) -> bool:
        """Tell whether no chunk waits for a worker or is held by one."""
        return self._connection.execute(_WANTED_OR_HELD).fetchone() is None

    def finish(self, taken: Taken) -> bool:
        """End a chunk: what is still queued of it waits for `enqueue`. False when another worker has it."""
        with guarded(self._connection, self._server):
            if not self._holds(taken.fence):
                return False
            values = {"job_id": taken.fence.job, "status": "succeeded", "delete_job": True}
            self._connection.batch(queries["finish_job"], values)
            self._connection.execute(_EMPTY, (taken.chunk,))
            return True

    def give_back(self, taken: Taken) -> bool:
        """Let another worker go on with a chunk at once. False when one has it already."""
        with guarded(self._connection, self._server):
            return self._again(taken.fence)

    def relieve(self, silent_seconds: float) -> int:
        """Free the chunks of workers that were not heard of for so long; returns how many."""
        with guarded(self._connection, self._server):
            lost = self._connection.execute(_LOST, (silent_seconds,)).fetchall()
            freed = sum(self._again(Fence(job, taken)) for job, taken in lost)
            gone = "SELECT worker_id FROM procrastinate_prune_stalled_workers_v1(?) AS worker_id"
            for (worker,) in self._connection.execute(gone, (silent_seconds,)).fetchall():
                self._connection.execute("DELETE FROM crew WHERE worker_id = ?", (worker,))
            return freed

    def _holds(self, fence: Fence) -> bool:
        return self._connection.execute(_FENCE, fence).fetchone() is not None

    def _again(self, fence: Fence) -> bool:
        if not self._holds(fence):
            return False
        again = "SELECT procrastinate_retry_job_v2(?, NULL, NULL, NULL, NULL)"
        self._connection.execute(again, (fence.job,))
        return True


class Told(NamedTuple):
    """What a host tells the others. admitted: how many it got through since it told that last. news: the limit that it
    has found, infinite when it is gone; None without any.
    """  # noqa: D205 - one sentence

    admitted: int
    news: float | None


class Reserved(NamedTuple):
    """Slots. seconds: until the first. admitted: how many all hosts got through so far. found: the limit known to all;
    found_at: since when, in seconds of the server's clock, 0 for never.
    """  # noqa: D205 - one sentence

    seconds: float
    admitted: int
    found: float
    found_at: float


class Pacer:
    """The schedule that all hosts share, on a connection of its own: a slot that comes late is lost."""

    def __init__(self, server: Server) -> None:
        self._connection = connect(server, "keeps pace")

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()

    def slots(self, lane: str, rate: float, slots: int, told: Told) -> Reserved:
        """Reserve so many slots of a lane, each 1/rate seconds after the other."""
        values = {"lane": lane, "step": 1 / rate, "slots": slots, "event": _EVENT_SECONDS, **told._asdict()}
        [found] = self._connection.batch(_SLOTS, values)
        return Reserved._make(found)

    def hold(self, lane: str, seconds: float) -> None:
        """Reserve nothing in a lane for so long, whoever asks."""
        self._connection.execute(_HOLD, (lane, seconds))
