"""What a record says of its stages' arithmetic, as rows of the report's CSV files."""

from typing import NamedTuple

from profiles.record import CellRecord


class WorkRow(NamedTuple):
    """One stage of training in one direction, for one window: counted arithmetic and traffic, measured time.

    `flops` are those of matrix products, `least_bytes` the least that moves, `intensity` their ratio. `flops_per_s` is
    over `time_s`, which is `busy` where that is known and else `exposed`, as `time_kind` says.
    """

    stage: str
    direction: str
    flops: int
    least_bytes: float
    intensity: float
    time_s: float
    time_kind: str
    flops_per_s: float


def work_rows(record: CellRecord) -> list[WorkRow]:
    """Return the rows of `work.csv`; a stage that took no time is left out.

    Stages are those of rank 0, which of several ranks does its part of the windows.
    """
    windows = (len(record.step_s) * record.batch_size or record.windows_per_epoch) / record.ranks
    totals = {(t.stage, t.direction): t for t in record.stage_totals if t.phase == "train" and t.exposed_s > 0.0}
    rows = []
    for work in record.work:
        if total := totals.get((work.stage, work.direction)):
            kind, spent_s = ("busy", total.busy_s) if total.busy_s else ("exposed", total.exposed_s)
            time_s = spent_s / (total.epochs * windows)
            rate = work.flops / time_s
            intensity = work.flops / work.least_bytes
            rows.append(
                WorkRow(work.stage, work.direction, work.flops, work.least_bytes, intensity, time_s, kind, rate)
            )
    return rows
