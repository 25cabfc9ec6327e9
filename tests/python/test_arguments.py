# SPDX-License-Identifier: Apache-2.0
"""What every registered operator refuses, on the CPU and under fake tensors alike."""

import pytest
import torch
from torch import Tensor

from memlayers import MemoryLayer, MemoryPool

OPS = torch.ops.memlayers
T, H, N, HALF, K, D, W = 3, 2, 5, 4, 2, 3, 7
J = H * K


def slots(*shape: int) -> Tensor:
    return torch.randint(0, N * N, shape)


QUERY, KEYS = torch.randn(T, H, 2 * HALF), torch.randn(H, 2, N, HALF)
VALUES, X, CHOSEN, WEIGHTS = torch.randn(N * N, W), torch.randn(T, D), slots(T, J), torch.rand(T, J)
BYTES, WIDE = torch.zeros(N * N, 80, dtype=torch.uint8), 64  # of 8 bits: 64 columns and a scale
CALLS = {
    "lookup": (QUERY, KEYS, K),
    "lookup_softmax": (QUERY, KEYS, K),
    "lookup_backward": (torch.randn(T, H, K), QUERY, KEYS, slots(T, H, K)),
    "gather": (VALUES, CHOSEN, WEIGHTS),
    "gather_backward_weights": (torch.randn(T, W), VALUES, CHOSEN),
    "gather_backward_values": (torch.randn(T, W), VALUES, CHOSEN, WEIGHTS),
    "peer_gather": (VALUES, X, CHOSEN, WEIGHTS),
    "peer_gather_backward": (torch.randn(T, W - D), VALUES, X, CHOSEN, WEIGHTS),
    "peer_gather_backward_values": (torch.randn(T, W - D), VALUES, X, CHOSEN, WEIGHTS, WEIGHTS),
    "gather_quantized": (BYTES, CHOSEN, WEIGHTS, 8, WIDE),
    "gather_quantized_backward_weights": (torch.randn(T, WIDE), BYTES, CHOSEN, 8, WIDE),
    "peer_gather_quantized": (BYTES, X, CHOSEN, WEIGHTS, 8, WIDE),
    "peer_gather_quantized_backward": (torch.randn(T, WIDE - D), BYTES, X, CHOSEN, WEIGHTS, 8, WIDE),
}
PARTS = [[slots(T, J), slots(T, 1)], [WEIGHTS, torch.rand(T, 1)]]
GRADIENT = (PARTS[1], [X, torch.randn(T, W)], [W - D, 0], *OPS.group(PARTS[0], N * N))
WIDE_TABLE, TABLE = torch.rand(N * N, W), torch.rand(N * N)
STEPS = torch.zeros(N * N, dtype=torch.int32)
CALLS |= {
    "group": (PARTS[0], N * N),
    "row_squares": (*GRADIENT, W),
    "update_adamw": (
        *(VALUES.bfloat16(), WIDE_TABLE, WIDE_TABLE.clone(), STEPS, VALUES.clone()),
        *(*GRADIENT, 0.1, 0.9, 0.95, 1e-8, 0.1, 1.0, 7),
    ),
    "update_rowwise_adamw": (
        *(VALUES.bfloat16(), WIDE_TABLE, TABLE, STEPS, VALUES.clone()),
        *(*GRADIENT, 0.1, 0.9, 0.95, 1e-8, 0.1, 1.0, 7),
    ),
    "update_rowwise_adagrad": (
        *(VALUES.bfloat16(), TABLE, VALUES.clone()),
        *(*GRADIENT, 0.1, 1e-8, 0.1, 1.0, 7),
    ),
    "update_sgd": (VALUES.bfloat16(), VALUES.clone(), *GRADIENT, 0.1, 0.1, 1.0, 7),
}
FILES = {"pool_id", "read_pool", "read_pool_rows", "write_pool_row", "read_memory"}
FILES |= {"read_patch", "write_patch", "write_pool", "pool_digest", "explain", "grow"}
# Each tensor of each call: the operator, its place, and its number in a list there.
TENSORS = [
    (name, place, i)
    for name, arguments in CALLS.items()
    for place, argument in enumerate(arguments)
    for i, tensor in enumerate(argument if isinstance(argument, list) else [argument])
    if isinstance(tensor, Tensor)
]
NEEDS_NUMBERS = {"group"}  # how many rows are touched is nothing that shapes say
# Tensors whose last size follows from no other: values, slots, x and rows of a part.
ANY_WIDTH = {("gather", 0), ("peer_gather", 0), ("peer_gather", 1), ("peer_gather_quantized", 1)}
ANY_WIDTH |= {("gather_backward_weights", 2), ("gather_quantized_backward_weights", 2)}
ANY_WIDTH |= {("group", 0), ("row_squares", 1), ("update_adamw", 6), ("update_sgd", 3)}
ANY_WIDTH |= {("update_rowwise_adamw", 6), ("update_rowwise_adagrad", 4)}


