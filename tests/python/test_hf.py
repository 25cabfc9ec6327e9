# SPDX-License-Identifier: Apache-2.0
"""transformers opens what the command writes, and the command what transformers writes."""

import copy
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import tiny, tokens, transformers
from trained_model import run, train

from memlayers import (
    Error,
    Generator,
    Patch,
    PoolFolder,
    RowOptimizer,
    Store,
    add_memory,
    freeze_backbone,
    grow,
    load_pool,
)
from memlayers.hf import MemlayersConfig, MemlayersForCausalLM, MemoryTrainer, merge_memory
from memlayers.hf.config import AUTO_MAP, SHIM_TEXT, TOKENIZER_AUTO_MAP

Auto = transformers.AutoModelForCausalLM
MODELS = {
    "replace": "gate = true",
    "beside": 'placement = "beside"',
    "peer, bfloat16": 'variant = "peer"\nv_dim = 20\nrow_dtype = "bfloat16"\nqk_norm = false',
}


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS.keys())
def trained(request, tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("model"), request.param)


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("model"), MODELS["beside"])


@pytest.fixture
def folder(one, tmp_path) -> Path:
    return Path(shutil.copytree(one, tmp_path / "model"))


def digest(folder: Path) -> str:
    return json.loads(run(folder, "inspect", ".", "--digest", "--json"))["pool"]["digest"]


def prompt(folder: Path, text: str) -> torch.Tensor:
    told = json.loads(run(folder, "tokenize", ".", text, "--json"))
    return torch.tensor([told["ids"]])


def test_greedy_text_is_the_command_s(trained):
    model = Auto.from_pretrained(trained)
    assert isinstance(model, MemlayersForCausalLM)
    told = json.loads(
        run(trained, "generate", ".", "what is 7: ", "--max-tokens", "16", "--ignore-eos", "--json")
    )
    ids = prompt(trained, "what is 7: ")
    options = {"max_new_tokens": 16, "do_sample": False, "eos_token_id": None}
    for cached in (True, False):
        out = model.generate(ids, use_cache=cached, pad_token_id=0, **options)
        assert out[0, ids.size(1) :].tolist() == told["tokens"]


def loss(folder: Path, data: Path) -> float:
    return json.loads(run(folder, "eval", ".", "--data", str(data), "--json"))["loss"]


def test_logits_are_the_command_s(trained):
    ids = tokens(3, 20)
    with torch.no_grad():
        got = Auto.from_pretrained(trained)(ids).logits
    wanted = Generator(trained).logits(ids)
    assert (got - wanted).abs().max() < 1e-4


def test_it_is_written_as_it_was(trained, tmp_path):
    model = Auto.from_pretrained(trained)
    ids, saved = tokens(2, 12), tmp_path / "saved"
    with torch.no_grad():
        wanted = model(ids).logits
    model.save_pretrained(saved)
    transformers.AutoTokenizer.from_pretrained(trained).save_pretrained(saved)
    assert digest(saved) == digest(trained)
    facts = trained.parents[1] / "facts.jsonl"
    assert loss(saved, facts) == pytest.approx(loss(trained, facts), rel=1e-6)
    again = Auto.from_pretrained(saved)
    with torch.no_grad():
        assert torch.equal(again(ids).logits, wanted)
    assert again.pool.id == model.pool.id == PoolFolder(trained).id
    with torch.no_grad():  # and over what is there
        again.pool.values[3] = 1
    again.save_pretrained(saved)
    assert torch.equal(load_pool(saved)[3].float(), torch.ones(again.pool.width))
    assert os.listdir(saved / "pool") == ["chunk-0-0.safetensors"]
    assert not (saved / "MANIFEST.json").exists()


def test_the_decoder_alone_and_copies(one):
    model = Auto.from_pretrained(one)
    ids = tokens()
    with torch.no_grad():
        wanted = model(ids).logits
        hidden = transformers.AutoModel.from_pretrained(one)(ids).last_hidden_state
        assert torch.equal(model.lm_head(hidden), wanted)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(other(ids).logits, wanted)
            other.pool.values.zero_()
            assert not torch.equal(other(ids).logits, wanted)
        assert torch.equal(model(ids).logits, wanted)


