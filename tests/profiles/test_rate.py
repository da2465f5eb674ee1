"""A device's rates: the work of the product and of the copy, over the best of the times that count."""

from collections.abc import Callable
from itertools import accumulate

import pytest
import torch

from profiles import rate

CPU = torch.device("cpu")


def clock_of(*times_s: float) -> Callable[[], int]:
    """Return a clock by which six works take *times_s*, one after the other."""
    readings = iter([round(reading * 1e9) for time_s in times_s for reading in (0.0, time_s)])
    return lambda: next(readings)


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rate.PRODUCT_SIDE, "cpu", 10)
    monkeypatch.setitem(rate.COPIED_BYTES, "cpu", 4000)


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_best_time_counts_and_the_first_does_not(dtype: torch.dtype) -> None:
    found = rate.matmul_flops_per_s(CPU, dtype, clock_of(0.1, 4.0, 3.0, 0.5, 2.0, 3.0))
    assert found == pytest.approx(2 * 10**3 / 0.5)


@pytest.mark.usefixtures("_small")
def test_a_copy_counts_what_it_reads_and_what_it_writes() -> None:
    found = rate.copied_bytes_per_s(CPU, clock_of(*accumulate([1.0] * 6)))
    assert found == pytest.approx(2 * 4000 / 2.0)


@pytest.mark.usefixtures("_small")
def test_a_product_is_of_the_numbers_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    multiplied, matmul = [], torch.matmul
    monkeypatch.setattr(torch, "matmul", lambda a, b: multiplied.append((a.dtype, b.dtype)) or matmul(a, b))
    rate.rates(CPU, torch.bfloat16)
    assert set(multiplied) == {(torch.bfloat16, torch.bfloat16)}


def test_the_roofline_is_the_slower_of_arithmetic_and_traffic() -> None:
    rates = rate.Rates(flops_per_s=100.0, bytes_per_s=10.0)
    assert rates.least_s(flops=200.0, moved_bytes=10.0) == 2.0
    assert rates.least_s(flops=200.0, moved_bytes=50.0) == 5.0
