# SPDX-License-Identifier: Apache-2.0
"""One training step of a memory layer in PyTorch, several ways: what each is, and how long it takes.

python bench/peers/arms.py ARM '{"dim": 1024, ...}' prints one JSON object. A process for each
measurement: memory is given back, and nothing of one arm is warm for the next.
"""

import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from layers import TorchMemoryLayer


@dataclass
class Sizes:
    dim: int = 1024
    tokens: int = 1024
    heads: int = 4
    knn: int = 32
    k_dim: int = 512
    n_keys: int = 1024
    dtype: str = "float32"  # of the table
    threads: int = 2
    repeat: int = 5
    model_dtype: str = "float32"  # of activations and all other weights

    @property
    def element(self) -> int:
        return 4 if self.dtype == "float32" else 2

    @property
    def table_bytes(self) -> int:
        return self.n_keys**2 * self.dim * self.element

    @property
    def read_bytes(self) -> int:
        """Of all rows that a batch reads, as one tensor."""
        return self.tokens * self.heads * self.knn * self.dim * self.element

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)

    @property
    def torch_model_dtype(self) -> torch.dtype:
        return getattr(torch, self.model_dtype)


class Arm:
    """A layer with its optimizers; every parameter is trained."""

    layer: nn.Module
    optimizers: list[torch.optim.Optimizer]

    def call(self, x: Tensor) -> Tensor:
        return self.layer(x)


def _adamw(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0, fused=True)


class TorchDense(Arm):
    """embedding_bag, dense gradient, fused AdamW on everything."""

    def __init__(self, s: Sizes) -> None:
        self.layer = _torch_layer(s, sparse=False)
        self.optimizers = [_adamw(list(self.layer.parameters()))]

    @staticmethod
    def bytes(s: Sizes) -> int:
        return 4 * s.table_bytes  # table, gradient, two moments


class TorchSparse(Arm):
    """embedding_bag, sparse gradient, SparseAdam on the table, fused AdamW on the rest."""

    def __init__(self, s: Sizes) -> None:
        self.layer = _torch_layer(s, sparse=True)
        rows = self.layer.values
        self.optimizers = [
            torch.optim.SparseAdam([rows], lr=1e-3),
            _adamw([p for p in self.layer.parameters() if p is not rows]),
        ]

    @staticmethod
    def bytes(s: Sizes) -> int:
        return 3 * s.table_bytes + 8 * s.read_bytes  # SparseAdam's moments are dense


class TorchSparseSgd(TorchSparse):
    """embedding_bag, sparse gradient, plain SGD on the table, fused AdamW on the rest."""

    def __init__(self, s: Sizes) -> None:
        super().__init__(s)
        self.optimizers[0] = torch.optim.SGD([self.layer.values], lr=1e-3)

    @staticmethod
    def bytes(s: Sizes) -> int:
        return s.table_bytes + 4 * s.read_bytes


class LucidrainsPkm(Arm):
    """product-key-memory from PyPI (no gate, no output projection), fused AdamW on everything."""

    def __init__(self, s: Sizes) -> None:
        from product_key_memory import PKM

        self.layer = PKM(s.dim, heads=s.heads, num_keys=s.n_keys, topk=s.knn, dim_head=s.k_dim // 2)
        self.layer = self.layer.to(s.torch_dtype)
        self.optimizers = [_adamw(list(self.layer.parameters()))]

    def call(self, x: Tensor) -> Tensor:
        return self.layer(x.unsqueeze(0))

    @staticmethod
    def bytes(s: Sizes) -> int:
        return 4 * s.table_bytes


class LucidrainsPeer(Arm):
    """PEER-pytorch from PyPI with softmax scores (two tables), fused AdamW on everything."""

    def __init__(self, s: Sizes) -> None:
        from PEER_pytorch import PEER

        self.layer = PEER(
            s.dim,
            heads=s.heads,
            num_experts=s.n_keys**2,
            num_experts_per_head=s.knn,
            product_key_topk=s.knn,
            dim_key=s.k_dim // 2,
            non_competing_scores=False,
        ).to(s.torch_dtype)
        self.optimizers = [_adamw(list(self.layer.parameters()))]

    def call(self, x: Tensor) -> Tensor:
        return self.layer(x.unsqueeze(0))

    @staticmethod
    def bytes(s: Sizes) -> int:
        return 8 * s.table_bytes + 6 * s.read_bytes


ARMS: dict[str, type] = {
    "torch-dense": TorchDense,
    "torch-sparse": TorchSparse,
    "torch-sparse-sgd": TorchSparseSgd,
    "lucidrains-pkm": LucidrainsPkm,
    "lucidrains-peer": LucidrainsPeer,
}


def _torch_layer(s: Sizes, sparse: bool) -> TorchMemoryLayer:
    return TorchMemoryLayer(
        s.dim,
        n_keys=s.n_keys,
        heads=s.heads,
        knn=s.knn,
        k_dim=s.k_dim,
        row_dtype=s.torch_dtype,
        dtype=s.torch_model_dtype,
        sparse=sparse,
    )


def available_memory() -> int:
    """Bytes that can be had without swapping."""
    with open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/meminfo: expected a line MemAvailable, found none")


def measure(name: str, s: Sizes) -> dict:
    """Minimum and median times of training steps, each on other tokens, in milliseconds."""
    result = {"arm": name, **asdict(s)}
    needed, free = ARMS[name].bytes(s), available_memory()
    if needed > free:
        gib = 1 << 30
        result["skipped"] = f"needs {needed / gib:.1f} GiB, {free / gib:.1f} GiB are free"
        return result
    torch.set_num_threads(s.threads)
    torch.manual_seed(1)
    arm = ARMS[name](s)
    # The packages' layers are wholly of the table's type.
    dtype = next(m for m in arm.layer.modules() if isinstance(m, nn.Linear)).weight.dtype
    grad = torch.randn(s.tokens, s.dim).to(dtype)
    times: dict[str, list[float]] = {"step": [], "forward": [], "backward": [], "update": []}
    warm_up = 2  # the first step makes the optimizer's state
    for i in range(s.repeat + warm_up):
        x = torch.randn(s.tokens, s.dim).to(dtype).requires_grad_()
        start = time.perf_counter()
        for optimizer in arm.optimizers:
            optimizer.zero_grad(set_to_none=True)
        y = arm.call(x)
        forward = time.perf_counter()
        y.backward(grad.view_as(y))
        backward = time.perf_counter()
        for optimizer in arm.optimizers:
            optimizer.step()
        end = time.perf_counter()
        if i < warm_up:
            continue
        times["step"].append(end - start)
        times["forward"].append(forward - start)
        times["backward"].append(backward - forward)
        times["update"].append(end - backward)
    for part, seconds in times.items():
        result[f"{part}_ms"] = 1e3 * min(seconds)
        result[f"{part}_median_ms"] = 1e3 * statistics.median(seconds)
    return result


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Sizes(**json.loads(sys.argv[2])))))
