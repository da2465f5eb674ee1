"""Attention by loops, one number at a time, from the papers' equations.

Tokens are lists of numbers; a state is a module's parameters by name, as nested lists. Every function returns the mixed
tokens and takes the number of heads.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

State = dict[str, Any]
Vector = list[float]


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def affine(state: State, name: str, x: Vector) -> Vector:
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    return [dot(row, x) + b for row, b in zip(weight, bias, strict=True)]


def mlp(state: State, name: str, x: Vector) -> Vector:
    hidden = affine(state, f"{name}.0", x)
    gelu = [h * 0.5 * (1 + math.erf(h / math.sqrt(2))) for h in hidden]
    return affine(state, f"{name}.2", gelu)


def of_head(x: Vector, head: int, heads: int) -> Vector:
    size = len(x) // heads
    return x[head * size : (head + 1) * size]


def weighted(weights: Vector, vectors: list[Vector]) -> Vector:
    return [sum(w * v[i] for w, v in zip(weights, vectors, strict=True)) for i in range(len(vectors[0]))]


def softmax(scores: Vector) -> Vector:
    powers = [math.exp(score) for score in scores]
    return [power / sum(powers) for power in powers]


def scaled_dot_product(q: Vector, k: list[Vector]) -> Vector:
    """Vaswani et al. 2017, equation 1: the weights of the values for one query."""
    return softmax([dot(q, k_s) / math.sqrt(len(q)) for k_s in k])


def kernel(q: Vector, k: list[Vector]) -> Vector:
    """Katharopoulos et al. 2020, equation 4 with 7: every pair of tokens, without the trick that makes it linear."""

    def phi(x: Vector) -> Vector:
        return [value + 1 if value > 0 else math.exp(value) for value in x]

    similarities = [dot(phi(q), phi(k_s)) for k_s in k]
    return [similarity / sum(similarities) for similarity in similarities]


def mix(
    weights: Callable[[Vector, list[Vector]], Vector],
    queries: list[Vector],
    keys_of: Callable[[int], list[Vector]],
    values_of: Callable[[int], list[Vector]],
    heads: int,
) -> list[Vector]:
    """Average, for every query and head, that head's values by the weights of its keys; join the heads."""
    mixed = []
    for q in queries:
        joined: Vector = []
        for head in range(heads):
            joined += weighted(weights(of_head(q, head, heads), keys_of(head)), values_of(head))
        mixed.append(joined)
    return mixed


def _attend(
    weights: Callable[[Vector, list[Vector]], Vector], state: State, x: list[Vector], heads: int
) -> list[Vector]:
    queries = [affine(state, "query_projection", token) for token in x]
    keys = [affine(state, "key_projection", token) for token in x]
    values = [affine(state, "value_projection", token) for token in x]
    mixed = mix(
        weights,
        queries,
        lambda head: [of_head(k, head, heads) for k in keys],
        lambda head: [of_head(v, head, heads) for v in values],
        heads,
    )
    return [affine(state, "out_projection", joined) for joined in mixed]


def msa(state: State, x: list[Vector], heads: int) -> list[Vector]:
    """Vaswani et al. 2017, section 3.2.2."""
    return _attend(scaled_dot_product, state, x, heads)


def mlsa(state: State, x: list[Vector], heads: int) -> list[Vector]:
    """Katharopoulos et al. 2020, section 3.2."""
    return _attend(kernel, state, x, heads)


def intra(state: State, x: list[Vector], heads: int) -> list[Vector]:
    """Pirnay & Chai 2021, section 3: queries and keys by an MLP each."""
    queries = [mlp(state, "query_mlp", token) for token in x]
    keys = [mlp(state, "key_mlp", token) for token in x]
    values = [affine(state, "value_projection", token) for token in x]
    mixed = mix(
        scaled_dot_product,
        queries,
        lambda head: [of_head(k, head, heads) for k in keys],
        lambda head: [of_head(v, head, heads) for v in values],
        heads,
    )
    return [affine(state, "out_projection", joined) for joined in mixed]


def linformer(state: State, x: list[Vector], heads: int) -> list[Vector]:
    """Wang et al. 2020, equation 7: head_i = softmax(Q (E_i K)ᵀ / √d) F_i V."""
    queries = [affine(state, "query_projection", token) for token in x]
    keys = [affine(state, "key_projection", token) for token in x]
    values = [affine(state, "value_projection", token) for token in x]

    def reduced(name: str, vectors: list[Vector], head: int) -> list[Vector]:
        return [weighted(row, [of_head(v, head, heads) for v in vectors]) for row in state[name][head]]

    mixed = mix(
        scaled_dot_product,
        queries,
        lambda head: reduced("key_reduction_hkt", keys, head),
        lambda head: reduced("value_reduction_hkt", values, head),
        heads,
    )
    return [affine(state, "out_projection", joined) for joined in mixed]


def fastformer(state: State, x: list[Vector], heads: int) -> list[Vector]:
    """Wu et al. 2021, section 3; values are the queries, and queries are added at the end."""
    queries = [affine(state, "query_projection", token) for token in x]
    keys = [affine(state, "key_projection", token) for token in x]
    joined: list[Vector] = [[] for _ in x]
    for head in range(heads):
        q = [of_head(query, head, heads) for query in queries]
        k = [of_head(key, head, heads) for key in keys]
        root = math.sqrt(len(q[0]))
        alpha = softmax([dot(state["query_score_he"][head], q_i) / root for q_i in q])
        global_query = weighted(alpha, q)
        p = [[a * b for a, b in zip(global_query, k_i, strict=True)] for k_i in k]
        beta = softmax([dot(state["key_score_he"][head], p_i) / root for p_i in p])
        global_key = weighted(beta, p)
        for i, q_i in enumerate(q):
            joined[i] += [a * b for a, b in zip(global_key, q_i, strict=True)]
    transformed = [affine(state, "out_projection", u) for u in joined]
    return [[r + q for r, q in zip(*rows, strict=True)] for rows in zip(transformed, queries, strict=True)]
