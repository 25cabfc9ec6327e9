# SPDX-License-Identifier: Apache-2.0
"""The tensor functions of a memory layer: torch.ops.memlayers with names and types.

Legend of shapes: T tokens, H heads, k slots a head, n sub-keys a set, d query width, S = n * n
slots, W row width, J slots read a token (H * k). On a CPU they run the library's kernels, elsewhere
plain ATen; all differentiate once and work under torch.compile. They raise ValueError for a shape,
TypeError for a dtype, IndexError for a slot outside the pool (on a CPU).
"""

import torch
from torch import Tensor


def lookup(query: Tensor, keys: Tensor, knn: int) -> tuple[Tensor, Tensor]:
    """The knn best slots of each token and head, best first, exactly, and their scores.

    query [T, H, d] and keys [H, 2, n, d/2] (0: row set, 1: column set), float32 or bfloat16.
    Returns slots [T, H, knn] int64 and scores [T, H, knn] float32, differentiable in both inputs.
    """
    scores, slots = torch.ops.memlayers.lookup(query, keys, knn)
    return slots, scores


def lookup_softmax(query: Tensor, keys: Tensor, knn: int) -> tuple[Tensor, Tensor]:
    """lookup with the weights of a memory layer, softmax(scores) over knn, in place of the scores."""
    weights, slots = torch.ops.memlayers.lookup_softmax(query, keys, knn)
    return slots, weights


def gather(values: Tensor, slots: Tensor, weights: Tensor, sparse_grad: bool = False) -> Tensor:
    """The weighted sum of pool rows: out[t] = sum over j of weights[t, j] * values[slots[t, j]].

    values [S, W] float32 or bfloat16; slots [T, J] int64; weights [T, J] float32. Returns [T, W]
    float32. The gradient of values is dense, or with sparse_grad a sparse COO tensor of the touched
    rows (not under torch.compile).
    """
    out: Tensor = torch.ops.memlayers.gather(values, slots, weights, sparse_grad)
    return out


def peer_gather(
    values: Tensor, x: Tensor, slots: Tensor, weights: Tensor, sparse_grad: bool = False
) -> Tensor:
    """PEER: rows are pairs (U, V); out[t] = sum_j weights[t, j] * gelu(x[t] . U[s]) * V[s].

    values [S, W]; x [T, D] float32, D the width of U; s = slots[t, j]. Returns [T, W - D] float32.
    """
    out: Tensor = torch.ops.memlayers.peer_gather(values, x, slots, weights, sparse_grad)
    return out


@torch.library.register_fake("memlayers::group")  # type: ignore[untyped-decorator]
def _group(slots: list[Tensor], num_slots: int) -> tuple[Tensor, Tensor, Tensor]:
    for part in slots:
        if part.device != slots[0].device:
            raise ValueError(
                f"group: expected slots on {slots[0].device}, as the first, got it on {part.device}"
            )
    touched = torch.library.get_ctx().new_dynamic_size()
    count = sum(part.numel() for part in slots)
    return (
        slots[0].new_empty(touched),
        slots[0].new_empty(touched + 1),
        slots[0].new_empty(count),
    )
