# SPDX-License-Identifier: Apache-2.0
"""A memory layer in plain PyTorch, by the formulas of docs/math.md: all n^2 slots are scored.

Works in float64, so that its own rounding does not count.
"""

import torch
from torch import Tensor


def lookup(query: Tensor, keys: Tensor, knn: int) -> tuple[Tensor, Tensor]:
    tokens, heads, _ = query.shape
    n = keys.size(2)
    halves = query.view(tokens, heads, 2, -1)
    row = torch.einsum("thd,hnd->thn", halves[:, :, 0], keys[:, 0])
    column = torch.einsum("thd,hnd->thn", halves[:, :, 1], keys[:, 1])
    sums = (row.unsqueeze(-1) + column.unsqueeze(-2)).flatten(2)  # [T, H, n * n], row-major
    scores, cells = sums.topk(knn)
    i, j = cells // n, cells % n
    m = torch.maximum(i, j)
    return m * m + m + i - j, scores


def gather(values: Tensor, slots: Tensor, weights: Tensor) -> Tensor:
    return (weights.unsqueeze(-1) * values[slots]).sum(1)


def peer_gather(values: Tensor, x: Tensor, slots: Tensor, weights: Tensor) -> Tensor:
    rows = values[slots]  # [T, J, W]
    u, v = rows[..., : x.size(1)], rows[..., x.size(1) :]
    factors = weights * torch.nn.functional.gelu((u * x.unsqueeze(1)).sum(-1))
    return (factors.unsqueeze(-1) * v).sum(1)


def rms_norm(x: Tensor, scale: Tensor) -> Tensor:
    return scale * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def layer(
    p: dict[str, Tensor], x: Tensor, heads: int, knn: int, variant: str, scale: float = 1
) -> Tensor:
    """The output for tokens x [T, dim] of a MemoryLayer of parameters p, by their names."""

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ p[name + ".weight"].T + p[name + ".bias"]

    tokens, half = x.size(0), p["keys"].size(-1)
    query, keys = linear("query_proj", x).view(tokens, heads, 2, half), p["keys"]
    if "query_norm" in p:
        query = rms_norm(query, p["query_norm"].view(2, half))
        keys = rms_norm(keys, p["key_norm"].view(2, 1, half))
    slots, scores = lookup(query.flatten(2), keys, knn)
    slots, weights = slots.flatten(1), scale * scores.softmax(-1).flatten(1)
    if variant == "peer":
        y = peer_gather(p["pool.values"], x, slots, weights)
    else:
        y = gather(p["pool.values"], slots, weights)
    if variant == "memory+":
        y = y * torch.nn.functional.silu(linear("swilu_proj", x))
    if "value_proj.weight" in p:
        y = linear("value_proj", y)
    if "gate.weight" in p:
        inner = x
        if "gate_hidden.weight" in p:
            inner = torch.nn.functional.silu(linear("gate_hidden", x))
        y = y * torch.sigmoid(linear("gate", inner))
    return y


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """Largest difference, relative to the largest wanted number; infinite for another shape."""
    if got.shape != wanted.shape:
        return float("inf")
    if got.numel() == 0:
        return 0.0
    difference = (got.detach().cpu().double() - wanted.detach().cpu().double()).abs().max()
    scale = wanted.detach().abs().max().cpu().double()
    return float(difference / scale) if scale > 0 else float(difference)
