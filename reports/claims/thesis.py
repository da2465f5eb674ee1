"""What the thesis claims in its chapters 5 to 7, claim by claim: its words, what would show it, and how to test that.

Left out are remarks on single pictures, and what restates a claim in other words. A claim that no record can hold an
answer to stands here too, with the reason.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from reports.claims.effects import (
    Disagreement,
    ImageSides,
    Numbers,
    OfPairs,
    Source,
    StageShares,
    StageTimes,
    above_chance,
    above_intra,
    gap,
    middle,
)
from reports.claims.pairs import difference, log_ratio
from reports.claims.significance import Apart, Effects, Equivalent, Majority, Outcome, Paired, Test, Trend
from reports.source.published import facts

Expected = Literal["above", "below", "no difference"]

MARGIN = 2.0
"""Percentage points of AUROC within which two models count as equal."""

_POINTS = "MLSA \u2212 MSA (baseline MSA), percentage points"
_PAIRED = Paired()
_EQUAL = Equivalent(MARGIN)
_SEGMENTATION, _DETECTION = "segmentation_auroc", "detection_auroc"


@dataclass(frozen=True)
class Claim:
    """One claim. `effect` says what its numbers are; `is_ratio` that they are logarithms, to be shown as ratios.

    Of a trend, `follows` are the numbers that its effects may go along with. Without a source it cannot be tested, for
    `untested`. One that expects no difference is tested for equivalence: that a test of difference finds none shows
    nothing.
    """

    name: str
    section: str
    quote: str
    statement: str
    effect: str = ""
    source: Source | None = None
    test: Test = _PAIRED
    follows: Numbers | None = None
    expected: Expected = "above"
    is_ratio: bool = False
    untested: str = ""

    def outcome(self, effects: Effects, numbers_of: Callable[[Numbers], Effects]) -> Outcome:
        """Return what its test makes of *effects*, with the numbers that they may follow."""
        test = self.test if self.follows is None else Trend(numbers_of(self.follows))
        return test.outcome(effects)


def _better(task: str, kind: str | None, section: str, quote: str, expected: Expected = "above") -> Claim:
    """Return the claim that MLSA is better than MSA at *task* on the categories of *kind*."""
    verb = "segments" if task == "segmentation" else "detects"
    where = f"on {kind}s" if kind else "over all categories"
    how = "as well as" if expected == "no difference" else "better than"
    return Claim(
        name=f"mlsa_{verb}_{'equally' if expected == 'no difference' else 'better'}{f'_{kind}' if kind else ''}",
        section=section,
        quote=quote,
        statement=f"MLSA {verb} {how} MSA {where}",
        effect=f"mean of {task} AUROC, {_POINTS}",
        source=OfPairs(f"{task}_auroc", difference, kind),
        test=_EQUAL if expected == "no difference" else _PAIRED,
        expected=expected,
    )


def _less(name: str, section: str, quote: str, statement: str, metric: str, effect: str) -> Claim:
    return Claim(
        name=name,
        section=section,
        quote=quote,
        statement=statement,
        effect=f"geometric mean of {effect}, MLSA / MSA (baseline MSA)",
        source=OfPairs(metric, log_ratio),
        expected="below",
        is_ratio=True,
    )


_TEXTURES = {name for name, known in facts().items() if known.kind == "texture"}

SLOWER = Claim(
    name="mlsa_slower_per_epoch",
    section="5.2",
    quote="the time per epoch is lower for MSA in all categories except for the pill and transistor",
    statement="MLSA takes longer per epoch than MSA",
    effect="geometric mean of time per epoch, MLSA / MSA (baseline MSA)",
    source=OfPairs("time_per_epoch", log_ratio),
    is_ratio=True,
)

CLAIMS = (
    SLOWER,
    _less(
        "mlsa_trains_shorter",
        "5.2",
        "the total training time is lower for MLSA",
        "MLSA finishes training sooner than MSA",
        "training_time",
        "training time",
    ),
    _less(
        "mlsa_fewer_epochs",
        "5.2, 6.3, 7",
        "the number of epochs required for the best result is lower in eleven of the fifteen cases",
        "MLSA needs fewer epochs to its best weights than MSA",
        "best_epoch",
        "best epoch",
    ),
    _better("segmentation", None, "5.1, 7", "MLSA has better performance than MSA, both for segmentation"),
    _better("detection", None, "5.1, 7", "better performance than MSA, both for segmentation and detection"),
    _better("segmentation", "texture", "5.1", "MSA seems to perform worse for three out of the five textured images"),
    _better("segmentation", "object", "5.1", "the same is true for the object images"),
    _better("detection", "texture", "5.1", "MLSA-based models outperform [\u2026] the majority of the textured images"),
    _better(
        "detection",
        "object",
        "5.1",
        "the results for detection on the object images are split equally",
        "no difference",
    ),
    Claim(
        name="larger_images_favour_msa",
        section="5.1",
        quote="MSA seems to perform better on average when the image size is larger",
        statement="The larger the images, the less MLSA segments better than MSA",
        effect="correlation of image side and segmentation AUROC, MLSA \u2212 MSA",
        source=OfPairs(_SEGMENTATION, difference),
        test=Trend(),
        follows=ImageSides(),
        expected="below",
    ),
    Claim(
        name="three_differ_most",
        section="5.1",
        quote="capsule, hazelnut and metal nut [\u2026] are especially high",
        statement="MLSA's advantage at segmentation is larger on capsule, hazelnut and metal_nut than elsewhere",
        effect="mean of the named \u2212 mean of the other categories of segmentation AUROC, MLSA \u2212 MSA, points",
        source=OfPairs(_SEGMENTATION, difference),
        test=Apart(frozenset({"capsule", "hazelnut", "metal_nut"})),
    ),
    Claim(
        name="three_textures_differ_most",
        section="5.1",
        quote="the difference between the MSA and MLSA models is particularly high in the carpet, grid and leather",
        statement="Of the textures, MSA and MLSA differ most at detection on carpet, grid and leather",
        effect="mean of the named \u2212 mean of the other textures of detection AUROC, |MLSA \u2212 MSA|, points",
        source=OfPairs(_DETECTION, gap, "texture"),
        test=Apart(frozenset({"carpet", "grid", "leather"})),
    ),
    Claim(
        name="detection_low_on_two",
        section="5.1",
        quote="the values for the cable and pill categories are very low",
        statement="Detection is worse on cable and pill than elsewhere",
        effect="mean of the named \u2212 mean of the other categories of detection AUROC, both models' mean, points",
        source=OfPairs(_DETECTION, middle),
        test=Apart(frozenset({"cable", "pill"})),
        expected="below",
    ),
    Claim(
        name="best_at_one_task_only",
        section="5.1",
        quote="do not perform the best [\u2026] for both detection and segmentation, but only for one",
        statement="On most categories one model is better at segmentation, the other at detection",
        effect="part of the categories",
        source=Disagreement(_SEGMENTATION, _DETECTION),
        test=Majority(),
    ),
    Claim(
        name="segmentation_relates_to_detection",
        section="5.1",
        quote="we would expect the segmentation score to directly relate to the detection score",
        statement="The better a category is segmented, the better it is detected",
        effect="correlation over categories of segmentation and detection AUROC, both models' mean",
        source=OfPairs(_DETECTION, middle),
        test=Trend(),
        follows=OfPairs(_SEGMENTATION, middle),
    ),
    Claim(
        name="complex_needs_epochs",
        section="5.2",
        quote="more complex structures require more epochs",
        statement="Textures, cable, screw and transistor need more epochs than the others",
        effect="mean of the named \u2212 mean of the other categories, both models' mean, epochs",
        source=OfPairs("best_epoch", middle),
        test=Apart(frozenset(_TEXTURES | {"cable", "screw", "transistor"})),
    ),
    Claim(
        name="grey_needs_few_epochs",
        section="5.2",
        quote="the pill and zipper images [\u2026] require a very low number of epochs",
        statement="Pill and zipper need fewer epochs than the others",
        effect="mean of the named \u2212 mean of the other categories, both models' mean, epochs",
        source=OfPairs("best_epoch", middle),
        test=Apart(frozenset({"pill", "zipper"})),
        expected="below",
    ),
    Claim(
        name="segments_worse_than_intra",
        section="5.3",
        quote="the only result that is better is the segmentation for the carpet",
        statement="The better of MSA and MLSA segments worse than InTra as published",
        effect="mean of segmentation AUROC, the better model \u2212 InTra as published (baseline), percentage points",
        source=OfPairs(_SEGMENTATION, above_intra(_SEGMENTATION)),
        expected="below",
    ),
    Claim(
        name="detects_worse_than_intra",
        section="5.3",
        quote="the performance of our models is worse than the original model",
        statement="The better of MSA and MLSA detects worse than InTra as published",
        effect="mean of detection AUROC, the better model \u2212 InTra as published (baseline), percentage points",
        source=OfPairs(_DETECTION, above_intra(_DETECTION)),
        expected="below",
    ),
    *(
        Claim(
            name=f"{verb}_above_chance",
            section="6",
            quote="our model can localise and detect anomalies",
            statement=f"The models {verb} anomalies better than guessing",
            effect=f"mean of {metric.removesuffix('_auroc')} AUROC, both models' mean, \u2212 50, percentage points",
            source=OfPairs(metric, above_chance),
        )
        for verb, metric in (("localise", _SEGMENTATION), ("detect", _DETECTION))
    ),
    Claim(
        name="hard_cases",
        section="6.1.1",
        quote="these categories should thus be considered as hard cases",
        statement="Segmentation is worse on metal_nut and transistor than elsewhere",
        effect="mean of the named \u2212 mean of the other categories of segmentation AUROC, both models' mean, points",
        source=OfPairs(_SEGMENTATION, middle),
        test=Apart(frozenset({"metal_nut", "transistor"})),
        expected="below",
    ),
    Claim(
        name="augmentation_blocks_learning",
        section="6.1.2",
        quote="rotations, vertical and horizontal flipping [\u2026] would severely impact the results",
        statement="Random rotations and flips keep the models from learning",
        untested="not measured: no pipeline augments its images",
    ),
    Claim(
        name="mean_map_is_needed",
        section="6.2",
        quote="we thus need to use the average error during training",
        statement="Without the mean map of the training images detection is worse",
        untested="not measured: records hold no score of maps without the mean map",
    ),
    Claim(
        name="msgms_map_segments_better",
        section="6.2",
        quote="directly using the MSGMS-map could improve the scores for segmentation",
        statement="Without the mean map of the training images segmentation is better",
        untested="not measured: records hold no score of maps without the mean map",
    ),
    Claim(
        name="map_loses_information",
        section="6.2",
        quote="since we use equation 4.14 to remove the average reconstruction error we might be losing information",
        statement="On some categories, such as bottle, subtracting the mean map hides part of an anomaly",
        untested="not measured: records hold no score of maps without the mean map",
    ),
    Claim(
        name="reconstructions_lack_detail",
        section="5.1, 6.2",
        quote="the reconstructions that our models make are not sufficiently detailed",
        statement="Reconstructions of good images lack the detail that the MSGMS map asks for",
        untested="not measured: records hold no error of good images alone; pictures are under \u201cSample maps\u201d",
    ),
    Claim(
        name="threshold_differs_by_image",
        section="6.2",
        quote="does require that extra step and would require a different value for each image",
        statement="A threshold on the map would need another value for each category",
        untested="not measured: no score uses a threshold",
    ),
    Claim(
        name="attention_not_the_cause",
        section="6.3",
        quote="unlikely that the implementation of the attention function causes the time difference",
        statement="MLSA's attention takes no longer than MSA's",
        effect="geometric mean of attention's exposed time in training, MLSA / MSA (baseline MSA)",
        source=StageTimes("attention"),
        expected="below",
        is_ratio=True,
    ),
    Claim(
        name="linear_faster_in_library",
        section="6.3",
        quote="87.59ms versus 54.43ms for the normal and linear attention functions",
        statement="The library's example runs faster with linear attention",
        untested="not measured by a run: `bench kernels` times attention alone",
    ),
    Claim(
        name="loading_is_costly",
        section="6.3",
        quote="loading the images from disk and splitting them into patches can be resource intensive",
        statement="Loading and patching take more of the training than attention",
        effect="share of data loading and patching \u2212 share of attention, both models' mean, percentage points",
        source=StageShares(("data_loading", "transfer", "patching")),
    ),
    Claim(
        name="loss_is_costly",
        section="6.3",
        quote="the loss function can take a longer time to calculate",
        statement="The loss takes more of the training than attention",
        effect="share of the loss \u2212 share of attention, both models' mean, percentage points",
        source=StageShares(("loss",)),
    ),
    Claim(
        name="slower_in_one_epoch_too",
        section="6.3",
        quote="not something that we only observe for long jobs",
        statement="MLSA is slower in a training of one epoch too",
        untested="one category, carpet, decides nothing; its two times are among the checks of the published tables",
    ),
    Claim(
        name="profiling_needs_more",
        section="6.3",
        quote="a job with a profiler uses a lot more resources, based on the (failed) test runs",
        statement="A training cannot be profiled with the resources it runs on",
        untested="no comparison over categories: what profiling costs is under \u201cCan the times be trusted?\u201d",
    ),
)
