# SPDX-License-Identifier: Apache-2.0
"""The memory layer in plain PyTorch, written from the formulas of docs/math.md.

What a PyTorch user would write without a kernel of their own: product keys by two matrix products and
three topk, the weighted sum by embedding_bag. Parameter names are those of memlayers.MemoryLayer; the
table is in row-major order (i * n_keys + j), as no shell numbering is needed here.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_NORM_EPS = 1e-6


class TorchMemoryLayer(nn.Module):
    """x [T, dim] -> [T, dim], the "memory+" variant: (y * silu(x Wg + bg)) Wo + bo.

    sparse: what the table's gradient is, as in nn.EmbeddingBag. row_dtype: of the table; embedding_bag
    wants weights of the same type, so bfloat16 rows are summed with bfloat16 weights. dtype: of all else.
    """

    def __init__(
        self,
        dim: int,
        *,
        n_keys: int,
        heads: int,
        knn: int,
        k_dim: int,
        row_dtype: torch.dtype = torch.float32,
        dtype: torch.dtype = torch.float32,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        self.n_keys, self.heads, self.knn, self.k_dim = n_keys, heads, knn, k_dim
        self.sparse = sparse
        self.keys = nn.Parameter(torch.empty(heads, 2, n_keys, k_dim // 2))
        self.query_proj = nn.Linear(dim, heads * k_dim)
        self.query_norm = nn.Parameter(torch.ones(k_dim))
        self.key_norm = nn.Parameter(torch.full((k_dim,), k_dim**-0.5))
        self.swilu_proj = nn.Linear(dim, dim)
        self.value_proj = nn.Linear(dim, dim)
        self.values = nn.Parameter(torch.empty(n_keys * n_keys, dim, dtype=row_dtype))
        nn.init.uniform_(self.keys, -(k_dim**-0.5), k_dim**-0.5)
        nn.init.xavier_uniform_(self.query_proj.weight)
        nn.init.normal_(self.values, std=dim**-0.5)
        for parameter in self.parameters():
            if parameter is not self.values:
                parameter.data = parameter.data.to(dtype)

    def select(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the table and softmax weights, both [T, heads * knn]."""
        tokens, half = x.size(0), self.k_dim // 2
        query = self.query_proj(x).view(tokens, self.heads, 2, half)
        query = _rms_norm(query, self.query_norm.view(2, half))
        keys = _rms_norm(self.keys, self.key_norm.view(2, 1, half))
        # [heads, 2, tokens, n_keys]: one product for each head and half
        scores = query.permute(1, 2, 0, 3) @ keys.transpose(2, 3)
        best, index = scores.topk(self.knn, dim=-1)
        # Only pairs (a, b) of the sorted lists with (a + 1)(b + 1) <= knn can win: PyTorch has no
        # way to score those alone that is faster than scoring all knn^2.
        sums = best[:, 0].unsqueeze(-1) + best[:, 1].unsqueeze(-2)
        rows = index[:, 0].unsqueeze(-1) * self.n_keys + index[:, 1].unsqueeze(-2)
        top, place = sums.flatten(2).topk(self.knn, dim=-1)  # [heads, tokens, knn]
        slots = rows.flatten(2).gather(-1, place)
        weights = top.softmax(-1)
        return (
            slots.transpose(0, 1).reshape(tokens, -1),
            weights.transpose(0, 1).reshape(tokens, -1),
        )

    def forward(self, x: Tensor) -> Tensor:
        slots, weights = self.select(x)
        y = F.embedding_bag(
            slots,
            self.values,
            per_sample_weights=weights.to(self.values.dtype),
            mode="sum",
            sparse=self.sparse,
        )
        y = y.to(x.dtype) * F.silu(self.swilu_proj(x))
        return self.value_proj(y)


def _rms_norm(x: Tensor, scale: Tensor) -> Tensor:
    return scale * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + _NORM_EPS))
