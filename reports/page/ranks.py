"""What each stage took over the processes that trained a cell together, and in the slowest of them."""

from profiles.record import CellRecord, RankTotal
from reports.page.tables import Column, Entry, Identity, Table, text
from reports.words.format import count, integer, number, ratio, scale
from reports.words.palette import stage_class, stage_label


def ranks_table(records: list[CellRecord], who: Identity) -> Table:
    """Return, per cell that several ranks trained, each stage's sum over them and its slowest rank."""
    held = [(record, total) for record in records for total in record.rank_totals]
    unit = scale("s", max((total.summed_s for _, total in held), default=0.0))
    body = tuple(who.entries(record) + _entries(total, record.ranks, unit.divisor) for record, total in held)
    columns = (
        *who.columns(),
        Column("Phase"),
        Column("Stage"),
        Column("Direction"),
        Column("All ranks", f"{unit.label}, exposed, summed", numeric=True),
        Column("Slowest rank", f"{unit.label}, exposed", numeric=True),
        Column("Slowest / mean", "of the ranks", numeric=True),
    )
    detail = f"Processes that trained a cell together, over the epochs that count. {who.shared}."
    gist = f"{count(len({id(record) for record, _ in held}), 'cell')} trained by several processes"
    return Table("ranks", "Ranks: all of them, and the slowest", columns, body, detail, gist=gist)


def _entries(total: RankTotal, ranks: int, divisor: float) -> tuple[Entry, ...]:
    mean_s = total.summed_s / ranks
    slowness = total.slowest_s / mean_s if mean_s else None
    return (
        text(total.phase),
        Entry(stage_label(total.stage), mark=stage_class(total.stage)),
        text(total.direction),
        Entry(number(total.summed_s / divisor), f"n\u00a0{integer(ranks)}", total.summed_s, numeric=True),
        Entry(number(total.slowest_s / divisor), f"rank {total.slowest_rank}", total.slowest_s, numeric=True),
        Entry("\u2013", numeric=True, missing=True)
        if slowness is None
        else Entry(ratio(slowness), sort=slowness, numeric=True),
    )
