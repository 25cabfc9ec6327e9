# SPDX-License-Identifier: Apache-2.0
"""Rows that dense AdamW has not moved yet: they owe steps in which nothing read them, and catch up
when something does (docs/math.md)."""

from typing import Any

import torch
from torch import Tensor

_ATTRIBUTE = "lagging_rows"

# Whether there are such rows anywhere: what a compiled graph looks at.
are_used = False


class LaggingRows:
    """The rows of one table of values, with the state of a RowOptimizer of kind dense_adamw."""

    def __init__(self, values: Tensor, state: dict[str, Any], options: dict[str, Any]) -> None:
        global are_used
        beta1, beta2 = options["betas"]
        self._it: Any = torch.classes.memlayers.LaggingRows(
            beta1, beta2, options["eps"], options["seed"]
        )
        self._it.reset(state["step"])
        self._values, self._state = values, state
        setattr(values, _ATTRIBUTE, self)
        are_used = True

    def _tables(self) -> tuple[Tensor, list[Tensor]]:
        names = ("exp_avg", "exp_avg_sq", "steps", "master")
        # Not the parameter itself: what catches up is no change that autograd must know of.
        return self._values.data, [self._state[name] for name in names if name in self._state]

    def forget(self) -> None:
        """Nobody asks it any more."""
        if getattr(self._values, _ATTRIBUTE, None) is self:
            delattr(self._values, _ATTRIBUTE)

    def update(self, gradient: tuple[Any, ...], *numbers: float) -> None:
        """One step of all rows: those of the gradient make it, the others lag one more."""
        self._it.update(*self._tables(), *gradient, *numbers)

    def catch_up(self, slots: Tensor | None = None) -> None:
        """Brings the rows of these slots up to date, or all."""
        if slots is None:
            self._it.catch_up_all(*self._tables())
        else:
            self._it.catch_up(*self._tables(), slots)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def catch_up(values: Tensor, slots: Tensor | None = None) -> None:
    """Before rows are read: they are what AdamW over the whole pool would have made of them."""
    rows: LaggingRows | None = getattr(values, _ATTRIBUTE, None)
    if rows is not None:
        rows.catch_up(slots)
