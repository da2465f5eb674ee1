"""The inpainting transformer (thesis section 4.2): read a window with one patch missing, paint that patch.

Shapes: B windows, T tokens (one to inpaint, then its neighbours), K = T - 1 neighbours, D width, P values of a patch.
"""

from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from models.attention.table import ATTENTION
from profiles.stages import stage


class ModelConfig(BaseModel):
    """Sizes of the transformer and of what it reads; the defaults are the thesis's (its table 4.1)."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    width: int = Field(default=512, gt=0, description="latent dimension D")
    depth: int = Field(default=13, gt=0, description="number of blocks n")
    heads: int = Field(default=8, gt=0, description="attention heads")
    feed_forward: int = Field(default=2048, gt=0, description="hidden width of the feed-forward network")
    patch_side: int = Field(default=16, gt=0, description="side P of a patch, pixels")
    window_side: int = Field(default=7, gt=1, description="side L of a window, patches")

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

    At the thesis's sizes the blocks hold 40,980,992 parameters, with the head 41,374,976; everything, at 256 pixels,
    41,900,288. Weights are drawn from torch's default generator, so seed it before.

    Args:
        name: a key of `ATTENTION`.
        config: the sizes.
        positions: patches of a whole image, each with a learned position.

    """

    def __init__(self, name: str, config: ModelConfig, positions: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(config.patch_values, config.width)
        self.positions = nn.Embedding(positions, config.width)
        self.inpaint = nn.Parameter(torch.randn(config.width))
        self.blocks = nn.ModuleList(
            Block(config, ATTENTION[name](config.width, config.heads)) for _ in range(config.depth)
        )
        self.head = nn.Linear(config.width, config.patch_values)

    def forward(self, context_bkp: Tensor, positions_bt: Tensor) -> Tensor:
        """Return the missing patches (B, P), values around [0, 1] but not clipped to it.

        Args:
            context_bkp: the other patches of each window, values in [0, 1].
            positions_bt: position of the missing patch, then of the others, each in [0, positions).

        """
        with stage("embedding") as mark:
            missing_b1d = self.inpaint.expand(len(context_bkp), 1, -1)
            x_btd = torch.cat([missing_b1d, self.embedding(context_bkp)], dim=1) + self.positions(positions_bt)
            x_btd = mark.output(x_btd)
        for block in self.blocks:
            x_btd = block(x_btd)
        with stage("head") as mark:
            x_btd = mark.input(x_btd)
            return mark.output(self.head(x_btd.mean(dim=1)))
