"""Verdicts on constructed data, and the sentences made of them."""

from dataclasses import replace

import pytest
from report_runs import Spec, pair, record

from profiles.record import Metric
from reports.claims.pairs import Setting
from reports.claims.verdicts import CLAIMS, claim_row, claim_rows, judge
from reports.page.answer import answers

FAST = Setting("fast", "cpu", "float32")


def records_of(ratios: list[float]) -> list:  # type: ignore[type-arg]
    specs = [spec for place, ratio in enumerate(ratios) for spec in pair(f"c{place}", 100.0, 100.0 * ratio)]
    return [record(spec) for spec in specs]


def test_a_claim_that_holds_in_every_category_is_supported() -> None:
    row = claim_row(CLAIMS[0], records_of([1.1, 1.2, 1.05, 1.3, 1.07, 1.15]), FAST)
    assert row.verdict == "supported"
    assert row.p_value == pytest.approx(2 / 64)
    assert (row.n, row.measured_count) == (6, "6/6")
    assert row.measured == pytest.approx((1.1 * 1.2 * 1.05 * 1.3 * 1.07 * 1.15) ** (1 / 6))


def test_a_claim_whose_opposite_holds_is_contradicted() -> None:
    row = claim_row(CLAIMS[0], records_of([0.9, 0.8, 0.95, 0.7, 0.97, 0.85]), FAST)
    assert (row.verdict, row.measured_count) == ("contradicted", "0/6")


def test_a_claim_without_significance_is_undecided() -> None:
    row = claim_row(CLAIMS[0], records_of([1.1, 0.9, 1.2, 0.8, 1.05, 0.96]), FAST)
    assert row.verdict == "undecided"
    assert row.p_value is not None
    assert row.p_value >= 0.05
    assert "is not below 0.05" in row.why


def test_fewer_than_six_categories_decide_nothing() -> None:
    row = claim_row(CLAIMS[0], records_of([1.1] * 5), FAST)
    assert (row.verdict, row.p_value) == ("undecided", None)
    assert row.why == "5 categories; the test needs 6 that differ"


def test_categories_without_a_difference_do_not_count() -> None:
    judgement = judge([0.0, 0.0, 0.1, 0.2, 0.3, 0.1, 0.2])
    assert judgement == (
        "undecided",
        None,
        "7 categories, 2 of them without a difference; the test needs 6 that differ",
    )


def test_tied_effects_are_judged_without_a_warning() -> None:
    assert judge([0.1] * 8).verdict == "supported"
    assert judge([-0.1] * 8).verdict == "contradicted"


def test_one_large_effect_does_not_turn_the_verdict_of_the_ranks() -> None:
    assert judge([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, -90.0, 0.8, 0.9, 1.0, 1.1, 1.2]).verdict == "supported"


def test_an_unpaired_category_is_named() -> None:
    row = claim_row(CLAIMS[0], [*records_of([1.1]), record(Spec(category="lonely"))], FAST)
    assert row.why.endswith("no pair on lonely")


def test_nothing_to_pair_is_undecided_with_no_number() -> None:
    row = claim_row(CLAIMS[0], [record(Spec())], FAST)
    assert (row.measured, row.n, row.verdict) == (None, 0, "undecided")


def test_seeds_of_a_category_count_once() -> None:
    specs = [*pair("c", 100.0, 110.0, seed=0), *pair("c", 100.0, 121.0, seed=1)]
    row = claim_row(CLAIMS[0], [record(spec) for spec in specs], FAST)
    assert row.n == 1
    assert row.measured == pytest.approx((1.1 * 1.21) ** 0.5)


def test_devices_are_never_paired_with_each_other() -> None:
    msa, mlsa = pair("c", 100.0, 110.0)
    rows = claim_rows([record(msa), record(replace(mlsa, device="cuda:0"))])
    assert [row.device for row in rows] == ["cpu", "cuda:0"] * 2
    assert all(row.measured is None for row in rows)


def test_an_unavailable_or_infinite_metric_makes_no_pair() -> None:
    gone = Metric(name="time_per_epoch", value=None, unit="s", tag="unavailable", reason="no whole epoch")
    endless = Metric(name="time_per_epoch", value=float("inf"), unit="s", tag="measured")
    for metric in (gone, endless):
        msa, mlsa = pair("c", 100.0, 110.0)
        row = claim_row(CLAIMS[0], [record(msa), record(replace(mlsa, values={metric.name: metric}))], FAST)
        assert row.n == 0


def test_the_published_side_is_computed_from_the_tables() -> None:
    slower, better = claim_rows(records_of([1.1]))
    assert slower.published == pytest.approx(1.0716, abs=1e-4)
    assert (slower.published_count, better.published_count) == ("11/15", "10/15")
    assert better.published == pytest.approx(80.04 - 77.57, abs=0.01)


def test_the_answer_tells_the_ratio_the_share_and_the_largest_stage() -> None:
    (found,) = answers(records_of([1.1, 1.2, 1.05, 1.3, 1.07, 1.15]))
    faster, attention, largest, _ = found.sentences
    assert faster.text.startswith(
        "MLSA took 14\u00a0% more time per epoch than MSA, a difference that the test confirms"
    )
    assert "baseline MSA" in faster.evidence
    assert attention.text == (
        "Attention, forward and backward, takes 13.0\u00a0% of the training phase with MSA and 13.0\u00a0% with MLSA."
    )
    assert largest.text == "The largest stage is data loading: 38.0\u00a0% with MSA and 38.0\u00a0% with MLSA."


def test_the_answer_is_honest_about_a_small_sample_and_about_none() -> None:
    (small,) = answers(records_of([1.1]))
    assert "settles nothing yet (1 category; the test needs 6 that differ)" in small.sentences[0].text
    (none,) = answers([record(Spec())])
    assert "cannot be told: MLSA and MSA share no category" in none.sentences[0].text


def test_the_answer_without_stages_says_so() -> None:
    (found,) = answers([record(Spec()).model_copy(update={"stage_totals": ()})])
    assert "an unknown share with MSA" in found.sentences[1].text
    assert "The largest stage is unknown" in found.sentences[2].text


def test_a_claim_on_estimated_times_says_so() -> None:
    records = records_of([1.1, 1.2])
    times = [metric for metric in records[0].metrics if metric.name == "time_per_epoch"]
    others = [metric for metric in records[0].metrics if metric.name != "time_per_epoch"]
    guessed = [times[0].model_copy(update={"tag": "estimated"}), *others]
    mixed = [records[0].model_copy(update={"metrics": tuple(guessed)}), *records[1:]]
    assert claim_row(CLAIMS[0], records, FAST).tag == "measured"
    assert claim_row(CLAIMS[0], mixed, FAST).tag == "estimated"
    assert claim_row(CLAIMS[0], records[:1], FAST).tag == "unavailable"
    assert "estimated from some measured steps" in answers(mixed)[0].sentences[0].evidence
    assert "estimated" not in answers(records)[0].sentences[0].evidence
