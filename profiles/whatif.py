"""What `bench whatif` found: the ceiling of every stage, the gain of every exchanged part, and the way between them.

A gain is the part of a step that is saved: 0.3 where the step takes 0.7 of its time, below 0 where it takes longer. An
end of an interval is absent where the rounds were too few for one.
"""

from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from profiles.record import Environment, Phase

SCHEMA_VERSION = 1
"""1: the first."""

Kind = Literal["ceiling", "swap"]


class EffectRow(NamedTuple):
    """`whatif.csv`: one stage taken away, or one part of the thesis's pipeline exchanged for the fast one's.

    `exposed` and `busy` are the stage clock's shares of the whole step: what the step waited for or spent on the stage,
    and what loading worked, which several processes can do at once, so that it may exceed 1. `reading` explains, by the
    same clock, where the ceiling is not the exposed share. A share that is not known is absent, and `unavailable` says
    why. `busy_tag` is `measured` of loading, by its own meter, and `estimated` of others, by a run's profiler windows.
    """

    category: str
    model: str
    pipeline: str
    phase: Phase
    kind: Kind
    name: str
    replaced_by: str
    gain: float
    low: float | None
    high: float | None
    rounds: int
    exposed: float | None
    busy: float | None
    reading: str
    unavailable: str = ""
    busy_tag: str = ""


class FallRow(NamedTuple):
    """`waterfall.csv`: the parts exchanged one after the other, from the thesis's step, place 0, to the fast one.

    `step` is the step's time so far as a part of the thesis's; `gain` is what this exchange took off it, so that gains
    sum to 1 - `step` of the last place; `by_previous` is the step by the one before, and `low` and `high` are its
    interval, `gain_low` and `gain_high` that of the gain. `reading` says where its place in the order is not sure.
    """

    category: str
    model: str
    place: int
    part: str
    step: float
    gain: float
    by_previous: float
    low: float | None
    high: float | None
    rounds: int
    gain_low: float | None = None
    gain_high: float | None = None
    reading: str = ""


class EpochRow(NamedTuple):
    """`epochs.csv`: the epoch at each place of the waterfall, from the thesis's, place 0, to the fast one's, seconds.

    `epoch_s` is twice `start_s`, which training and validation each take to begin and end loading, and the steps of
    both; `gain_s` is what this place's exchange took off it, so that gains sum to the whole.
    """

    category: str
    model: str
    place: int
    part: str
    start_s: float
    steps: int
    step_s: float
    validation_steps: int
    validation_step_s: float
    epoch_s: float
    gain_s: float
    rounds: int


class StepRow(NamedTuple):
    """`steps.csv`: the whole step that ceilings are of, a median of rounds; an evaluation's inspects two images."""

    category: str
    model: str
    pipeline: str
    phase: Phase
    step_s: float
    rounds: int
    windows: int
    image_side: int
    workers: int
    ended_by: str


class SurfaceRow(NamedTuple):
    """`surface.csv`: a linear attention's time by a softmax one's, forward and backward, all else of the model free.

    Below 1 linear attention is faster. Both include the projections that queries, keys, values and outputs need.
    """

    window_side: int
    tokens: int
    width: int
    heads: int
    windows: int
    softmax_s: float
    linear_s: float
    ratio: float
    low: float | None
    high: float | None
    rounds: int


class SurfaceRecord(BaseModel):
    """`surface.json`: the whole surface, and where and by what it was measured."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    commit: str
    dtype: str
    environment: Environment
    softmax: str
    linear: str
    backend: str = "native"
    rows: tuple[SurfaceRow, ...]


class SettingRow(NamedTuple):
    """`projection.csv`: a step as it was measured at a setting, and as the fitted model has it.

    Nothing was fitted to those that are `held_out`; `error` is how far off the prediction is, as a part of what was
    measured.
    """

    category: str
    model: str
    pipeline: str
    workers: int
    batch_size: int
    image_side: int
    held_out: bool
    measured_s: float
    predicted_s: float
    error: float
    held_up_by: str
    rounds: int


class CostRow(NamedTuple):
    """`costs.csv`: what a unit of a stage's work costs, seconds; a device's unit is a second at its best rates."""

    category: str
    model: str
    pipeline: str
    stage: str
    resource: str
    per: str
    cost_s: float


class FitRow(NamedTuple):
    """How good a cell's fit is, and the numbers in it that are no stage's.

    Errors are medians, and the largest, regardless of sign. `overhead` is what loading costs the workers by what it
    meters; `occupied` is how many processors a step occupies; `decoded_per_s` is a processor's rate of decoding, in
    stored values, which are pixels times channels, of which an image has `stored_values`.
    """

    category: str
    model: str
    pipeline: str
    fitted: int
    held_out: int
    fitted_error: float
    held_out_error: float
    largest_error: float
    overhead: float
    occupied: float
    decoded_per_s: float | None
    stored_values: float


class AskedRow(NamedTuple):
    """`asked.csv`: the step and the training steps of an epoch, predicted for what was asked.

    What is needed of loader, host and device is in seconds a step, that of the loader summed over its workers. `beyond`
    names what lies outside of what was measured.
    """

    category: str
    model: str
    pipeline: str
    asked: str
    workers: int
    batch_size: int
    image_side: int
    processors: int
    flops_per_s: float
    bytes_per_s: float
    decoded_per_s: float | None
    apart: bool
    step_s: float
    epoch_s: float
    held_up_by: str
    loader_s: float
    host_s: float
    device_s: float
    beyond: str


class ProjectionRecord(BaseModel):
    """`projection.json`: the measured grid, what was fitted to half of it, how far off it is, and what was asked."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    commit: str
    suite: str
    dtype: str
    environment: Environment
    fits: tuple[FitRow, ...]
    settings: tuple[SettingRow, ...]
    costs: tuple[CostRow, ...]
    asked: tuple[AskedRow, ...]
    assumptions: tuple[str, ...]


class WhatIfRecord(BaseModel):
    """The whole of it, `whatif.json`."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    commit: str
    suite: str
    dtype: str
    environment: Environment
    order: str
    steps: tuple[StepRow, ...]
    effects: tuple[EffectRow, ...]
    waterfall: tuple[FallRow, ...]
    epochs: tuple[EpochRow, ...] = ()
    not_measured: tuple[str, ...]
