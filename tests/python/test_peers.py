# SPDX-License-Identifier: Apache-2.0
"""bench/peers: the layer in plain PyTorch is ours, every arm trains, a run gives a table."""

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

import run  # noqa: E402
from arms import ARMS, Sizes, measure  # noqa: E402
from layers import TorchMemoryLayer  # noqa: E402
from report import plot  # noqa: E402

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


DTYPES = [("float32", "float32"), ("bfloat16", "float32"), ("bfloat16", "bfloat16")]
PACKAGES = {"lucidrains-pkm": "product_key_memory", "lucidrains-peer": "PEER_pytorch"}


@pytest.mark.parametrize(("dtype", "model_dtype"), DTYPES)
@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_trains(arm, dtype, model_dtype):
    if arm in PACKAGES:
        pytest.importorskip(PACKAGES[arm])
    threads = torch.get_num_threads()
    sizes = Sizes(16, 8, 2, 4, 8, 10, dtype, threads, repeat=1, model_dtype=model_dtype)
    result = measure(arm, sizes)
    for part in ("step", "forward", "backward", "update"):
        assert result[f"{part}_ms"] > 0, result


def test_a_run_gives_the_times_of_each_arm_and_their_ratios(tmp_path):
    library = os.environ.get("MEMLAYERS_LIBRARY", ROOT / "build/release/libmemlayers.so")
    command = Path(library).with_name("memlayers")
    if not command.is_file():
        pytest.skip(f"no {command}")
    line = "--n-keys 16 --dim 64 --tokens 8 --heads 2 --knn 4 --k-dim 16 --repeat 1"
    line += " --dtype bfloat16 --model-dtype bfloat16"
    arms = ["memlayers", "torch-dense", "torch-sparse"]
    done = subprocess.run(
        [sys.executable, str(PEERS / "run.py"), *line.split(), "--command", str(command)]
        + ["--out", str(tmp_path), "--arms", ",".join(arms)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    results = [json.loads(text) for text in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [r["arm"] for r in results] == arms
    ours = results[0]
    assert (ours["bench"], ours["slots"], ours["v_dim"]) == ("step", 256, 64)  # the command's word
    assert ours["limit_ms"] > 0
    for r in results:
        assert (r["n_keys"], r["dtype"], r["model_dtype"]) == (16, "bfloat16", "bfloat16")
        for part in ("step", "forward", "backward", "update"):
            assert r[f"{part}_ms"] > 0, r
    table = (tmp_path / "peers.md").read_text()
    assert done.stdout.strip() == table.strip()
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()[2:]]
    assert [row[:3] for row in rows] == [["bfloat16", "16²", arm] for arm in arms]
    assert [row[3] for row in rows] == [f"{r['step_ms']:.1f}" for r in results]
    ratios = [f"{r['step_ms'] / ours['step_ms']:.1f}x" for r in results[1:]]
    assert [row[-1] for row in rows] == ["", *ratios]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["peers.md", "results.jsonl"]


ROUNDS = [
    ([30.0, 20.0, 25.0], {"step_ms": 20.0}, 3),
    ([30.0, None, 25.0], {"step_ms": 25.0}, 3),  # what was measured stays where a round does not fit
    ([None, 20.0, 25.0], {"skipped": "too large"}, 1),
    ([run.ONCE_MS + 1.0, 20.0], {"step_ms": run.ONCE_MS + 1.0}, 1),
]


@pytest.mark.parametrize(("steps", "wanted", "asked"), ROUNDS)
def test_an_arm_s_fastest_round_counts(monkeypatch, steps, wanted, asked):
    left = iter([{"skipped": "too large"} if ms is None else {"step_ms": ms} for ms in steps])
    count = []

    def measure_ours(command, arm, sizes):
        count.append(arm)
        return next(left)

    monkeypatch.setattr(run, "measure_ours", measure_ours)
    monkeypatch.setattr(sys, "argv", ["run.py", "--arms", "memlayers", "--rounds", str(len(steps))])
    assert run.measure(run.arguments(), Sizes()) == [wanted]
    assert len(count) == asked


TORCH_SAYS = "RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."


@pytest.mark.parametrize(
    ("code", "stderr", "skipped"),
    [
        (1, "memlayers: error: bench: expected 2 GiB of free memory, found 1 GiB\n",
         "bench: expected 2 GiB of free memory, found 1 GiB"),
        (1, f"Traceback\n{TORCH_SAYS}\n", TORCH_SAYS),
        (-9, "", "out of memory"),
    ],
)  # fmt: skip
def test_an_arm_that_does_not_fit_is_left_out(code, stderr, skipped):
    done = subprocess.CompletedProcess([], code, "", stderr)
    assert run.answer(done, {"arm": "a"}) == {"arm": "a", "skipped": skipped}


def test_an_arm_that_fails_ends_the_run():
    done = subprocess.CompletedProcess([], 1, "", "Traceback\nTypeError: no\n")
    with pytest.raises(SystemExit, match="a: exit 1: TypeError: no"):
        run.answer(done, {"arm": "a"})


def test_a_plot_without_matplotlib_is_refused_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["run.py", "--plot", "peers.svg", "--out", str(out)])
    with pytest.raises(SystemExit) as stopped:
        run.main()
    said = "run.py: --plot: expected matplotlib, found none (make peers-install installs it)"
    assert stopped.value.code == said
    assert not out.exists()


def test_a_plot_has_a_line_for_each_arm(tmp_path):
    pytest.importorskip("matplotlib")
    case = {"dtype": "float32", "limit_ms": 1.0}
    results = [
        {**case, "arm": arm, "n_keys": n_keys, "step_ms": n_keys / 8}
        for n_keys in (16, 32)
        for arm in ("memlayers", "torch-dense")
    ]
    plot(results, tmp_path / "peers.svg")
    text = (tmp_path / "peers.svg").read_text()
    assert all(
        f"<!-- {label} -->" in text for label in ("memlayers", "torch-dense", "float32 rows")
    )
