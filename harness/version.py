"""Which program this is: its version and the commit of its source."""

import importlib.metadata
import json
import subprocess
from pathlib import Path
from typing import NamedTuple

DISTRIBUTION = "inpainting-bench"
UNKNOWN = "unknown"


class Version(NamedTuple):
    """`commit` is `unknown`, and `dirty` nothing, where the source is neither a checkout nor installed from one."""

    version: str
    commit: str
    dirty: bool | None

    def __str__(self) -> str:
        """Write it for a person."""
        dirty = ", with uncommitted changes" if self.dirty else ""
        return f"bench {self.version} (commit {self.commit[:12]}{dirty})"


def version() -> Version:
    """Ask git about the source, else pip about what it installed."""
    number = importlib.metadata.version(DISTRIBUTION)
    top = Path(__file__).resolve().parent.parent
    if (top / ".git").exists():
        commit = _git(top, "rev-parse", "HEAD")
        changes = _git(top, "status", "--porcelain", "--untracked-files=no")
        if commit:
            return Version(number, commit, None if changes is None else bool(changes))
    return Version(number, _installed_commit(), None)


def _git(top: Path, *arguments: str) -> str | None:
    """Return what git says, or nothing where it is absent or refuses."""
    try:
        answer = subprocess.run(  # noqa: S603 - fixed words
            ["git", "-C", str(top), *arguments],  # noqa: S607 - the user's own git
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()


def _installed_commit() -> str:
    """Return the commit that pip installed from, by its `direct_url.json`."""
    text = importlib.metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
    commit = json.loads(text).get("vcs_info", {}).get("commit_id") if text else None
    return str(commit or UNKNOWN)
