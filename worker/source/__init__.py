"""The room where inputs are found and read: CSV and NDJSON, in batches of records, off the event loop.

This is its door. `input` finds files and opens bytes, `compression` decompresses them, `head` knows what is no CSV or
NDJSON at all, `decoder` turns lines into records, `encoding` explains bytes that are no text, `reader` puts them
together. What is odd about one record is a `Problem` of that record; what makes it uncertain where the next record
begins is a SourceError. Nothing is guessed in silence.
"""

from worker.source.encoding import likely_encoding
from worker.source.input import Input, Stamp, find_inputs
from worker.source.reader import BATCH_RECORDS, Count, Reader, batches, count, open_reader

__all__ = [
    "BATCH_RECORDS",
    "Count",
    "Input",
    "Reader",
    "Stamp",
    "batches",
    "count",
    "find_inputs",
    "likely_encoding",
    "open_reader",
]
