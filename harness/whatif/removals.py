"""Training steps with a stage taken away, forward and backward: what is left of it costs next to nothing.

The optimizer goes on to update the parameters of what was taken away, by gradients of zero: that work is its own.
Shapes: as in `harness.pipelines.parts`.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import repeat

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from harness.whatif.subject import Parts, Removal, exchanged
from profiles.stages import Stage, stage
from profiles.turns import Step


class Nothing(nn.Module):
    """What a residual connection adds where nothing is to be added."""

    def forward(self, x: Tensor) -> float:  # noqa: ARG002 - a block's signature
        """Return 0: an addition is left."""
        return 0.0


class Blank(nn.Module):
    """Zeros in the place of a linear layer's outputs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """Return zeros of the shape of *x* but for the last dimension; no memory is filled."""
        return x.new_zeros(()).expand(*x.shape[:-1], self.width)


@contextmanager
def replayed(parts: Parts) -> Iterator[Parts]:
    """Take the same images from the device again and again; whoever loads is sent home."""
    loaded = next(parts.deliveries)
    parts.stop_loading()
    yield parts._replace(deliveries=repeat(loaded), loading_ns=0)


@contextmanager
def reused(parts: Parts) -> Iterator[Parts]:
    """Cut no windows but the first batch's; images go on to be loaded."""
    batch = parts.cut(next(parts.deliveries))
    yield parts._replace(cut=lambda _: batch)


@contextmanager
def unembedded(parts: Parts) -> Iterator[Parts]:
    """Project no patch and gather no position."""
    model = parts.model
    removed = [*model.embedding.parameters(), *model.positions.parameters()]
    with (
        exchanged(model, "embedding", Blank(model.embedding.out_features)),
        exchanged(model, "gather", lambda embeddings_nd, _: embeddings_nd.new_zeros(())),
    ):
        yield parts._replace(update=still_updating(parts.update, removed))


@contextmanager
def without_half_of_blocks(layers: Sequence[str], parts: Parts) -> Iterator[Parts]:
    """Hand tokens on as they are: neither the first of *layers* nor the norm that follows it."""
    mixing, norm = layers
    with ExitStack() as replaced:
        removed: list[nn.Parameter] = []
        for block in parts.model.blocks:
            for name in layers:
                removed += getattr(block, name).parameters()
            replaced.enter_context(exchanged(block, mixing, Nothing()))
            replaced.enter_context(exchanged(block, norm, nn.Identity()))
        yield parts._replace(update=still_updating(parts.update, removed))


@contextmanager
def squared_error(parts: Parts) -> Iterator[Parts]:
    """Train by the squared error alone."""
    yield parts._replace(loss=F.mse_loss)


@contextmanager
def frozen(parts: Parts) -> Iterator[Parts]:
    """Let go of gradients and leave the weights as they are."""
    yield parts._replace(update=partial(forget, list(parts.model.parameters())))


def forget(parameters: Iterable[nn.Parameter]) -> None:
    """Let go of gradients."""
    for parameter in parameters:
        parameter.grad = None


def still_updating(update: Step, parameters: list[nn.Parameter]) -> Step:
    """Give *parameters*, which have no gradient, one of zero before each update."""
    zeros = [torch.zeros_like(parameter) for parameter in parameters]

    def updated() -> None:
        with stage("optimizer"):
            for parameter, zero in zip(parameters, zeros, strict=True):
                parameter.grad = zero
        update()

    return updated


REMOVALS: dict[Stage, tuple[Removal, str]] = {
    "data_loading": (replayed, "batches replayed from the device: no loading, no transfer of images"),
    "patching": (reused, "windows reused: none is cut"),
    "embedding": (unembedded, "no patch projected, no position gathered"),
    "attention": (partial(without_half_of_blocks, ("attention", "norm_attention")), "identity"),
    "feed_forward": (partial(without_half_of_blocks, ("feed_forward", "norm_feed_forward")), "identity"),
    "loss": (squared_error, "plain squared error"),
    "optimizer": (frozen, "skipped"),
}
"""By stage: how it is taken away, and in words what takes its place."""
