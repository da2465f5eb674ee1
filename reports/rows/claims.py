"""The rows of what the thesis claims, put to the test, and of what its tables say by themselves."""

from typing import NamedTuple


class ClaimRow(NamedTuple):
    """One claim of the thesis under one setting, as published and as measured.

    `effect` says what `published` and `measured` are and names the baseline; the counts are how many categories show
    the claim, of how many, empty where a claim is about all of them at once. `spread` is the interquartile range of
    the categories' effects, `low` and `high` a 95 % interval of `measured`; `p_value` and `n` (categories) belong to
    `test`, one of equivalence where the claim is that nothing differs, and `p_adjusted` is corrected for the claims
    tested under this setting (Holm). `tag` is that of the measured values: `estimated` if any is. `why` explains the
    verdict. The same for the thesis's own tables begins with `published_`.
    """

    claim: str
    statement: str
    pipeline: str
    device: str
    dtype: str
    effect: str
    published: float | None
    published_count: str
    published_p_value: float | None
    measured: float | None
    measured_count: str
    spread: float | None
    n: int
    p_value: float | None
    tag: str
    test: str
    verdict: str
    why: str
    section: str
    quote: str
    low: float | None
    high: float | None
    p_adjusted: float | None
    published_low: float | None
    published_high: float | None
    published_p_adjusted: float | None
    published_verdict: str


class CheckRow(NamedTuple):
    """One statement about the thesis's tables: what is printed, what they give when computed, and whether that agrees.

    `verdict` is `agrees`, `differs`, or `computed` where nothing was printed to agree with. `unit` is of both numbers.
    """

    check: str
    statement: str
    source: str
    printed: float | None
    computed: float
    unit: str
    verdict: str
    detail: str
