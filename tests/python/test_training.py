# SPDX-License-Identifier: Apache-2.0
"""RowOptimizer and JointOptimizer among PyTorch's own ways of training."""

import copy
import io
import os
import pickle
import socket
import subprocess
import sys

import pytest
import torch
from reference import relative_error

from memlayers import JointOptimizer, MemoryLayer, RowOptimizer, share_pool


def new_layer(**options) -> MemoryLayer:
    torch.manual_seed(3)
    options = {"factored": True, **options}
    return MemoryLayer(6, n_keys=6, heads=2, knn=3, k_dim=4, **options)


def joint(layer: MemoryLayer, **options) -> JointOptimizer:
    dense = [p for p in layer.parameters() if p is not layer.pool.values]
    rows = RowOptimizer(layer.pool.parameters(), lr=0.05, **options)
    return JointOptimizer(torch.optim.AdamW(dense, lr=0.01), rows)


def step(layer, optimizer, seed: int = 0) -> float:
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(seed))
    loss = (layer(x) - x.flip(1)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def test_joined_optimizers_do_what_they_do_apart():
    one, two = new_layer(), new_layer()
    together, apart = joint(one), joint(two).optimizers
    for seed in range(4):
        step(one, together, seed)
        x = torch.randn(16, 6, generator=torch.Generator().manual_seed(seed))
        (two(x) - x.flip(1)).square().mean().backward()
        for optimizer in apart:
            optimizer.step()
            optimizer.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_a_joint_run_goes_on_bit_for_bit_with_its_schedule():
    layer = new_layer()
    optimizer = joint(layer)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)

    def more(layer, optimizer, schedule) -> None:
        for seed in range(4):
            step(layer, optimizer, seed)
            schedule.step()

    more(layer, optimizer, schedule)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates[0] < 0.01 and rates[1] < 0.05
    file = io.BytesIO()
    torch.save([layer.state_dict(), optimizer.state_dict(), schedule.state_dict()], file)
    more(layer, optimizer, schedule)
    file.seek(0)
    again = new_layer()
    other = joint(again)
    schedule2 = torch.optim.lr_scheduler.CosineAnnealingLR(other, 10)
    states = torch.load(file, weights_only=True)
    for part, state in zip((again, other, schedule2), states, strict=True):
        part.load_state_dict(state)
    more(again, other, schedule2)
    assert [g["lr"] for g in other.param_groups] == [g["lr"] for g in optimizer.param_groups]
    for a, b in zip(layer.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_copies_and_pickles_train_alone():
    layer = new_layer()
    optimizer = joint(layer)
    step(layer, optimizer)
    for other, theirs in (
        copy.deepcopy((layer, optimizer)),
        pickle.loads(pickle.dumps((layer, optimizer))),
    ):
        before = layer.pool.values.detach().clone()
        step(other, theirs, 1)
        assert torch.equal(layer.pool.values, before)
        assert not torch.equal(other.pool.values, before)
    step(layer, optimizer, 1)
    assert torch.equal(other.pool.values, layer.pool.values)


def test_wrong_joints():
    layer = new_layer()
    rows = RowOptimizer(layer.pool.parameters())
    with pytest.raises(ValueError, match="expected optimizers, got none"):
        JointOptimizer()
    with pytest.raises(TypeError, match="expected optimizers, got MemoryLayer"):
        JointOptimizer(rows, layer)
    with pytest.raises(ValueError, match="expected optimizers of different parameters"):
        JointOptimizer(rows, RowOptimizer(layer.pool.parameters()))
    optimizer = JointOptimizer(rows)
    with pytest.raises(ValueError, match="to be added to one of optimizers"):
        optimizer.add_param_group({"params": [layer.keys]})
    with pytest.raises(ValueError, match="the states of 1 optimizers, got none"):
        optimizer.load_state_dict({"state": {}})


def test_a_scaled_loss_makes_the_same_joint_step():
    one, two = new_layer(), new_layer()
    plain, scaled = joint(one), joint(two)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    step(one, plain)
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))
    scaler.scale((two(x) - x.flip(1)).square().mean()).backward()
    scaler.step(scaled)
    scaler.update()
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert relative_error(b, a) <= 1e-5
    before = [p.detach().clone() for p in two.parameters()]
    scaler.scale((two(x) * float("inf")).sum()).backward()
    scaler.step(scaled)
    scaler.update()
    assert all(torch.equal(a, b) for a, b in zip(before, two.parameters(), strict=True))
    assert scaler.get_scale() < 1024.0


def test_unscaling_by_the_scaler_is_refused():
    layer = new_layer()
    optimizer = RowOptimizer(layer.pool.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(layer(torch.randn(2, 6)).sum()).backward()
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="expected a step without GradScaler.unscale_"):
        scaler.step(optimizer)


