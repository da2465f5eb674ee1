"""Verdicts on constructed data, and the sentences made of them."""

import math
from dataclasses import replace

import pytest
from report_runs import Spec, pair, record

from profiles.record import CellRecord, Metric
from reports.claims.pairs import Setting, geometric_mean
from reports.claims.thesis import CLAIMS
from reports.claims.verdicts import Found, claim_rows, judge
from reports.page.answer import Answer, answers
from reports.page.why import stage_differences
from reports.rows.claims import ClaimRow
from reports.source.published import categories, facts

FAST = Setting("fast", "cpu", "float32")
NAMES = categories()


def records_of(ratios: list[float]) -> list[CellRecord]:
    """Return both models on as many of the thesis's categories; MLSA's segmentation is as much better as slower."""
    specs = []
    for name, ratio in zip(NAMES, ratios, strict=False):
        msa, mlsa = pair(name, 100.0, 100.0 * ratio, kind=facts()[name].kind)
        specs += [msa, replace(mlsa, segmentation=80.0 + 10.0 * (ratio - 1.0))]
    return [record(spec) for spec in specs]


def row_of(records: list[CellRecord], claim: str = "mlsa_slower_per_epoch", setting: Setting = FAST) -> ClaimRow:
    rows = [row for row in claim_rows(records) if row.claim == claim]
    return next(row for row in rows if Setting(row.pipeline, row.device, row.dtype) == setting)


def test_a_claim_that_holds_in_every_category_is_supported() -> None:
    ratios = [1.05 + 0.01 * place for place in range(15)]
    row = row_of(records_of(ratios))
    assert (row.verdict, row.n, row.measured_count) == ("supported", 15, "15/15")
    assert row.p_value == pytest.approx(2 / 2**15)
    assert row.p_adjusted is not None
    assert row.p_value < row.p_adjusted < 0.05
    assert row.measured == pytest.approx(geometric_mean([math.log(ratio) for ratio in ratios]))
    assert row.low is not None
    assert row.high is not None
    assert 1.05 < row.low < row.measured < row.high < 1.19


def test_a_claim_whose_opposite_holds_is_contradicted() -> None:
    row = row_of(records_of([0.95 - 0.01 * place for place in range(15)]))
    assert (row.verdict, row.measured_count) == ("contradicted", "0/15")


def test_a_claim_without_significance_is_undecided() -> None:
    row = row_of(records_of([1.1, 0.9, 1.2, 0.8, 1.05, 0.96]))
    assert row.verdict == "undecided"
    assert row.p_value is not None
    assert row.p_value >= 0.05
    assert "is not below 0.05" in row.why


def test_what_is_significant_alone_is_undecided_among_many_claims() -> None:
    row = row_of(records_of([1.1, 1.2, 1.3, 1.4, 1.5, 1.6]))
    assert row.p_value == 2 / 64
    assert row.p_adjusted is not None
    assert row.p_adjusted > 0.05
    assert row.verdict == "undecided"


def test_fewer_than_six_categories_decide_nothing() -> None:
    row = row_of(records_of([1.1, 1.2, 1.3, 1.4, 1.5]))
    assert row.verdict == "undecided"
    assert row.why == "5 categories: too few, whatever they show"


def test_every_claim_of_the_thesis_stands_under_every_setting() -> None:
    msa, mlsa = pair("carpet", 100.0, 110.0)
    rows = claim_rows([record(msa), record(replace(mlsa, pipeline="thesis"))])
    assert [row.claim for row in rows] == [claim.name for claim in CLAIMS] * 2
    assert all(row.section and row.quote for row in rows)
    assert {row.verdict for row in rows} == {"undecided"}


def test_what_no_record_can_hold_is_undecided_and_says_why() -> None:
    row = row_of(records_of([1.1]), "mean_map_is_needed")
    assert (row.verdict, row.why) == ("undecided", "not measured: records hold no score of maps without the mean map")


@pytest.mark.parametrize(
    ("claim", "effect", "verdict"),
    [
        ("three_textures_differ_most", (9.31 + 13.36 + 11.41) / 3 - (2.60 + 4.82) / 2, "undecided"),
        ("localise_above_chance", (77.57 + 80.04) / 2 - 50.0, "supported"),
        ("detect_above_chance", (68.91 + 71.28) / 2 - 50.0, "supported"),
    ],
)
def test_what_the_tables_allow_of_a_claim_is_computed_from_them(claim: str, effect: float, verdict: str) -> None:
    row = row_of(records_of([1.1]), claim)
    assert row.published == pytest.approx(effect, abs=0.01)
    assert row.published_verdict == verdict


