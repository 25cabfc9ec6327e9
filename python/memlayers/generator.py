# SPDX-License-Identifier: Apache-2.0
"""Text from a model folder: as `memlayers generate`, a piece at a time or for many prompts."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, Literal

import torch
from torch import Tensor

from ._arguments import Error, path_of, told

Finish = Literal["stop", "length"]


@dataclass
class TokenLogprobs:
    """Of one place, by the logits as the model gives them; logprob None: a prompt's first token."""

    token: int
    logprob: float | None
    top: list[tuple[int, float]]  # the most likely tokens, the first first


@dataclass
class Generation:
    """An answer. finish: "stop" at an end token or stop string, "length" after max_tokens."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    finish: Finish = "length"
    prompt_tokens: int = 0
    pool_version: int = 0  # of the store, whose rows all of the answer was made with
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)


@dataclass
class MemoryConfidence:
    """That a patch taught what a prompt asks for, 0 to 1 (docs/editing.md): how much of a subject's
    words the prompt has, how many of the slots of its prompts it reads, and whose subject that is.
    """

    value: float
    match: float
    agreement: float
    patch: str | None


class Tokenizer:
    """The tokenizer of a model folder, or of a tokenizer.model or tokenizer.json, as the command's.

    Raises Error for one that it cannot do exactly as the original would.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        place = path_of("Tokenizer", path)
        self._it: Any = told(lambda: torch.classes.memlayers.Tokenizer(place))
        self._take()

    def _take(self) -> None:
        self.prefix, self.suffix, named = self._it.special()
        self.bos, self.eos, self.pad = (None if token < 0 else int(token) for token in named)

    @classmethod
    def _of(cls, it: Any) -> "Tokenizer":
        tokenizer = cls.__new__(cls)
        tokenizer._it = it
        tokenizer._take()
        return tokenizer

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """The tokens of a text, none added; special: what spells a special token becomes it."""
        tokens: list[int] = told(lambda: self._it.encode(_text("encode", text), special))
        return tokens

    def encode_prompt(self, text: str) -> list[int]:
        """What a model is given to go on from: the text behind what stands before every one."""
        return [*self.prefix, *self.encode(text)]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without special ones."""
        text: str = told(lambda: self._it.decode([int(token) for token in tokens]))
        return text

    def tokens(self) -> list[str]:
        """All tokens in the order of their ids, as the vocabulary spells them."""
        spelled: list[str] = self._it.tokens()
        return spelled


class Generator:
    """A model folder, or a run's newest checkpoint, ready to answer; its pool stays in its files.

    Each call begins with the edits made so far, of whatever process, and keeps to that version of
    the pool to its end; where they cannot be followed, `store_error` says why, and it goes on with
    the version before. Many prompts are continued together, each with the bits it has alone.
    Options: max_tokens (128), temperature (0: always the most likely token), top_k, top_p, min_p,
    repetition_penalty, presence_penalty, frequency_penalty, logit_bias ({token: what to add}),
    seed, stop (strings), stop_tokens, ignore_eos, logprobs (how many of the most likely tokens of
    each place), prompt_logprobs; docs/generate.md. Raises Error for a folder, prompt or option that
    is not what it should be.
    """

    def __init__(self, model: str | PathLike[str]) -> None:
        place = path_of("Generator", model)
        self._it: Any = told(lambda: torch.classes.memlayers.Generator(place))
        self.folder: str = self._it.folder()
        self.config: dict[str, Any] = json.loads(self._it.config())
        self.tokenizer = Tokenizer._of(self._it.tokenizer())

    @property
    def store_error(self) -> str | None:
        """Why the last call could not follow the edits of the pool; None: it could."""
        error: str = self._it.store_error()
        return error or None

    def generate(
        self,
        prompts: Sequence[str] | Sequence[Sequence[int]],
        *,
        on_text: Callable[[int, str], bool | None] | None = None,
        **options: Any,
    ) -> list[Generation]:
        """Continues every prompt, text or tokens (which are taken as they are: no BOS is added).

        on_text(row, text) gets new text as it comes; what it returns, if that is False, ends the row.
        """
        given = [self._tokens_of(prompt) for prompt in _several(prompts)]
        answers = [Generation(prompt_tokens=len(tokens)) for tokens in given]
        decoding = told(lambda: self._it.begin(given, _options(options)))
        for answer in answers:
            answer.pool_version = decoding.pool_version()
        while not decoding.is_idle():
            for made in json.loads(told(decoding.step)):
                answer = answers[made["row"]]
                _take(answer, made)
                if made["text"] and on_text is not None:
                    if on_text(made["row"], made["text"]) is False:
                        decoding.leave(made["row"])
                        answer.finish = "stop"
        return answers

    def stream(self, prompt: str | Sequence[int], **options: Any) -> Iterator[str]:
        """The answer to one prompt, a piece of text at a time; a caller that stops ends it."""
        decoding = told(lambda: self._it.begin([self._tokens_of(prompt)], _options(options)))
        while not decoding.is_idle():
            for made in json.loads(told(decoding.step)):
                if "error" in made:
                    raise Error(made["error"])
                if made["text"]:
                    yield made["text"]

    def memory_confidence(self, prompt: str) -> MemoryConfidence | None:
        """That an applied patch taught what the prompt asks for; None where no patch says what it
        teaches. The prompt is a message to the model's chat template, where it has one."""
        text = _text("memory_confidence", prompt)
        found: str | None = told(lambda: self._it.memory_confidence(text))
        return None if found is None else MemoryConfidence(**json.loads(found))

    def logits(self, tokens: Tensor) -> Tensor:
        """Logits [B, T, vocab_size] float32 of whole sequences [B, T], without gradients."""
        logits: Tensor = told(lambda: self._it.logits(tokens))
        return logits

    def _tokens_of(self, prompt: str | Sequence[int]) -> list[int]:
        if isinstance(prompt, str):
            tokens: list[int] = told(lambda: self._it.encode_prompt(_text("generate", prompt)))
            return tokens
        if not isinstance(prompt, Sequence) or not all(isinstance(t, int) for t in prompt):
            raise TypeError(
                f"generate: expected a prompt as text or tokens, got {type(prompt).__name__}"
            )
        return [int(token) for token in prompt]


