# SPDX-License-Identifier: Apache-2.0
"""Model folders beside transformers, where it is installed: defaults, weights, where a text ends."""

import json
import math
import operator
import re
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from memlayers import _library

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()

ROOT = Path(__file__).resolve().parents[2]
COMMAND = _library.find_library().parent / "memlayers"
CLASSES = {
    "llama": "LlamaConfig",
    "mistral": "MistralConfig",
    "qwen2": "Qwen2Config",
    "qwen3": "Qwen3Config",
    "smollm3": "SmolLM3Config",
}


def defaults() -> dict[str, dict[str, str]]:
    """The families of src/io/model_family.cpp, as it says them."""
    text = (ROOT / "src/io/model_family.cpp").read_text()
    families = {}
    for block in text.split(".model_type = ")[1:]:
        fields = dict(re.findall(r"\.(\w+) = ([^,}]+|\{\})[,}]", block.split(".family")[0]))
        assert fields.pop("architecture").endswith('ForCausalLM"')
        families[block.split('"')[1]] = fields
    return families


@pytest.mark.parametrize("family", CLASSES)
def test_defaults_are_those_of_the_configuration_class(family):
    config = getattr(transformers, CLASSES[family])()
    fields = defaults()[family]
    assert len(fields) == 11
    for name, said in fields.items():
        if name == "rope_theta":
            wanted = config.rope_parameters["rope_theta"]
        elif name == "num_key_value_heads" and said == "{":
            wanted = None if config.num_key_value_heads == config.num_attention_heads else "other"
        elif name == "head_dim" and said == "{":
            width = config.hidden_size // config.num_attention_heads
            same = getattr(config, "head_dim", width) == width
            wanted = None if same else "other"
        else:
            wanted = getattr(config, name)
        got = None if said == "{" else json.loads(said)
        assert got == wanted, name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny LLaMA with a tokenizer of a byte a token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = {"<s>": 0, "</s>": 1} | {letter: i + 2 for i, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocab=pieces, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    config = transformers.LlamaConfig(
        vocab_size=258,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=None,
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "embed" not in name:
                parameter.mul_(10)
    model.save_pretrained(tmp_path)
    return tmp_path


def edit(path: Path, **fields) -> None:
    config = json.loads(path.read_text()) if path.exists() else {}
    for name, value in fields.items():
        config.pop(name, None)
        if value is not ...:
            config[name] = value
    path.write_text(json.dumps(config))


def run(*arguments) -> dict:
    command = [COMMAND, *map(str, arguments), "--json", "--threads", "1"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def check_loss(folder: Path) -> None:
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    (folder / "x.jsonl").write_text(json.dumps({"text": "what is said of it"}) + "\n")
    got = run("eval", folder, "--data", folder / "x.jsonl")
    ids = tokens("what is said of it", add_special_tokens=False).input_ids
    wanted = []
    for around in ([0, *ids, 1], [*ids, 1], [0, *ids], ids):  # what the tokenizer puts around it
        row = torch.tensor([around])
        with torch.no_grad():
            loss = torch.nn.functional.cross_entropy(reference(row).logits[0, :-1], row[0, 1:])
        wanted.append(loss.item())
    assert min(abs(got["loss"] - loss) for loss in wanted) < 1e-5, (got, wanted)


def test_a_folder_as_transformers_writes_it(folder):
    check_loss(folder)


def test_without_rms_norm_eps(folder):
    edit(folder / "config.json", rms_norm_eps=...)
    check_loss(folder)


def test_tied_with_a_head_of_its_own(folder):
    edit(folder / "config.json", tie_word_embeddings=True)
    check_loss(folder)


def test_shards_beside_a_newer_single_file(folder):
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor * 0.5 for name, tensor in tensors.items()}, folder / "old.safetensors")
    weights = dict.fromkeys(tensors, "old.safetensors")
    edit(folder / "model.safetensors.index.json", metadata={}, weight_map=weights)
    check_loss(folder)


def test_a_generation_ends_where_generation_config_says(folder):
    reference = transformers.LlamaForCausalLM.from_pretrained(folder)
    first = run("generate", folder, "what", "--max-tokens", "8", "--ignore-eos")["tokens"]
    edit(folder / "generation_config.json", eos_token_id=[1, first[3]])
    assert run("generate", folder, "what", "--max-tokens", "8")["tokens"] == first[: first.index(first[3])]
    assert reference.config.eos_token_id == 1


TEXT = " ".join(f"{n} lines of {word} text" for n in range(50) for word in ("plain", "long", "other"))


@pytest.mark.parametrize("template", [None, "<s> $A", "$A </s>"])
@pytest.mark.parametrize("fields", [{}, {"add_bos_token": True}, {"add_bos_token": False}, {"add_eos_token": True}])
def test_what_stands_around_a_text(folder, template, fields):
    from tokenizers import Tokenizer, processors

    if template is not None:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[("<s>", 0), ("</s>", 1)]
        )
        tokenizer.save(str(folder / "tokenizer.json"))
    edit(folder / "tokenizer_config.json", bos_token="<s>", eos_token="</s>", **fields)
    wanted = transformers.AutoTokenizer.from_pretrained(folder)("a text").input_ids
    command = [COMMAND, "tokenize", folder, "a text", "--ids"]
    got = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert [int(word) for word in got.split()] == wanted


