"""What `bench kernels` found: every kernel at every shape, and where linear attention overtakes softmax."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from profiles.record import Environment

SCHEMA_VERSION = 2
"""1: the first. 2: `flops` are absent where a formula has no products; they were 0."""

Direction = Literal["forward", "forward + backward"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class KernelRow(_Frozen):
    """One kernel at one shape in one direction; where it was not timed there are no numbers but a reason.

    Times are medians of rounds in which all kernels of a shape took turns, with their interquartile range. Operations
    are the formula's, of matrix products alone: three times forward's with backward, whatever a kernel computes again;
    absent where it has none, and then the roofline is that of the bytes. Bytes are those of arguments that are read,
    weights, results and gradients, once each in a direction: what has to move at least.
    """

    kernel: str
    tokens: int
    marks: str
    windows: int
    dtype: str
    direction: Direction
    reason: str = ""
    time_s: float | None = None
    spread_s: float | None = None
    rounds: int = 0
    error: float | None = None
    flops: int | None = None
    least_bytes: int = 0
    flops_per_s: float | None = None
    bytes_per_s: float | None = None
    roofline_share: float | None = None
    peak_bytes: int | None = None
    energy_j: float | None = None
    energy_reason: str = ""


class Crossover(_Frozen):
    """The number of tokens from which on a linear kernel is faster than a softmax one; absent: none in range.

    An end of the interval is absent where the measured lengths do not bound it; the other may be there all the same.
    """

    linear: str
    softmax: str
    dtype: str
    direction: Direction
    tokens: float | None
    low: float | None
    high: float | None
    analytic: float
    note: str


class KernelsRecord(_Frozen):
    """The whole of it."""

    schema_version: int = SCHEMA_VERSION
    commit: str
    environment: Environment
    heads: int
    head_width: int
    peak_flops_per_s: dict[str, float]
    peak_bytes_per_s: float
    rows: tuple[KernelRow, ...]
    crossovers: tuple[Crossover, ...]
