"""`python -m worker` is `flex-import`."""

from worker.cli import main

main()
