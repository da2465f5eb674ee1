"""Data as Markdown shows it: nothing of it acts."""

from collections.abc import Sequence

from reports.words.format import visible


def plain(text: str) -> str:
    """Return *text*, which is data, so that Markdown shows it as it is."""
    escaped = visible(text).replace("&", "&amp;").replace("<", "&lt;")
    for mark in "\\`*_[]|#!~$@":
        escaped = escaped.replace(mark, f"\\{mark}")
    return escaped


def line(fields: Sequence[str]) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(map(plain, fields))} |"
