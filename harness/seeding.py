"""Randomness by name: each draw has a generator of its own, so that none depends on what was drawn before."""

import hashlib

import torch


def seed_for(seed: int, *purpose: str | int) -> int:
    """Return the seed, in [0, 2^63), of one purpose of a run's *seed*."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_for(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU generator for one purpose of a run's *seed*."""
    return torch.Generator().manual_seed(seed_for(seed, *purpose))
