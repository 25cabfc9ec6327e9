# SPDX-License-Identifier: Apache-2.0
"""GGUF files beside PyPI's gguf, transformers, tokenizers and SentencePiece."""

from __future__ import annotations

import functools
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from test_tokenizers import CORPUS, LLAMA3, level, split, texts
from test_tokenizers import run as tokenize
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

gguf = pytest.importorskip("gguf")

from gguf_files import TYPES, finish, plain_tensors, random_blocks, run, run_json, write_keys  # noqa: E402
from gguf_files import write_transformers_model  # noqa: E402

Kind = gguf.GGMLQuantizationType
QWEN2 = LLAMA3.replace("{1,3}", "")
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def test_each_type_means_what_it_means_to_gguf(tmp_path: Path) -> None:
    """One layer a type: its feed-forward weights are blocks of any bits."""
    config = {"dim": 256, "ff_dim": 512, "vocab_size": 8, "heads": 4, "kv_heads": 2, "layers": len(TYPES)}
    writer = gguf.GGUFWriter(tmp_path / "types.gguf", "llama")
    write_keys(writer, config)
    wanted = {}
    for name, tensor in plain_tensors(config).items():
        layer = int(name.split(".")[1]) if name.startswith("blk.") else 0
        for part, (rows, columns) in {"ffn_up": (512, 256), "ffn_down": (256, 512)}.items():
            if name == f"blk.{layer}.{part}.weight":
                blocks = random_blocks(TYPES[layer], rows, columns, seed=layer)
                writer.add_tensor(name, blocks, raw_dtype=TYPES[layer])
                theirs = gguf.quants.dequantize(blocks, TYPES[layer])
                wanted[f"model.layers.{layer}.mlp.{part[4:]}_proj.weight"] = theirs.reshape(rows, columns)
                break
        else:
            writer.add_tensor(name, tensor)
    finish(writer)
    run("import", tmp_path / "types.gguf", "-o", tmp_path / "model")
    got = load_file(tmp_path / "model" / "model.safetensors")
    for name, numbers in wanted.items():
        layer = int(name.split(".")[2])
        assert got[name].dtype == np.float32
        same = got[name].view(np.uint32) == np.ascontiguousarray(numbers).view(np.uint32)
        assert same.all(), f"{TYPES[layer].name}: {(~same).sum()} of {same.size} differ"


def test_bfloat16_is_rounded_to_nearest(tmp_path: Path) -> None:
    config = {"dim": 32, "ff_dim": 32, "vocab_size": 8, "heads": 2, "kv_heads": 2, "layers": 1}
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    write_keys(writer, config)
    tensors = plain_tensors(config)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    finish(writer)
    run("import", tmp_path / "m.gguf", "-o", tmp_path / "model", "--dtype", "bfloat16")
    from safetensors.torch import load_file as load_torch

    got = load_torch(tmp_path / "model" / "model.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(got, torch.from_numpy(tensors["token_embd.weight"]).bfloat16())
    assert json.loads((tmp_path / "model" / "config.json").read_text())["dtype"] == "bfloat16"


# Tokenizers ---------------------------------------------------------------------------------------


def write_tokenizer(path: Path, model: str, pre: str | None, tokenizer: Tokenizer, **keys: bool) -> None:
    """A file without weights; special tokens of `tokenizer` are control tokens, other added ones the user's."""
    vocab = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    added = {token.content: token for token in tokenizer.get_added_tokens_decoder().values()}
    kinds = [
        gguf.TokenType.NORMAL if text not in added
        else gguf.TokenType.CONTROL if added[text].special else gguf.TokenType.USER_DEFINED
        for text, _ in vocab
    ]  # fmt: skip
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(model)
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list([text for text, _ in vocab])
    writer.add_token_types(kinds)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(tokenizer.token_to_id("<s>"))
    writer.add_eos_token_id(tokenizer.token_to_id("</s>"))
    for key, value in keys.items():
        writer.add_bool(f"tokenizer.ggml.{key}", value)
    finish(writer)


@functools.cache
def trained(pre: str) -> Tokenizer:
    words = {
        "default": lambda: level(split(r"[\p{P}$+<=>^~|]+"), split(GPT2), split(r"\p{N}+"), split("[0-9][0-9][0-9]")),
        "gpt-2": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False),
        "llama-bpe": lambda: level(split(LLAMA3)),
        "qwen2": lambda: level(split(QWEN2)),
        "smollm": lambda: level(pre_tokenizers.Digits(individual_digits=True), regex=True),
    }[pre]()
    tokenizer = Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    tokenizer.pre_tokenizer = words
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.add_tokens(["<tool>"])
    return tokenizer


