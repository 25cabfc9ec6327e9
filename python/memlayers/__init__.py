# SPDX-License-Identifier: Apache-2.0
"""Memory layers for PyTorch: a large, sparse table of values that any decoder can read.

Importing this package loads libmemlayers, which registers torch.ops.memlayers.*.
"""

from ._library import load_library

load_library()

from ._arguments import Error  # noqa: E402
from .adapter import add_memory, freeze_backbone, memory_layers, remove_memory  # noqa: E402
from .adapter_folder import load_memory, save_memory  # noqa: E402
from .distributed import share_pool  # noqa: E402
from .factored import FactoredGradient, factored_grad  # noqa: E402
from .generator import Generation, Generator, MemoryConfidence, TokenLogprobs, Tokenizer  # noqa: E402
from .grid import cell_of, shell_slots, slot_of  # noqa: E402
from .joint_optimizer import JointOptimizer  # noqa: E402
from .memory_layer import MemoryLayer  # noqa: E402
from .memory_pool import MemoryPool  # noqa: E402
from .model_folder import load_layers, load_pool  # noqa: E402
from .ops import gather, lookup, lookup_softmax, peer_gather  # noqa: E402
from .patch import Patch, read_patch, write_patch  # noqa: E402
from .pool_folder import PoolFolder  # noqa: E402
from .row_optimizer import RowOptimizer  # noqa: E402
from .slot_editor import SlotEditor  # noqa: E402
from .store import Committed, PatchInfo, Store  # noqa: E402
from .verbs import (  # noqa: E402
    ExplainedSlot,
    Explanation,
    Grown,
    Learned,
    LearnProgress,
    SlotRead,
    explain,
    grow,
    learn,
)

__version__ = "0.1.0"

__all__ = [
    "Committed",
    "Error",
    "ExplainedSlot",
    "Explanation",
    "FactoredGradient",
    "Generation",
    "Generator",
    "Grown",
    "JointOptimizer",
    "LearnProgress",
    "Learned",
    "MemoryConfidence",
    "MemoryLayer",
    "MemoryPool",
    "Patch",
    "PatchInfo",
    "PoolFolder",
    "RowOptimizer",
    "SlotEditor",
    "SlotRead",
    "Store",
    "TokenLogprobs",
    "Tokenizer",
    "add_memory",
    "cell_of",
    "explain",
    "factored_grad",
    "freeze_backbone",
    "gather",
    "grow",
    "learn",
    "load_layers",
    "load_memory",
    "load_pool",
    "lookup",
    "lookup_softmax",
    "memory_layers",
    "peer_gather",
    "read_patch",
    "remove_memory",
    "save_memory",
    "share_pool",
    "shell_slots",
    "slot_of",
    "write_patch",
]
