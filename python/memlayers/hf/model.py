# SPDX-License-Identifier: Apache-2.0
"""Decoders of the LLaMA families whose feed-forward blocks are memory layers, or have one beside."""

from os import PathLike
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import (
    GenerationMixin,
    LlamaForCausalLM,
    LlamaModel,
    MistralModel,
    PreTrainedModel,
    Qwen2Model,
    Qwen3Model,
    SmolLM3Model,
)
from transformers.models.llama.modeling_llama import LlamaPreTrainedModel

from ..memory_layer import MemoryLayer
from ..memory_pool import MemoryPool
from ..model_folder import scale_of
from .config import MemlayersConfig
from .folder import local_folder, read_pool_into, saving

_LAYER = ("n_keys", "heads", "knn", "k_dim", "v_dim", "variant", "value_proj", "qk_norm", "gate")


if TYPE_CHECKING:
    _Mixin = Any
else:
    _Mixin = object  # beside a base class that is a PreTrainedModel


class _Reads(nn.Module):
    """A decoder layer's `mlp` whose work its `memory` does, under whose name the weights are."""

    def __init__(self, memory: MemoryLayer) -> None:
        super().__init__()
        self._memory = (memory,)  # in a tuple: no child, whose weights would have two names

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self._memory[0](x)
        return y


class _Adds:
    """A hook of `mlp` that adds what the layer's `memory` gives."""

    def __init__(self, memory: MemoryLayer) -> None:
        self._memory = memory

    def __call__(self, mlp: nn.Module, args: Any, out: Tensor) -> Tensor:
        total: Tensor = out + self._memory(args[0])
        return total


def _insert(decoder: Any, config: MemlayersConfig) -> None:
    memory = config.memory
    pool = MemoryPool(
        memory["n_keys"], config.row_width, dtype=getattr(torch, memory["row_dtype"])
    )
    for index in memory["layers"]:
        layer = decoder.layers[index]
        layer.memory = MemoryLayer(
            config.hidden_size,
            pool=pool,
            open_keys=memory.get("open_keys"),
            gate_dim=memory.get("gate_dim"),
            output_scale=scale_of(memory, index),
            **{name: memory[name] for name in _LAYER},
        )
        if memory.get("frozen_keys"):
            layer.memory.keys.requires_grad_(False)
            if layer.memory.key_norm is not None:
                layer.memory.key_norm.requires_grad_(False)
        if memory["placement"] == "replace":
            layer.mlp = _Reads(layer.memory)
        else:
            layer.mlp.register_forward_hook(_Adds(layer.memory))


class _WithMemory(_Mixin):
    """What decoder and causal model have in common: the pool lies in a folder of its own."""

    config_class = MemlayersConfig
    _keys_to_ignore_on_load_missing = [r"\.memory\.pool\.values$"]

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (MemoryLayer, MemoryPool)):
            module.reset_parameters()
        else:
            super()._init_weights(module)

    @property
    def pool(self) -> MemoryPool:
        """The rows that all memory layers read."""
        return next(m for m in self.modules() if isinstance(m, MemoryPool))

    def read_pool(self, folder: str | PathLike[str]) -> None:
        """Takes the rows of `folder`/pool, with the patches that were applied to it. Raises Error."""
        read_pool_into(self, folder)

    def save_pretrained(
        self, save_directory: str | PathLike[str], is_main_process: bool = True, **kwargs: Any
    ) -> None:
        """As PreTrainedModel's; the folder is one that `memlayers` opens, once a tokenizer is in it."""
        with saving(self, save_directory, is_main_process, kwargs):
            super().save_pretrained(save_directory, is_main_process, **kwargs)

    @staticmethod
    def _finalize_model_loading(model: Any, load_config: Any, loading_info: Any) -> Any:
        # Before transformers makes room for the rows, which are not in model.safetensors.
        place = load_config.pretrained_model_name_or_path
        if place is not None:
            read_pool_into(model, local_folder(place, load_config.download_kwargs or {}))
            missing = {n for n in loading_info.missing_keys if n.endswith(".memory.pool.values")}
            loading_info.missing_keys -= missing
        return PreTrainedModel._finalize_model_loading(model, load_config, loading_info)

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = None) -> None:
        """Nothing: a saved folder names this package and has no copy of its files."""


class _Decoder(_WithMemory):
    def __init__(self, config: MemlayersConfig) -> None:
        super().__init__(config)
        _insert(self, config)
        self._keys_to_ignore_on_save = [
            f"layers.{index}.memory.pool.values" for index in config.memory["layers"]
        ]
        self.post_init()


class MemlayersLlamaModel(_Decoder, LlamaModel):
    """LLaMA's decoder with memory."""


class MemlayersMistralModel(_Decoder, MistralModel):
    """Mistral's."""


class MemlayersQwen2Model(_Decoder, Qwen2Model):
    """Qwen2's."""


class MemlayersQwen3Model(_Decoder, Qwen3Model):
    """Qwen3's."""


class MemlayersSmolLM3Model(_Decoder, SmolLM3Model):
    """SmolLM3's."""


_DECODERS: dict[str, type[_Decoder]] = {
    "llama": MemlayersLlamaModel,
    "mistral": MemlayersMistralModel,
    "qwen2": MemlayersQwen2Model,
    "qwen3": MemlayersQwen3Model,
    "smollm3": MemlayersSmolLM3Model,
}


class MemlayersModel(PreTrainedModel):
    """The decoder without its head; an object is one of the configuration's family."""

    config_class = MemlayersConfig

    def __new__(cls, config: MemlayersConfig, *args: Any, **kwargs: Any) -> Any:
        return _DECODERS[config.base](config, *args, **kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = None) -> None:
        """Nothing, as of MemlayersForCausalLM."""

    @staticmethod
    def _finalize_model_loading(model: Any, load_config: Any, loading_info: Any) -> Any:
        return type(model)._finalize_model_loading(model, load_config, loading_info)


class MemlayersForCausalLM(_WithMemory, LlamaPreTrainedModel, GenerationMixin):
    """A decoder with memory and a head: what a folder of `memlayers train` holds.

    `pool` is the memory's, shared by all layers. The pool's gradient is dense; for a large one set
    `model.pool.factored = True` and train with RowOptimizer (MemoryTrainer does).
    """

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: MemlayersConfig) -> None:
        super().__init__(config)
        self.model = _DECODERS[config.base](config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    forward = LlamaForCausalLM.forward
