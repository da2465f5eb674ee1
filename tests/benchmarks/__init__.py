"""Micro-benchmarks of the attention kernels and the gate: `make benchmarks`, `make gate`; the proxies are tests."""
