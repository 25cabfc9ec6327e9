# SPDX-License-Identifier: Apache-2.0
"""The value rows that the memory layers of a model share."""

from collections.abc import Callable
from math import isqrt
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from . import ops
from .grid import shell_slots

if TYPE_CHECKING:
    from .memory_layer import MemoryLayer


class MemoryPool(nn.Module):
    """A table of n_keys^2 value rows; one parameter, `values` [n_keys^2, width], in shell order.

    width: v_dim of the layers, or dim + v_dim for PEER. dtype: float32 or bfloat16.
    sparse: what `values.grad` becomes. False: a dense tensor, for any optimizer and torch.compile.
    True: a sparse COO tensor of the touched rows, for torch.optim.SparseAdam; then a step costs
    what the touched rows cost, not what the pool costs.
    Rows start normal with std init_std, by default width^-0.5.
    """

    def __init__(
        self,
        n_keys: int = 128,
        width: int = 256,
        *,
        dtype: torch.dtype = torch.float32,
        sparse: bool = False,
        init_std: float | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if n_keys < 1 or width < 1:
            raise ValueError(
                f"MemoryPool: expected n_keys and width >= 1, got {n_keys} and {width}"
            )
        if dtype not in (torch.float32, torch.bfloat16):
            raise TypeError(f"MemoryPool: expected dtype float32 or bfloat16, got {dtype}")
        self.n_keys = n_keys
        self.width = width
        self.sparse = sparse
        self.init_std = width**-0.5 if init_std is None else init_std
        self.values = nn.Parameter(torch.empty(n_keys * n_keys, width, dtype=dtype, device=device))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all rows anew from torch's global generator."""
        nn.init.normal_(self.values, std=self.init_std)

    @property
    def slots(self) -> int:
        """How many rows there are."""
        return self.n_keys * self.n_keys

    def gather(self, slots: Tensor, weights: Tensor) -> Tensor:
        """The weighted sum of rows; see memlayers.gather."""
        return ops.gather(self.values, slots, weights, self.sparse)

    def peer_gather(self, x: Tensor, slots: Tensor, weights: Tensor) -> Tensor:
        """PEER's weighted sum; see memlayers.peer_gather."""
        return ops.peer_gather(self.values, x, slots, weights, self.sparse)

    def insert(
        self,
        query: Tensor,
        value: Tensor,
        layer: "MemoryLayer",
        head: int | None = None,
        *,
        only_free: bool = False,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> int:
        """Writes a row where `layer` will look it up for `query`; returns its slot.

        Of the slots that the query reads it takes the free one with the greatest weight: a slot is
        free when its row is all zeros. Where none is free, the one with the greatest weight of all
        is overwritten; with only_free that is a ValueError. query: as for MemoryLayer.candidates.
        optimizer: what it remembers of the row is set to zero. All other rows keep their bits.
        """
        _check_row(value, self.width)
        if not value.any():
            raise ValueError("insert: expected a row that is not all zeros, which mean a free slot")
        slot = choose_slot(
            layer.candidates(query, head), lambda slots: self.values.detach()[slots], only_free
        )
        self.update(slot, value, optimizer=optimizer)
        return slot

    @torch.no_grad()
    def update(
        self, slot: int, row: Tensor, *, optimizer: torch.optim.Optimizer | None = None
    ) -> None:
        """Replaces one row. Raises ValueError for its shape or numbers, IndexError for the slot."""
        _check_row(row, self.width)
        if not 0 <= slot < self.slots:
            raise IndexError(f"update: expected a slot in [0, {self.slots}), got {slot}")
        self.values[slot] = row.to(self.values)
        if optimizer is None:
            return
        for state in optimizer.state.get(self.values, {}).values():
            if isinstance(state, Tensor) and state.shape == self.values.shape:
                state[slot] = 0

    def erase(self, slot: int, *, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Frees a slot: it reads as zero, and insert takes it first."""
        self.update(slot, torch.zeros(self.width), optimizer=optimizer)

    @classmethod
    def from_slots(cls, values: Tensor, *, sparse: bool = False) -> "MemoryPool":
        """A pool that takes the table [n^2, width], in shell order, as its own, without a copy."""
        n_keys = _side_of(values, "from_slots")
        pool = cls(n_keys, values.size(1), dtype=values.dtype, sparse=sparse, device="meta")
        pool.values = nn.Parameter(values.detach())
        return pool

    @classmethod
    def from_row_major(cls, values: Tensor, *, sparse: bool = False) -> "MemoryPool":
        """A pool of a table [n^2, width] whose row i * n + j is cell (i, j)."""
        shell = shell_slots(_side_of(values, "from_row_major")).to(values.device)
        return cls.from_slots(
            torch.empty_like(values).index_copy_(0, shell, values.detach()), sparse=sparse
        )

    def to_row_major(self) -> Tensor:
        """A copy [n^2, width] of the rows in which row i * n + j is cell (i, j)."""
        return self.values.detach()[shell_slots(self.n_keys).to(self.values.device)]

    def forward(self, slots: Tensor, weights: Tensor) -> Tensor:
        return self.gather(slots, weights)

    def extra_repr(self) -> str:
        dtype = str(self.values.dtype).removeprefix("torch.")
        return f"n_keys={self.n_keys}, width={self.width}, dtype={dtype}, sparse={self.sparse}"


def _side_of(values: Tensor, function: str) -> int:
    side = isqrt(values.size(0)) if values.dim() == 2 else 0
    if side < 1 or side * side != values.size(0):
        raise ValueError(
            f"MemoryPool.{function}: expected values [n^2, width], got {list(values.shape)}"
        )
    return side


def choose_slot(slots: Tensor, read: Callable[[Tensor], Tensor], only_free: bool) -> int:
    """The first of `slots` whose row is all zeros, else the first of all."""
    is_free = ~read(slots).bool().any(1)
    if only_free and not is_free.any():
        raise ValueError(
            f"insert: expected a free slot among the {len(slots)} of the lookup, found none"
        )
    return int(slots[int(is_free.int().argmax())])


def _check_row(row: Tensor, width: int) -> None:
    if list(row.shape) != [width]:
        raise ValueError(f"MemoryPool: expected a row [{width}], got {list(row.shape)}")
    if not row.isfinite().all():
        raise ValueError("MemoryPool: expected a row of finite numbers, got NaN or infinity")
