# SPDX-License-Identifier: Apache-2.0
"""Model folders: those that the command writes, and broken ones."""

import json
import shutil
from pathlib import Path

import chunks
import decoder
import pytest
import torch
from safetensors.torch import load_file, save_file
from trained_model import run, train

from memlayers import (
    Error,
    MemoryLayer,
    MemoryPool,
    Patch,
    PoolFolder,
    SlotEditor,
    load_layers,
    load_pool,
    read_patch,
    write_patch,
)

HELD_OUT = "what is 7: a number and 7 again\n"

MODELS = {
    "memory+": "gate = true",
    "peer": 'variant = "peer"\nv_dim = 20',
    "bfloat16 rows": 'row_dtype = "bfloat16"\nqk_norm = false',
}


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS.keys())
def trained(request, tmp_path_factory) -> Path:
    """A folder with the model `run/step-20`, saved by `memlayers train`."""
    folder = tmp_path_factory.mktemp("model")
    train(folder, request.param)
    return folder


def test_a_model_has_the_same_loss_here_and_in_the_command(trained):
    sentencepiece = pytest.importorskip("sentencepiece")
    (trained / "held_out.txt").write_text(HELD_OUT)
    told = json.loads(run(trained, "eval", "run", "--data", "held_out.txt", "--json"))
    model = trained / "run" / "step-20"
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(model / "tokenizer.model"))
    tokens = torch.tensor(tokenizer.encode(HELD_OUT, add_bos=True, add_eos=True))
    with torch.no_grad():
        logits = decoder.logits(model, tokens)
    loss = torch.nn.functional.cross_entropy(logits[:-1], tokens[1:])
    assert told["tokens"] == len(tokens) - 1
    assert loss.item() == pytest.approx(told["loss"], rel=1e-4)


def test_layers_of_a_model_share_one_pool_and_can_be_trained_on(trained):
    folder = trained / "run" / "step-20"
    layers = load_layers(folder, sparse=True)
    assert list(layers) == [0, 2]
    assert layers[0].pool is layers[2].pool and layers[0].pool.values is layers[2].pool.values
    assert torch.equal(layers[0].pool.values, load_pool(folder))
    stored = load_file(folder / "model.safetensors")
    for index, layer in layers.items():
        assert not layer.training
        names = {f"model.layers.{index}.memory.{name}": p for name, p in layer.named_parameters()}
        names.pop(f"model.layers.{index}.memory.pool.values")
        assert names.keys() == {n for n in stored if n.startswith(f"model.layers.{index}.memory.")}
        assert all(torch.equal(stored[name], parameter) for name, parameter in names.items())
    layers[2](layers[0](torch.randn(3, 32))).sum().backward()
    assert layers[0].pool.values.grad.is_sparse
    assert all(p.grad is not None for layer in layers.values() for p in layer.parameters())