def _several(prompts: Any) -> Sequence[Any]:
    if isinstance(prompts, (str, bytes)) or not isinstance(prompts, Sequence) or not prompts:
        raise TypeError(f"generate: expected a list of prompts, got {prompts!r}")
    return prompts


def _options(options: dict[str, Any]) -> str:
    given = {name: value for name, value in options.items() if value is not None}
    bias = given.get("logit_bias")
    if isinstance(bias, dict):
        given["logit_bias"] = [[token, added] for token, added in bias.items()]
    if isinstance(given.get("stop"), str):
        given["stop"] = [given["stop"]]
    try:
        return json.dumps(given, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"generate: options: {error}") from error


def _take(answer: Generation, made: dict[str, Any]) -> None:
    if "error" in made:
        raise Error(made["error"])
    answer.text += made["text"]
    if "token" in made:
        answer.tokens.append(made["token"])
    if "logprobs" in made:
        answer.logprobs.append(_place(made["logprobs"]))
    if "prompt_logprobs" in made:
        answer.prompt_logprobs = [_place(place) for place in made["prompt_logprobs"]]
    if "finish" in made:
        answer.finish = made["finish"]


def _place(place: dict[str, Any]) -> TokenLogprobs:
    return TokenLogprobs(place["token"], place["logprob"], [(t, p) for t, p in place["top"]])


def _text(function: str, text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{function}: expected text as a str, got {type(text).__name__}")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"{function}: expected text of whole characters, got a surrogate alone")
    return text
