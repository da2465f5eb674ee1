"""The stage clock: every nanosecond of a phase in one cell, and none in two."""
