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

from arms import ARMS, Sizes, measure  # noqa: E402
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


@pytest.fixture
def packages():
    for module in ("product_key_memory", "PEER_pytorch", "matplotlib"):
        pytest.importorskip(module)


DTYPES = [("float32", "float32"), ("bfloat16", "float32"), ("bfloat16", "bfloat16")]


@pytest.mark.parametrize(("dtype", "model_dtype"), DTYPES)
@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_trains(packages, arm, dtype, model_dtype):
    threads = torch.get_num_threads()
    sizes = Sizes(16, 8, 2, 4, 8, 10, dtype, threads, repeat=1, model_dtype=model_dtype)
    result = measure(arm, sizes)
    for part in ("step", "forward", "backward", "update"):
        assert result[f"{part}_ms"] > 0, result


@pytest.mark.parametrize(("dtype", "model_dtype"), DTYPES)
def test_run_gives_a_table_and_a_plot(packages, tmp_path, dtype, model_dtype):
    library = os.environ.get("MEMLAYERS_LIBRARY", ROOT / "build/release/libmemlayers.so")
    command = Path(library).with_name("memlayers")
    if not command.is_file():
        pytest.skip(f"no {command}")
    line = "--n-keys 10 --dim 16 --tokens 8 --heads 2 --knn 4 --k-dim 8 --repeat 1"
    line += f" --dtype {dtype} --model-dtype {model_dtype}"
    arms = ["memlayers", "torch-dense"]
    done = subprocess.run(
        [sys.executable, str(PEERS / "run.py"), *line.split(), "--command", str(command)]
        + ["--out", str(tmp_path), "--arms", ",".join(arms)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    results = [json.loads(text) for text in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [r["arm"] for r in results] == arms
    assert all(r["step_ms"] > 0 and r["n_keys"] == 10 for r in results)
    assert all(r["dtype"] == dtype and r["model_dtype"] == model_dtype for r in results)
    table = (tmp_path / "peers.md").read_text()
    assert done.stdout.strip() == table.strip()
    assert table.count("x |") == 1  # how much faster ours is than the other
    assert "<svg" in (tmp_path / "peers.svg").read_text()
