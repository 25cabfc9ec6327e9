# SPDX-License-Identifier: Apache-2.0
import copy
import io

import pytest
import reference
import torch
from reference import relative_error

from memlayers import MemoryLayer, MemoryPool

SIZES = {"dim": 13, "n_keys": 11, "heads": 3, "knn": 5, "k_dim": 6}
VARIANTS = [
    {},
    {"v_dim": 7, "gate": True},
    {"variant": "plain", "gate": True, "gate_dim": 3, "output_scale": 2.5},
    {"variant": "plain"},
    {"variant": "plain", "v_dim": 7, "qk_norm": False},
    {"variant": "plain", "value_proj": True, "gate": True},
    {"variant": "peer"},
    {"variant": "peer", "v_dim": 7},
    {"heads": 1, "knn": 11},
    {"knn": 1},
]


def make(device: str = "cpu", **changes) -> MemoryLayer:
    return MemoryLayer(**{**SIZES, **changes}).to(device)


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_output_and_gradients_are_the_formula(changes, device):
    layer = make(device, **changes)
    with torch.no_grad():  # biases and scales start at 0 and constants, which would hide mistakes
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape).to(device))
    x = torch.randn(17, SIZES["dim"]).to(device).requires_grad_()
    y = layer(x)
    p = {k: v.detach().double().requires_grad_() for k, v in layer.named_parameters()}
    x2 = x.detach().double().requires_grad_()
    y2 = reference.layer(p, x2, layer.heads, layer.knn, layer.variant, layer.output_scale)
    grad = torch.randn(y.shape).to(device)
    y.backward(grad)
    y2.backward(grad.double())
    # A dozen float32 operations in a row, each over sums of a few dozen terms.
    assert relative_error(y, y2) <= 1e-5
    assert relative_error(x.grad, x2.grad) <= 1e-4
    for name, parameter in layer.named_parameters():
        assert relative_error(parameter.grad, p[name].grad) <= 1e-4, name


@pytest.mark.parametrize("shape", [(13,), (4, 13), (2, 3, 13), (0, 13), (2, 0, 13)])
def test_any_leading_shape_gives_what_its_tokens_give(shape, device):
    layer = make(device)
    x = torch.randn(shape).to(device)
    y = layer(x)
    assert y.shape == shape
    assert torch.equal(y.view(-1, 13), layer(x.view(-1, 13)))


def test_a_strided_input_is_read_as_what_it_shows(device):
    layer = make(device)
    x = torch.randn(13, 5).to(device).T
    assert relative_error(layer(x), layer(x.contiguous())) <= 1e-6


def test_parameters_are_named_as_in_a_model_folder():
    names = set(make(gate=True).state_dict())
    linears = ["query_proj", "swilu_proj", "value_proj", "gate"]
    assert names == {
        "keys",
        "query_norm",
        "key_norm",
        "pool.values",
        *(f"{linear}.{kind}" for linear in linears for kind in ("weight", "bias")),
    }
    assert set(make(variant="plain", qk_norm=False).state_dict()) == {
        "keys",
        "pool.values",
        "query_proj.weight",
        "query_proj.bias",
    }


def test_weights_start_as_the_design_says():
    layer = MemoryLayer(256, n_keys=64, gate=True)
    bound = 128**-0.5
    assert layer.keys.shape == (4, 2, 64, 64)
    assert layer.keys.abs().max() <= bound and layer.keys.abs().max() > 0.99 * bound
    limit = (6 / (256 + 4 * 128)) ** 0.5  # Xavier
    assert 0.99 * limit < layer.query_proj.weight.abs().max() <= limit
    # The standard deviation of N normal numbers is right to about (2 N)^-0.5: here within 5 of it.
    for weight, std in [
        (layer.pool.values, 256**-0.5),
        (layer.swilu_proj.weight, 256**-0.5),
        (layer.value_proj.weight, 256**-0.5),
    ]:
        assert abs(weight.std() / std - 1) < 5 * (2 * weight.numel()) ** -0.5
    for linear in (layer.query_proj, layer.swilu_proj, layer.value_proj, layer.gate):
        assert not linear.bias.any()
    assert (layer.query_norm == 1).all() and (layer.key_norm == bound).all()


def test_layers_over_one_pool_add_their_gradients(device):
    pool = MemoryPool(11, 13)
    first, second = make(pool=pool).to(device), make(pool=pool).to(device)
    assert first.pool is second.pool
    x = torch.randn(6, 13).to(device)
    second(first(x)).square().sum().backward()
    both = pool.values.grad.clone()
    pool.values.grad = None
    alone = [copy.deepcopy(first), copy.deepcopy(second)]
    assert alone[0].pool is not alone[1].pool
    alone[1](alone[0](x)).square().sum().backward()
    apart = alone[0].pool.values.grad + alone[1].pool.values.grad
    assert relative_error(both, apart) <= 1e-5
    modules = torch.nn.ModuleList([first, second])
    assert sum(p is pool.values for p in modules.parameters()) == 1


def test_state_survives_saving(device):
    layer = make(device, gate=True)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = make(device, gate=True)
    other.load_state_dict(torch.load(file, weights_only=True))
    x = torch.randn(4, 13).to(device)
    assert torch.equal(layer(x), other(x))


@pytest.mark.parametrize("variant", ["memory+", "plain", "peer"])
def test_bfloat16_layers_stay_near_float32(variant, device):
    layer = make(device, variant=variant)
    x = torch.randn(6, 13).to(device).bfloat16()
    narrow = copy.deepcopy(layer).bfloat16()
    assert narrow.pool.values.dtype == torch.bfloat16
    y = narrow(x)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in narrow.parameters())
    # The same weights in float32 may choose other slots where scores are nearly equal, so only
    # tokens that read the same slots are compared; a dozen roundings of 2^-9.
    wide = copy.deepcopy(narrow).float()
    same = (
        (narrow.select(x)[0].sort(-1)[0] == wide.select(x.float())[0].sort(-1)[0]).all(-1).all(-1)
    )
    assert same.any()
    assert relative_error(y[same], wide(x.float())[same]) <= 12 * 2.0**-9


def test_autocast_runs(device):
    layer = make(device)
    x = torch.randn(6, 13).to(device).requires_grad_()
    with torch.autocast(device, dtype=torch.bfloat16):
        y = layer(x)
    y.float().sum().backward()
    assert x.grad.isfinite().all() and layer.pool.values.grad.isfinite().all()


WRONG = [
    ({"knn": 12}, r"knn of at most n_keys \(11\), got 12"),
    ({"k_dim": 7}, "k_dim even and >= 2, got 7"),
    ({"heads": 0}, "heads >= 1, got 0"),
    ({"dim": 0}, "dim >= 1, got 0"),
    ({"v_dim": 0}, "v_dim >= 1, got 0"),
    ({"variant": "swilu"}, "variant memory.*, got 'swilu'"),
    ({"v_dim": 7, "value_proj": False}, "value_proj=True where v_dim"),
    ({"pool": MemoryPool(11, 14)}, "pool of n_keys 11 and width 13, got 11 and 14"),
    ({"pool": MemoryPool(11, 13), "variant": "peer"}, "width 26, got 11 and 13"),
]


@pytest.mark.parametrize("changes, sentence", WRONG, ids=str)
def test_an_impossible_layer_is_a_value_error(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(**changes)


def test_a_wrong_input_is_a_value_error():
    with pytest.raises(ValueError, match=r"x \[..., 13\], got \[2, 12\]"):
        make()(torch.zeros(2, 12))
