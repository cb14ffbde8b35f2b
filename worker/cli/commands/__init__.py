"""The commands as they are typed: words become the call of a room, which is imported then, not before.

One module for each group of `--help`; to import one puts its commands into the app.
"""

from worker.cli.commands import care, decide, imports, look

__all__ = ["care", "decide", "imports", "look"]
