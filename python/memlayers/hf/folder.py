# SPDX-License-Identifier: Apache-2.0
"""The part of a folder that transformers knows nothing of: pool/, and the file that names us."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, path
from typing import Any

import torch
from torch import Tensor, nn

from .._arguments import Error, path_of, told
from ..adapter_folder import write_pool
from ..memory_layer import MemoryLayer
from ..memory_pool import MemoryPool
from .config import AUTO_MAP, SHIM, SHIM_TEXT, MemlayersConfig

_POOL = "pool"
_ROWS = ".memory.pool.values"


def local_folder(name: str | PathLike[str], download: dict[str, Any]) -> str:
    """The folder itself, or the copy of a hub's that transformers' cache has or gets."""
    place = os.fspath(name)
    if not path.isdir(place):
        from huggingface_hub import snapshot_download

        known = ("revision", "cache_dir", "token", "local_files_only")
        chosen = {key: download[key] for key in known if download.get(key) is not None}
        wanted = path.join(download.get("subfolder") or "", _POOL, "*")
        place = snapshot_download(place, allow_patterns=[wanted], **chosen)
    return path.join(place, download.get("subfolder") or "")


def read_pool_into(model: Any, folder: str | PathLike[str]) -> None:
    """Gives the model the rows of `folder`/pool, and the sub-keys that patches have written."""
    place = path.join(path_of("read_pool", folder), _POOL)
    config: MemlayersConfig = model.config
    memory = config.memory
    values, places, numbers = told(lambda: torch.ops.memlayers.read_pool(place))
    slots = memory["n_keys"] ** 2
    if len(values) < slots or values.size(1) != config.row_width:
        raise Error(
            f"{place}: expected {slots} rows of {config.row_width} numbers by config.json, got "
            f"{len(values)} of {values.size(1)}"
        )
    pool: MemoryPool = model.pool
    layers = {
        int(name.split(".")[-2]): module
        for name, module in model.named_modules()
        if isinstance(module, MemoryLayer)
    }
    device = next(iter(layers.values())).keys.device
    rows = nn.Parameter(values[:slots].to(device), requires_grad=pool.values.requires_grad)
    rows._is_hf_initialized = True  # type: ignore[attr-defined]
    pool.values = rows
    pool._is_hf_initialized = True  # type: ignore[assignment]
    pool.id = told(lambda: torch.ops.memlayers.pool_id(place))
    _write_sub_keys(place, layers, places, numbers)


@torch.no_grad()
def _write_sub_keys(
    place: str, layers: dict[int, MemoryLayer], places: Tensor, numbers: Tensor
) -> None:
    for index in sorted(set(places[:, 0].tolist())):
        mine = places[:, 0] == index
        try:
            keys = layers[index].keys
            head, half, number = places[mine, 1:].to(keys.device).unbind(1)
            keys[head, half, number] = numbers[mine].to(keys)
        except (IndexError, KeyError, RuntimeError) as error:
            raise Error(f"{place}: patches of sub-keys do not fit layer {index}: {error}") from error


@contextmanager
def saving(
    model: Any, folder: str | PathLike[str], is_main: bool, kwargs: dict[str, Any]
) -> Iterator[None]:
    """Around PreTrainedModel.save_pretrained: pool/, config.json that says what it is."""
    place = path_of("save_pretrained", folder)
    if kwargs.get("push_to_hub"):
        raise ValueError(
            "save_pretrained: expected push_to_hub=False: transformers would leave pool/ behind; "
            "upload the saved folder (huggingface_hub.upload_folder)"
        )
    if getattr(model, "_hf_peft_config_loaded", False):  # only the adapter is written
        yield
        return
    pool: MemoryPool = model.pool
    config: MemlayersConfig = model.config
    pool.catch_up()
    rows = pool.values
    state = kwargs.get("state_dict")
    if state is not None:  # gathered, or of a wrapper
        names = [name for name in state if name.endswith(_ROWS)]
        rows = state[names[0]] if names else rows
        kwargs["state_dict"] = {n: t for n, t in state.items() if n not in names}
    if rows.dtype not in (torch.float32, torch.bfloat16):
        raise TypeError(
            f"save_pretrained: expected rows of type float32 or bfloat16, got {rows.dtype}"
        )
    config.memory["row_dtype"] = str(rows.dtype).removeprefix("torch.")
    opened = {m.open_keys for m in model.modules() if isinstance(m, MemoryLayer)}
    config.memory.pop("open_keys", None)
    if opened != {None}:
        config.memory["open_keys"] = opened.pop()
    config.auto_map = dict(AUTO_MAP)
    made = None
    if is_main:
        os.makedirs(place, exist_ok=True)
        made = path.join(place, f"{_POOL}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        if made is not None:
            table = MemoryPool.from_slots(rows)
            table.id = pool.id
            write_pool(made, table)
        yield
        if made is not None:
            _finish(place, made)
    except BaseException:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        raise


def _finish(place: str, made: str) -> None:
    """The new pool takes the place of one that was there, and the package's file is written."""
    with open(path.join(place, SHIM + ".py"), "w", encoding="utf-8") as file:
        file.write(SHIM_TEXT)
    # It would list what was there before.
    manifest = path.join(place, "MANIFEST.json")
    if path.exists(manifest):
        os.remove(manifest)
    target = path.join(place, _POOL)
    old = None
    if path.exists(target):
        old = made.replace(".tmp-", ".old-")
        os.rename(target, old)
    os.rename(made, target)
    if old is not None:
        shutil.rmtree(old)
