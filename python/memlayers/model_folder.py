# SPDX-License-Identifier: Apache-2.0
"""Reads the memory of a model folder (docs/formats.md): its pool and its memory layers.

The files are read by the library, which checks all that `memlayers generate` checks: names, types,
shapes, checksums, and that numbers are finite.
"""

import json
from os import PathLike, path
from typing import Any

import torch
from torch import Tensor

from ._arguments import Error, path_of, shown, told
from .memory_layer import MemoryLayer
from .memory_pool import MemoryPool

_PREFIX = "model.layers."
_ARGUMENTS = (
    "n_keys",
    "heads",
    "knn",
    "k_dim",
    "v_dim",
    "variant",
    "value_proj",
    "qk_norm",
    "gate",
)


def scale_of(memory: dict[str, Any], index: int) -> float:
    """By what the memory of decoder layer `index` multiplies its sum of rows."""
    scales = memory.get("output_scales")
    return 1.0 if scales is None else float(scales[memory["layers"].index(index)])


def load_pool(folder: str | PathLike[str]) -> Tensor:
    """The pool's rows [n_keys^2, width] in shell order, from `folder`/pool.

    With the patches that were applied to it. MemoryPool.from_slots(load_pool(folder)) makes a pool
    of them. Raises Error.
    """
    place = path.join(path_of("load_pool", folder), "pool")
    values: Tensor = told(lambda: torch.ops.memlayers.read_pool(place))[0]
    return values


def load_layers(
    folder: str | PathLike[str], *, sparse: bool = False, factored: bool = False
) -> dict[int, MemoryLayer]:
    """The memory layers of a model folder by layer number, in evaluation mode, over one pool.

    sparse, factored: of the pool's gradient; see MemoryPool. Raises Error.
    """
    place = path_of("load_layers", folder)
    text, names, tensors, values, places, numbers = told(
        lambda: torch.ops.memlayers.read_memory(place)
    )
    config = json.loads(text)
    memory: dict[str, Any] = config["memlayers"]["memory"]
    weights: dict[int, dict[str, Tensor]] = {index: {} for index in memory["layers"]}
    others = [name for name in names if _place_of(name)[0] not in weights]
    for name, stored in zip(names, tensors, strict=True):
        index, parameter = _place_of(name)
        weights.get(index, {})[parameter] = stored
    for index, state in weights.items():
        mine = places[:, 0] == index
        if mine.any():
            _write_sub_keys(place, index, state, places[mine, 1:], numbers[mine])
    # Of a memory that has grown and was not trained since, only these are looked up; the slots of
    # the smaller grid are the first ones.
    n_open = memory.get("open_keys")
    if n_open is not None:
        memory = {**memory, "n_keys": n_open}
        values = values[: n_open * n_open]
        for state in weights.values():
            if "keys" in state:
                state["keys"] = state["keys"][:, :, :n_open]
    layers = {}
    try:
        pool = MemoryPool.from_slots(values, sparse=sparse, factored=factored)
        for index in memory["layers"]:
            layer = MemoryLayer(
                config["hidden_size"],
                pool=pool,
                gate_dim=memory.get("gate_dim"),
                output_scale=scale_of(memory, index),
                **{name: memory[name] for name in _ARGUMENTS},
            )
            # Keeps the stored type, and one pool.
            layer.load_state_dict({**weights[index], "pool.values": pool.values}, assign=True)
            layers[index] = layer.eval()
    except (RuntimeError, TypeError, ValueError) as error:
        where = path.join(place, "config.json")
        raise Error(f"{where}: the weights beside it do not fit: {shown(error, 1000)}") from error
    if others:
        name = shown(others[0])
        raise Error(f'{place}: tensor "{name}": expected none of this name by config.json')
    return layers


def _place_of(name: str) -> tuple[int, str]:
    """N and NAME of model.layers.N.memory.NAME; -1 where a name is another."""
    layer, _, parameter = name.removeprefix(_PREFIX).partition(".memory.")
    is_one = name.startswith(_PREFIX) and layer.isdecimal() and layer == str(int(layer))
    return (int(layer) if is_one else -1), parameter


def _write_sub_keys(
    folder: str, index: int, state: dict[str, Tensor], places: Tensor, numbers: Tensor
) -> None:
    head, half, number = places.unbind(1)
    try:
        keys = state["keys"]
        keys[head, half, number] = numbers.to(keys.dtype)
    except (IndexError, KeyError, RuntimeError) as error:
        raise Error(f"{folder}: patches of sub-keys do not fit layer {index}: {shown(error, 1000)}") from error
