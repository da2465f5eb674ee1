"""The run record: what a run writes and a report reads. The only meeting place of `harness` and `reports`.

One table of keys, types and units. JSON files hold pydantic models, CSV files rows of the named tuples below, whose
fields are the columns. What a reader divides by is never 0: a record that says so is damaged.

Schema versions:
    1  first; what was added since has a default, so that older records are read: stages' energies,
       `CellRecord.step_s`, `CellRecord.work`, `CellRecord.cells_at_once`, `SampleMap.role` and its score,
       `Environment.flops_per_s`.
"""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from profiles.errors import RunDirectoryError

SCHEMA_VERSION = 1

Phase = Literal["train", "validation", "calibration", "evaluation"]
Direction = Literal["forward", "backward", "none"]
Tag = Literal["measured", "estimated", "unavailable"]
StoppedBy = Literal["patience", "max_epochs", "measured_steps"]
Status = Literal["pending", "running", "done", "failed"]
PowerSource = Literal["instant", "average", "counter"]
EnergyMethod = Literal["counter", "trapezoid"]
RunStatus = Literal["running", "done", "failed", "interrupted"]

UNATTRIBUTED = "unattributed"
UNRESOLVED = "unresolved"


class StageRow(NamedTuple):
    """`stages.csv`: one stage of one phase of one epoch, in one direction.

    Epoch 0 is what comes before the first epoch: images are decoded, warm-up steps run. `calibration` and
    `evaluation` carry the epoch whose weights they use. An empty `busy_s` is unavailable.
    """

    phase: Phase
    epoch: int
    stage: str
    direction: Direction
    exposed_s: float
    busy_s: float | None
    share: float
    calls: int
    tag: Tag


class LoaderRow(NamedTuple):
    """`loader.csv`: CPU time of one part of loading in one phase of one epoch, summed over all processes."""

    phase: Phase
    epoch: int
    part: str
    busy_s: float


class PhaseRow(NamedTuple):
    """`phases.csv`: one phase of one epoch.

    `residual_s` is what the stages' clock and the host's disagree by where they are two clocks, as on a GPU; it is
    part of `unattributed`. `parts` are what it ran in: one, but for interruptions and what was saved within it.
    """

    phase: Phase
    epoch: int
    wall_s: float
    residual_s: float | None
    parts: int = 1


class EpochRow(NamedTuple):
    """`epochs.csv`: one epoch; `wall_s` is its training plus its validation."""

    epoch: int
    train_loss: float
    validation_loss: float
    wall_s: float
    windows: int
    is_best: bool
    profiled: bool


class ResultRow(NamedTuple):
    """`results.csv`: one metric of one cell."""

    run: str
    suite: str
    category: str
    kind: str
    model: str
    pipeline: str
    seed: int
    device: str
    dtype: str
    metric: str
    value: float | None
    unit: str
    n: int | None
    spread: float | None
    tag: Tag


class TelemetryRow(NamedTuple):
    """`telemetry.csv`: one sample of one device, or the mean of several.

    `time_s` is the monotonic clock at the last of them, that of `monotonic_ns` in `events.jsonl`. Where a long run was
    thinned, `samples` says how many samples the row stands for: power, utilisation, clocks and traffic are their means,
    memory, temperature and foreign processes their largest, `throttle` every reason met, the rest the last of them.

    Energy and power are of the moment, everything else of the last second or two; traffic is asked less often and its
    fields are empty in between. Power from a counter is empty where that did not move. A device's rows are in order;
    where `time_s` falls, the machine was started anew between an interruption and its resumption. An empty field is
    otherwise unknown; it is never 0. `unavailable` says why, in the first row to which it applies and whenever it
    changes.
    `energy_j` is the driver's counter as it stood, `power_source` what kind of power it is; of a CPU, utilisation and
    memory are the whole machine's.
    """

    time_s: float
    device: str
    power_w: float | None
    utilization_pct: float | None
    memory_bytes: int | None
    temperature_c: float | None
    sm_clock_mhz: float | None
    throttle: str | None
    memory_clock_mhz: float | None
    power_source: PowerSource | None
    energy_j: float | None
    power_limit_w: float | None
    clock_limit_mhz: float | None
    pcie_rx_bytes_per_s: float | None
    pcie_tx_bytes_per_s: float | None
    foreign_processes: int | None
    samples: int
    unavailable: str


