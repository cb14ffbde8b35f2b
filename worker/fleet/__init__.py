"""Several workers on one ledger: chunks are taken, sent by the pipeline of every run, and given back.

Who is silent for SILENT_SECONDS loses its chunks to others. Its lease ends well before, so it sends nothing by then;
and what it had begun is in doubt for whoever comes next.
"""

from worker.fleet.chunk import Chunk, Parts
from worker.fleet.crew import BEAT_SECONDS, SILENT_SECONDS, Crew
from worker.fleet.pace import SharedPace, Slots

__all__ = [
    "BEAT_SECONDS",
    "SILENT_SECONDS",
    "Chunk",
    "Crew",
    "Parts",
    "SharedPace",
    "Slots",
]
