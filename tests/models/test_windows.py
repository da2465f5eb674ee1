import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.windows import covering_windows, cut_windows, draw_windows, to_images, to_patches, window_positions


def thesis_corner(target: int, side: int, size: int) -> int:
    """Equations 4.9 to 4.11, as printed, counting from 1."""
    pad = max(1, target - side // 2)
    return pad - max(0, pad + side - size - 1)


@given(rows=st.integers(1, 6), columns=st.integers(1, 6), images=st.integers(1, 3), side=st.integers(1, 5))
def test_cutting_into_patches_and_putting_together_is_the_identity(
    rows: int, columns: int, images: int, side: int
) -> None:
    x_ichw = torch.rand(images, 3, rows * side, columns * side)
    patches_inp = to_patches(x_ichw, side)
    assert patches_inp.shape == (images, rows * columns, 3 * side**2)
    assert torch.equal(to_images(patches_inp, side, rows), x_ichw)


def test_patches_are_numbered_row_by_row_and_hold_channel_by_row_by_column() -> None:
    x_ichw = torch.arange(3 * 4 * 6).reshape(1, 3, 4, 6)
    patches_inp = to_patches(x_ichw, 2)
    assert torch.equal(patches_inp[0, 4].reshape(3, 2, 2), x_ichw[0, :, 2:4, 2:4])  # second row, second column


@pytest.mark.parametrize("columns", [7, 8, 13, 32])
@pytest.mark.parametrize("rows", range(7, 33))
def test_every_patch_is_reconstructed_once_from_the_window_of_the_thesis(rows: int, columns: int) -> None:
    side = 7
    windows = covering_windows(2, (rows, columns), side)
    patches = rows * columns
    positions_bt = window_positions(windows, columns, side)
    assert torch.equal(positions_bt[:, 0], torch.arange(patches).repeat(2))
    assert torch.equal(windows.image_b, torch.arange(2).repeat_interleave(patches))
    for number, positions_t in enumerate(positions_bt[:patches].tolist()):
        row, column = divmod(number, columns)
        top, left = thesis_corner(row + 1, side, rows) - 1, thesis_corner(column + 1, side, columns) - 1
        inside = [(top + i) * columns + left + j for i in range(side) for j in range(side)]
        assert number in inside
        assert positions_t == [number, *(position for position in inside if position != number)]
        assert 0 <= top <= rows - side
        if side // 2 <= row < rows - side // 2:
            assert row - top == side // 2  # centred wherever it can be
        if side // 2 <= column < columns - side // 2:
            assert column - left == side // 2


def test_reassembling_the_true_patches_gives_the_image_back() -> None:
    x_ichw = torch.rand(2, 3, 8 * 4, 9 * 4)
    patches_inp = to_patches(x_ichw, 4)
    windows = covering_windows(2, (8, 9), 7)
    missing_bp, _ = cut_windows(patches_inp, windows.image_b, window_positions(windows, 9, 7))
    assert torch.equal(to_images(missing_bp.reshape(patches_inp.shape), 4, 8), x_ichw)


@given(rows=st.integers(3, 9), columns=st.integers(3, 9), seed=st.integers(0, 2**32))
def test_a_drawn_window_is_a_square_of_the_grid_with_one_patch_missing(rows: int, columns: int, seed: int) -> None:
    windows = draw_windows(4, 5, (rows, columns), 3, torch.Generator().manual_seed(seed))
    assert torch.equal(windows.image_b.bincount(), torch.full((4,), 5))
    for positions_t in window_positions(windows, columns, 3).tolist():
        top, left = divmod(min(positions_t), columns)
        assert top + 3 <= rows
        assert left + 3 <= columns
        assert sorted(positions_t) == [(top + i) * columns + left + j for i in range(3) for j in range(3)]
        assert positions_t[1:] == sorted(positions_t[1:])


def test_places_and_missing_patches_are_drawn_uniformly() -> None:
    windows = draw_windows(1, 36_000, (4, 5), 3, torch.Generator().manual_seed(0))
    positions_bt = window_positions(windows, 5, 3)
    first = positions_bt.min(dim=1).values
    places = first.bincount(minlength=20)[[0, 1, 2, 5, 6, 7]]
    assert places.sum() == 36_000
    assert ((places - 6000).abs() < 300).all()
    relative = positions_bt[:, 0] - first
    assert (relative.bincount()[relative.unique()].sub(4000).abs() < 300).all()
    assert len(relative.unique()) == 9


def test_the_same_generator_draws_the_same_windows() -> None:
    one, other = (draw_windows(3, 4, (9, 9), 7, torch.Generator().manual_seed(5)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
