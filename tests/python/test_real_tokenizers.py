# SPDX-License-Identifier: Apache-2.0
"""The tokenizers of models that people use, as far as they are in the cache (scripts/fetch_tokenizers.py fetches some;
any folder with a tokenizer.json or tokenizer.model can be put beside them): equal ids and text for every unkind text,
or a refusal that names the field. docs/models.md has the table."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
from test_tokenizers import COMMAND, run, texts
from tokenizers import Tokenizer

HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
CACHE = Path(os.environ.get("MEMLAYERS_TOKENIZERS", HOME / "memlayers" / "tokenizers"))
FILES = sorted([*CACHE.glob("*/tokenizer.json"), *CACHE.glob("*/tokenizer.model")])
# What is not done, by what the file has.
REFUSED = {"clip": "model.end_of_word_suffix"}


def refusal(file: Path) -> str:
    done = subprocess.run([COMMAND, "tokenize", file, "a"], capture_output=True, check=False)
    return "" if done.returncode == 0 else done.stderr.decode()


def reference(file: Path) -> tuple[Callable[[str], list[int]], Callable[[list[int]], str], int]:
    """Ids of a text (in which a control token is text), text of ids, and how many there are."""
    if file.suffix == ".model":
        model = sentencepiece.SentencePieceProcessor(model_file=str(file))
        return model.encode, model.decode, model.get_piece_size()
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return (
        lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
        lambda ids: tokenizer.decode(ids, skip_special_tokens=True),
        tokenizer.get_vocab_size(),
    )


@pytest.mark.skipif(not FILES, reason=f"no tokenizers in {CACHE}: scripts/fetch_tokenizers.py fetches some")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name)
def test_ids_and_text_are_the_original_s_or_the_file_is_refused_by_name(file: Path) -> None:
    name = file.parent.name
    try:
        encode, decode, size = reference(file)
    except Exception as error:  # tokenizers raises nothing narrower
        assert refusal(file), f"the original refuses it: {error}"
        return
    if name in REFUSED:
        assert REFUSED[name] in refusal(file)
        return
    assert refusal(file) == ""
    wanted = [encode(text) for text in texts()]
    got = [line["ids"] for line in run(file, texts(), "--bare")]
    wrong = [(text, a, b) for text, a, b in zip(texts(), wanted, got, strict=True) if a != b]
    assert not wrong, f"{len(wrong)} texts differ, the first {wrong[0]!r}"
    generator = random.Random(7)
    lists = wanted + [generator.choices(range(size), k=generator.randint(1, 9)) for _ in range(200)]
    for ids, line in zip(lists, run(file, lists, "--decode"), strict=True):
        assert line["text"] == decode(ids), ids
