# SPDX-License-Identifier: Apache-2.0
"""From a model that add_memory gave a memory to one that has it, which the command opens."""

import copy
import re
from typing import Any

import torch
from torch import nn

from ..adapter import memory_layers
from ..memory_layer import MemoryLayer
from .config import FAMILIES, MemlayersConfig
from .model import MemlayersForCausalLM

_SAME = ("n_keys", "heads", "knn", "k_dim", "v_dim", "variant")


def merge_memory(model: nn.Module) -> MemlayersForCausalLM:
    """A MemlayersForCausalLM of the weights of `model` and its memory, which it shares with it.

    Its save_pretrained writes a folder for `memlayers generate`, `learn` and the others. Possible
    for the decoders of the LLaMA families (docs/models.md) with memory beside or in place of the
    feed-forward blocks `mlp`, of the same kind at each. Raises ValueError for others.
    """
    found = memory_layers(model)
    config: Any = getattr(model, "config", None)
    base = getattr(config, "model_type", None)
    if not found:
        raise ValueError("merge_memory: expected a model with memory, found none in it")
    if base not in FAMILIES or not hasattr(model, "lm_head"):
        raise ValueError(
            f"merge_memory: expected a causal model of {', '.join(FAMILIES)}, got "
            f"{type(model).__name__}"
        )
    placements = {placement for _, placement in found.values()}
    options = {tuple(_options(layer).items()) for layer, _ in found.values()}
    pools = {id(layer.pool) for layer, _ in found.values()}
    if len(placements) > 1 or len(options) > 1 or len(pools) > 1:
        raise ValueError(
            "merge_memory: expected memory layers of one kind, placement and pool, got several"
        )
    layers: dict[int, MemoryLayer] = {}
    for name, (layer, _) in found.items():
        place = re.fullmatch(r"model\.layers\.(\d+)\.mlp", name)
        if place is None:
            raise ValueError(f"merge_memory: expected memory at model.layers.N.mlp, got it at {name}")
        layers[int(place[1])] = layer
    first = layers[min(layers)]
    memory = {
        **_options(first),
        "layers": sorted(layers),
        "placement": placements.pop(),
        "row_dtype": str(first.pool.values.dtype).removeprefix("torch."),
        "output_scales": [layers[index].output_scale for index in sorted(layers)],
    }
    if all(scale == 1 for scale in memory["output_scales"]):
        del memory["output_scales"]
    fields = {
        name: value
        for name, value in copy.deepcopy(config.to_dict()).items()
        if name not in ("model_type", "architectures", "auto_map", "transformers_version")
    }
    with torch.device("meta"):
        merged = MemlayersForCausalLM(
            MemlayersConfig(**fields, memlayers={"base": base, "memory": memory})
        )
    state = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if ".mlp.memory." in name or _is_replaced(name, layers, memory["placement"]):
            continue
        state[name] = tensor
    for index, layer in layers.items():
        for part, tensor in layer.state_dict(keep_vars=True).items():
            state[f"model.layers.{index}.memory.{part}"] = tensor
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    merged.load_state_dict(state, assign=True)
    merged.tie_weights()
    merged.pool.id = first.pool.id
    merged.pool.sparse, merged.pool.factored = first.pool.sparse, first.pool.factored
    merged.model.rotary_emb = copy.deepcopy(model.get_submodule("model.rotary_emb"))
    merged.generation_config = copy.deepcopy(getattr(model, "generation_config"))  # noqa: B009
    merged.train(model.training)
    return merged


def _options(layer: MemoryLayer) -> dict[str, Any]:
    return {
        **{name: getattr(layer, name) for name in _SAME},
        "value_proj": layer.value_proj is not None,
        "qk_norm": layer.query_norm is not None,
        "gate": layer.gate is not None,
        "gate_dim": layer.gate_dim,
    }


def _is_replaced(name: str, layers: dict[int, MemoryLayer], placement: str) -> bool:
    place = re.match(r"model\.layers\.(\d+)\.mlp\.", name)
    return place is not None and placement == "replace" and int(place[1]) in layers
