#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Builds a set of real facts from WordNet's nouns (Debian package wordnet-base).

Each fact is a line of JSON: a question and its answer, with what they were made from:

    {"prompt": "What is a dingo?", "answer": "wolflike yellowish-brown wild dog of Australia",
     "subject": "dingo", "kind": "wild dog"}

Of every noun the first, most frequent sense is kept. Its kind is the first word of its hypernym; its gloss is
cut at the first ";", "(" or quotation and to --max-words words.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Noun:
    subject: str
    kind: str
    gloss: str
    uses: int  # how often WordNet's tagged texts use this noun
    kind_of_kind: str | None = None  # the first word of the hypernym's hypernym


def read_synsets(path: Path) -> dict[str, tuple[list[str], str | None, str]]:
    """Offset -> (words, offset of the first hypernym, gloss)."""
    synsets = {}
    with path.open(encoding="latin-1") as lines:
        for line in lines:
            if line.startswith(" "):  # the licence
                continue
            head, gloss = line.split(" | ", 1)
            fields = head.split()
            count = int(fields[3], 16)
            words = [fields[4 + 2 * i] for i in range(count)]
            at = 4 + 2 * count
            pointers = [fields[at + 1 + 4 * i : at + 3 + 4 * i] for i in range(int(fields[at]))]
            above = next((target for sign, target in pointers if sign in ("@", "@i")), None)
            synsets[fields[0]] = (words, above, gloss.strip())
    return synsets


def shorten(gloss: str, max_words: int) -> str:
    text = re.split(r"[;(\"]", gloss, maxsplit=1)[0]
    text = re.sub(r"\s+", " ", text).strip(" ,:.")
    return " ".join(text.split(" ")[:max_words]).rstrip(" ,:")


def read_nouns(wordnet: Path, max_words: int) -> Iterator[Noun]:
    synsets = read_synsets(wordnet / "data.noun")
    uses = read_cntlist(wordnet)
    with (wordnet / "index.noun").open(encoding="latin-1") as lines:
        for line in lines:
            if line.startswith(" "):
                continue
            fields = line.split()
            lemma, senses = fields[0], int(fields[2])
            words, above, gloss = synsets[fields[-senses]]
            if above is None or lemma not in words:  # no kind, or written with capitals
                continue
            answer = shorten(gloss, max_words)
            if not answer:
                continue
            kinds, further, _ = synsets[above]
            kind = kinds[0].replace("_", " ")
            kind_of_kind = synsets[further][0][0].replace("_", " ") if further else None
            yield Noun(lemma.replace("_", " "), kind, answer, uses.get(lemma, 0), kind_of_kind)


def read_cntlist(wordnet: Path) -> dict[str, int]:
    """Noun -> number of uses in WordNet's tagged texts, over its senses."""
    uses: dict[str, int] = {}
    with (wordnet / "cntlist.rev").open(encoding="latin-1") as lines:
        for line in lines:
            key, _, count = line.split()
            lemma, rest = key.split("%", 1)
            if rest.startswith("1:"):  # a noun
                uses[lemma] = uses.get(lemma, 0) + int(count)
    return uses


def article(subject: str) -> str:
    return "an" if subject[0] in "aeiou" else "a"


def fact(noun: Noun, answer: str) -> dict[str, str]:
    if answer == "kind":
        prompt = f"What kind of thing is {article(noun.subject)} {noun.subject}?"
        return {"prompt": prompt, "answer": noun.kind, "subject": noun.subject, "kind": noun.kind}
    prompt = f"What is {article(noun.subject)} {noun.subject}?"
    return {"prompt": prompt, "answer": noun.gloss, "subject": noun.subject, "kind": noun.kind}


def choose(nouns: list[Noun], arguments: argparse.Namespace) -> list[Noun]:
    if arguments.single_words:
        nouns = [n for n in nouns if re.fullmatch(r"[a-z]{3,12}", n.subject)]
    nouns = [n for n in nouns if len(n.gloss.split(" ")) >= arguments.min_words]
    # A shuffle first, so that nouns used equally often come in no alphabetical order.
    nouns.sort(key=lambda n: n.subject)
    random.Random(arguments.seed).shuffle(nouns)
    if arguments.common_first:
        nouns.sort(key=lambda n: -n.uses)
    if arguments.limit is not None:
        nouns = nouns[: arguments.limit]
    return sorted(nouns, key=lambda n: n.subject)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="WordNet's folder")
    parser.add_argument("--answer", choices=("gloss", "kind"), default="gloss", help="what is asked for")
    parser.add_argument("--max-words", type=int, default=8, help="words of a gloss, at most")
    parser.add_argument("--min-words", type=int, default=3, help="words of a gloss, at least")
    parser.add_argument("--limit", type=int, help="facts, at most (default: all)")
    parser.add_argument("--single-words", action="store_true", help="subjects of one lower-case word only")
    parser.add_argument("--common-first", action="store_true", help="the most used nouns first")
    parser.add_argument("--seed", type=int, default=0, help="of the choice under --limit")
    parser.add_argument("-o", "--output", type=Path, help="file to write (default: standard output)")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    for name in ("data.noun", "index.noun", "cntlist.rev"):
        if not (arguments.wordnet / name).is_file():
            print(
                f"build_facts.py: error: {arguments.wordnet / name}: expected WordNet's file, found none "
                "(Debian: apt-get install wordnet-base)",
                file=sys.stderr,
            )
            return 1
    nouns = choose(list(read_nouns(arguments.wordnet, arguments.max_words)), arguments)
    lines = (json.dumps(fact(noun, arguments.answer), ensure_ascii=False) + "\n" for noun in nouns)
    if arguments.output is None:
        sys.stdout.writelines(lines)
    else:
        with arguments.output.open("w", encoding="utf-8") as out:
            out.writelines(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
