# SPDX-License-Identifier: Apache-2.0
"""Edits of single slots of a model folder's pool, durable and seen by running readers."""

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .memory_layer import MemoryLayer
from .memory_pool import choose_slot
from .model_folder import Error

_T = TypeVar("_T")


class PoolFolder:
    """The pool of a model folder, edited slot by slot through its store.

    Each edit is a patch of one row: durable when the call returns, seen by the next request of every
    process that serves the model, and listed and rolled back by `memlayers patch`. `patches` has the
    ids of those made here. Raises Error where the files are not what they should be, or another
    writer has the pool; ValueError and IndexError as MemoryPool.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self._place = str(Path(folder) / "pool")
        self.patches: list[str] = []

    @property
    def id(self) -> str:
        """Names the pool: a patch is for one."""
        for chunk in Path(self._place).glob("chunk-*.safetensors"):
            try:
                with safe_open(chunk, "pt") as file:
                    return file.metadata()["pool"]
            except (OSError, SafetensorError, KeyError, TypeError) as error:
                raise Error(f"{chunk}: expected a chunk of a pool, got {error}") from error
        raise Error(f"{self._place}: expected files chunk-*.safetensors, found none")

    def rows(self, slots: Tensor) -> Tensor:
        """The rows of slots [n], as they are read now: [n, width] float32."""
        return _told(lambda: torch.ops.memlayers.read_store_rows(self._place, slots.cpu()))

    def insert(
        self,
        query: Tensor,
        value: Tensor,
        layer: MemoryLayer,
        head: int | None = None,
        *,
        only_free: bool = False,
    ) -> int:
        """MemoryPool.insert into the files; `layer` is one of load_memory(folder)."""
        if not value.any():
            raise ValueError("insert: expected a row that is not all zeros, which mean a free slot")
        slot = choose_slot(layer.candidates(query, head).cpu(), self.rows, only_free)
        self.update(slot, value)
        return slot

    def update(self, slot: int, row: Tensor) -> None:
        """Replaces one row; of a pool in few bits it is quantized."""
        self.patches.append(
            _told(lambda: torch.ops.memlayers.write_store_row(self._place, slot, row.detach()))
        )

    def erase(self, slot: int) -> None:
        """Frees a slot: it reads as zero, and insert takes it first."""
        row = self.rows(torch.tensor([slot]))[0]
        if row.any():
            self.update(slot, torch.zeros_like(row))


def _told(act: Callable[[], _T]) -> _T:
    try:
        return act()
    except RuntimeError as error:  # ValueError and IndexError of the library pass as they are
        raise Error(str(error).split("\n")[0]) from error
