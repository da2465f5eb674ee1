"""Devices sampled beside a training: joules per phase and per stage."""
