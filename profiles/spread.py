"""How far apart several values of one thing are."""

from collections.abc import Sequence

import numpy as np


def spread(values: Sequence[float]) -> float | None:
    """Return the interquartile range of *values*, in their unit; None for fewer than two."""
    return float(np.subtract(*np.percentile(values, [75, 25]))) if len(values) > 1 else None
