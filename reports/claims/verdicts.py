"""The thesis's claims, put to the test of a run.

A claim about two models is tested by a two-sided Wilcoxon signed-rank test over categories. It is supported
or contradicted where p < 0.05, by the sign of the rank sum; with fewer than six categories no outcome can
reach that, so it is undecided.
"""

import math
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

from profiles.record import CellRecord, Tag
from reports.claims.pairs import (
    Pair,
    Setting,
    by_category,
    difference,
    geometric_mean,
    log_ratio,
    measured_pairs,
    published_pairs,
    setting_of,
    settings,
)
from reports.rows.metrics import ClaimRow, spread
from reports.words.format import count, listed, p_value

Verdict = Literal["supported", "contradicted", "undecided"]

BASELINE, OTHER = "msa", "mlsa"
_LEVEL = 0.05
_FEWEST = 6
_TEST = "Wilcoxon signed-rank, two-sided, over categories"


@dataclass(frozen=True)
class Claim:
    """`other` has more of `metric` than `baseline`, by ratio or by difference."""

    name: str
    statement: str
    metric: str
    by: Literal["ratio", "difference"]
    effect: str
    baseline: str = BASELINE
    other: str = OTHER

    def effects(self, pairs: list[Pair]) -> dict[str, float]:
        """Return each category's effect; positive where it shows the claim."""
        if self.by == "difference":
            return by_category(pairs, difference)
        return by_category([pair for pair in pairs if min(pair.baseline, pair.other) > 0.0], log_ratio)

    def summary(self, effects: list[float]) -> float | None:
        """Return the effect over categories: a geometric mean of ratios, a mean of differences."""
        if not effects:
            return None
        return geometric_mean(effects) if self.by == "ratio" else fmean(effects)

    def spread(self, effects: list[float]) -> float | None:
        """Return the interquartile range of the categories' ratios or differences."""
        return spread([math.exp(effect) for effect in effects] if self.by == "ratio" else effects)


CLAIMS = (
    Claim(
        name="mlsa_slower_per_epoch",
        statement="MLSA takes longer per epoch than MSA",
        metric="time_per_epoch",
        by="ratio",
        effect="geometric mean of time per epoch, MLSA / MSA (baseline MSA)",
    ),
    Claim(
        name="mlsa_segments_better",
        statement="MLSA segments better than MSA on average",
        metric="segmentation_auroc",
        by="difference",
        effect="mean of segmentation AUROC, MLSA \u2212 MSA (baseline MSA), percentage points",
    ),
)


class Judgement(NamedTuple):
    """A verdict with the test behind it."""

    verdict: Verdict
    p_value: float | None
    why: str


def judge(effects: list[float]) -> Judgement:
    """Return the verdict on a claim that says the *effects*, one per category, are positive."""
    moved = [effect for effect in effects if effect != 0.0]
    if len(moved) < _FEWEST:
        equal = f", {len(effects) - len(moved)} of them without a difference" if len(moved) < len(effects) else ""
        seen = count(len(effects), "category", "categories")
        return Judgement("undecided", None, f"{seen}{equal}; the test needs {_FEWEST} that differ")
    p = float(stats.wilcoxon(moved).pvalue)
    if p >= _LEVEL:
        return Judgement("undecided", p, f"p {p_value(p)} is not below {_LEVEL}")
    signed_ranks = stats.rankdata(np.abs(moved)) * np.sign(moved)
    verdict: Verdict = "supported" if signed_ranks.sum() > 0.0 else "contradicted"
    return Judgement(verdict, p, f"p {p_value(p)} is below {_LEVEL}")


def claim_rows(records: list[CellRecord]) -> list[ClaimRow]:
    """Return the rows of `claims.csv`: every claim under every setting of the run."""
    return [claim_row(claim, records, setting) for claim in CLAIMS for setting in settings(records)]


def claim_row(claim: Claim, records: list[CellRecord], setting: Setting) -> ClaimRow:
    """Return *claim* under *setting*, as published and as measured."""
    ours = [record for record in records if setting_of(record) == setting]
    effects = claim.effects(measured_pairs(ours, claim.metric, claim.baseline, claim.other))
    theirs = list(claim.effects(published_pairs(claim.metric, claim.baseline, claim.other)).values())
    measured = list(effects.values())
    judgement = judge(measured)
    return ClaimRow(
        claim=claim.name,
        statement=claim.statement,
        pipeline=setting.pipeline,
        device=setting.device,
        dtype=setting.dtype,
        effect=claim.effect,
        published=claim.summary(theirs),
        published_count=_shown(theirs),
        published_p_value=judge(theirs).p_value,
        measured=claim.summary(measured),
        measured_count=_shown(measured),
        spread=claim.spread(measured),
        n=len(measured),
        p_value=judgement.p_value,
        tag=_tag(claim, ours, effects),
        test=_TEST,
        verdict=judgement.verdict,
        why=judgement.why + _unpaired(claim, ours, effects),
    )


def _shown(effects: list[float]) -> str:
    return f"{sum(effect > 0.0 for effect in effects)}/{len(effects)}"


def _tag(claim: Claim, records: list[CellRecord], effects: dict[str, float]) -> Tag:
    """Return what the measured values are, the weakest of them deciding."""
    models = {claim.baseline, claim.other}
    used = [record for record in records if record.model in models and record.category in effects]
    tags = {metric.tag for record in used for metric in record.metrics if metric.name == claim.metric}
    if not tags:
        return "unavailable"
    return "measured" if tags == {"measured"} else "estimated"


def _unpaired(claim: Claim, records: list[CellRecord], effects: dict[str, float]) -> str:
    """Say which finished categories could not be paired."""
    names = dict.fromkeys(record.category for record in records if record.model in {claim.baseline, claim.other})
    alone = [name for name in names if name not in effects]
    return f"; no pair on {listed(alone)}" if alone else ""
