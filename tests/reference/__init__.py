"""Slow, obvious references, written from the papers' equations, loops and all."""
