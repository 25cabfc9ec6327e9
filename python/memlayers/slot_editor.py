# SPDX-License-Identifier: Apache-2.0
"""Single rows of a layer's pool, read and written where a lookup finds them."""

import torch
from torch import Tensor

from ._arguments import slot_number, tensor
from .memory_layer import MemoryLayer
from .pool_folder import PoolFolder


class SlotEditor:
    """Edits single slots of the pool that `layer` reads: of its rows in memory, or on the disk.

    store: the pool's folder, where rows are read and written instead; `layer` is then one of
    load_layers(folder), and its rows in memory stay as they are. optimizer: what it remembers of an
    edited row is set to zero. A slot is free when its row is all zeros. All other rows keep their
    bits. Methods raise ValueError for a row's shape or numbers, IndexError for a slot outside the
    pool, TypeError for other types, Error where the store's files cannot be read or written.
    """

    def __init__(
        self,
        layer: MemoryLayer,
        store: PoolFolder | None = None,
        *,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        if store is not None and optimizer is not None:
            raise ValueError("SlotEditor: expected a store or an optimizer, got both")
        self.layer, self.store, self.optimizer = layer, store, optimizer

    def rows(self, slots: Tensor) -> Tensor:
        """The rows of slots [n]: [n, width] float32."""
        if self.store is not None:
            return self.store.rows(slots)
        self.layer.pool.catch_up()
        return self.layer.pool.values.detach()[tensor("rows", "slots", slots)].float()

    def row(self, slot: int) -> Tensor:
        """The row of one slot: [width] float32."""
        number = slot_number("row", slot)
        if not 0 <= number < self.layer.pool.slots:
            raise IndexError(f"row: expected a slot in [0, {self.layer.pool.slots}), got {number}")
        return self.rows(torch.tensor([number]))[0]

    def is_free(self, slot: int) -> bool:
        """Whether a row is all zeros."""
        return not self.row(slot).any()

    def insert(
        self, query: Tensor, row: Tensor, *, head: int | None = None, only_free: bool = False
    ) -> int:
        """Writes a row where the layer will look it up for `query`; returns its slot.

        Of the slots that the query reads it takes the free one with the greatest weight. Where none
        is free, the one with the greatest weight of all is overwritten; with only_free that is a
        ValueError. query: as for MemoryLayer.candidates.
        """
        if not tensor("insert", "row", row).any():
            raise ValueError("insert: expected a row that is not all zeros, which mean a free slot")
        slots = self.layer.candidates(query, head).cpu()
        is_free = ~self.rows(slots).bool().any(1)
        if only_free and not is_free.any():
            raise ValueError(
                f"insert: expected a free slot among the {len(slots)} of the lookup, found none"
            )
        slot = int(slots[int(is_free.int().argmax())])
        self.update(slot, row)
        return slot

    def update(self, slot: int, row: Tensor) -> None:
        """Replaces one row."""
        if self.store is not None:
            self.store.update(slot, row)
        else:
            self.layer.pool.update(slot, row, optimizer=self.optimizer)

    def erase(self, slot: int) -> None:
        """Frees a slot: it reads as zero, and insert takes it first."""
        if self.store is not None:
            self.store.erase(slot)
        else:
            self.layer.pool.erase(slot, optimizer=self.optimizer)
