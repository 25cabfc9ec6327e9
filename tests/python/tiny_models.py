# SPDX-License-Identifier: Apache-2.0
"""Random models of transformers, small enough for a test."""

import os
import subprocess
from pathlib import Path

import pytest
import torch

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed (make dev-dependencies)"
)
transformers.logging.set_verbosity_error()

VOCAB, DIM = 96, 32
_COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": DIM,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}
_GATED = {**_COMMON, "intermediate_size": 48, "num_key_value_heads": 2}
# Configuration class, its fields, and a pattern of the feed-forward blocks.
ARCHITECTURES = {
    "llama": ("LlamaConfig", _GATED, "model.layers.{0,2}.mlp"),
    "qwen3": ("Qwen3Config", {**_GATED, "head_dim": 8}, "model.layers.*.mlp"),
    "mistral": ("MistralConfig", _GATED, "model.layers.{0,2}.mlp"),
    "gemma3": (
        "Gemma3TextConfig",
        {**_GATED, "head_dim": 8, "pad_token_id": 0, "sliding_window": 16},
        "model.layers.{0,2}.mlp",
    ),
    "phi3": ("Phi3Config", _GATED, "model.layers.{0,2}.mlp"),
    "gpt2": (
        "GPT2Config",
        {
            "vocab_size": VOCAB,
            "n_embd": DIM,
            "n_layer": 3,
            "n_head": 4,
            "n_positions": 64,
            "bos_token_id": 0,
            "eos_token_id": 1,
        },
        "transformer.h.{0,2}.mlp",
    ),
    "gpt_neox": (
        "GPTNeoXConfig",
        {**_COMMON, "intermediate_size": 48},
        "gpt_neox.layers.{0,2}.mlp",
    ),
    "olmo2": ("Olmo2Config", _GATED, "model.layers.{0,2}.mlp"),
    "qwen2": ("Qwen2Config", _GATED, "model.layers.{0,2}.mlp"),
    "smollm3": ("SmolLM3Config", _GATED, "model.layers.{0,2}.mlp"),
}


def tiny(name: str, **fields) -> "transformers.PreTrainedModel":
    """A model in evaluation mode, its matrices large enough that logits differ."""
    kind, given, _ = ARCHITECTURES[name]
    config = getattr(transformers, kind)(**{**given, **fields})
    torch.manual_seed(11)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
    return model.eval()


def pattern(name: str) -> str:
    return ARCHITECTURES[name][2]


def tokens(rows: int = 2, length: int = 9) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(2, VOCAB, (rows, length), generator=generator)


@torch.no_grad()
def logits(model, ids: torch.Tensor) -> torch.Tensor:
    return model(ids, use_cache=False).logits


def smollm2() -> "transformers.PreTrainedModel":
    """The real SmolLM2-135M in float32; skips where it is not."""
    folder = os.environ.get("MEMLAYERS_SMOLLM2", "")
    if os.path.isfile(os.path.join(folder, "model.safetensors")):
        return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    script = Path(__file__).resolve().parents[2] / "scripts" / "fetch_smollm2.sh"
    if not script.is_file():
        pytest.skip("SmolLM2 is not here (scripts/fetch_smollm2.sh, or MEMLAYERS_SMOLLM2=FOLDER)")
    pytest.importorskip("gguf", reason="gguf is not installed (make dev-dependencies)")
    told = subprocess.run([script], capture_output=True, text=True, check=False)
    if told.returncode != 0:
        pytest.skip(f"fetch_smollm2.sh: {told.stderr.strip().splitlines()[-1:]}")
    file = Path(told.stdout.strip())
    return transformers.AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )
