import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from adeval import EvalAccumulator
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from harness import scores
from harness.scores import FPR_LIMIT, Scores, aupro, score, stand
from profiles.errors import DivergedError
from tests.reference import scores as reference


def random_maps(seed: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return maps with many ties where *levels* are few, and masks of several regions, some touching at corners."""
    random = np.random.default_rng(seed)
    masks = random.random((4, 9, 11)) < random.uniform(0.05, 0.4)
    masks[0] = False
    masks[1, 2, 3] = True
    return random.integers(0, levels, masks.shape) / levels, masks


def exactly(expected: float) -> Any:
    """Match to 1e-12 of a score between 0 and 1; ours are in percent."""
    return pytest.approx(100 * expected, rel=0, abs=100 * 1e-12)


def area_per_region(maps: np.ndarray, masks: np.ndarray, limit: float = FPR_LIMIT) -> float:
    return aupro(stand(maps, masks), masks, limit)


@given(st.integers(0, 10_000), st.sampled_from([2, 5, 1000]))
def test_scores_agree_with_counting_every_pair_and_every_threshold(seed: int, levels: int) -> None:
    maps, masks = random_maps(seed, levels)
    found = score(maps, masks, masks.any(axis=(1, 2)))
    assert found.segmentation_auroc == exactly(reference.auroc(maps.ravel(), masks.ravel()))
    assert found.detection_auroc == exactly(reference.auroc(maps.max(axis=(1, 2)), masks.any(axis=(1, 2))))
    assert found.aupro_30 == exactly(reference.aupro(maps, masks, FPR_LIMIT))


@pytest.mark.parametrize("levels", [2, 5, 1000])
@pytest.mark.parametrize("parts", [2, 3, 7])
def test_pixels_sorted_in_parts_are_scored_as_if_sorted_together(
    parts: int, levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps, masks = random_maps(parts, levels)
    together = stand(maps, masks)
    monkeypatch.setattr(scores, "PART", 1)
    monkeypatch.setattr(scores, "MOST_PARTS", parts)
    monkeypatch.setattr(scores, "usable_processors", lambda: parts)
    original, sizes = scores._of_part, []
    monkeypatch.setattr(scores, "_of_part", lambda part, marked: (sizes.append(part.size), original(part, marked))[1])
    for whole, summed in zip(together, stand(maps, masks), strict=True):
        np.testing.assert_array_equal(whole, summed)
    assert len(sizes) == parts
    assert sum(sizes) == together.good


@given(st.integers(0, 10_000), st.floats(0.01, 1), st.sampled_from([2, 5, 1000]))
def test_the_area_per_region_agrees_at_every_limit(seed: int, limit: float, levels: int) -> None:
    maps, masks = random_maps(seed, levels)
    assert 100 * area_per_region(maps, masks, limit) == exactly(reference.aupro(maps, masks, limit))


VALUES = {
    "few levels": st.sampled_from([0.0, 0.25, 0.5]),
    "all equal": st.just(0.125),
    "signed, with both zeros": st.sampled_from([-2.0, -1.0, -0.0, 0.0, 1.0]),
    "any 32-bit": st.floats(-(2.0**100), 2.0**100, width=32),
    "tiny": st.floats(0, 2.0**-140, width=32),
}


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(st.data())
def test_scores_equal_scikit_learns(values: st.SearchStrategy[float], dtype: type, data: st.DataObject) -> None:
    shape = (3, data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4)))
    pixels = int(np.prod(shape))
    maps = np.array(data.draw(st.lists(values, min_size=pixels, max_size=pixels)), dtype).reshape(shape)
    masks = np.array(data.draw(st.lists(st.booleans(), min_size=pixels, max_size=pixels))).reshape(shape)
    masks[0], masks[1, 0, 0] = False, True
    found = score(maps, masks, masks.any(axis=(1, 2)))
    defective = masks.any(axis=(1, 2))
    assert found == Scores(
        segmentation_auroc=exactly(roc_auc_score(masks.ravel(), maps.ravel())),
        detection_auroc=exactly(roc_auc_score(defective, maps.max(axis=(1, 2)))),
        aupro_30=exactly(reference.aupro(maps, masks, FPR_LIMIT)),
        average_precision=exactly(average_precision_score(masks.ravel(), maps.ravel())),
    )


@pytest.mark.parametrize("levels", [None, 256])
def test_scores_of_a_million_pixels_equal_scikit_learns(levels: int | None) -> None:
    random = np.random.default_rng(0)
    masks = np.zeros((16, 256, 256), dtype=bool)
    masks[::2, 40:110, 60:170] = True
    maps = (random.standard_normal(masks.shape, dtype=np.float32) + masks) ** 2
    if levels:
        maps = np.floor(maps * 16).clip(max=levels)
    found = score(maps, masks, masks.any(axis=(1, 2)))
    assert found.segmentation_auroc == exactly(roc_auc_score(masks.ravel(), maps.ravel()))
    assert found.average_precision == exactly(average_precision_score(masks.ravel(), maps.ravel()))


def peak_bytes(work: Callable[[], object]) -> int:
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("anomalous", [0.05, 0.33])
def test_all_scores_together_take_no_more_memory_than_scikit_learns_auroc(anomalous: float) -> None:
    random = np.random.default_rng(0)
    masks = np.zeros((16, 256, 256), dtype=bool)
    masks[::2, : round(2 * anomalous * 256)] = True
    maps = random.standard_normal(masks.shape, dtype=np.float32)
    ours = peak_bytes(lambda: score(maps, masks, masks.any(axis=(1, 2))))
    assert ours < peak_bytes(lambda: roc_auc_score(masks.ravel(), maps.ravel()))


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), levels=st.integers(2, 40))
def test_scores_agree_with_a_public_implementation(seed: int, levels: int) -> None:
    """`adeval` counts in bins: so few levels fall each in a bin of its own, and the outer bins stay empty."""
    maps, masks = random_maps(seed, levels)
    found = score(maps, masks, masks.any(axis=(1, 2)))
    public = EvalAccumulator(-0.1, 1.1, nstrips=200)
    public.add_anomap_batch(list(maps), list(masks.astype(np.uint8)))
    for add in (public.add_image, public.add_sample):
        add(maps.max(axis=(1, 2)), masks.any(axis=(1, 2)))
    with pytest.MonkeyPatch.context() as patch, np.errstate(invalid="ignore"):  # its precision of nothing found
        patch.setattr(
            np, "trapz", np.trapezoid, raising=False
        )  # by which it still calls it; numpy 2.4 has dropped that
        expected = public.summary()
    assert found.segmentation_auroc == pytest.approx(100 * expected["p_auroc"])
    assert found.detection_auroc == pytest.approx(100 * expected["i_auroc"])
    assert found.aupro_30 == pytest.approx(100 * expected["p_aupro"], rel=1e-5)  # its weights are 32-bit floats


def test_a_perfect_map_scores_a_hundred_and_its_opposite_nothing() -> None:
    masks = np.zeros((2, 16, 16), dtype=bool)
    masks[0, 3:6, 4:9] = True
    defective = np.array([True, False])
    assert score(masks.astype(np.float32), masks, defective) == pytest.approx((100, 100, 100, 100))
    opposite = score(-masks.astype(np.float32), masks, defective)
    assert (opposite.segmentation_auroc, opposite.aupro_30) == pytest.approx((0, 0))


def test_each_region_counts_the_same_for_aupro_whatever_its_size() -> None:
    masks = np.zeros((1, 20, 20), dtype=bool)
    masks[0, 0, 0] = masks[0, 5:15, 5:15] = True
    only_the_small_one = np.zeros(masks.shape)
    only_the_small_one[0, 0, 0] = 1
    # at its threshold half of the regions is found; then everything falls together, at a rate of 1
    assert area_per_region(only_the_small_one, masks) == pytest.approx(0.5 + 0.5 * 0.3 / 2)


def test_corners_join_a_region() -> None:
    masks = np.zeros((1, 8, 8), dtype=bool)
    masks[0, 2, 2] = masks[0, 3, 3] = True
    maps = np.zeros(masks.shape)
    maps[0, 2, 2] = 1
    assert area_per_region(maps, masks) == pytest.approx(reference.aupro(maps, masks, FPR_LIMIT))


def test_a_defective_image_is_one_even_if_its_mask_lost_its_mark() -> None:
    masks = np.zeros((3, 8, 8), dtype=bool)
    masks[0, 2, 2] = True
    maps = np.zeros((3, 8, 8))
    maps[0], maps[1], maps[2] = 3, 2, 1
    assert score(maps, masks, np.array([True, True, False])).detection_auroc == 100
    assert score(maps, masks, np.array([True, False, True])).detection_auroc == 50


@pytest.mark.parametrize("defective", [[True, True], [False, False], [True, False]])
def test_scores_need_good_and_defective_images_and_a_mark(defective: list[bool]) -> None:
    masks = np.zeros((2, 4, 4), dtype=bool)
    masks[0, 0, 0] = all(defective)
    with pytest.raises(ValueError, match="both good and defective"):
        score(np.zeros((2, 4, 4)), masks, np.array(defective))


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_map_that_is_no_number_is_refused(wrong: float) -> None:
    masks = np.zeros((3, 4, 4), dtype=bool)
    masks[0, 0, 0] = True
    maps = np.zeros(masks.shape, dtype=np.float32)
    maps[1, 2, 2] = wrong
    with pytest.raises(DivergedError, match="of 1 of 3 images hold NaN or infinity, from image 1 on"):
        score(maps, masks, np.array([True, False, False]))


def test_maps_are_left_as_they_were() -> None:
    maps, masks = random_maps(0, 1000)
    before = maps.copy()
    score(maps, masks, masks.any(axis=(1, 2)))
    assert np.array_equal(maps, before)
