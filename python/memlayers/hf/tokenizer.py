# SPDX-License-Identifier: Apache-2.0
"""The command's tokenizer in transformers: the same ids, from tokenizer.model or tokenizer.json."""

import shutil
from os import path
from typing import Any

from transformers import PreTrainedTokenizer

from ..generator import Tokenizer
from .config import TOKENIZER_AUTO_MAP


class MemlayersTokenizer(PreTrainedTokenizer):
    """What the library does with a folder's tokenizer.json or tokenizer.model (SentencePiece).

    transformers' own class for the latter takes leading spaces and text such as "</s>" otherwise
    than SentencePiece does. Here text that spells a special token is plain text, unless
    split_special_tokens is False.
    """

    vocab_files_names = {"vocab_file": "tokenizer.model", "tokenizer_file": "tokenizer.json"}
    model_input_names = ["input_ids", "attention_mask"]

    def __init__(
        self, vocab_file: str | None = None, tokenizer_file: str | None = None, **kwargs: Any
    ) -> None:
        file = tokenizer_file or vocab_file
        if file is None:
            raise ValueError(
                "MemlayersTokenizer: expected tokenizer.json or tokenizer.model, got neither"
            )
        self.vocab_file = file
        self._open()
        for name in ("bos", "eos", "pad"):
            token = getattr(self._it, name)
            if token is not None:
                kwargs.setdefault(f"{name}_token", self._spelled[token])
        kwargs.setdefault("split_special_tokens", True)
        kwargs["auto_map"] = dict(TOKENIZER_AUTO_MAP)
        super().__init__(**kwargs)

    def _open(self) -> None:
        # The folder: other files in it say what stands around a text.
        self._it = Tokenizer(path.dirname(self.vocab_file) or ".")
        self._spelled = self._it.tokens()
        self._ids = {token: id for id, token in enumerate(self._spelled) if token}

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_it", "_spelled", "_ids")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    @property
    def vocab_size(self) -> int:
        """All tokens."""
        return len(self._spelled)

    def get_vocab(self) -> dict[str, int]:
        """Ids by token, with those that were added."""
        return {**self._ids, **self.added_tokens_encoder}

    def tokenize(
        self, text: str, **kwargs: Any
    ) -> list[str]:
        """The tokens of a text, as the vocabulary spells them."""
        if not kwargs.get("split_special_tokens", self.split_special_tokens):
            tokens: list[str] = super().tokenize(text, **kwargs)
            return tokens
        return self._tokenize(text)

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        return [self._spelled[token] for token in self._it.encode(text)]

    def _convert_token_to_id(self, token: str) -> int | None:
        unknown: int | None = self.unk_token_id
        return self._ids.get(token, unknown)

    def _convert_id_to_token(self, index: int) -> str:
        return self._spelled[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Their text."""
        return self._it.decode([self._ids[token] for token in tokens if token in self._ids])

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """With what the tokenizer's files put before and behind a text."""
        ids = [*token_ids_0, *(token_ids_1 or [])]
        return [*self._it.prefix, *ids, *self._it.suffix]

    def _decode(
        self,
        token_ids: int | list[int],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        **kwargs: Any,
    ) -> str:
        ids = [token_ids] if isinstance(token_ids, int) else list(token_ids)
        special = set() if skip_special_tokens else set(self.all_special_ids)
        text = ""
        run: list[int] = []
        for token in ids:
            if token in special:
                text += self._it.decode(run) + self._spelled[token]
                run = []
            else:
                run.append(token)
        return text + self._it.decode(run)

    def save_vocabulary(
        self, save_directory: str, filename_prefix: str | None = None
    ) -> tuple[str, ...]:
        """Copies the tokenizer's file."""
        name = path.basename(self.vocab_file)
        target = path.join(save_directory, f"{filename_prefix}-{name}" if filename_prefix else name)
        if path.abspath(target) != path.abspath(self.vocab_file):
            shutil.copyfile(self.vocab_file, target)
        return (target,)

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = None) -> None:
        """Nothing: a saved folder names this package and has no copy of its files."""
