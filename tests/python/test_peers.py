# SPDX-License-Identifier: Apache-2.0
"""bench/peers: the layer in plain PyTorch is ours, and one tiny run gives a table and a plot."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from reference import relative_error

from memlayers import MemoryLayer, shell_slots

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "bench" / "peers"
sys.path.insert(0, str(PEERS))

from layers import TorchMemoryLayer  # noqa: E402

SIZES = {"n_keys": 10, "heads": 3, "knn": 6, "k_dim": 8}


def twins(sparse: bool) -> tuple[MemoryLayer, TorchMemoryLayer]:
    ours = MemoryLayer(16, **SIZES, sparse=sparse)
    theirs = TorchMemoryLayer(16, **SIZES, sparse=sparse)
    weights = {k: v for k, v in ours.state_dict().items() if k != "pool.values"}
    theirs.load_state_dict({**weights, "values": ours.pool.to_row_major()})
    return ours, theirs


@pytest.mark.parametrize("sparse", [False, True])
def test_torch_layer_gives_our_outputs_and_gradients(sparse):
    ours, theirs = twins(sparse)
    x = torch.randn(20, 16)
    grad = torch.randn(20, 16)
    inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    outputs = [ours(inputs[0]), theirs(inputs[1])]
    assert relative_error(outputs[1], outputs[0]) < 1e-5
    for y in outputs:
        y.backward(grad)
    assert relative_error(inputs[1].grad, inputs[0].grad) < 1e-5
    wanted = {k: p.grad for k, p in ours.named_parameters()}
    for name, parameter in theirs.named_parameters():
        if name == "values":
            row_major = wanted["pool.values"].to_dense()[shell_slots(SIZES["n_keys"])]
            assert relative_error(parameter.grad.to_dense(), row_major) < 1e-5
        else:
            assert relative_error(parameter.grad, wanted[name]) < 1e-5, name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_run_measures_every_arm(tmp_path, dtype):
    for module in ("product_key_memory", "PEER_pytorch", "matplotlib"):
        pytest.importorskip(module)
    library = os.environ.get("MEMLAYERS_LIBRARY", ROOT / "build/release/libmemlayers.so")
    command = Path(library).with_name("memlayers")
    if not command.is_file():
        pytest.skip(f"no {command}")
    line = f"--n-keys 8,10 --dim 16 --tokens 8 --heads 2 --knn 4 --k-dim 8 --repeat 1 --dtype {dtype}"
    done = subprocess.run(
        [sys.executable, str(PEERS / "run.py"), *line.split(), "--command", str(command)]
        + ["--out", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    results = [json.loads(text) for text in (tmp_path / "results.jsonl").read_text().splitlines()]
    arms = {"memlayers", "memlayers-adagrad", "memlayers-sgd", "memlayers-peer", "torch-dense", "torch-sparse"}
    arms |= {"torch-sparse-sgd", "lucidrains-pkm", "lucidrains-peer"}
    assert {(r["arm"], r["n_keys"]) for r in results} == {(a, n) for a in arms for n in (8, 10)}
    for r in results:
        assert r["step_ms"] > 0 and r["forward_ms"] > 0 and r["backward_ms"] > 0, r
    table = (tmp_path / "peers.md").read_text()
    assert done.stdout.strip() == table.strip()
    assert table.count("x |") == 2 * 5  # a ratio for each arm that is not ours
    assert "<svg" in (tmp_path / "peers.svg").read_text()