class EnergyRow(NamedTuple):
    """`energy.csv`: what one stretch of a phase cost on one device; one interrupted, or saved within, has several.

    `energy_j` lies within `error_j` of what the device's own meter would have told at the stretch's very borders; how
    true the meter is, is not known here. An empty `energy_j` is unavailable, for `reason`; an empty `start_s` is of a
    phase that a killed process ran. `idle_w` was measured before the run and is not subtracted. `caveats` are joined by
    semicolons.
    """

    phase: Phase
    epoch: int
    device: str
    start_s: float | None
    wall_s: float
    energy_j: float | None
    error_j: float | None
    method: EnergyMethod | None
    idle_w: float | None
    reason: str
    caveats: str


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Metric(_Frozen):
    """One number with its unit and standing.

    `value` is the median of `n` observations, or where it is `estimated` what they extend to, and `spread` their
    interquartile range, extended likewise; either is absent where it does not apply. Percentages run from 0 to 100.
    What is `unavailable` has no value but a `reason`.
    """

    name: str
    value: float | None
    unit: Literal["%", "s", "J", "bytes", "1/s", "epoch", "count"]
    n: int | None = None
    spread: float | None = None
    tag: Tag
    reason: str | None = None

    @model_validator(mode="after")
    def _unavailable_has_no_value(self) -> Self:
        if (self.value is None) != (self.tag == "unavailable") or (self.value is None) != (self.reason is not None):
            message = f"{self.name}: no value, the tag 'unavailable' and a reason come together or not at all"
            raise ValueError(message)
        return self


class StageTotal(_Frozen):
    """One stage of one phase, summed over the epochs that count (epoch 0 and profiled ones left out).

    `spread_s` and `share_spread` are interquartile ranges over those epochs. `busy_s` is what the stage's resource
    worked: CPU time of loading, measured; else exposed time times the busy part of it in the profiler's windows,
    estimated. Without either it is absent, and `busy_reason` says why.
    """

    phase: Phase
    stage: str
    direction: Direction
    exposed_s: float
    share: float = Field(ge=0.0, le=1.0 + 1e-6)
    epochs: int = Field(gt=0)
    tag: Tag = "measured"
    spread_s: float | None = None
    share_spread: float | None = None
    busy_s: float | None = None
    busy_tag: Tag = "unavailable"
    busy_reason: str | None = None


class RankTotal(_Frozen):
    """One stage of one phase over the ranks of a cell: what it took in all of them, and in the one where it took most.

    Over the epochs that count, as `StageTotal`, whose own numbers are rank 0's, but for those that were interrupted.
    """

    phase: Phase
    stage: str
    direction: Direction
    summed_s: float
    slowest_s: float
    slowest_rank: int


class LoaderTotal(_Frozen):
    """CPU time of one part of loading in one phase, summed over the epochs that count and over all processes."""

    phase: Phase
    part: str
    busy_s: float


class Closure(_Frozen):
    """Whether a phase's times add up, over the epochs that count.

    Stages and `unattributed_s` are `wall_s`, to the nanosecond. `residual_s` is the largest disagreement of an
    epoch's two clocks where there are two.
    """

    phase: Phase
    wall_s: float = Field(gt=0.0)
    unattributed_s: float
    residual_s: float | None
    epochs: int = Field(gt=0)


StepState = Literal["bare", "clock", "window", "after"]


class StepTime(_Frozen):
    """How long a training step takes without any instrument (`bare`), with the clock, in a window, or after one."""

    state: StepState
    n: int
    median_s: float = Field(gt=0.0)
    spread_s: float | None


class WindowCell(_Frozen):
    """One stage in one direction as two routes see it, in the same steps; busy is the profiler's."""

    stage: str
    direction: Direction
    clock_share: float
    profiler_share: float
    exposed_s: float
    busy_s: float


