# SPDX-License-Identifier: Apache-2.0
"""Files that mean harm or come from elsewhere: refused in a sentence that names the file."""

import json
import os
import signal
from pathlib import Path

import chunks
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_model_folder import chunk, folder, set_config, write_chunk  # noqa: F401  a fixture

from memlayers import (
    Error,
    Patch,
    PoolFolder,
    load_layers,
    load_pool,
    read_patch,
    write_patch,
)

ROWS = torch.ones(6, 6)
POOL_FAULTS = {
    "unknown feature": (dict(features="2"), "features 0 and byte order little, got 2 and little"),
    "byte order": (dict(byte_order="big"), "byte order little, got 0 and big"),
    "header": (dict(header_xxh3="0" * 16, keep=("header_xxh3",)), "header checksum 0000"),
    "digest": (dict(digest="0" * 16), "with digest 0000000000000000, got"),
    "a row": (dict(keep=("xxh3",), digest=f"{chunks.xxh3(bytes(8)):016x}"), "checksum of the block"),
    "count": (dict(rows="6.5"), 'rows: expected a number >= 0, got "6.5"'),
    "generation": (dict(generation="-1"), 'generation: expected a number >= 0, got "-1"'),
}


@pytest.mark.parametrize("fields, sentence", POOL_FAULTS.values(), ids=POOL_FAULTS.keys())
def test_a_chunk_that_says_another_thing_is_refused(folder, fields, sentence):  # noqa: F811
    write_chunk(folder, 1, ROWS, **fields)
    for load in (load_pool, load_layers):
        with pytest.raises(Error, match=sentence) as caught:
            load(folder)
        assert str(caught.value).startswith(str(chunk(folder, 1)))


