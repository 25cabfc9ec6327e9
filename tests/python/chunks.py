# SPDX-License-Identifier: Apache-2.0
"""Chunk files as docs/formats.md has them, by another writer, and with any field wrong."""

import ctypes
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

_XXHASH = ctypes.CDLL("libxxhash.so.0")
_XXHASH.XXH3_64bits.restype = ctypes.c_uint64
_XXHASH.XXH3_64bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
_BLOCK = 65536


def xxh3(data: bytes) -> int:
    return _XXHASH.XXH3_64bits(data, len(data))


def bytes_of(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def write(path: Path, rows: Tensor, /, keep: tuple[str, ...] = (), **fields: str) -> None:
    """Rows padded to 64 bytes, with these fields; checksums are right but for those in `keep`."""
    pad = -rows.size(1) % (64 // rows.element_size())
    padded = torch.nn.functional.pad(rows, (0, pad))
    data = bytes_of(padded)
    sums = torch.tensor(
        [xxh3(data[at : at + _BLOCK]) for at in range(0, len(data), _BLOCK)], dtype=torch.uint64
    )
    metadata = {
        "format": "memlayers-chunk",
        "version": "1",
        "features": "0",
        "byte_order": "little",
        "generation": "0",
        "rows": str(len(rows)),
        "width": str(rows.size(1)),
        "dtype": str(rows.dtype).removeprefix("torch."),
        "digest": f"{xxh3(bytes_of(sums)):016x}",
        **fields,
    }
    if "header_xxh3" not in keep:
        lines = "".join(f"{name}={metadata[name]}\n" for name in sorted(metadata))
        metadata["header_xxh3"] = f"{xxh3(lines.encode()):016x}"
    if "xxh3" in keep:
        sums = torch.zeros_like(sums)
    save_file({"rows": padded, "xxh3": sums}, path, metadata)
