"""Run directories built from the record models, as a run would leave them; nothing here trains anything."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from PIL import Image

from profiles.record import (
    Capability,
    CellRecord,
    CellStatus,
    Closure,
    EnergyRow,
    EnergyTotal,
    Environment,
    EpochRow,
    LoaderTotal,
    Manifest,
    Metric,
    Observation,
    ProfilerWindow,
    SampleMap,
    StageEnergy,
    StageTotal,
    StageWork,
    Status,
    StepTime,
    TelemetryRow,
    Verdict,
    WindowCell,
    write_csv,
)

EPOCHS = 6
SHARES = {
    ("data_loading", "none"): 0.38,
    ("transfer", "none"): 0.02,
    ("patching", "forward"): 0.09,
    ("embedding", "forward"): 0.02,
    ("embedding", "backward"): 0.03,
    ("attention", "forward"): 0.05,
    ("attention", "backward"): 0.08,
    ("feed_forward", "forward"): 0.06,
    ("feed_forward", "backward"): 0.12,
    ("head", "forward"): 0.01,
    ("head", "backward"): 0.01,
    ("loss", "forward"): 0.02,
    ("loss", "backward"): 0.03,
    ("optimizer", "none"): 0.05,
    ("unattributed", "none"): 0.03,
}
EVALUATION = {("data_loading", "none"): 0.3, ("anomaly_map", "forward"): 0.6, ("unattributed", "none"): 0.1}
NO_RESOURCE = "it has no resource of its own"
NO_WINDOW = "no profiler window of this phase"
NO_ENERGY = "this board has no energy counter"
NO_RAPL = "1 of 5 stretches are unknown: /sys/class/powercap/intel-rapl:0/energy_uj: Permission denied"
TOO_FAST = "it comes and goes faster than the meter's movements are known"
TOO_FEW = "31 whole intervals of the meter lie within the phase; 60 are needed"
SQUARES = "least squares over 1890 intervals, meter lag 1/4 of its period, counter"
IDLE_W = 60.0
TRAIN_J, EVALUATION_J = 98_765.4321, 5_123.75


class Build(Protocol):
    """Builds a run's directory from cells."""

    def __call__(self, *specs: "Spec", status: Status = "done", name: str = "run", title: str = "demo") -> Path:
        """Return the directory."""
        ...


@dataclass(frozen=True)
class Spec:
    """A cell to build. `time` is its seconds per epoch; with `values`, other metrics replace the usual ones."""

    category: str = "carpet"
    model: str = "msa"
    pipeline: str = "fast"
    seed: int = 0
    kind: str = "texture"
    status: Status = "done"
    error: str | None = None
    time: float = 100.0
    segmentation: float = 80.0
    device: str = "cpu"
    dtype: str = "float32"
    caveats: tuple[str, ...] = ("The clock was not locked.",)
    values: dict[str, Metric] = field(default_factory=dict)
    samples: tuple[SampleMap, ...] = (SampleMap(image="000", defect="hole", file="maps/hole_000.png"),)
    energy_totals: tuple[EnergyTotal, ...] = ()
    stage_energies: tuple[StageEnergy, ...] = ()

    @property
    def name(self) -> str:
        """The cell's id."""
        return f"{self.category}/{self.model}-{self.pipeline}/seed{self.seed}"


def metrics(spec: Spec) -> tuple[Metric, ...]:
    usual = [
        Metric(name="segmentation_auroc", value=spec.segmentation, unit="%", tag="measured"),
        Metric(name="detection_auroc", value=71.25, unit="%", tag="measured"),
        Metric(name="aupro_30", value=55.5, unit="%", tag="measured"),
        Metric(name="average_precision", value=31.75, unit="%", tag="measured"),
        Metric(name="time_per_epoch", value=spec.time, unit="s", n=5, spread=1.3, tag="measured"),
        Metric(name="training_time", value=6 * spec.time, unit="s", n=1, tag="measured"),
        Metric(name="best_epoch", value=4.0, unit="epoch", n=1, tag="measured"),
        Metric(name="windows_per_second", value=1543.2, unit="1/s", n=5, spread=21.0, tag="estimated"),
        Metric(name="peak_memory", value=3.2e9, unit="bytes", n=1, tag="measured"),
        Metric(name="parameters", value=41_900_288.0, unit="count", tag="measured"),
        Metric(name="energy_per_epoch", value=None, unit="J", tag="unavailable", reason=NO_ENERGY),
        Metric(name="training_energy", value=None, unit="J", tag="unavailable", reason=NO_ENERGY),
        Metric(name="cell_energy", value=None, unit="J", tag="unavailable", reason=NO_ENERGY),
    ]
    return tuple(({metric.name: metric for metric in usual} | spec.values).values())