def write_index(folder: Path, weight_map: object) -> None:  # noqa: F811
    (folder / "model.safetensors").rename(folder / "one.safetensors")
    text = json.dumps({"weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(text)


def names(folder: Path) -> list[str]:  # noqa: F811
    return list(load_file(folder / "model.safetensors"))


MODEL_FAULTS = {
    "shard outside": (
        lambda f: write_index(f, {n: "../one.safetensors" for n in names(f)}),
        'names of files in this folder, got "../one.safetensors"',
    ),
    "index of lists": (lambda f: write_index(f, ["one.safetensors"]), '"weight_map"'),
    "index of numbers": (lambda f: write_index(f, {n: 7 for n in names(f)}), "got 7"),
    "a zero byte": (
        lambda f: (f / "config.json").write_text((f / "config.json").read_text() + "\0junk"),
        "config.json: expected JSON, got a zero byte at",
    ),
    "a name twice": (
        lambda f: (f / "config.json").write_text(
            (f / "config.json").read_text().replace("{", '{"hidden_size": 7, ', 1)
        ),
        'config.json: expected each name once, got "hidden_size" twice',
    ),
    "text for a number": (set_config(n_keys="4"), "n_keys: expected an integer"),
    "a number for a list": (set_config(layers="1"), "layers: expected"),
    "a part of a number": (set_config(heads=1.5), "heads: expected an integer"),
    "a word for a flag": (set_config(qk_norm="yes"), "qk_norm: expected true or false"),
    "memory as a list": (
        lambda f: (f / "config.json").write_text(
            (f / "config.json").read_text().replace('"memory": {', '"memory": [{').replace("}}}", "}]}}")
        ),
        "memory: expected an object",
    ),
    "weights not finite": (
        lambda f: save_file(
            {n: t / 0 for n, t in load_file(f / "model.safetensors").items()},
            f / "model.safetensors",
        ),
        "expected finite weights, got NaN or infinity",
    ),
    "weights of another type": (
        lambda f: save_file(
            {n: t.double() for n, t in load_file(f / "model.safetensors").items()},
            f / "model.safetensors",
        ),
        "type F32, BF16 or F16, got F64",
    ),
    "weights of another layer": (
        lambda f: save_file(
            {
                **load_file(f / "model.safetensors"),
                "model.layers.0.memory.keys": torch.zeros(1, 2, 4, 2),
            },
            f / "model.safetensors",
        ),
        'tensor "model.layers.0.memory.keys": expected none of this name',
    ),
    "a name that moves the cursor": (
        lambda f: save_file(
            {**load_file(f / "model.safetensors"), "model.layers.0.memory.\x1b[2J\n": torch.ones(1)},
            f / "model.safetensors",
        ),
        r'tensor "model.layers.0.memory.\\x1b\[2J\\n": expected none of this name',
    ),
}


@pytest.mark.parametrize("damage, sentence", MODEL_FAULTS.values(), ids=MODEL_FAULTS.keys())
def test_a_model_that_says_another_thing_is_refused(folder, damage, sentence):  # noqa: F811
    damage(folder)
    with pytest.raises(Error, match=sentence) as caught:
        load_layers(folder)
    assert str(caught.value).startswith(str(folder)) and "\n" not in str(caught.value)


@pytest.fixture
def seconds():
    """Ends what waits for longer than this: a FIFO without a writer is waited for for ever."""

    def too_late(*_: object) -> None:
        raise TimeoutError("still waiting")

    before = signal.signal(signal.SIGALRM, too_late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    "name, functions",
    {
        "config.json": [load_layers],
        "model.safetensors": [load_layers],
        "pool/chunk-1-0.safetensors": [load_layers, load_pool],
        "p": [lambda folder: read_patch(folder / "p")],
    }.items(),
)
def test_a_fifo_is_refused_at_once(folder, seconds, name, functions):  # noqa: F811
    path = folder / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    for function in functions:
        with pytest.raises(Error, match="expected a regular file, got a FIFO") as caught:
            function(folder)
        assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("function", [load_pool, load_layers, read_patch, PoolFolder])
def test_what_names_no_file_is_a_type_error(function):
    for wrong in (5, None, b"x", ["x"]):
        with pytest.raises(TypeError, match=f"{function.__name__}: expected a path, got"):
            function(wrong)


def patch(**changes: object) -> Patch:
    fields = {"pool": "an-id", "slots": torch.tensor([3, 1]), "rows": torch.ones(2, 5)}
    return Patch(**{**fields, **changes})


KEYS = {"key_places": torch.tensor([[1, 0, 0, 2]]), "keys": torch.ones(1, 4)}
PATCH_FAULTS = {
    "a part of a slot": (dict(slots=torch.tensor([1.7, 2])), TypeError, "slots of a type of int"),
    "flags as slots": (dict(slots=torch.tensor([True, False])), TypeError, "slots of a type of int"),
    "a part of an erased one": (dict(erased=torch.tensor([0.5])), TypeError, "erased of a type"),
    "a part of a place": (
        {**KEYS, "key_places": KEYS["key_places"] + 0.5},
        TypeError,
        "key_places of a type",
    ),
    "whole numbers as keys": ({**KEYS, "keys": torch.ones(1, 4).long()}, TypeError, "keys of a type"),
    "a list as slots": (dict(slots=[3, 1]), TypeError, "slots as a tensor, got list"),
    "a number as an id": (dict(id=5), TypeError, "id as a str, got int"),
    "a number as a note": (dict(notes={"when": 3}), TypeError, "note 'when' as a str, got int"),
    "no id": (dict(id=""), ValueError, "an id of 1 to 256 characters"),
    "a negative slot": (dict(slots=torch.tensor([-1, 2])), ValueError, "got -1"),
    "a slot twice": (dict(slots=torch.tensor([2, 2])), ValueError, "got 2 twice"),
    "a slot as both": (dict(erased=torch.tensor([3])), ValueError, "got 3 as a row and as erased"),
    "not finite": (dict(rows=torch.full((2, 5), float("nan"))), ValueError, "row of slot 1"),
    "a third half": ({**KEYS, "key_places": torch.tensor([[1, 0, 2, 2]])}, ValueError, "half 0 or 1"),
    "nothing": (
        dict(slots=torch.empty(0, dtype=torch.int64), rows=torch.ones(0, 5)),
        ValueError,
        "at least one slot",
    ),
}


@pytest.mark.parametrize("changes, error, sentence", PATCH_FAULTS.values(), ids=PATCH_FAULTS.keys())
def test_a_patch_of_wrong_numbers_is_not_written(tmp_path, changes, error, sentence):
    with pytest.raises(error, match=rf"^write_patch: .*{sentence}"):
        write_patch(tmp_path / "p", patch(**changes))
    assert not list(tmp_path.iterdir())


def test_a_patch_that_was_altered_is_refused(tmp_path):
    write_patch(tmp_path / "p", patch())
    content = bytearray((tmp_path / "p").read_bytes())
    content[-1] ^= 1
    (tmp_path / "p").write_bytes(content)
    with pytest.raises(Error, match="p: expected content .*: the file was altered"):
        read_patch(tmp_path / "p")


def test_a_patch_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(Error, match="nowhere"):
        write_patch(tmp_path / "nowhere" / "p", patch())


@pytest.mark.parametrize("slot", [1.7, "1", None, torch.tensor(1.5)])
def test_a_slot_that_is_no_whole_number_is_a_type_error(folder, slot):  # noqa: F811
    stored, pool = PoolFolder(folder), load_layers(folder)[1].pool
    for edit in (stored.update, pool.update):
        with pytest.raises(TypeError, match="update: expected a slot as an int, got"):
            edit(slot, torch.ones(6))
    for edit in (stored.erase, pool.erase):
        with pytest.raises(TypeError, match="expected a slot as an int, got"):
            edit(slot)
    assert stored.patches == []
