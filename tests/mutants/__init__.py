"""Deliberate bugs: each breaks one promise, and the tests named with it must notice."""
