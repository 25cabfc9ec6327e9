# SPDX-License-Identifier: Apache-2.0
"""What `memlayers learn`, `explain` and `grow` do, as functions with the command's words."""

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike, path
from typing import Any, Literal

import torch

from ._arguments import path_of, told
from .patch import Patch, read_patch

Path = str | PathLike[str]


@dataclass
class LearnProgress:
    """How far learning is: recalled of phrasings when last tested, loss of the last batch (None
    before the first)."""

    step: int
    loss: float | None
    recalled: int
    phrasings: int


@dataclass
class Learned:
    """What learn() has done. patch: the rows that differ; also in the file `out`."""

    patch: Patch
    file: str
    recalled: int
    phrasings: int
    steps: int
    slots: int  # that were trained


def learn(
    model: Path,
    facts: Path | Sequence[dict[str, Any]],
    out: Path,
    *,
    background: Sequence[Path] = (),
    selection: Literal["tfidf", "kl", "guarded"] = "tfidf",
    slots: int | None = None,
    coverage: float | None = None,
    optimizer: Literal["adam", "sgd"] = "adam",
    lr: float | None = None,
    steps: int | None = None,
    batch: int | None = None,
    check_every: int | None = None,
    seed: int = 0,
    rehearsal: float | None = None,
    settle: int | None = None,
    repairs: int | None = None,
    rehearsal_weight: float | None = None,
    chat: bool = True,
    progress: Callable[[LearnProgress], object] | None = None,
) -> Learned:
    """Teaches the model of a folder new facts: writes the new file `out`, a patch of a few rows, for
    Store.apply or `memlayers patch apply`. The model stays as it is (docs/editing.md).

    facts: a JSONL file, or a list, of objects with "prompt", "answer" and where wanted lists
    "paraphrases". background: text or JSONL files of what is to stay, rehearsed. The other options
    are the command's, None its default. chat: facts are messages to the model's chat template,
    where it has one. progress is called as it goes on. Raises Error; what
    `progress` raises and Ctrl-C end it, and nothing is written.
    """
    place, target = path_of("learn", model), path_of("learn", out)
    if path.lexists(target):
        raise FileExistsError(
            f"{target}: expected a file that does not exist yet, got one that does"
        )
    given = {
        "background": [path_of("learn", file) for file in background],
        "selection": selection,
        "slots": slots,
        "coverage": coverage,
        "optimizer": optimizer,
        "lr": lr,
        "steps": steps,
        "batch": batch,
        "check_every": check_every,
        "seed": seed,
        "rehearsal": rehearsal,
        "settle": settle,
        "repairs": repairs,
        "rehearsal_weight": rehearsal_weight,
        "chat": chat,
    }
    options = json.dumps({name: value for name, value in given.items() if value is not None})
    with tempfile.TemporaryDirectory() as made:
        if isinstance(facts, (str, PathLike)):
            source, named = path_of("learn", facts), path_of("learn", facts)
        else:
            source, named = path.join(made, "facts.jsonl"), ""
            with open(source, "w", encoding="utf-8") as file:
                file.writelines(json.dumps(fact, ensure_ascii=False) + "\n" for fact in facts)
        learning = told(lambda: torch.classes.memlayers.Learning(place, source, options))
        try:
            now = _wait(learning, progress)
        except BaseException:
            learning.stop()
            raise
        if now["rows"] == 0:
            raise ValueError(
                "learn: expected facts that the model does not know, got some that it recalls already"
            )
        told(lambda: learning.save(target, named))
    return Learned(
        patch=read_patch(target),
        file=os.fspath(target),
        recalled=now["recalled"],
        phrasings=now["phrasings"],
        steps=now["steps"],
        slots=now["slots"],
    )


def _wait(learning: Any, progress: Callable[[LearnProgress], object] | None) -> dict[str, Any]:
    told_of = -1
    while True:
        now: dict[str, Any] = json.loads(told(lambda: learning.wait(100)))
        if progress is not None and now["phrasings"] > 0 and now["step"] != told_of:
            told_of = now["step"]
            progress(LearnProgress(told_of, now["loss"], now["recalled"], now["phrasings"]))
        if now["done"]:
            return now


@dataclass
class SlotRead:
    """One memory layer's head reading one slot; weights summed over the answer's tokens, and each."""

    layer: int
    head: int
    weight: float
    by_token: list[float]


@dataclass
class ExplainedSlot:
    """A slot that carried an answer. change: of the answer's log-probability, in nats, when the row
    reads as zero. patch: that wrote the row; None: the base. prompts: indices of those that read it.
    """

    slot: int
    change: float
    weight: float
    length: float
    patch: str | None
    prompts: list[int]
    reads: list[SlotRead]


@dataclass
class Explanation:
    """Which slots an answer rests on, the largest change first."""

    answer: str
    is_own: bool  # the model's greedy answer, not one that was given
    tokens: list[str]
    log_probability: float
    slots_read: int
    slots: list[ExplainedSlot]
    # That an applied patch taught what was asked, 0 to 1; None: none says what it teaches. And how
    # much of a subject's words and slots the prompt has: match, agreement, patch.
    memory_confidence: float | None = None
    subject: dict[str, Any] | None = None


def explain(
    model: Path,
    prompt: str,
    answer: str | None = None,
    *,
    top: int = 10,
    max_tokens: int = 32,
    prompts: Sequence[str] = (),
    chat: bool = True,
) -> Explanation:
    """Explains an answer of the model of a folder, its own greedy one where none is given: the slots
    that carried it, `top` of which are left out one at a time (docs/editing.md). chat: the prompt is
    a message to the model's chat template, where it has one. Raises Error."""
    place = path_of("explain", model)
    options = json.dumps(
        {"top": top, "max_tokens": max_tokens, "prompts": list(prompts), "chat": chat}
    )
    fields = json.loads(
        told(lambda: torch.ops.memlayers.explain(place, prompt, answer, options))
    )
    slots = [
        ExplainedSlot(**{**slot, "reads": [SlotRead(**read) for read in slot["reads"]]})
        for slot in fields.pop("slots")
    ]
    return Explanation(**fields, slots=slots)


@dataclass
class Grown:
    """open_keys: of n_keys sub-keys a set, those that lookups see until the model is trained."""

    n_keys_before: int
    n_keys: int
    open_keys: int


def grow(model: Path, n_keys: int, *, seed: int = 0, out: Path | None = None) -> Grown:
    """Gives the model of a folder n_keys^2 slots, in place or as the new folder `out`. It says the
    same until it is trained (docs/editing.md). Raises Error, having changed nothing."""
    place = path_of("grow", model)
    target = None if out is None else path_of("grow", out)
    return Grown(*told(lambda: torch.ops.memlayers.grow(place, n_keys, seed, target)))
