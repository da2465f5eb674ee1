"""The two pipelines side by side, and what is said where only one was run."""

from dataclasses import replace

import pytest
from report_runs import Spec, pair, record

from profiles.record import Metric
from reports.page.pipelines import pipelines
from reports.page.tables import identity


def test_a_cell_on_both_pipelines_has_a_ratio_whole_and_by_stage() -> None:
    msa, mlsa = pair("carpet", 100.0, 110.0)
    slow = replace(msa, pipeline="thesis", time=350.0)
    records = [record(spec) for spec in (msa, mlsa, slow)]
    found = pipelines(records, identity(records, None))
    whole, stages = found.tables
    assert found.gap == ""
    assert [entry.text for entry in whole.rows[0][3:6]] == ["350.0", "100.0", "3.50"]
    assert {row[-1].text for row in stages.rows} == {"3.50"}
    assert len(stages.rows) == 10


def test_a_time_has_the_digits_that_its_spread_justifies() -> None:
    unsure = Metric(name="time_per_epoch", value=350.123, unit="s", n=6, spread=66.0, tag="estimated")
    records = [record(Spec()), record(Spec(pipeline="thesis", values={unsure.name: unsure}))]
    entry = pipelines(records, identity(records, None)).tables[0].rows[0][3]
    assert (entry.text, entry.note) == ("350", "IQR\u00a070, n\u00a06, estimated")
    assert entry.sort == 350.123


@pytest.mark.parametrize(
    ("specs", "told"),
    [
        ([Spec()], "Not measured: only the fast pipeline was run, thesis was not"),
        ([Spec(pipeline="thesis")], "Not measured: only the thesis pipeline was run, fast was not"),
        ([Spec(), Spec(pipeline="thesis", device="cuda:0")], "Not measured: no cell was finished on both"),
    ],
)
def test_where_nothing_can_be_compared_it_says_why(specs: list[Spec], told: str) -> None:
    records = [record(spec) for spec in specs]
    found = pipelines(records, identity(records, None))
    assert found.tables == ()
    assert found.gap.startswith(told)
