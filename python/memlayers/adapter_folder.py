# SPDX-License-Identifier: Apache-2.0
"""The memory of someone else's model as a folder beside it: adapter_config.json in PEFT's manner,
adapter_model.safetensors and pool/ (docs/formats.md)."""

import json
import os
import secrets
import shutil
from os import PathLike, path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ._arguments import Error, path_of, told
from .adapter import Placement, attach_memory, memory_layers
from .blocks import widths_of
from .memory_layer import MemoryLayer
from .memory_pool import MemoryPool
from .model_folder import load_pool

_CONFIG, _WEIGHTS, _POOL = "adapter_config.json", "adapter_model.safetensors", "pool"
_TYPE, _VERSION = "MEMLAYERS", 1
_PREFIX = "base_model.model."  # as PEFT writes names
_NUMBERS = ("dim", "n_keys", "heads", "knn", "k_dim", "v_dim")


def save_memory(model: nn.Module, folder: str | PathLike[str]) -> None:
    """Writes what add_memory gave `model` (and nothing of the model) into a new folder, whole or
    not at all.

    Raises ValueError for a model without memory, with memory over several pools, or of numbers that
    are not finite; FileExistsError where something is at `folder`.
    """
    place = path_of("save_memory", folder)
    found = memory_layers(model)
    if not found:
        raise ValueError("save_memory: expected a model with memory, found none in it")
    pools = {id(layer.pool): layer.pool for layer, _ in found.values()}
    if len(pools) != 1:
        raise ValueError(f"save_memory: expected memory over one pool, got {len(pools)} pools")
    (pool,) = pools.values()
    tensors, modules = {}, []
    for name, (layer, placement) in found.items():
        modules.append({"name": name, "placement": placement, **_options_of(layer)})
        for part, tensor in layer.state_dict().items():
            if part != "pool.values":
                tensors[f"{_PREFIX}{name}.memory.{part}"] = _finite(name, part, tensor)
    config = {
        "peft_type": _TYPE,
        "version": _VERSION,
        "base_model_name_or_path": _origin(model),
        "base_model_class": type(model).__name__,
        "inference_mode": True,
        "modules": modules,
    }
    if path.lexists(place):
        raise FileExistsError(
            f"{place}: expected a folder that does not exist yet, got one that does"
        )
    parent = path.dirname(path.abspath(place))
    os.makedirs(parent, exist_ok=True)
    made = f"{path.abspath(place)}.tmp-{os.getpid()}-{secrets.token_hex(4)}"
    os.mkdir(made)
    try:
        write_pool(path.join(made, _POOL), pool)
        save_file(tensors, path.join(made, _WEIGHTS), {"format": "pt"})
        with open(path.join(made, _CONFIG), "w", encoding="utf-8") as file:
            file.write(json.dumps(config, indent=2) + "\n")
        _sync(made)
        os.rename(made, place)
        _sync_one(parent)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def load_memory(
    model: nn.Module,
    folder: str | PathLike[str],
    *,
    sparse: bool = False,
    factored: bool = False,
) -> dict[str, MemoryLayer]:
    """Gives `model` the memory that save_memory wrote; returns the layers by block.

    sparse, factored: of the pool's gradient (MemoryPool). Raises Error for files that are not what
    they should be, ValueError for a model that they do not fit; nothing is changed then.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"load_memory: expected a model and a folder, got {type(model).__name__} first; the "
            "layers of a model's folder by themselves: load_layers(folder)"
        )
    place = path_of("load_memory", folder)
    where = path.join(place, _CONFIG)
    modules = _read_config(where)
    blocks, there = dict(model.named_modules()), memory_layers(model)
    for fields in modules:
        if fields["name"] not in blocks:
            raise ValueError(
                f"{where}: modules: expected blocks of {type(model).__name__}, got "
                f"{_short(fields['name'])}, which it has not"
            )
        if fields["name"] in there:
            raise ValueError(f"load_memory: expected a model without memory at {fields['name']}")
        width, _ = widths_of(model, blocks[fields["name"]])
        if width is not None and width != fields["dim"]:
            raise ValueError(
                f"{where}: modules: expected {fields['name']} of width {width}, got memory of "
                f"{fields['dim']}"
            )
    stored = _read_weights(path.join(place, _WEIGHTS))
    values = load_pool(place)
    layers: dict[str, tuple[MemoryLayer, Placement]] = {}
    try:
        pool = MemoryPool.from_slots(values, sparse=sparse, factored=factored)
        pool.id = told(lambda: torch.ops.memlayers.pool_id(path.join(place, _POOL)))
        for fields in modules:
            name, placement = fields["name"], fields["placement"]
            with torch.device("meta"):
                layer = MemoryLayer(**_arguments_of(fields), pool=pool)
            start = f"{_PREFIX}{name}.memory."
            own = [key for key in stored if key.startswith(start)]
            state = {key.removeprefix(start): stored.pop(key) for key in own}
            layer.load_state_dict({**state, "pool.values": pool.values}, assign=True)
            layers[name] = layer, placement
    except (RuntimeError, TypeError, ValueError) as error:
        raise Error(f"{where}: the weights beside it do not fit: {_line(error)}") from error
    if stored:
        raise Error(
            f'{path.join(place, _WEIGHTS)}: tensor "{next(iter(stored))}": expected none of this '
            f"name by {_CONFIG}"
        )
    for name, (layer, placement) in layers.items():
        _place(model, name, layer, placement)
    return {name: layer for name, (layer, _) in layers.items()}


def write_pool(folder: str, pool: MemoryPool) -> None:
    """Writes a pool's rows as a model folder's pool/. Raises TypeError for another dtype, Error for
    rows that are not finite or where they cannot be written."""
    os.makedirs(folder, exist_ok=True)
    pool.catch_up()
    rows = pool.values.detach().cpu().contiguous()
    told(lambda: torch.ops.memlayers.write_pool(folder, rows, pool.id or ""))


def _place(model: nn.Module, name: str, layer: MemoryLayer, placement: Placement) -> None:
    block = model.get_submodule(name)
    device = next((p.device for p in (*block.parameters(), *model.parameters())), None)
    if device is not None:
        layer.to(device)
    attach_memory(model, {name: layer.train(block.training)}, placement)


def _options_of(layer: MemoryLayer) -> dict[str, Any]:
    return {
        **{name: getattr(layer, name) for name in _NUMBERS},
        "variant": layer.variant,
        "value_proj": layer.value_proj is not None,
        "qk_norm": layer.query_norm is not None,
        "gate": layer.gate is not None,
        **({} if layer.gate_dim is None else {"gate_dim": layer.gate_dim}),
        **({} if layer.output_scale == 1 else {"output_scale": float(layer.output_scale)}),
    }


def _arguments_of(fields: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in fields.items() if k not in ("name", "placement")}


def _read_config(where: str) -> list[dict[str, Any]]:
    """The modules of adapter_config.json, each field of its type."""
    try:
        with open(where, encoding="utf-8") as file:
            config = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise Error(f"{where}: expected a memory that save_memory wrote: {_line(error)}") from error
    if not isinstance(config, dict) or config.get("peft_type") != _TYPE:
        got = config.get("peft_type") if isinstance(config, dict) else config
        raise Error(f"{where}: peft_type: expected {_TYPE!r}, got {_short(got)}")
    version = config.get("version")
    if type(version) is not int or version != _VERSION:
        newer = type(version) is int and version > _VERSION
        raise Error(
            f"{where}: version: expected {_VERSION}, got {_short(version)}"
            + (": a newer memlayers wrote it" if newer else "")
        )
    modules = config.get("modules")
    if not isinstance(modules, list) or not modules:
        raise Error(f"{where}: modules: expected a list of blocks, got {_short(modules)}")
    types: dict[str, type] = {
        "name": str,
        "placement": str,
        **dict.fromkeys(_NUMBERS, int),
        "variant": str,
        "value_proj": bool,
        "qk_norm": bool,
        "gate": bool,
    }
    also: dict[str, type] = {"gate_dim": int, "output_scale": float}  # where they are not usual
    names = set()
    for fields in modules:
        if not isinstance(fields, dict) or set(fields) - set(also) != set(types):
            raise Error(
                f"{where}: modules: expected the fields {', '.join(types)}, got {_short(fields)}"
            )
        for name, wanted in (types | also).items():
            if name in fields and type(fields[name]) is not wanted:
                raise Error(
                    f"{where}: modules: {name}: expected {wanted.__name__}, got "
                    f"{_short(fields[name])}"
                )
        if fields["placement"] not in ("beside", "replace"):
            raise Error(
                f"{where}: modules: placement: expected beside or replace, got "
                f"{_short(fields['placement'])}"
            )
        if fields["name"] in names:
            raise Error(f"{where}: modules: expected each block once, got {_short(fields['name'])}")
        names.add(fields["name"])
    return modules


def _read_weights(where: str) -> dict[str, Tensor]:
    try:
        stored = load_file(where)
    except (OSError, SafetensorError, ValueError) as error:
        raise Error(f"{where}: expected the memory's weights: {_line(error)}") from error
    for name, tensor in stored.items():
        if not tensor.is_floating_point():
            raise Error(f'{where}: tensor "{name}": expected floating point, got {tensor.dtype}')
        if not bool(tensor.float().isfinite().all()):
            raise Error(f'{where}: tensor "{name}": expected finite weights, got NaN or infinity')
    return stored


def _finite(block: str, part: str, tensor: Tensor) -> Tensor:
    if not bool(tensor.float().isfinite().all()):
        raise ValueError(
            f"save_memory: expected finite weights, {part} of {block} has NaN or infinity"
        )
    return tensor.detach().cpu().contiguous()


def _origin(model: nn.Module) -> str | None:
    name = getattr(getattr(model, "config", None), "_name_or_path", None)
    return name if isinstance(name, str) and name else None


def _sync(folder: str) -> None:
    """All of a folder is on the disk."""
    for where, _, files in os.walk(folder, topdown=False):
        for name in files:
            _sync_one(path.join(where, name))
        _sync_one(where)


def _sync_one(where: str) -> None:
    handle = os.open(where, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
