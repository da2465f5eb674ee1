"""The inpainting transformer (thesis section 4.2): read a window with one patch missing, paint that patch.

Shapes: B windows, T tokens (one to inpaint, then its neighbours), K = T - 1 neighbours, D width, P values of a patch,
N patches of a whole image.
"""

from collections.abc import Callable
from typing import Literal, Self

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from models.attention.sizes import Sizes
from models.attention.table import VARIANTS, Backend
from profiles.stages import stage

Precision = Literal["float32", "bfloat16"]
"""Of matrix products. Weights, sums, norms and the loss are float32 either way."""


class ModelConfig(BaseModel):
    """Sizes of the transformer and of what it reads; the defaults are the thesis's (its table 4.1)."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    width: int = Field(default=512, gt=0, le=65_536, description="latent dimension D")
    depth: int = Field(default=13, gt=0, le=1024, description="number of blocks n")
    heads: int = Field(default=8, gt=0, description="attention heads")
    feed_forward: int = Field(default=2048, gt=0, le=1_048_576, description="hidden width of the feed-forward network")
    patch_side: int = Field(default=16, gt=0, le=1024, description="side P of a patch, pixels")
    window_side: int = Field(default=7, gt=1, le=256, description="side L of a window, patches")
    attention_backend: Backend | None = Field(
        default=None, description="whose attention is run; absent: the pipeline's, and of a model alone ours"
    )

    precision: Precision = Field(default="float32", description="of matrix products, in training and evaluation alike")

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.width % self.heads:
            message = f"width {self.width} is not a multiple of heads {self.heads}"
            raise ValueError(message)
        return self

    @property
    def patch_values(self) -> int:
        """Values of a patch: C·P·P with three channels."""
        return 3 * self.patch_side**2

    @property
    def attention_sizes(self) -> Sizes:
        """What an attention is built from."""
        return Sizes(self.width, self.heads, self.window_side**2)


Gather = Callable[[Tensor, Tensor], Tensor]
"""From the positions' embeddings (N, D) and the positions wanted (B, T) to (B, T, D)."""


def gather_at_once(embeddings_nd: Tensor, positions_bt: Tensor) -> Tensor:
    """Gather all positions in one operation."""
    return F.embedding(positions_bt, embeddings_nd)


class Block(nn.Module):
    """A post-norm transformer block."""

    def __init__(self, config: ModelConfig, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention
        self.norm_attention = nn.LayerNorm(config.width)
        self.feed_forward = nn.Sequential(
            nn.Linear(config.width, config.feed_forward),
            nn.GELU(),
            nn.Linear(config.feed_forward, config.width),
        )
        self.norm_feed_forward = nn.LayerNorm(config.width)

    def forward(self, x_btd: Tensor) -> Tensor:
        """Return the tokens one block further, in the shape of *x_btd*."""
        with stage("attention") as mark:
            x_btd = mark.input(x_btd)
            x_btd = mark.output(self.norm_attention(x_btd + self.attention(x_btd)))
        with stage("feed_forward") as mark:
            x_btd = mark.input(x_btd)
            x_btd = mark.output(self.norm_feed_forward(x_btd + self.feed_forward(x_btd)))
        return x_btd


class InpaintingTransformer(nn.Module):
    """Paint the missing patch of a window from the 48 around it.

    Parameters at the thesis's sizes, D = 512, H = 8, n = 13, feed-forward 2048, T = 49: a block holds its attention's,
    2,099,712 of the feed-forward network and 2,048 of two norms; the head 393,984; embedding, positions and the token
    to inpaint 525,312 at 256 pixels, 599,040 at 320, 918,528 at 512.

    ============  ===========================  =============  ==========  ==========  ======================
    model         attention                    of a block     blocks      with head   everything, 256 pixels
    ============  ===========================  =============  ==========  ==========  ======================
    msa, mlsa     4·(D² + D)                   1,050,624      40,980,992  41,374,976  41,900,288
    intra         8·D² + 7·D                   2,100,736      54,632,448  55,026,432  55,551,744
    linformer     4·(D² + D) + 2·H·12·T        1,060,032      41,103,296  41,497,280  42,022,592
    fastformer    3·(D² + D) + 2·D             788,992        37,579,776  37,973,760  38,499,072
    ============  ===========================  =============  ==========  ==========  ======================

    Weights are drawn from torch's default generator, so seed it before; which backend runs the attention changes
    neither their names nor their values.

    Args:
        name: a key of `VARIANTS`.
        config: the sizes; the variant must have its attention's backend.
        positions: patches of a whole image, each with a learned position.
        gather: how their embeddings are gathered.

    """

    def __init__(self, name: str, config: ModelConfig, positions: int, gather: Gather = gather_at_once) -> None:
        super().__init__()
        variant = VARIANTS[name]
        attention = variant.attention[config.attention_backend or "native"]
        self.gather = gather
        self.precision = config.precision
        self.long_residuals = variant.long_residuals
        self.embedding = nn.Linear(config.patch_values, config.width)
        self.positions = nn.Embedding(positions, config.width)
        self.inpaint = nn.Parameter(torch.randn(config.width))
        self.blocks = nn.ModuleList(Block(config, attention(config.attention_sizes)) for _ in range(config.depth))
        self.head = nn.Linear(config.width, config.patch_values)

    def forward(self, context_bkp: Tensor, positions_bt: Tensor) -> Tensor:
        """Return the missing patches (B, P), values around [0, 1] but not clipped to it.

        Args:
            context_bkp: the other patches of each window, values in [0, 1].
            positions_bt: position of the missing patch, then of the others, each in [0, positions).

        """
        if self.precision == "float32":
            return self._paint(context_bkp, positions_bt)
        with torch.autocast(context_bkp.device.type, torch.bfloat16):  # casts each weight once
            return self._paint(context_bkp, positions_bt)

    def _paint(self, context_bkp: Tensor, positions_bt: Tensor) -> Tensor:
        with stage("embedding") as mark:
            missing_b1d = self.inpaint.expand(len(context_bkp), 1, -1)
            x_btd = torch.cat([missing_b1d, self.embedding(context_bkp)], dim=1)
            x_btd = mark.output(x_btd + self.gather(self.positions.weight, positions_bt))
        x_btd = self._through_blocks(x_btd)
        with stage("head") as mark:
            x_btd = mark.input(x_btd)
            painted_bp = self.head(x_btd.mean(dim=1))
            return mark.output(painted_bp.float() if painted_bp.dtype == torch.bfloat16 else painted_bp)

    def _through_blocks(self, x_btd: Tensor) -> Tensor:
        """Run the blocks; with long residuals the output of block ℓ < n / 2 is added to that of block n - ℓ.

        The sums bear no mark: they are no stage's work, and count as unattributed.
        """
        earlier: list[Tensor] = []
        for number, block in enumerate(self.blocks, start=1):
            x_btd = block(x_btd)
            if self.long_residuals and 2 * number < len(self.blocks):
                earlier.append(x_btd)
            elif earlier and 2 * number > len(self.blocks):
                x_btd = x_btd + earlier.pop()
        return x_btd
