"""Painting generated images: four categories, the defects of each.

A painter draws its subject on a *plane*, the complex coordinates x + iy of every pixel. Moving, turning or
squeezing a region of the plane moves, turns or squeezes what is painted there, which breaks its structure and
keeps most of its gradients' energy: a defect that only a model which knows the pattern can see. Other defects
lay something over the image.

A subject looks different in every image (place, phase, colours, contrast, light), so that the mean of the
training images is of no use, and repeats itself within one, so that a missing patch can be painted from the
others.

Shapes: H x W pixels; planes are complex (H, W) in pixels; images are (H, W, 3), values around [0, 1].
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Plane = NDArray[np.complex128]
Image = NDArray[np.float64]
Map = NDArray[np.float64]
Paint = Callable[[Plane], Image]
Painter = Callable[[Plane, int, Generator], Image]
Defect = Callable[[Paint, Plane, Generator], Image]

PERIOD = 16
"""Pixels after which every pattern repeats."""


class Subject(NamedTuple):
    """What a category shows: a painter, which draws an image's look from its generator, and its defects."""

    kind: Literal["texture", "object"]
    painter: Painter
    defects: dict[str, Defect]


# --- words the painters share


def plane(side: int) -> Plane:
    """Return the coordinates of the pixels of a square image, the origin at its centre."""
    along = np.arange(side) - (side - 1) / 2
    return along + 1j * along[:, None]


def wave(z: Plane, cycles: complex, phase: float) -> Map:
    """Return a wave in [0, 1], *cycles* of it to a period: along x the real part, along y the imaginary."""
    turns: Map = (z * np.conj(cycles)).real / PERIOD + phase
    return 0.5 + 0.5 * np.cos(2 * np.pi * turns)


def cover(distance: Map) -> Map:
    """Return how much of each pixel a shape covers; *distance* to its edge in pixels, negative inside."""
    return np.clip(0.5 - distance, 0, 1)


def mix(below: Image, above: Image, share: Map) -> Image:
    """Lay *above* over *below* where *share* is 1."""
    return below + (above - below) * share[..., None]


def rectangle(z: Plane, half: complex, radius: float) -> Map:
    """Return the signed distance (pixels) to a rounded rectangle around the origin with half sides *half*."""
    x, y = np.abs(z.real) - half.real + radius, np.abs(z.imag) - half.imag + radius
    return np.hypot(np.maximum(x, 0), np.maximum(y, 0)) + np.minimum(np.maximum(x, y), 0) - radius


def colour(rng: Generator, base: tuple[float, float, float], spread: float) -> Image:
    """Draw a colour near *base*, (1, 1, 3)."""
    return (np.array(base) + rng.uniform(-spread, spread, 3)).reshape(1, 1, 3)


def jitter(rng: Generator, reach: float) -> complex:
    """Draw a displacement of up to *reach* pixels each way."""
    return complex(*rng.uniform(-reach, reach, 2))


# --- the subjects


def weave(z: Plane, side: int, rng: Generator) -> Image:  # noqa: ARG001 - a painter's signature
    """Paint cloth of two threads, one over the other in turn."""
    z = z + jitter(rng, PERIOD)
    warp, weft = colour(rng, (0.65, 0.5, 0.35), 0.2), colour(rng, (0.35, 0.45, 0.6), 0.2)
    above = np.sin(2 * np.pi * z.real / PERIOD) * np.sin(2 * np.pi * z.imag / PERIOD)
    round_warp = (0.35 + 0.65 * wave(z, 2, 0.5))[..., None] * warp
    round_weft = (0.35 + 0.65 * wave(z, 2j, 0.5))[..., None] * weft
    return mix(round_weft, round_warp, np.clip(0.5 + 2.5 * above, 0, 1))


def corduroy(z: Plane, side: int, rng: Generator) -> Image:  # noqa: ARG001 - a painter's signature
    """Paint ridges, which fall to the left or to the right."""
    ridge = wave(z, (1 + 1j, 1 - 1j)[rng.integers(2)], rng.uniform())
    crest = colour(rng, (0.75, 0.65, 0.6), 0.15)
    return mix(crest * rng.uniform(0.2, 0.4), crest, ridge)


def waffle(z: Plane, side: int, rng: Generator) -> Image:
    """Paint a square biscuit with rows of pockets, on a plate."""
    plate, crust = colour(rng, (0.8, 0.8, 0.85), 0.05), colour(rng, (0.8, 0.6, 0.3), 0.1)
    z = z + jitter(rng, side / 42)
    pocket = 0.5 * wave(z, 1, rng.uniform()) + 0.5 * wave(z, 1j, rng.uniform())
    baked = crust * (1 - rng.uniform(0.7, 0.9) * pocket)[..., None]
    return mix(plate, baked, cover(rectangle(z, 0.42 * side * (1 + 1j), side / 16)))


