"""Checkpoints: `last.pt`, from which a training goes on as if never stopped, and `best.pt`, the weights to evaluate."""

import pickle
import struct
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.directory import replacing
from profiles.errors import RunDirectoryError

State = dict[str, Any]


def save(path: Path, state: State) -> None:
    """Write tensors and plain values: aside, synced, then renamed into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as aside:
        torch.save(state, aside)


def load(path: Path, device: torch.device) -> State:
    """Read a checkpoint; nothing but tensors and plain values is unpickled.

    Raises:
        RunDirectoryError: it is damaged or holds something else.

    """
    try:
        state: State = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, struct.error, pickle.UnpicklingError) as error:
        got, fix = f"a damaged checkpoint ({error})", "--resume --retry-failed, which trains the cell anew"
        raise RunDirectoryError(path, got=got, expected="a checkpoint of this program", fix=fix) from error
    return state


def load_weights(model: nn.Module, path: Path, device: torch.device) -> None:
    """Give *model* the weights of a `best.pt`.

    Raises:
        RunDirectoryError: the file is damaged.

    """
    model.load_state_dict(load(path, device)["model"])


def load_last(checkpoints: Path, device: torch.device) -> State | None:
    """Read `last.pt` of a folder, if there is one.

    Raises:
        RunDirectoryError: it is damaged.

    """
    path = checkpoints / "last.pt"
    return load(path, device) if path.exists() else None
