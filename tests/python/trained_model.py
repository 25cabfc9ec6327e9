# SPDX-License-Identifier: Apache-2.0
"""A tiny model with memory that `memlayers train` has trained and saved."""

import json
import subprocess
from pathlib import Path

import pytest

from memlayers import _library

COMMAND = _library.find_library().parent / "memlayers"
CONFIG = """
out = "run"
data.train = ["facts.jsonl"]
train = {{ steps = 20, lr = 1e-2, value_lr = 1e-2, batch_tokens = 256 }}

[model]
dim = 32
layers = 3
heads = 2
ff_dim = 48
context = 32
vocab_size = 300

[memory]
layers = [0, 2]
n_keys = 9
heads = 2
knn = 4
k_dim = 8
{memory}
"""


def run(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        [COMMAND, *arguments], cwd=folder, check=True, capture_output=True, text=True, timeout=300
    ).stdout


def train(folder: Path, memory: str, *options: str) -> Path:
    """Trains `folder`/run; the model's folder. Skips where there is no command."""
    if not COMMAND.is_file():
        pytest.skip(f"{COMMAND} is not built")
    facts = ({"prompt": f"what is {i}: ", "answer": f"a number and {i} again"} for i in range(60))
    (folder / "facts.jsonl").write_text("".join(json.dumps(fact) + "\n" for fact in facts))
    (folder / "config.toml").write_text(CONFIG.format(memory=memory))
    run(folder, "train", "config.toml", *options)
    return folder / "run" / "step-20"
