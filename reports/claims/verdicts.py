"""The thesis's claims, put to the test of a run and of the thesis's own tables.

A claim is supported or contradicted where its test's p, corrected for the number of claims tested (Holm), is below
0.05, by the direction of the effect; else it is undecided. That two models are equal is supported by a test of
equivalence alone, that their difference lies within a margin, and contradicted by one that it lies beyond; both p are
corrected with all others. Fewer than six categories can decide nothing.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Literal, NamedTuple

from profiles.record import CellRecord, Tag
from profiles.spread import spread
from reports.claims.effects import BASELINE, OF_WHOLE_TRAININGS, OTHER, Numbers
from reports.claims.pairs import Setting, setting_of, settings
from reports.claims.significance import LEVEL, UNVARIED, Effects, Outcome, holm, undecidable
from reports.claims.thesis import CLAIMS, MARGIN, Claim
from reports.rows.claims import ClaimRow
from reports.rows.metrics import ACCURACY
from reports.words.format import count, listed, p_value

Verdict = Literal["supported", "contradicted", "undecided"]

_BELOW, _NOT = f"is below {LEVEL}", f"is not below {LEVEL}"


class Found(NamedTuple):
    """What a claim's test gave, with its p (of an equivalence test both) corrected for all claims tested beside it."""

    claim: Claim
    effects: Effects
    outcome: Outcome
    p_adjusted: float | None
    p_beyond_adjusted: float | None = None


class Judgement(NamedTuple):
    """A verdict and why."""

    verdict: Verdict
    why: str


def claim_rows(records: list[CellRecord]) -> list[ClaimRow]:
    """Return the rows of `claims.csv`: every claim under every setting of the run."""
    return [row for setting in settings(records) for row in _rows(records, setting)]


def _rows(records: list[CellRecord], setting: Setting) -> list[ClaimRow]:
    ours = [record for record in records if setting_of(record) == setting]
    measured = tested(lambda numbers: numbers.measured(ours))
    return [_row(mine, theirs, ours, setting) for mine, theirs in zip(measured, published(), strict=True)]


@cache
def published() -> list[Found]:
    """Return what the thesis's own tables show of every claim."""
    return tested(lambda numbers: numbers.published())


def tested(numbers_of: Callable[[Numbers], Effects]) -> list[Found]:
    """Return every claim's test of its effects, which *numbers_of* gives, the p values corrected together."""
    effects = [numbers_of(claim.source) if claim.source else {} for claim in CLAIMS]
    outcomes = [claim.outcome(found, numbers_of) for claim, found in zip(CLAIMS, effects, strict=True)]
    every = [p for outcome in outcomes for p in (outcome.p, outcome.p_beyond)]
    adjusted = iter(holm([p for p in every if p is not None]))
    corrected = [None if p is None else next(adjusted) for p in every]
    return [
        Found(claim, found, outcome, p, beyond)
        for claim, found, outcome, p, beyond in zip(
            CLAIMS, effects, outcomes, corrected[::2], corrected[1::2], strict=True
        )
    ]


def judge(found: Found) -> Judgement:
    """Return the verdict on a claim."""
    claim, outcome = found.claim, found.outcome
    if claim.source is None:
        return Judgement("undecided", claim.untested)
    if why := undecidable(outcome):
        return Judgement("undecided", why)
    if outcome.effect is None or found.p_adjusted is None:
        return Judgement("undecided", UNVARIED)
    if claim.expected == "no difference":
        return _equality(found.p_adjusted, found.p_beyond_adjusted)
    corrected = f"p {p_value(found.p_adjusted)}, corrected,"
    if found.p_adjusted >= LEVEL:
        return Judgement("undecided", f"{corrected} {_NOT}")
    shown = (outcome.effect > outcome.null) == (claim.expected == "above")
    return Judgement("supported" if shown else "contradicted", f"{corrected} {_BELOW}")