def test_two_models_are_equal_where_equivalence_is_shown_and_never_for_the_lack_of_a_difference() -> None:
    objects = [name for name in NAMES if facts()[name].kind == "object"]
    effects = {name: 0.1 * (-1) ** place * place for place, name in enumerate(objects)}
    claim = next(claim for claim in CLAIMS if claim.expected == "no difference")

    def verdict(scale: float, shift: float, tests: int = 1) -> str:
        """Return the verdict on the effects, whose p are corrected as if there were so many *tests*."""
        found = {name: scale * effect + shift for name, effect in effects.items()}
        outcome = claim.test.outcome(found)
        p, beyond = (None if p is None else min(1.0, tests * p) for p in (outcome.p, outcome.p_beyond))
        return judge(Found(claim, found, outcome, p, beyond)).verdict

    assert verdict(1.0, 0.0) == "supported"
    assert verdict(1.0, 0.0, tests=30) == "undecided"
    assert verdict(20.0, 0.0) == "undecided"
    assert verdict(1.0, 1.0) == "supported"
    assert verdict(1.0, 1.9) == "undecided"
    assert verdict(1.0, 5.0) == "contradicted"
    assert verdict(1.0, -5.0) == "contradicted"


def test_the_p_of_equivalence_is_corrected_with_those_of_all_other_claims() -> None:
    objects = [name for name in NAMES if facts()[name].kind == "object"]
    specs = [spec for name in objects for spec in pair(name, 100.0, 100.0, kind="object")]
    row = row_of([record(spec) for spec in specs], "mlsa_detects_equally_object")
    assert "equivalence within" in row.test
    assert row.p_value == 2 / 2 ** len(objects)
    others = {other.claim: other.p_value for other in claim_rows([record(spec) for spec in specs])}
    assert sum(p is not None for p in others.values()) > 1
    assert row.p_adjusted is not None
    assert row.p_adjusted > row.p_value


def test_models_farther_apart_than_the_margin_contradict_that_they_are_equal() -> None:
    records = []
    for place, name in enumerate(name for name in NAMES if facts()[name].kind == "object"):
        msa, mlsa = pair(name, 100.0, 100.0, kind="object")
        score = Metric(name="detection_auroc", value=80.0 + 0.1 * place, unit="%", tag="measured")
        records += [record(msa), record(replace(mlsa, values={score.name: score}))]
    row = row_of(records, "mlsa_detects_equally_object")
    assert row.verdict == "contradicted"
    assert row.why.startswith("more than 2 points apart: p ")


