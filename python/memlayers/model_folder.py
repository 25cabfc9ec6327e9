# SPDX-License-Identifier: Apache-2.0
"""Reads the memory of a model folder (docs/formats.md): its pool and its memory layers.

Checks shapes, order and completeness of what it reads. It does not recompute the rows' checksums:
`memlayers inspect` does.
"""

import json
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .memory_layer import MemoryLayer
from .memory_pool import MemoryPool

_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_PREFIX = "model.layers."
_ARGUMENTS = (
    "n_keys",
    "heads",
    "knn",
    "k_dim",
    "v_dim",
    "variant",
    "value_proj",
    "qk_norm",
    "gate",
)


class Error(RuntimeError):
    """A file is not what it should be; one sentence that names it, what was found and wanted."""


def load_pool(folder: str | PathLike[str]) -> Tensor:
    """The pool's rows [n_keys^2, width] in shell order, from pool/chunk-*.safetensors of `folder`.

    With the patches that were applied to it. MemoryPool.from_slots(load_pool(folder)) makes a pool
    of them. Raises Error.
    """
    return _read_pool(folder)[0]


def _read_pool(folder: str | PathLike[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Of one version the rows, and the sub-keys that patches write: places [m, 4] and numbers."""
    place = Path(folder) / "pool"
    if (place / "CURRENT").exists():  # was edited: the store's log says what holds
        try:
            return torch.ops.memlayers.read_store(str(place))
        except RuntimeError as error:
            raise Error(str(error).split("\n")[0]) from error
    chunks = sorted(map(_Chunk, place.glob("chunk-*.safetensors")), key=lambda chunk: chunk.first)
    if not chunks:
        raise Error(f"{place}: expected files chunk-*.safetensors, found none")
    head, next_row = chunks[0], 0
    for chunk in chunks:
        if chunk.pool != head.pool:
            raise Error(f"{chunk.path}: expected a chunk of pool {head.pool}, got {chunk.pool}")
        if chunk.first != next_row:
            raise Error(
                f"{chunk.path}: expected a chunk that begins at row {next_row}, got one at row "
                f"{chunk.first}: a chunk is missing or there twice"
            )
        next_row += chunk.rows
    if next_row != head.total_rows:
        raise Error(f"{place}: expected {head.total_rows} rows, got {next_row}: a chunk is missing")
    values = torch.empty(head.total_rows, head.width, dtype=_TYPES[head.dtype])
    for chunk in chunks:
        rows = values[chunk.first : chunk.first + chunk.rows]
        rows.copy_(chunk.read())
        if not rows.float().sum().isfinite() and not rows.isfinite().all():
            raise Error(f"{chunk.path}: expected finite rows, got NaN or infinity")
    return values, torch.empty(0, 4, dtype=torch.int64), torch.empty(0, 0)


def load_memory(folder: str | PathLike[str], *, sparse: bool = False) -> dict[int, MemoryLayer]:
    """The memory layers of a model folder by layer number, in evaluation mode, over one pool.

    sparse: of the pool's gradient; see MemoryPool. Raises Error.
    """
    path = Path(folder) / "config.json"
    config = _read_json(path)
    extra = config.get("memlayers")
    memory = extra.get("memory") if isinstance(extra, dict) else None
    if not isinstance(memory, dict):
        raise Error(f"{path}: expected a model with memory, found no memlayers.memory")
    weights = _read_memory_weights(Path(folder))
    values, places, numbers = _read_pool(folder)
    for index, state in weights.items():
        mine = places[:, 0] == index
        if not mine.any():
            continue
        head, half, number = places[mine, 1:].unbind(1)
        try:
            keys = state["keys"]
            keys[head, half, number] = numbers[mine].to(keys.dtype)
        except (IndexError, KeyError, RuntimeError) as error:
            raise Error(f"{folder}: patches of sub-keys do not fit layer {index}: {error}") from error
    # Of a memory that has grown and was not trained since, only these are looked up; the slots of
    # the smaller grid are the first ones.
    n_open = memory.get("open_keys")
    if n_open is not None:
        memory = {**memory, "n_keys": n_open}
        values = values[: n_open * n_open]
        for state in weights.values():
            state["keys"] = state["keys"][:, :, :n_open]
    layers = {}
    try:
        pool = MemoryPool.from_slots(values, sparse=sparse)
        for index in memory["layers"]:
            layer = MemoryLayer(
                config["hidden_size"], pool=pool, **{name: memory[name] for name in _ARGUMENTS}
            )
            state = {**weights.get(index, {}), "pool.values": pool.values}
            layer.load_state_dict(state, assign=True)  # keeps the stored type, and one pool
            layers[index] = layer.eval()
    except KeyError as error:
        raise Error(f"{path}: expected a field {error}, found none") from error
    except (RuntimeError, TypeError, ValueError) as error:
        raise Error(f"{path}: the weights beside it do not fit: {error}") from error
    return layers


class _Chunk:
    """The head of one chunk file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                shape = file.get_slice("rows").get_shape()
        except (OSError, SafetensorError) as error:
            raise Error(f"{path}: expected a safetensors file with `rows`, got {error}") from error
        if (metadata.get("format"), metadata.get("version")) != ("memlayers-chunk", "1"):
            raise Error(
                f"{path}: expected a memlayers-chunk of version 1, got "
                f"{metadata.get('format')} {metadata.get('version')}"
            )
        try:
            self.first, self.rows = int(metadata["first_row"]), int(metadata["rows"])
            self.total_rows, self.width = int(metadata["total_rows"]), int(metadata["width"])
            self.dtype = metadata["dtype"]
            self.pool = f"{metadata['pool']} ({self.total_rows} rows of {self.width} {self.dtype})"
        except (KeyError, ValueError) as error:
            raise Error(f"{path}: metadata: expected a number or name, got {error}") from error
        if self.dtype not in _TYPES:
            raise Error(f"{path}: metadata dtype: expected float32 or bfloat16, got {self.dtype!r}")
        # A row is padded at its end, to whole cache lines.
        if len(shape) != 2 or shape[0] != self.rows or not 1 <= self.width <= shape[1]:
            raise Error(
                f"{path}: expected rows [{self.rows}, {self.width} or more] as the metadata say, "
                f"got {shape}"
            )

    def read(self) -> Tensor:
        with safe_open(self.path, "pt") as file:
            rows: Tensor = file.get_slice("rows")[:, : self.width]
        if rows.dtype != _TYPES[self.dtype]:
            raise Error(f"{self.path}: expected rows of type {self.dtype}, got {rows.dtype}")
        return rows


def _read_json(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Error(f"{path}: expected a JSON file, got {error}") from error
    if not isinstance(read, dict):
        raise Error(f"{path}: expected a JSON object, got {type(read).__name__}")
    return read


def _read_memory_weights(folder: Path) -> dict[int, dict[str, Tensor]]:
    """Tensors model.layers.N.memory.NAME as [N][NAME]."""
    index = folder / "model.safetensors.index.json"
    names = {"model.safetensors"}
    if index.is_file():
        names = set(_read_json(index).get("weight_map", {}).values())
    weights: dict[int, dict[str, Tensor]] = {}
    for name in sorted(names):
        try:
            with safe_open(folder / name, "pt") as file:
                for key in file.keys():
                    layer, memory, parameter = key.removeprefix(_PREFIX).partition(".memory.")
                    if key.startswith(_PREFIX) and memory and layer.isdigit():
                        weights.setdefault(int(layer), {})[parameter] = file.get_tensor(key)
        except (OSError, SafetensorError) as error:
            raise Error(f"{folder / name}: expected a safetensors file, got {error}") from error
    return weights
