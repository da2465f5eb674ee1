"""Looking closely at a few steps: profiler windows, and what they say of the clock."""
