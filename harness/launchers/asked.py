"""The options by which people ask for a launcher: read as they are typed, and written so again."""

import re
from collections.abc import Mapping, Sequence

from profiles.errors import ConfigError

NAMED = ("partition", "time", "gres")
"""Of SLURM's options, those that have a name here."""

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


def gpus_asked(options: Mapping[str, str | int]) -> int | None:
    """Return how many GPUs a job asks for by `gres`, if it does: `gpu`, `gpu:2`, `gpu:a100:2`."""
    entries = [entry.split(":") for entry in str(options.get("gres", "")).split(",")]
    counts = [int(entry[-1]) if entry[-1].isdigit() else 1 for entry in entries if entry[0] == "gpu"]
    return sum(counts) if counts else None


def as_typed(options: Mapping[str, str | int]) -> tuple[str, ...]:
    """Return the words that `slurm_options` would read as *options*."""
    named = [(f"--{key}", str(value)) for key, value in options.items() if key in NAMED]
    others = [("--slurm", f"{key}={value}") for key, value in options.items() if key not in NAMED]
    return tuple(word for pair in (*named, *others) for word in pair)


def counted(*, jobs: int | None, ranks: int) -> tuple[str, ...]:
    """Return the words that ask for so many *jobs*, if they are to be asked for, and *ranks*."""
    of_jobs = () if jobs is None else ("--jobs", str(jobs))
    return (*of_jobs, "--ranks", str(ranks)) if ranks > 1 else of_jobs


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
