# SPDX-License-Identifier: Apache-2.0
"""Optimizers of a pool's rows: a step costs what the touched rows cost, not what the pool costs."""

import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .distributed import parts_of_all
from .factored import FactoredGradient, factored_grad
from .lagging import LaggingRows

Kind = Literal["adamw", "dense_adamw", "rowwise_adamw", "rowwise_adagrad", "sgd"]
_KINDS = ("adamw", "dense_adamw", "rowwise_adamw", "rowwise_adagrad", "sgd")
_LOWEST = {"lr": 0.0, "eps": 0.0, "weight_decay": 0.0}


class RowOptimizer(Optimizer):
    """One step on the rows that were read since the last one; all other rows keep their bits.

    params: `values` of pools made with factored=True, whose gradient is never made (or with
    sparse=True); groups as for any optimizer of torch. kind: "adamw", lazy AdamW, its bias corrected
    by a row's own count of updates; "dense_adamw", what torch.optim.AdamW over the whole pool does, at
    the cost of the rows that are read (on a CPU): rows that nothing reads move on by their momentum,
    and catch up when they are read, saved or copied; MemoryPool.catch_up() before `values` is looked
    at directly. "rowwise_adamw" with one second moment a row; "rowwise_adagrad",
    as FBGEMM's; "sgd". betas, eps, weight_decay: as torch.optim.AdamW (eps of Adagrad too); betas
    are not used by the last two. master_rows: keep a float32 copy of bfloat16 rows; else they are
    rounded stochastically, by `seed`. clip: the greatest Euclidean norm of a group's gradient, which
    is scaled down to it; None: none.

    process_group: of torch.distributed, whose processes have the same pool (share_pool): the step is
    by the mean of their gradients, as DistributedDataParallel's, and all of them make it together.

    A gradient that is not finite changes nothing, and warns. `gradient_norm` is that of all groups at the last
    step, before clipping. Under torch.amp.GradScaler gradients are unscaled here.
    """

    _step_supports_amp_scaling = True  # step() divides by grad_scale

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        *,
        kind: Kind = "adamw",
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        master_rows: bool = False,
        clip: float | None = None,
        seed: int = 0,
        process_group: Any = None,
    ) -> None:
        self.gradient_norm = 0.0
        self.process_group = process_group
        self._lagging: dict[Tensor, LaggingRows] = {}
        defaults = {
            "lr": lr,
            "kind": kind,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "master_rows": master_rows,
            "clip": clip,
            "seed": seed,
        }
        super().__init__(params, defaults)

    def __getstate__(self) -> dict[str, Any]:
        for rows in self._lagging.values():
            rows.catch_up()
        return {**super().__getstate__(), "gradient_norm": self.gradient_norm}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.process_group = None  # belongs to this process: a copy has none
        self._lagging = {}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """A group with options of its own. Raises ValueError or TypeError for what does not fit."""
        options = {**self.defaults, **param_group}
        _check(options["kind"] in _KINDS, f"kind one of {', '.join(_KINDS)}", options["kind"])
        for name, lowest in _LOWEST.items():
            _check(options[name] >= lowest, f"{name} of at least {lowest}", options[name])
        _check(
            all(0 <= beta < 1 for beta in options["betas"]), "betas in [0, 1)", options["betas"]
        )
        clip = options["clip"]
        _check(clip is None or clip > 0, "clip above 0", clip)
        super().add_param_group(param_group)
        for values in self.param_groups[-1]["params"]:
            if values.dim() != 2 or values.dtype not in (torch.float32, torch.bfloat16):
                self.param_groups.pop()
                raise TypeError(
                    "RowOptimizer: expected values [slots, width] float32 or bfloat16, got "
                    f"{list(values.shape)} {values.dtype}"
                )
            if options["kind"] == "dense_adamw" and values.device.type != "cpu":
                self.param_groups.pop()
                raise ValueError(
                    f"RowOptimizer: expected values on the CPU for dense_adamw, got {values.device}"
                )

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients."""
        super().zero_grad(set_to_none)
        for group in self.param_groups:
            for values in group["params"]:
                factored_grad(values).clear()

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Callable[[], float] | None = None
    ) -> float | None:
        """Applies and clears what backward recorded; returns what `closure` does."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # GradScaler sets both for the time of this call.
        if hasattr(self, "grad_scale") and self.grad_scale is None:
            raise RuntimeError(
                "RowOptimizer: expected a step without GradScaler.unscale_ before it: a factored "
                "gradient is unscaled in the step itself, and clipped by its option clip"
            )
        unscale = 1.0 / float(getattr(self, "grad_scale", 1.0))
        found_inf = bool(getattr(self, "found_inf", None))
        taken = [
            [(values, _Gradient(values, self.process_group)) for values in group["params"]]
            for group in self.param_groups
        ]
        norms = [
            math.sqrt(sum(gradient.squares() for _, gradient in group)) * unscale for group in taken
        ]
        self.gradient_norm = math.hypot(*norms)
        is_finite = math.isfinite(self.gradient_norm) and not found_inf
        if not is_finite and not found_inf:
            warnings.warn(
                "RowOptimizer: expected a finite gradient, got one of norm "
                f"{self.gradient_norm}: the step changes no row",
                stacklevel=2,
            )
        for options, group, norm in zip(self.param_groups, taken, norms, strict=True):
            clip = options["clip"]
            scale = unscale * (1.0 if clip is None or norm <= clip else clip / norm)
            for values, gradient in group:
                if is_finite and gradient.parts:
                    self._update(values, gradient, options, scale)
                values.grad = None
                factored_grad(values).clear()
        return loss

    def _update(
        self, values: Tensor, gradient: "_Gradient", options: dict[str, Any], scale: float
    ) -> None:
        state = self._state_of(values, options)
        kind, (beta1, beta2) = options["kind"], options["betas"]
        if kind == "dense_adamw":
            if values not in self._lagging:
                self._lagging[values] = LaggingRows(values, state, options)
            state["step"] += 1
            seed = _signed(_seed(options["seed"], state["step"]))
            numbers = (float(options["lr"]), float(options["weight_decay"]), scale, seed)
            self._lagging[values].update(gradient.arguments(), *numbers)
            torch.autograd.graph.increment_version(values)
            return
        state["step"] += 1
        tables = {
            "adamw": ("exp_avg", "exp_avg_sq", "steps", "master"),
            "rowwise_adamw": ("exp_avg", "exp_avg_sq", "steps", "master"),
            "rowwise_adagrad": ("exp_avg_sq", "master"),
            "sgd": ("master",),
        }[kind]
        options_of = {
            "adamw": (beta1, beta2, options["eps"]),
            "rowwise_adamw": (beta1, beta2, options["eps"]),
            "rowwise_adagrad": (options["eps"],),
            "sgd": (),
        }[kind]
        seed = _seed(options["seed"], state["step"])
        getattr(torch.ops.memlayers, f"update_{kind}")(
            values,
            *(state.get(name) for name in tables),
            *gradient.arguments(),
            *(float(number) for number in (options["lr"], *options_of, options["weight_decay"])),
            scale,
            _signed(seed),
        )

    def _state_of(self, values: Tensor, options: dict[str, Any]) -> dict[str, Any]:
        state: dict[str, Any] = self.state[values]
        if state:
            return state

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=values.device)

        slots, width = values.shape
        kind = options["kind"].removeprefix("dense_")
        state["step"] = 0
        if kind == "adamw" or (kind == "rowwise_adamw" and options["betas"][0] != 0):
            state["exp_avg"] = zeros(slots, width)
        if kind != "sgd":
            state["exp_avg_sq"] = zeros(slots, width) if kind == "adamw" else zeros(slots)
        if kind in ("adamw", "rowwise_adamw"):
            state["steps"] = zeros(slots, dtype=torch.int32)
        if options["master_rows"] and values.dtype != torch.float32:
            state["master"] = values.float()
        return state

    def state_dict(self) -> dict[str, Any]:
        """As of any optimizer; rows of a dense_adamw catch up first."""
        for rows in self._lagging.values():
            rows.catch_up()
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what state_dict() gave: the next steps are those of the optimizer it is of."""
        for rows in self._lagging.values():
            rows.forget()
        self._lagging.clear()
        super().load_state_dict(state_dict)
        saved = [index for group in state_dict["param_groups"] for index in group["params"]]
        own = [values for group in self.param_groups for values in group["params"]]
        for index, values in zip(saved, own, strict=True):
            # torch casts a state to its parameter's type.
            for name, table in state_dict["state"].get(index, {}).items():
                if isinstance(table, Tensor):
                    self.state[values][name] = table.detach().to(values.device, copy=True)


class _Gradient:
    """The gradient of one table of values, grouped by slot."""

    def __init__(self, values: nn.Parameter, process_group: Any) -> None:
        self.parts = [*factored_grad(values), *_parts_of(values.grad)]
        if process_group is not None:
            self.parts = parts_of_all(self.parts, process_group, values)
        self.width = values.size(1)
        if self.parts:
            self.grouped: list[Tensor] = torch.ops.memlayers.group(
                [part.slots for part in self.parts], values.size(0)
            )

    def arguments(self) -> tuple[Any, ...]:
        return (
            [part.weights for part in self.parts],
            [part.rows for part in self.parts],
            [part.first_column for part in self.parts],
            *self.grouped,
        )

    def squares(self) -> float:
        """The square of its Euclidean norm."""
        if not self.parts:
            return 0.0
        return float(torch.ops.memlayers.row_squares(*self.arguments(), self.width).sum())


def _parts_of(grad: Tensor | None) -> list[FactoredGradient]:
    if grad is None:
        return []
    if not grad.is_sparse:
        raise ValueError(
            "RowOptimizer: expected values of a pool with factored=True or sparse=True, got a dense "
            "gradient: a step would cost what the pool costs"
        )
    grad = grad.coalesce()
    slots, rows = grad.indices().t().contiguous(), grad.values().float()
    return [FactoredGradient(slots, torch.ones_like(slots, dtype=torch.float32), rows)]


def _seed(seed: int, step: int) -> int:
    """Odd multipliers: no two steps of a run, and no two runs of neighbouring seeds, round alike."""
    return (seed + 0x9E3779B97F4A7C15) * 0xD1342543DE82EF95 + step


def _signed(number: int) -> int:
    """The 64 lowest bits as an int64."""
    number &= (1 << 64) - 1
    return number - (1 << 64) if number >> 63 else number


def _check(is_right: bool, wanted: str, got: object) -> None:
    if not is_right:
        raise ValueError(f"RowOptimizer: expected {wanted}, got {got!r}")
