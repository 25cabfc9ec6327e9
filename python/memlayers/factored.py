# SPDX-License-Identifier: Apache-2.0
"""A pool's gradient as what made it: slots, weights and rows of the output's gradient."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_ATTRIBUTE = "factored_grad"


@dataclass
class FactoredGradient:
    """Row s has, in columns first_column to first_column + w, the sum over all (t, j) with
    slots[t, j] == s of weights[t, j] * rows[t].

    slots [T, J] int64, weights [T, J] float32, rows [T, w] float32.
    """

    slots: Tensor
    weights: Tensor
    rows: Tensor
    first_column: int = 0


def factored_grad(values: nn.Parameter) -> list[FactoredGradient]:
    """What backward has recorded of a factored pool's `values` since the last step; changes it."""
    parts: list[FactoredGradient] | None = getattr(values, _ATTRIBUTE, None)
    if parts is None:
        parts = []
        setattr(values, _ATTRIBUTE, parts)
    return parts


class _Gather(torch.autograd.Function):
    """A gather whose backward records the gradient of `values` instead of making it."""

    @staticmethod
    def forward(ctx: Any, values: nn.Parameter, slots: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(values, slots, weights)
        ctx.parameter = values
        out: Tensor = torch.ops.memlayers.gather(values.detach(), slots, weights)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor | None]:
        values, slots, weights = ctx.saved_tensors
        grad = grad.contiguous()
        if ctx.needs_input_grad[0]:
            factored_grad(ctx.parameter).append(FactoredGradient(slots, weights.detach(), grad))
        if not ctx.needs_input_grad[2]:
            return None, None, None
        return None, None, torch.ops.memlayers.gather_backward_weights(grad, values, slots)


class _PeerGather(torch.autograd.Function):
    """The same of PEER's."""

    @staticmethod
    def forward(
        ctx: Any, values: nn.Parameter, x: Tensor, slots: Tensor, weights: Tensor
    ) -> Tensor:
        ctx.save_for_backward(values, x, slots, weights)
        ctx.parameter = values
        out: Tensor = torch.ops.memlayers.peer_gather(values.detach(), x, slots, weights)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None, Tensor]:
        values, x, slots, weights = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x, grad_weights, u_factors, v_factors = torch.ops.memlayers.peer_gather_backward(
            grad, values, x, slots, weights
        )
        if ctx.needs_input_grad[0]:
            factored_grad(ctx.parameter).extend(
                [
                    FactoredGradient(slots, u_factors, x.detach()),
                    FactoredGradient(slots, v_factors, grad, x.size(1)),
                ]
            )
        return None, grad_x, None, grad_weights


def _refuse_transforms() -> None:
    """torch.func runs backward itself, and knows nothing of what one records on the side."""
    if torch._C._are_functorch_transforms_active():
        raise NotImplementedError(
            "MemoryPool(factored=True): expected no transform of torch.func, which would not see "
            "the gradient that backward records, got one: MemoryPool(factored=False) has it"
        )


@torch.compiler.disable  # type: ignore[untyped-decorator]  # backward records on the side
def factored_gather(values: nn.Parameter, slots: Tensor, weights: Tensor) -> Tensor:
    """memlayers.gather that records the gradient of `values`."""
    _refuse_transforms()
    out: Tensor = _Gather.apply(values, slots, weights)  # type: ignore[no-untyped-call]
    return out


@torch.compiler.disable  # type: ignore[untyped-decorator]
def factored_peer_gather(
    values: nn.Parameter, x: Tensor, slots: Tensor, weights: Tensor
) -> Tensor:
    """memlayers.peer_gather that does."""
    _refuse_transforms()
    out: Tensor = _PeerGather.apply(values, x, slots, weights)  # type: ignore[no-untyped-call]
    return out
