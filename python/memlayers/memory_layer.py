# SPDX-License-Identifier: Apache-2.0
"""The memory layer as a PyTorch module: the twin of src/nn/memory_layer.cpp."""

from typing import Literal

import torch
from torch import Tensor, nn

from . import ops
from ._arguments import tensor
from .memory_pool import MemoryPool

Variant = Literal["memory+", "plain", "peer"]

_NORM_EPS = 1e-6  # of query halves and sub-keys; added under the root


class MemoryLayer(nn.Module):
    """A product-key lookup and a weighted sum of pool rows: x [..., dim] -> [..., dim].

    n_keys: sub-keys per set, so that the pool has n_keys^2 slots. heads: independent lookups per
    token. knn: slots read per head, at most n_keys. k_dim: width of a query, even. v_dim: width of
    a value; None: dim. variant: "memory+" gates the sum with silu(swilu_proj(x)), "plain" does not,
    "peer" reads rows as pairs (U, V) and needs a pool of width dim + v_dim. value_proj: project the
    sum to dim; None: where it is needed (memory+, or v_dim other than dim). qk_norm: RMSNorm with a
    learned scale on query halves and sub-keys. gate: multiply the output by sigmoid(gate(x)); with
    gate_dim by sigmoid(gate(silu(gate_hidden(x)))), which is so wide between. output_scale: what the
    weighted sum of rows is multiplied by.
    open_keys: of a memory that has grown, lookups see only the first so many sub-keys of each set;
    None: all. pool: shared with other layers; None: one of its own, with row_dtype, sparse and
    factored (MemoryPool).

    Parameter names are those of a model folder's `model.layers.N.memory.*`; the pool's is
    `pool.values`. Lookup and weights are computed in float32, whatever the layer's dtype; x of
    another dtype is computed with in the layer's, and the result is of x's.
    """

    # What transformers reads: of a model's layers over one pool, save_pretrained writes the rows once.
    _tied_weights_keys = {"pool.values": "pool.values"}

    def __init__(
        self,
        dim: int,
        *,
        n_keys: int = 128,
        heads: int = 4,
        knn: int = 32,
        k_dim: int = 128,
        v_dim: int | None = None,
        variant: Variant = "memory+",
        value_proj: bool | None = None,
        qk_norm: bool = True,
        gate: bool = False,
        gate_dim: int | None = None,
        output_scale: float = 1.0,
        open_keys: int | None = None,
        pool: MemoryPool | None = None,
        row_dtype: torch.dtype = torch.float32,
        sparse: bool = False,
        factored: bool = False,
    ) -> None:
        super().__init__()
        v_dim = dim if v_dim is None else v_dim
        for name, value in [("dim", dim), ("n_keys", n_keys), ("heads", heads), ("knn", knn)]:
            _check(value >= 1, f"{name} >= 1", value)
        _check(v_dim >= 1, "v_dim >= 1", v_dim)
        _check(knn <= n_keys, f"knn of at most n_keys ({n_keys})", knn)
        _check(
            open_keys is None or knn <= open_keys <= n_keys,
            f"open_keys from knn ({knn}) to n_keys ({n_keys})",
            open_keys,
        )
        _check(k_dim >= 2 and k_dim % 2 == 0, "k_dim even and >= 2", k_dim)
        _check(gate_dim is None or (gate and gate_dim >= 1), "gate_dim >= 1 beside gate", gate_dim)
        _check(0 < output_scale < float("inf"), "output_scale > 0", output_scale)
        _check(variant in ("memory+", "plain", "peer"), "variant memory+, plain or peer", variant)
        has_projection = (
            (variant == "memory+" or v_dim != dim) if value_proj is None else value_proj
        )
        _check(
            has_projection or v_dim == dim,
            f"value_proj=True where v_dim ({v_dim}) differs from dim ({dim})",
            value_proj,
        )
        width = dim + v_dim if variant == "peer" else v_dim
        if pool is None:
            pool = MemoryPool(n_keys, width, dtype=row_dtype, sparse=sparse, factored=factored)
        if (pool.n_keys, pool.width) != (n_keys, width):
            raise ValueError(
                f"MemoryLayer: expected a pool of n_keys {n_keys} and width {width}, "
                f"got {pool.n_keys} and {pool.width}"
            )
        self.dim, self.n_keys, self.heads, self.knn = dim, n_keys, heads, knn
        self.k_dim, self.v_dim, self.variant = k_dim, v_dim, variant
        self.open_keys, self.gate_dim, self.output_scale = open_keys, gate_dim, output_scale

        self.pool = pool
        self.keys = nn.Parameter(torch.empty(heads, 2, n_keys, k_dim // 2))
        self.query_proj = nn.Linear(dim, heads * k_dim)
        self.query_norm = nn.Parameter(torch.empty(k_dim)) if qk_norm else None
        self.key_norm = nn.Parameter(torch.empty(k_dim)) if qk_norm else None
        self.swilu_proj = nn.Linear(dim, v_dim) if variant == "memory+" else None
        self.value_proj = nn.Linear(v_dim, dim) if has_projection else None
        self.gate_hidden = nn.Linear(dim, gate_dim) if gate_dim is not None else None
        self.gate = nn.Linear(dim if gate_dim is None else gate_dim, 1) if gate else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all weights but the pool's anew from torch's global generator."""
        bound = self.k_dim**-0.5
        nn.init.uniform_(self.keys, -bound, bound)
        nn.init.xavier_uniform_(self.query_proj.weight)
        nn.init.zeros_(self.query_proj.bias)
        if self.query_norm is not None and self.key_norm is not None:
            nn.init.ones_(self.query_norm)
            # With unit query entries the score of a slot then starts with variance 1.
            nn.init.constant_(self.key_norm, bound)
        for linear in (self.swilu_proj, self.value_proj, self.gate_hidden, self.gate):
            if linear is not None:
                nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
                nn.init.zeros_(linear.bias)

    def select(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What forward reads for tokens x [T, dim]: slots and softmax weights, [T, heads, knn]."""
        query = self.query_proj(x).float().view(-1, self.heads, self.k_dim)
        return self._lookup(query, self.keys)

    def _lookup(self, query: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """lookup_softmax of projected queries [T, h, k_dim] in the keys of these h heads."""
        half = self.k_dim // 2
        keys = (keys if self.open_keys is None else keys[:, :, : self.open_keys]).float()
        if self.query_norm is not None and self.key_norm is not None:
            halves = query.view(-1, keys.size(0), 2, half)
            query = _rms_norm(halves, self.query_norm.view(2, half)).view_as(query)
            keys = _rms_norm(keys, self.key_norm.view(2, 1, half))
        return ops.lookup_softmax(query, keys, self.knn)

    @torch.no_grad()
    def candidates(self, query: Tensor, head: int | None = None) -> Tensor:
        """The slots that a query reads, that with the greatest weight first; a row goes into one.

        query: what query_proj gives for one token, [heads, k_dim]; or [k_dim] with a head.
        """
        query = tensor("candidates", "query", query)
        _check(
            (head is None) == (query.dim() == 2), "a head for a query [k_dim] and no other", head
        )
        _check(head is None or 0 <= head < self.heads, f"a head in [0, {self.heads})", head)
        shape = [self.heads, self.k_dim] if head is None else [self.k_dim]
        _check(list(query.shape) == shape, f"a query {shape}", list(query.shape))
        _check(bool(query.isfinite().all()), "a query of finite numbers", "NaN or infinity")
        keys = self.keys if head is None else self.keys[head : head + 1]
        slots, weights = self._lookup(query.float().reshape(1, -1, self.k_dim), keys)
        order = weights.flatten().argsort(descending=True, stable=True)
        return slots.flatten()[order]

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() < 1 or x.size(-1) != self.dim:
            raise ValueError(f"MemoryLayer: expected x [..., {self.dim}], got {list(x.shape)}")
        flat = x.reshape(-1, self.dim).to(self.keys.dtype)  # [T, dim]
        slots, weights = self.select(flat)
        slots, weights = slots.flatten(1), weights.flatten(1)  # [T, heads * knn]
        if self.output_scale != 1:
            weights = weights * self.output_scale
        if self.variant == "peer":
            y = self.pool.peer_gather(flat.float(), slots, weights)
        else:
            y = self.pool.gather(slots, weights)
        y = y.to(flat.dtype)
        if self.swilu_proj is not None:
            y = y * nn.functional.silu(self.swilu_proj(flat))
        if self.value_proj is not None:
            y = self.value_proj(y)
        if self.gate is not None:
            hidden = flat if self.gate_hidden is None else nn.functional.silu(self.gate_hidden(flat))
            y = y * torch.sigmoid(self.gate(hidden))
        return y.to(x.dtype).view(x.shape)

    def extra_repr(self) -> str:
        return (
            f"dim={self.dim}, n_keys={self.n_keys}, heads={self.heads}, knn={self.knn}, "
            f"k_dim={self.k_dim}, v_dim={self.v_dim}, variant={self.variant!r}, "
            f"qk_norm={self.query_norm is not None}"
        )


def _rms_norm(x: Tensor, scale: Tensor) -> Tensor:
    normed = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + _NORM_EPS)
    return scale.float() * normed


def _check(is_right: bool, wanted: str, got: object) -> None:
    if not is_right:
        raise ValueError(f"MemoryLayer: expected {wanted}, got {got!r}")