class ProfilerWindow(_Frozen):
    """A few steps under the profiler; `busy_s` is the union of its kernels, on a CPU of operators.

    `resident_bytes` is what the process holds more at its end, `reckoned_bytes` what its events were taken for when its
    length was chosen. `trace` is a file under `traces/`, absent once thinned out. `busy_residual_s` is what the stages'
    busy times sum to beyond `busy_s`; it is unavailable where no device computes, and `busy_residual_reason` says why.
    """

    epoch: int
    steps: int
    events: int
    resident_bytes: int | None
    reckoned_bytes: int | None = None
    trace: str | None
    trace_bytes: int
    wall_s: float
    busy_s: float
    busy_residual_s: float | None = None
    busy_residual_reason: str | None = None
    cells: tuple[WindowCell, ...]

    @property
    def difference(self) -> float:
        """The largest disagreement of the two routes on a share."""
        return max(abs(cell.clock_share - cell.profiler_share) for cell in self.cells)


class Observation(_Frozen):
    """A close look at some steps of one epoch; `reason` says why there is no window, where there is none.

    Epoch 0 is none: where only a few steps are measured, further steps are looked at after them.
    """

    epoch: int
    steps: tuple[StepTime, ...] = ()
    window: ProfilerWindow | None = None
    reason: str | None = None

    def median_s(self, state: StepState) -> float | None:
        """Return the median time of a step in *state*, if any was timed."""
        return next((step.median_s for step in self.steps if step.state == state), None)


Bound = Literal["input-bound", "host-bound", "compute-bound", "mixed"]


class Verdict(_Frozen):
    """What bounds a training: the parts of its wall time that wait for input, that compute, and that do neither.

    The third is the host: launching, dispatching, Python. A part of half the time or more gives the name.
    """

    bound: Bound | None
    input_share: float
    compute_share: float | None
    host_share: float | None
    reason: str


class StageEnergy(_Frozen):
    """An estimate of what one stage of one phase cost on one device, beside the time it took.

    The rows of a phase and device sum to `energy_j` of the phase. Where a stage cannot be told from others it has no
    energy but a `reason`, and the row of stage `unresolved` holds what all such stages cost together. `error_j` is half
    the width of a 95 % interval. `above_idle_j` is what is left when the power of the idle device is taken off.
    """

    phase: Phase
    device: str
    stage: str
    direction: Direction
    exposed_s: float
    energy_j: float | None
    error_j: float | None
    above_idle_j: float | None
    tag: Tag
    method: str
    reason: str | None = None


class EnergyTotal(_Frozen):
    """What one phase cost on one device, over the epochs that count; within `error_j`, as far as its meter is true.

    `idle_w` is the power of the idle device before the cell; it is not subtracted. Without energy there is a `reason`.
    """

    phase: Phase
    device: str
    energy_j: float | None
    error_j: float | None
    method: EnergyMethod | None
    idle_w: float | None
    epochs: int
    reason: str | None = None


class StageWork(_Frozen):
    """What one stage of a training step is for one window: FLOPs of matrix products, and the least bytes it moves.

    Both are counted and not measured; the weights that a batch reads are shared out over its windows.
    """

    stage: str
    direction: Direction
    flops: int
    least_bytes: float = Field(gt=0.0)


class ImageScore(_Frozen):
    """A test image's detection score: the largest value of its anomaly map."""

    image: str
    defect: str
    score: float


SampleRole = Literal["worst", "best", "sample"]


class SampleMap(_Frozen):
    """A picture under `maps/`: image, mask, reconstruction and anomaly map side by side.

    `segmentation_auroc` is of this image's pixels alone, in percent; the defective image where it is lowest is the
    `worst`, that where it is highest the `best`. Without a mark in its mask an image has none.
    """

    image: str
    defect: str
    file: str
    role: SampleRole = "sample"
    segmentation_auroc: float | None = None


