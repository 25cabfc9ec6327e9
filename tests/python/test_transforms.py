# SPDX-License-Identifier: Apache-2.0
"""A layer under torch.func, DistributedDataParallel and other tools that look into modules."""

import copy
import gc
import io
import pickle

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from reference import relative_error
from torch.func import functional_call, grad, jvp, vjp, vmap
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from memlayers import MemoryLayer, MemoryPool

SIZES = {"n_keys": 8, "heads": 2, "knn": 4, "k_dim": 8}
VARIANTS = pytest.mark.parametrize("variant", ["memory+", "peer"])


def parameters(layer: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in layer.named_parameters()}


def gradients(layer: torch.nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    layer.zero_grad()
    layer(x).square().sum().backward()
    return {name: p.grad.to_dense() for name, p in layer.named_parameters()}


def assert_near(got: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert relative_error(got[name], tensor) <= 1e-5, name  # sums in another order


@VARIANTS
def test_func_grad_is_what_backward_gives(variant, device):
    layer = MemoryLayer(16, variant=variant, **SIZES).to(device)
    x = torch.randn(5, 16).to(device)
    got = grad(lambda p: functional_call(layer, p, (x,)).square().sum())(parameters(layer))
    assert_near(got, gradients(layer, x))


@VARIANTS
def test_gradients_of_each_sample_are_those_of_it_alone(variant, device):
    layer = MemoryLayer(16, variant=variant, **SIZES).to(device)
    x = torch.randn(3, 2, 16).to(device)

    def loss(p, sample):
        return functional_call(layer, p, (sample,)).square().sum()

    got = vmap(grad(loss), in_dims=(None, 0))(parameters(layer), x)
    for i in range(3):
        assert_near({name: g[i] for name, g in got.items()}, gradients(layer, x[i]))


def test_an_ensemble_of_layers_is_mapped_over(device):
    layers = [MemoryLayer(16, **SIZES).to(device) for _ in range(3)]
    stacked = {
        name: torch.stack([parameters(layer)[name] for layer in layers])
        for name in parameters(layers[0])
    }
    x = torch.randn(4, 16).to(device)
    got = vmap(lambda p: functional_call(layers[0], p, (x,)))(stacked)
    for out, layer in zip(got, layers, strict=True):
        assert relative_error(out, layer(x)) <= 1e-5


def test_vjp_is_what_backward_gives(device):
    layer = MemoryLayer(16, **SIZES).to(device)
    x = torch.randn(4, 16).to(device)
    out, pull = vjp(layer, x)
    x2 = x.clone().requires_grad_()
    layer(x2).backward(out)
    assert relative_error(pull(out)[0], x2.grad) <= 1e-5


def test_forward_derivatives_are_an_error_not_zero(device):
    layer = MemoryLayer(16, **SIZES).to(device)
    x = torch.randn(4, 16).to(device)
    with pytest.raises(NotImplementedError, match="lookup_softmax: expected no forward-mode"):
        jvp(layer, (x,), (x,))


@VARIANTS
def test_a_gradient_recorded_on_the_side_is_not_lost_in_a_transform(variant, device):
    layer = MemoryLayer(16, variant=variant, factored=True, **SIZES).to(device)
    x = torch.randn(4, 16).to(device)
    refused = pytest.raises(NotImplementedError, match="factored=True.*: expected no transform")
    with refused:
        grad(lambda p: functional_call(layer, p, (x,)).sum())(parameters(layer))
    with refused:
        vmap(layer)(x)


def test_a_graph_is_freed_and_says_so(device):
    layer = MemoryLayer(16, **SIZES).to(device)
    loss = layer(torch.randn(4, 16).to(device)).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


def test_a_changed_tensor_is_not_differentiated_at(device):
    layer = MemoryLayer(16, **SIZES).to(device)
    loss = layer(torch.randn(4, 16).to(device)).sum()
    with torch.no_grad():
        layer.pool.values.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_activations_change_nothing(reentrant, device):
    layer = MemoryLayer(16, **SIZES).to(device)
    x = torch.randn(4, 16).to(device).requires_grad_()
    wanted = gradients(layer, x)
    layer.zero_grad()
    checkpoint(layer, x, use_reentrant=reentrant).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert torch.equal(parameter.grad, wanted[name]), name


def test_tensors_saved_for_backward_can_be_kept_elsewhere(device):
    layer = MemoryLayer(16, **SIZES).to(device)
    x = torch.randn(4, 16).to(device)
    wanted = gradients(layer, x)
    layer.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
        layer(x).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert torch.equal(parameter.grad, wanted[name]), name


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_share_one_pool_as_the_layers_did(copied):
    pool = MemoryPool(8, 16)
    model = torch.nn.Sequential(*(MemoryLayer(16, pool=pool, **SIZES) for _ in range(2)))
    again = copied(model)
    assert again[0].pool is again[1].pool is not pool
    x = torch.randn(3, 16)
    assert torch.equal(again(x), model(x))


def test_a_state_dict_goes_through_a_file():
    layer, other = MemoryLayer(16, **SIZES), MemoryLayer(16, **SIZES)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file))
    x = torch.randn(3, 16)
    assert torch.equal(other(x), layer(x))


