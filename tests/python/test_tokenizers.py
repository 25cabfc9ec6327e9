# SPDX-License-Identifier: Apache-2.0
"""Ids and text beside Hugging Face's tokenizers, for the same tokenizer.json, over texts made to be unkind."""

from __future__ import annotations

import functools
import io
import json
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
from memlayers import _library
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

COMMAND = _library.find_library().parent / "memlayers"
TEXTS = 2000

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT4 = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
CORPUS = [
    "The quick brown fox jumps over the lazy dog, doesn't it? I'd say we've seen it 1234 times in 2024!",
    "def f(x):\n    return x ** 2  # a comment\n\n\nprint(f(10))",
    "Ein Mädchen ißt Äpfel; les élèves étudient à l'école; привет, мир; 你好，世界; こんにちは; नमस्ते; שלום",
    "tabs\tand  double   spaces    here and emoji 😀 family 👨‍👩‍👧 flags 🇩🇪 and café, naïve",
] * 10
PARTS = [
    *"aAbzZ019 \t\n\r'.,!?-_/\\<>|#@éßſıİĀЖя世こह😀🇩", "  ", "   ", "\r\n", "\n\n", "\u00a0", "\u2003", "\u3000", "\u200b",
    "\u200d", "\ufeff", "\u0301", "\u0308", "e\u0301", "ﬁ", "½", "²", "Ⅷ", "①", "٣", "\u2581", "Ġ", "Ċ", "<s>", "</s>", "<tool>",
    "<|end|>", "the", " the", "don't", "I'M", "we'LL", "'S", "1234567", "3.14", "x=1;", "```", "😀😃", "👨‍👩‍👧", "你好", "привет",
    "\u0000", "\u007f", "\ud7ff", "\uffff", "\U0010fffd", "<0x41>", "aaaaaaaa", "ab" * 9, "़", "\u180e", "\u2028", "\x1c", "\x85",
]


@functools.cache
def texts() -> list[str]:
    generator = random.Random(24)
    made = ["", " ", "\n", *PARTS]
    while len(made) < TEXTS:
        made.append("".join(generator.choices(PARTS, k=generator.randint(1, 14))))
    return made


def bytes_of_fallback() -> list[str]:
    return [f"<0x{byte:02X}>" for byte in range(256)]


def finished(tokenizer: Tokenizer) -> Tokenizer:
    """With special and other added tokens, and a BOS before each text."""
    tokenizer.add_special_tokens([AddedToken("<s>", special=True, normalized=False), "</s>"])
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("<|end|>", lstrip=True, rstrip=True)])
    tokenizer.add_tokens([AddedToken("the", single_word=True, normalized=True), AddedToken("x=1", normalized=False)])
    bos = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    return tokenizer


def byte_level(pre: object, normalizer: object = None, ignore_merges: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.decoder = decoders.ByteLevel()
    return finished(tokenizer)


def fallback(normalizer: object, pre: object, decoder: object, fuse: bool = True) -> Tokenizer:
    training = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=fuse, byte_fallback=True))
    training.pre_tokenizer = pre_tokenizers.Metaspace()
    training.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=700, special_tokens=["<unk>", "<s>", "</s>", *bytes_of_fallback()], max_token_length=12,
            show_progress=False,
        ),
    )
    tokenizer = Tokenizer(training.model)
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoder
    return finished(tokenizer)


def unigram(fallback: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "<s>", "</s>", *(bytes_of_fallback() if fallback else [])]
    trainer = trainers.UnigramTrainer(vocab_size=500, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    made = json.loads(tokenizer.to_str())
    made["model"]["byte_fallback"] = fallback
    tokenizer = Tokenizer.from_str(json.dumps(made))
    tokenizer.decoder = LLAMA2_DECODER if fallback else decoders.Metaspace()
    return finished(tokenizer)


@functools.cache
def charsmap() -> bytes:
    """SentencePiece's map for NFKC: field 2 of field 3 of a model that is trained with it."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=model, vocab_size=120, hard_vocab_limit=False,
        normalization_rule_name="nmt_nfkc_cf", minloglevel=2,
    )
    return wire_field(wire_field(model.getvalue(), 3), 2)


def wire_field(message: bytes, wanted: int) -> bytes:
    """The length-delimited field of a protobuf message."""
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while True:
        tag = number()
        kind = tag & 7
        size = number() if kind in (0, 2) else {1: 8, 5: 4}[kind]
        if kind == 2 and tag >> 3 == wanted:
            return message[at : at + size]
        at += 0 if kind == 0 else size


def word_piece(normalizer: object, pre: object, decoder: object) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre
    trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=["[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.decoder = decoder
    return finished(tokenizer)


def word_level() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(" ")
    trainer = trainers.WordLevelTrainer(vocab_size=500, special_tokens=["[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return finished(tokenizer)


def bytes_only(normalizer: object = None, pre: object = None) -> Tokenizer:
    """256 tokens: its ids tell the bytes, and where words end."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={sign: i for i, sign in enumerate(alphabet)}, merges=[]))
    tokenizer.normalizer = normalizer
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    # A word that ends is told by the space that begins the next.
    marks = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
    tokenizer.pre_tokenizer = byte_level if pre is None else pre_tokenizers.Sequence([pre, marks])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def normalized(*steps: object) -> Tokenizer:
    return byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.Sequence(list(steps)))


