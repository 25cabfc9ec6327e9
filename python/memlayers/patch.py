# SPDX-License-Identifier: Apache-2.0
"""Patch files (docs/store.md): what `memlayers patch apply` writes into a model's pool."""

import os
import uuid
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .model_folder import Error

_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass
class Patch:
    """Rows to write into a pool, slots to free, and sub-keys of the layers that read it."""

    pool: str  # the id of the pool: PoolFolder.id
    slots: Tensor  # [n] int64, each once
    rows: Tensor  # [n, width] float32 or bfloat16, as the pool has them
    erased: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))  # [m]
    # Layer, head, half (0: of the grid's rows, 1: of its columns) and number of sub-keys: [k, 4]
    # int64, each once; and the sub-keys, [k, k_dim / 2] float32.
    key_places: Tensor = field(default_factory=lambda: torch.empty(0, 4, dtype=torch.int64))
    keys: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    notes: dict[str, str] = field(default_factory=dict)  # what it teaches, when, from what
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


def write_patch(path: str | PathLike[str], patch: Patch) -> None:
    """Writes a patch file, whole or not at all. Raises ValueError for shapes that do not fit."""
    names = [name for name, type in _TYPES.items() if type == patch.rows.dtype]
    if not names or patch.rows.ndim != 2 or patch.slots.shape != patch.rows.shape[:1]:
        raise ValueError(
            f"write_patch: expected rows [n, width] float32 or bfloat16 for slots [n], got rows "
            f"{list(patch.rows.shape)} {patch.rows.dtype} for slots {list(patch.slots.shape)}"
        )
    has_keys = len(patch.key_places) > 0
    if patch.key_places.shape != (len(patch.keys), 4) or patch.keys.ndim != 2:
        raise ValueError(
            f"write_patch: expected key_places [k, 4] for keys [k, k_dim / 2], got "
            f"{list(patch.key_places.shape)} for {list(patch.keys.shape)}"
        )
    tensors = {"slots": patch.slots.long(), "rows": patch.rows, "erased": patch.erased.long()}
    if has_keys:
        tensors |= {"key_places": patch.key_places.long(), "keys": patch.keys.float()}
    metadata = {
        "format": "memlayers-patch",
        "version": "2" if has_keys else "1",
        "patch": patch.id,
        "pool": patch.pool,
        "width": str(patch.rows.shape[1]),
        "dtype": names[0],
    }
    metadata |= {f"note.{name}": text for name, text in patch.notes.items()}
    place = Path(path)
    temporary = place.with_name(place.name + ".tmp")
    save_file({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, temporary, metadata)
    os.replace(temporary, place)


def read_patch(path: str | PathLike[str]) -> Patch:
    """Reads a patch file; `memlayers patch apply` checks what is in it. Raises Error."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError) as error:
        raise Error(f"{path}: expected a safetensors file, got {error}") from error
    if metadata.get("format") != "memlayers-patch" or metadata.get("version") not in ("1", "2"):
        raise Error(
            f"{path}: expected a memlayers-patch of version 1 or 2, got {metadata.get('format')} "
            f"{metadata.get('version')}"
        )
    if metadata.get("dtype") not in _TYPES:
        raise Error(
            f"{path}: metadata dtype: expected float32 or bfloat16, got {metadata.get('dtype')!r}"
        )
    try:
        required = {name: tensors.pop(name) for name in ("slots", "rows")}
        known = {n: tensors[n] for n in ("erased", "key_places", "keys") if n in tensors}
        notes = {n[5:]: text for n, text in metadata.items() if n.startswith("note.")}
        return Patch(
            pool=metadata["pool"], id=metadata["patch"], notes=notes, **required, **known
        )
    except KeyError as error:
        raise Error(f"{path}: expected {error}, found none") from error