def test_patches_of_rows_and_sub_keys_are_read(folder):
    before = Auto.from_pretrained(folder)
    pool = PoolFolder(folder)
    row = torch.linspace(-1, 1, 32)
    pool.update(5, row)
    key = torch.arange(4.0)
    patch = Patch(
        pool=pool.id,
        slots=torch.tensor([7]),
        rows=row.flip(0).unsqueeze(0),
        key_places=torch.tensor([[2, 1, 0, 3]]),
        keys=key.unsqueeze(0),
    )
    with Store(folder) as store:
        store.apply(patch)
    model = Auto.from_pretrained(folder)
    assert torch.equal(model.pool.values[5], row) and torch.equal(model.pool.values[7], row.flip(0))
    assert torch.equal(model.model.layers[2].memory.keys[1, 0, 3], key)
    ids = tokens(2, 16)
    with torch.no_grad():
        got = model(ids).logits
        assert not torch.equal(before(ids).logits, got)
    assert (Generator(folder).logits(ids) - got).abs().max() < 1e-4


def test_a_grown_memory_says_the_same_and_stays_masked(folder, tmp_path):
    ids = tokens()
    with torch.no_grad():
        wanted = Auto.from_pretrained(folder)(ids).logits
    grow(folder, 12)
    model = Auto.from_pretrained(folder)
    assert model.pool.slots == 144
    with torch.no_grad():
        assert torch.equal(model(ids).logits, wanted)
    model.save_pretrained(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config["memlayers"]["memory"]["open_keys"] == 9


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "smollm3"])
def test_every_family_with_a_memory_goes_to_the_command_and_back(family, tmp_path):
    fields = {"sliding_window": 8} if family == "mistral" else {}
    model = tiny(family, num_hidden_layers=4, **fields)
    add_memory(model, [1, 3], n_keys=8, heads=2, knn=4, k_dim=8)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "value_proj.weight" in name:
                parameter.normal_(std=0.3)
    ids = tokens(2, 16)
    merged = merge_memory(model)
    with torch.no_grad():
        wanted = model(ids).logits
        assert (merged(ids).logits - wanted).abs().max() < 1e-5
    merged.save_pretrained(tmp_path / "model")
    write_tokenizer(tmp_path / "model")
    assert (Generator(tmp_path / "model").logits(ids) - wanted).abs().max() < 2e-4
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["memlayers"].get("base", "llama") == family
    again = Auto.from_pretrained(tmp_path / "model")
    options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 1}
    out = again.generate(ids[:1], **options)[0, ids.size(1) :].tolist()
    (told,) = Generator(tmp_path / "model").generate(
        [ids[0].tolist()], max_tokens=12, ignore_eos=True
    )
    assert out == told.tokens


def write_tokenizer(folder: Path) -> None:
    """One of as many tokens as the tiny models have."""
    from tokenizers import Tokenizer, decoders, models

    vocab = {"<s>": 0, "</s>": 1} | {chr(32 + n): n for n in range(2, 96)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))


def test_a_fresh_model_is_trained_saved_and_opened(tmp_path):
    config = MemlayersConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        memlayers={"memory": {"layers": [1], "n_keys": 8, "heads": 2, "knn": 4, "k_dim": 8}},
    )
    model = Auto.from_config(config)
    std = model.pool.values.std().item()
    assert std == pytest.approx(32**-0.5, rel=0.1), "initialised as ours"
    assert model.model.layers[1].memory.key_norm[0].item() == pytest.approx(8**-0.5)
    model.save_pretrained(tmp_path / "model")
    write_tokenizer(tmp_path / "model")
    assert (Generator(tmp_path / "model").logits(tokens()) - model.eval()(tokens()).logits).abs().max() < 1e-4
    with torch.device("meta"):
        assert MemlayersForCausalLM(config).pool.values.is_meta


@pytest.mark.parametrize(
    "memlayers, sentence",
    [
        ([1], r"an object with memory, got \[1\]"),
        ({}, "expected memory, got None"),
        ({"memory": {}}, "memory.layers, ascending numbers of decoder layers, got None"),
        ({"memory": {"layers": [2]}}, r"memory.layers from 0 to 1, got \[2\]"),
        ({"memory": {"layers": [0], "newer": 1}}, r"fields of memory among .*got \['newer'\]"),
        ({"memory": {"layers": [0]}, "base": "gpt2"}, "base one of llama, .*, got 'gpt2'"),
        ({"memory": {"layers": [0], "row_dtype": "int8"}}, "row_dtype float32 or bfloat16 .*'int8'"),
        ({"memory": {"layers": [0], "placement": 1}}, "placement replace or beside, got 1"),
    ],
)
def test_a_configuration_that_is_wrong(memlayers, sentence):
    with pytest.raises(ValueError, match=sentence):
        MemlayersConfig(num_hidden_layers=2, memlayers=memlayers)


