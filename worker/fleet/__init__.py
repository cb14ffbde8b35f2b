"""Several workers on one ledger: chunks are taken, sent by the pipeline of every run, and given back.

Who is silent for SILENT_SECONDS loses its chunks to others. It stops sending LEASE_SECONDS after it was last heard of,
by its own clock, which is well before; and what it had begun by then is in doubt for whoever comes next.
"""

from worker.fleet.chunk import Chunk, Parts
from worker.fleet.crew import BEAT_SECONDS, LEASE_SECONDS, SILENT_SECONDS, Crew, Lease
from worker.fleet.pace import SharedPace, Slots

__all__ = [
    "BEAT_SECONDS",
    "LEASE_SECONDS",
    "SILENT_SECONDS",
    "Chunk",
    "Crew",
    "Lease",
    "Parts",
    "SharedPace",
    "Slots",
]
