# SPDX-License-Identifier: Apache-2.0
"""Patch files (docs/formats.md): what `memlayers patch apply` writes into a model's pool."""

import uuid
from dataclasses import dataclass, field
from os import PathLike

import torch
from torch import Tensor

from ._arguments import path_of, tensor, told


@dataclass
class Patch:
    """Rows to write into a pool, slots to free, and sub-keys of the layers that read it."""

    pool: str  # the id of the pool: PoolFolder.id
    slots: Tensor  # [n] integers, each once
    rows: Tensor  # [n, width] float32 or bfloat16, as the pool has them
    erased: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))  # [m]
    # Layer, head, half (0: of the grid's rows, 1: of its columns) and number of sub-keys: [k, 4]
    # integers, each once; and the sub-keys, [k, k_dim / 2] float32.
    key_places: Tensor = field(default_factory=lambda: torch.empty(0, 4, dtype=torch.int64))
    keys: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    notes: dict[str, str] = field(default_factory=dict)  # what it teaches, when, from what
    # Of what the patch teaches, as docs/formats.md has it; empty: nobody said.
    subjects: bytes = b""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


def write_patch(path: str | PathLike[str], patch: Patch) -> None:
    """Writes a patch file, whole or not at all; slots and sub-keys stand there in ascending order.

    Raises ValueError for shapes and numbers that no pool takes, TypeError for other types, Error
    where the file cannot be written.
    """
    place = path_of("write_patch", path)
    texts = [("id", patch.id), ("pool", patch.pool)]
    texts += [(f"note {name!r}", text) for name, text in patch.notes.items()]
    texts += [("the name of a note", name) for name in patch.notes]
    for name, text in texts:
        if not isinstance(text, str):
            raise TypeError(f"write_patch: expected {name} as a str, got {type(text).__name__}")
    names = ("slots", "rows", "erased", "key_places", "keys")
    tensors = [tensor("write_patch", name, getattr(patch, name)) for name in names]
    if not isinstance(patch.subjects, bytes):
        raise TypeError(
            f"write_patch: expected subjects as bytes, got {type(patch.subjects).__name__}"
        )
    subjects = torch.tensor(list(patch.subjects), dtype=torch.uint8)
    told(
        lambda: torch.ops.memlayers.write_patch(
            place, patch.id, patch.pool, *tensors, patch.notes, subjects
        )
    )


def read_patch(path: str | PathLike[str]) -> Patch:
    """Reads a patch file, slots and sub-keys in ascending order; `memlayers patch apply` checks
    whether it fits a pool. Raises Error."""
    place = path_of("read_patch", path)
    id, pool, slots, rows, erased, key_places, keys, notes, subjects = told(
        lambda: torch.ops.memlayers.read_patch(place)
    )
    return Patch(
        pool=pool,
        slots=slots,
        rows=rows,
        erased=erased,
        key_places=key_places,
        keys=keys,
        notes=dict(notes),
        subjects=bytes(subjects.tolist()),
        id=id,
    )