def record(spec: Spec) -> CellRecord:
    """Return the record of a finished *spec*."""
    train_s = 5 * spec.time * 0.9
    shares = {"train": (SHARES, train_s), "evaluation": (EVALUATION, 30.0)}
    return CellRecord(
        run="demo",
        suite="mvtec-epoch",
        category=spec.category,
        kind=spec.kind,
        model=spec.model,
        pipeline=spec.pipeline,
        seed=spec.seed,
        device=spec.device,
        dtype=spec.dtype,
        torch="2.13.0",
        commit="0123456789abcdef0123",
        config_hash="feedbeef",
        image_side=512,
        train_images=252,
        validation_images=20,
        test_images=117,
        batch_size=256,
        steps_per_epoch=591,
        windows_per_epoch=151_200,
        epochs=EPOCHS,
        stopped_by="max_epochs",
        best_validation_loss=0.0123,
        metrics=metrics(spec),
        stage_totals=tuple(
            stage_total(phase, stage, direction, share, share * seconds)
            for phase, (parts, seconds) in shares.items()
            for (stage, direction), share in parts.items()
        ),
        loader_totals=(
            LoaderTotal(phase="train", part="decode", busy_s=301.5),
            LoaderTotal(phase="train", part="copy", busy_s=4.25),
        ),
        closures=(
            Closure(phase="train", wall_s=train_s, unattributed_s=0.03 * train_s, residual_s=0.004, epochs=5),
            Closure(phase="evaluation", wall_s=30.0, unattributed_s=3.0, residual_s=None, epochs=1),
        ),
        observations=(look(2), Observation(epoch=4, reason="4 steps are too few to look at")),
        verdict=Verdict(
            bound="mixed", input_share=0.38, compute_share=0.45, host_share=0.17, reason="38.0% waits; 45.0% computes"
        ),
        energy_totals=spec.energy_totals,
        stage_energies=spec.stage_energies,
        image_scores=(),
        samples=spec.samples,
        caveats=spec.caveats,
        work=tuple(
            StageWork(stage=stage, direction=way, flops=flops, least_bytes=flops / intensity)  # type: ignore[arg-type]
            for stage, flops, intensity in (("attention", 1_400_000, 25.0), ("feed_forward", 2_700_000, 40.0))
            for way in ("forward", "backward")
        ),
    )


def stage_total(phase: str, stage: str, direction: str, share: float, exposed_s: float) -> StageTotal:
    """Return a total whose busy time is counted for loading, estimated in training, else unavailable."""
    busy_s, tag, reason = {
        "data_loading": (0.5 * exposed_s, "measured", None),
        "unattributed": (None, "unavailable", NO_RESOURCE),
    }.get(stage, (0.9 * exposed_s, "estimated", None) if phase == "train" else (None, "unavailable", NO_WINDOW))
    return StageTotal(
        phase=phase,  # type: ignore[arg-type]
        stage=stage,
        direction=direction,  # type: ignore[arg-type]
        exposed_s=exposed_s,
        share=share,
        epochs=5 if phase == "train" else 1,
        spread_s=0.25 if phase == "train" else None,
        share_spread=0.0125 if phase == "train" else None,
        busy_s=busy_s,
        busy_tag=tag,  # type: ignore[arg-type]
        busy_reason=reason,
    )


def look(epoch: int, trace: str | None = "epoch0002.pt.trace.json.gz") -> Observation:
    """Return a close look with a window, in which the clock has a tenth of a point more of the loss."""
    cells = tuple(
        WindowCell(
            stage=stage,
            direction=direction,  # type: ignore[arg-type]
            clock_share=share + (0.001 if stage == "loss" else 0.0),
            profiler_share=share,
            exposed_s=0.6 * share,
            busy_s=0.5 * share,
        )
        for (stage, direction), share in SHARES.items()
    )
    window = ProfilerWindow(
        epoch=epoch,
        steps=3,
        events=12_369,
        resident_bytes=None,
        trace=trace,
        trace_bytes=223_622,
        wall_s=0.6,
        busy_s=0.45,
        cells=cells,
    )
    steps = (
        StepTime(state="bare", n=16, median_s=0.15, spread_s=0.002),
        StepTime(state="clock", n=16, median_s=0.153, spread_s=0.002),
        StepTime(state="window", n=1, median_s=0.2, spread_s=None),
    )
    return Observation(epoch=epoch, steps=steps, window=window)


