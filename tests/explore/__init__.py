"""Exhaustive exploration of short stories in one channel: `make explore`.

The service, the people and the clock are models. The real `Pipeline`, `Doubts`, `Reconciler`, `Submitter` and a ledger
in SQLite send, judge, look for and record the rows; nothing here repeats their rules.
"""
