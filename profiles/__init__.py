"""Measuring: the stage mark, the clock behind it, profiler windows, the machine, and the record they fill."""
