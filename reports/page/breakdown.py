"""Where a phase's time goes: the tables of stages and of loading, exposed and busy side by side."""

from profiles.record import CellRecord
from reports.page.tables import Column, Entry, Identity, Reasons, Table, text
from reports.rows.details import LoaderPartRow, StageShareRow, loader_rows, stage_rows
from reports.words.format import count, integer, number, percent, with_spread
from reports.words.palette import in_order, stage_class, stage_label

PHASES = ("train", "validation", "calibration", "evaluation")

_PARTS = ("decode", "resize", "copy")
_NONE = Entry("\u2013", "none", numeric=True, missing=True)


def stage_table(phase: str, records: list[CellRecord], who: Identity) -> Table | None:
    """Return one phase's stages: a row per cell and stage, its directions side by side; None without any."""
    reasons = Reasons()
    held = [(record, [row for row in stage_rows(record) if row.phase == phase]) for record in records]
    held = [(record, rows) for record, rows in held if rows]
    if not held:
        return None
    body = [
        who.entries(record) + _stage_entries([row for row in rows if row.stage == stage], reasons)
        for record, rows in held
        for stage in in_order({row.stage for row in rows})
    ]
    columns = (
        *who.columns(),
        Column("Stage"),
        *(Column(name, "s, exposed", numeric=True) for name in ("Forward", "Backward", "Whole")),
        Column("Busy", "s, busy", numeric=True),
        Column("Share of phase", "% of exposed", numeric=True),
    )
    detail = (
        "Summed over the epochs that count (n); IQR is over those epochs, of one epoch's seconds or of its share. "
        f"{count(len(held), 'cell')}; {who.shared}."
    )
    return Table(f"stages-{phase}", f"Stages of the {phase} phase", columns, tuple(body), detail, reasons.footnotes())


def _stage_entries(rows: list[StageShareRow], reasons: Reasons) -> tuple[Entry, ...]:
    """Return the entries of one stage of one cell; *rows* are its directions."""
    stage, share = rows[0].stage, sum(row.share for row in rows)
    notes = [f"n\u00a0{integer(rows[0].n)}", *(_share_spread(row) for row in rows)]
    notes += sorted({row.tag for row in rows if row.tag != "measured"})
    return (
        text(stage_label(stage), f"stage {stage_class(stage)}"),
        _exposed([row for row in rows if row.direction == "forward"]),
        _exposed([row for row in rows if row.direction == "backward"]),
        _exposed(rows),
        _busy(rows, reasons),
        Entry(percent(share), ", ".join(filter(None, notes)), share, numeric=True),
    )


def _share_spread(row: StageShareRow) -> str:
    """Return the note of a share's spread over epochs; one epoch has none."""
    if row.n == 1:
        return ""
    way = "" if row.direction == "none" else f"{row.direction}\u00a0"
    return f"IQR\u00a0{way}{'unavailable' if row.share_spread is None else percent(row.share_spread)}"


def _exposed(rows: list[StageShareRow]) -> Entry:
    """Return the sum of *rows*; a single row has a spread, of one epoch's seconds."""
    if not rows:
        return _NONE
    note = with_spread(rows[0].exposed_s, rows[0].spread_s, None) if len(rows) == 1 else ""
    return _seconds([row.exposed_s for row in rows])._replace(note=note)


def _busy(rows: list[StageShareRow], reasons: Reasons) -> Entry:
    busy = [row.busy_s for row in rows if row.busy_s is not None]
    if len(busy) < len(rows):
        return reasons.missing(f"busy time: {next(row.busy_reason for row in rows if row.busy_s is None)}")
    tags = sorted({row.busy_tag for row in rows} - {"measured"})
    return _seconds(busy)._replace(note=", ".join(tags))


def _seconds(values: list[float]) -> Entry:
    return Entry(number(sum(values)), sort=sum(values), numeric=True)


def loader_table(records: list[CellRecord], who: Identity) -> Table | None:
    """Return the CPU time of loading, part by part, beside the wait for it; None where no record holds any."""
    body = [
        who.entries(record) + _loader_entries(record, phase, [row for row in rows if row.phase == phase])
        for record in records
        for rows in [loader_rows(record)]
        for phase in PHASES
        if any(row.phase == phase for row in rows)
    ]
    if not body:
        return None
    columns = (
        *who.columns(),
        Column("Phase"),
        *(Column(part.capitalize(), "CPU s, busy", numeric=True) for part in _PARTS),
        Column("Loading waited for", "s, exposed", numeric=True),
    )
    detail = (
        "Busy: CPU seconds of each part, summed over all processes and over the epochs that count (n); in training "
        "those before epoch 1 are counted too. Exposed: what the loop waited, in the epochs that count only. "
        f"{count(len(body), 'row')}; {who.shared}."
    )
    return Table("loading", "Loading, part by part", columns, tuple(body), detail)


def _loader_entries(record: CellRecord, phase: str, rows: list[LoaderPartRow]) -> tuple[Entry, ...]:
    waits = [row for row in stage_rows(record) if row.phase == phase and row.stage == "data_loading"]
    busy_s = {row.part: row.busy_s for row in rows}
    waited = _exposed(waits)
    if waits:
        note = ", ".join(filter(None, (f"n\u00a0{integer(waits[0].n)}", waited.note)))
        waited = waited._replace(note=note)
    return (text(phase), *(_seconds([busy_s[part]]) if part in busy_s else _NONE for part in _PARTS), waited)