def test_a_folder_that_is_wrong(folder):
    config = json.loads((folder / "config.json").read_text())
    config["memlayers"]["memory"]["n_keys"] = 10
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises((Error, RuntimeError), match="100 rows|size mismatch"):
        Auto.from_pretrained(folder)
    config["memlayers"]["memory"]["n_keys"] = 9
    (folder / "config.json").write_text(json.dumps(config))
    chunk = next((folder / "pool").glob("chunk-*"))
    data = bytearray(chunk.read_bytes())
    data[5000] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(Error, match="chunk-0.*checksum"):
        Auto.from_pretrained(folder)


def test_what_cannot_be_saved(one, tmp_path):
    model = Auto.from_pretrained(one)
    with pytest.raises(ValueError, match="push_to_hub=False: transformers would leave pool/ behind"):
        model.save_pretrained(tmp_path / "x", push_to_hub=True)
    model.half()
    with pytest.raises(TypeError, match="rows of type float32 or bfloat16, got torch.float16"):
        model.save_pretrained(tmp_path / "x")
    model.float().pool.values.data[2, 0] = float("nan")
    with pytest.raises(Error, match="NaN or infinity"):
        model.save_pretrained(tmp_path / "x")
    assert not (tmp_path / "x" / "pool").exists() and not list((tmp_path / "x").glob("*tmp*"))


def test_what_cannot_be_merged():
    with pytest.raises(ValueError, match="expected a model with memory, found none"):
        merge_memory(tiny("llama"))
    model = tiny("gpt2")
    add_memory(model, [0], n_keys=8, knn=4)
    with pytest.raises(ValueError, match="a causal model of llama, .*, got GPT2LMHeadModel"):
        merge_memory(model)
    model = tiny("llama")
    add_memory(model, "model.layers.1.self_attn.o_proj", n_keys=8, knn=4)
    with pytest.raises(ValueError, match="memory at model.layers.N.mlp, got it at model.layers.1.sel"):
        merge_memory(model)
    model = tiny("llama")
    add_memory(model, [0], n_keys=8, knn=4)
    add_memory(model, [1], n_keys=8, knn=2)
    with pytest.raises(ValueError, match="memory layers of one kind, placement and pool"):
        merge_memory(model)


class Batches(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(index)
        ids = torch.randint(2, 90, (8,), generator=generator)
        return {"input_ids": ids, "labels": ids}


def trainer(folder: Path, out: Path, steps: int, model=None) -> MemoryTrainer:
    torch.manual_seed(1)
    arguments = transformers.TrainingArguments(
        output_dir=str(out),
        max_steps=steps,
        save_steps=3,
        logging_steps=1,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        learning_rate=1e-2,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        lr_scheduler_type="constant",
    )
    model = Auto.from_pretrained(folder) if model is None else model
    return MemoryTrainer(
        model=model, args=arguments, train_dataset=Batches(), value_lr=0.05, rows={"clip": 1.0}
    )


def test_a_trainer_that_is_stopped_goes_on_bit_for_bit(one, tmp_path):
    whole = trainer(one, tmp_path / "whole", 6)
    before = whole.model.pool.values.detach().clone()
    whole.train()
    assert isinstance(whole.optimizer.optimizer.optimizers[1], RowOptimizer)
    losses = [entry["loss"] for entry in whole.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] and not torch.equal(whole.model.pool.values, before)
    trainer(one, tmp_path / "part", 3).train()
    part = trainer(one, tmp_path / "part", 6)
    part.train(resume_from_checkpoint=str(tmp_path / "part" / "checkpoint-3"))
    mine, other = part.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(mine[name], other[name]) for name in other)
    saved = Auto.from_pretrained(tmp_path / "part" / "checkpoint-6")
    assert torch.equal(saved.pool.values, whole.model.pool.values)
    with torch.no_grad():
        a, b = (m(tokens()).logits for m in (saved.eval(), whole.model.eval()))
    assert torch.equal(a, b)


def test_a_model_with_an_added_memory_in_the_trainer(tmp_path):
    model = tiny("qwen3")
    add_memory(model, [0, 2], n_keys=8, heads=2, knn=4, k_dim=8, factored=True)
    freeze_backbone(model)
    frozen = model.model.layers[0].self_attn.q_proj.weight.clone()
    run_of = trainer(tmp_path, tmp_path / "out", 4, model)
    run_of.train()
    losses = [entry["loss"] for entry in run_of.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]
    assert torch.equal(model.model.layers[0].self_attn.q_proj.weight, frozen)