def sided(sides: list[int]) -> list[CellRecord]:
    """Return both models on as many categories, measured at these sides; the larger, the better MLSA segments."""
    records = records_of([1.0 + 0.001 * side for side in sides])
    return [each.model_copy(update={"image_side": sides[place // 2]}) for place, each in enumerate(records)]


def test_the_trend_over_image_sides_is_over_those_that_the_run_used() -> None:
    rising = row_of(sided([64, 96, 128, 160, 192, 224, 256, 288]), "larger_images_favour_msa")
    assert rising.measured == pytest.approx(1.0)
    falling = row_of(sided([288, 256, 224, 192, 160, 128, 96, 64]), "larger_images_favour_msa")
    assert (falling.measured, falling.n) == (pytest.approx(1.0), 8)
    assert falling.published == rising.published


def test_where_all_images_are_of_one_size_nothing_can_follow_it() -> None:
    row = row_of(records_of([1.1 + 0.01 * place for place in range(15)]), "larger_images_favour_msa")
    assert (row.measured, row.verdict) == (None, "undecided")
    assert row.why.startswith("the number that the effects may follow is the same in all 15 categories")


def test_a_claim_on_categories_that_the_run_lacks_says_so() -> None:
    row = row_of(records_of([1.1] * 8)[:2], "hard_cases")
    assert row.why.startswith("none of the categories that it names has both numbers")


def test_attention_and_loading_are_judged_by_their_stages() -> None:
    records = records_of([1.01] * 8)
    attention = row_of(records, "attention_not_the_cause")
    assert attention.measured == pytest.approx(1.01)
    assert attention.verdict != "supported"
    loading = row_of(records, "loading_is_costly")
    assert loading.measured == pytest.approx(100.0 * (0.38 + 0.02 + 0.09 - 0.13))


def test_an_unpaired_category_is_named() -> None:
    row = row_of([*records_of([1.1]), record(Spec(category="lonely"))])
    assert row.why.endswith("no pair on lonely")


def test_nothing_to_pair_is_undecided_with_no_number() -> None:
    row = row_of([record(Spec())])
    assert (row.measured, row.n, row.verdict) == (None, 0, "undecided")


def test_seeds_of_a_category_count_once() -> None:
    specs = [*pair("c", 100.0, 110.0, seed=0), *pair("c", 100.0, 121.0, seed=1)]
    row = row_of([record(spec) for spec in specs])
    assert row.n == 1
    assert row.measured == pytest.approx((1.1 * 1.21) ** 0.5)


def test_devices_are_never_paired_with_each_other() -> None:
    msa, mlsa = pair("c", 100.0, 110.0)
    rows = claim_rows([record(msa), record(replace(mlsa, device="cuda:0"))])
    assert list(dict.fromkeys(row.device for row in rows)) == ["cpu", "cuda:0"]
    assert all(row.measured is None for row in rows)


def test_an_unavailable_or_infinite_metric_makes_no_pair() -> None:
    gone = Metric(name="time_per_epoch", value=None, unit="s", tag="unavailable", reason="no whole epoch")
    endless = Metric(name="time_per_epoch", value=float("inf"), unit="s", tag="measured")
    for metric in (gone, endless):
        msa, mlsa = pair("c", 100.0, 110.0)
        row = row_of([record(msa), record(replace(mlsa, values={metric.name: metric}))])
        assert row.n == 0


def test_the_published_side_is_computed_from_the_tables() -> None:
    records = records_of([1.1])
    slower, better = row_of(records), row_of(records, "mlsa_segments_better")
    assert slower.published == pytest.approx(1.0716, abs=1e-4)
    assert (slower.published_count, better.published_count) == ("11/15", "10/15")
    assert better.published == pytest.approx(80.04 - 77.57, abs=0.01)
    assert row_of(records, "detects_worse_than_intra").published_verdict == "supported"


def answered(records: list[CellRecord]) -> list[Answer]:
    return answers(records, claim_rows(records))


def test_the_answer_tells_the_ratio_the_share_and_the_largest_stage() -> None:
    (found,) = answered(records_of([1.05 + 0.01 * place for place in range(15)]))
    faster, why, cost = found.sentences
    assert faster.text.startswith(
        "Linear attention (MLSA) took 12\u00a0% more time per epoch than softmax attention (MSA), "
        "a difference that the test confirms"
    )
    assert "baseline MSA" in faster.evidence
    assert why.text == (
        "Attention, forward and backward, takes 13.0\u00a0% of the training with MSA and 13.0\u00a0% with MLSA; "
        "the largest stage is data loading, 38.0\u00a0% with MSA and 38.0\u00a0% with MLSA; "
        "the two differ most in data loading, by +4.6\u00a0% of an epoch of MSA; "
        "what sets the pace is no single thing in all 30 cells."
    )
    assert cost.text == (
        "An epoch took 100.0\u00a0s with MSA and 112.0\u00a0s with MLSA; its energy is unknown, and the segmentation "
        "AUROC that was reached is 80.00\u00a0% with MSA and 81.20\u00a0% with MLSA."
    )
    assert "peak memory 2.980\u00a0GiB, n\u00a015" in cost.evidence


def test_where_attention_is_the_largest_stage_its_share_is_told_once() -> None:
    whole = record(Spec())
    most = [
        total.model_copy(update={"share": 0.5}) if total.stage == "attention" else total for total in whole.stage_totals
    ]
    text = answered([whole.model_copy(update={"stage_totals": tuple(most)})])[0].sentences[1].text
    assert "100.0\u00a0% of the training with MSA; no other stage takes more;" in text


def test_the_answer_is_honest_about_a_small_sample_and_about_none() -> None:
    (small,) = answered(records_of([1.1]))
    assert "settles nothing yet (1 category: too few, whatever they show)" in small.sentences[0].text
    (none,) = answered([record(Spec())])
    assert "cannot be told: they share no category here" in none.sentences[0].text


def test_the_answer_without_stages_says_so() -> None:
    (found,) = answered([record(Spec()).model_copy(update={"stage_totals": ()})])
    assert "an unknown share with MSA" in found.sentences[1].text
    assert "the largest stage is unknown" in found.sentences[1].text


def test_what_the_models_differ_in_adds_up_to_the_whole_difference_of_their_epochs() -> None:
    records = records_of([1.1, 1.2])
    off = stage_differences(records)
    assert sum(off.values()) == pytest.approx(0.15)
    assert off["attention"] == pytest.approx(0.13 * 0.15)
    slow = [
        total.model_copy(update={"exposed_s": 3.0 * total.exposed_s}) if total.stage == "attention" else total
        for total in records[1].stage_totals
    ]
    apart = [records[0], records[1].model_copy(update={"stage_totals": tuple(slow)})]
    base = 0.13 * (3.0 * 1.1 - 1.0)
    assert stage_differences(apart)["attention"] == pytest.approx(base)
    sentence = answered(apart)[0].sentences[1]
    assert f"the two differ most in attention, by +{100 * base:.1f}\u00a0% of an epoch of MSA" in sentence.text
    assert "all stages together +" in sentence.evidence


def test_models_that_share_no_category_differ_in_nothing_that_can_be_told() -> None:
    alone = [record(Spec()), record(Spec(category="grid", model="mlsa"))]
    assert stage_differences(alone) == {}
    assert "differ" not in answered(alone)[0].sentences[1].text
    equal = [record(spec) for spec in pair("carpet", 100.0, 100.0)]
    assert "the two differ in no stage by 0.1\u00a0% of an epoch" in answered(equal)[0].sentences[1].text


def test_beside_a_few_measured_steps_the_checkpoint_is_left_out() -> None:
    whole = record(Spec())
    stages = {total.stage: total for total in whole.stage_totals if total.phase == "train"}
    once = stages["data_loading"].model_copy(update={"stage": "checkpoint"})
    totals = tuple(once if total == stages["data_loading"] else total for total in whole.stage_totals)
    few = whole.model_copy(update={"step_s": (1.0, 1.1), "stage_totals": totals})
    told = answered([few])[0].sentences[1]
    assert "the largest stage is feed forward, 29.0\u00a0%" in told.text  # 0.18 of what is left of 1 - 0.38
    assert "Shares are of the measured steps" in told.evidence
    all_epoch = few.model_copy(update={"step_s": ()})
    assert "the largest stage is checkpoint, 38.0\u00a0%" in answered([all_epoch])[0].sentences[1].text


def test_the_cost_says_of_how_many_cells_it_is_and_what_is_estimated() -> None:
    guessed = Metric(name="energy_per_epoch", value=2500.0, unit="J", tag="estimated")
    records = [record(Spec(values={guessed.name: guessed})), record(Spec(category="grid"))]
    (found,) = answered(records)
    assert "2,500\u00a0J in 1 of 2 cells (estimated)" in found.sentences[2].text


def test_the_cost_has_the_digits_that_the_least_sure_cell_justifies() -> None:
    unsure = Metric(name="time_per_epoch", value=2026.2, unit="s", n=6, spread=660.0, tag="estimated")
    text = answered([record(Spec(values={unsure.name: unsure}))])[0].sentences[2].text
    assert "took 34\u00a0min (estimated) with MSA" in text


def test_a_claim_on_estimated_times_says_so() -> None:
    records = records_of([1.1, 1.2])
    times = [metric for metric in records[0].metrics if metric.name == "time_per_epoch"]
    others = [metric for metric in records[0].metrics if metric.name != "time_per_epoch"]
    guessed = [times[0].model_copy(update={"tag": "estimated"}), *others]
    mixed = [records[0].model_copy(update={"metrics": tuple(guessed)}), *records[1:]]
    assert row_of(records).tag == "measured"
    assert row_of(mixed).tag == "estimated"
    assert row_of(records[:1]).tag == "unavailable"
    assert "estimated from some measured steps" in answered(mixed)[0].sentences[0].evidence
    assert "estimated" not in answered(records)[0].sentences[0].evidence


def test_a_training_that_a_limit_of_epochs_ended_is_in_no_claim_on_its_length_and_said_of_its_scores() -> None:
    cut = records_of([1.1] * 8)
    whole = [each.model_copy(update={"stopped_by": "patience"}) for each in cut]
    for claim in ("mlsa_trains_shorter", "mlsa_fewer_epochs"):
        assert (row_of(cut, claim).n, row_of(whole, claim).n) == (0, 8)
        assert row_of(cut, claim).tag == "unavailable"
        assert row_of(cut, claim).why.endswith("16 of 16 trainings cut off by max_epochs")
    mixed = [*whole[:-1], cut[-1]]
    assert row_of(mixed, "mlsa_segments_better").why.endswith("1 of 16 trainings cut off by max_epochs")
    assert "cut off" not in row_of(whole, "mlsa_segments_better").why
    assert "cut off" not in row_of(cut).why


def test_times_are_called_the_same_only_where_the_interval_says_so() -> None:
    (canceled,) = answered(records_of([1.04, 0.963]))
    assert canceled.sentences[0].text.startswith(
        "Linear attention (MLSA) took 0.1\u00a0% more time per epoch than softmax attention (MSA), which settles noth"
    )
    (unsure,) = answered(records_of([1.5, 0.72]))
    assert "took 4\u00a0% more time" in unsure.sentences[0].text
    (slower,) = answered(records_of([1.002 + 0.0001 * n for n in range(15)]))
    assert slower.sentences[0].text == (
        "Linear attention (MLSA) and softmax attention (MSA) took the same time per epoch, to 0.5\u00a0%."
    )
    (more,) = answered(records_of([1.004 + 0.0005 * n for n in range(15)]))
    assert (
        "0.7\u00a0% more time per epoch than softmax attention (MSA), a difference that the test"
        in more.sentences[0].text
    )


def test_the_cost_is_of_what_both_models_finished() -> None:
    records = [
        *records_of([1.1, 1.1]),
        record(Spec(category="lonely", time=9000.0)),
        record(Spec(category="x", time=9.0)),
    ]
    cost = answered(records)[0].sentences[2]
    assert cost.text.startswith("An epoch took 100.0\u00a0s with MSA and 110.0\u00a0s with MLSA;")
    assert cost.evidence.startswith("Medians over the 2 cells of each model.")


def test_models_that_do_not_differ_at_all_are_equal_and_neither_better() -> None:
    equal = [
        record(replace(spec, segmentation=80.0))
        for name in NAMES
        for spec in pair(name, 100.0, 100.0, kind=facts()[name].kind)
    ]
    row = row_of(equal, "mlsa_detects_equally_object")
    assert (row.verdict, row.low, row.high) == ("supported", 0.0, 0.0)
    assert row.why.startswith("equal to 2 points: p ")
    better = row_of(equal, "mlsa_detects_better")
    assert (better.verdict, better.why) == (
        "undecided",
        "the categories do not differ" + "; 30 of 30 trainings cut off by max_epochs",
    )
    ties = row_of(equal, "best_at_one_task_only")
    assert (ties.n, ties.measured) == (0, None)


def test_shares_of_claims_leave_out_the_checkpoint_as_the_answer_does() -> None:
    def stepped(whole: CellRecord) -> CellRecord:
        totals = tuple(
            total.model_copy(update={"stage": "checkpoint"}) if total.stage == "data_loading" else total
            for total in whole.stage_totals
        )
        return whole.model_copy(update={"stage_totals": totals, "step_s": (1.0, 1.1)})

    loading = row_of([stepped(each) for each in records_of([1.1] * 8)], "loading_is_costly")
    assert loading.measured == pytest.approx(100.0 * (0.02 + 0.09 - 0.13) / (1.0 - 0.38))


def test_a_claim_may_follow_another_metric_of_the_same_records() -> None:
    rising = [
        each.model_copy(
            update={
                "metrics": tuple(
                    m.model_copy(update={"value": 60.0 + place // 2}) if m.unit == "%" else m for m in each.metrics
                )
            }
        )
        for place, each in enumerate(records_of([1.1] * 8))
    ]
    row = row_of(rising, "segmentation_relates_to_detection")
    assert (row.measured, row.n) == (pytest.approx(1.0), 8)
    assert row.published is not None
    assert row.published < 0.0
    assert row.published_verdict == "undecided"
