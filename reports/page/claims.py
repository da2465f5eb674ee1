"""The tables of the thesis's claims and of what its own tables say."""

from reports.page.tables import Column, Entry, Identity, Table, text
from reports.rows.claims import CheckRow, ClaimRow
from reports.words.format import between, count, integer, number, p_value, ratio, visible


def claims_table(rows: list[ClaimRow], who: Identity) -> Table:
    """Return the claims with what was published, what was measured and the verdict."""
    columns = (
        Column("Claim"),
        Column("Section"),
        Column("Pipeline"),
        Column("Published", numeric=True),
        Column("Measured", numeric=True),
        Column("n", "categories", numeric=True),
        Column("p", "corrected", numeric=True),
        Column("Verdict"),
        Column("What the numbers are"),
    )
    detail = (
        "Under a number: in how many categories the claim holds, the 95\u00a0% interval, and for the thesis's tables "
        "the verdict that they allow. p is corrected for the number of claims tested (Holm), uncorrected below it; "
        "intervals are not. Of a claim of no difference p is that of equivalence. "
        f"Spreads are in claims.csv. {count(len(rows), 'row')}; {who.shared}."
    )
    return Table("claims", "Claims of the thesis", columns, tuple(_claim(row) for row in rows), detail)


def _claim(row: ClaimRow) -> tuple[Entry, ...]:
    theirs = (row.published_count, row.published_low, row.published_high)
    ours = (row.measured_count, row.low, row.high)
    return (
        text(row.statement)._replace(note=visible(f"\u201c{row.quote}\u201d")),
        text(row.section),
        text(row.pipeline)._replace(note=visible(f"{row.device}, {row.dtype}")),
        _effect(row.published, theirs, row.published_verdict and f"by itself {row.published_verdict}"),
        _effect(row.measured, ours, row.tag if row.tag != "measured" else ""),
        Entry(integer(row.n), sort=row.n, numeric=True),
        _p(row),
        Entry(row.verdict, visible(row.why), row.verdict, mark=f"verdict-{row.verdict}"),
        Entry(visible(row.effect), row.test) if row.effect else Entry("\u2013", missing=True),
    )


def _effect(value: float | None, told: tuple[str, float | None, float | None], more: str) -> Entry:
    """Return an effect with the count and the interval that are *told* of it."""
    if value is None:
        return Entry("\u2013", "no number", numeric=True, missing=True)
    shown, low, high = told
    parts = [shown and f"holds in {shown}", between(low, high) if low is not None else "", more]
    return Entry(ratio(value), ", ".join(filter(None, parts)), value, numeric=True)


def _p(row: ClaimRow) -> Entry:
    if row.p_adjusted is None or row.p_value is None:
        return Entry("\u2013", "no test", numeric=True, missing=True)
    return Entry(p_value(row.p_adjusted), p_value(row.p_value), row.p_adjusted, numeric=True)


def checks_table(rows: list[CheckRow]) -> Table:
    """Return what the thesis's tables say by themselves."""
    columns = (
        Column("What"),
        Column("Source"),
        Column("Printed", numeric=True),
        Column("Computed", numeric=True),
        Column("Unit"),
        Column("Outcome"),
    )
    differ = sum(row.verdict == "differs" for row in rows)
    title = "What the published tables say by themselves"
    gist = f"{differ} of {len(rows)} differ from what was printed"
    return Table("checks", title, columns, tuple(_check(row) for row in rows), gist=gist)


def _check(row: CheckRow) -> tuple[Entry, ...]:
    mark = {"agrees": "verdict-supported", "differs": "verdict-contradicted"}.get(row.verdict, "verdict-undecided")
    return (
        text(row.statement),
        text(row.source),
        Entry("\u2013", numeric=True, missing=True)
        if row.printed is None
        else Entry(number(row.printed), sort=row.printed, numeric=True),
        Entry(number(row.computed), sort=row.computed, numeric=True),
        text(row.unit),
        Entry(row.verdict, row.detail, row.verdict, mark=mark),
    )
