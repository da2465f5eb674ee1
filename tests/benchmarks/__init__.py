"""Measurements that pages under `docs/results` quote, each a command, and the gate of the attention kernels."""