def metered(spec: Spec) -> Spec:
    """Return *spec* on a GPU with a meter, beside a CPU whose own fails in the evaluation.

    In training all stages but the head are told apart; the evaluation is too short to tell any.
    """
    train_s = 5 * spec.time * 0.9
    train = [
        _estimate("train", cell, share * train_s, None if cell[0] == "head" else share * TRAIN_J)
        for cell, share in SHARES.items()
    ]
    evaluation = [_estimate("evaluation", cell, share * 30.0, None, TOO_FEW) for cell, share in EVALUATION.items()]
    whole = {
        "energy_per_epoch": Metric(name="energy_per_epoch", value=21e3, unit="J", n=5, spread=130.0, tag="measured"),
        "training_energy": Metric(name="training_energy", value=1.2e5, unit="J", n=1, tag="measured"),
        "cell_energy": Metric(name="cell_energy", value=1.3e5, unit="J", n=1, tag="measured"),
    }
    return replace(
        spec,
        device="cuda:0",
        values=spec.values | whole,
        energy_totals=(
            EnergyTotal(phase="train", device="cuda:0", energy_j=TRAIN_J, error_j=12.0, method="counter", idle_w=IDLE_W,
                        epochs=5),
            EnergyTotal(phase="train", device="cpu", energy_j=31_400.0, error_j=260.0, method="trapezoid", idle_w=None,
                        epochs=5),
            EnergyTotal(phase="evaluation", device="cuda:0", energy_j=EVALUATION_J, error_j=8.0, method="counter",
                        idle_w=IDLE_W, epochs=1),
            EnergyTotal(phase="evaluation", device="cpu", energy_j=None, error_j=None, method=None, idle_w=None,
                        epochs=1, reason=NO_RAPL),
        ),
        stage_energies=(
            *train,
            _estimate("train", ("unresolved", "none"), 0.02 * train_s, 0.02 * TRAIN_J),
            *evaluation,
            _estimate("evaluation", ("unresolved", "none"), 30.0, EVALUATION_J),
        ),
    )  # fmt: skip


def _estimate(
    phase: str,
    cell: tuple[str, str],
    exposed_s: float,
    energy_j: float | None,
    reason: str = TOO_FAST,
    device: str = "cuda:0",
) -> StageEnergy:
    """Return an estimate with an error bar of 3 %, or the reason why there is none."""
    stage, direction = cell
    known = energy_j is not None
    return StageEnergy(
        phase=phase,  # type: ignore[arg-type]
        device=device,
        stage=stage,
        direction=direction,  # type: ignore[arg-type]
        exposed_s=exposed_s,
        energy_j=energy_j,
        error_j=0.03 * energy_j if energy_j is not None else None,
        above_idle_j=energy_j - IDLE_W * exposed_s if energy_j is not None else None,
        tag="estimated" if known else "unavailable",
        method=SQUARES if phase == "train" else "",
        reason=None if known else reason,
    )


def unmetered(spec: Spec) -> Spec:
    """Return *spec* on a machine that tells no energy of any phase or stage."""
    totals = tuple(
        EnergyTotal(phase=phase, device="cpu", energy_j=None, error_j=None, method=None, idle_w=None, epochs=epochs,
                    reason=f"{epochs} of {epochs} stretches are unknown: no RAPL")
        for phase, epochs in (("train", 5), ("evaluation", 1))
    )  # fmt: skip
    why = totals[0].reason or ""
    parts = tuple(_estimate("train", cell, share * 450.0, None, why, "cpu") for cell, share in SHARES.items())
    return replace(spec, energy_totals=totals, stage_energies=parts)


NEW_KEYS = {"loader_totals", "closures", "observations", "verdict", "energy_totals", "stage_energies", "work", "step_s"}
NEW_STAGE_KEYS = {"tag", "spread_s", "share_spread", "busy_s", "busy_tag", "busy_reason"}


def made_old(run: Path, spec: Spec) -> None:
    """Take from a finished cell's record what records did not hold at first."""
    path = run / "cells" / spec.name / "record.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    old = {key: value for key, value in whole.items() if key not in NEW_KEYS}
    old["stage_totals"] = [
        {key: value for key, value in total.items() if key not in NEW_STAGE_KEYS} for total in whole["stage_totals"]
    ]
    path.write_text(json.dumps(old), encoding="utf-8")


def epoch_rows(spec: Spec, epochs: int = EPOCHS) -> list[EpochRow]:
    """Return falling losses; epoch 2 was profiled."""
    return [
        EpochRow(
            epoch=epoch,
            train_loss=0.2 / epoch + 0.01,
            validation_loss=0.25 / epoch + 0.012 + 0.002 * math.sin(epoch * spec.time),
            wall_s=spec.time,
            windows=151_200,
            is_best=True,
            profiled=epoch == 2,
        )
        for epoch in range(1, epochs + 1)
    ]