def test_a_pipeline_gives_the_command_s_text(one):
    pipe = transformers.pipeline("text-generation", model=str(one))
    told = json.loads(
        run(one, "generate", ".", "what is 7: ", "--max-tokens", "12", "--json")
    )
    (out,) = pipe("what is 7: ", max_new_tokens=12, do_sample=False, return_full_text=False)
    assert out["generated_text"].strip() == told["text"].strip()


def test_the_tokenizer_is_the_command_s(one, tmp_path):
    tokenizer = transformers.AutoTokenizer.from_pretrained(one)
    tokenizer.save_pretrained(tmp_path)
    saved = type(tokenizer).from_pretrained(tmp_path)
    for text in ("what is 7", "  two  spaces\n", "naïve 😀", "</s> x <s>", " ", "▁x", "x\r\ny "):
        wanted = prompt(one, text)[0].tolist()
        for mine in (tokenizer, saved, pickle.loads(pickle.dumps(tokenizer))):
            assert mine(text).input_ids == wanted, text
        back = tokenizer.decode(wanted, skip_special_tokens=True)
        assert back == text.replace("▁", " ")
    assert tokenizer.decode(prompt(one, "a")[0]) == "<s>a"


def test_without_the_registration_the_folder_names_the_package(one, tmp_path):
    Auto.from_pretrained(one).save_pretrained(tmp_path / "model")
    transformers.AutoTokenizer.from_pretrained(one).save_pretrained(tmp_path / "model")
    script = """
import sys, transformers
folder = sys.argv[1]
model = transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
print(type(model).__module__, type(model).__name__, type(tokenizer).__name__)
model.save_pretrained(folder + "-again")
"""
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", script, str(tmp_path / "model")]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert out.stdout.split() == [
        "memlayers.hf.model",
        "MemlayersForCausalLM",
        "MemlayersTokenizer",
    ]
    files = [sorted(os.listdir(tmp_path / name)) for name in ("model", "model-again")]
    assert set(files[0]) - set(files[1]) == {"tokenizer.model", "tokenizer_config.json"}
    environment["PYTHONPATH"] = without_the_package(tmp_path)
    out = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "pip install memlayers" in out.stderr


def without_the_package(tmp_path: Path) -> str:
    """A path on which memlayers is not to be found."""
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide" / "memlayers.py").write_text("raise ImportError('none')")
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = [p for p in paths if not (Path(p) / "memlayers").is_dir()]
    return os.pathsep.join(kept)


def test_the_command_writes_what_transformers_needs(one):
    config = json.loads((one / "config.json").read_text())
    assert config["auto_map"] == AUTO_MAP
    assert (one / "modeling_memlayers.py").read_text() == SHIM_TEXT
    named = json.loads((one / "tokenizer_config.json").read_text())
    assert named == {"auto_map": TOKENIZER_AUTO_MAP, "tokenizer_class": "MemlayersTokenizer"}
    ends = json.loads((one / "generation_config.json").read_text())
    assert ends["eos_token_id"] == config["eos_token_id"]


@pytest.mark.parametrize("gate", ["none", "linear", "two"])
def test_a_retrofitted_decoder_is_opened_and_written(tmp_path, gate):
    dense = train(tmp_path, "", "--set", "memory.layers=[]")
    options = ["--layers", "1,2", "--n-keys", "9", "--knn", "4", "--k-dim", "8", "--gate", gate]
    run(dense, "retrofit", ".", "-o", "made", *options, "--gate-dim", "6")
    made = dense / "made"
    ids = tokens(3, 20)
    with torch.no_grad():
        model = Auto.from_pretrained(made)
        assert torch.equal(model(ids).logits, Auto.from_pretrained(dense)(ids).logits)
        model.pool.values.normal_()  # taught something
        for layer in (1, 2):
            gate_of = model.model.layers[layer].memory.gate
            assert (gate_of is None) == (gate == "none")
        wanted = model(ids).logits
    saved = tmp_path / "saved"
    model.save_pretrained(saved)
    transformers.AutoTokenizer.from_pretrained(made).save_pretrained(saved)
    with torch.no_grad():
        assert torch.equal(Auto.from_pretrained(saved)(ids).logits, wanted)
    assert (Generator(saved).logits(ids) - wanted).abs().max() < 1e-3
