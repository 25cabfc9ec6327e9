# SPDX-License-Identifier: Apache-2.0
"""What any optimizer of torch has changed is what the next token is decoded with."""

import copy

import pytest
import torch

import memlayers

OPTIMIZERS = {
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.1),
    "fused AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.1, fused=True),
    "fused Adam": lambda parameters: torch.optim.Adam(parameters, lr=0.1, fused=True),
    "fused SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.1, fused=True),
    "foreach AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.1, foreach=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("qk_norm", [False, True])
def test_decoding_reads_what_the_optimizer_wrote(name: str, qk_norm: bool) -> None:
    torch.manual_seed(1)
    layer = memlayers.MemoryLayer(12, n_keys=9, heads=2, knn=4, k_dim=6, qk_norm=qk_norm)
    optimizer = OPTIMIZERS[name](layer.parameters())
    x = torch.randn(20, 12)

    def decoded(of: memlayers.MemoryLayer) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([of(token.unsqueeze(0)) for token in x])

    for _ in range(3):
        before = decoded(layer)
        layer(x).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        after = decoded(layer)
        assert torch.equal(after, decoded(copy.deepcopy(layer)))
        assert not torch.equal(after, before)
