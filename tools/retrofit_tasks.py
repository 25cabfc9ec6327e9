# SPDX-License-Identifier: Apache-2.0
"""LAMBADA, PIQA and ARC-easy, for tools/retrofit.py: from the files of public repositories, which are not ours to give.

A folder with

    lambada_test.jsonl                         of cybertronai/bflm
    piqa/valid.jsonl, piqa/valid-labels.lst    of ybisk/ybisk.github.io, piqa/data
    ARC-Easy/test.json                         of AGI-Edgerunners/LLM-Adapters, dataset

What is absent is left out. Questions are put as in lm-evaluation-harness ("Question: ...\\nAnswer:").
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any


def piqa(folder: Path) -> list[dict[str, Any]]:
    path = folder / "piqa/valid.jsonl"
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    labels = (folder / "piqa/valid-labels.lst").read_text().split()
    return [
        {"question": f"Question: {row['goal']}\nAnswer:", "choices": [row["sol1"], row["sol2"]], "answer": int(label)}
        for row, label in zip(rows, labels, strict=True)
    ]


def arc_easy(folder: Path) -> list[dict[str, Any]]:
    """Its questions with their choices, which stand in one text: "... question: Q Answer1: A Answer2: B ..."."""
    path = folder / "ARC-Easy/test.json"
    if not path.exists():
        return []
    found = []
    for row in json.loads(path.read_text(encoding="utf-8")):
        text = row["instruction"].split("the question:", 1)[1].rsplit("\n\nAnswer format:", 1)[0]
        question, *choices = (part.strip() for part in re.split(r"\s*Answer\d+:", text))
        right = int(row["answer"].removeprefix("answer")) - 1
        if len(choices) > 1 and all(choices):
            found.append({"question": f"Question: {question}\nAnswer:", "choices": choices, "answer": right})
    return found


def lambada(folder: Path) -> list[tuple[str, str]]:
    """Passages, and the last word of each with the blank before it."""
    path = folder / "lambada_test.jsonl"
    if not path.exists():
        return []
    texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    cuts = [text.rindex(" ") for text in texts]
    return [(text[:cut], text[cut:]) for text, cut in zip(texts, cuts, strict=True)]


def some(of: list[Any], count: int) -> list[Any]:
    """Drawn, the same ones each time."""
    return random.Random(0).sample(of, min(count, len(of)))


def likeliest(generator: Any, before: list[int], own: list[int]) -> list[bool]:
    """Of each token of `own`, behind those before it, whether it is the likeliest."""
    import torch

    logits = generator.logits(torch.tensor([before + own]))[0, len(before) - 1 : -1]
    return (logits.argmax(-1) == torch.tensor(own)).tolist()


def last_words(generator: Any, passages: list[tuple[str, str]]) -> list[bool]:
    """Of each passage whether the tokens of its last word are the likeliest ones."""
    encode = generator.tokenizer.encode
    return [all(likeliest(generator, encode(before), encode(word))) for before, word in passages]
