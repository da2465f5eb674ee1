"""What a training step has to do at a setting and on a machine, counted in closed form: what a projection prices.

Each term is the work of a stage, or of a part of loading, on one resource: processes that load, the host that goes
through windows in Python, the device that multiplies and moves. Work of the device is counted in seconds at its best
rates, so that its cost is how far from them it stays.

Symbols: B windows of a batch, T tokens of a window, D width, N patches of an image, P values of a patch.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from harness.pipelines import thesis
from harness.pipelines.parts import Pipeline
from harness.work import UPDATE_VALUES, VALUE_BYTES, stage_work
from models.transformer import ModelConfig
from profiles.rate import Rates

Resource = Literal["loader", "host", "device"]

STEPWISE = ("transfer", "patching", "embedding", "attention", "feed_forward", "head", "loss", "unattributed")
"""Stages that cost something for every step, however small it is: what is called and started."""


class Setting(NamedTuple):
    """What is varied."""

    workers: int
    batch_size: int
    image_side: int


class Machine(NamedTuple):
    """Where a step is taken.

    Args:
        processors: that the workers and the host share.
        flops_per_s: the device's best rate of products.
        bytes_per_s: the device's best rate of moving memory.
        decoded_per_s: stored values, pixels times channels, that a processor decodes a second.
        apart: whether the device is none of the processors, and works while the host goes on.

    """

    processors: int
    flops_per_s: float
    bytes_per_s: float
    decoded_per_s: float
    apart: bool

    @property
    def rates(self) -> Rates:
        """Both of the device's."""
        return Rates(self.flops_per_s, self.bytes_per_s)


class Shape(NamedTuple):
    """What no setting changes.

    Args:
        model: its name.
        sizes: its sizes.
        pipeline: how the step is taken.
        attention_parameters: of all blocks.
        other_parameters: all but those and the positions'.
        stored_pixels: of an image file, the mean.
        stored_values: its pixels times its channels.

    """

    model: str
    sizes: ModelConfig
    pipeline: Pipeline
    attention_parameters: int
    other_parameters: int
    stored_pixels: float
    stored_values: float


class Term(NamedTuple):
    """An amount of work of a *stage*, or part of loading, in the unit *per*."""

    stage: str
    per: str
    resource: Resource
    amount: float


def terms(shape: Shape, setting: Setting, rates: Rates) -> list[Term]:
    """Return the work of one step."""
    return [*_loading(shape, setting), *_host(shape, setting), *_device(shape, setting, rates)]


def _loading(shape: Shape, setting: Setting) -> Iterator[Term]:
    """Count what the workers do for a batch, where the pipeline has such."""
    if not shape.pipeline.reloads_every_window:
        return
    batch, pixels = setting.batch_size, setting.image_side**2
    yield Term("decode", "stored value", "loader", batch * shape.stored_values)
    yield Term("resize", "stored pixel", "loader", batch * shape.stored_pixels)
    yield Term("resize", "pixel", "loader", batch * pixels)
    yield Term("copy", "window", "loader", batch)
    yield Term("copy", "pixel", "loader", batch * pixels)


def _host(shape: Shape, setting: Setting) -> Iterator[Term]:
    """Count what the host does: for a step, for a window, and for every entry where it goes through them in Python."""
    batch, entries = setting.batch_size, setting.batch_size * shape.sizes.window_side**2
    for stage in STEPWISE:
        yield Term(stage, "step", "host", 1)
    yield Term("unattributed", "window", "host", batch)
    yield Term("transfer", "pixel", "host", batch * setting.image_side**2)
    if shape.pipeline.cut is thesis.cut_one_by_one:
        yield Term("patching", "entry", "host", entries)
    if shape.pipeline.gather is thesis.gather_one_by_one:
        yield Term("embedding", "entry", "host", entries)


def _device(shape: Shape, setting: Setting, rates: Rates) -> Iterator[Term]:
    """Count what the device multiplies and moves, in seconds at its best rates."""
    batch, sizes = setting.batch_size, shape.sizes
    entries, positions = batch * sizes.window_side**2, (setting.image_side // sizes.patch_side) ** 2
    for work in stage_work(shape.model, sizes, batch, shape.attention_parameters):
        least_s = rates.least_s(batch * work.flops, batch * work.least_bytes)
        yield Term(work.stage, "device second", "device", least_s)

    def moved(stage: str, per: str, values: float) -> Term:
        return Term(stage, per, "device", rates.least_s(0, VALUE_BYTES * values))

    yield moved("loss", "device second", 2 * batch * sizes.patch_values)
    parameters = shape.attention_parameters + shape.other_parameters + positions * sizes.width
    yield moved("optimizer", "device second", UPDATE_VALUES * parameters)
    if shape.pipeline.cut is not thesis.cut_one_by_one:
        yield moved("patching", "device second", 2 * entries * sizes.patch_values)
    if shape.pipeline.gather is thesis.gather_one_by_one:  # each entry's gradient copies all entries and all positions
        yield moved("embedding", "second of entries squared", entries**2 * sizes.width)
        yield moved("embedding", "second of entries times positions", entries * positions * sizes.width)
