"""Damage that hypothesis draws, and how many inputs are tried: FUZZ_INPUTS in all, a thousand unless told otherwise."""

import json
import os
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

TENTH = 1000
INPUTS = int(os.environ.get("FUZZ_INPUTS", TENTH))
PNG_START = 8

ODD_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, 1e-308, float("nan"), float("inf"),
    "", "0", "nan", "é", "\0", "\x1b[31m", "<script>", "../..", "/", "a" * 5000, "\ud800", [], {}, [[]], {"": None},
)  # fmt: skip


def inputs(share: float) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Try so large a share of all inputs: in the test command the same ones each time, else new ones."""
    unhurried = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    return settings(
        max_examples=max(1, round(INPUTS * share)),
        deadline=None,
        suppress_health_check=unhurried,
        derandomize=INPUTS == TENTH,
    )


@st.composite
def edited(draw: st.DrawFn, contents: Sequence[bytes]) -> bytes:
    """Draw one of *contents* with a few of its bytes overwritten, inserted, repeated or gone."""
    content = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        stop = min(len(content), start + draw(st.sampled_from((0, 1, 4, 30, 10**6))))
        new = draw(st.one_of(st.binary(max_size=8), st.just(bytes(content[start:stop]) * 2), st.just(bytes(4))))
        content[start:stop] = new
    return bytes(content)


@st.composite
def edited_png(draw: st.DrawFn, contents: Sequence[bytes]) -> bytes:
    """Draw a PNG with damage inside its chunks, whose checksums are right nevertheless."""
    content = draw(st.sampled_from(contents))
    chunks = list(_chunks(content))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(chunks) - 1))
        kind, data = chunks[place]
        damage = draw(st.sampled_from(("edit", "edit", "edit", "kind", "repeat", "drop", "sides")))
        if damage == "edit":
            chunks[place] = kind, draw(edited([data])) if data else draw(st.binary(max_size=40))
        elif damage == "kind":
            others = (b"tRNS", b"PLTE", b"zTXt", b"iCCP", b"gAMA", b"acTL", b"fcTL", b"fdAT", b"IDAT", b"IEND", b"eXIf")
            chunks[place] = draw(st.sampled_from(others)), data
        elif damage == "repeat":
            chunks.insert(place, chunks[place])
        elif damage == "drop" and len(chunks) > 1:
            del chunks[place]
        elif damage == "sides" and len(chunks[0][1]) >= PNG_START:
            sides = draw(st.sampled_from((0, 1, 7, 2**14, 2**31 - 1, 2**32 - 1))), draw(st.integers(0, 2**32 - 1))
            chunks[0] = chunks[0][0], b"".join(side.to_bytes(4) for side in sides) + chunks[0][1][PNG_START:]
    return content[:PNG_START] + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    chunks, place = [], PNG_START
    while place < len(content):
        length = int.from_bytes(content[place : place + 4])
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += length + 12
    return chunks


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


@st.composite
def edited_json(draw: st.DrawFn, content: bytes) -> bytes:
    """Draw a JSON document with a few of its values replaced by odd ones, or gone."""
    document = json.loads(content)
    for _ in range(draw(st.integers(1, 3))):
        owner, key = draw(st.sampled_from(_places({"": document}))) if isinstance(document, dict | list) else ({}, "")
        if isinstance(owner, dict) and draw(st.booleans()) and draw(st.booleans()):
            owner.pop(key, None)
        else:
            owner[key] = draw(st.sampled_from(ODD_VALUES))
    return json.dumps(document).encode()


def _places(value: Any) -> list[tuple[Any, Any]]:
    """List every place in a document: what holds it, and its key there."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in ((value, key), *_places(value[key]))]


@st.composite
def edited_table(draw: st.DrawFn, content: bytes) -> bytes:
    """Draw a CSV file with a few of its fields replaced by odd ones, its rows repeated or gone."""
    lines = content.decode().splitlines()
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(lines) - 1))
        fields = lines[place].split(",")
        fields[draw(st.integers(0, len(fields) - 1))] = str(draw(st.sampled_from(ODD_VALUES)))
        lines[place] = draw(st.sampled_from((",".join(fields), ",".join(fields), lines[place] + ",", "")))
        if draw(st.booleans()):
            lines.insert(place, lines[place])
    return ("\n".join(lines) + draw(st.sampled_from(("\n", "")))).encode(errors="surrogatepass")