@pytest.mark.parametrize("pre", ["default", "gpt-2", "llama-bpe", "qwen2", "smollm"])
def test_ids_of_bytes_are_those_of_tokenizers(pre: str, tmp_path: Path) -> None:
    tokenizer = trained(pre)
    path = tmp_path / "t.gguf"
    write_tokenizer(path, "gpt2", None if pre == "default" else pre, tokenizer)
    tokenizer.encode_special_tokens = True
    bos = [tokenizer.token_to_id("<s>")] if pre == "llama-bpe" else []
    wanted = [bos + tokenizer.encode(text).ids for text in texts()]
    got = [line["ids"] for line in tokenize(path, texts())]
    wrong = [(text, a, b) for text, a, b in zip(texts(), wanted, got, strict=True) if a != b]
    assert not wrong, f"{len(wrong)} texts differ, the first {wrong[0]!r}"
    decoded = [line["text"] for line in tokenize(path, wanted, "--decode")]
    assert decoded == [tokenizer.decode(ids, skip_special_tokens=True) for ids in wanted]


@functools.cache
def sentencepiece_model(adds_space: bool = True) -> bytes:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=model, model_type="bpe", vocab_size=600, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=adds_space, minloglevel=2,
    )  # fmt: skip
    return model.getvalue()


@pytest.mark.parametrize("adds_space", [True, False])
def test_ids_of_scores_are_those_of_sentencepiece(adds_space: bool, tmp_path: Path) -> None:
    import sentencepiece

    original = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model(adds_space))
    path = tmp_path / "t.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    ids = range(original.vocab_size())
    writer.add_token_list([original.id_to_piece(i) for i in ids])
    writer.add_token_scores([original.get_score(i) for i in ids])
    kinds = {i: 1 for i in ids} | {i: 3 for i in ids if original.is_control(i)}
    kinds |= {i: 6 for i in ids if original.is_byte(i)}
    writer.add_token_types(list((kinds | {original.unk_id(): 2}).values()))
    writer.add_add_space_prefix(adds_space)
    finish(writer)
    # The library escapes spaces itself; U+2581 in a text is its own sign for one.
    plain = [text for text in texts() if "\u2581" not in text and "\0" not in text]
    wanted = [[1, *original.encode(text)] for text in plain]
    got = [line["ids"] for line in tokenize(path, plain)]
    wrong = [(text, a, b) for text, a, b in zip(plain, wanted, got, strict=True) if a != b]
    assert not wrong, f"{len(wrong)} texts differ, the first {wrong[0]!r}"


# Models -------------------------------------------------------------------------------------------


def model_of(name: str) -> object:
    transformers = pytest.importorskip("transformers")
    sizes = {
        "vocab_size": 264, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": 256, "eos_token_id": 257,
        "pad_token_id": None, "tie_word_embeddings": False,
    }  # fmt: skip
    rope = {
        "llama_linear": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0},
        "llama_yarn": {
            "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 10000.0,
        },
        "llama_llama3": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192, "rope_theta": 500000.0,
        },
    }  # fmt: skip
    if name in rope:
        sizes["rope_parameters"] = rope[name]
    family = name.split("_")[0]
    if name == "llama_tied":
        sizes["tie_word_embeddings"] = True
    if family == "mistral":
        sizes["sliding_window"] = 16
    if family == "qwen3":
        sizes["head_dim"] = 24
    config = {
        "llama": transformers.LlamaConfig, "mistral": transformers.MistralConfig, "qwen2": transformers.Qwen2Config,
        "qwen3": transformers.Qwen3Config,
    }[family](**sizes)  # fmt: skip
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


MODELS = [
    "llama", "llama_tied", "llama_linear", "llama_yarn", "llama_llama3", "mistral", "qwen2", "qwen3",
]  # fmt: skip


def add_letters(writer: gguf.GGUFWriter) -> None:
    """A token a byte, and one of two."""
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<s>", "</s>", "th", *(f"[PAD{i}]" for i in range(5))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 256 + [3, 3, 1] + [5] * 5)
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    writer.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")


