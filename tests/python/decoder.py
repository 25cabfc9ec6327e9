# SPDX-License-Identifier: Apache-2.0
"""A LLaMA decoder in a few lines of plain PyTorch, with memory layers where the folder has them."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from memlayers import load_layers


def logits(folder: Path, tokens: Tensor) -> Tensor:
    """Logits [T, vocab] of one sequence [T] by a saved model whose memory replaces feed-forward."""
    config = json.loads((folder / "config.json").read_text())
    w = load_file(folder / "model.safetensors")
    memory = load_layers(folder)
    heads, head_dim = config["num_attention_heads"], config["head_dim"]

    def norm(x: Tensor, name: str) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], w[name + ".weight"], config["rms_norm_eps"])

    exponent = torch.arange(0, head_dim, 2) / head_dim
    angle = torch.arange(len(tokens)).unsqueeze(1) / config["rope_theta"] ** exponent
    cos, sin = (torch.cat([f(angle)] * 2, 1) for f in (torch.cos, torch.sin))

    def rotate(x: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        return x * cos + torch.cat([-b, a], -1) * sin

    x = w["model.embed_tokens.weight"][tokens]  # [T, dim]
    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}."

        def project(name: str, x: Tensor) -> Tensor:  # [heads, T, head_dim]
            y = x @ w[f"{layer}self_attn.{name}.weight"].T
            return y.view(len(tokens), heads, head_dim).transpose(0, 1)

        y = norm(x, layer + "input_layernorm")
        mixed = F.scaled_dot_product_attention(
            rotate(project("q_proj", y)),
            rotate(project("k_proj", y)),
            project("v_proj", y),
            is_causal=True,
        )
        x = x + mixed.transpose(0, 1).flatten(1) @ w[f"{layer}self_attn.o_proj.weight"].T
        y = norm(x, layer + "post_attention_layernorm")
        if index in memory:
            x = x + memory[index](y)
        else:
            gate, up, down = (w[f"{layer}mlp.{n}_proj.weight"] for n in ("gate", "up", "down"))
            x = x + (F.silu(y @ gate.T) * (y @ up.T)) @ down.T
    head = w.get("lm_head.weight", w["model.embed_tokens.weight"])
    return norm(x, "model.norm") @ head.T
