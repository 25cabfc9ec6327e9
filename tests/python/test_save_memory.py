# SPDX-License-Identifier: Apache-2.0
"""The memory of a model as a folder beside it: written, read, wrong in every way."""

import copy
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import logits, pattern, tiny, tokens

from memlayers import (
    Error,
    MemoryPool,
    add_memory,
    load_memory,
    load_pool,
    memory_layers,
    save_memory,
)

SMALL = {"n_keys": 8, "heads": 2, "knn": 4, "k_dim": 8}


def trained(name: str = "llama", **options):
    """A model whose memory says something."""
    model = tiny(name)
    layers = add_memory(model, pattern(name), **{**SMALL, **options})
    with torch.no_grad():
        for layer in layers.values():
            for part, parameter in layer.named_parameters():
                if part != "pool.values":
                    parameter.normal_(std=0.3)
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "memory"
    save_memory(trained(gate=True), folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "memory"))


@pytest.mark.parametrize("placement", ["beside", "replace"])
@pytest.mark.parametrize("variant", ["memory+", "plain", "peer"])
def test_another_copy_of_the_model_says_the_same_with_it(placement, variant, tmp_path):
    options = {"placement": placement, "variant": variant, "row_dtype": torch.bfloat16}
    model = trained(**options)
    save_memory(model, tmp_path / "memory")
    other = tiny("llama")
    layers = load_memory(other, tmp_path / "memory", factored=True)
    assert torch.equal(logits(other, tokens()), logits(model, tokens()))
    (pool,) = {layer.pool for layer in layers.values()}
    assert pool.factored and pool.values.requires_grad and pool.values.dtype == torch.bfloat16
    assert [p for _, p in memory_layers(other).values()] == [placement] * len(layers)
    save_memory(other, tmp_path / "again")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        mine, theirs = ((tmp_path / f / name).read_bytes() for f in ("memory", "again"))
        assert mine == theirs, name
    ids = [torch.ops.memlayers.pool_id(str(tmp_path / f / "pool")) for f in ("memory", "again")]
    assert ids[0] == ids[1], "patches made for the one fit the other"


def test_what_is_in_the_folder(saved):
    assert sorted(os.listdir(saved)) == ["adapter_config.json", "adapter_model.safetensors", "pool"]
    config = json.loads((saved / "adapter_config.json").read_text())
    assert (config["peft_type"], config["version"]) == ("MEMLAYERS", 1)
    assert config["base_model_class"] == "LlamaForCausalLM"
    names = [module["name"] for module in config["modules"]]
    assert names == ["model.layers.0.mlp", "model.layers.2.mlp"]
    weights = load_file(saved / "adapter_model.safetensors")
    assert all(name.startswith("base_model.model.model.layers.") for name in weights)
    assert load_pool(saved).shape == (64, 32)


def test_it_is_written_once_and_whole(saved, tmp_path):
    with pytest.raises(FileExistsError, match="expected a folder that does not exist yet"):
        save_memory(trained(), saved)
    model = trained()
    next(iter(memory_layers(model).values()))[0].keys.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="keys of model.layers.0.mlp has NaN or infinity"):
        save_memory(model, tmp_path / "bad")
    model = trained()
    next(iter(memory_layers(model).values()))[0].pool.values.data[3, 0] = float("inf")
    with pytest.raises(Error, match="NaN or infinity"):
        save_memory(model, tmp_path / "bad")
    with pytest.raises(ValueError, match="expected a model with memory, found none"):
        save_memory(tiny("llama"), tmp_path / "bad")
    model = tiny("llama")
    for layer in (0, 2):
        add_memory(model, [layer], **SMALL)
    with pytest.raises(ValueError, match="memory over one pool, got 2 pools"):
        save_memory(model, tmp_path / "bad")
    assert os.listdir(tmp_path) == []