def loss_of(model: object, ids: list[int]) -> float:
    row = torch.tensor([ids])
    with torch.no_grad():
        return torch.nn.functional.cross_entropy(model(row).logits[0, :-1], row[0, 1:]).item()


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_transformers_comes_back(name: str, tmp_path: Path) -> None:
    """The folder has the model's weights to the bit and computes its logits; the file itself has its loss."""
    transformers = pytest.importorskip("transformers")
    model = model_of(name)
    path = tmp_path / "model.gguf"
    write_transformers_model(model, path, add_letters)
    folder = tmp_path / "folder"
    said = run_json("import", path, "-o", folder)
    assert said["dtype"] == "float32"
    for key, tensor in load_file(folder / "model.safetensors").items():
        assert np.array_equal(tensor, model.state_dict()[key].numpy()), key
    again = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert type(again) is type(model)
    row = torch.arange(200)[None] % 264
    with torch.no_grad():
        difference = (again(row).logits - model(row).logits).abs().max().item()
    assert difference < (1e-4 if name == "llama_llama3" else 1e-5)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = "the thing that is said of it, with those words"
    ids = tokenizer(text).input_ids
    assert tokenizer.chat_template and (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")
    (tmp_path / "x.jsonl").write_text(json.dumps({"text": text}) + "\n")
    for place in (path, folder):
        loss = run_json("eval", place, "--data", tmp_path / "x.jsonl", "--threads", "1")["loss"]
        assert abs(loss - loss_of(model, [*ids, 257])) < 1e-5
    assert again.generation_config.eos_token_id == 257


@pytest.mark.parametrize("name", ["llama", "llama_tied", "qwen2"])  # it does not read how wide a head of Qwen 3 is
def test_transformers_reads_the_same_of_the_file(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    write_transformers_model(model_of(name), tmp_path / "model.gguf", add_letters)
    run("import", tmp_path / "model.gguf", "-o", tmp_path / "folder")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype=torch.float32
    ).eval()
    ours = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "folder", dtype=torch.float32).eval()
    row = torch.arange(100)[None]
    with torch.no_grad():
        assert (theirs(row).logits - ours(row).logits).abs().max().item() < 1e-5


def test_what_is_there_is_left_and_nothing_is_half_written(tmp_path: Path) -> None:
    config = {"dim": 32, "ff_dim": 32, "vocab_size": 8, "heads": 2, "kv_heads": 2, "layers": 1}
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    write_keys(writer, config)
    for name, tensor in plain_tensors(config).items():
        writer.add_tensor(name, tensor * np.float32("nan") if name == "blk.0.ffn_up.weight" else tensor)
    finish(writer)
    said = run("import", tmp_path / "m.gguf", "-o", tmp_path / "new", succeeds=False).stderr
    said = said.splitlines()[-1]  # behind what it had read by then
    assert said.startswith("memlayers: error: ") and "model.layers.0.mlp.up_proj.weight" in said and "finite" in said
    (tmp_path / "there").mkdir()
    for out in ("there", "m.gguf"):
        said = run("import", tmp_path / "m.gguf", "-o", tmp_path / out, succeeds=False).stderr
        assert "does not exist yet" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.gguf", "there"]


# Export -------------------------------------------------------------------------------------------


def tensors_of(path: Path) -> dict[str, object]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def keys_of(path: Path) -> dict[str, object]:
    fields = gguf.GGUFReader(path).fields
    return {name: field.contents() for name, field in fields.items() if not name.startswith("GGUF.")}


@pytest.mark.parametrize("name", MODELS)
def test_what_is_exported_is_what_was_imported(name: str, tmp_path: Path) -> None:
    path, again = tmp_path / "model.gguf", tmp_path / "again.gguf"
    write_transformers_model(model_of(name), path, add_letters)
    run("import", path, "-o", tmp_path / "folder")
    said = run_json("export", tmp_path / "folder", "-o", again, "--type", "f32")
    assert said["type"] == "F32" and said["bytes"] == again.stat().st_size
    before, after = tensors_of(path), tensors_of(again)
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        assert tensor.shape.tolist() == after[key].shape.tolist()
        close = 2e-5 if key == "rope_freqs.weight" else 0
        assert np.allclose(tensor.data, after[key].data, rtol=close, atol=0), key
    old, new = keys_of(path), keys_of(again)
    # A tokenizer.json does not know that a token is unused.
    old["tokenizer.ggml.token_type"] = [1 if kind == 5 else kind for kind in old["tokenizer.ggml.token_type"]]
    for key, value in old.items():
        assert new[key] == value, key
    run("import", again, "-o", tmp_path / "second")
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "folder" / file).read_text() == (tmp_path / "second" / file).read_text(), file


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0"])
def test_numbers_are_quantized_as_gguf_does(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    model = model_of("llama_tied")
    with torch.no_grad():  # numbers of all sizes, halves among them, a block of zeros
        weight = model.model.layers[0].mlp.up_proj.weight
        weight.mul_(2.0 ** torch.randint(-30, 3, weight.shape))
        weight[0] = torch.arange(64) / 2 - 15.5
        weight[1] = 0
    write_transformers_model(model, path, add_letters)
    run("export", path, "-o", tmp_path / "out.gguf", "--type", kind.lower())
    wanted = tensors_of(path)
    for name, tensor in tensors_of(tmp_path / "out.gguf").items():
        is_matrix = len(tensor.shape) > 1
        assert tensor.tensor_type == (Kind[kind] if is_matrix else Kind.F32), name
        if is_matrix:
            theirs = gguf.quants.quantize(np.array(wanted[name].data), Kind[kind])
            assert theirs.tobytes() == tensor.data.tobytes(), name


def test_what_a_type_does_not_hold_is_refused(tmp_path: Path) -> None:
    model = model_of("llama")
    with torch.no_grad():
        model.lm_head.weight[3, 3] = 70000
    write_transformers_model(model, tmp_path / "model.gguf", add_letters)
    said = run("export", tmp_path / "model.gguf", "-o", tmp_path / "out.gguf", succeeds=False).stderr
    assert 'tensor "output.weight": expected numbers that type F16 holds, got 70000' in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.gguf"]
    run("export", tmp_path / "model.gguf", "-o", tmp_path / "out.gguf", "--type", "q8_0")


@pytest.mark.parametrize("pre", ["default", "gpt-2", "llama-bpe", "qwen2", "smollm"])
def test_a_tokenizer_goes_out_as_it_came_in(pre: str, tmp_path: Path) -> None:
    def put(writer: gguf.GGUFWriter) -> None:
        tokenizer = trained(pre)
        vocab = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])[:264]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        known = {text for text, _ in vocab}
        writer.add_token_list([text for text, _ in vocab])
        merges = json.loads(tokenizer.to_str())["model"]["merges"]
        writer.add_token_merges([" ".join(m) for m in merges if "".join(m) in known and set(m) <= known])
        writer.add_bos_token_id(0)

    write_transformers_model(model_of("llama"), tmp_path / "model.gguf", put)
    run("export", tmp_path / "model.gguf", "-o", tmp_path / "out.gguf", "--type", "f32")
    old, new = keys_of(tmp_path / "model.gguf"), keys_of(tmp_path / "out.gguf")
    for key in ("pre", "tokens", "merges", "bos_token_id"):
        assert old[f"tokenizer.ggml.{key}"] == new[f"tokenizer.ggml.{key}"]


