# SPDX-License-Identifier: Apache-2.0
"""The value rows that the memory layers of a model share."""

from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from . import lagging, ops
from ._arguments import slot_number, tensor
from .factored import factored_gather, factored_peer_gather
from .grid import shell_slots


class MemoryPool(nn.EmbeddingBag):
    """A table of n_keys^2 value rows; one parameter, `values` [n_keys^2, width], in shell order.

    width: v_dim of the layers, or dim + v_dim for PEER. dtype: float32 or bfloat16.
    sparse: what `values.grad` becomes. False: a dense tensor, for any optimizer and torch.compile.
    True: a sparse COO tensor of the touched rows, for torch.optim.SparseAdam; then a step costs
    what the touched rows cost, not what the pool costs.
    factored: no `values.grad` at all, but what would make it, for RowOptimizer; the fastest (not under
    torch.compile, which leaves its graph here).
    Rows start normal with std init_std, by default width^-0.5. id: names a pool that came from files,
    so that patches made for it fit it when it is saved again; None: a new one.

    An nn.EmbeddingBag by what it computes, and by its type because that is where
    DistributedDataParallel looks whether a parameter's gradient is sparse; nothing else of it.
    """

    __constants__: list[str] = []

    def __init__(
        self,
        n_keys: int = 128,
        width: int = 256,
        *,
        dtype: torch.dtype = torch.float32,
        sparse: bool = False,
        factored: bool = False,
        init_std: float | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        nn.Module.__init__(self)
        if n_keys < 1 or width < 1:
            raise ValueError(
                f"MemoryPool: expected n_keys and width >= 1, got {n_keys} and {width}"
            )
        if dtype not in (torch.float32, torch.bfloat16):
            raise TypeError(f"MemoryPool: expected dtype float32 or bfloat16, got {dtype}")
        self.n_keys = n_keys
        self.width = width
        if sparse and factored:
            raise ValueError("MemoryPool: expected sparse or factored, got both")
        self.sparse, self.factored = sparse, factored
        self.init_std = width**-0.5 if init_std is None else init_std
        self.id: str | None = None
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
        if lagging.are_used:
            lagging.catch_up(self.values, slots)
        if self._records():
            recorded: Tensor = factored_gather(self.values, slots, weights)
            return recorded
        return ops.gather(self.values, slots, weights, self.sparse)

    def peer_gather(self, x: Tensor, slots: Tensor, weights: Tensor) -> Tensor:
        """PEER's weighted sum; see memlayers.peer_gather."""
        if lagging.are_used:
            lagging.catch_up(self.values, slots)
        if self._records():
            recorded: Tensor = factored_peer_gather(self.values, x, slots, weights)
            return recorded
        return ops.peer_gather(self.values, x, slots, weights, self.sparse)

    def catch_up(self) -> None:
        """All rows are what an optimizer of kind dense_adamw owes them: before `values` is read."""
        lagging.catch_up(self.values)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        self.catch_up()
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        self.catch_up()  # what is loaded owes nothing
        super()._load_from_state_dict(*arguments)

    def __getstate__(self) -> dict[str, Any]:  # of copies and pickles
        self.catch_up()
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        return state

    def _records(self) -> bool:
        return self.factored and torch.is_grad_enabled() and self.values.requires_grad

    @torch.no_grad()
    def update(
        self, slot: int, row: Tensor, *, optimizer: torch.optim.Optimizer | None = None
    ) -> None:
        """Replaces one row. Raises ValueError for its shape or numbers, IndexError for the slot.

        optimizer: what it remembers of the row is set to zero. All other rows keep their bits.
        """
        _check_row(row, self.width)
        slot = slot_number("update", slot)
        if not 0 <= slot < self.slots:
            raise IndexError(f"update: expected a slot in [0, {self.slots}), got {slot}")
        self.catch_up()
        self.values[slot] = row.to(self.values)
        if optimizer is None:
            return
        for state in optimizer.state.get(self.values, {}).values():
            if isinstance(state, Tensor) and state.shape == self.values.shape:
                state[slot] = 0

    def erase(self, slot: int, *, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Frees a slot: it reads as zero, and SlotEditor.insert takes it first."""
        self.update(slot, torch.zeros(self.width), optimizer=optimizer)

    @classmethod
    def from_slots(
        cls, values: Tensor, *, sparse: bool = False, factored: bool = False
    ) -> "MemoryPool":
        """A pool that takes the table [n^2, width], in shell order, as its own, without a copy."""
        n_keys = _side_of(values, "from_slots")
        pool = cls(
            n_keys,
            values.size(1),
            dtype=values.dtype,
            sparse=sparse,
            factored=factored,
            device="meta",
        )
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
        self.catch_up()
        return self.values.detach()[shell_slots(self.n_keys).to(self.values.device)]

    def forward(self, slots: Tensor, weights: Tensor) -> Tensor:  # type: ignore[override]
        return self.gather(slots, weights)

    def extra_repr(self) -> str:
        dtype = str(self.values.dtype).removeprefix("torch.")
        return (
            f"n_keys={self.n_keys}, width={self.width}, dtype={dtype}, sparse={self.sparse}, "
            f"factored={self.factored}"
        )


def _side_of(values: Tensor, function: str) -> int:
    side = isqrt(values.size(0)) if values.dim() == 2 else 0
    if side < 1 or side * side != values.size(0):
        raise ValueError(
            f"MemoryPool.{function}: expected values [n^2, width], got {list(values.shape)}"
        )
    return side


def _check_row(row: Tensor, width: int) -> None:
    tensor("MemoryPool", "row", row)
    if list(row.shape) != [width]:
        raise ValueError(f"MemoryPool: expected a row [{width}], got {list(row.shape)}")
    if not row.isfinite().all():
        raise ValueError("MemoryPool: expected a row of finite numbers, got NaN or infinity")
