"""A worker that freezes at the worst moment: after the last look at its lease, before the request is on the wire.

`python -m tests.torture.frozen SECONDS FILE WORDS…` is `flex-import WORDS…`, but for one row: the process stops itself
(SIGSTOP) as it leaves, and whoever looks after FILE, where it then writes its pid, lets it go on.
"""

import os
import signal
import sys
from pathlib import Path

from worker.cli import main
from worker.submit import Submission


def freeze_once(note: Path) -> None:
    """Freeze at the first row that leaves; only one process of those that have this file does."""
    left = Submission.left

    def freeze_and_leave(self: Submission) -> None:
        try:
            descriptor = os.open(note, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            pass
        else:
            os.write(descriptor, str(os.getpid()).encode())
            os.close(descriptor)
            os.kill(os.getpid(), signal.SIGSTOP)
        left(self)

    Submission.left = freeze_and_leave  # type: ignore[method-assign]  # the point of it


if __name__ == "__main__":
    freeze_once(Path(sys.argv[1]))
    sys.argv[1:] = sys.argv[2:]
    main()
