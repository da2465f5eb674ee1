"""The tables that are no matrix of metrics: cells, stages, claims, machine, caveats and gaps."""

from collections.abc import Iterable

from profiles.record import Capability, CellRecord, Environment
from reports.format import count, integer, listed, number, p_value, percent, ratio, scale, visible, with_spread
from reports.load import Cell, Run
from reports.palette import in_order, stage_class, stage_label
from reports.rows import ClaimRow, MetricRow, StageShareRow
from reports.tables import Column, Entry, Identity, Reasons, Table, text

PHASES = ("train", "validation", "calibration", "evaluation")

_CELL = tuple(Column(name, numeric=name == "Seed") for name in ("Category", "Model", "Pipeline", "Seed"))


def cells_table(run: Run) -> Table:
    """Return every cell of the manifest with how it stands and why."""
    columns = (Column("State"), *_CELL, Column("Epochs", numeric=True), Column("Remarks"))
    states = ", ".join(f"{number} {state}" for state, number in run.states.items())
    rows = tuple(_cell_row(cell) for cell in run.cells)
    return Table("cells", "Cells of this run", columns, rows, f"{count(len(rows), 'cell')}: {states}.")


def _cell_row(cell: Cell) -> tuple[Entry, ...]:
    epochs = cell.record.epochs if cell.record else len(cell.epochs)
    remarks = " ".join(part for part in (cell.why, *cell.notes) if part)
    stopped = f"Stopped by {cell.record.stopped_by}. " if cell.record else ""
    return (
        text(cell.state, f"state-{cell.state}"),
        text(cell.category),
        text(cell.model),
        text(cell.pipeline),
        text(cell.seed)._replace(numeric=True),
        Entry(integer(epochs), sort=epochs, numeric=True),
        text(stopped + remarks),
    )


def stage_table(phase: str, rows: list[StageShareRow], who: Identity) -> Table | None:
    """Return one phase's stages: a row per cell and stage, its directions side by side; None without any."""
    groups: dict[tuple[object, ...], list[StageShareRow]] = {}
    for row in rows:
        if row.phase == phase:
            key = tuple(getattr(row, name) for name in who.fields)
            groups.setdefault(key, []).append(row)
    if not groups:
        return None
    reasons = Reasons()
    body = [
        who.entries(found[0]) + _stage_entries([row for row in found if row.stage == stage], reasons)
        for found in groups.values()
        for stage in in_order({row.stage for row in found})
    ]
    columns = (
        *who.columns(),
        Column("Stage"),
        *(Column(name, "s", numeric=True) for name in ("Forward", "Backward", "Exposed", "Busy")),
        Column("Share of phase", "% of exposed", numeric=True),
    )
    detail = (
        f"Exposed seconds, summed over the epochs that count (n), and the share of the phase's wall time; "
        f"IQR is over epochs. {count(len(groups), 'cell')}; {who.shared}."
    )
    return Table(f"stages-{phase}", f"Stages of the {phase} phase", columns, tuple(body), detail, reasons.footnotes())


def _stage_entries(rows: list[StageShareRow], reasons: Reasons) -> tuple[Entry, ...]:
    """Return the entries of one stage of one cell; *rows* are its directions."""
    stage, exposed, share = rows[0].stage, sum(r.exposed_s for r in rows), sum(r.share for r in rows)
    busy = [row.busy_s for row in rows if row.busy_s is not None]
    why = next((row.busy_reason for row in rows if row.busy_s is None), None)
    spreads = [(row.direction, row.share_spread) for row in rows if row.share_spread is not None]
    notes = [f"n\u00a0{integer(rows[0].n)}"]
    notes += [f"IQR {way} {percent(spread)}".replace(" none", "").replace(" ", "\u00a0") for way, spread in spreads]
    notes += [*sorted({row.tag for row in rows if row.tag and row.tag != "measured"})]
    return (
        text(stage_label(stage), f"stage {stage_class(stage)}"),
        _seconds([row.exposed_s for row in rows if row.direction == "forward"]),
        _seconds([row.exposed_s for row in rows if row.direction == "backward"]),
        _seconds([exposed]),
        _seconds(busy) if len(busy) == len(rows) else reasons.missing(f"busy time: {why}"),
        Entry(percent(share), ", ".join(notes), share, numeric=True),
    )


def _seconds(values: list[float]) -> Entry:
    if not values:
        return Entry("\u2013", "none", numeric=True, missing=True)
    return Entry(number(sum(values)), sort=sum(values), numeric=True)


def claims_table(rows: list[ClaimRow]) -> Table:
    """Return the claims with what was published, what was measured and the verdict."""
    columns = (
        Column("Claim"),
        Column("Pipeline"),
        Column("Device, dtype"),
        Column("Published", numeric=True),
        Column("Measured", numeric=True),
        Column("n", "categories", numeric=True),
        Column("p", numeric=True),
        Column("Verdict"),
    )
    notes = tuple(dict.fromkeys(f"{row.statement}: {row.effect}. Test: {row.test}." for row in rows))
    return Table("claims", "Claims of the thesis", columns, tuple(_claim(row) for row in rows), "", notes)


