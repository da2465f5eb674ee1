"""Run directories built from the record models, as a run would leave them; nothing here trains anything."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from PIL import Image

from profiles.record import (
    Capability,
    CellRecord,
    CellStatus,
    Environment,
    EpochRow,
    Manifest,
    Metric,
    SampleMap,
    StageRow,
    StageTotal,
    Status,
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
NO_ENERGY = "this board has no energy counter"


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
            StageTotal(
                phase=phase,  # type: ignore[arg-type]
                stage=stage,
                direction=direction,  # type: ignore[arg-type]
                exposed_s=share * seconds,
                share=share,
                epochs=5 if phase == "train" else 1,
            )
            for phase, (parts, seconds) in shares.items()
            for (stage, direction), share in parts.items()
        ),
        image_scores=(),
        samples=spec.samples,
        caveats=spec.caveats,
    )


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


def stage_rows(spec: Spec) -> list[StageRow]:
    """Return rows whose sum over the epochs that count is what `record` totals."""
    rows = [
        StageRow("train", epoch, stage, direction, share * spec.time * 0.9, None, share, 591, "measured")  # type: ignore[arg-type]
        for epoch in range(EPOCHS + 1)
        for (stage, direction), share in SHARES.items()
    ]
    return rows + [
        StageRow("evaluation", 4, stage, direction, share * 30.0, 1.5, share, 10, "measured")  # type: ignore[arg-type]
        for (stage, direction), share in EVALUATION.items()
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
    write_csv(folder / "stages.csv", StageRow._fields, stage_rows(spec))
    if spec.status == "done":
        (folder / "record.json").write_text(record(spec).model_dump_json(), encoding="utf-8")
        for sample in spec.samples:
            if sample.file.startswith("maps/") and "/" not in sample.file.removeprefix("maps/"):
                Image.radial_gradient("L").resize((256, 64)).save(folder / sample.file, format="PNG")
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
    )


def pair(category: str, msa: float, mlsa: float, **rest: object) -> list[Spec]:
    """Return both models on *category*, with their seconds per epoch."""
    first = Spec(category=category, model="msa", time=msa, **rest)  # type: ignore[arg-type]
    return [first, Spec(category=category, model="mlsa", time=mlsa, **rest)]  # type: ignore[arg-type]
