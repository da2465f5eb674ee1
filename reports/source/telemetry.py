"""A cell's power and utilisation over time, and when its phases were: `telemetry.csv` and `energy.csv`, read.

Both files' times are of one clock. For a picture, long series are thinned to its width: each point is the mean of what
fell into its stretch of time. What is told of a phase is of the samples themselves.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

POINTS = 200
_COLUMNS = ["time_s", "device", "power_w", "utilization_pct"]
_JOINED = frozenset({"train", "validation"})
_GAP_S = 0.5


class Series(NamedTuple):
    """One device over time, seconds since the cell's first sample; a gap is not a number."""

    device: str
    time_s: list[float]
    power_w: list[float]
    utilization_pct: list[float]


class Band(NamedTuple):
    """A stretch of time that belongs to a phase; training and validation take turns and are one."""

    phase: str
    start_s: float
    stop_s: float


class Telemetry(NamedTuple):
    """What is known of a cell over time: *samples* all of it, *series* thinned; *why* says what is not."""

    series: tuple[Series, ...]
    bands: tuple[Band, ...]
    why: str = ""
    samples: tuple[Series, ...] = ()


def read_telemetry(folder: Path) -> Telemetry:
    """Return a cell's telemetry; damaged or missing files give none, and why."""
    try:
        rows = pd.read_csv(folder / "telemetry.csv", usecols=_COLUMNS, na_values=[""], keep_default_na=False)
        rows = rows.astype({"time_s": float, "device": str, "power_w": float, "utilization_pct": float})
        phases = pd.read_csv(folder / "energy.csv", usecols=["phase", "device", "start_s", "wall_s"])
        phases = phases.dropna(subset=["start_s"])  # of a phase that a killed process ran, nobody knows when it was
        phases = phases.astype({"phase": str, "device": str, "start_s": float, "wall_s": float})
    except FileNotFoundError as error:
        return Telemetry((), (), f"{Path(error.filename).name} is missing")
    except (OSError, ValueError) as error:
        return Telemetry((), (), f"telemetry.csv or energy.csv is damaged ({type(error).__name__})")
    rows = rows[np.isfinite(rows["time_s"])]
    if rows.empty:
        return Telemetry((), (), "telemetry.csv holds no sample")
    start_s, stop_s = float(rows["time_s"].min()), float(rows["time_s"].max())
    devices = [(str(device), found) for device, found in rows.groupby("device", sort=False)]
    thinned = [_series(device, _thinned(found, start_s, stop_s), start_s) for device, found in devices]
    samples = [_series(device, found, start_s) for device, found in devices]
    return Telemetry(tuple(thinned), tuple(_bands(phases, start_s)), "", tuple(samples))


def _thinned(rows: pd.DataFrame, start_s: float, stop_s: float) -> pd.DataFrame:
    width_s = max((stop_s - start_s) / POINTS, 1e-9)
    place = ((rows["time_s"] - start_s) / width_s).astype(int).clip(upper=POINTS - 1)
    return rows.groupby(place)[["time_s", "power_w", "utilization_pct"]].mean()


def _series(device: str, rows: pd.DataFrame, start_s: float) -> Series:
    return Series(
        device, (rows["time_s"] - start_s).tolist(), rows["power_w"].tolist(), rows["utilization_pct"].tolist()
    )


def _bands(phases: pd.DataFrame, start_s: float) -> list[Band]:
    """Return the stretches of one device's rows, neighbours of one phase joined."""
    first = phases[phases["device"] == phases["device"].iloc[0]] if len(phases) else phases
    bands: list[Band] = []
    for phase, begun_s, wall_s in zip(first["phase"], first["start_s"], first["wall_s"], strict=True):
        name = "training" if phase in _JOINED else str(phase)
        stop_s = begun_s - start_s + wall_s
        if bands and bands[-1].phase == name and begun_s - start_s - bands[-1].stop_s < _GAP_S:
            bands[-1] = bands[-1]._replace(stop_s=stop_s)
        else:
            bands.append(Band(name, begun_s - start_s, stop_s))
    return bands