class CellRecord(_Frozen):
    """Everything measured of one cell: one model on one category, by one pipeline, from one seed.

    `record.json`. `batch_size`, `steps_per_epoch` and `windows_per_epoch` describe a whole epoch, whether or not
    one was run; `step_s` are the steps that were measured where none was. `attention_backend` is whose attention ran.
    Where several *ranks* trained the cell, stages are those of rank 0, `rank_totals` those of all, and energy is of all
    their devices. Up to `cells_at_once` of the run shared the machine (`--jobs`).
    """

    schema_version: Literal[1] = 1
    run: str
    suite: str
    category: str
    kind: str
    model: str
    pipeline: str
    seed: int
    device: str
    dtype: str
    torch: str
    commit: str
    config_hash: str
    image_side: int = Field(gt=0)
    train_images: int
    validation_images: int
    test_images: int
    batch_size: int = Field(gt=0)
    steps_per_epoch: int = Field(gt=0)
    windows_per_epoch: int = Field(gt=0)
    epochs: int
    stopped_by: StoppedBy
    best_validation_loss: float
    metrics: tuple[Metric, ...]
    stage_totals: tuple[StageTotal, ...]
    loader_totals: tuple[LoaderTotal, ...] = ()
    closures: tuple[Closure, ...] = ()
    observations: tuple[Observation, ...] = ()
    verdict: Verdict | None = None
    energy_totals: tuple[EnergyTotal, ...] = ()
    stage_energies: tuple[StageEnergy, ...] = ()
    image_scores: tuple[ImageScore, ...]
    samples: tuple[SampleMap, ...]
    caveats: tuple[str, ...]
    attention_backend: str | None = None
    step_s: tuple[float, ...] = ()
    work: tuple[StageWork, ...] = ()
    ranks: int = Field(default=1, gt=0)
    rank_totals: tuple[RankTotal, ...] = ()
    cells_at_once: int | None = None

    def result_rows(self) -> list[ResultRow]:
        """Return the cell's rows of `results.csv`."""
        return [
            ResultRow(
                run=self.run,
                suite=self.suite,
                category=self.category,
                kind=self.kind,
                model=self.model,
                pipeline=self.pipeline,
                seed=self.seed,
                device=self.device,
                dtype=self.dtype,
                metric=metric.name,
                value=metric.value,
                unit=metric.unit,
                n=metric.n,
                spread=metric.spread,
                tag=metric.tag,
            )
            for metric in self.metrics
        ]


class CellStatus(_Frozen):
    """`status.json` of a cell; one that was interrupted is pending again."""

    status: Status
    error: str | None = None


class Manifest(_Frozen):
    """`manifest.json`: which run this is, how it was started and how it ended. Times are ISO 8601, UTC.

    *ranks* processes train each cell together; *resume* is the command that goes on with the run where it was last at.
    """

    schema_version: Literal[1] = 1
    run: str
    suite: str
    command: str
    version: str
    commit: str
    dirty: bool | None
    config_hash: str
    started: str
    ended: str | None
    status: RunStatus
    cells: tuple[str, ...]
    ranks: int = 1
    resume: str | None = None


class Capability(_Frozen):
    """Something that this machine can or cannot measure, and why."""

    name: str
    available: bool
    detail: str


class Environment(_Frozen):
    """`environment.json`: the machine and its software. What could not be read is absent, never 0.

    `flops_per_s` and `bytes_per_s` are the most that was seen of the device before the run: a float32 matrix product,
    a copy.
    """

    device: str
    device_name: str
    driver: str | None
    cuda: str | None
    power_limit_w: float | None
    sm_clock_max_mhz: int | None
    cpu: str
    cores: int
    threads: int
    memory_bytes: int | None
    system: str
    python: str
    packages: dict[str, str]
    capabilities: tuple[Capability, ...]
    flops_per_s: float | None = None
    bytes_per_s: float | None = None


Model = TypeVar("Model", bound=BaseModel)


def read_model(kind: type[Model], path: Path) -> Model:
    """Read a JSON file of the run's directory.

    Raises:
        RunDirectoryError: the file is missing, unreadable, not JSON, or not what *kind* describes.

    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise RunDirectoryError(
            path,
            got=error.strerror or "an unreadable file",
            expected="a run's file",
            fix="name a run's directory",
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        raise RunDirectoryError(
            path,
            got=f"{first['msg']} at {'.'.join(map(str, first['loc'])) or 'the top'}",
            expected=f"a {kind.__name__} of schema version {SCHEMA_VERSION}",
            fix="resume the run with --retry-failed, or read it with the version that wrote it",
        ) from error


def write_csv(path: Path, columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]], *, append: bool = False) -> None:
    """Write *rows* under a header of *columns*; with *append*, add them to a file that has one.

    An absent value is an empty field; a boolean is `true` or `false`; a float keeps every digit.
    """
    with path.open("a" if append else "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not append:
            writer.writerow(columns)
        writer.writerows(
            ["" if v is None else str(v).lower() if v is True or v is False else v for v in r] for r in rows
        )
