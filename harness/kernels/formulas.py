"""What the kernels have to compute, slowly and in float64: softmax(Q Kᵀ / √d) V and the others, pair by pair.

They share nothing with the kernels but the papers' equations. Shapes: B windows, T tokens, H heads, E width of a head,
K projected tokens, R width of a head's query.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]


def softmax(q_bthe: Tensor, k_bthe: Tensor, v_bthe: Tensor, weights: Weights) -> Tensor:  # noqa: ARG001 - it has none
    """Vaswani et al. 2017, equation 1."""
    return _weighted(_similarity(q_bthe, k_bthe).softmax(dim=-1), v_bthe)


def linear(q_bthe: Tensor, k_bthe: Tensor, v_bthe: Tensor, weights: Weights) -> Tensor:  # noqa: ARG001 - it has none
    """Katharopoulos et al. 2020, equation 4 with 7: every pair of tokens, as no linear kernel does it."""
    q_bthe, k_bthe = (torch.where(x > 0, x + 1, x.clamp(max=0).exp()) for x in (q_bthe, k_bthe))
    pairs_bhts = torch.einsum("bthe,bshe->bhts", q_bthe, k_bthe)
    return _weighted(pairs_bhts / pairs_bhts.sum(dim=-1, keepdim=True), v_bthe)


def linformer(q_bthe: Tensor, k_bthe: Tensor, v_bthe: Tensor, weights: Weights) -> Tensor:
    """Wang et al. 2020, equation 7."""
    k_bkhe = torch.einsum("hkt,bthe->bkhe", weights["key_reduction_hkt"], k_bthe)
    v_bkhe = torch.einsum("hkt,bthe->bkhe", weights["value_reduction_hkt"], v_bthe)
    return softmax(q_bthe, k_bkhe, v_bkhe, weights)


def fastformer(q_bthe: Tensor, k_bthe: Tensor, _: Tensor, weights: Weights) -> Tensor:
    """Wu et al. 2021, section 3; values are the queries, which are also added."""
    root = q_bthe.shape[-1] ** 0.5
    alpha_bth = (torch.einsum("bthe,he->bth", q_bthe, weights["query_score_he"]) / root).softmax(dim=1)
    p_bthe = torch.einsum("bth,bthe->bhe", alpha_bth, q_bthe).unsqueeze(1) * k_bthe
    beta_bth = (torch.einsum("bthe,he->bth", p_bthe, weights["key_score_he"]) / root).softmax(dim=1)
    mixed_bthe: Tensor = torch.einsum("bth,bthe->bhe", beta_bth, p_bthe).unsqueeze(1) * q_bthe + q_bthe
    return mixed_bthe


def _similarity(q_bthe: Tensor, k_bshe: Tensor) -> Tensor:
    similarity_bhts: Tensor = torch.einsum("bthe,bshe->bhts", q_bthe, k_bshe) / q_bthe.shape[-1] ** 0.5
    return similarity_bhts


def _weighted(weights_bhts: Tensor, v_bshe: Tensor) -> Tensor:
    mixed_bthe: Tensor = torch.einsum("bhts,bshe->bthe", weights_bhts, v_bshe)
    return mixed_bthe
