# SPDX-License-Identifier: Apache-2.0
"""One pool in several processes (torch.distributed): each has all rows, and all get the same step."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .factored import FactoredGradient
from .memory_pool import MemoryPool

_IGNORED = "_ddp_params_and_buffers_to_ignore"  # what DistributedDataParallel looks at


def share_pool(model: nn.Module, process_group: Any = None) -> None:
    """Before DistributedDataParallel(model): its factored pools have the rows of the group's first
    process everywhere, and are left to RowOptimizer(..., process_group=...), which exchanges what
    was read of them. All processes call it. Raises ValueError where no pool is factored."""
    names, pools = [], {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owner = model.get_submodule(name.rpartition(".")[0])
        if isinstance(owner, MemoryPool) and owner.factored:
            names.append(name)
            pools[id(owner)] = parameter
    if not pools:
        raise ValueError("share_pool: expected a model with a pool of factored=True, found none")
    for values in pools.values():
        dist.broadcast(values.detach(), group=process_group, group_src=0)
    setattr(model, _IGNORED, [*getattr(model, _IGNORED, []), *names])


def parts_of_all(parts: list[FactoredGradient], group: Any, like: Tensor) -> list[FactoredGradient]:
    """The gradient's parts of all processes, in the order of their ranks, as a mean over them.

    What travels is what backward recorded: slots, weights and rows of the tokens, never the pool.
    """
    count = dist.get_world_size(group)
    own = [(list(p.slots.shape), list(p.rows.shape), p.first_column) for p in parts]
    shapes: list[Any] = [None] * count
    dist.all_gather_object(shapes, own, group=group)

    def size(kind: int, of: list[Any]) -> int:
        return sum(int(torch.Size(part[kind]).numel()) for part in of)

    slots = _gathered(
        [p.slots.flatten() for p in parts], max(size(0, of) for of in shapes), torch.int64, group, like
    )
    weights = _gathered(
        [p.weights.flatten() for p in parts],
        max(size(0, of) for of in shapes),
        torch.float32,
        group,
        like,
    )
    rows = _gathered(
        [p.rows.flatten() for p in parts], max(size(1, of) for of in shapes), torch.float32, group, like
    )
    all_parts = []
    for rank, of in enumerate(shapes):
        at_slot = at_row = 0
        for slot_shape, row_shape, first_column in of:
            n, m = torch.Size(slot_shape).numel(), torch.Size(row_shape).numel()
            all_parts.append(
                FactoredGradient(
                    slots[rank][at_slot : at_slot + n].view(slot_shape),
                    weights[rank][at_slot : at_slot + n].view(slot_shape) / count,
                    rows[rank][at_row : at_row + m].view(row_shape),
                    first_column,
                )
            )
            at_slot, at_row = at_slot + n, at_row + m
    return all_parts


def _gathered(
    own: list[Tensor], length: int, dtype: torch.dtype, group: Any, like: Tensor
) -> list[Tensor]:
    """Each process's numbers, one behind the other, padded to a common length."""
    padded = torch.zeros(length, dtype=dtype, device=like.device)
    if own:
        joined = torch.cat(own)
        padded[: len(joined)] = joined
    gathered = [torch.empty_like(padded) for _ in range(dist.get_world_size(group))]
    dist.all_gather(gathered, padded, group=group)
    return gathered
