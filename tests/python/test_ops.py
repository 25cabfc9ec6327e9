# SPDX-License-Identifier: Apache-2.0
"""The operators against plain formulas in float64, at awkward sizes, and their errors."""

import pytest
import reference
import torch
from reference import relative_error

import memlayers

OPS = torch.ops.memlayers

# Sums of up to a few hundred float32 products, each rounded to 2^-24, against float64.
SUM_TOLERANCE = 1e-5
# bfloat16 inputs are exact in float64; results that leave in bfloat16 are rounded to 2^-9.
BFLOAT16_TOLERANCE = 2.0**-8

# n_keys, knn, heads, half of k_dim, tokens
LOOKUPS = [
    (1, 1, 1, 1, 1),
    (3, 3, 2, 3, 5),
    (17, 5, 3, 7, 4),
    (33, 32, 1, 8, 2),
    (64, 16, 4, 16, 9),
]
# tokens, slots a token, width
GATHERS = [(1, 1, 1), (5, 3, 7), (2, 32, 17), (7, 5, 64), (3, 1, 100)]


def normal(*shape: int, device: str, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(shape).to(device, dtype)


def same_leaves(*tensors: torch.Tensor) -> list[torch.Tensor]:
    return [t.detach().double().requires_grad_() for t in tensors]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n, knn, heads, half, tokens", LOOKUPS)
def test_lookup_is_exact(n, knn, heads, half, tokens, dtype, device):
    query = normal(tokens, heads, 2 * half, device=device, dtype=dtype).requires_grad_()
    keys = normal(heads, 2, n, half, device=device, dtype=dtype).requires_grad_()
    slots, scores = memlayers.lookup(query, keys, knn)
    query2, keys2 = same_leaves(query, keys)
    slots2, scores2 = reference.lookup(query2, keys2, knn)
    assert slots.dtype == torch.int64 and scores.dtype == torch.float32
    assert torch.equal(slots, slots2)
    assert relative_error(scores, scores2) <= SUM_TOLERANCE

    grad = normal(*scores.shape, device=device)
    scores.backward(grad)
    scores2.backward(grad.double())
    tolerance = SUM_TOLERANCE if dtype == torch.float32 else BFLOAT16_TOLERANCE
    assert relative_error(query.grad, query2.grad) <= tolerance
    assert relative_error(keys.grad, keys2.grad) <= tolerance
    assert query.grad.dtype == keys.grad.dtype == dtype


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens, count, width", GATHERS)
def test_gather_is_the_weighted_sum(tokens, count, width, dtype, sparse, device):
    values = normal(30, width, device=device, dtype=dtype).requires_grad_()
    slots = torch.randint(0, 30, (tokens, count)).to(device)
    weights = torch.rand(tokens, count).to(device).requires_grad_()
    out = memlayers.gather(values, slots, weights, sparse)
    values2, weights2 = same_leaves(values, weights)
    out2 = reference.gather(values2, slots, weights2)
    assert out.dtype == torch.float32
    assert relative_error(out, out2) <= SUM_TOLERANCE

    grad = normal(*out.shape, device=device)
    out.backward(grad)
    out2.backward(grad.double())
    tolerance = SUM_TOLERANCE if dtype == torch.float32 else BFLOAT16_TOLERANCE
    assert values.grad.is_sparse == sparse
    assert relative_error(values.grad.to_dense(), values2.grad) <= tolerance
    assert relative_error(weights.grad, weights2.grad) <= SUM_TOLERANCE


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("tokens, count, width", GATHERS)
def test_peer_gather_is_the_formula(tokens, count, width, sparse, device):
    values = normal(30, 5 + width, device=device).requires_grad_()
    x = normal(tokens, 5, device=device).requires_grad_()
    slots = torch.randint(0, 30, (tokens, count)).to(device)
    weights = torch.rand(tokens, count).to(device).requires_grad_()
    out = memlayers.peer_gather(values, x, slots, weights, sparse)
    values2, x2, weights2 = same_leaves(values, x, weights)
    out2 = reference.peer_gather(values2, x2, slots, weights2)
    assert relative_error(out, out2) <= SUM_TOLERANCE

    grad = normal(*out.shape, device=device)
    out.backward(grad)
    out2.backward(grad.double())
    assert values.grad.is_sparse == sparse
    for got, wanted in [(values, values2), (x, x2), (weights, weights2)]:
        assert relative_error(got.grad.to_dense(), wanted.grad) <= SUM_TOLERANCE


def test_no_tokens_give_empty_results_and_zero_gradients(device):
    keys = normal(2, 2, 5, 4, device=device).requires_grad_()
    slots, scores = memlayers.lookup(torch.zeros(0, 2, 8, device=device), keys, 3)
    assert slots.shape == scores.shape == (0, 2, 3)
    values = normal(25, 6, device=device).requires_grad_()
    out = memlayers.gather(values, slots.flatten(1), scores.flatten(1))
    assert out.shape == (0, 6)
    out.sum().backward()
    assert not values.grad.any() and not keys.grad.any()


def test_strided_inputs_count_as_their_contiguous_copies(device):
    values = normal(7, 25, device=device).T
    slots = torch.randint(0, 25, (6, 4)).to(device).T
    weights = torch.rand(4, 12).to(device)[:, ::2]
    assert not (values.is_contiguous() or slots.is_contiguous() or weights.is_contiguous())
    expected = memlayers.gather(values.contiguous(), slots.contiguous(), weights.contiguous())
    assert torch.equal(memlayers.gather(values, slots, weights), expected)


# Finite differences in float32: a sum rounded to 2^-24 and divided by 2 eps.


def gradcheck(function, inputs, eps: float, atol: float) -> None:
    with pytest.warns(UserWarning, match="double precision"):
        assert torch.autograd.gradcheck(function, inputs, eps=eps, atol=atol, rtol=1e-3)


def test_gather_gradients_are_finite_differences(device):
    values = normal(9, 3, device=device).requires_grad_()
    slots = torch.tensor([[0, 8, 3, 8], [8, 1, 1, 2]], device=device)
    weights = torch.rand(2, 4).to(device).requires_grad_()
    # Linear in each input: a long step has no truncation error. Sums are below 8.
    gradcheck(lambda v, w: memlayers.gather(v, slots, w), (values, weights), 0.25, 8 * 2.0**-22)


def test_lookup_gradients_are_finite_differences(device):
    # Row scores are 10 i and column scores 3 j, times sums of queries from 1 to 3, plus at most
    # 0.2: no step of 0.05 changes what is chosen or its order. Linear then; sums are below 100.
    index = torch.arange(3.0).view(3, 1)
    keys = torch.stack([10 * index, 3 * index]).expand(2, 3, 2) + 0.05 * torch.rand(2, 3, 2)
    keys = keys.unsqueeze(0).to(device).requires_grad_()
    query = (0.5 + torch.rand(2, 1, 4) * 0.2).to(device).requires_grad_()
    gradcheck(lambda q, k: memlayers.lookup(q, k, 3)[1], (query, keys), 0.05, 100 * 2.0**-24 / 0.05)


def test_peer_gather_gradients_are_finite_differences(device):
    values = normal(9, 5, device=device).requires_grad_()
    x = normal(2, 3, device=device).requires_grad_()
    slots = torch.tensor([[0, 8, 3, 8], [8, 1, 1, 2]], device=device)
    weights = torch.rand(2, 4).to(device).requires_grad_()
    # eps^2 / 6 times a third derivative of at most about 40 (|x|^3 w v gelu''' with these numbers),
    # and rounding of sums below 8 over the step.
    atol = 40 * 0.01**2 / 6 + 8 * 2.0**-24 / 0.01
    gradcheck(
        lambda v, x, w: memlayers.peer_gather(v, x, slots, w), (values, x, weights), 0.01, atol
    )


def test_second_derivatives_are_an_error_not_zero(device):
    values = normal(9, 3, device=device).requires_grad_()
    weights = torch.rand(1, 2).to(device).requires_grad_()
    out = memlayers.gather(values, torch.tensor([[1, 2]], device=device), weights)
    (first,) = torch.autograd.grad(out.square().sum(), weights, create_graph=True)
    with pytest.raises(RuntimeError, match="derivative for memlayers::.* is not implemented"):
        first.sum().backward()


# Errors: (what is wrong, type in Python, a part of the sentence, the call)

Q, K = torch.zeros(2, 3, 8), torch.zeros(3, 2, 9, 4)
V, X = torch.zeros(9, 4), torch.zeros(2, 2)
S, W = torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3)
WRONG = [
    (ValueError, r"knn in \[1, n_keys = 9\] and at most 65535, got 10", lambda: memlayers.lookup(Q, K, 10)),
    (ValueError, r"knn in .* got 0", lambda: memlayers.lookup(Q, K, 0)),
    (ValueError, "query of 3 dimensions", lambda: memlayers.lookup(Q[0], K, 2)),
    (ValueError, "got keys", lambda: memlayers.lookup(Q, K[:2], 2)),
    (TypeError, "query of type", lambda: memlayers.lookup(Q.double(), K.double(), 2)),
    (TypeError, "keys of type", lambda: memlayers.lookup(Q, K.bfloat16(), 2)),
    (ValueError, "weights of the shape of slots", lambda: memlayers.gather(V, S, W[:, :2])),
    (ValueError, "values of 2 dimensions", lambda: memlayers.gather(V[0], S, W)),
    (TypeError, "slots of type", lambda: memlayers.gather(V, S.int(), W)),
    (TypeError, "values of type", lambda: memlayers.gather(V.double(), S, W)),
    (IndexError, r"slots in \[0, 9\), got 9", lambda: memlayers.gather(V, S + 9, W)),
    (IndexError, "got -1 at position 0", lambda: memlayers.gather(V, S - 1, W)),
    (ValueError, "x of 2 tokens", lambda: memlayers.peer_gather(V, X[:1], S, W)),
    (ValueError, "x narrower", lambda: memlayers.peer_gather(V, torch.zeros(2, 4), S, W)),
    (TypeError, "x of type", lambda: memlayers.peer_gather(V, X.double(), S, W)),
    (
        IndexError,
        "got 81",
        lambda: OPS.lookup_backward(torch.zeros(2, 3, 1), Q, K, torch.full((2, 3, 1), 81)),
    ),
    (ValueError, "grad", lambda: OPS.gather_backward_weights(X[:, :1], V, S)),
    (ValueError, r"grad \[2, 4\]", lambda: OPS.gather_backward_values(X[:, :1], V, S, W)),
    (ValueError, "grad", lambda: OPS.peer_gather_backward(X[:, :1], V, X, S, W)),
    (
        ValueError,
        r"grad \[2, 2\]",
        lambda: OPS.peer_gather_backward_values(X[:, :1], V, X, S, W, W),
    ),
    (ValueError, "v_factors", lambda: OPS.peer_gather_backward_values(X, V, X, S, W, W[:1])),
]


@pytest.mark.parametrize("error, sentence, call", WRONG, ids=range(len(WRONG)))
def test_a_wrong_argument_is_the_python_error_of_its_kind(error, sentence, call):
    with pytest.raises(error, match=sentence) as caught:
        call()
    assert "expected" in str(caught.value) and "got" in str(caught.value)
