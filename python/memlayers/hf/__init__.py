# SPDX-License-Identifier: Apache-2.0
"""Model folders with memory in Hugging Face's transformers: `import memlayers.hf` and
AutoModelForCausalLM.from_pretrained(folder) opens what `memlayers train` saved; what
save_pretrained writes, the command opens. Needs transformers 5.
"""

try:
    import transformers
except ImportError as error:
    raise ImportError(
        "memlayers.hf: expected transformers 5, found none: pip install 'memlayers[hf]'"
    ) from error
if int(transformers.__version__.split(".")[0]) != 5:
    raise ImportError(f"memlayers.hf: expected transformers 5, got {transformers.__version__}")

from transformers import (  # noqa: E402
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
)

from .config import MemlayersConfig  # noqa: E402
from .merge import merge_memory  # noqa: E402
from .model import MemlayersForCausalLM, MemlayersModel  # noqa: E402
from .tokenizer import MemlayersTokenizer  # noqa: E402
from .trainer import MemoryTrainer  # noqa: E402

__all__ = [
    "MemlayersConfig",
    "MemlayersForCausalLM",
    "MemlayersModel",
    "MemlayersTokenizer",
    "MemoryTrainer",
    "merge_memory",
]

AutoConfig.register("memlayers", MemlayersConfig, exist_ok=True)
AutoModel.register(MemlayersConfig, MemlayersModel, exist_ok=True)
AutoModelForCausalLM.register(MemlayersConfig, MemlayersForCausalLM, exist_ok=True)
AutoTokenizer.register(MemlayersConfig, slow_tokenizer_class=MemlayersTokenizer, exist_ok=True)
