# SPDX-License-Identifier: Apache-2.0
"""RowOptimizer: each kind against a plain loop, and as a torch.optim.Optimizer."""

import copy
import io

import pytest
import torch
from reference import relative_error
from torch.library import opcheck

from memlayers import FactoredGradient, MemoryLayer, MemoryPool, RowOptimizer, factored_grad

OPS = torch.ops.memlayers
KINDS = ["adamw", "rowwise_adamw", "rowwise_adagrad", "sgd"]
SLOTS, WIDTH, LR, EPS, DECAY = 36, 5, 0.05, 1e-6, 0.1
BETAS = (0.8, 0.9)


def dense(parts: list[FactoredGradient]) -> torch.Tensor:
    grad = torch.zeros(SLOTS, WIDTH, dtype=torch.float64)
    for part in parts:
        for t, j in torch.cartesian_prod(*map(torch.arange, part.slots.shape)).tolist():
            columns = slice(part.first_column, part.first_column + part.rows.size(1))
            grad[part.slots[t, j], columns] += part.weights[t, j].double() * part.rows[t].double()
    return grad


def plain_step(kind: str, rows: torch.Tensor, state: dict, grad: torch.Tensor) -> None:
    """One step in float64 of the rows that have a gradient."""
    beta1, beta2 = BETAS
    for s in grad.abs().sum(1).nonzero().flatten().tolist():
        g = grad[s]
        t = state["t"][s] = state["t"][s] + 1
        if kind in ("adamw", "rowwise_adamw"):
            m = state["m"][s] = beta1 * state["m"][s] + (1 - beta1) * g
            square = g * g if kind == "adamw" else (g * g).mean().expand(WIDTH)
            v = state["v"][s] = beta2 * state["v"][s] + (1 - beta2) * square
            change = LR * m / (1 - beta1**t) / ((v / (1 - beta2**t)).sqrt() + EPS)
        elif kind == "rowwise_adagrad":
            v = state["v"][s] = state["v"][s] + (g * g).mean()
            change = LR * g / (v.sqrt() + EPS)
        else:
            change = LR * g
        rows[s] = (1 - LR * DECAY) * rows[s] - change


def plain_state() -> dict[str, torch.Tensor]:
    zeros = torch.zeros(SLOTS, WIDTH, dtype=torch.float64)
    return {"t": torch.zeros(SLOTS, dtype=torch.float64), "m": zeros.clone(), "v": zeros.clone()}