def chip(z: Plane, side: int, rng: Generator) -> Image:
    """Paint a striped circuit with legs on all sides, on a board."""
    board, body = colour(rng, (0.2, 0.4, 0.3), 0.08), colour(rng, (0.25, 0.25, 0.25), 0.05)
    metal = colour(rng, (0.8, 0.8, 0.75), 0.08)
    z = z + jitter(rng, side / 42)
    legs = np.where(np.abs(z.real) > np.abs(z.imag), wave(z, 2j, 0), wave(z, 2, 0))
    image = mix(board, metal, legs * cover(rectangle(z, 0.45 * side * (1 + 1j), 2)))
    mark = mix(body, metal, wave(z, 1 + 1j, rng.uniform()))
    return mix(image, mark, cover(rectangle(z, 0.34 * side * (1 + 1j), 3)))


# --- the defects


def spot(z: Plane, rng: Generator, reach: float = 0.25) -> tuple[complex, Map]:
    """Draw a blotch: its centre, and the signed distance to its wavy edge (pixels)."""
    side = len(z)
    centre = jitter(rng, reach * side)
    angle = np.angle(z - centre)
    lobes = rng.integers(2, 5)
    radius = side * rng.uniform(0.14, 0.2) * (1 + 0.12 * np.sin(lobes * angle + rng.uniform(0, 2 * np.pi)))
    return centre, np.abs(z - centre) - radius


def shift(by: complex) -> Defect:
    """Return the defect that moves a region by *by* pixels.

    A quarter of a period along every wave is best: half of one would keep the magnitude of its gradient.
    """

    def shifted(paint: Paint, z: Plane, rng: Generator) -> Image:
        _, distance = spot(z, rng)
        return paint(np.where(distance < 0, z + by, z))

    return shifted


def turned(paint: Paint, z: Plane, rng: Generator) -> Image:
    """Turn a region by about 45 degrees."""
    centre, distance = spot(z, rng)
    turn = np.exp(1j * np.pi * rng.uniform(0.2, 0.3))
    return paint(np.where(distance < 0, centre + (z - centre) * turn, z))


def squeezed(paint: Paint, z: Plane, rng: Generator) -> Image:
    """Squeeze a region, which shortens its period."""
    centre, distance = spot(z, rng)
    return paint(np.where(distance < 0, centre + (z - centre) * rng.uniform(1.35, 1.6), z))


def stain(paint: Paint, z: Plane, rng: Generator) -> Image:
    """Lay a dark blotch with a soft edge over the image, through which the pattern can be guessed."""
    _, distance = spot(z, rng)
    return mix(paint(z), colour(rng, (0.2, 0.12, 0.08), 0.08), 0.9 * np.clip(0.5 - distance / 6, 0, 1))


def hole(paint: Paint, z: Plane, rng: Generator) -> Image:
    """Take a piece out."""
    _, distance = spot(z, rng)
    return mix(paint(z), colour(rng, (0.06, 0.06, 0.06), 0.04), cover(distance))


def cut(paint: Paint, z: Plane, rng: Generator) -> Image:
    """Lay a long straight gash over the image."""
    along = (z - jitter(rng, 0.15 * len(z))) * np.exp(1j * rng.uniform(0, np.pi))
    gash = cover(rectangle(along, len(z) * (0.25 + 0.06j), 2))
    return mix(paint(z), colour(rng, (0.9, 0.9, 0.9), 0.05), gash)


ACROSS = shift(PERIOD / 4)
ASLANT = shift(PERIOD / 4 * (1 + 1j))

SUBJECTS: dict[str, Subject] = {
    "weave": Subject("texture", weave, {"shifted": ACROSS, "turned": turned, "stain": stain, "hole": hole}),
    "corduroy": Subject("texture", corduroy, {"shifted": ACROSS, "turned": turned, "cut": cut}),
    "waffle": Subject("object", waffle, {"shifted": ASLANT, "squeezed": squeezed, "burnt": stain}),
    "chip": Subject("object", chip, {"shifted": ACROSS, "turned": turned, "squeezed": squeezed, "cut": cut}),
}


def picture(name: str, defect: str | None, side: int, rng: Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return an image of *name*, (side, side, 3), and its mask, (side, side), 255 where *defect* altered it.

    The mask compares the image with the same one painted without the defect; it is 0 elsewhere.
    """
    subject = SUBJECTS[name]
    look, place, light, grain = rng.integers(2**63, size=4)
    z = plane(side)

    def paint(z: Plane) -> Image:
        return subject.painter(z, side, np.random.default_rng(look))

    def finish(image: Image) -> NDArray[np.uint8]:
        lamp = np.random.default_rng(light)
        lit = image * (lamp.uniform(0.8, 1.1) + (z * jitter(lamp, 0.1 / side)).real[..., None])
        noisy = lit + np.random.default_rng(grain).normal(0, 0.01, image.shape)
        return np.round(255 * np.clip(noisy, 0, 1)).astype(np.uint8)

    good = finish(paint(z))
    if defect is None:
        return good, np.zeros((side, side), np.uint8)
    image = finish(subject.defects[defect](paint, z, np.random.default_rng(place)))
    return image, np.where((image != good).any(axis=-1), 255, 0).astype(np.uint8)
