import pytest

from tests.benchmarks.pipelines import necessary_flops, slope


@pytest.mark.parametrize(("name", "attention"), [("msa", 2 * 2 * 49 * 49 * 512), ("mlsa", 2 * 2 * 49 * 64 * 512)])
def test_necessary_flops_are_those_of_the_matrix_products(name: str, attention: int) -> None:
    """Linear attention's normalizer, a product of a matrix and a vector for each head, is a thousandth of the rest."""
    projections = 2 * 49 * (4 * 512 * 512 + 2 * 512 * 2048)
    forward = 13 * (projections + attention) + 2 * 512 * 768
    embedding = 2 * 48 * 768 * 512
    assert necessary_flops(name) == pytest.approx(64 * (3 * forward + 2 * embedding), rel=1e-3)
    assert necessary_flops(name) >= 64 * (3 * forward + 2 * embedding)


def test_the_slope_is_the_exponent() -> None:
    assert slope([1, 2, 4], [3.0, 12.0, 48.0]) == pytest.approx(2)
