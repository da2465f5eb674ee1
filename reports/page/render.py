"""The page: one HTML file that needs nothing else, made of the tables, charts and sentences of a run.

Everything from the run's directory is data and is escaped where the template writes it. The only script is
ours, and the page's policy admits it alone, by its hash.
"""

import base64
import hashlib
from importlib import resources
from typing import NamedTuple

from jinja2 import Environment as Templates
from jinja2 import PackageLoader, StrictUndefined
from markupsafe import Markup

from profiles.record import CellRecord
from reports.charts import bars, curves, power, roofline, tradeoff
from reports.claims.effects import BASELINE, OTHER
from reports.claims.pairs import settings
from reports.page import answer, breakdown, claims, energies, instruments, listings, pipelines, samples
from reports.page.losses import losses_table
from reports.page.matches import matches_table
from reports.page.powers import powers_table
from reports.page.projection import projection_tables
from reports.page.roofline import roofline_table
from reports.page.surface import surface_tables
from reports.page.tables import Identity, Table, identity, metric_table
from reports.page.whatif import whatif_tables
from reports.rows.claims import CheckRow, ClaimRow
from reports.rows.details import FILES
from reports.rows.metrics import ACCURACY, TIMING, MetricRow
from reports.source.load import Run
from reports.source.published import HARDWARE
from reports.words.format import visible
from reports.words.palette import (
    MODELS,
    PHASES,
    STAGES,
    UNKNOWN,
    UNKNOWN_MODEL,
    in_order,
    phase_class,
    stage_class,
    stage_label,
)


class Rows(NamedTuple):
    """What the report's CSV files hold, row by row; the page shows the same."""

    accuracy: list[MetricRow]
    timing: list[MetricRow]
    energy: list[MetricRow]
    claims: list[ClaimRow]
    checks: list[CheckRow]


def render(run: Run, rows: Rows) -> str:
    """Return the page."""
    records = run.records
    who = identity(records, run.environment.device_name if run.environment else None)
    style, script = _asset("style.css"), _asset("sort.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    templates = Templates(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"visible": visible, "phase_class": phase_class}
    return templates.get_template("page.html.j2").render(
        run=run,
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        script_digest=digest,
        hardware=HARDWARE,
        shared=who.shared,
        **_answer(records, rows.claims),
        **_measured(run, rows, who),
        **_rest(run, rows),
    )


def _answer(records: list[CellRecord], tested: list[ClaimRow]) -> dict[str, object]:
    pictures = [
        bars.ratio_chart(f"ratio{place}", records, setting, BASELINE, OTHER)
        for place, setting in enumerate(settings(records))
    ]
    return {"answers": list(zip(answer.answers(records, tested), pictures, strict=True))}


def _measured(run: Run, rows: Rows, who: Identity) -> dict[str, object]:
    single = [row for row in rows.accuracy if row.level == "cell"]
    means = [row for row in rows.accuracy if row.level != "cell"]
    work = roofline.points(run.records, run.environment)
    stages = [breakdown.stage_table(phase, run.records, who) for phase in breakdown.PHASES]
    return {
        "matches": matches_table(run.cells, who),
        "cells": listings.cells_table(run, who),
        "means": metric_table("means", "Means over categories", means, ACCURACY, who),
        "accuracy": metric_table("auroc", "Every cell", single, ACCURACY, who),
        "timing": metric_table("timing", "Time, throughput and memory", rows.timing, TIMING, who),
        "energy": metric_table("energy", "Energy of an epoch, the training and the cell", rows.energy, (), who),
        "run_energy": energies.of_run(run.records),
        "energy_tables": energies.tables(run.records, who),
        "why_no_energy": energies.why_none(run.records, rows.energy),
        "stage_chart": bars.stage_chart("stages-chart", run.records),
        "stage_legend": _legend({t.stage for r in run.records for t in r.stage_totals if t.phase == "train"}),
        "stage_tables": [table for table in (*stages, breakdown.loader_table(run.records, who)) if table],
        "roofline": roofline.roofline_chart("roofline-chart", work, run.environment),
        "roofline_legend": _legend({point.row.stage for point in work if point.row.flops}),
        "roofline_table": roofline_table(work, run.environment, who),
        "pipelines": pipelines.pipelines(run.records, who),
        "whatif": whatif_tables(run.whatif),
        "projection": projection_tables(run.projection),
        "surfaces": surface_tables(run.surfaces),
        "instruments": instruments.tables(run.records, who),
        "power": power.power_panels(run.cells),
        "powers": powers_table(run.cells, who),
        "tradeoffs": [
            (word, tradeoff.tradeoff_chart(f"tradeoff-{word}", run.records, cost))
            for cost, word in tradeoff.COSTS.items()
        ],
        "curves": curves.panels(run.cells),
        "losses": losses_table(run.cells, who),
        "models": _models(run),
        "strips": samples.strips(run.cells),
        "claims": claims.claims_table(rows.claims, who),
        "checks": claims.checks_table(rows.checks),
    }


def _rest(run: Run, rows: Rows) -> dict[str, object]:
    machine: list[Table] = []
    if run.environment is not None:
        machine = [
            listings.machine_table(run.environment),
            listings.capabilities_table(run.environment.capabilities),
            listings.packages_table(run.environment.packages),
        ]
    return {
        "machine": machine,
        "config": None if run.config is None else visible(run.config, keep="\n\t"),
        "caveats": listings.caveats(run.records),
        "gaps": listings.not_measured(run, [*rows.accuracy, *rows.timing, *rows.energy]),
        "files": ["auroc.csv", "timing.csv", "energy.csv", "claims.csv", "published.csv", *FILES],
        "stage_colours": {**STAGES, "unknown": UNKNOWN},
        "phase_colours": PHASES,
        "model_colours": {**MODELS, "unknown": UNKNOWN_MODEL},
    }


def _legend(present: set[str]) -> list[tuple[str, str]]:
    return [(visible(stage_label(stage)), stage_class(stage)) for stage in in_order(present)]


def _models(run: Run) -> list[tuple[str, str]]:
    present = dict.fromkeys(cell.model for cell in run.cells if cell.epochs)
    return [(visible(model), f"model-{model}" if model in MODELS else "model-unknown") for model in present]


def _asset(name: str) -> str:
    return resources.files("reports.templates").joinpath(name).read_text(encoding="utf-8")
