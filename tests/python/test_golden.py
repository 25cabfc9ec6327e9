# SPDX-License-Identifier: Apache-2.0
"""Every memory layer case of an independent implementation, on every device."""

import json
from pathlib import Path

import pytest
import torch
from golden import golden_cases
from reference import relative_error
from safetensors import safe_open
from safetensors.torch import load_file

from memlayers import MemoryLayer, MemoryPool, shell_slots

TOLERANCE = 1e-4  # relative, float32; the issue's

# Names of the files: ours.
NAMES = {
    "query_proj.query_mlps.0": "query_proj",
    "swilu_projection": "swilu_proj",
    "value_proj": "value_proj",
    "gating": "gate",
}


def our_name(name: str) -> str:
    module, _, kind = name.rpartition(".")
    return f"{NAMES[module]}.{kind}" if module else name


class Case:
    def __init__(self, path: Path, device: str) -> None:
        with safe_open(path, "pt") as file:
            self.config = json.loads(file.metadata()["config"])
        self.tensors = {name: t.to(device) for name, t in load_file(path).items()}
        c = self.config
        self.count = c.get("layers", 1)
        variant = "peer" if c["peer"] else "memory+" if c["swilu"] else "plain"
        self.pool = MemoryPool.from_row_major(self.row_major("param."))
        self.layers = []
        for index in range(self.count):
            layer = MemoryLayer(
                c["dim"],
                **{name: c[name] for name in ("n_keys", "heads", "knn", "k_dim", "v_dim")},
                variant=variant,
                value_proj=c["value_proj"],
                gate=c["gated"],
                qk_norm=False,
                pool=self.pool,
            ).to(device)
            stored = {
                our_name(name): t.view(layer.keys.shape) if name == "keys" else t
                for name, t in self.named("param.", index).items()
            }
            layer.load_state_dict({**stored, "pool.values": self.pool.values})
            self.layers.append(layer)

    def prefix(self, kind: str, index: int) -> str:
        return f"{kind}{index}." if "layers" in self.config else kind

    def named(self, kind: str, index: int) -> dict[str, torch.Tensor]:
        """What the file holds for one layer, without the pool's table."""
        prefix = self.prefix(kind, index)
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(prefix) and not name.removeprefix(prefix).startswith("values")
        }

    def row_major(self, kind: str) -> torch.Tensor:
        prefix = self.prefix(kind, 0)
        if self.config["peer"]:
            halves = [self.tensors[f"{prefix}values_{half}.weight"] for half in "uv"]
            return torch.cat(halves, 1)
        return self.tensors[prefix + "values.weight"]


@pytest.fixture(params=golden_cases("memory"), ids=lambda path: path.stem)
def case(request, device) -> Case:
    return Case(request.param, device)


def test_output_and_all_gradients_match(case):
    x = case.tensors["input"].clone().requires_grad_()
    y = x
    for layer in case.layers:
        y = layer(y)
    assert relative_error(y, case.tensors["output"]) <= TOLERANCE
    y.backward(case.tensors["grad_output"])
    assert relative_error(x.grad, case.tensors["grad_input"]) <= TOLERANCE
    shell = shell_slots(case.pool.n_keys).to(x.device)
    assert relative_error(case.pool.values.grad[shell], case.row_major("grad.")) <= TOLERANCE
    for index, layer in enumerate(case.layers):
        ours = {k: p for k, p in layer.named_parameters() if not k.startswith("pool.")}
        stored = {our_name(name): grad for name, grad in case.named("grad.", index).items()}
        assert ours.keys() == stored.keys()
        for name, parameter in ours.items():
            wanted = stored[name].view(parameter.shape)
            assert relative_error(parameter.grad, wanted) <= TOLERANCE, name


def test_chosen_slots_and_weights_match(case):
    if "indices" not in case.tensors:
        pytest.skip("the case stores no indices")
    x = case.tensors["input"].view(-1, case.config["dim"])
    slots, weights = case.layers[0].select(x)
    wanted = shell_slots(case.pool.n_keys).to(x.device)[case.tensors["indices"]]
    # Order inside a head is not promised: slots of equal score may stand either way round.
    slots, order = slots.sort(-1)
    wanted, wanted_order = wanted.sort(-1)
    assert torch.equal(slots, wanted)
    wanted_weights = case.tensors["weights"].gather(-1, wanted_order)
    assert relative_error(weights.gather(-1, order), wanted_weights) <= TOLERANCE


def test_a_folder_without_cases_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("MEMLAYERS_GOLDEN_DIR", str(tmp_path))
    with pytest.raises(RuntimeError, match="found none"):
        golden_cases("memory")


def test_a_folder_of_more_cases_adds_them(monkeypatch, tmp_path):
    monkeypatch.delenv("MEMLAYERS_GOLDEN_DIR", raising=False)
    own = golden_cases("memory")
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "another.safetensors").touch()
    monkeypatch.setenv("MEMLAYERS_GOLDEN_DIR", str(tmp_path))
    assert golden_cases("memory") == sorted([*own, tmp_path / "memory" / "another.safetensors"])