def _claim(row: ClaimRow) -> tuple[Entry, ...]:
    return (
        text(row.statement),
        text(row.pipeline),
        text(f"{row.device}, {row.dtype}"),
        _effect(row.published, row.published_count, row.published_p_value, None),
        _effect(row.measured, row.measured_count, None, row.spread, row.tag),
        Entry(integer(row.n), sort=row.n, numeric=True),
        _p(row.p_value),
        Entry(row.verdict, visible(row.why), row.verdict, mark=f"verdict-{row.verdict}"),
    )


def _effect(value: float | None, shown: str, p: float | None, spread: float | None, tag: str = "measured") -> Entry:
    if value is None:
        return Entry("unavailable", "no pair", numeric=True, missing=True)
    note = f"holds in {shown}"
    note += f", p {p_value(p)}" if p is not None else ""
    note += f", {with_spread(value, spread, None)}" if spread is not None else ""
    note += f", {tag}" if tag != "measured" else ""
    return Entry(ratio(value, spread), note, value, numeric=True)


def _p(p: float | None) -> Entry:
    if p is None:
        return Entry("\u2013", "no test", numeric=True, missing=True)
    return Entry(p_value(p), sort=p, numeric=True)


def machine_table(environment: Environment) -> Table:
    """Return what the run ran on; what could not be read is said to be unknown."""
    memory = environment.memory_bytes
    size = scale("bytes", memory or 0.0)
    facts = {
        "Device": f"{environment.device} ({environment.device_name})",
        "Driver": environment.driver,
        "CUDA": environment.cuda,
        "Power limit": environment.power_limit_w and f"{number(environment.power_limit_w)} W",
        "Highest SM clock": environment.sm_clock_max_mhz and f"{integer(environment.sm_clock_max_mhz)} MHz",
        "CPU": environment.cpu,
        "Cores": f"{environment.cores}, {environment.threads} threads used",
        "Memory": memory and f"{number(memory / size.divisor)} {size.label}",
        "System": environment.system,
        "Python": environment.python,
    }
    rows = [(text(name), text(fact) if fact else Entry("unknown", missing=True)) for name, fact in facts.items()]
    return Table("machine", "Machine", (Column("What"), Column("Value")), tuple(rows))


def capabilities_table(capabilities: tuple[Capability, ...]) -> Table:
    """Return what the machine can measure and what it cannot."""
    columns = (Column("Capability"), Column("Available"), Column("Detail"))
    rows = tuple(
        (text(c.name.replace("_", " ")), text("yes" if c.available else "no"), text(c.detail)) for c in capabilities
    )
    return Table("capabilities", "What this machine can measure", columns, rows)


def packages_table(packages: dict[str, str]) -> Table:
    """Return the versions of the software."""
    rows = tuple((text(name), text(version)) for name, version in sorted(packages.items()))
    return Table("packages", "Packages", (Column("Package"), Column("Version")), rows)


def caveats(records: list[CellRecord]) -> list[tuple[str, str]]:
    """Return every caveat of every record, once, with the cells it is of."""
    cells: dict[str, list[str]] = {}
    for record in records:
        for caveat in record.caveats:
            name = f"{record.category}/{record.model}-{record.pipeline}/seed{record.seed}"
            cells.setdefault(caveat, []).append(name)
    return [(visible(caveat), _whose(names, len(records))) for caveat, names in cells.items()]


def _whose(names: list[str], total: int) -> str:
    return f"all {total} finished cells" if len(names) == total > 1 else listed(names, most=40)


def not_measured(run: Run, rows: Iterable[MetricRow], stages: list[StageShareRow]) -> list[str]:
    """Return what this run does not tell, each with its reason."""
    gaps = [
        f"{visible(cell.name)}: {cell.state}. {visible(cell.why)}".rstrip()
        for cell in run.cells
        if cell.state != "done"
    ]
    reasons: dict[tuple[str, str], int] = {}
    for row in rows:
        if row.value is None:
            key = (row.metric.replace("_", " "), row.reason or "no reason was recorded")
            reasons[key] = reasons.get(key, 0) + 1
    gaps += [f"{visible(name)} ({count(n, 'cell')}): {visible(why)}." for (name, why), n in reasons.items()]
    idle = {row.busy_reason for row in stages if row.busy_s is None}
    gaps += [f"Busy time of stages: {visible(why or '')}." for why in sorted(filter(None, idle))]
    phases = {row.phase for row in stages}
    gaps += [f"Stages of the {phase} phase: no record holds them." for phase in PHASES if phase not in phases]
    lacking = [c for c in (run.environment.capabilities if run.environment else ()) if not c.available]
    gaps += [
        f"Unavailable on this machine: {visible(c.name).replace('_', ' ')} ({visible(c.detail)})." for c in lacking
    ]
    return gaps
