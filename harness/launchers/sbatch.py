"""SLURM's options, as people type them."""

import re
from collections.abc import Sequence

from profiles.errors import ConfigError

TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")


def slurm_options(
    partition: str | None, time: str | None, gres: str | None, others: Sequence[str]
) -> dict[str, str | int]:
    """Return sbatch's options by submitit's names; *others* are KEY=VALUE, as sbatch or submitit writes the key.

    Raises:
        ConfigError: one of them is not written so.

    """
    found: dict[str, str | int] = {"partition": partition or "", "gres": gres or ""}
    if time is not None:
        found["time"] = minutes(time)
    for each in others:
        key, equals, value = each.partition("=")
        if not equals or not key:
            raise ConfigError("--slurm", got=repr(each), expected="KEY=VALUE", fix="--slurm account=NAME")
        found[key.lstrip("-").replace("-", "_")] = int(value) if value.isdigit() else value
    return {key: value for key, value in found.items() if value != ""}


def minutes(text: str) -> int:
    """Return the minutes of a time as sbatch takes it: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S.

    Raises:
        ConfigError: it is none.

    """
    if (match := TIME.fullmatch(text)) is None:
        raise ConfigError("--time", got=repr(text), expected="a time as sbatch takes it", fix="--time 8:00:00")
    days, first, second, third = match.groups()
    if days is None and third is None:
        seconds = int(first) * 60 + int(second or 0)
    else:
        seconds = int(days or 0) * 86400 + int(first) * 3600 + int(second or 0) * 60 + int(third or 0)
    return max(1, -(-seconds // 60))
