# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

import memlayers
from memlayers import MemoryLayer, MemoryPool, SlotEditor, cell_of, shell_slots, slot_of


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


def inserting_layer(dtype: torch.dtype = torch.float32) -> MemoryLayer:
    return MemoryLayer(12, n_keys=7, heads=2, knn=3, k_dim=8, row_dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_inserted_row_goes_into_the_best_free_slot_and_no_other_changes(dtype):
    layer = inserting_layer(dtype)
    pool, x = layer.pool, torch.randn(1, 12)
    query = layer.query_proj(x).detach().view(2, 8)
    slots, weights = layer.select(x)
    ranked = slots.flatten()[weights.flatten().argsort(descending=True, stable=True)].tolist()
    assert layer.candidates(query).tolist() == ranked
    pool.erase(ranked[4])
    pool.erase(ranked[2])
    before = pool.values.detach().clone()
    row = torch.linspace(-1, 2, 12)
    editor = SlotEditor(layer)
    assert editor.insert(query, row) == ranked[2]
    assert torch.equal(pool.values[ranked[2]], row.to(dtype))
    others = torch.arange(49) != ranked[2]
    assert torch.equal(pool.values[others], before[others])
    assert editor.insert(query, row, only_free=True) == ranked[4]
    with pytest.raises(ValueError, match="a free slot among the 6"):
        editor.insert(query, row, only_free=True)
    assert editor.insert(query, row * 2) == ranked[0]  # overwrites
    assert editor.insert(query[1], row, head=1) == slots[0, 1, 0]


def test_an_edited_row_loses_its_optimizer_state_and_no_other_does():
    layer = inserting_layer()
    pool = layer.pool
    optimizer = torch.optim.Adam([pool.values], lr=0.1)
    layer(torch.randn(20, 12)).sum().backward()
    optimizer.step()
    slot = int(optimizer.state[pool.values]["exp_avg_sq"].sum(1).argmax())
    before = {name: state.clone() for name, state in optimizer.state[pool.values].items()}
    SlotEditor(layer, optimizer=optimizer).update(slot, torch.ones(12))
    others = torch.arange(49) != slot
    for name in ("exp_avg", "exp_avg_sq"):
        now = optimizer.state[pool.values][name]
        assert not now[slot].any() and before[name][slot].any()
        assert torch.equal(now[others], before[name][others])


def test_an_editor_reads_what_the_layer_reads():
    layer = inserting_layer(torch.bfloat16)
    editor = SlotEditor(layer)
    editor.erase(5)
    assert editor.is_free(5) and not editor.is_free(6)
    assert torch.equal(editor.row(6), layer.pool.values[6].float())
    assert torch.equal(editor.rows(torch.tensor([6, 5])), layer.pool.values[[6, 5]].float())
    for slot in (-1, 49):
        with pytest.raises(IndexError, match=rf"a slot in \[0, 49\), got {slot}"):
            editor.row(slot)


@pytest.mark.parametrize(
    "error, sentence, call",
    [
        (IndexError, r"a slot in \[0, 49\), got 49", lambda p, m: p.update(49, torch.ones(12))),
        (IndexError, r"a slot in \[0, 49\), got -1", lambda p, m: p.erase(-1)),
        (ValueError, r"a row \[12\], got \[11\]", lambda p, m: p.update(0, torch.ones(11))),
        (ValueError, "finite", lambda p, m: p.update(0, torch.full((12,), float("nan")))),
        (
            ValueError,
            "not all zeros",
            lambda p, m: SlotEditor(m).insert(torch.ones(2, 8), torch.zeros(12)),
        ),
        (
            ValueError,
            "a head for a query",
            lambda p, m: SlotEditor(m).insert(torch.ones(8), torch.ones(12)),
        ),
        (
            ValueError,
            r"a query \[2, 8\], got \[2, 9\]",
            lambda p, m: SlotEditor(m).insert(torch.ones(2, 9), torch.ones(12)),
        ),
        (
            ValueError,
            r"a head in \[0, 2\)",
            lambda p, m: SlotEditor(m).insert(torch.ones(8), torch.ones(12), head=2),
        ),
        (
            ValueError,
            "finite",
            lambda p, m: SlotEditor(m).insert(torch.full((2, 8), float("inf")), torch.ones(12)),
        ),
    ],
)
def test_edits_that_do_not_fit_say_what_was_expected_and_change_nothing(error, sentence, call):
    layer = inserting_layer()
    before = layer.pool.values.detach().clone()
    with pytest.raises(error, match=sentence):
        call(layer.pool, layer)
    assert torch.equal(layer.pool.values, before)
