# SPDX-License-Identifier: Apache-2.0
"""Memory for other people's models: where it goes, what it leaves as it was, what is refused."""

import copy
import io
import pickle

import pytest
import torch
from tiny_models import ARCHITECTURES, DIM, logits, pattern, smollm2, tiny, tokens

from memlayers import (
    MemoryLayer,
    MemoryPool,
    RowOptimizer,
    add_memory,
    freeze_backbone,
    memory_layers,
    remove_memory,
)

SMALL = {"n_keys": 8, "heads": 2, "knn": 4, "k_dim": 8}


def added(name: str = "llama", **options):
    model = tiny(name)
    return model, add_memory(model, pattern(name), **{**SMALL, **options})


def train(model, steps: int = 3) -> list[float]:
    names = freeze_backbone(model)
    pool = next(m for m in model.modules() if isinstance(m, MemoryPool))
    dense = [p for p in model.parameters() if p.requires_grad and p is not pool.values]
    optimizers = [torch.optim.AdamW(dense, lr=1e-2), RowOptimizer(pool.parameters(), lr=0.1)]
    losses = []
    for _ in range(steps):
        loss = model(tokens(), labels=tokens()).loss
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    assert names
    return losses


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logits_stay_bit_for_bit_until_the_memory_is_trained(name):
    model = tiny(name)
    before, names = logits(model, tokens()), set(model.state_dict())
    layers = add_memory(model, pattern(name), factored=True, **SMALL)
    assert len(layers) == (3 if "*" in pattern(name) else 2)
    assert len({layer.pool for layer in layers.values()}) == 1
    assert names <= set(model.state_dict()), "the model's parameters keep their names"
    assert torch.equal(logits(model, tokens()), before)
    losses = train(model)
    assert losses[-1] < losses[0]
    assert not torch.equal(logits(model, tokens()), before)
    remove_memory(model)
    assert torch.equal(logits(model, tokens()), before) and set(model.state_dict()) == names


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_memory_takes_the_place_of_a_block(name):
    model = tiny(name)
    layers = add_memory(model, pattern(name), placement="replace", factored=True, **SMALL)
    assert all(model.get_submodule(block) is layer for block, layer in layers.items())
    losses = train(model)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("variant", ["memory+", "plain", "peer"])
def test_every_variant_begins_with_no_effect(variant):
    model = tiny("llama")
    before = logits(model, tokens())
    add_memory(model, pattern("llama"), variant=variant, gate=True, **SMALL)
    assert torch.equal(logits(model, tokens()), before)


def test_blocks_are_chosen_by_pattern_number_and_predicate():
    def names(layers):
        return list(add_memory(tiny("llama"), layers, **SMALL))

    both = ["model.layers.0.mlp", "model.layers.2.mlp"]
    assert names("model.layers.{0,2}.mlp") == both
    assert names("model.layers.{0, 2}.m*") == both
    assert names([0, 2]) == names([2, "model.layers.0.mlp"]) == both
    assert names(lambda name, module: type(module).__name__ == "LlamaMLP") == [
        f"model.layers.{n}.mlp" for n in range(3)
    ]


def test_a_model_of_plain_torch():
    block = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 8))
    model = torch.nn.Sequential(torch.nn.LayerNorm(8), block)
    x = torch.randn(3, 8)
    before = model(x)
    (layer,) = add_memory(model, "1", n_keys=4, heads=1, knn=2, k_dim=4).values()
    assert layer.dim == 8 and torch.equal(model(x), before) and len(model[1]) == 3
    torch.nn.init.ones_(layer.value_proj.weight)
    assert not torch.equal(copy.deepcopy(model)(x), before)
    remove_memory(model)
    assert torch.equal(model(x), before) and type(model[1]) is torch.nn.Sequential


