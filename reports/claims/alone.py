"""What the thesis's tables say by themselves: its averages, its arithmetic, and what its times follow.

Every computed number is computed from `reports.data`; what the thesis printed or wrote stands beside it, as read there.
"""

import math
from collections.abc import Callable
from statistics import fmean

import numpy as np

from reports.claims.effects import BASELINE, OTHER, OfPairs
from reports.claims.pairs import difference, geometric_mean, log_ratio, published_pairs
from reports.rows.claims import CheckRow
from reports.source.published import categories, facts, image_side, published
from reports.words.format import listed, model_name, number

PATIENCE = 150
"""Epochs after the best one that the thesis trained on."""

_PRINTED_AVERAGES = {
    ("texture", "msa"): (75.96, 77.88),
    ("texture", "mlsa"): (75.46, 79.69),
    ("object", "msa"): (78.37, 64.43),
    ("object", "mlsa"): (82.33, 67.08),
    ("all", "msa"): (80.02, 66.46),
    ("all", "mlsa"): (81.32, 70.00),
}
_PRINTED_INTRA = {"texture": (96.1, 98.0), "object": (96.9, 93.0), "all": (96.6, 95.0)}
_TASKS = ("segmentation", "detection")
_FITS = 0.013
_SIDE_OF_PILL = 512.0
_ROUNDING = 1e-9
_ONE_EPOCH_S = {BASELINE: 5801.0, OTHER: 6862.0}
"""Section 6.3: a training of one epoch on carpet, 1:36:41 and 1:54:22."""


def checks() -> list[CheckRow]:
    """Return the rows of `published.csv`."""
    return [*_times(), *_averages(), *_stopping(), *_sentences()]


def _times() -> list[CheckRow]:
    """Return what a step's time follows: the pixels that are stored, or those that the model reads."""
    return [
        _computed(
            f"{key}_{model}",
            f"{model_name(model)}'s seconds per step, variance explained by {words}",
            "table 5.2, MVTec AD",
            100.0 * _explained(model, of),
            "%",
        )
        for model in (BASELINE, OTHER)
        for key, words, of in (
            ("stored", "stored megapixels times channels", lambda name: facts()[name].stored_values),
            ("read", "the side of the model's input", lambda name: float(image_side(name) or math.nan)),
        )
    ]


def seconds_per_step(category: str, model: str) -> float:
    """Return the published time of a training step: table 5.2's epoch over its steps."""
    return _number(category, model, "time_per_epoch") / facts()[category].steps_per_epoch


def _explained(model: str, of: Callable[[str], float]) -> float:
    """Return the part of the variance of *model*'s seconds per step that a line over *of* explains."""
    names = categories()
    r = np.corrcoef([of(name) for name in names], [seconds_per_step(name, model) for name in names])[0, 1]
    return float(r**2)


def _averages() -> list[CheckRow]:
    """Return the averages printed below tables 5.1 and 5.3 beside those of their rows."""
    groups = {"all": categories()} | {
        kind: tuple(name for name in categories() if facts()[name].kind == kind) for kind in ("texture", "object")
    }
    printed = {**_PRINTED_AVERAGES, **{(kind, "intra"): values for kind, values in _PRINTED_INTRA.items()}}
    return [
        _agrees(
            f"{kind}_average_{model}_{task}",
            f"{model_name(model)}, {task} AUROC, {kind} average",
            "table 5.3" if model == "intra" else "table 5.1",
            value,
            fmean(_number(name, model, f"{task}_auroc") for name in groups[kind]),
            "%",
            within=0.5 if value.is_integer() and model == "intra" else 0.05 if model == "intra" else 0.005,
        )
        for (kind, model), values in printed.items()
        for task, value in zip(_TASKS, values, strict=True)
    ]


def _stopping() -> list[CheckRow]:
    """Return whether (best epoch + patience) times time per epoch is the training time, and the sum of all."""
    off = {
        f"{name} {model_name(model)}": (_number(name, model, "best_epoch") + PATIENCE)
        * _number(name, model, "time_per_epoch")
        / _number(name, model, "training_time")
        - 1.0
        for name in categories()
        for model in (BASELINE, OTHER)
    }
    wrong = [f"{cell} ({100.0 * error:+.1f}\u00a0%)" for cell, error in off.items() if abs(error) > _FITS]
    hours = sum(_number(name, model, "training_time") for name in categories() for model in (BASELINE, OTHER)) / 3600
    return [
        _agrees(
            "training_times_fit",
            f"Cells whose training time is best epoch + {PATIENCE} times time per epoch, within {100 * _FITS:g}\u00a0%",
            "table 5.2",
            float(len(off)),
            float(len(off) - len(wrong)),
            "cells",
            detail=f"The product is off on {listed(wrong)}." if wrong else "",
        ),
        _computed("gpu_hours", "All training times together", "table 5.2", hours, "GPU hours"),
        _computed(
            "time_ratio",
            "Time per epoch, MLSA / MSA, geometric mean",
            "table 5.2",
            geometric_mean(list(OfPairs("time_per_epoch", log_ratio).published().values())),
            "ratio, baseline MSA",
        ),
    ]


