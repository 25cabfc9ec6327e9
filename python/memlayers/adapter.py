# SPDX-License-Identifier: Apache-2.0
"""Memory for any model: memory layers beside or in place of its feed-forward blocks."""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .blocks import Layers, matching_blocks, width_of
from .memory_layer import MemoryLayer, Variant
from .memory_pool import MemoryPool

Placement = Literal["beside", "replace"]

_CHILD = "memory"  # of a block that has a memory beside it


class _AddMemory:
    """A hook of a block: adds what the memory beside it gives. An object, so that it is copied and
    pickled with the block, and finds that block's memory, whatever has been put in its place."""

    def __call__(self, block: nn.Module, args: Any, kwargs: dict[str, Any], out: Any) -> Any:
        x = args[0] if args else next(iter(kwargs.values()))
        read = getattr(block, _CHILD)(x)
        if isinstance(out, tuple):  # of experts: with the router's logits
            return (out[0] + read.view_as(out[0]), *out[1:])
        return out + read


class _SequentialBeside(nn.Sequential):
    """A sequence that does not go through its memory, which is a child but no part of it."""

    def __iter__(self) -> Iterator[nn.Module]:
        return (module for name, module in self._modules.items() if name != _CHILD and module)

    def __len__(self) -> int:
        return len(self._modules) - 1


def add_memory(
    model: nn.Module,
    layers: Layers,
    *,
    placement: Placement = "beside",
    n_keys: int = 128,
    heads: int = 4,
    knn: int = 32,
    k_dim: int = 128,
    v_dim: int | None = None,
    variant: Variant = "memory+",
    value_proj: bool | None = None,
    qk_norm: bool = True,
    gate: bool = False,
    row_dtype: torch.dtype = torch.float32,
    dtype: torch.dtype = torch.float32,
    dim: int | None = None,
    pool: MemoryPool | None = None,
    sparse: bool = False,
    factored: bool = False,
) -> dict[str, MemoryLayer]:
    """Gives blocks of `model` a memory each, over one pool; returns the memory layers by block.

    layers: which blocks, usually feed-forward ones: a pattern of module names such as
    "model.layers.{8,16,24}.mlp", in which * stands for any letters but a dot; a list of patterns or
    of decoder layers' numbers; or a predicate of name and module.

    placement: "beside" adds what the memory gives to what the block gives, which keeps its name
    and its parameters theirs: the model's logits are the same, bit for bit, until the memory is
    trained, because value_proj starts at zero (where a memory has none, its rows do). "replace"
    puts the memory in place of the block.

    n_keys, heads, knn, k_dim, v_dim, variant, value_proj, qk_norm, gate: of the layers, as
    MemoryLayer's; dtype: of their parameters, whatever the model's is; row_dtype: of the pool's
    rows. dim: width of a block; None: what its matrices say. pool: shared with others; None: a new
    one with these rows, whose gradient is dense, sparse, or factored for RowOptimizer (MemoryPool).

    Everything is on the device of the blocks, which is one. Parameters of the memory are
    trained, those of the model as before: see freeze_backbone. Raises ValueError or TypeError,
    having changed nothing.
    """
    if placement not in ("beside", "replace"):
        raise ValueError(f"add_memory: expected placement beside or replace, got {placement!r}")
    blocks = matching_blocks("add_memory", model, layers)
    _check_blocks(blocks, placement)
    device = _device_of(blocks, model, pool)
    _check_type("dtype", dtype, device)
    _check_type("row_dtype", row_dtype, device)
    if not dtype.is_floating_point or dtype.itemsize < 2:
        raise TypeError(f"add_memory: expected dtype float32, bfloat16 or float16, got {dtype}")
    widths = {
        name: dim if dim is not None else width_of("add_memory", model, name, block)
        for name, block in blocks.items()
    }
    added: dict[str, MemoryLayer] = {}
    for name in blocks:
        layer = MemoryLayer(
            widths[name],
            n_keys=n_keys,
            heads=heads,
            knn=knn,
            k_dim=k_dim,
            v_dim=v_dim,
            variant=variant,
            value_proj=value_proj,
            qk_norm=qk_norm,
            gate=gate,
            pool=pool,
            row_dtype=row_dtype,
            sparse=sparse,
            factored=factored,
        )
        if pool is None:
            pool = layer.pool.to(device)
            if placement == "beside" and layer.value_proj is None:
                nn.init.zeros_(pool.values)
        if placement == "beside" and layer.value_proj is not None:
            nn.init.zeros_(layer.value_proj.weight)
        for part, parameter in layer.named_parameters():
            if parameter is not pool.values:
                parameter.data = parameter.data.to(device=device, dtype=dtype)
        added[name] = layer.train(blocks[name].training)
    attach_memory(model, added, placement)
    return added