def random_parts() -> list[FactoredGradient]:
    """Two parts of the left and the right columns, and one of all."""
    parts = []
    for first, columns in ((0, 2), (2, WIDTH - 2), (0, WIDTH)):
        slots = torch.randint(0, SLOTS // 2, (4, 3))
        parts.append(FactoredGradient(slots, torch.rand(4, 3), torch.randn(4, columns), first))
    return parts


def make(values: torch.Tensor, kind: str, **options) -> RowOptimizer:
    options = {"lr": LR, "betas": BETAS, "eps": EPS, "weight_decay": DECAY, **options}
    return RowOptimizer([values], kind=kind, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_the_formula_on_touched_rows_and_nothing_on_others(kind, device):
    values = torch.nn.Parameter(torch.randn(SLOTS, WIDTH).to(device))
    before, wanted, state = values.detach().clone(), values.detach().double().cpu(), plain_state()
    optimizer = make(values, kind)
    for _ in range(4):
        parts = random_parts()
        grad = dense(parts)
        for part in parts:
            moved = (t.to(device) for t in (part.slots, part.weights, part.rows))
            factored_grad(values).append(FactoredGradient(*moved, part.first_column))
        optimizer.step()
        plain_step(kind, wanted, state, grad)
        assert optimizer.gradient_norm == pytest.approx(grad.norm().item(), rel=1e-5)
        assert factored_grad(values) == []
    assert relative_error(values, wanted) <= 1e-5
    assert torch.equal(values[SLOTS // 2 :], before[SLOTS // 2 :])


@pytest.mark.parametrize("variant", ["memory+", "peer"])
def test_the_factored_gradient_is_the_dense_one(variant, device):
    torch.manual_seed(3)
    layers = [MemoryLayer(6, n_keys=6, heads=2, knn=3, k_dim=4, variant=variant, factored=f) for f in (False, True)]
    layers[1].load_state_dict(layers[0].state_dict())
    x = torch.randn(7, 6)
    inputs = []
    for layer in layers:
        inputs.append(x.clone().requires_grad_())
        layer(inputs[-1]).square().sum().backward()
    assert layers[1].pool.values.grad is None
    optimizer = RowOptimizer([layers[1].pool.values], lr=1, kind="sgd")
    rows = layers[1].pool.values.detach().clone()
    optimizer.step()
    moved = rows - layers[1].pool.values.detach()
    assert relative_error(moved, layers[0].pool.values.grad) <= 1e-5
    assert relative_error(inputs[1].grad, inputs[0].grad) <= 1e-6
    for (name, got), wanted in zip(layers[1].named_parameters(), layers[0].parameters(), strict=True):
        if name != "pool.values":
            assert relative_error(got.grad, wanted.grad) <= 1e-6, name


def train(layer: MemoryLayer, optimizers: list, steps: int, seed: int = 5) -> list[float]:
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(steps):
        x = torch.randn(16, 6, generator=generator)
        loss = (layer(x) - x.flip(1)).square().mean()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def new_layer(**options) -> MemoryLayer:
    torch.manual_seed(3)
    return MemoryLayer(6, n_keys=6, heads=2, knn=3, k_dim=4, factored=True, **options)


def optimizers_of(layer: MemoryLayer, kind: str = "adamw", **options) -> list:
    others = [p for p in layer.parameters() if p is not layer.pool.values]
    rows = RowOptimizer(layer.pool.parameters(), lr=0.05, kind=kind, **options)
    return [torch.optim.AdamW(others, lr=0.01), rows]


@pytest.mark.parametrize("kind", KINDS)
def test_training_learns(kind):
    layer = new_layer()
    losses = train(layer, optimizers_of(layer, kind), 150)
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


@pytest.mark.parametrize("row_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_bit_by_bit_from_its_state(kind, row_dtype):
    layer = new_layer(row_dtype=row_dtype)
    optimizers = optimizers_of(layer, kind)
    train(layer, optimizers, 5)
    file = io.BytesIO()
    torch.save([layer.state_dict(), *(o.state_dict() for o in optimizers)], file)
    train(layer, optimizers, 5, seed=6)
    file.seek(0)
    saved = torch.load(file)
    again = new_layer(row_dtype=row_dtype)
    others = optimizers_of(again, kind)
    for part, state in zip([again, *others], saved, strict=True):
        part.load_state_dict(state)
    train(again, others, 5, seed=6)
    for name, tensor in layer.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    for own, other in zip(optimizers[1].state.values(), others[1].state.values(), strict=True):
        assert own.keys() == other.keys()
        assert all(type(own[k]) is type(other[k]) for k in own)
        assert all(own[k].dtype == other[k].dtype for k in own if isinstance(own[k], torch.Tensor))


def test_gradients_of_micro_batches_add():
    one, two = new_layer(), new_layer()
    x = torch.randn(8, 6)
    (one(x).square().sum()).backward()
    for part in x.split(2):
        two(part).square().sum().backward()
    for layer in (one, two):
        RowOptimizer([layer.pool.values], lr=0.1, kind="sgd").step()
    assert relative_error(two.pool.values, one.pool.values) <= 1e-6


def test_groups_schedules_and_clipping_are_torch_s():
    first, second = MemoryPool(6, WIDTH, factored=True), MemoryPool(6, WIDTH, factored=True)
    optimizer = RowOptimizer(
        [{"params": [first.values]}, {"params": [second.values], "lr": 0.5, "clip": 0.25}],
        lr=1.0,
        kind="sgd",
    )
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    slots, weights = torch.tensor([[3]]), torch.ones(1, 1)
    for pool in (first, second):
        pool.values.data.zero_()
    for _ in range(2):
        for pool in (first, second):
            factored_grad(pool.values).append(
                FactoredGradient(slots, weights, torch.tensor([[3.0, 4.0, 0, 0, 0]]))
            )
        optimizer.step()
        schedule.step()
        assert optimizer.gradient_norm == pytest.approx(50**0.5)
    assert first.values[3, 0].item() == pytest.approx(-3 * (1 + 0.5))
    assert second.values[3, 1].item() == pytest.approx(-4 * 0.05 * 0.5 * (1 + 0.5))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_nothing(bad):
    layer = new_layer()
    optimizer = RowOptimizer(layer.pool.parameters())
    before = copy.deepcopy(layer.pool.values.detach())
    factored_grad(layer.pool.values).append(
        FactoredGradient(torch.tensor([[3]]), torch.ones(1, 1), torch.full((1, 6), bad))
    )
    with pytest.warns(UserWarning, match=f"expected a finite gradient, got one of norm {bad}"):
        optimizer.step()
    assert torch.equal(layer.pool.values, before) and not torch.isfinite(
        torch.tensor(optimizer.gradient_norm)
    )
    assert factored_grad(layer.pool.values) == []


def test_a_scaled_loss_gives_the_same_step():
    plain, scaled = new_layer(), new_layer()
    x = torch.randn(8, 6)
    ours = [optimizers_of(layer, "sgd") for layer in (plain, scaled)]
    plain(x).square().mean().backward()
    for optimizer in ours[0]:
        optimizer.step()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(scaled(x).square().mean()).backward()
    for optimizer in ours[1]:
        scaler.step(optimizer)
    scaler.update()
    assert relative_error(scaled.pool.values, plain.pool.values) <= 1e-6


def test_sparse_gradients_are_taken_too():
    layer, other = new_layer(), new_layer()
    other.pool.factored, other.pool.sparse = False, True
    x = torch.randn(8, 6)
    for each in (layer, other):
        each(x).square().sum().backward()
        RowOptimizer(each.pool.parameters()).step()
    assert relative_error(other.pool.values, layer.pool.values) <= 1e-5


def test_an_update_is_seen_by_whoever_counts_versions():
    layer = new_layer()
    optimizer = RowOptimizer(layer.pool.parameters())
    versions = []
    for _ in range(2):  # the first makes the state
        layer(torch.randn(2, 6)).sum().backward()
        optimizer.step()
        state = optimizer.state[layer.pool.values]
        tables = [layer.pool.values, state["exp_avg"], state["exp_avg_sq"], state["steps"]]
        versions.append([table._version for table in tables])
    assert all(before < after for before, after in zip(*versions, strict=True))


def test_bfloat16_rows_are_rounded_stochastically_or_from_a_copy():
    parts = [FactoredGradient(torch.arange(36).view(1, 36), torch.ones(1, 36), torch.ones(1, 64))]
    for master in (False, True):
        values = torch.nn.Parameter(torch.ones(36, 64, dtype=torch.bfloat16))
        optimizer = RowOptimizer([values], lr=2.0**-10, kind="sgd", master_rows=master)
        for _ in range(8):
            factored_grad(values).extend(parts)
            optimizer.step()
        # Eight steps of an eighth of what bfloat16 tells apart below one; each is rounded.
        tolerance = 0 if master else 5 * 2.0**-8 * (8 / 4) ** 0.5 / (36 * 64) ** 0.5
        assert abs(values.float().mean().item() - (1 - 2.0**-7)) <= tolerance
        assert master or len(values.unique()) > 1


@pytest.mark.parametrize(
    "error, sentence, options",
    [
        (ValueError, "kind one of adamw, .*, got 'adam'", {"kind": "adam"}),
        (ValueError, "lr of at least 0.0, got -1", {"lr": -1}),
        (ValueError, r"betas in \[0, 1\), got \(0.9, 1\)", {"betas": (0.9, 1)}),
        (ValueError, "clip above 0, got 0", {"clip": 0}),
    ],
)
def test_wrong_options(error, sentence, options):
    with pytest.raises(error, match=f"RowOptimizer: expected {sentence}"):
        RowOptimizer(MemoryPool(3, 4).parameters(), **options)


def dense_pair(row_dtype=torch.float32, **options):
    """A layer under RowOptimizer's dense_adamw, and its twin under torch's AdamW."""
    layers = [new_layer(), new_layer()]
    layers[1].pool.factored = False
    rows = RowOptimizer(
        layers[0].pool.parameters(), lr=0.05, kind="dense_adamw", betas=(0.9, 0.95), **options
    )
    plain = torch.optim.AdamW(
        layers[1].pool.parameters(), lr=0.05, betas=(0.9, 0.95), eps=1e-8,
        weight_decay=options.get("weight_decay", 0.0),
    )  # fmt: skip
    return layers, rows, plain


def few(step: int) -> torch.Tensor:
    """Inputs that read some rows now and others later."""
    generator = torch.Generator().manual_seed(step // 5)
    return torch.randn(1, 6, generator=generator)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_dense_adamw_is_that_of_the_whole_pool(weight_decay):
    layers, rows, plain = dense_pair(weight_decay=weight_decay)
    for step in range(40):
        losses = []
        for layer, optimizer in zip(layers, (rows, plain), strict=True):
            loss = layer(few(step)).square().sum()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)
        for parameter in layers[0].parameters():
            parameter.grad = None
    lagging = layers[0].pool.values.detach().clone()
    state = layers[0].state_dict()["pool.values"]
    assert not torch.equal(state, lagging), "rows that nothing read have moved on"
    assert (state - layers[1].pool.values).abs().max() < 1e-3 * 0.05 * 40
    before = lagging_error(lagging, layers[1])
    assert before > 10 * lagging_error(state, layers[1])


def lagging_error(rows, layer) -> float:
    return (rows - layer.pool.values).abs().max().item()


def test_a_dense_run_goes_on_from_its_state_and_its_copies_are_whole():
    (layer, _), rows, _ = dense_pair()

    def more(layer, optimizer, first: int) -> None:
        for step in range(first, first + 12):
            layer(few(step)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    more(layer, rows, 0)
    file = io.BytesIO()
    torch.save([layer.state_dict(), rows.state_dict()], file)
    copied, its = copy.deepcopy((layer, rows))
    more(layer, rows, 12)
    wanted = layer.state_dict()["pool.values"]
    file.seek(0)
    states = torch.load(file)
    again = new_layer()
    other = RowOptimizer(again.pool.parameters(), lr=0.05, kind="dense_adamw")
    again.load_state_dict(states[0])
    other.load_state_dict(states[1])
    for one, optimizer in ((again, other), (copied, its)):
        more(one, optimizer, 12)
        assert torch.equal(one.state_dict()["pool.values"], wanted)


def test_dense_adamw_refuses_what_it_cannot():
    layer = new_layer()
    optimizer = RowOptimizer(layer.pool.parameters(), kind="dense_adamw", betas=(0.99, 0.9))
    layer(few(0)).sum().backward()
    with pytest.raises(ValueError, match="beta1"):
        optimizer.step()
    optimizer = RowOptimizer(layer.pool.parameters(), kind="dense_adamw")
    layer(few(0)).sum().backward()
    optimizer.step()
    with pytest.raises(IndexError, match="36"):
        layer.pool.gather(torch.tensor([[36]]), torch.ones(1, 1))
    meta = torch.nn.Parameter(torch.empty(4, 2, device="meta"))
    with pytest.raises(ValueError, match="values on the CPU for dense_adamw, got meta"):
        RowOptimizer([meta], kind="dense_adamw")


def test_what_is_no_table_or_has_a_dense_gradient_is_refused():
    with pytest.raises(TypeError, match=r"expected values \[slots, width\]"):
        RowOptimizer([torch.nn.Parameter(torch.zeros(3))])
    pool = MemoryPool(3, 4)
    pool(torch.tensor([[1]]), torch.ones(1, 1)).sum().backward()
    with pytest.raises(ValueError, match="factored=True or sparse=True, got a dense"):
        RowOptimizer(pool.parameters()).step()


def test_operators_pass_opcheck(device):
    slots = [torch.randint(0, SLOTS, (3, 2)).to(device)]
    weights, rows = [torch.rand(3, 2).to(device)], [torch.randn(3, WIDTH).to(device)]
    opcheck(OPS.group.default, (slots, SLOTS), test_utils=("test_schema", "test_faketensor"))
    grouped = OPS.group(slots, SLOTS)
    gradient = (weights, rows, [0], *grouped)
    opcheck(OPS.row_squares.default, (*gradient, WIDTH))
    table = torch.randn(SLOTS, WIDTH).to(device)
    wide, one = table.square(), table.square()[:, 0].contiguous()
    steps = torch.zeros(SLOTS, dtype=torch.int32, device=device)
    numbers = (0.1, 0.9, 0.95, 1e-8, 0.1, 1.0, 7)
    opcheck(OPS.update_adamw.default, (table, wide, wide.clone(), steps, None, *gradient, *numbers))
    opcheck(OPS.update_rowwise_adamw.default, (table, wide, one, steps, None, *gradient, *numbers))
    opcheck(
        OPS.update_rowwise_adagrad.default,
        (table, one, None, *gradient, 0.1, 1e-8, 0.1, 1.0, 7),
    )
    opcheck(OPS.update_sgd.default, (table, None, *gradient, 0.1, 0.1, 1.0, 7))
