"""Tests of the emulated service: what a client sees, and what the truth says."""
