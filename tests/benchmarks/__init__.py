"""Measurements that pages under `docs/results` quote: each is a command, `python -m tests.benchmarks.NAME`."""
