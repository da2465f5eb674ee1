"""Progress on stderr: a bar with rate and time left on a terminal, a plain line now and then elsewhere."""

import re
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from profiles.errors import ConfigError

LINE_EVERY_S = 10.0
REDRAW_EVERY_S = 0.5


class Reporter:
    """Says how far the run is. Drawing happens between steps, never from a thread of its own.

    On a terminal one bar is redrawn at most every 0.5 s; elsewhere a line is printed at most every 10 s.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._shown_at = 0.0
        self._what = ""
        self._total: int | None = 0
        self._unit = ""
        self._started_at = 0.0
        self._done = self._done_before = 0
        self._milestone_at = -LINE_EVERY_S

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, markup=False)  # words from files: a bracket is a bracket

    def begin(self, what: str, total: int | None, unit: str, done: int = 0) -> None:
        """Start counting to *total* of *unit*, if that is known; some may be *done* already."""
        self.end()
        self._what, self._total, self._unit, self._done, self._done_before = what, total, unit, done, done
        self._started_at = self._shown_at = monotonic()
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
                auto_refresh=False,
            )
            self._task = self._bar.add_task(what, total=total, completed=done, rate="")
            self._bar.start()

    def advance(self, count: int) -> None:
        """Count *count* more, and show it if the last showing is long enough ago."""
        self._done += count
        now = monotonic()
        if now - self._shown_at < (LINE_EVERY_S if self._bar is None else REDRAW_EVERY_S):
            return
        self._shown_at = now
        rate = (self._done - self._done_before) / (now - self._started_at)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done, rate=f"{rate:,.0f} {self._unit}/s")
            self._bar.refresh()
        else:
            total, left = "", ""
            if self._total is not None:
                total, left = f"/{self._total}", f", {duration((self._total - self._done) / rate)} left"
            self.say(f"{self._what}: {self._done}{total} {self._unit}, {rate:,.1f} {self._unit}/s{left}")

    def milestone(self, text: str, *, last: bool) -> None:
        """Print a line that matters: each on a terminal, elsewhere the last and one every ten seconds."""
        if last or self._console.is_terminal or monotonic() - self._milestone_at >= LINE_EVERY_S:
            self._milestone_at = monotonic()
            self.say(text)

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._task = None


DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def seconds(where: str, text: str) -> float:
    """Read a duration: `8h`, `90m`, `1h30m`, `45s`, `2d`.

    Raises:
        ConfigError: it is none, or nothing; *where* names the option.

    """
    found = DURATION.fullmatch(text)
    days, hours, minutes, rest = (int(part or 0) for part in found.groups()) if found else (0, 0, 0, 0)
    total = ((days * 24 + hours) * 60 + minutes) * 60 + rest
    if total == 0:
        raise ConfigError(where, got=repr(text), expected="a time such as 8h, 90m, 1h30m or 45s", fix=f"{where} 8h")
    return float(total)


def duration(seconds: float) -> str:
    """Write a duration for a person: `42 s`, `3 min 05 s`, `2 h 07 min`, `3 d 04 h`."""
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes == 0:
        return f"{whole} s"
    if hours == 0:
        return f"{minutes} min {whole % 60:02d} s"
    if days == 0:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{days} d {hours % 24:02d} h"
