# SPDX-License-Identifier: Apache-2.0
"""GGUF files written with PyPI's gguf, and what the command makes of them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

from memlayers import _library

COMMAND = _library.find_library().parent / "memlayers"

# Where the float16 numbers of a block stand.
SCALES = {
    Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0], Type.Q2_K: [80, 82],
    Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208], Type.IQ4_NL: [0], Type.IQ4_XS: [0],
    Type.F16: [0],
}  # fmt: skip
TYPES = [Type.F32, Type.BF16, *SCALES]


def run(*arguments: object, succeeds: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == succeeds, done.stderr
    return done


def run_json(*arguments: object) -> dict:
    return json.loads(run(*arguments, "--json").stdout)


def random_blocks(kind: Type, rows: int, columns: int, seed: int) -> np.ndarray:
    """Any bits, but for scales that are finite, subnormal ones among them."""
    generator = np.random.default_rng(seed)
    if kind == Type.F32:
        return generator.standard_normal((rows, columns), np.float32)
    if kind == Type.BF16:
        numbers = generator.standard_normal((rows, columns), np.float32).view(np.uint32)
        return (numbers >> 16).astype(np.uint16).view(np.uint8)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = generator.integers(0, 256, (rows * columns // block, size), np.uint8)
    for at in SCALES[kind]:
        scale = generator.standard_normal(len(blocks)).astype(np.float16)
        scale[::5] *= np.float16(1e-5)
        scale[1] = 0
        blocks[:, at : at + 2] = scale.view(np.uint8).reshape(-1, 2)
    if kind == Type.F16:
        return blocks.view(np.float16).reshape(rows, columns)
    return blocks.reshape(rows, -1)


def plain_tensors(config: dict, seed: int = 0) -> dict[str, np.ndarray]:
    """Of a LLaMA without anything special, small random numbers under their names in GGUF."""
    generator = np.random.default_rng(seed)
    dim, ff, vocab = config["dim"], config["ff_dim"], config["vocab_size"]
    kv = dim * config["kv_heads"] // config["heads"]
    shapes = {"token_embd.weight": (vocab, dim), "output_norm.weight": (dim,)}
    for layer in range(config["layers"]):
        shapes |= {
            f"blk.{layer}.{name}.weight": shape
            for name, shape in {
                "attn_norm": (dim,), "attn_q": (dim, dim), "attn_k": (kv, dim), "attn_v": (kv, dim),
                "attn_output": (dim, dim), "ffn_norm": (dim,), "ffn_gate": (ff, dim), "ffn_up": (ff, dim),
                "ffn_down": (dim, ff),
            }.items()
        }  # fmt: skip
    return {name: generator.standard_normal(shape, np.float32) * np.float32(0.1) for name, shape in shapes.items()}


def write_keys(writer: gguf.GGUFWriter, config: dict) -> None:
    writer.add_context_length(config.get("context", 128))
    writer.add_embedding_length(config["dim"])
    writer.add_block_count(config["layers"])
    writer.add_feed_forward_length(config["ff_dim"])
    writer.add_head_count(config["heads"])
    writer.add_head_count_kv(config["kv_heads"])
    writer.add_layer_norm_rms_eps(config.get("eps", 1e-5))
    writer.add_rope_freq_base(config.get("theta", 10000.0))


def finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def paired(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a head's two halves in turn, as files of the architecture llama have Q and K."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_transformers_model(model: object, path: Path, tokenizer: object = None) -> None:
    """A model of transformers in float32, with the keys that llama.cpp's converter writes."""
    config = model.config
    family = "llama" if config.model_type == "mistral" else config.model_type
    writer = gguf.GGUFWriter(path, family)
    rope = config.rope_parameters
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    write_keys(
        writer,
        {
            "context": config.max_position_embeddings, "dim": config.hidden_size, "layers": config.num_hidden_layers,
            "ff_dim": config.intermediate_size, "heads": config.num_attention_heads,
            "kv_heads": config.num_key_value_heads, "eps": config.rms_norm_eps, "theta": rope["rope_theta"],
        },
    )  # fmt: skip
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(head_dim)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    if config.model_type == "mistral":
        writer.add_sliding_window(config.sliding_window)
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if rope["rope_type"] == "llama3":
        inverse, _ = model.model.rotary_emb.compute_default_rope_parameters(config)
        factors = inverse / model.model.rotary_emb.inv_freq
        writer.add_tensor("rope_freqs.weight", factors.numpy().astype(np.float32))
    if tokenizer is not None:
        tokenizer(writer)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        weight = tensor.numpy()
        stem, kind = name.rsplit(".", 1)
        layer = ""
        if stem.startswith("model.layers."):
            _, _, number, stem = stem.split(".", 3)
            layer = f"blk.{number}."
        if family == "llama" and stem.endswith(("q_proj", "k_proj")):
            weight = paired(weight, weight.shape[0] // head_dim)
        writer.add_tensor(f"{layer}{NAMES[stem]}.{kind}", np.ascontiguousarray(weight))
    finish(writer)