def _sentences() -> list[CheckRow]:
    """Return what the text says of its tables beside what they hold."""
    slower = OfPairs("time_per_epoch", log_ratio).published()
    epochs = OfPairs("best_epoch", difference).published()
    segmentation = OfPairs("segmentation_auroc", difference).published()
    faster = [name for name, effect in slower.items() if effect < 0.0]
    equal = [name for name, effect in epochs.items() if effect == 0.0]
    named = {name: segmentation[name] for name in ("capsule", "hazelnut", "metal_nut")}
    least = min(named, key=named.__getitem__)
    carpet = next(pair for pair in published_pairs("time_per_epoch", BASELINE, OTHER) if pair.category == "carpet")
    one_epoch = _ONE_EPOCH_S[OTHER] / _ONE_EPOCH_S[BASELINE]
    textures = [name for name in categories() if facts()[name].kind == "texture"]
    others = sum(_number(name, "intra", "segmentation_auroc") for name in textures if name != "carpet")
    needed = len(textures) * _PRINTED_INTRA["texture"][0] - others
    return [
        _agrees(
            "slower_in",
            "Categories in which MSA's epoch is shorter (\u201call [\u2026] except for the pill and transistor\u201d)",
            "section 5.2, table 5.2",
            13.0,
            float(len(slower) - len(faster)),
            "categories",
            detail=f"MLSA's is shorter on {listed(faster)}.",
        ),
        _agrees(
            "fewer_epochs_in",
            "Categories in which MLSA's best epoch is earlier (\u201celeven of the fifteen cases\u201d)",
            "section 5.2, table 5.2",
            11.0,
            float(sum(effect < 0.0 for effect in epochs.values())),
            "categories",
            detail=f"Equal on {listed(equal)}.",
        ),
        _agrees(
            "at_least_7",
            "MLSA's smallest lead at segmentation on capsule, hazelnut, metal_nut (\u201cat least [\u2026] 7%\u201d)",
            "section 5.1, table 5.1",
            7.0,
            named[least],
            "points",
            agrees=named[least] >= 7.0,  # noqa: PLR2004 - what is printed
            detail=f"On {least}.",
        ),
        _agrees(
            "one_epoch_carpet",
            "One epoch on carpet, MLSA / MSA (\u201ca higher difference than [\u2026] in table 5.2\u201d)",
            "section 6.3, table 5.2",
            one_epoch,
            carpet.other / carpet.baseline,
            "ratio, baseline MSA",
            agrees=one_epoch > carpet.other / carpet.baseline,
            detail="Computed is the table's; the text only says that the printed is higher.",
        ),
        _agrees(
            "intra_carpet",
            "InTra's carpet segmentation that its texture average needs",
            "table 5.3",
            _number("carpet", "intra", "segmentation_auroc"),
            needed,
            "%",
            within=0.3,
            detail="The one category on which the thesis beats InTra, if 88.2 is no misprint.",
        ),
        _agrees(
            "side_pill",
            "Side of pill's images; \u201ccomputed\u201d is that of the author's published configuration",
            "table 5.1",
            float(image_side("pill") or math.nan),
            _SIDE_OF_PILL,
            "px",
        ),
        _agrees(
            "learning_rate",
            "Learning rate; \u201ccomputed\u201d is that of the author's published script",
            "section 4.5",
            1e-3,
            1e-4,
            "1",
            detail="The script also uses AdamW with steps at epochs 100 and 150, the text Adam.",
        ),
    ]


def _number(category: str, model: str, metric: str) -> float:
    found = published(category, model, metric)
    if found is None:
        message = f"nothing published of {category}, {model}, {metric}"
        raise LookupError(message)
    return found.value


def _computed(check: str, statement: str, source: str, computed: float, unit: str) -> CheckRow:
    return CheckRow(check, statement, source, None, computed, unit, "computed", "")


def _agrees(
    check: str,
    statement: str,
    source: str,
    printed: float,
    computed: float,
    unit: str,
    *,
    within: float = 0.0,
    agrees: bool | None = None,
    detail: str = "",
) -> CheckRow:
    """Return a row that compares: by *agrees* where given, else both numbers are equal or *within* so much."""
    close = abs(printed - computed) <= within + _ROUNDING
    off = "" if close or agrees is not None else f"Off by {number(computed - printed)}. "
    verdict = "agrees" if (close if agrees is None else agrees) else "differs"
    return CheckRow(check, statement, source, printed, computed, unit, verdict, off + detail)