def write_cell(run: Path, spec: Spec) -> Path:
    """Write the folder of *spec*; a pending one has none."""
    folder = run / "cells" / spec.name
    if spec.status == "pending":
        return folder
    (folder / "maps").mkdir(parents=True)
    status = CellStatus(status=spec.status, error=spec.error)
    (folder / "status.json").write_text(status.model_dump_json(), encoding="utf-8")
    epochs = EPOCHS if spec.status == "done" else 3
    write_csv(folder / "epochs.csv", EpochRow._fields, epoch_rows(spec, epochs))
    if spec.status == "done":
        (folder / "record.json").write_text(record(spec).model_dump_json(), encoding="utf-8")
        for sample in spec.samples:
            if sample.file.startswith("maps/") and "/" not in sample.file.removeprefix("maps/"):
                Image.radial_gradient("L").resize((256, 64)).save(folder / sample.file, format="PNG")
    return folder


HOSTILE_CATEGORY = (
    "a\n<script>document.title='owned'</script>\"'><img src=x onerror=\"document.title='owned'\">"
    "</title></svg></table>\u202egnp.evil\u2066\u200f\r\n| `*_[x](javascript:1)@all {{ 7*7 }} $\\frac{1}{2}$ &amp; ,;="
)
HOSTILE_CATEGORY += "x" * (300 - len(HOSTILE_CATEGORY))
"""300 characters that a file system may refuse as a folder's name, but a record may hold."""


def renamed(run: Path, spec: Spec, category: str = HOSTILE_CATEGORY) -> None:
    """Let the record of a finished *spec* say that it is of another *category* than its folder."""
    path = run / "cells" / spec.name / "record.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(whole | {"category": category}), encoding="utf-8")


def write_telemetry(run: Path, spec: Spec, rows: int = 600) -> Path:
    """Write what two devices told every tenth of a second, idle, then in training, then in evaluation."""
    folder = run / "cells" / spec.name
    samples = [
        TelemetryRow(*(900.0 + 0.1 * n, device, 250.0 + n % 7 if device == "cuda:0" else None, float(n % 100)),
                     *(None,) * 12, 1, "")
        for n in range(rows)
        for device in ("cuda:0", "cpu")
    ]  # fmt: skip
    write_csv(folder / "telemetry.csv", TelemetryRow._fields, samples)
    length_s = 0.1 * rows
    stretches = [
        ("train", 0, 0.1, 0.1),
        ("train", 1, 0.2, 0.3),
        ("validation", 1, 0.5, 0.1),
        ("evaluation", 1, 0.7, 0.2),
    ]
    energy = [
        EnergyRow(phase, epoch, device, 900.0 + at * length_s, part * length_s, 90.0, 1.0, "counter", 60.0, "", "")  # type: ignore[arg-type]
        for phase, epoch, at, part in stretches
        for device in ("cuda:0", "cpu")
    ]
    write_csv(folder / "energy.csv", EnergyRow._fields, energy)
    return folder


def manifest(specs: Sequence[Spec], status: Status = "done", run: str = "demo") -> Manifest:
    """Return the manifest of a run of *specs*."""
    return Manifest(
        run=run,
        suite="mvtec-epoch",
        command="bench run --suite mvtec-epoch --out demo",
        version="0.1.0",
        commit="0123456789abcdef0123",
        dirty=False,
        config_hash="feedbeef",
        started="2025-11-23T10:00:00Z",
        ended="2025-11-23T12:00:00Z" if status == "done" else None,
        status=status,
        cells=tuple(spec.name for spec in specs),
    )


def environment() -> Environment:
    """Return a machine without a GPU."""
    return Environment(
        device="cpu",
        device_name="Example CPU @ 3.0 GHz",
        driver=None,
        cuda=None,
        power_limit_w=None,
        sm_clock_max_mhz=None,
        cpu="Example CPU @ 3.0 GHz",
        cores=8,
        threads=8,
        memory_bytes=34_359_738_368,
        system="Linux 6.1",
        python="3.11.7",
        packages={"torch": "2.13.0", "numpy": "2.4.6"},
        capabilities=(
            Capability(name="energy_counter", available=False, detail="no NVIDIA driver on this machine"),
            Capability(name="monotonic_clock", available=True, detail="resolution 1 ns"),
        ),
        flops_per_s=50e9,
        bytes_per_s=10e9,
    )


def pair(category: str, msa: float, mlsa: float, **rest: object) -> list[Spec]:
    """Return both models on *category*, with their seconds per epoch."""
    first = Spec(category=category, model="msa", time=msa, **rest)  # type: ignore[arg-type]
    return [first, Spec(category=category, model="mlsa", time=mlsa, **rest)]  # type: ignore[arg-type]
