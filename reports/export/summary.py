"""A run in a few lines of Markdown, fit for a pull request."""

from reports.page.answer import Answer
from reports.rows.claims import ClaimRow
from reports.rows.metrics import MetricRow
from reports.source.load import Run
from reports.words.format import model_name, number, scale, with_spread
from reports.words.markdown import line, plain

FILE = "summary.md"

_SHOWN = ("time_per_epoch", "segmentation_auroc", "detection_auroc", "energy_per_epoch")
_HEADINGS = ("cell", "time per epoch", "segmentation", "detection", "energy per epoch")


def summary(run: Run, answers: list[Answer], rows: list[MetricRow], claims: list[ClaimRow]) -> str:
    """Return the answer, the cells' main metrics and how many claims stand how."""
    states = ", ".join(f"{n} {state}" for state, n in run.states.items())
    lines = [
        f"### {plain(run.manifest.run)}: {plain(run.manifest.suite)}, commit {plain(run.manifest.commit[:12])}",
        "",
    ]
    for answer in answers:
        setting = ", ".join(map(plain, answer.setting))
        lines += [f"**{setting}**", "", *(f"- {plain(sentence.text)}" for sentence in answer.sentences), ""]
    lines += [line(_HEADINGS), line(["---"] * len(_HEADINGS)), *_cells(rows), ""]
    verdicts = [f"{sum(row.verdict == v for row in claims)} {v}" for v in ("supported", "contradicted", "undecided")]
    lines += [f"Cells: {plain(states)}. Claims of the thesis: {', '.join(verdicts)}."]
    caveats = sum(len(record.caveats) for record in run.records)
    lines += [f"{caveats} caveats are in the report." if caveats else "No caveat."]
    return "\n".join(lines) + "\n"


def _cells(rows: list[MetricRow]) -> list[str]:
    cells: dict[tuple[str, str, str, int], dict[str, MetricRow]] = {}
    for row in rows:
        if row.level == "cell":
            cells.setdefault((row.category, row.model, row.pipeline, row.seed), {})[row.metric] = row
    return [
        line((f"{category}, {model_name(model)}, {pipeline}, seed {seed}", *(_value(found.get(m)) for m in _SHOWN)))
        for (category, model, pipeline, seed), found in cells.items()
    ]


def _value(row: MetricRow | None) -> str:
    if row is None or row.value is None:
        return "unavailable"
    unit = scale(row.unit, row.value)
    spread = None if row.spread is None else row.spread / unit.divisor
    note = with_spread(row.value / unit.divisor, spread, row.n)
    tag = "" if row.tag == "measured" else f", {row.tag}"
    return f"{number(row.value / unit.divisor, spread)} {unit.label}" + (f" ({note}{tag})" if note else "")