def attach_memory(
    model: nn.Module, layers: dict[str, MemoryLayer], placement: Placement
) -> None:
    """Puts memory layers beside or in place of the blocks of these names."""
    for name, layer in layers.items():
        if placement == "beside":
            block = model.get_submodule(name)
            if type(block) is nn.Sequential:
                block.__class__ = _SequentialBeside
            block.add_module(_CHILD, layer)
            block.register_forward_hook(_AddMemory(), with_kwargs=True)
        else:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer)


def memory_layers(model: nn.Module) -> dict[str, tuple[MemoryLayer, Placement]]:
    """The memory that add_memory gave a model, by block, with its placement."""
    found: dict[str, tuple[MemoryLayer, Placement]] = {}
    for name, module in model.named_modules():
        if not isinstance(module, MemoryLayer):
            continue
        parent, _, child = name.rpartition(".")
        is_beside = child == _CHILD and _hooks_of(model.get_submodule(parent))
        found[parent if is_beside else name] = (module, "beside" if is_beside else "replace")
    return found


def remove_memory(model: nn.Module) -> None:
    """Takes away the memory beside blocks: the model is what it was. Raises ValueError where there
    is none, or one that replaced a block, which is gone."""
    found = memory_layers(model)
    if not found:
        raise ValueError("remove_memory: expected a model with memory, found none in it")
    for name, (_, placement) in found.items():
        if placement != "beside":
            raise ValueError(f"remove_memory: expected memory beside blocks, {name} was replaced")
    for name in found:
        block = model.get_submodule(name)
        for key in _hooks_of(block):
            del block._forward_hooks[key]
            block._forward_hooks_with_kwargs.pop(key, None)
        delattr(block, _CHILD)
        if type(block) is _SequentialBeside:
            block.__class__ = nn.Sequential  # type: ignore[assignment]


def freeze_backbone(model: nn.Module) -> list[str]:
    """Leaves the memory as what is trained, with the adapters that PEFT has put into the model.

    Returns the names of the parameters that are. Raises ValueError where there is no memory.
    """
    found = memory_layers(model)
    if not found:
        raise ValueError("freeze_backbone: expected a model with memory, found none in it")
    kept: set[Tensor] = set()
    for layer, _ in found.values():
        kept.update(layer.parameters())
    for module in model.modules():
        for part in getattr(module, "adapter_layer_names", ()):  # PEFT's, of a layer it has wrapped
            adapter = getattr(module, part, None)
            if isinstance(adapter, (nn.ModuleDict, nn.ParameterDict)):
                kept.update(p for p in adapter.parameters())
    for parameter in model.parameters():
        parameter.requires_grad_(parameter in kept)
    return [name for name, parameter in model.named_parameters() if parameter in kept]


def _hooks_of(block: nn.Module) -> list[int]:
    return [key for key, hook in block._forward_hooks.items() if isinstance(hook, _AddMemory)]


def _is_list(block: nn.Module) -> bool:
    """Whether a child would become part of what it does."""
    if isinstance(block, (nn.ModuleList, nn.ModuleDict)):
        return True
    return isinstance(block, nn.Sequential) and type(block) is not nn.Sequential


def _check_blocks(blocks: dict[str, nn.Module], placement: Placement) -> None:
    for name, block in blocks.items():
        if isinstance(block, MemoryLayer) or name.rpartition(".")[2] == _CHILD:
            raise ValueError(f"add_memory: expected a block without memory, {name} is one")
        if placement == "beside" and hasattr(block, _CHILD):
            raise ValueError(f"add_memory: expected a block without memory, {name} has one")
        if placement == "beside" and _is_list(block):
            raise ValueError(
                f"add_memory: expected a block that computes, {name} is a {type(block).__name__}"
            )
        inner = next((other for other in blocks if other.startswith(name + ".")), None)
        if inner is not None:
            raise ValueError(f"add_memory: expected blocks apart, {inner} is part of {name}")


def _device_of(
    blocks: dict[str, nn.Module], model: nn.Module, pool: MemoryPool | None
) -> torch.device:
    devices: dict[torch.device, str] = {}
    for name, block in blocks.items():
        for parameter in (*block.parameters(), *model.parameters()):
            devices.setdefault(parameter.device, name)
            break
    if pool is not None:
        devices.setdefault(pool.values.device, "the pool")
    if len(devices) > 1:
        (one, first), (other, second) = list(devices.items())[:2]
        raise ValueError(
            f"add_memory: expected one device, {first} is on {one} and {second} on {other}"
        )
    return next(iter(devices), torch.device("cpu"))


def _check_type(name: str, dtype: torch.dtype, device: torch.device) -> None:
    if dtype == torch.bfloat16 and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ValueError(
            f"add_memory: expected {name} float32 on {device}, which has no bfloat16, got {dtype}"
        )