def test_a_patch_of_rows_and_sub_keys_is_loaded_once_it_is_applied(trained, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(trained / "run" / "step-20", folder)
    before = load_layers(folder)
    rows = before[0].pool.values.detach()
    patch = Patch(
        pool=PoolFolder(folder).id,
        slots=torch.tensor([80, 3]),
        rows=torch.stack([torch.full_like(rows[0], 0.5), torch.full_like(rows[0], 0.25)]),
        erased=torch.tensor([9]),
        key_places=torch.tensor([[2, 1, 0, 8], [2, 0, 1, 3]]),
        keys=torch.randn(2, 4),
        notes={"what": "a test"},
    )
    write_patch(tmp_path / "p", patch)
    again = read_patch(tmp_path / "p")
    # A file has slots and sub-keys in ascending order.
    ascending = vars(patch) | {"slots": patch.slots.flip(0), "rows": patch.rows.flip(0)}
    ascending |= {"key_places": patch.key_places.flip(0), "keys": patch.keys.flip(0)}
    for name, value in ascending.items():
        same = torch.equal if isinstance(value, torch.Tensor) else lambda a, b: a == b
        assert same(getattr(again, name), value), name
    run(tmp_path, "patch", "apply", "model", "p")
    layers = load_layers(folder)
    keys = before[2].keys.detach().clone()
    keys[1, 0, 8], keys[0, 1, 3] = patch.keys
    assert torch.equal(layers[2].keys, keys)
    assert torch.equal(layers[0].keys, before[0].keys)
    values = rows.clone()
    values[patch.slots], values[9] = patch.rows, 0
    assert torch.equal(layers[0].pool.values, values)
    run(tmp_path, "patch", "rollback", "model", patch.id)
    assert torch.equal(load_layers(folder)[2].keys, before[2].keys)


def test_a_patch_of_other_shapes_is_refused(tmp_path):
    ones = torch.ones(2, 5)
    with pytest.raises(ValueError, match="for slots"):
        write_patch(tmp_path / "p", Patch("id", torch.tensor([1]), ones))
    with pytest.raises(TypeError, match="rows of type .*, got Double"):
        write_patch(tmp_path / "p", Patch("id", torch.tensor([1, 2]), ones.double()))
    with pytest.raises(ValueError, match="key_places"):
        keys = {"key_places": torch.zeros(1, 3).long(), "keys": torch.ones(1, 4)}
        write_patch(tmp_path / "p", Patch("id", torch.tensor([1, 2]), ones, **keys))
    with pytest.raises(TypeError, match="expected subjects as bytes, got str"):
        write_patch(tmp_path / "p", Patch("id", torch.tensor([1, 2]), ones, subjects="a"))
    with pytest.raises(Error, match="subjects: expected a registry of subjects of version 1"):
        write_patch(tmp_path / "p", Patch("id", torch.tensor([1, 2]), ones, subjects=b"a"))
    assert not list(tmp_path.iterdir())
    save_file({"slots": ones}, tmp_path / "q", {"format": "other"})
    with pytest.raises(Error, match="expected a memlayers-patch of version 1 or 2, got other"):
        read_patch(tmp_path / "q")
    with pytest.raises(Error, match="cannot open: No such file"):
        read_patch(tmp_path / "none")


# A folder of two chunks, rows padded from 6 to 16 numbers, as pool/chunks.cpp writes them.


@pytest.fixture
def folder(tmp_path) -> Path:
    layer = MemoryLayer(6, n_keys=4, heads=1, knn=2, k_dim=4)
    memory = {"layers": [1], "n_keys": 4, "heads": 1, "knn": 2, "k_dim": 4, "v_dim": 6}
    memory |= {"variant": "memory+", "value_proj": True, "qk_norm": True, "gate": False}
    memory |= {"placement": "replace", "row_dtype": "float32"}
    config = {"model_type": "memlayers", "hidden_size": 6, "num_hidden_layers": 3}
    config |= {"num_attention_heads": 1, "intermediate_size": 8, "vocab_size": 9}
    config |= {"memlayers": {"memory": memory}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    state = {f"model.layers.1.memory.{n}": p for n, p in layer.state_dict().items()}
    values = state.pop("model.layers.1.memory.pool.values")
    save_file(state, tmp_path / "model.safetensors")
    save_file({"values": values}, tmp_path / "expected.safetensors")
    (tmp_path / "pool").mkdir()
    for index, rows in enumerate(values.split(10)):
        write_chunk(tmp_path, index, rows)
    return tmp_path


def write_chunk(folder: Path, index: int, rows: torch.Tensor, /, **changes) -> None:
    fields = {"pool": "an-id", "first_row": str(10 * index), "total_rows": "16"}
    chunks.write(chunk(folder, index), rows, **{**fields, **changes})


def chunk(folder: Path, index: int) -> Path:
    return folder / "pool" / f"chunk-{index}-0.safetensors"


def test_chunks_are_joined_without_their_padding(folder):
    values = load_file(folder / "expected.safetensors")["values"]
    assert torch.equal(load_pool(folder), values)
    assert torch.equal(MemoryPool.from_slots(load_pool(str(folder))).values, values)
    assert list(load_layers(folder)) == [1]


def test_weights_in_several_files_are_found(folder):
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    shards = {"model-1.safetensors": names[:3], "model-2.safetensors": names[3:]}
    for shard, keys in shards.items():
        save_file({key: state[key] for key in keys}, folder / shard)
    index = {"weight_map": {key: shard for shard, keys in shards.items() for key in keys}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert torch.equal(load_layers(folder)[1].keys, state["model.layers.1.memory.keys"])


def test_bfloat16_weights_stay_bfloat16(folder):
    state = load_file(folder / "model.safetensors")
    save_file({k: t.bfloat16() for k, t in state.items()}, folder / "model.safetensors")
    layer = load_layers(folder)[1]
    assert layer.query_proj.weight.dtype == torch.bfloat16
    assert layer.pool.values.dtype == torch.float32
    assert layer(torch.randn(2, 6).bfloat16()).dtype == torch.bfloat16


ROWS = torch.ones(6, 6)
POOL_FAULTS = {
    "no pool": (lambda f: shutil.rmtree(f / "pool"), "pool: cannot list: No such file"),
    "missing": (lambda f: chunk(f, 0).unlink(), "begins at row 0, got one at row 10"),
    "cut short": (lambda f: chunk(f, 1).unlink(), "expected 16 rows in chunk-.*, got 10: a chunk is missing"),
    "twice": (lambda f: shutil.copy(chunk(f, 1), chunk(f, 2)), "there twice"),
    "other pool": (lambda f: write_chunk(f, 1, ROWS, pool="b"), "of pool an-id .*, got pool b"),
    "other width": (lambda f: write_chunk(f, 1, ROWS, width="5"), "chunk of pool an-id"),
    "too wide": (lambda f: write_chunk(f, 1, ROWS, width="17"), r"rows of 17 float32\), got other shapes"),
    "wrong count": (lambda f: write_chunk(f, 1, ROWS, rows="5"), r"as the metadata say \(5 rows"),
    "no number": (lambda f: write_chunk(f, 1, ROWS, rows="x"), "metadata rows: expected a number >= 0, got \"x\""),
    "other version": (lambda f: write_chunk(f, 1, ROWS, version="2"), "version 1, got .* 2"),
    "unknown type": (lambda f: write_chunk(f, 1, ROWS, dtype="int3"), "got \"int3\""),
    "lying type": (lambda f: write_chunk(f, 1, ROWS.double(), dtype="float32"), "rows of 6 float32\\), got"),
    "not finite": (lambda f: write_chunk(f, 1, ROWS * torch.nan), "finite numbers, got NaN"),
    "truncated": (lambda f: chunk(f, 1).write_bytes(chunk(f, 1).read_bytes()[:-9]), "safetensors"),
    "empty": (lambda f: chunk(f, 1).write_bytes(b""), "a safetensors header, got a file of 0 bytes"),
}


@pytest.mark.parametrize("damage, sentence", POOL_FAULTS.values(), ids=POOL_FAULTS.keys())
def test_a_damaged_pool_is_an_error_that_names_the_file(folder, damage, sentence):
    damage(folder)
    with pytest.raises(Error, match=sentence) as caught:
        load_pool(folder)
    assert str(caught.value).startswith(str(folder / "pool"))


def drop_tensor(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["model.layers.1.memory.keys"]
    save_file(state, folder / "model.safetensors")


def set_config(**changes: object):
    def apply(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["memlayers"]["memory"] |= changes
        (folder / "config.json").write_text(json.dumps(config))

    return apply


def drop_memory(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["memlayers"]
    (folder / "config.json").write_text(json.dumps(config))


MODEL_FAULTS = {
    "no config": (lambda f: (f / "config.json").unlink(), "config.json: cannot open: No such file"),
    "not JSON": (
        lambda f: (f / "config.json").write_text("{"),
        "config.json: expected JSON, got",
    ),
    "no object": (lambda f: (f / "config.json").write_text("[]"), r"config.json: expected an? (JSON )?object, got"),
    "no memory": (drop_memory, "found no memlayers.memory"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors: cannot open: No such file"),
    "no keys": (drop_tensor, 'config.json.*Missing key.*"keys"'),
    "no field": (set_config(layers=[2]), "Missing key"),
    "other shape": (set_config(heads=2), "size mismatch for keys"),
    "other pool": (set_config(n_keys=3), "expected 9 rows of 6 float32 by config.json, got 16"),
    "impossible": (set_config(knn=5), "knn: expected .* n_keys"),
}


@pytest.mark.parametrize("damage, sentence", MODEL_FAULTS.values(), ids=MODEL_FAULTS.keys())
def test_a_damaged_model_is_an_error(folder, damage, sentence):
    damage(folder)
    with pytest.raises(Error, match=f"(?s){sentence}") as caught:
        load_layers(folder)
    assert str(caught.value).startswith(str(folder))


def test_a_field_that_is_missing_is_named(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["memlayers"]["memory"]["k_dim"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(Error, match='expected a field "k_dim", found none'):
        load_layers(folder)


def test_a_folder_that_a_store_edits_is_read_by_the_store(folder):
    (folder / "pool" / "CURRENT").write_text("log-1 0000000000000000\n")
    with pytest.raises(Error, match="CURRENT"):
        load_pool(folder)


def test_of_a_grown_memory_only_the_open_sub_keys_are_read(folder):
    config = json.loads((folder / "config.json").read_text())
    memory = config["memlayers"]["memory"]
    before = load_layers(folder)[1]
    memory["open_keys"] = memory["n_keys"] - 1
    (folder / "config.json").write_text(json.dumps(config))
    layer = load_layers(folder)[1]
    assert layer.n_keys == memory["n_keys"] - 1
    assert torch.equal(layer.keys, before.keys[:, :, :-1])
    assert torch.equal(layer.pool.values, before.pool.values[: layer.n_keys**2])


def test_rows_inserted_into_a_folder_are_patches_that_roll_back(trained, tmp_path):
    shutil.copytree(trained / "run", tmp_path / "run")
    model = tmp_path / "run" / "step-20"
    before = load_pool(model)
    layer = load_layers(model)[2]
    query = layer.query_proj(torch.randn(32)).detach().view(2, 8)
    candidates = layer.candidates(query)
    pool = PoolFolder(model)
    slot, row = int(candidates[3]), torch.linspace(-1, 2, before.size(1))
    pool.erase(slot)
    assert not pool.rows(torch.tensor([slot])).any()
    assert SlotEditor(layer, pool).insert(query, row) == slot
    wanted = before.clone()
    wanted[slot] = row.to(before.dtype)
    assert torch.equal(load_pool(model), wanted)
    listed = run(tmp_path, "patch", "list", "run", "--json")
    assert [json.loads(line)["id"] for line in listed.splitlines()] == pool.patches
    run(tmp_path, "patch", "rollback", "run", *reversed(pool.patches))
    assert torch.equal(load_pool(model), before)


def test_edits_of_a_folder_that_do_not_fit_are_refused(trained, tmp_path):
    shutil.copytree(trained / "run", tmp_path / "run")
    pool = PoolFolder(tmp_path / "run" / "step-20")
    width = load_pool(tmp_path / "run" / "step-20").size(1)
    for slot in (-1, 81):
        with pytest.raises(IndexError, match=r"a slot in \[0, 81\)"):
            pool.update(slot, torch.ones(width))
    with pytest.raises(ValueError, match=rf"a row \[{width}\]"):
        pool.update(0, torch.ones(width + 1))
    with pytest.raises(ValueError, match="finite"):
        pool.update(0, torch.full((width,), float("nan")))
    with pytest.raises(Error, match="the folder of a pool"):
        PoolFolder(tmp_path).update(0, torch.ones(width))
    assert pool.patches == []
