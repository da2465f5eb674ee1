"""Several processes for one cell, as torchrun starts them: each trains on its part of every batch, on its own device.

The windows of a batch are those that one process would take. Each rank's loss is weighted by its part of them, so that
the mean of the ranks' gradients, which DistributedDataParallel takes, is the gradient of the whole batch's mean loss.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models.windows import Windows
from profiles.errors import ConfigError

PATIENCE = timedelta(days=1)
"""How long a rank waits for the others: rank 0 may have to wait for a lock, or save its state to a slow disk."""


class Ranks(NamedTuple):
    """Which of the processes of a cell this is, and how many there are; one alone communicates with nobody."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process keeps the cell's state and writes what all share."""
        return self.rank == 0

    def model(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Return *model* as it is to be trained: with others, gradients are their mean after each backward pass."""
        if self.size == 1:
            return model
        return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)

    def part(self, count: int) -> int:
        """Return how many of a batch's *count* windows are this rank's."""
        return count // self.size + (self.rank < count % self.size)

    def weight(self, count: int) -> float:
        """Return by what this rank's mean loss counts in the mean over ranks, in a batch of *count* windows."""
        return self.part(count) * self.size / count

    def share(self, windows: Windows, batch_size: int) -> Windows:
        """Return this rank's part of each batch of *windows*, one after the other.

        Where the last batch has none for this rank, it gets one that counts nothing: every rank takes every step.
        """
        if self.size == 1:
            return windows
        whole = torch.arange(len(windows.image_b))
        batches = torch.split(whole, batch_size)
        parts = [batch.tensor_split(self.size)[self.rank] for batch in batches]
        if len(parts[-1]) == 0:
            parts[-1] = whole[-1:]
        index = torch.cat(parts)
        return Windows(*(part[index] for part in windows))

    def total(self, summed: Tensor) -> float:
        """Return the sum over ranks of a number that each of them summed."""
        if self.size == 1:
            return summed.item()
        copy = summed.detach().to("cpu", copy=True)
        dist.all_reduce(copy, group=_control())
        return copy.item()

    def any(self, *, here: bool) -> bool:
        """Whether something is so on any rank; all of them learn the same."""
        return self.highest(int(here)) > 0

    def highest(self, here: int) -> int:
        """Return the largest of the ranks' numbers."""
        if self.size == 1:
            return here
        largest = torch.tensor(here)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=_control())
        return int(largest.item())

    def wait(self) -> None:
        """Wait until all ranks are here."""
        if self.size > 1:
            dist.barrier(group=_control())


ALONE = Ranks()
_groups: list[dist.ProcessGroup] = []


def _control() -> dist.ProcessGroup:
    """Return the group for words between processors, whatever the gradients travel by."""
    return _groups[-1]


def is_started_by_torchrun() -> bool:
    """Whether this process is one of several of a cell."""
    return started_by_torchrun() > 1


def started_by_torchrun() -> int:
    """Return how many processes of a cell there are, this one included."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Join the processes that torchrun started with this one; alone, where it started none."""
    if not is_started_by_torchrun():
        yield ALONE
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    _groups.append(dist.new_group(backend="gloo", timeout=PATIENCE))
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        _groups.pop()
        dist.destroy_process_group()


def rank_device(device: torch.device) -> torch.device:
    """Return the device of this rank: of several on GPUs, each has its own."""
    if device.type != "cuda" or not is_started_by_torchrun():
        return device
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]))


def refuse_ranks(ranks: int, device: torch.device, batch_size: int, *, gpus: int | None = None, jobs: int = 1) -> None:
    """Refuse a number of processes that cannot share a batch, or have no device each.

    Args:
        ranks: how many.
        device: of the run.
        batch_size: of all ranks together.
        gpus: how many there are for a cell; absent: that is not known here.
        jobs: cells that share the machine.

    Raises:
        ConfigError: they cannot.

    """
    if batch_size % ranks:
        expected = f"a divisor of training.batch_size, {batch_size}"
        fix = "--set training.batch_size=N, or other ranks"
        raise ConfigError("--ranks", got=str(ranks), expected=expected, fix=fix)
    if device.type != "cuda" or ranks == 1:
        return
    if device != torch.device(device.type):  # it has a number
        got = f"{device} for {ranks} ranks"
        raise ConfigError("--device", got=got, expected="cuda: each rank takes a GPU", fix="--device cuda")
    if jobs > 1:
        expected, fix = "one cell at a time, whose ranks take a GPU each", "--jobs 1, or --ranks 1"
        raise ConfigError("--jobs", got=f"{jobs} beside --ranks {ranks}", expected=expected, fix=fix)
    if gpus is not None and gpus < ranks:
        expected = f"at most {gpus}, the GPUs of a cell"
        raise ConfigError("--ranks", got=str(ranks), expected=expected, fix=f"--ranks {max(gpus, 1)}")


def gpus_here(device: torch.device) -> int | None:
    """Return how many GPUs this machine has, if *device* is one."""
    return torch.cuda.device_count() if device.type == "cuda" else None