def test_a_scored_tokenizer_goes_out_with_the_same_ids(tmp_path: Path) -> None:
    import sentencepiece

    original = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model())

    def put(writer: gguf.GGUFWriter) -> None:
        ids = range(264)  # specials and bytes, and a few
        writer.add_tokenizer_model("llama")
        writer.add_token_list([original.id_to_piece(i) for i in ids])
        writer.add_token_scores([original.get_score(i) for i in ids])
        writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * 5)

    write_transformers_model(model_of("llama"), tmp_path / "model.gguf", put)
    run("export", tmp_path / "model.gguf", "-o", tmp_path / "out.gguf")
    first, second = (tokenize(tmp_path / name, texts()[:300]) for name in ("model.gguf", "out.gguf"))
    assert first == second


# A real model -------------------------------------------------------------------------------------


@functools.cache
def smollm2() -> Path:
    """SmolLM2-135M-Instruct, Q4_1: fetched once, 98 MB."""
    import subprocess

    script = Path(__file__).resolve().parents[2] / "scripts" / "fetch_smollm2.sh"
    done = subprocess.run([script], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"fetch_smollm2.sh: {done.stderr.strip().splitlines()[-1:]}")
    return Path(done.stdout.strip())


def test_smollm2_has_its_own_tokens() -> None:
    path = smollm2()
    ids = tokenize(path, ["Hello 123 world", "I'm  here\n"], "--bare")
    assert [line["ids"] for line in ids] == [[19556, 216, 33, 34, 35, 905], [57, 5248, 216, 1535, 198]]
    chat = tokenize(path, ["<|im_start|>user\n"], "--special")[0]["ids"]
    assert chat == [1, 4093, 198]


def test_smollm2_says_what_transformers_makes_of_it(tmp_path: Path) -> None:
    """As a folder: of the file itself the blocks are multiplied as they are, which is not float32 to the bit."""
    transformers = pytest.importorskip("transformers")
    path, folder = smollm2(), tmp_path / "folder"
    theirs = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    run("import", path, "-o", folder)
    text = "The capital of France is Paris, and that of Italy is Rome."
    ids = tokenize(path, [text])[0]["ids"]
    (tmp_path / "x.jsonl").write_text(json.dumps({"text": text}) + "\n")
    wanted = loss_of(theirs.eval(), [*ids, 2])
    assert abs(run_json("eval", folder, "--data", tmp_path / "x.jsonl")["loss"] - wanted) < 1e-5
    assert abs(run_json("eval", path, "--data", tmp_path / "x.jsonl")["loss"] - wanted) < 0.05 * wanted
    greedy = theirs.generate(torch.tensor([ids[:5]]), max_new_tokens=8, do_sample=False)[0, 5:].tolist()
    prompt = tokenize(path, [ids[:5]], "--decode")[0]["text"]
    assert run_json("generate", folder, prompt, "--max-tokens", "8", "--ignore-eos")["tokens"] == greedy