def edit(folder: Path, **fields) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def edit_module(folder: Path, **fields) -> None:
    module = json.loads((folder / "adapter_config.json").read_text())["modules"][0]
    edit(folder, modules=[{**module, **fields}])


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda f: edit(f, version=2), "version: expected 1, got 2: a newer memlayers wrote it"),
        (lambda f: edit(f, version="1"), "version: expected 1, got '1'"),
        (lambda f: edit(f, peft_type="LORA"), "peft_type: expected 'MEMLAYERS', got 'LORA'"),
        (lambda f: edit(f, modules=[]), r"modules: expected a list of blocks, got \[\]"),
        (lambda f: edit(f, modules=[{"name": "x"}]), "modules: expected the fields name, placem"),
        (lambda f: edit_module(f, n_keys="8"), "modules: n_keys: expected int, got '8'"),
        (lambda f: edit_module(f, n_keys=16), "do not fit: MemoryLayer: expected a pool of n_keys"),
        (lambda f: edit_module(f, n_keys=-1), "do not fit: MemoryLayer: expected n_keys >= 1"),
        (lambda f: edit_module(f, k_dim=16), "do not fit: .*size mismatch for keys"),
        (lambda f: edit_module(f, gate=False), "do not fit: .*Unexpected key"),
        (lambda f: edit_module(f, variant="other"), "do not fit: .*variant memory"),
        (lambda f: edit_module(f, placement="on"), "placement: expected beside or replace"),
        (lambda f: edit_module(f), 'layers.2.mlp.memory.*: expected none of this name by adapter'),
        (lambda f: (f / "adapter_config.json").write_text("["), "that save_memory wrote: Expect"),
        (lambda f: (f / "adapter_config.json").write_text("[" * 9999), "that save_memory wrote: "),
        (lambda f: (f / "adapter_config.json").unlink(), "that save_memory wrote: .*No such file"),
        (lambda f: (f / "adapter_model.safetensors").unlink(), "the memory's weights: .*No such"),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b"x" * 99), "memory's weights: "),
        (lambda f: shutil.rmtree(f / "pool"), "pool"),
        (lambda f: poison(f, float("nan")), "expected finite weights, got NaN or infinity"),
        (lambda f: poison(f, torch.zeros(1, dtype=torch.int64)), "expected floating point"),
    ],
)  # fmt: skip
def test_a_folder_that_is_wrong_is_a_sentence_and_changes_nothing(folder, change, sentence):
    change(folder)
    model = tiny("llama")
    before = copy.deepcopy(model)
    with pytest.raises(Error, match=sentence) as raised:
        load_memory(model, folder)
    assert "\n" not in str(raised.value)
    assert memory_layers(model) == {}
    assert torch.equal(logits(model, tokens()), logits(before, tokens()))


def poison(folder: Path, number) -> None:
    path = folder / "adapter_model.safetensors"
    weights = load_file(path)
    name = next(iter(weights))
    if isinstance(number, float):
        weights[name].view(-1)[0] = number
    else:
        weights[name] = number
    save_file(weights, path)


def test_a_model_that_it_does_not_fit(folder, tmp_path):
    with pytest.raises(ValueError, match="expected blocks of GPT2LMHeadModel, got 'model.layers.0"):
        load_memory(tiny("gpt2"), folder)
    model = tiny("llama")
    load_memory(model, folder)
    with pytest.raises(ValueError, match="a model without memory at model.layers.0.mlp"):
        load_memory(model, folder)
    other = tiny("llama", hidden_size=64, num_attention_heads=4)
    with pytest.raises(ValueError, match="model.layers.0.mlp of width 64, got memory of 32"):
        load_memory(other, folder)
    with pytest.raises(TypeError, match=r"expected a model and a folder, got str first; .*load_lay"):
        load_memory(str(folder), folder)


def test_patches_are_applied_to_its_pool(folder):
    from memlayers import PoolFolder

    row = torch.full((32,), 0.5)
    PoolFolder(folder).update(7, row)
    pool = next(iter(load_memory(tiny("llama"), folder).values())).pool
    assert isinstance(pool, MemoryPool) and torch.equal(pool.values[7], row)