def call(name: str, arguments: list[object]) -> object:
    return getattr(OPS, name)(*arguments)


def changed(arguments: list[object], place: int, i: int, change) -> list[object]:
    """The arguments with another tensor there."""
    arguments = list(arguments)
    if isinstance(arguments[place], list):
        part = arguments[place]
        arguments[place] = [*part[:i], change(part[i]), *part[i + 1 :]]
    else:
        arguments[place] = change(arguments[place])
    return arguments


def moved(name: str, device: str) -> list[object]:
    return [
        [t.to(device) if isinstance(t, Tensor) else t for t in a]
        if isinstance(a, list)
        else a.to(device)
        if isinstance(a, Tensor)
        else a
        for a in CALLS[name]
    ]


def devices(name: str) -> list[str]:
    return ["cpu"] if name in NEEDS_NUMBERS else ["cpu", "meta"]


def test_every_operator_is_here():
    names = {name for name in torch._C._dispatch_get_all_op_names() if "memlayers::" in name}
    assert names == {f"memlayers::{name}" for name in CALLS.keys() | FILES}


@pytest.mark.parametrize("name", CALLS)
def test_right_arguments_pass_on_both_devices(name):
    for device in devices(name):
        call(name, moved(name, device))


@pytest.mark.parametrize("name, place, i", TENSORS)
def test_tensors_of_two_devices_are_refused(name, place, i):
    arguments = changed(CALLS[name], place, i, lambda t: t.to("meta"))
    with pytest.raises(ValueError, match=rf"^{name}: expected .* on (cpu|meta), as .*, got it on"):
        call(name, arguments)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int16])
@pytest.mark.parametrize("name, place, i", TENSORS)
def test_another_dtype_is_refused(name, place, i, dtype):
    for device in devices(name):
        arguments = changed(moved(name, device), place, i, lambda t: t.to(dtype))
        with pytest.raises(TypeError, match=f"^{name}: expected .* of type .*, got"):
            call(name, arguments)


@pytest.mark.parametrize("name, place, i", TENSORS)
def test_another_shape_is_refused(name, place, i):
    changes = [lambda t: t.unsqueeze(0)]
    if (name, place) not in ANY_WIDTH:
        changes.append(lambda t: t[..., :-1])
    for device in devices(name):
        for change in changes:
            with pytest.raises(ValueError, match=f"^{name}: expected .*, got"):
                call(name, changed(moved(name, device), place, i, change))


@pytest.mark.parametrize("name, place, i", TENSORS)
def test_a_sparse_tensor_is_refused(name, place, i):
    with pytest.raises(ValueError, match=f"^{name}: expected a dense"):
        call(name, changed(CALLS[name], place, i, lambda t: t.to_sparse()))


@pytest.mark.parametrize("part", ["pool", "keys"])
def test_a_layer_in_two_places_is_refused(part):
    layer = MemoryLayer(6, n_keys=4, heads=1, knn=2, k_dim=4, qk_norm=False)
    if part == "pool":
        layer.pool = MemoryPool.from_slots(layer.pool.values.detach().to("meta"))
    else:
        layer.keys = torch.nn.Parameter(layer.keys.detach().to("meta"))
    with pytest.raises(ValueError, match="expected .* on .*, got it on"):
        layer(torch.randn(2, 6))
