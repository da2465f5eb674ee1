"""Matplotlib figures as inline SVG that takes the page's colours and carries any name safely.

Matplotlib sees placeholders only; names and titles, which are data, enter through the XML tree afterwards. So
no name meets the font's glyph table, the mathematics parser or a string template. Colours become the page's
custom properties, ids are made unique, and equal figures give equal bytes.
"""

import io
import math
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

from reports.words.format import number
from reports.words.palette import MODELS, PHASES, STAGES, UNKNOWN, UNKNOWN_MODEL

INK, PAPER, RULE, ACCENT, ON_STAGE = "#010101", "#fefefe", "#d0d0d1", "#b00201", "#010203"
"""Stand-ins for the page's own colours."""

_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_VARIABLES = (
    {
        INK: "var(--ink)",
        PAPER: "var(--paper)",
        RULE: "var(--rule)",
        ACCENT: "var(--accent)",
        ON_STAGE: "var(--on-stage)",
    }
    | {colour: f"var(--stage-{stage})" for stage, colour in STAGES.items()}
    | {colour: f"var(--phase-{phase})" for phase, colour in PHASES.items()}
    | {UNKNOWN: "var(--stage-unknown)", UNKNOWN_MODEL: "var(--model-unknown)"}
    | {colour: f"var(--model-{model})" for model, colour in MODELS.items()}
)
_STYLE: dict[Any, Any] = {  # matplotlib's keys are one Literal of some 300 words
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 11.5,
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 1.0,
}
_TAIL = re.compile(r"(\.\d)\d+")
"""What a coordinate has beyond a tenth of a pixel."""
_REFERENCE = re.compile(r"(?:^|url\()#([^)]+)")
"""An id that an attribute names: an href's, or one in `url(#)`. A colour matches too, which is no id."""


@dataclass
class Words:
    """The names in a figure: `label` stands for a text, `titles` explain the groups they name (by gid)."""

    texts: dict[str, str] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)

    def label(self, text: str) -> str:
        """Return the placeholder to draw where *text* is to stand."""
        key = f"@{len(self.texts)}@"
        self.texts[key] = text
        return key

    def explain(self, text: str) -> str:
        """Return the gid of a drawn thing that *text* explains when pointed at."""
        key = f"t{len(self.titles)}"
        self.titles[key] = text
        return key


class Drawn(NamedTuple):
    """What a chart draws, as a plain table: a row per point, each field as text; `columns` are its headings."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Chart:
    """An inline chart: its SVG, which is markup, and the words that describe it, which are not.

    `drawn` are the numbers it draws, None where a table of the page beside it holds them all.
    """

    ident: str
    title: str
    description: str
    svg: Markup
    drawn: Drawn | None = None


def shown(number_drawn: float) -> str:
    """Return a drawn number as text; what is no number is not drawn."""
    return number(number_drawn) if math.isfinite(number_drawn) else "\u2013"


def figure(width: float, height: float) -> Figure:
    """Return an empty figure of *width* x *height* CSS pixels."""
    return Figure(figsize=(width / 72.0, height / 72.0), dpi=72)


def styled() -> AbstractContextManager[None]:
    """Return the context in which a figure is drawn."""
    return mpl.rc_context(_STYLE)


def chart(ident: str, drawn: Figure, words: Words, title: str, description: str, numbers: Drawn | None = None) -> Chart:
    """Return *drawn*, a picture of *numbers*, as a chart; *ident* is ours, and unique on the page."""
    buffer = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": ident}):
        drawn.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),
        )
    root = ET.fromstring(buffer.getvalue())  # noqa: S314 - matplotlib wrote it a line ago, from placeholders
    _finish(root, ident, words)
    _describe(root, ident, title, description)
    ET.register_namespace("", _SVG)
    svg = Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704 - from the tree
    return Chart(ident, title, description, svg, numbers)


def _finish(root: ET.Element, ident: str, words: Words) -> None:
    """Put in names, titles and the page's colours; make every id the chart's own, and keep those that are used."""
    values = [value for element in root.iter() for value in element.attrib.values()]
    used = {name for value in values for name in _REFERENCE.findall(value)}
    for element in list(root.iter()):
        element.tail = None
        if element.text and not element.text.strip():
            element.text = None
        title = words.titles.get(element.get("id", ""))
        if title is not None:
            explanation = ET.Element(f"{{{_SVG}}}title")
            explanation.text = title
            element.insert(0, explanation)
        if element.text:
            element.text = words.texts.get(element.text.strip(), element.text)
        if (reference := element.attrib.pop(_LINK, None)) is not None:
            element.set("href", reference)
        if element.get("id", "") not in used:
            element.attrib.pop("id", None)
        for name, value in element.attrib.items():
            element.set(name, _own(name, value, ident))


def _own(name: str, value: str, ident: str) -> str:
    """Return an attribute's value with its ids and references prefixed and its colours named."""
    if name == "id":
        return f"{ident}-{value}"
    if name == "href":
        return value.replace("#", f"#{ident}-", 1)
    if name == "d":
        return _TAIL.sub(r"\1", " ".join(value.split()))
    value = value.replace("url(#", f"url(#{ident}-").removesuffix("; stroke-linejoin: miter")  # which is the default
    return re.sub(r"#[0-9a-f]{6}\b", lambda match: _VARIABLES.get(match[0], match[0]), value)


def _describe(root: ET.Element, ident: str, title: str, description: str) -> None:
    """Name the picture for readers who do not see it, and let the page size it."""
    for parent in list(root.iter()):
        for child in [*parent.findall(f"{{{_SVG}}}metadata"), *parent.findall(f"{{{_SVG}}}style")]:
            parent.remove(child)
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ET.Element(f"{{{_SVG}}}{tag}", {"id": f"{ident}-{tag}"})
        element.text = text
        root.insert(place, element)
    width = (root.get("viewBox") or "0 0 0 0").split()[2]
    attributes: Mapping[str, str] = {
        "role": "img",
        "aria-labelledby": f"{ident}-title {ident}-desc",
        "class": "chart",
        "style": f"max-width: {float(width):.0f}px",
    }
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib.update(attributes)
