"""The tables that are no matrix of metrics: cells with their verdicts, claims, machine, caveats and gaps."""

from collections.abc import Iterable
from typing import NamedTuple

from profiles.record import Capability, CellRecord, Environment
from reports.page.breakdown import PHASES
from reports.page.energies import not_known
from reports.page.tables import Column, Entry, Identity, Table, text
from reports.rows.details import FILES, stage_rows, verdict_rows
from reports.rows.metrics import MetricRow
from reports.source.load import Cell, Run, cell_name
from reports.words.format import (
    alike,
    count,
    integer,
    listed,
    number,
    percent,
    scale,
    visible,
)

_UNKNOWN = Entry("unavailable", numeric=True, missing=True)
_PARTS = (("Input", "% of wall, exposed"), ("Compute", "% of step, busy"), ("Host", "%, the rest"))
_MOST_ALIKE = 3
_LISTS = {
    "stages.csv": "Stages",
    "loader.csv": "CPU time of loading",
    "verdicts.csv": "What bounds the training",
    "closure.csv": "Whether times add up",
    "steps.csv": "Time of a step under each instrument",
    "windows.csv": "Profiler windows",
    "work.csv": "Arithmetic of stages",
    "routes.csv": "Clock against profiler",
    "phase_energy.csv": "Energy of each phase",
    "stage_energy.csv": "Energy of each stage",
}
_CELL = tuple(Column(name, numeric=name == "Seed") for name in ("Category", "Model", "Pipeline", "Seed"))


def cells_table(run: Run, who: Identity) -> Table:
    """Return every cell of the manifest with how it stands and why."""
    columns = (
        Column("State"),
        *_CELL,
        Column("Epochs", numeric=True),
        Column("Training is"),
        *(Column(name, unit, numeric=True) for name, unit in _PARTS),
        Column("Remarks"),
    )
    states = ", ".join(f"{number} {state}" for state, number in run.states.items())
    rows = tuple(_cell_row(cell) for cell in run.cells)
    detail = (
        f"{count(len(rows), 'cell')}: {states}. What bounds the training has half of its wall time or more: input, "
        "what the loop waited for data; compute, the part of a step in which its resource worked, estimated from the "
        f"profiler windows; host, the rest: launching, dispatching, Python. Finished cells: {who.shared}."
    )
    return Table("cells", "Cells of this run, and what bounds their training", columns, rows, detail)


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
        *(_verdict(cell.record) if cell.record else [Entry("\u2013", missing=True)] * (1 + len(_PARTS))),
        text(stopped + remarks),
    )


def _verdict(record: CellRecord) -> tuple[Entry, ...]:
    """Return what bounds the training, and the parts it follows from."""
    (found,) = verdict_rows(record)
    shares = (found.input_share, found.compute_share, found.host_share)
    return (
        text(found.bound) if found.bound else Entry("unavailable", visible(found.reason), missing=True),
        *(_UNKNOWN if share is None else Entry(percent(share), sort=share, numeric=True) for share in shares),
    )


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


class Caveat(NamedTuple):
    """A caveat and whose it is."""

    text: str
    cells: str


class Caveats(NamedTuple):
    """Caveats that say the same of different numbers; `told` is the one that stands for many."""

    told: str
    found: tuple[Caveat, ...]

    @property
    def folded(self) -> bool:
        """Whether they are many, and shown one by one only on demand."""
        return len(self.found) > _MOST_ALIKE


def caveats(records: list[CellRecord]) -> list[Caveats]:
    """Return every caveat of every record, once, with the cells it is of; those that are alike together."""
    cells: dict[str, list[str]] = {}
    for record in records:
        for caveat in record.caveats:
            cells.setdefault(caveat, []).append(cell_name(record))
    groups: dict[str, list[Caveat]] = {}
    for caveat, names in cells.items():
        groups.setdefault(alike(caveat), []).append(Caveat(visible(caveat), _whose(names, len(records))))
    return [Caveats(found[0].text, tuple(found)) for found in groups.values()]


def _whose(names: list[str], total: int) -> str:
    return f"all {total} finished cells" if len(names) == total > 1 else listed(names, most=40)


def not_measured(run: Run, rows: Iterable[MetricRow]) -> list[str]:
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
    stages = [row for record in run.records for row in stage_rows(record)]
    idle = {row.busy_reason for row in stages if row.busy_reason}
    gaps += [f"Busy time of stages: {visible(why)}." for why in sorted(idle)]
    phases = {row.phase for row in stages}
    gaps += [f"Stages of the {phase} phase: no record holds them." for phase in PHASES if phase not in phases]
    gaps += not_known(run.records)
    gaps += _not_held(run.records)
    lacking = [c for c in (run.environment.capabilities if run.environment else ()) if not c.available]
    gaps += [
        f"Unavailable on this machine: {visible(c.name).replace('_', ' ')} ({visible(c.detail)})." for c in lacking
    ]
    return gaps


def _not_held(records: list[CellRecord]) -> list[str]:
    """Say which of a record's lists are empty in how many records; a record of an older version lacks them all."""
    empty = {file: sum(not detail.rows(record) for record in records) for file, detail in FILES.items()}
    empty["verdicts.csv"] = sum(record.verdict is None for record in records)
    return [f"{_LISTS[file]} ({count(n, 'cell')}): the record does not hold it." for file, n in empty.items() if n]
