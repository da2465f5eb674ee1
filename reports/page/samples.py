"""Sample pictures of finished cells, embedded: image, mask, reconstruction and anomaly map side by side.

All pictures of a page share a number of bytes, so that it stays small however many cells it tells of.
"""

import base64
import io
import warnings
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from profiles.record import SampleMap
from reports.source.load import Cell, is_within
from reports.words.format import count, number, short, visible

MOST = 3

PICTURE_BYTES = 900_000
"""What all embedded pictures may take together, before they are written as text."""

_WIDTHS = (960, 720, 540, 400, 280)
_QUALITY = 82
_FOLDER = "maps"


class Sample(NamedTuple):
    """One picture: its `data:` address, its size in pixels and what it shows."""

    url: str
    width: int
    height: int
    image: str
    defect: str
    told: str


class Strip(NamedTuple):
    """A cell's pictures, and what is missing of them."""

    cell: Cell
    samples: tuple[Sample, ...]
    notes: tuple[str, ...]


def strips(cells: tuple[Cell, ...]) -> list[Strip]:
    """Return the pictures of every cell whose record names some."""
    shown = [cell for cell in cells if cell.record is not None and cell.record.samples]
    total = sum(len(_chosen(cell.record.samples)) for cell in shown if cell.record)
    return [_strip(cell, PICTURE_BYTES // max(1, total)) for cell in shown]


def _strip(cell: Cell, most_bytes: int) -> Strip:
    samples = cell.record.samples if cell.record else ()
    shown, notes = [], []
    for chosen in _chosen(samples):
        found = _read(cell, chosen, most_bytes)
        if isinstance(found, Sample):
            shown.append(found)
        else:
            notes.append(found)
    if len(samples) > MOST:
        notes.append(f"{MOST} of {count(len(samples), 'picture')} shown; all lie in the cell's folder {_FOLDER}/.")
    return Strip(cell, tuple(shown), tuple(notes))


def _chosen(samples: tuple[SampleMap, ...]) -> list[SampleMap]:
    """Return up to `MOST` pictures: the worst and the best, then of as many different defects as there are."""
    ranked = [sample for sample in samples if sample.role != "sample"]
    first = list({sample.defect: sample for sample in reversed(samples)}.values())[::-1]
    rest = [sample for sample in (*first, *samples) if sample not in ranked]
    return (ranked + list(dict.fromkeys(rest)))[:MOST]


def _told(sample: SampleMap) -> str:
    """Return what a picture is, in words."""
    auroc = (
        "" if sample.segmentation_auroc is None else f"AUROC of its pixels {number(sample.segmentation_auroc)}\u00a0%"
    )
    return ", ".join(filter(None, (sample.role if sample.role != "sample" else "", auroc)))


def _read(cell: Cell, sample: SampleMap, most_bytes: int) -> Sample | str:
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
    picture, encoded = _encoded(picture, most_bytes)
    url = f"data:image/jpeg;base64,{base64.b64encode(encoded).decode('ascii')}"
    return Sample(url, picture.width, picture.height, visible(sample.image), visible(sample.defect), _told(sample))


def _encoded(picture: Image.Image, most_bytes: int) -> tuple[Image.Image, bytes]:
    """Return *picture* as a JPEG, as wide as *most_bytes* allow; the narrowest in any case."""
    for width in _WIDTHS:
        smaller = picture.copy()
        smaller.thumbnail((width, width), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        smaller.save(buffer, format="JPEG", quality=_QUALITY, optimize=True)
        if len(buffer.getvalue()) <= most_bytes:
            break
    return smaller, buffer.getvalue()
