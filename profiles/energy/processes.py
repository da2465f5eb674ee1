"""Whose processes are on a device, as far as they can be seen from here."""

import os
from functools import cache
from pathlib import Path

_INITIAL_PID_NAMESPACE = "pid:[4026531836]"

UNSEEN = "processes outside this container are not seen"


def foreign(pids: set[int]) -> int | None:
    """Count the processes that are not this one; nothing where there may be some that are not seen.

    In a container the driver names processes as the container sees them and leaves out those that it does not see, so
    that nobody met does not mean that nobody is there. Where this process is not among those it names, one of them may
    be this one under its number outside.
    """
    if _sees_all_processes():
        return len(pids - {os.getpid()})
    seen = len(pids) - 1  # but for this one
    return seen if seen > 0 else None


@cache  # a process stays where it is
def _sees_all_processes() -> bool:
    try:
        return Path("/proc/self/ns/pid").readlink().name == _INITIAL_PID_NAMESPACE
    except OSError:  # no such thing here: then there are no containers either
        return True
