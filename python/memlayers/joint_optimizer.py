# SPDX-License-Identifier: Apache-2.0
"""Several optimizers as one, for those who take one: a trainer, a scheduler, a GradScaler."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer


class JointOptimizer(Optimizer):
    """What each of `optimizers` does, together: AdamW of dense weights, say, and RowOptimizer.

    param_groups are theirs, so that schedulers set their rates; each keeps its state. Raises
    ValueError for a parameter that two of them have.
    """

    def __init__(self, *optimizers: Optimizer) -> None:
        if not optimizers:
            raise ValueError("JointOptimizer: expected optimizers, got none")
        for optimizer in optimizers:
            if not isinstance(optimizer, Optimizer):
                raise TypeError(
                    f"JointOptimizer: expected optimizers, got {type(optimizer).__name__}"
                )
        parameters = [
            p for each in optimizers for group in each.param_groups for p in group["params"]
        ]
        if len(set(parameters)) != len(parameters):
            raise ValueError("JointOptimizer: expected optimizers of different parameters")
        super().__init__(parameters, {})
        self.optimizers = list(optimizers)
        self._join()

    # GradScaler leaves unscaling to one that does it; the others' gradients are unscaled here.
    _step_supports_amp_scaling = True

    def _join(self) -> None:
        self.param_groups = [group for each in self.optimizers for group in each.param_groups]

    @property
    def state(self) -> Any:
        """That of all parameters."""
        each_of = self.__dict__.get("optimizers", [])
        return {parameter: s for each in each_of for parameter, s in each.state.items()}

    @state.setter
    def state(self, value: Any) -> None:
        """torch's constructor sets an empty one."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients of all."""
        for each in self.optimizers:
            each.zero_grad(set_to_none)

    def step(  # type: ignore[override]
        self, closure: Callable[[], float] | None = None
    ) -> float | None:
        """One step of each, in order; returns what `closure` does."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        scale = getattr(self, "grad_scale", None)
        found_inf = getattr(self, "found_inf", None)
        for each in self.optimizers:
            if scale is None and found_inf is None:
                each.step()
            elif getattr(each, "_step_supports_amp_scaling", False):
                each.grad_scale, each.found_inf = scale, found_inf  # type: ignore[attr-defined]
                try:
                    each.step()
                finally:
                    del each.grad_scale, each.found_inf  # type: ignore[attr-defined]
            elif not found_inf:
                _unscale(each, scale)
                each.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Theirs, in order."""
        return {"optimizers": [each.state_dict() for each in self.optimizers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what state_dict() gave. Raises ValueError where there are more or fewer."""
        states = state_dict.get("optimizers")
        if not isinstance(states, list) or len(states) != len(self.optimizers):
            got = len(states) if isinstance(states, list) else "none"
            raise ValueError(
                f"JointOptimizer: expected the states of {len(self.optimizers)} optimizers, got {got}"
            )
        for each, state in zip(self.optimizers, states, strict=True):
            each.load_state_dict(state)
        self._join()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Raises ValueError: a group belongs to one of `optimizers`."""
        if "optimizers" in self.__dict__:
            raise ValueError("JointOptimizer: expected the group to be added to one of optimizers")
        super().add_param_group(param_group)  # torch's constructor

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "optimizers": self.optimizers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._join()


def _unscale(optimizer: Optimizer, scale: torch.Tensor | None) -> None:
    if scale is None:
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad.div_(scale.to(parameter.grad.device))
