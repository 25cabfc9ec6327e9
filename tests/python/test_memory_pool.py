# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

import memlayers
from memlayers import MemoryLayer, MemoryPool, cell_of, shell_slots, slot_of


def test_slots_and_cells_are_each_others_inverse():
    cells = [cell_of(slot) for slot in range(400)]
    assert sorted(cells) == [(i, j) for i in range(20) for j in range(20)]
    assert [slot_of(*cell) for cell in cells] == list(range(400))
    assert shell_slots(7).tolist() == [slot_of(i, j) for i in range(7) for j in range(7)]
    large = (1 << 60) - 1  # beyond what the root of a float64 can tell apart
    assert slot_of(*cell_of(large)) == large


def test_growing_the_grid_keeps_every_slot_where_it_is():
    small, large = shell_slots(5).view(5, 5), shell_slots(8).view(8, 8)
    assert torch.equal(large[:5, :5], small)
    assert small.max() == 24


def test_row_major_tables_come_back_as_they_went_in(device):
    table = torch.randn(49, 3).to(device)
    pool = MemoryPool.from_row_major(table, sparse=True)
    assert (pool.n_keys, pool.width, pool.sparse) == (7, 3, True)
    assert torch.equal(pool.to_row_major(), table)
    assert torch.equal(pool.values[slot_of(2, 6)], table[2 * 7 + 6])


def test_from_slots_takes_the_table_without_a_copy():
    table = torch.randn(9, 4)
    pool = MemoryPool.from_slots(table)
    assert pool.values.data_ptr() == table.data_ptr()
    assert isinstance(pool.values, torch.nn.Parameter) and pool.values.requires_grad


def test_rows_start_normal():
    assert abs(MemoryPool(64, 100).values.std() - 0.1) < 5 * 0.1 * (2 * 4096 * 100) ** -0.5
    assert abs(MemoryPool(64, 100, init_std=2).values.std() - 2) < 0.02
    assert MemoryPool(3, 5, dtype=torch.bfloat16).values.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "error, sentence, call",
    [
        (ValueError, "n_keys and width >= 1, got 0 and 4", lambda: MemoryPool(0, 4)),
        (
            TypeError,
            "float32 or bfloat16, got torch.float64",
            lambda: MemoryPool(3, 4, dtype=torch.float64),
        ),
        (
            ValueError,
            r"\[n\^2, width\], got \[8, 4\]",
            lambda: MemoryPool.from_row_major(torch.zeros(8, 4)),
        ),
        (ValueError, r"\[n\^2, width\], got \[9\]", lambda: MemoryPool.from_slots(torch.zeros(9))),
        (ValueError, "a slot >= 0, got -1", lambda: cell_of(-1)),
        (ValueError, "got -1 and 2", lambda: slot_of(-1, 2)),
        (ValueError, "n_keys >= 1, got 0", lambda: shell_slots(0)),
        (IndexError, "got 9", lambda: MemoryPool(3, 4)(torch.tensor([[9]]), torch.ones(1, 1))),
    ],
    ids=range(8),
)
def test_wrong_arguments(error, sentence, call):
    with pytest.raises(error, match=sentence):
        call()


def make(sparse: bool, device: str) -> MemoryLayer:
    torch.manual_seed(3)
    return MemoryLayer(8, n_keys=12, heads=2, knn=3, k_dim=4, sparse=sparse).to(device)


def test_sparse_gradients_hold_the_touched_rows_of_the_dense_ones(device):
    x = torch.randn(5, 8).to(device)
    dense, sparse = make(False, device), make(True, device)
    dense(x).square().sum().backward()
    sparse(x).square().sum().backward()
    grad = sparse.pool.values.grad.coalesce()
    touched = dense.select(x)[0].unique()
    assert torch.equal(grad.indices()[0], touched)
    assert torch.equal(grad.to_dense(), dense.pool.values.grad)


def test_sparse_adam_learns_and_leaves_other_rows_alone(device):
    layer = make(True, device)
    before = layer.pool.values.detach().clone()
    x, wanted = torch.randn(5, 8).to(device), torch.randn(5, 8).to(device)
    dense = [p for p in layer.parameters() if p is not layer.pool.values]
    optimizers = [
        torch.optim.Adam(dense, lr=1e-2),
        torch.optim.SparseAdam([layer.pool.values], lr=1e-2),
    ]
    losses, read = [], torch.zeros(layer.pool.slots, dtype=torch.bool, device=device)
    for _ in range(60):
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = (layer(x) - wanted).square().mean()
        loss.backward()
        read[layer.select(x)[0].flatten()] = True
        losses.append(loss.item())
        for optimizer in optimizers:
            optimizer.step()
    assert losses[-1] < 0.1 * losses[0]
    changed = (layer.pool.values != before).any(1)
    assert changed.any() and not (changed & ~read).any() and not read.all()


def test_sparse_gradients_of_layers_over_one_pool_add(device):
    pool = MemoryPool(6, 4, sparse=True).to(device)
    slots = torch.tensor([[0, 7], [7, 35]], device=device)
    weights = torch.ones(2, 2, device=device)
    (pool(slots, weights).sum() + 2 * pool(slots[:1], weights[:1]).sum()).backward()
    expected = torch.zeros(36, 4)
    expected[[0, 7, 35]] = torch.tensor([[3.0], [4.0], [1.0]])
    assert torch.equal(pool.values.grad.to_dense().cpu(), expected)


def test_a_device_may_be_given(device):
    assert MemoryPool(3, 4, device=device).values.device.type == device


def test_the_package_names_what_it_exports():
    assert all(hasattr(memlayers, name) for name in memlayers.__all__)
    assert memlayers.__version__
