"""What every attention is built from."""

from typing import NamedTuple


class Sizes(NamedTuple):
    """Width D of a token, heads H (of width E = D / H each), tokens T of a window."""

    width: int
    heads: int
    tokens: int