def split(regex: str, behavior: str = "isolated", invert: bool = False) -> object:
    return pre_tokenizers.Split(Regex(regex), behavior, invert)


def level(*first: object, prefix: bool = False, regex: bool = False) -> object:
    return pre_tokenizers.Sequence([*first, pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex)])


LLAMA2_DECODER = decoders.Sequence(
    [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
)
TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "gpt2": lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "gpt2_prefix": lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "llama3": lambda: byte_level(level(split(LLAMA3)), ignore_merges=True),
    "gpt4": lambda: byte_level(level(split(GPT4))),
    "smollm": lambda: byte_level(level(pre_tokenizers.Digits(individual_digits=True), regex=True)),
    "digits": lambda: byte_level(level(pre_tokenizers.Digits(individual_digits=False))),
    "whitespace": lambda: byte_level(level(pre_tokenizers.Whitespace())),
    "whitespace_split": lambda: byte_level(level(pre_tokenizers.WhitespaceSplit())),
    "split_removed": lambda: byte_level(level(split(r"\s+", "removed"))),
    "split_inverted": lambda: byte_level(level(split(r"\p{L}+", "removed", invert=True))),
    "split_previous": lambda: byte_level(level(split(r"[ \p{N}]", "merged_with_previous"))),
    "split_next": lambda: byte_level(level(split(r"[ \p{N}]", "merged_with_next"))),
    "split_contiguous": lambda: byte_level(level(split(r"[ \p{N}]", "contiguous"))),
    "split_string": lambda: byte_level(level(pre_tokenizers.Split("a", "isolated"), regex=True)),
    "llama2": lambda: fallback(
        normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None, LLAMA2_DECODER
    ),
    "gemma": lambda: fallback(
        normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous"),
        decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]),
    ),
    "metaspace_always": lambda: fallback(None, pre_tokenizers.Metaspace(prepend_scheme="always"), LLAMA2_DECODER),
    "metaspace_first": lambda: fallback(
        None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False), LLAMA2_DECODER, fuse=False
    ),
    "replace_regex": lambda: byte_level(
        pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.Replace(Regex(r" {2,}"), " ")
    ),
    "nfc": lambda: normalized(normalizers.NFC()),
    "nfd": lambda: normalized(normalizers.NFD()),
    "nfkc": lambda: normalized(normalizers.NFKC()),
    "nfkd": lambda: normalized(normalizers.NFKD()),
    "lowercase": lambda: normalized(normalizers.Lowercase()),
    "strip": lambda: normalized(normalizers.Strip(left=True, right=False)),
    "strip_accents": lambda: normalized(normalizers.NFD(), normalizers.StripAccents(), normalizers.Strip()),
    "nmt": lambda: normalized(normalizers.Nmt()),
    "byte_level_normalizer": lambda: normalized(normalizers.ByteLevel()),
    "precompiled": lambda: normalized(normalizers.Precompiled(charsmap())),
    "punctuation": lambda: byte_level(level(pre_tokenizers.Punctuation())),
    "punctuation_contiguous": lambda: byte_level(level(pre_tokenizers.Punctuation("contiguous"))),
    "fixed_length": lambda: byte_level(level(pre_tokenizers.FixedLength(length=3))),
    "unigram": lambda: unigram(False),
    "unigram_bytes": lambda: unigram(True),
    "bert": lambda: word_piece(
        normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer(), decoders.WordPiece(cleanup=True)
    ),
    "bert_cased": lambda: word_piece(
        normalizers.BertNormalizer(lowercase=False, strip_accents=True, handle_chinese_chars=False),
        pre_tokenizers.BertPreTokenizer(), decoders.WordPiece(cleanup=False),
    ),
    "word_piece_long": lambda: word_piece(None, pre_tokenizers.WhitespaceSplit(), decoders.BPEDecoder(suffix="a")),
    "word_level": word_level,
    "strip_joined": lambda: fallback(
        None, pre_tokenizers.Metaspace(),
        decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Strip("e", 2, 0)]),
    ),
}  # fmt: skip


