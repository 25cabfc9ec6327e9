# SPDX-License-Identifier: Apache-2.0
"""transformers' Trainer for models with memory."""

from typing import Any

import torch
import transformers
from torch import nn

from ..joint_optimizer import JointOptimizer
from ..memory_pool import MemoryPool
from ..row_optimizer import RowOptimizer
from .model import MemlayersForCausalLM


class MemoryTrainer(transformers.Trainer):
    """A Trainer whose pool is trained by RowOptimizer, and whose checkpoints have a pool of their own.

    value_lr: learning rate of the rows; rows: further options of RowOptimizer. Dense weights are
    trained by what TrainingArguments say. The pool's gradient is factored (MemoryPool), so that
    max_grad_norm clips that of the dense weights alone; rows={"clip": 1.0} clips the pool's. The
    scheduler goes over both. A run that is resumed goes on bit for bit.
    """

    def __init__(
        self,
        *args: Any,
        value_lr: float = 1e-3,
        rows: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.optimizer: torch.optim.Optimizer | None
        self.value_lr, self.rows = value_lr, dict(rows or {})
        super().__init__(*args, **kwargs)
        for pool in _pools(self.model):
            pool.factored, pool.sparse = True, False

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW, or what TrainingArguments name, of the dense weights, joined with RowOptimizer."""
        if self.optimizer is not None:
            return self.optimizer
        tables = [p.values for p in _pools(self.model) if p.values.requires_grad]
        for values in tables:
            values.requires_grad_(False)
        dense = super().create_optimizer(model) if _has_trained(self.model) else None
        for values in tables:
            values.requires_grad_(True)
        parts = [] if dense is None else [dense]
        if tables:
            parts.append(RowOptimizer(tables, lr=self.value_lr, **self.rows))
        joint = JointOptimizer(*parts)
        self.optimizer = joint
        return joint

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._read_pool(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if self.state.best_model_checkpoint is not None:
            self._read_pool(self.state.best_model_checkpoint)

    def _read_pool(self, folder: str) -> None:
        model = self.accelerator.unwrap_model(self.model)
        if isinstance(model, MemlayersForCausalLM):
            with torch.no_grad():
                values = model.pool.values
                model.read_pool(folder)
                # The optimizer has this parameter, not another one of the same numbers.
                values.copy_(model.pool.values)
                model.pool.values = values


def _pools(model: Any) -> list[MemoryPool]:
    return [module for module in model.modules() if isinstance(module, MemoryPool)]


def _has_trained(model: Any) -> bool:
    return any(parameter.requires_grad for parameter in model.parameters())
