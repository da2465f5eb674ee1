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


SIDE = 7
GRIDS = range(SIDE, 33)


@pytest.mark.parametrize("rows", GRIDS)
def test_every_patch_is_reconstructed_once_from_the_window_of_the_thesis(rows: int) -> None:
    """In every grid from 7 x 7 to 32 x 32; the corners of 4.9 to 4.11 are found for each patch by itself."""
    for columns in GRIDS:
        windows = covering_windows(2, (rows, columns), SIDE)
        positions_bt = window_positions(windows, columns, SIDE)
        patches = rows * columns
        assert torch.equal(windows.image_b, torch.arange(2).repeat_interleave(patches))
        assert torch.equal(positions_bt[:, 0], torch.arange(patches).repeat(2))  # once each, in the image's order
        assert torch.equal(positions_bt[patches:], positions_bt[:patches])  # the same for every image
        top_n = torch.tensor([thesis_corner(row + 1, SIDE, rows) - 1 for row in range(rows) for _ in range(columns)])
        left_n = torch.tensor([thesis_corner(column + 1, SIDE, columns) - 1 for column in range(columns)]).repeat(rows)
        inside_nt = torch.stack([(top_n + i) * columns + left_n + j for i in range(SIDE) for j in range(SIDE)], dim=1)
        assert torch.equal(positions_bt[:patches].sort(dim=1).values, inside_nt)  # the target among them
        assert (positions_bt[:, 1:].diff(dim=1) > 0).all()  # the others in order


@pytest.mark.parametrize("size", GRIDS)
def test_a_window_of_the_thesis_lies_in_the_image_around_its_target_and_centred_wherever_it_can_be(size: int) -> None:
    for target in range(size):
        corner = thesis_corner(target + 1, SIDE, size) - 1
        assert 0 <= corner <= size - SIDE
        assert corner <= target < corner + SIDE
        off_centre = {abs(target - other - SIDE // 2): other for other in range(size - SIDE + 1)}
        assert corner == off_centre[min(off_centre)]


@pytest.mark.parametrize("rows", GRIDS)
def test_reassembling_the_true_patches_gives_the_image_back(rows: int) -> None:
    for columns in GRIDS:
        x_ichw = torch.rand(2, 3, rows * 2, columns * 2)
        patches_inp = to_patches(x_ichw, 2)
        windows = covering_windows(2, (rows, columns), SIDE)
        missing_bp, others_bkp = cut_windows(patches_inp, windows.image_b, window_positions(windows, columns, SIDE))
        assert torch.equal(to_images(missing_bp.reshape(patches_inp.shape), 2, rows), x_ichw)
        assert others_bkp.shape == (2 * rows * columns, SIDE**2 - 1, 12)


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
