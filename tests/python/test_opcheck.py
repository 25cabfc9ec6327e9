# SPDX-License-Identifier: Apache-2.0
"""torch.library.opcheck: schemas, autograd registration, fake tensors and dynamic AOT dispatch."""

import memlayers  # noqa: F401  registers the operators
import pytest
import torch
from torch.library import opcheck

OPS = torch.ops.memlayers


@pytest.fixture(params=[(4, 2, 5, 6), (1, 1, 1, 1)], ids=["several", "single"])
def tensors(request, device):
    tokens, heads, n, width = request.param
    knn = max(1, n // 2)
    t = {
        "query": torch.randn(tokens, heads, 8),
        "keys": torch.randn(heads, 2, n, 4),
        "values": torch.randn(n * n, 3 + width),
        "x": torch.randn(tokens, 3),
        "weights": torch.rand(tokens, heads * knn),
        "grad": torch.randn(tokens, 3 + width),
        "grad_peer": torch.randn(tokens, width),
    }
    t = {name: tensor.to(device) for name, tensor in t.items()}
    t["scores"], t["slots"] = OPS.lookup(t["query"], t["keys"], knn)
    t["chosen"] = t["slots"].flatten(1)
    t["knn"] = knn
    return t


def learnt(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone().requires_grad_()


@pytest.mark.parametrize("needs", [(True, True), (True, False), (False, True), (False, False)])
def test_lookup(tensors, needs):
    query, keys = (
        learnt(t) if n else t
        for t, n in zip((tensors["query"], tensors["keys"]), needs, strict=True)
    )
    opcheck(OPS.lookup.default, (query, keys, tensors["knn"]))
    opcheck(OPS.lookup_softmax.default, (query, keys, tensors["knn"]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("needs", [(True, True), (True, False), (False, True), (False, False)])
def test_gather(tensors, needs, dtype):
    t = tensors
    values, weights = (
        learnt(t) if n else t
        for t, n in zip((t["values"].to(dtype), t["weights"]), needs, strict=True)
    )
    opcheck(OPS.gather.default, (values, t["chosen"], weights))


@pytest.mark.parametrize("needs", [(True, True, True), (False, True, False), (True, False, False)])
def test_peer_gather(tensors, needs):
    t = tensors
    values, x, weights = (
        learnt(t) if n else t
        for t, n in zip((t["values"], t["x"], t["weights"]), needs, strict=True)
    )
    opcheck(OPS.peer_gather.default, (values, x, t["chosen"], weights))


@pytest.mark.parametrize("bits", [8, 4])
def test_quantized_rows(tensors, bits):
    t = tensors
    width = 70 + t["grad_peer"].size(1)
    # docs/formats.md, "Rows of 8 and 4 bits"
    row_bytes = (width + 15) // 16 * 16 + 16 if bits == 8 else (width + 63) // 64 * 32 + 16
    rows = torch.zeros(t["values"].size(0), row_bytes, dtype=torch.uint8, device=t["x"].device)
    weights, slots = learnt(t["weights"]), t["chosen"]
    x = learnt(torch.randn(slots.size(0), 64, device=rows.device))
    grad = torch.randn(slots.size(0), width, device=rows.device)
    opcheck(OPS.gather_quantized.default, (rows, slots, weights, bits, width))
    opcheck(OPS.peer_gather_quantized.default, (rows, x, slots, weights, bits, width))
    opcheck(OPS.gather_quantized_backward_weights.default, (grad, rows, slots, bits, width))
    opcheck(
        OPS.peer_gather_quantized_backward.default,
        (grad[:, 64:], rows, x.detach(), slots, t["weights"], bits, width),
    )


def test_backward_operators(tensors):
    t = tensors
    slots, values, grad, weights = t["chosen"], t["values"], t["grad"], t["weights"]
    opcheck(OPS.lookup_backward.default, (t["scores"], t["query"], t["keys"], t["slots"]))
    opcheck(OPS.gather_backward_weights.default, (grad, values, slots))
    opcheck(OPS.gather_backward_values.default, (grad, values, slots, weights))
    peer = (t["grad_peer"], values, t["x"], slots)
    opcheck(OPS.peer_gather_backward.default, (*peer, weights))
    opcheck(OPS.peer_gather_backward_values.default, (*peer, weights, weights))


def test_sparse_gradients_pass_all_but_fake_tensors(tensors):
    t = tensors
    utils = ("test_schema", "test_autograd_registration", "test_faketensor")
    values = learnt(t["values"])
    opcheck(OPS.gather.default, (values, t["chosen"], t["weights"], True), test_utils=utils)
    opcheck(
        OPS.peer_gather.default,
        (values, t["x"], t["chosen"], t["weights"], True),
        test_utils=utils,
    )
