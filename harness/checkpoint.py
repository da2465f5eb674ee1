"""Checkpoints: `last.pt`, from which a training goes on as if never stopped, and `best.pt`, the weights to evaluate.

`previous.pt` is the `last.pt` before: where a disk has damaged the last, a training goes on from there. Every file is
written aside, synced and renamed, and what is read is checked by the checksums (CRC-32) that the format holds.

`best.pt` is written after the `last.pt` of the same moment, whose weights are the best so far: those of the epoch that
has just ended, before any step of the next. So after any kill it is no newer than `last.pt`, and older only where that
one holds the best weights itself, and a training that goes on from it begins by writing both again. Best weights of an
epoch that `last.pt` does not know of, which is trained again and may end otherwise, are nowhere.
"""

import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from profiles.errors import RunDirectoryError
from profiles.files import replacing, sync

State = dict[str, Any]


class Saved(NamedTuple):
    """A training's state; *damaged* says what was wrong with a later one that could not be read."""

    state: State
    damaged: str | None


def save(path: Path, state: State) -> None:
    """Write tensors and plain values: aside, synced, then renamed into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as aside:
        _write(aside, state)


def save_last(checkpoints: Path, state: State) -> None:
    """Write `last.pt`, then `best.pt` if these are the best weights.

    The `last.pt` before, which must be whole, becomes `previous.pt` once the new one is on the disk: at every moment
    one of the two is whole.
    """
    checkpoints.mkdir(parents=True, exist_ok=True)
    last = checkpoints / "last.pt"
    with replacing(last) as aside:
        _write(aside, state)
        sync(aside)
        if last.exists():
            last.replace(checkpoints / "previous.pt")
    if _holds_best(state):
        save(checkpoints / "best.pt", {"model": state["model"], "epoch": state["progress"]["best_epoch"]})


def _holds_best(state: State) -> bool:
    """Whether a state's weights are the best so far: those of the epoch that has just ended."""
    at = state["progress"]
    return bool(at["step"] == 0 and at["best_epoch"] == at["epoch"] - 1 > 0)


def replace_damaged(checkpoints: Path, state: State) -> None:
    """Write `last.pt` over a damaged one, from the one before, which stays as it is: the only whole one so far."""
    save(checkpoints / "last.pt", state)


def drop_previous(checkpoints: Path) -> None:
    """Remove what only a training that goes on could need."""
    (checkpoints / "previous.pt").unlink(missing_ok=True)


def _write(path: Path, state: State) -> None:
    with path.open("wb") as file:  # not by name: torch's own writing does not say why it failed
        torch.save(state, file)


def load(path: Path, device: torch.device) -> State:
    """Read a checkpoint; nothing but tensors and plain values is unpickled.

    Raises:
        RunDirectoryError: it is damaged or holds something else.

    """
    try:
        with zipfile.ZipFile(path) as archive:
            if (entry := archive.testzip()) is not None:
                raise _damaged(path, f"the checksum of {entry} is wrong")
        state: State = torch.load(path, map_location=device, weights_only=True)
    except (
        OSError, RuntimeError, EOFError, ValueError, KeyError, struct.error, pickle.UnpicklingError, zipfile.BadZipFile,
    ) as error:  # fmt: skip
        raise _damaged(path, str(error)) from error
    return state


def _damaged(path: Path, why: str) -> RunDirectoryError:
    got, fix = f"a damaged checkpoint ({why})", "--resume --retry-failed, which trains the cell anew"
    return RunDirectoryError(path, got=got, expected="a checkpoint of this program", fix=fix)


def load_weights(model: nn.Module, path: Path, device: torch.device, epoch: int) -> None:
    """Give *model* the weights of a `best.pt`, which must be those of *epoch*.

    Raises:
        RunDirectoryError: the file is damaged, or holds others: those of an epoch that was trained again, from before a
            damaged `last.pt`, and did not end as at first.

    """
    best = load(path, device)
    if best["epoch"] != epoch:
        raise _damaged(path, f"weights of epoch {best['epoch']}, not of {epoch}")
    model.load_state_dict(best["model"])


def load_last(checkpoints: Path, device: torch.device) -> Saved | None:
    """Read the last state of a training, if it has one: `last.pt`, or where that is gone or damaged, the one before.

    Raises:
        RunDirectoryError: no state that was saved is whole.

    """
    damage: RunDirectoryError | None = None
    for name in ("last.pt", "previous.pt"):
        path = checkpoints / name
        if not path.exists():
            continue
        try:
            return Saved(load(path, device), None if damage is None else f"last.pt: {damage.got}")
        except RunDirectoryError as error:
            damage = damage or error
    if damage is not None:
        raise damage
    return None


def is_whole(checkpoints: Path) -> bool:
    """Whether a training could go on from what it saved, its best weights included, or has saved nothing yet."""
    try:
        saved = load_last(checkpoints, torch.device("cpu"))
        if saved is None or _holds_best(saved.state) or not (best_epoch := saved.state["progress"]["best_epoch"]):
            return True
        epoch = load(checkpoints / "best.pt", torch.device("cpu"))["epoch"]
    except RunDirectoryError:
        return False
    return bool(epoch == best_epoch or epoch >= saved.state["progress"]["epoch"])  # which is trained again
