# SPDX-License-Identifier: Apache-2.0
"""Edits of single slots of a model folder's pool, durable and seen by running readers."""

from os import PathLike, path

import torch
from torch import Tensor

from ._arguments import path_of, slot_number, tensor, told


class PoolFolder:
    """The pool of a model folder, edited slot by slot through its store.

    Each edit is a patch of one row: durable when the call returns, seen by the next request of every
    process that serves the model, and listed and rolled back by `memlayers patch`. `patches` has the
    ids of those made here. Raises Error where the files are not what they should be, or another
    writer has the pool; ValueError and IndexError as MemoryPool.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self._place = path.join(path_of("PoolFolder", folder), "pool")
        self.patches: list[str] = []

    @property
    def id(self) -> str:
        """Names the pool: a patch is for one."""
        name: str = told(lambda: torch.ops.memlayers.pool_id(self._place))
        return name

    def rows(self, slots: Tensor) -> Tensor:
        """The rows of slots [n], as they are read now: [n, width] float32."""
        numbers = tensor("rows", "slots", slots).cpu()
        rows: Tensor = told(lambda: torch.ops.memlayers.read_pool_rows(self._place, numbers))
        return rows

    def update(self, slot: int, row: Tensor) -> None:
        """Replaces one row; of a pool in few bits it is quantized."""
        number, numbers = slot_number("update", slot), tensor("update", "row", row)
        self.patches.append(
            told(lambda: torch.ops.memlayers.write_pool_row(self._place, number, numbers))
        )

    def erase(self, slot: int) -> None:
        """Frees a slot: it reads as zero, and SlotEditor.insert takes it first."""
        row = self.rows(torch.tensor([slot_number("erase", slot)]))[0]
        if row.any():
            self.update(slot, torch.zeros_like(row))

