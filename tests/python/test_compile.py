# SPDX-License-Identifier: Apache-2.0
"""torch.compile of a memory layer, without graph breaks, gives what eager gives."""

import shutil
import sysconfig
from pathlib import Path

import pytest
import torch
from reference import relative_error

from memlayers import MemoryLayer, MemoryPool

# inductor compiles C++ on a CPU; that takes most of this file's time.
HAS_COMPILER = (shutil.which("g++") or shutil.which("clang++")) and (
    Path(sysconfig.get_paths()["include"]) / "Python.h"
).is_file()
needs_compiler = pytest.mark.skipif(
    not HAS_COMPILER, reason="inductor needs a C++ compiler and Python.h"
)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()


def compare(model: torch.nn.Module, backend: str, device: str, dynamic: bool | None = None) -> None:
    compiled = torch.compile(model, fullgraph=True, backend=backend, dynamic=dynamic)
    for tokens in (6, 9) if dynamic else (6,):
        results = []
        x = torch.randn(2, tokens, 12).to(device)
        for forward in (model, compiled):
            model.zero_grad()
            x_in = x.clone().requires_grad_()
            y = forward(x_in)
            y.square().sum().backward()
            results.append([y, x_in.grad, *(p.grad.clone() for p in model.parameters())])
        for eager, got in zip(*results, strict=True):
            assert relative_error(got, eager) <= 1e-5  # sums in another order


@pytest.mark.parametrize("variant", ["memory+", "plain", "peer"])
def test_aot_autograd_equals_eager(variant, device):
    layer = MemoryLayer(12, n_keys=9, heads=2, knn=4, k_dim=6, variant=variant, gate=True)
    compare(layer.to(device), "aot_eager", device)


def test_sizes_may_vary(device):
    layer = MemoryLayer(12, n_keys=9, heads=2, knn=4, k_dim=6).to(device)
    compare(layer, "aot_eager", device, dynamic=True)


def test_layers_over_one_pool_compile_together(device):
    pool = MemoryPool(9, 12)
    layers = [MemoryLayer(12, n_keys=9, heads=2, knn=4, k_dim=6, pool=pool) for _ in range(2)]
    compare(torch.nn.Sequential(*layers).to(device), "aot_eager", device)


@needs_compiler
def test_inductor_equals_eager(device):
    layer = MemoryLayer(12, n_keys=9, heads=2, knn=4, k_dim=6).to(device)
    compare(layer, "inductor", device)


def test_a_sparse_gradient_under_compile_is_refused_in_a_sentence():
    layer = MemoryLayer(12, n_keys=9, heads=2, knn=4, k_dim=6, sparse=True)
    with pytest.raises(Exception, match="expected sparse_grad=False under fake tensors"):
        torch.compile(layer, backend="aot_eager")(torch.randn(2, 12))
