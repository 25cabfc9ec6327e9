# SPDX-License-Identifier: Apache-2.0
"""Memory layers for PyTorch: a large, sparse table of values that any decoder can read.

Importing this package loads libmemlayers, which registers torch.ops.memlayers.*.
"""

from ._library import load_library

load_library()

from .grid import cell_of, shell_slots, slot_of  # noqa: E402
from .memory_layer import MemoryLayer  # noqa: E402
from .memory_pool import MemoryPool  # noqa: E402
from .model_folder import Error, load_memory, load_pool  # noqa: E402
from .ops import gather, lookup, lookup_softmax, peer_gather  # noqa: E402
from .patch import Patch, read_patch, write_patch  # noqa: E402
from .pool_folder import PoolFolder  # noqa: E402

__version__ = "0.1.0"

__all__ = [
    "Error",
    "MemoryLayer",
    "MemoryPool",
    "Patch",
    "PoolFolder",
    "cell_of",
    "gather",
    "load_memory",
    "load_pool",
    "lookup",
    "lookup_softmax",
    "peer_gather",
    "read_patch",
    "shell_slots",
    "slot_of",
    "write_patch",
]