# Two processes, gloo: DistributedDataParallel of a layer with a dense or a sparse gradient.


def run_rank(rank: int, file: str, sparse: bool, results) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    torch.manual_seed(3)
    layer = DistributedDataParallel(MemoryLayer(16, sparse=sparse, **SIZES))
    torch.manual_seed(rank)
    layer(torch.randn(5, 16)).square().mean().backward()
    results.put({n: p.grad.to_dense().numpy() for n, p in layer.module.named_parameters()})
    results.put(layer.module.pool.values.grad.is_sparse)
    dist.barrier()
    del layer  # what holds the group: its threads end with it, before the interpreter does
    gc.collect()
    dist.destroy_process_group()


@pytest.mark.parametrize("sparse", [False, True])
def test_ddp_averages_the_gradients_of_its_processes(sparse, tmp_path):
    context = mp.get_context("spawn")
    results = context.Queue()
    ranks = [
        context.Process(
            target=run_rank, args=(rank, str(tmp_path / "store"), sparse, results), daemon=True
        )
        for rank in range(2)
    ]
    for rank in ranks:
        rank.start()
    try:
        got = [results.get(timeout=240) for _ in range(4)]
    finally:  # torch may hang where the interpreter ends (pytorch issue 190489): that is not asked here
        for rank in ranks:
            rank.join(20)
            rank.kill()
    both = [item for item in got if isinstance(item, dict)]
    assert [item for item in got if isinstance(item, bool)] == [sparse, sparse]
    torch.manual_seed(3)
    layer = MemoryLayer(16, **SIZES)
    alone = []
    for rank in range(2):
        torch.manual_seed(rank)
        layer.zero_grad()
        layer(torch.randn(5, 16)).square().mean().backward()
        alone.append({n: p.grad.clone() for n, p in layer.named_parameters()})
    for name in alone[0]:
        mean = (alone[0][name] + alone[1][name]) / 2
        for of_rank in both:
            assert relative_error(torch.from_numpy(of_rank[name]), mean) <= 1e-5, name


def test_transformers_saves_a_pool_of_several_layers_once(tmp_path):
    transformers = pytest.importorskip("transformers")
    safetensors = pytest.importorskip("safetensors.torch")
    config = transformers.LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
    )
    model = transformers.LlamaForCausalLM(config)
    pool = MemoryPool(8, 16)
    for i in (0, 2):
        model.model.layers[i].mlp = MemoryLayer(16, pool=pool, **SIZES)
    model.save_pretrained(tmp_path)
    state = safetensors.load_file(tmp_path / "model.safetensors")
    names = [name for name in state if name.endswith("pool.values")]
    assert len(names) == 1 and torch.equal(state[names[0]], pool.values)
    assert sum(name.endswith("mlp.keys") for name in state) == 2
