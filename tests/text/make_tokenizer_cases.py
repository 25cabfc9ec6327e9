#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the cases of json_tokenizer_test: small tokenizer.json files and what the `tokenizers` package makes of texts.

    python tests/text/make_tokenizer_cases.py tests/text/data
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = [
    "The quick brown fox jumps over the lazy dog, doesn't it? I'd say we've seen it 1234 times in 2024!",
    "def f(x):\n    return x ** 2  # a comment\n\n\nprint(f(10))",
    "Ein Mädchen ißt Äpfel; les élèves étudient à l'école; привет, мир; 你好，世界; こんにちは",
    "tabs\tand  double   spaces    here", "emoji 😀 family 👨‍👩‍👧 flags 🇩🇪 and café, naïve",
] * 20

TEXTS = [
    "", " ", "  ", "a", " a", "a ", "Hello world", " leading", "trailing ", "two  spaces", "   three",
    "line\nbreak", "\n\n  mixed \n\t whitespace \r\n end", "I'd we've it's THEY'RE don't", "12345 67 8 9012",
    "😀 is fun 👨‍👩‍👧!", "café cafe\u0301 naïve", "你好，世界 привет", "x=1;y==2&&z!=3", "<s> is text </s> here",
    "▁already▁there", "<tool> added <tool><tool>x", "\u00a0nbsp\u3000wide", "zero\u200bwidth", "\U0001f9ff rare",
    "a" * 300, "ab " * 50, "\u0000nul", "\ufeffbom", "ÀÉÎ ß ſ Ω",
]

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<unk>", "<s>", "</s>"]


def bytes_of_fallback() -> list[str]:
    return [f"<0x{byte:02X}>" for byte in range(256)]


def add_common(tokenizer: Tokenizer, bos: str, eos: str) -> None:
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (bos, eos)])
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )


def llama2(metaspace: str | None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if metaspace is None:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=metaspace, split=metaspace == "always")
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=SPECIAL + bytes_of_fallback(), max_token_length=12)
    # Train on words, so that merges do not join several.
    training = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    training.pre_tokenizer = pre_tokenizers.Metaspace()
    training.train_from_iterator(CORPUS, trainer)
    tokenizer.model = training.model
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    add_common(tokenizer, "<s>", "</s>")
    return tokenizer


def byte_level(pattern: str | None, ignore_merges: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if pattern is None:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(pattern), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.decoder = decoders.ByteLevel()
    add_common(tokenizer, "<|begin_of_text|>", "<|end_of_text|>")
    return tokenizer


def cases(tokenizer: Tokenizer) -> list[dict[str, object]]:
    made = []
    special = [token for token in tokenizer.get_added_tokens_decoder().values() if token.special]
    for text in TEXTS:
        if any(token.content in text for token in special):
            continue  # plain text here, special tokens there
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        made.append({"text": text, "ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=True)})
    return made


def main() -> None:
    folder = Path(sys.argv[1])
    for name, tokenizer in {
        "llama2": llama2(None),
        "metaspace_always": llama2("always"),
        "metaspace_first": llama2("first"),
        "llama3": byte_level(LLAMA3, True),
        "gpt2": byte_level(None, False),
    }.items():
        tokenizer.save(str(folder / f"{name}.tokenizer.json"), pretty=False)
        text = json.dumps(cases(tokenizer), ensure_ascii=True)
        (folder / f"{name}.cases.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
