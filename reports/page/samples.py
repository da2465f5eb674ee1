"""Sample pictures of finished cells, embedded: image, mask, reconstruction and anomaly map side by side."""

import base64
import io
import warnings
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from profiles.record import SampleMap
from reports.source.load import Cell, is_within
from reports.words.format import count, short, visible

MOST = 3

_WIDEST = 960
_FOLDER = "maps"


class Sample(NamedTuple):
    """One picture: its `data:` address, its size in pixels and what it shows."""

    url: str
    width: int
    height: int
    image: str
    defect: str


class Strip(NamedTuple):
    """A cell's pictures, and what is missing of them."""

    cell: Cell
    samples: tuple[Sample, ...]
    notes: tuple[str, ...]


def strips(cells: tuple[Cell, ...]) -> list[Strip]:
    """Return the pictures of every cell whose record names some."""
    return [_strip(cell) for cell in cells if cell.record is not None and cell.record.samples]


def _strip(cell: Cell) -> Strip:
    samples = cell.record.samples if cell.record else ()
    shown, notes = [], []
    for chosen in _chosen(samples):
        found = _read(cell, chosen)
        if isinstance(found, Sample):
            shown.append(found)
        else:
            notes.append(found)
    if len(samples) > MOST:
        notes.append(f"{MOST} of {count(len(samples), 'picture')} shown; all lie in the cell's folder {_FOLDER}/.")
    return Strip(cell, tuple(shown), tuple(notes))


def _chosen(samples: tuple[SampleMap, ...]) -> list[SampleMap]:
    """Return up to `MOST` pictures, of as many different defects as there are."""
    first = list({sample.defect: sample for sample in reversed(samples)}.values())[::-1]
    return (first + [sample for sample in samples if sample not in first])[:MOST]


def _read(cell: Cell, sample: SampleMap) -> Sample | str:
    """Return the picture, drawn anew and no wider than the page needs; or why there is none."""
    name = sample.file.removeprefix(f"{_FOLDER}/")
    if not is_within(name, 1):
        return f"{short(sample.file)} is no name of a file in {_FOLDER}/."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(cell.folder / _FOLDER / name, formats=["PNG"]) as opened:
                picture = opened.convert("RGB")
    except FileNotFoundError:
        return f"{_FOLDER}/{short(name)} is missing."
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombWarning):
        return f"{_FOLDER}/{short(name)} is no readable PNG."
    picture.thumbnail((_WIDEST, _WIDEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
    return Sample(url, picture.width, picture.height, visible(sample.image), visible(sample.defect))
