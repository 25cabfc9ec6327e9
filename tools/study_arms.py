#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the arms of the study (docs/study.md): one configuration each, to examples/study.

Dense arms have a multiple of the first one's FLOPs a token, the output included; all others have the first one's FLOPs,
by the width of the feed-forward that is left. The formula here is that of `count_flops` (src/nn/flops.cpp), which the
command counts by; tools/study.py --plan shows its numbers, and tests/python/test_study.py compares the two.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "examples" / "study"
VOCAB, CONTEXT, HEADS, LAYERS = 2048, 64, 4, 3
DIM, FF = 48, 124  # of the first dense arm
RATIO = FF / DIM
MEMORY_LAYERS = [1, 2]
PARAMETERS = 256 * 256 * DIM  # rows of the pool that arms of equal parameters are given


@dataclass(frozen=True)
class Arm:
    name: str
    words: str  # what it is, for its first line
    dim: int = DIM
    ff: int = FF
    layers: int = LAYERS
    experts: int = 1
    memory: dict[str, object] = field(default_factory=dict)

    @property
    def layers_of_memory(self) -> list[int]:
        layers = self.memory.get("layers", [])
        assert isinstance(layers, list)
        return layers


def attention_flops(dim: int, layers: int) -> float:
    return layers * (2 * dim * 4 * dim + 4 * dim * (CONTEXT + 1) / 2)


def memory_flops(dim: int, memory: dict[str, object]) -> float:
    """Of one layer."""
    n, heads, knn, k_dim = (int(str(memory[name])) for name in ("n_keys", "heads", "knn", "k_dim"))
    variant = memory.get("variant", "memory+")
    value = int(str(memory.get("v_dim", dim)))
    products = heads * knn * (2 * dim if variant == "peer" else value)
    if variant == "ngram":
        return 2 * (products + dim * dim + dim + dim * dim)
    products += heads * k_dim * (dim + n)
    if variant == "memory+":
        products += dim * value + value + value * dim
    return 2 * products


def flops(arm: Arm) -> float:
    """A token's, forward."""
    with_memory = len(arm.layers_of_memory)
    choice = arm.dim * arm.experts if arm.experts > 1 else 0
    feed_forward = (arm.layers - with_memory) * 2 * (3 * arm.dim * arm.ff + choice)
    memory = with_memory * memory_flops(arm.dim, arm.memory) if arm.memory else 0
    return attention_flops(arm.dim, arm.layers) + feed_forward + memory + 2 * arm.dim * VOCAB


FIRST = Arm("dense-1x", "The dense decoder that all others are measured by.")


def fitted(arm: Arm, target: float) -> Arm:
    """The arm with the width of feed-forward that brings it next to `target` FLOPs."""
    def at(ff: int) -> Arm:
        return Arm(arm.name, arm.words, arm.dim, ff, arm.layers, arm.experts, arm.memory)

    slope = flops(at(2)) - flops(at(1))
    ff = round((target - flops(at(0))) / slope)
    if ff < 1:
        raise ValueError(f"{arm.name}: expected less than {target:.0f} FLOPs beside its feed-forward")
    return at(ff)


def dense(name: str, words: str, target: float, layers: int = LAYERS, head: bool = True) -> Arm:
    """Of `target` FLOPs (without the output where `head` is false), in the first one's shape."""
    def arm(dim: int) -> Arm:
        output = 0 if head else 2 * dim * VOCAB
        return fitted(Arm(name, words, dim, layers=layers), target + output)

    found = []
    for dim in range(16, 1024, 8):
        try:
            found.append(arm(dim))
        except ValueError:
            break
    return min(found, key=lambda a: abs(a.ff / a.dim - RATIO))


def memory_of(n_keys: int, heads: int, knn: int, k_dim: int, **more: object) -> dict[str, object]:
    return {"layers": MEMORY_LAYERS, "n_keys": n_keys, "heads": heads, "knn": knn, "k_dim": k_dim, **more}


