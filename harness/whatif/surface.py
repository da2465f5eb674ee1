"""The attention surface: `mlsa` by `msa`, with all else of the model free, over the side of a window and the width.

Shapes: B windows, T = L² tokens, D width.
"""

from collections.abc import Callable, Iterator, Sequence
from statistics import median

import torch
from torch import Tensor, nn

from models.attention.sizes import Sizes
from models.attention.table import VARIANTS, Backend
from profiles.rate import drain
from profiles.ratio import interleave, timed
from profiles.whatif import SurfaceRow

SOFTMAX, LINEAR = "msa", "mlsa"
SIDES = range(3, 17)
WIDTHS = (128, 256, 512, 1024)
HEAD_WIDTH = 64
"""Of every head, as in the thesis: a wider model has more of them."""

TOKENS = {"cpu": 4096, "cuda": 131072}
"""Of a batch, about, so that neither a long sequence nor a short one has more to do but for attention itself. As for
the kernels' sweep, tokens then exceed the caches of a CPU, and keep every part of a GPU busy."""

PRECISION = 0.02


def surface(
    device: torch.device,
    limit_s: float,
    sides: Sequence[int] = SIDES,
    widths: Sequence[int] = WIDTHS,
    backend: Backend = "native",
) -> Iterator[SurfaceRow]:
    """Measure every point, each for a part of *limit_s* at most, by what softmax attention has to do there."""
    points = [(side, width) for width in widths for side in sides]
    whole = sum(work_of_a_token(*each) for each in points)
    for each in points:
        yield point(*each, device, limit_s * work_of_a_token(*each) / whole, backend)


def work_of_a_token(side: int, width: int) -> int:
    """Return the multiplications of softmax attention and its four projections."""
    return width * (4 * width + 2 * side**2)


def point(side: int, width: int, device: torch.device, limit_s: float, backend: Backend = "native") -> SurfaceRow:
    """Let both attentions take turns, forward and backward."""
    tokens, heads = side**2, width // HEAD_WIDTH
    windows = max(1, TOKENS[device.type] // tokens)
    x_btd = torch.randn(windows, tokens, width, generator=torch.Generator().manual_seed(0)).to(device)
    works = {name: timed(_both_ways(name, backend, Sizes(width, heads, tokens), x_btd)) for name in (SOFTMAX, LINEAR)}
    rounds = interleave(works, precision=PRECISION, limit_s=limit_s, warmups=2)
    ratio = rounds.ratio(LINEAR, SOFTMAX)
    softmax_s, linear_s = (median(rounds.times_ns[name]) / 1e9 for name in (SOFTMAX, LINEAR))
    low, high = ratio.ends
    return SurfaceRow(side, tokens, width, heads, windows, softmax_s, linear_s, ratio.value, low, high, ratio.samples)


def _both_ways(name: str, backend: Backend, sizes: Sizes, x_btd: Tensor) -> Callable[[], None]:
    """Return forward and backward work of an attention alone: gradients of its input and its weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        attention: nn.Module = VARIANTS[name].attention[backend](sizes).to(x_btd.device)
    given_btd, gradient_btd = x_btd.clone().requires_grad_(), torch.ones_like(x_btd)
    leaves = [given_btd, *attention.parameters()]

    def work() -> None:
        torch.autograd.grad(attention(given_btd), leaves, gradient_btd)
        drain(x_btd.device)

    return work


def overtakes(rows: Sequence[SurfaceRow], width: int) -> int | None:
    """Return the side of the smallest window from which on linear attention is faster for sure, or none."""
    found = None
    for row in sorted((row for row in rows if row.width == width), key=lambda row: -row.window_side):
        if row.high is None or row.high >= 1:
            break
        found = row.window_side
    return found
