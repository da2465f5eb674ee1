"""Linear attention (equation 6 of Katharopoulos et al. 2020) as one autograd node, a few windows at a time.

A few windows' tensors stay in the caches from the first operation to the last; of a whole batch nothing is made but the
output and the gradients, and nothing is kept but the arguments. The formula is bracketed by the smaller product:

    (φ(Q) φ(K)ᵀ) V    2·T·T·E multiplications and a T x T matrix of each head, where T ≤ E
    φ(Q) (φ(K)ᵀ V)    2·T·E·E multiplications and an E x E matrix of each head, where T > E

They differ in rounding alone. With n the normalizer, o the output, do its gradient, g = do / n and c = Σ g ∗ o over the
width, the backward pass, which makes all but the output anew, is

    A = φ(Q) φ(K)ᵀ    dA = g Vᵀ - c     dφ(Q) = dA φ(K)                   dφ(K) = dAᵀ φ(Q)            dV = Aᵀ g
    S = φ(K)ᵀ V       dS = φ(Q)ᵀ g      dφ(Q) = g Sᵀ - c (Σ φ(K))ᵀ        dφ(K) = V dSᵀ - Σ c φ(Q)    dV = φ(K) dS

Shapes: B windows, T tokens, H heads, E width of a head, N matrices, one of each head and window at hand, S the smaller
of T and E.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function

STABILIZER = 1e-6
"""Added to the normalizer, as the authors' library does; φ > 0, so it only guards against underflow."""

AT_HAND_BYTES = 1 << 20
"""What the queries of the windows at hand take: little enough for caches, enough to keep the cores busy."""

_LOG2_E = math.log2(math.e)


def fused_linear_attention(q_bthe: Tensor, k_bthe: Tensor, v_bthe: Tensor) -> Tensor:
    """Return φ(Q)(φ(K)ᵀ V) / φ(Q) Σ φ(K), φ = elu + 1; its gradient has none of its own, and says so when asked."""
    mixed_bthe: Tensor = _FusedLinearAttention.apply(q_bthe, k_bthe, v_bthe)  # type: ignore[no-untyped-call]
    return mixed_bthe