# Each with what tells its classes of characters apart.
CLASSES: dict[str, Callable[[], Tokenizer]] = {
    "nfc": lambda: bytes_only(normalizers.NFC()),
    "nfd": lambda: bytes_only(normalizers.NFD()),
    "nfkc": lambda: bytes_only(normalizers.NFKC()),
    "nfkd": lambda: bytes_only(normalizers.NFKD()),
    "lowercase": lambda: bytes_only(normalizers.Lowercase()),
    "strip_accents": lambda: bytes_only(normalizers.StripAccents()),
    "nmt": lambda: bytes_only(normalizers.Nmt()),
    "precompiled": lambda: bytes_only(normalizers.Precompiled(charsmap())),
    "bert": lambda: bytes_only(normalizers.BertNormalizer()),
    "digits": lambda: bytes_only(pre=pre_tokenizers.Digits(individual_digits=True)),
    "whitespace": lambda: bytes_only(pre=pre_tokenizers.Whitespace()),
    "whitespace_split": lambda: bytes_only(pre=pre_tokenizers.WhitespaceSplit()),
    "punctuation": lambda: bytes_only(pre=pre_tokenizers.Punctuation()),
    "gpt2": lambda: bytes_only(pre=pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "categories": lambda: bytes_only(
        pre=pre_tokenizers.Sequence(
            [split(rf"\p{{{name}}}+") for name in "Lu Ll Lt Lm Lo M Nd Nl No P S Z".split()]
        )
    ),
    "escapes": lambda: bytes_only(pre=pre_tokenizers.Sequence([split(r"\s+"), split(r"[\d]+"), split(r"\P{L}+")])),
}


def characters() -> list[str]:
    """All up to the last ideograph and some behind, 16 a text, alone and before and behind marks."""
    codes = [*range(0xD800), *range(0xE000, 0x32400), *range(0xE0000, 0xE0200), 0xF0000, 0x10FFFD]
    signs = [f"{chr(code)}a{chr(code)}\u0301\u0315{chr(code)}\u0334一" for code in codes]
    return ["".join(signs[at : at + 16]) for at in range(0, len(signs), 16)]


def run(tokenizer: Path, lines: list[object], *options: str) -> list[dict[str, object]]:
    done = subprocess.run(
        [COMMAND, "tokenize", tokenizer, "--batch", *options],
        input="".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.decode().split("\n") if line]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_ids_and_text_are_those_of_tokenizers(name: str, tmp_path: Path) -> None:
    tokenizer = TOKENIZERS[name]()
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    tokenizer.encode_special_tokens = True  # what a user writes is text
    wanted = [tokenizer.encode(text).ids for text in texts()]
    got = [line["ids"] for line in run(path, texts())]
    wrong = [(text, a, b) for text, a, b in zip(texts(), wanted, got, strict=True) if a != b]
    assert not wrong, f"{len(wrong)} texts differ, the first {wrong[0]!r}"
    generator = random.Random(7)
    size = tokenizer.get_vocab_size()
    lists = wanted + [generator.choices(range(size), k=generator.randint(0, 9)) for _ in range(500)]
    decoded = [line["text"] for line in run(path, lists, "--decode")]
    for ids, text in zip(lists, decoded, strict=True):
        assert text == tokenizer.decode(ids, skip_special_tokens=True), ids


@pytest.mark.parametrize("name", CLASSES)
def test_every_character_is_seen_as_by_tokenizers(name: str, tmp_path: Path) -> None:
    tokenizer = CLASSES[name]()
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    wanted = [encoding.ids for encoding in tokenizer.encode_batch(characters())]
    got = [line["ids"] for line in run(path, characters())]
    wrong = [(text, a, b) for text, a, b in zip(characters(), wanted, got, strict=True) if a != b]
    assert not wrong, f"{len(wrong)} texts differ, the first {wrong[0]!r}"


def test_sentencepiece_s_long_texts_are_cut_where_it_makes_no_difference(tmp_path: Path) -> None:
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=made, vocab_size=400, hard_vocab_limit=False, model_type="bpe",
        normalization_rule_name="nmt_nfkc", byte_fallback=True, user_defined_symbols=["ﬁx", "Ａ"], minloglevel=2,
    )
    path = tmp_path / "tokenizer.model"
    path.write_bytes(made.getvalue())
    reference = sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())
    generator = random.Random(9)
    # Without spaces, and with characters that become others, nothing, or one with what is before them.
    signs = [*"aehlmnqtuxyz.,你好世界こんにちはＡＢｶﾞ①ﬁ½", "e\u0301", "\u00ad", "ﬁx", "한", "\u1112\u1161", "\u3000", " ", "\u00a0 "]
    for weights in ([1] * 35 + [0] * 3, [1] * 38):
        text = "".join(generator.choices(signs, weights, k=150_000))
        assert run(path, [text], "--bare")[0]["ids"] == reference.encode(text)


def test_special_tokens_are_found_in_text_only_where_asked(tmp_path: Path) -> None:
    tokenizer = TOKENIZERS["gpt2"]()
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    text = "a</s>b <s> c"
    plain, special = (run(path, [text], "--bare", *options)[0]["ids"] for options in ([], ["--special"]))
    assert special == tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.token_to_id("</s>") in special
    assert tokenizer.token_to_id("</s>") not in plain