def _equality(within: float, beyond: float | None) -> Judgement:
    """Return the verdict on a claim of no difference, by the corrected p of equivalence and of its opposite."""
    if within >= LEVEL and beyond is not None and beyond < LEVEL:
        return Judgement("contradicted", f"more than {MARGIN:g} points apart: p {p_value(beyond)}, corrected, {_BELOW}")
    told = f"equal to {MARGIN:g} points: p {p_value(within)}, corrected,"
    return Judgement("supported", f"{told} {_BELOW}") if within < LEVEL else Judgement("undecided", f"{told} {_NOT}")


def _row(mine: Found, theirs: Found, records: list[CellRecord], setting: Setting) -> ClaimRow:
    claim, judgement = mine.claim, judge(mine)
    shown = math.exp if claim.is_ratio else float
    tag = _tag(claim, records) if mine.effects else "unavailable"
    return ClaimRow(
        claim=claim.name,
        statement=claim.statement,
        pipeline=setting.pipeline,
        device=setting.device,
        dtype=setting.dtype,
        effect=claim.effect,
        published=_shown(theirs.outcome.effect, shown),
        published_count=_count(theirs),
        published_p_value=theirs.outcome.p,
        measured=_shown(mine.outcome.effect, shown),
        measured_count=_count(mine),
        spread=spread([shown(effect) for effect in mine.effects.values()]),
        n=mine.outcome.n,
        p_value=mine.outcome.p,
        tag=tag,
        test=claim.test.words if claim.source else "",
        verdict=judgement.verdict,
        why=judgement.why + _unpaired(mine, records) + _cut_off(mine, records),
        section=claim.section,
        quote=claim.quote,
        low=_shown(mine.outcome.low, shown),
        high=_shown(mine.outcome.high, shown),
        p_adjusted=mine.p_adjusted,
        published_low=_shown(theirs.outcome.low, shown),
        published_high=_shown(theirs.outcome.high, shown),
        published_p_adjusted=theirs.p_adjusted,
        published_verdict=judge(theirs).verdict if theirs.effects else "",
    )


def _shown(value: float | None, shown: Callable[[float], float]) -> float | None:
    return None if value is None else shown(value)


def _count(found: Found) -> str:
    """Return in how many categories the claim holds, of how many; empty where it is about all at once."""
    if not found.effects or not found.claim.test.each:
        return ""
    null, sign = found.outcome.null, -1.0 if found.claim.expected == "below" else 1.0
    if found.claim.expected == "no difference":
        return f"{sum(abs(effect) < MARGIN for effect in found.effects.values())}/{len(found.effects)}"
    return f"{sum(sign * (effect - null) > 0.0 for effect in found.effects.values())}/{len(found.effects)}"


def _tag(claim: Claim, records: list[CellRecord]) -> Tag:
    """Return what the measured values are, the weakest of them deciding."""
    tags = claim.source.tags(records) - {"unavailable"} if claim.source else set()
    if not tags:
        return "unavailable"
    return "measured" if tags == {"measured"} else "estimated"


def _unpaired(found: Found, records: list[CellRecord]) -> str:
    """Say which finished categories could not be paired."""
    if not found.claim.test.each or found.claim.source is None:
        return ""
    kind = getattr(found.claim.source, "kind", None)
    ours = [record for record in records if record.model in {BASELINE, OTHER} and kind in {None, record.kind}]
    alone = [name for name in dict.fromkeys(record.category for record in ours) if name not in found.effects]
    return f"; no pair on {listed(alone)}" if alone else ""


def _cut_off(found: Found, records: list[CellRecord]) -> str:
    """Say of a score, or of what needs whole trainings, how many trainings a limit of epochs ended."""
    source = found.claim.source
    metric = str(getattr(source, "metric", getattr(source, "first", "")))
    ours = [record for record in records if record.model in {BASELINE, OTHER}]
    cut = sum(record.stopped_by == "max_epochs" for record in ours)
    if not cut or not (metric in ACCURACY or metric in OF_WHOLE_TRAININGS):
        return ""
    return f"; {cut} of {count(len(ours), 'training')} cut off by max_epochs"
