"""Attention by loops, from the equations. Shapes: T tokens, E width of a head."""

import math

from torch import Tensor, stack


def softmax_attention(q_te: Tensor, k_te: Tensor, v_te: Tensor) -> Tensor:
    """Compute Vaswani et al. 2017, equation 1, one query at a time."""
    rows = []
    for q_e in q_te:
        weights = [math.exp(float(q_e @ k_e) / math.sqrt(len(q_e))) for k_e in k_te]
        rows.append(sum(w * v_e for w, v_e in zip(weights, v_te, strict=True)) / sum(weights))
    return stack(rows)


def linear_attention(q_te: Tensor, k_te: Tensor, v_te: Tensor) -> Tensor:
    """Compute Katharopoulos et al. 2020, equation 4: every pair of tokens, without the trick that makes it linear."""

    def phi(x_e: Tensor) -> Tensor:
        return stack([x + 1 if x > 0 else x.exp() for x in x_e])

    rows = []
    for q_e in q_te:
        weights = [float(phi(q_e) @ phi(k_e)) for k_e in k_te]
        rows.append(sum(w * v_e for w, v_e in zip(weights, v_te, strict=True)) / sum(weights))
    return stack(rows)