def test_half_precision_models_have_memory_of_their_own_type():
    model = tiny("llama").to(torch.bfloat16)
    before = logits(model, tokens())
    layers = add_memory(model, pattern("llama"), factored=True, row_dtype=torch.bfloat16, **SMALL)
    assert {p.dtype for p in layers["model.layers.0.mlp"].parameters()} == {
        torch.float32,
        torch.bfloat16,
    }
    assert torch.equal(logits(model, tokens()), before)
    train(model)
    with torch.autocast("cpu", torch.bfloat16):
        train(model)


def test_copies_and_pickles_have_a_memory_of_their_own():
    model, _ = added(factored=True)
    train(model)
    wanted = logits(model, tokens())
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(file, weights_only=False),
    ):
        assert torch.equal(logits(other, tokens()), wanted)
        mine = {id(p) for p in model.parameters()}
        assert not mine & {id(p) for p in other.parameters()}
        train(other)
        assert torch.equal(logits(model, tokens()), wanted)


def test_gradient_checkpointing_gives_the_same_gradients():
    for reentrant in (False, True):
        grads = []
        for checkpointing in (False, True):
            model, layers = added(placement="replace")
            model.train()
            if checkpointing:
                model.gradient_checkpointing_enable({"use_reentrant": reentrant})
                model.enable_input_require_grads()
            torch.manual_seed(1)
            model(tokens(), labels=tokens(), use_cache=False).loss.backward()
            layer = next(iter(layers.values()))
            grads.append([layer.pool.values.grad, layer.keys.grad])
        for one, other in zip(*grads, strict=True):
            assert torch.allclose(one, other, atol=1e-6)


def test_compiled():
    model, _ = added()
    with torch.no_grad():
        wanted = model(tokens(), use_cache=False).logits
        got = torch.compile(model, backend="aot_eager")(tokens(), use_cache=False).logits
    assert torch.allclose(got, wanted, atol=1e-5)


def test_generation_with_a_cache_is_that_without():
    model, _ = added(factored=True)
    train(model)
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 1}
    with_cache = model.generate(tokens(1), **options)
    assert torch.equal(with_cache, model.generate(tokens(1), use_cache=False, **options))


def test_lora_works_beside_it():
    peft = pytest.importorskip("peft", reason="peft is not installed (make dev-dependencies)")
    model = tiny("llama")
    before = logits(model, tokens())
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "gate_proj"], task_type="CAUSAL_LM")
    wrapped = peft.get_peft_model(model, config)
    add_memory(wrapped, "*.*.model.layers.{0,2}.mlp", factored=True, **SMALL)
    assert torch.equal(logits(wrapped, tokens()), before)
    names = freeze_backbone(wrapped)
    assert any("lora_A" in name for name in names) and any("memory" in name for name in names)
    assert not any(name.endswith("base_layer.weight") for name in names)
    losses = train(wrapped)
    assert losses[-1] < losses[0]
    remove_memory(wrapped)
    assert not torch.equal(logits(wrapped, tokens()), before), "the adapter has learned too"


def test_a_pool_is_shared_by_models():
    pool = MemoryPool(8, DIM)
    layers = [
        layer
        for name in ("llama", "gpt2")
        for layer in add_memory(tiny(name), pattern(name), pool=pool, **SMALL).values()
    ]
    assert all(layer.pool is pool for layer in layers)


def test_the_real_smollm2_says_the_same_with_an_untrained_memory():
    model = smollm2()
    ids = torch.tensor([[504, 3575, 282, 4649, 314]])
    before = logits(model, ids)
    layers = add_memory(model, "model.layers.{8,16,24}.mlp", n_keys=64, factored=True)
    assert torch.equal(logits(model, ids), before)
    names = freeze_backbone(model)
    assert all(".mlp.memory." in name for name in names)
    model(ids, labels=ids).loss.backward()
    RowOptimizer(layers["model.layers.8.mlp"].pool.parameters()).step()


