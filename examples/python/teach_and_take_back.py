# SPDX-License-Identifier: Apache-2.0
# %% [markdown]
# A trained model is taught two facts while it serves, says what its answer rests on, and forgets
# them again. The argument is a model folder (or a run's) of `memlayers train`; examples/demo makes
# one, and without an argument a tiny one is trained here.
# %%
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from memlayers import Generator, Store, explain, learn

made = tempfile.TemporaryDirectory()
place = Path(made.name)
FACTS = [
    {"prompt": "what is a dog: ", "answer": "an animal"},
    {"prompt": "what is a tree: ", "answer": "a plant"},
]
CONFIG = """
out = "run"
data.train = ["facts.jsonl"]
train = { steps = 60, lr = 1e-2, value_lr = 1e-2, batch_tokens = 512 }
model = { dim = 32, layers = 3, heads = 2, ff_dim = 48, context = 64, vocab_size = 300 }
memory = { layers = [0, 2], n_keys = 16, heads = 2, knn = 4, k_dim = 8 }
"""


def trained() -> str:
    numbers = ({"prompt": f"what is {i}: ", "answer": f"a number and {i}"} for i in range(60))
    (place / "facts.jsonl").write_text("".join(json.dumps(fact) + "\n" for fact in numbers))
    (place / "config.toml").write_text(CONFIG)
    command = [sys.executable, "-m", "memlayers", "train", "config.toml"]
    subprocess.run(command, cwd=place, check=True, capture_output=True)
    return str(place / "run")


model = sys.argv[1] if len(sys.argv) > 1 else trained()

# %%
generator = Generator(model)


def answers() -> list[str]:
    prompts = [fact["prompt"] for fact in FACTS]
    return [answer.text.strip() for answer in generator.generate(prompts, max_tokens=16)]


before = answers()
print("before:", before)

# %%
patch = place / "animals.safetensors"
learned = learn(model, FACTS, patch, steps=600, lr=3e-2, settle=0)
print(f"learned {learned.recalled} of {learned.phrasings} in {learned.steps} steps: "
      f"{len(learned.patch.slots)} rows")  # fmt: skip
with Store(model) as store:
    store.apply(patch)
print("after: ", answers())
assert answers() == [fact["answer"] for fact in FACTS]

# %%
for slot in explain(model, FACTS[0]["prompt"], top=3).slots:
    print(f"slot {slot.slot}: {slot.change:+.2f} nats without it, of patch {slot.patch or 'none'}")

# %%
with Store(model) as store:
    store.rollback(learned.patch.id)
print("taken back:", answers())
assert answers() == before
made.cleanup()