class _FusedLinearAttention(Function):
    @staticmethod
    def forward(ctx: Any, q_bthe: Tensor, k_bthe: Tensor, v_bthe: Tensor) -> Tensor:  # noqa: ANN401 - torch types it so
        ctx.save_for_backward(q_bthe, k_bthe, v_bthe)
        mixed_bthe = q_bthe.new_empty(q_bthe.shape)
        for part, at_hand in _at_hand(q_bthe, k_bthe, v_bthe):
            at_hand.mix(mixed_bthe[part].transpose(1, 2))
        return mixed_bthe

    @staticmethod
    def backward(ctx: Any, gradient_bthe: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401
        if torch.is_grad_enabled():
            raise NotImplementedError("fused linear attention has no second derivative; the backend 'eager' has")
        q_bthe, k_bthe, v_bthe = ctx.saved_tensors
        dq_bthe, dk_bthe, dv_bthe = (q_bthe.new_empty(q_bthe.shape) for _ in range(3))
        for part, at_hand in _at_hand(q_bthe, k_bthe, v_bthe):
            wanted = (dq_bthe[part].transpose(1, 2), dk_bthe[part].transpose(1, 2), dv_bthe[part].transpose(1, 2))
            back = at_hand.pairs_back if at_hand.by_pairs else at_hand.summary_back
            back(gradient_bthe[part].transpose(1, 2), *wanted)
        return dq_bthe, dk_bthe, dv_bthe


class _AtHand:
    """The matrices of a few windows, in room that is written again for the next few.

    Args:
        windows: as many as there may be at hand.
        like_bthe: the queries of all.

    """

    def __init__(self, windows: int, like_bthe: Tensor) -> None:
        _, tokens, self._heads, width = like_bthe.shape
        self.by_pairs = tokens <= width
        side = min(tokens, width)
        self._rooms = like_bthe.new_empty(5, windows * self._heads, tokens, width)
        self._product_rooms = like_bthe.new_empty(2, windows * self._heads, side, side)

    def take(self, q_bhte: Tensor, k_bhte: Tensor, v_bhte: Tensor) -> None:
        """Write φ(Q), φ(K) and V one matrix after the other (batched products copy what is not); begin with them."""
        count = len(q_bhte) * self._heads
        self.q_nte, self.k_nte, self.v_nte, self.g_nte, self.spare_nte = self._rooms[:, :count].unbind()
        self.product_nss, self.gradient_nss = self._product_rooms[:, :count].unbind()
        self._phi(q_bhte, self.q_nte)
        self._phi(k_bhte, self.k_nte)
        self._by_window(self.v_nte).copy_(v_bhte)
        if self.by_pairs:
            torch.bmm(self.q_nte, self.k_nte.mT, out=self.product_nss)
            self.normalizer_nt1 = self.product_nss.sum(dim=2, keepdim=True).add_(STABILIZER)
        else:
            torch.bmm(self.k_nte.mT, self.v_nte, out=self.product_nss)
            self.k_sum_n1e = self.k_nte.sum(dim=1, keepdim=True)
            self.normalizer_nt1 = torch.bmm(self.q_nte, self.k_sum_n1e.mT).add_(STABILIZER)

    def mix(self, mixed_bhte: Tensor) -> None:
        """Write the output."""
        factors = (self.product_nss, self.v_nte) if self.by_pairs else (self.q_nte, self.product_nss)
        torch.bmm(*factors, out=self.spare_nte)
        torch.div(self._by_window(self.spare_nte), self._by_window(self.normalizer_nt1), out=mixed_bhte)

    def pairs_back(self, gradient_bhte: Tensor, dq_bhte: Tensor, dk_bhte: Tensor, dv_bhte: Tensor) -> None:
        """Write the gradients by A; c is Σ A ∗ g Vᵀ / n over the keys."""
        self._divide(gradient_bhte)
        dv_bhte.copy_(self._by_window(torch.bmm(self.product_nss.mT, self.g_nte, out=self.spare_nte)))
        torch.bmm(self.g_nte, self.v_nte.mT, out=self.gradient_nss)
        c_nt1 = self.product_nss.mul_(self.gradient_nss).sum(dim=2, keepdim=True).div_(self.normalizer_nt1)
        self.gradient_nss.sub_(c_nt1)
        torch.bmm(self.gradient_nss, self.k_nte, out=self.spare_nte)
        torch.bmm(self.gradient_nss.mT, self.q_nte, out=self.g_nte)
        self._through_phi(self.spare_nte, self.q_nte, dq_bhte)
        self._through_phi(self.g_nte, self.k_nte, dk_bhte)

    def summary_back(self, gradient_bhte: Tensor, dq_bhte: Tensor, dk_bhte: Tensor, dv_bhte: Tensor) -> None:
        """Write the gradients by S; c is Σ g Sᵀ ∗ φ(Q) / n over the width."""
        self._divide(gradient_bhte)
        torch.bmm(self.q_nte.mT, self.g_nte, out=self.gradient_nss)
        dv_bhte.copy_(self._by_window(torch.bmm(self.k_nte, self.gradient_nss, out=self.spare_nte)))
        torch.bmm(self.g_nte, self.product_nss.mT, out=self.spare_nte)
        torch.mul(self.spare_nte, self.q_nte, out=self.g_nte)
        c_nt1 = self.g_nte.sum(dim=2, keepdim=True).div_(self.normalizer_nt1)
        torch.bmm(self.v_nte, self.gradient_nss.mT, out=self.g_nte).sub_(torch.bmm(c_nt1.mT, self.q_nte))
        self._through_phi(self.spare_nte.addcmul_(c_nt1, self.k_sum_n1e, value=-1), self.q_nte, dq_bhte)
        self._through_phi(self.g_nte, self.k_nte, dk_bhte)

    def _by_window(self, x_nte: Tensor) -> Tensor:
        """Return the matrices as (B, H, T, E)."""
        return x_nte.view(-1, self._heads, *x_nte.shape[1:])

    def _phi(self, x_bhte: Tensor, feature_nte: Tensor) -> None:
        """Write φ(x) = exp(min(x, 0)) + max(x, 0).

        Of float32 torch makes powers of two four times as fast as powers of e, and exact to |x| roundings.
        """
        feature_bhte = self._by_window(feature_nte)
        if feature_nte.dtype == torch.float32:
            torch.mul(x_bhte, _LOG2_E, out=feature_bhte).clamp_(max=0).exp2_()
        else:
            torch.clamp(x_bhte, max=0, out=feature_bhte).exp_()
        feature_bhte.add_(torch.clamp(x_bhte, min=0, out=self._by_window(self.spare_nte)))

    def _through_phi(self, gradient_nte: Tensor, feature_nte: Tensor, wanted_bhte: Tensor) -> None:
        """Write the gradient of x, given that of φ(x), by φ' = min(φ, 1)."""
        torch.mul(self._by_window(gradient_nte), self._by_window(feature_nte.clamp_(max=1)), out=wanted_bhte)

    def _divide(self, gradient_bhte: Tensor) -> None:
        torch.div(gradient_bhte, self._by_window(self.normalizer_nt1), out=self._by_window(self.g_nte))


def _at_hand(q_bthe: Tensor, k_bthe: Tensor, v_bthe: Tensor) -> Iterator[tuple[slice, _AtHand]]:
    """Take a few windows at a time."""
    step = windows_at_hand(q_bthe)
    at_hand = _AtHand(step, q_bthe)
    for start in range(0, len(q_bthe), step):
        part = slice(start, min(start + step, len(q_bthe)))
        at_hand.take(q_bthe[part].transpose(1, 2), k_bthe[part].transpose(1, 2), v_bthe[part].transpose(1, 2))
        yield part, at_hand


def windows_at_hand(x_bthe: Tensor) -> int:
    """Return how many windows are worked on at once."""
    window_bytes = x_bthe.shape[1:].numel() * x_bthe.element_size()
    return max(1, min(len(x_bthe), AT_HAND_BYTES // max(1, window_bytes)))