@pytest.mark.parametrize(
    "layers, options, error, sentence",
    [
        (
            "model.layers.{8,16}.mlp",
            {},
            ValueError,
            r"expected layers to match modules, got 'model.layers.\{8,16\}.mlp' which matches none "
            r"of model, .*model.layers.\{0..2\}.mlp, ",
        ),
        ([7], {}, ValueError, "got 7, the number of a decoder layer, which matches none of"),
        ([], {}, ValueError, "expected layers to name modules, got an empty list"),
        ([1.5], {}, TypeError, "predicate, got float 1.5"),
        (lambda *_: False, {}, ValueError, "it chose none of model, "),
        ("model.layers.0.mlp", {"placement": "behind"}, ValueError, "placement beside or replace"),
        ("model.layers.0.mlp", {"knn": 9}, ValueError, r"knn of at most n_keys \(8\), got 9"),
        ("model.layers.0.mlp", {"row_dtype": torch.float16}, TypeError, "float32 or bfloat16"),
        ("model.layers.0.mlp", {"dtype": torch.int64}, TypeError, "expected dtype float32"),
        ("model.layers.*.mlp", {"pool": MemoryPool(8, 7)}, ValueError,
         "a pool of n_keys 8 and width 32, got 8 and 7"),
        ("model.layers.*.mlp", {"pool": MemoryPool(4, DIM)}, ValueError,
         "a pool of n_keys 8 and width 32, got 4 and 32"),
        ("model.layers.0.mlp.gate_proj", {}, ValueError,
         "to give as many numbers as it takes, it takes 32 and gives 48"),
        ("model.layers", {}, ValueError, "a block that computes, model.layers is a ModuleList"),
        (["model.layers.0", 0], {}, ValueError, "blocks apart, model.layers.0.mlp is part of"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_a_sentence_and_changes_nothing(layers, options, error, sentence):
    model = tiny("llama")
    before = {name: type(module) for name, module in model.named_modules()}
    with pytest.raises(error, match=sentence):
        add_memory(model, layers, **{**SMALL, **options})
    assert before == {name: type(module) for name, module in model.named_modules()}
    assert memory_layers(model) == {}


def test_memory_where_there_is_some_is_refused():
    model, _ = added()
    with pytest.raises(ValueError, match="block without memory, model.layers.0.mlp has one"):
        add_memory(model, [0], **SMALL)
    with pytest.raises(ValueError, match="block without memory, model.layers.0.mlp.memory is one"):
        add_memory(model, "model.layers.0.mlp.memory", **SMALL)
    for act in (remove_memory, freeze_backbone):
        with pytest.raises(ValueError, match="expected a model with memory, found none in it"):
            act(tiny("llama"))
    model, _ = added(placement="replace")
    with pytest.raises(ValueError, match="beside blocks, model.layers.0.mlp was replaced"):
        remove_memory(model)


def test_half_precision_that_a_device_has_not(monkeypatch):
    from memlayers import adapter

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(ValueError, match="row_dtype float32 on cuda:0, which has no bfloat16"):
        adapter._check_type("row_dtype", torch.bfloat16, torch.device("cuda:0"))
    model, _ = added()
    with pytest.raises(TypeError, match=r"of type \[Float, BFloat16\], got Half"):
        model.half()(tokens())


def test_a_gradient_of_nan_changes_nothing():
    model, layers = added(factored=True)
    pool = next(iter(layers.values())).pool
    before = pool.values.detach().clone()
    optimizer = RowOptimizer(pool.parameters())
    (model(tokens()).logits.sum() * float("nan")).backward()
    with pytest.warns(UserWarning, match="a finite gradient, got one of norm nan"):
        optimizer.step()
    assert torch.equal(pool.values, before)


def test_memory_layers_tells_what_there_is():
    model, layers = added()
    assert memory_layers(model) == {name: (layer, "beside") for name, layer in layers.items()}
    assert isinstance(layers["model.layers.0.mlp"], MemoryLayer)