def ablations(base: float) -> list[Arm]:
    """Of memory-2e16, each with its FLOPs and as many numbers in the pool."""
    made = []
    for name, layers in (("low", [0, 1]), ("apart", [0, 2]), ("middle", [1]), ("top", [2])):
        at = memory_of(256, 2, 16, 16) | {"layers": layers}
        words = "memory-2e16 in layer " + " and ".join(map(str, layers)) + " of 0 to 2."
        made.append(fitted(Arm(f"memory-2e16-{name}", words, memory=at), base))
    ungated = memory_of(256, 2, 16, 16, variant="plain")
    made.append(fitted(Arm("memory-2e16-ungated", "memory-2e16 without the gate of Memory+.", memory=ungated), base))
    wide, narrow = memory_of(181, 2, 16, 16, v_dim=2 * DIM), memory_of(362, 2, 16, 16, v_dim=DIM // 2)
    made.append(fitted(Arm("memory-2e15-wide", "The pool of memory-2e16 as rows twice as wide.", memory=wide), base))
    made.append(fitted(Arm("memory-2e17-narrow", "The pool of memory-2e16 as rows half as wide.", memory=narrow), base))
    return made


def arms() -> list[Arm]:
    base = flops(FIRST)
    body = base - 2 * DIM * VOCAB
    made = [FIRST]
    for multiple in (2, 4, 10, 16):
        made.append(dense(f"dense-{multiple}x", f"Dense, {multiple} times the FLOPs of dense-1x.", multiple * base))
    made.append(dense("dense-10x-body", "Dense, 10 times the FLOPs of dense-1x without the output.", 10 * body, head=False))
    made.append(dense("dense-10x-deep", "Dense, 10 times the FLOPs of dense-1x, twice the layers.", 10 * base, layers=2 * LAYERS))
    # Sub-keys are scored for every token: the more there are, the fewer heads and the narrower.
    for power, heads, k_dim in ((12, 2, 32), (14, 2, 32), (16, 2, 16), (18, 2, 8), (20, 1, 12)):
        memory = memory_of(2 ** (power // 2), heads, 16, k_dim)
        made.append(fitted(Arm(f"memory-2e{power}", f"Memory of 2^{power} slots at the FLOPs of dense-1x.", memory=memory), base))
    frozen = memory_of(256, 2, 16, 16, frozen_keys=True)
    made.append(fitted(Arm("frozen-2e16", "memory-2e16 with sub-keys that stay as they were drawn.", memory=frozen), base))
    n_peer = round((PARAMETERS / (2 * DIM)) ** 0.5)
    peer = memory_of(n_peer, 2, 8, 16, variant="peer")
    made.append(fitted(Arm("peer", "PEER with the parameters and FLOPs of memory-2e16.", memory=peer), base))
    ngram = memory_of(256, 4, 2, 2, variant="ngram")
    made.append(fitted(Arm("ngram", "Hash table of 2- and 3-grams, rows and FLOPs of memory-2e16.", memory=ngram), base))
    experts = 1
    for _ in range(50):  # more experts leave less to each
        one = fitted(Arm("experts", "Mixture of experts, parameters and FLOPs of memory-2e16.", experts=experts), base)
        experts = max(2, round(PARAMETERS / (9 * one.dim * one.ff)))
    made.append(fitted(Arm(one.name, one.words, experts=experts), base))
    return made + ablations(base)


def text_of(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def toml(arm: Arm) -> str:
    head = f"""# {arm.words}
# {flops(arm) / 1e3:.0f}k FLOPs a token forward. Written by tools/study_arms.py; run by tools/study.py --arm {arm.name}
out = "runs/study/{arm.name}"

[model]
dim = {arm.dim}
layers = {arm.layers}
heads = {HEADS}
ff_dim = {arm.ff}
{f"experts = {arm.experts}" + chr(10) if arm.experts > 1 else ""}vocab_size = {VOCAB}
context = {CONTEXT}
"""
    memory = ""
    if arm.memory:
        memory = "\n[memory]\n" + "".join(f"{k} = {text_of(v)}\n" for k, v in arm.memory.items())
    return head + memory + """
[data]
train = ["runs/study/data/train.jsonl"]
pack = false  # one fact a sequence, loss on the answer only

[train]
epochs = 25  # of four phrasings each: 100 exposures of a fact
batch_tokens = 4096
lr = 4e-3
value_lr = 1e-2
schedule = "cosine"
value_schedule = "cosine"
min_lr_ratio = 0.05
warmup = 50
weight_decay = 0.0
beta2 = 0.98
value_beta2 = 0.98
seed = 1
threads = 1
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("-o", "--output", type=Path, default=FOLDER, help="folder to write")
    return parser.parse_args()


def main() -> int:
    out = parse_arguments().output
    out.mkdir(parents=True, exist_ok=True)
    for arm in arms():
        (out / f"{arm.name}.toml").write_text(toml(arm), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