def documented_perplexity(model, ids: torch.Tensor, window: int, stride: int) -> float:
    """As the page "Perplexity of fixed-length models" of transformers' documentation computes it."""
    nll_sum, n_tokens, previous_end = 0.0, 0, 0
    for begin in range(0, ids.size(1), stride):
        end = min(begin + window, ids.size(1))
        predicted = end - previous_end
        target = ids[:, begin:end].clone()
        target[:, :-predicted] = -100
        with torch.no_grad():
            loss = model(ids[:, begin:end], labels=target).loss.item()
        labels = (target != -100).sum().item() - target.size(0)
        nll_sum += loss * labels
        n_tokens += labels
        previous_end = end
        if end == ids.size(1):
            break
    return math.exp(nll_sum / n_tokens)


@pytest.mark.parametrize("window, stride", [(128, 128), (128, 64), (100, 30)])
def test_perplexity_of_windows_is_that_of_the_documentation(folder, window, stride):
    (folder / "x.txt").write_text(TEXT)
    got = run("eval", folder, "--data", folder / "x.txt", "--stride", stride, "--window", window)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    wanted = documented_perplexity(model, ids, window, stride)
    assert abs(got["perplexity"] - wanted) < 1e-3 * wanted, (got, wanted)
    interval = got["perplexity_interval"]
    assert interval["low"] < got["perplexity"] < interval["high"]


def test_multiple_choice_chooses_as_lm_evaluation_harness(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    questions = [
        {
            "question": f"Question {n}: which word?\nAnswer:",
            "choices": ["one", "a längeres wort", "wörd" * (n % 5 + 1), "x"],
            "answer": n % 4,
        }
        for n in range(24)
    ]

    def log_likelihood(context: str, continuation: str) -> float:
        begin = len(tokenizer(context).input_ids)
        ids = torch.tensor([tokenizer(context + continuation).input_ids])
        with torch.no_grad():
            of_all = model(ids).logits[0].log_softmax(-1)
        return sum(of_all[t - 1, ids[0, t]].item() for t in range(begin, ids.size(1)))

    chosen, chosen_by_length = [], []
    for question in questions:
        choices = question["choices"]
        scores = [log_likelihood(question["question"], " " + choice) for choice in choices]
        by_length = [score / len(choice) for score, choice in zip(scores, choices, strict=True)]
        chosen.append(scores.index(max(scores)))
        chosen_by_length.append(by_length.index(max(by_length)))
    assert chosen != chosen_by_length
    answers = [question["answer"] for question in questions]
    right = sum(map(operator.eq, chosen, answers))
    right_by_length = sum(map(operator.eq, chosen_by_length, answers))
    (folder / "q.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions))
    got = run("eval", folder, "--choices", folder / "q.jsonl")
    assert got["questions"] == 24
    assert got["acc"]["value"] == pytest.approx(right / 24)
    assert got["acc_norm"]["value"] == pytest.approx(right_by_length / 24)
