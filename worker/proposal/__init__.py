"""The room where a config is proposed for a file that nobody has written one for. Pure, no IO.

This is its door. `sample` looks at records, `word` knows how columns and roles are called, `choice` says which column
is what, `writing` makes a commented config of it. A proposal is read by a person before anything is sent: here, and
nowhere else, things are guessed. Nothing of a column's values is in it, but for the few of a column of roles.
"""

from worker.proposal.choice import choose
from worker.proposal.sample import Sample
from worker.proposal.writing import File, write

__all__ = ["File", "Sample", "choose", "write"]