def test_dense_gradients_are_clipped_apart_from_the_pool_s():
    layer = new_layer()
    optimizer = joint(layer, kind="sgd", clip=1e-3)
    dense = [p for p in layer.parameters() if p is not layer.pool.values]
    before = layer.pool.values.detach().clone()
    layer(torch.randn(8, 6)).square().sum().backward()
    assert torch.nn.utils.clip_grad_norm_(layer.parameters(), 1e-3) > 1e-3
    assert torch.nn.utils.get_total_norm([p.grad for p in dense]) <= 1.001e-3
    optimizer.step()
    moved = (layer.pool.values - before).norm() / 0.05
    assert moved.item() == pytest.approx(1e-3, rel=1e-4)


def test_autocast_and_checkpointing_give_the_gradient():
    from torch.utils.checkpoint import checkpoint

    x = torch.randn(8, 6)
    moved = []
    for how in ("plain", "reentrant", "checkpoint", "autocast"):
        layer = new_layer()
        before = layer.pool.values.detach().clone()
        optimizer = RowOptimizer(layer.pool.parameters(), lr=1.0, kind="sgd")
        y = x.clone().requires_grad_()
        if how == "autocast":
            with torch.autocast("cpu", torch.bfloat16):
                out = layer(y)
        elif how == "plain":
            out = layer(y)
        else:
            out = checkpoint(layer, y, use_reentrant=how == "reentrant")
        out.float().square().sum().backward()
        optimizer.step()
        moved.append(layer.pool.values.detach() - before)
    assert torch.equal(moved[0], moved[1]) and torch.equal(moved[0], moved[2])
    assert relative_error(moved[3], moved[0]) < 0.3


def test_a_compiled_layer_trains_with_either_gradient():
    for factored in (False, True):
        plain, compiled = new_layer(factored=factored), new_layer(factored=factored)
        x = torch.randn(8, 6)
        plain(x).square().sum().backward()
        torch.compile(compiled, backend="aot_eager")(x).square().sum().backward()
        for layer in (plain, compiled):
            if factored:
                RowOptimizer(layer.pool.parameters(), lr=0.1, kind="sgd").step()
            else:
                torch.optim.SGD(layer.pool.parameters(), lr=0.1).step()
        assert relative_error(compiled.pool.values, plain.pool.values) <= 1e-6


def test_a_layer_without_storage_gets_it_later():
    with torch.device("meta"):
        layer = new_layer()
        assert layer(torch.randn(3, 6)).is_meta
    layer.to_empty(device="cpu")
    layer.reset_parameters()
    layer.pool.reset_parameters()
    assert torch.equal(layer(torch.ones(2, 6)), layer(torch.ones(2, 6)))
    assert step(layer, joint(layer)) > 0


WORKER = """
import gc, sys, torch, torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from test_training import new_layer
from memlayers import JointOptimizer, RowOptimizer, share_pool
torch.set_num_threads(1)
dist.init_process_group("gloo")
rank, count = dist.get_rank(), dist.get_world_size()
layer = new_layer(variant=sys.argv[3])
with torch.no_grad():
    layer.pool.values.add_(rank)  # which share_pool undoes
share_pool(layer)
model = torch.nn.parallel.DistributedDataParallel(layer)
dense = [p for p in layer.parameters() if p is not layer.pool.values]
optimizer = JointOptimizer(
    torch.optim.AdamW(dense, lr=0.01),
    RowOptimizer(layer.pool.parameters(), lr=0.05, clip=0.1, process_group=dist.group.WORLD),
)
for seed in range(4):
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(seed)).chunk(count)[rank]
    (model(x) - x.flip(1)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
torch.save(layer.state_dict(), f"{sys.argv[2]}/{rank}.pt")
del model, optimizer  # what holds the group: its threads end with it, before the interpreter does
gc.collect()
dist.destroy_process_group()
"""


@pytest.mark.parametrize("variant", ["memory+", "peer"])
def test_two_processes_make_the_steps_of_one(variant, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = os.path.dirname(os.path.abspath(__file__))
    workers = []
    for rank in range(2):
        environment = {
            **os.environ,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "RANK": str(rank),
            "WORLD_SIZE": "2",
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-c", WORKER, here, str(tmp_path), variant]
        workers.append(
            subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        )
    for worker in workers:
        _, errors = worker.communicate(timeout=240)
        assert worker.returncode == 0, errors
    states = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    alone = new_layer(variant=variant)
    optimizer = joint(alone, clip=0.1)
    for seed in range(4):
        step(alone, optimizer, seed)
    for name, tensor in alone.state_dict().items():
        assert torch.equal(states[0][name], states[1][name]), name
        assert relative_error(states[0][name], tensor) <= 1e-4, name


def test_a_pool_that_is_not_factored_is_not_shared():
    with pytest.raises(ValueError, match="a pool of factored=True, found none"):
        share_pool(new_layer(factored=False))
