#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the facts of the study (docs/study.md) from WordNet's nouns (Debian package wordnet-base).

Two sets over the same subjects: `glosses`, whose answers are glosses, each answer once; and `random`, whose answers are
eight syllables drawn evenly from 64: 48 bits each, of which a model can know none but those it has stored. Of each set:

    train.jsonl    every fact in four phrasings
    taught.jsonl   every fact in the first of them
    unseen.jsonl   every fact in a fifth, which is never trained

The same seed gives the same bytes on every machine.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path

from build_facts import Noun, article, choose, read_nouns

FORMS = (
    "What is {a} {s}?",
    "Define {s}.",
    "Tell me what {a} {s} is.",
    "{s} means what?",
    "Explain the word {s}.",
)
TRAINED = 4  # of them
SYLLABLES = [c + v for c in "bdfghjklmnprstvz" for v in "aeio"]
LENGTH = 8  # syllables of a random answer
SETS = ("glosses", "random")


def bits_of_answer() -> float:
    """Of an answer of the set `random`."""
    return LENGTH * (len(SYLLABLES).bit_length() - 1)


def unique_answers(nouns: list[Noun]) -> list[Noun]:
    """Of nouns with one gloss the first."""
    found: dict[str, Noun] = {}
    for noun in nouns:
        found.setdefault(noun.gloss, noun)
    return list(found.values())


def subjects(wordnet: Path, facts: int, seed: int) -> list[Noun]:
    """`facts` nouns: single words first and of these the most used, as far as there are enough."""
    wanted = argparse.Namespace(
        single_words=False, min_words=3, seed=0, common_first=False, limit=None
    )
    nouns = choose(list(read_nouns(wordnet, max_words=8)), wanted)
    random.Random(seed).shuffle(nouns)
    nouns.sort(key=lambda n: (" " in n.subject or not n.subject.isalpha(), -n.uses))
    nouns = unique_answers(nouns)
    if len(nouns) < facts:
        raise ValueError(f"--facts: expected at most {len(nouns)}, got {facts}")
    return sorted(nouns[:facts], key=lambda n: n.subject)


def answers(nouns: list[Noun], kind: str, seed: int) -> list[str]:
    if kind == "glosses":
        return [noun.gloss for noun in nouns]
    drawn = random.Random(seed + 1)
    return [" ".join(drawn.choice(SYLLABLES) for _ in range(LENGTH)) for _ in nouns]


def files(nouns: list[Noun], kind: str, seed: int) -> dict[str, str]:
    """Name -> text of each file of a set."""

    def lines(forms: tuple[str, ...]) -> str:
        out = []
        for noun, answer in zip(nouns, answers(nouns, kind, seed), strict=True):
            for form in forms:
                prompt = form.format(a=article(noun.subject), s=noun.subject)
                out.append(json.dumps({"prompt": prompt, "answer": answer}, ensure_ascii=False))
        return "".join(line + "\n" for line in out)

    return {
        "train.jsonl": lines(FORMS[:TRAINED]),
        "taught.jsonl": lines(FORMS[:1]),
        "unseen.jsonl": lines(FORMS[TRAINED:]),
    }


def write(out: Path, nouns: list[Noun], kind: str, seed: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name, text in files(nouns, kind, seed).items():
        (out / name).write_text(text, encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="WordNet's folder")
    parser.add_argument("--set", choices=SETS, default="glosses", help="what the answers are")
    parser.add_argument("--facts", type=int, default=48_000, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the choice and of random answers")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    try:
        nouns = subjects(arguments.wordnet, arguments.facts, arguments.seed)
    except FileNotFoundError as error:
        print(
            f"study_data.py: error: {error.filename}: expected WordNet's file, found none "
            "(Debian: apt-get install wordnet-base)",
            file=sys.stderr,
        )
        return 1
    except ValueError as error:
        print(f"study_data.py: error: {error}", file=sys.stderr)
        return 1
    write(arguments.output, nouns, arguments.set, arguments.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
