# SPDX-License-Identifier: Apache-2.0
# %% [markdown]
# A memory layer in a model of plain PyTorch: 1,024 random pairs, learned by heart.
# %%
import torch
from torch import nn

from memlayers import JointOptimizer, MemoryLayer, RowOptimizer

torch.manual_seed(1)
keys, answers = torch.randn(1024, 64), torch.randint(0, 256, (1024,))

# %%
# 64 x 64 = 4,096 slots, of which a token reads 4 heads x 8. factored: backward keeps what would make
# the pool's gradient, and a step costs what the rows that were read cost.
memory = MemoryLayer(64, n_keys=64, heads=4, knn=8, k_dim=32, factored=True)
model = nn.Sequential(nn.Linear(64, 64), memory, nn.Linear(64, 256))

# %%
rows = memory.pool.values
dense = [parameter for parameter in model.parameters() if parameter is not rows]
optimizer = JointOptimizer(
    torch.optim.AdamW(dense, lr=3e-3, weight_decay=0.0),
    RowOptimizer([rows], lr=3e-2, clip=1.0),
)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 150)

# %%
for step in range(150):
    batch = torch.randint(0, 1024, (256,))
    loss = nn.functional.cross_entropy(model(keys[batch]), answers[batch])
    loss.backward()
    nn.utils.clip_grad_norm_(dense, 1.0)  # of the dense weights; the pool's is clipped by RowOptimizer
    optimizer.step()
    optimizer.zero_grad()
    schedule.step()
    if step % 50 == 49:
        print(f"step {step + 1}: loss {loss.item():.3f}")

# %%
with torch.no_grad():
    right = (model(keys).argmax(-1) == answers).float().mean().item()
slots = memory.select(model[0](keys))[0].unique()
print(f"{right:.0%} of the pairs are known; they read {len(slots)} of {memory.pool.slots} slots")
assert right > 0.95
