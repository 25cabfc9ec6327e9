# SPDX-License-Identifier: Apache-2.0
# %% [markdown]
# Memory for somebody else's model: facts are taught to its memory, all its own weights stay as they
# are, and what was learned is a folder of its own. With a real model's folder as argument (SmolLM2,
# say) that one is taken; without, a tiny random LLaMA.
# %%
import sys
import tempfile
from pathlib import Path

import torch
import transformers

from memlayers import (
    JointOptimizer,
    RowOptimizer,
    add_memory,
    freeze_backbone,
    load_memory,
    save_memory,
)

torch.manual_seed(1)


def fresh() -> transformers.PreTrainedModel:
    if len(sys.argv) > 1:
        return transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
    torch.manual_seed(1)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=128,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            initializer_range=0.2,
        )
    ).eval()


model = fresh()
sentences = torch.randint(3, 128, (8, 12))
with torch.no_grad():
    before = model(sentences).logits

# %%
# Beside the feed-forward blocks of a few layers, over one pool. It begins with no effect.
layers = [len(model.model.layers) // 3, 2 * len(model.model.layers) // 3]
added = add_memory(model, layers, n_keys=32, heads=4, knn=8, k_dim=32, factored=True)
with torch.no_grad():
    assert torch.equal(model(sentences).logits, before)
names = freeze_backbone(model)
print(f"{len(added)} memory layers; trained: {len(names)} tensors of the memory")

# %%
pool = next(iter(added.values())).pool
dense = [p for p in model.parameters() if p.requires_grad and p is not pool.values]
optimizer = JointOptimizer(
    torch.optim.AdamW(dense, lr=1e-2, weight_decay=0.0), RowOptimizer(pool.parameters(), lr=3e-2)
)
for step in range(60):
    loss = model(sentences, labels=sentences).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 20 == 0:
        print(f"step {step}: loss {loss.item():.2f}")
print(f"at the end: loss {loss.item():.2f}")
assert loss < 2

# %%
with tempfile.TemporaryDirectory() as place:
    folder = Path(place) / "memory"
    save_memory(model, folder)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"saved: {size / 1e6:.1f} MB beside the model")
    other = fresh()
    load_memory(other, folder)
    with torch.no_grad():
        assert torch.equal(other(sentences).logits, model(sentences).logits)
    print("another copy of the model says the same with it")
