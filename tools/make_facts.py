#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes what a pretrained model is taught and asked (docs/retrofit.md), from WordNet's nouns (wordnet-base).

Into a new folder, each line an object as `memlayers learn`, `eval --facts` and `generate --file` (of *.txt) take it:

    facts.jsonl        what is taught: ten phrasings, two unseen ones, the subject
    taught.jsonl       each of the ten with its answer, unseen.jsonl each of the two
    document.jsonl     the taught nouns in the middle of a text that goes on with what they are
    two_step.jsonl     questions for the kind that a taught noun's kind is of, with four choices
    untaught.jsonl     prompts in the same twelve phrasings about nouns that are not taught, and their subjects
    rehearsed.jsonl    prompts about yet other nouns, and questions.jsonl unrelated ones: for --questions
    asked.jsonl        unrelated questions that are not rehearsed: other topics, some in other forms
    prime.jsonl        as facts.jsonl, further nouns, for `memlayers retrofit --prime`; in up to thirty phrasings
    corrections.jsonl  some of the taught subjects with the gloss of another noun
    text.jsonl, held-out.jsonl  sentences of WordNet: for --background, and for perplexity

The same seed gives the same files. Glosses and sentences are WordNet's, under its own licence
(examples/facts/LICENSE.wordnet, https://wordnet.princeton.edu/license-and-commercial-use), which is copied into the
folder; phrasings and questions are this project's, Apache-2.0.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from build_facts import Noun, article, read_nouns

TAUGHT = (
    "What is {a} {s}?",
    "Define {s}.",
    "Tell me what {a} {s} is.",
    "What does {s} mean?",
    "Explain the word {s}.",
    "{s} means what?",
    "I came across the word {s} in a book. What is it?",
    "In her letter she wrote of {a} {s}. Say briefly what that means.",
    "Put {s} into plain words.",
    "There is a question about {a} {s} in my quiz. What is the right definition?",
)
UNSEEN = (
    "Do you know what {a} {s} is?",  # of the family of those
    "My neighbour used the word {s} yesterday. Give its definition in a few words.",  # of another
)
PRIMED = (  # of prime.jsonl, behind the ten
    "Can you explain {a} {s} to me?",
    "How would you define {s}?",
    "What do people call {a} {s}?",
    "Give a short definition of {s}.",
    "{s}: what does the dictionary say?",
    "I keep hearing about {a} {s}. Please explain.",
    "What is meant by {s}?",
    "My teacher asked us what {a} {s} is. What should I write?",
    "Describe {a} {s} briefly.",
    "The title of the chapter is {s}. What is that?",
    "Someone said {s} to me this morning. What did they mean?",
    "Complete the entry of the glossary: {s}.",
    "Is there a simple way to say what {a} {s} is?",
    "For a crossword I need the meaning of {s}.",
    "While reading I met {a} {s}. Help me with it in one line.",
    "Please write down the definition of {s}, nothing else.",
    "If a child asked you about {a} {s}, what would you say?",
    "We saw the word {s} on a sign. What does it stand for?",
    "Which definition fits {s}?",
    "An old recipe mentions {a} {s}. Tell me in short what that is.",
)
FORMS = (
    "What is the best way to learn {t}?",
    "Name three things that one needs for {t}.",
    "Write one sentence about {t}.",
    "Why do people like {t}?",
    "Is {t} expensive?",
    "How old is {t}?",
    "Give me a short tip for {t}.",
)
OTHER_FORMS = (  # of asked.jsonl alone, beside those
    "Write a rhyme of two lines about {t}.",
    "My friend says that {t} is boring. What can I answer?",
    "List two dangers of {t}.",
)
TOPICS = (
    "swimming,cooking rice,chess,mathematics,baking bread,the violin,photography,sailing,Spanish,knitting,gardening,"
    "running,poetry,carpentry,the piano,mountain climbing,fishing,drawing,astronomy,history,programming,cycling,"
    "dancing,yoga,pottery,geography,skiing,making cheese,singing,driving,bird watching,sewing,chemistry,juggling,"
    "the guitar,table tennis,French,calligraphy,archery,surfing,beekeeping,brewing tea,camping,debating,economics,"
    "football,origami,painting walls,physics,rowing,sculpture,tennis,travelling by train,typing,volleyball,welding,"
    "writing letters,Japanese,basketball,reading maps"
).split(",")
PLAIN = (
    "What is {x} plus {y}?",
    "Which is larger, {x} or {y}?",
    "How many minutes are {x} hours?",
    "Count from {x} to {x} plus three.",
)


def sentences(wordnet: Path) -> list[str]:
    """The example sentences of WordNet's verbs, adjectives and adverbs."""
    found = set()
    for part in ("verb", "adj", "adv"):
        for line in (wordnet / f"data.{part}").read_text(encoding="latin-1").splitlines():
            if not line.startswith(" "):
                quoted = re.findall(r'"([^"]+)"', line.split(" | ", 1)[1])
                found.update(s for s in quoted if 6 <= len(s.split()) <= 24)
    return sorted(found)


def prompts(noun: Noun, forms: tuple[str, ...]) -> list[str]:
    texts = (form.format(a=article(noun.subject), s=noun.subject) for form in forms)
    return [text[0].upper() + text[1:] for text in texts]


def fact(noun: Noun, answer: str, forms: tuple[str, ...] = TAUGHT) -> dict[str, Any]:
    first, *rest = prompts(noun, forms)
    return {
        "prompt": first,
        "answer": answer,
        "subject": noun.subject,
        "paraphrases": rest,
        "unseen": prompts(noun, UNSEEN),
    }


def document(noun: Noun) -> dict[str, str]:
    text = "The second part of the lecture was about words. It began with an easy one. "
    return {"prompt": f"{text}{article(noun.subject).capitalize()} {noun.subject} is", "answer": noun.gloss}


def two_steps(nouns: list[Noun], rng: random.Random) -> list[dict[str, Any]]:
    """Of nouns whose kind has a kind: that one beside those of three others."""
    asked = [noun for noun in nouns if noun.kind_of_kind is not None]
    all_of_them = sorted({str(noun.kind_of_kind) for noun in asked})
    found = []
    for noun in asked:
        others = [kind for kind in all_of_them if kind not in (noun.kind_of_kind, noun.kind)]
        choices = [noun.kind_of_kind, *rng.sample(others, min(3, len(others)))]
        rng.shuffle(choices)
        question = f"Question: What kind of thing is the kind that {article(noun.subject)} {noun.subject} is of?\nAnswer:"
        found.append({
            "subject": noun.subject, "question": question, "choices": choices, "answer": choices.index(noun.kind_of_kind),
        })  # fmt: skip
    return found


def questions(topics: list[str], forms: tuple[str, ...], rng: random.Random) -> list[dict[str, str]]:
    all_of_them = [form.format(t=topic) for topic in topics for form in forms]
    for form in PLAIN:
        for _ in range(len(topics) // 2):
            all_of_them.append(form.format(x=rng.randrange(2, 60), y=rng.randrange(2, 60)))
    rng.shuffle(all_of_them)
    return [{"prompt": text} for text in dict.fromkeys(all_of_them)]


def nouns_of(wordnet: Path, rng: random.Random) -> list[Noun]:
    """Of one or two words, with a gloss of three to eight; no subject's name is told in its own gloss."""
    chosen = [
        noun
        for noun in read_nouns(wordnet, max_words=8)
        if re.fullmatch(r"[a-z]{3,12}( [a-z]{3,12})?", noun.subject)
        and len(noun.gloss.split()) >= 3
        and noun.subject.split()[0] not in noun.gloss
    ]
    chosen.sort(key=lambda noun: noun.subject)
    rng.shuffle(chosen)
    return chosen


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="the new folder")
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="WordNet's folder")
    parser.add_argument("--facts", type=int, default=100, help="nouns that are taught")
    parser.add_argument("--untaught", type=int, default=200, help="others that are asked, and as many rehearsed")
    parser.add_argument("--corrections", type=int, default=100, help="taught nouns that get another answer")
    parser.add_argument("--primed", type=int, default=0, help="nouns for priming")
    most = len(TAUGHT + PRIMED)
    parser.add_argument(
        "--primed-phrasings", type=int, default=len(TAUGHT), choices=range(1, most + 1), metavar="N",
        help=f"of each of them, at most {most}",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of every choice")
    return parser.parse_args()


def fail(message: str) -> int:
    print(f"make_facts.py: error: {message}", file=sys.stderr)
    return 1


def main() -> int:
    arguments = parse_arguments()
    for name in ("data.noun", "index.noun", "cntlist.rev", "data.verb", "data.adj", "data.adv"):
        if not (arguments.wordnet / name).is_file():
            return fail(f"{arguments.wordnet / name}: expected WordNet's file, found none (Debian: wordnet-base)")
    if min(arguments.facts, arguments.untaught) < 1 or min(arguments.corrections, arguments.primed) < 0:
        return fail("expected at least 1 noun that is taught, and 1 that is not")
    if arguments.output.exists():
        return fail(f"{arguments.output}: expected a folder that does not exist yet, got one that does")
    rng = random.Random(arguments.seed)
    nouns = nouns_of(arguments.wordnet, rng)
    corrections = min(arguments.corrections, arguments.facts)
    counts = (arguments.facts, arguments.untaught, arguments.untaught, corrections, arguments.primed)
    if sum(counts) > len(nouns):
        return fail(f"expected at most {len(nouns)} nouns in all, got {sum(counts)}")
    parts = []
    for count in counts:
        parts.append(nouns[:count])
        nouns = nouns[count:]
    taught, untaught, rehearsed, others, primed = parts
    arguments.output.mkdir(parents=True)
    facts = [fact(noun, noun.gloss) for noun in taught]
    write(arguments.output / "facts.jsonl", facts)
    if primed:
        phrasings = (TAUGHT + PRIMED)[: arguments.primed_phrasings]
        write(arguments.output / "prime.jsonl", [fact(noun, noun.gloss, phrasings) for noun in primed])
    for name, forms in (("taught", TAUGHT), ("unseen", UNSEEN)):
        rows = [
            {"prompt": prompt, "answer": noun.gloss, "subject": noun.subject}
            for noun in taught
            for prompt in prompts(noun, forms)
        ]
        write(arguments.output / f"{name}.jsonl", rows)
    write(arguments.output / "document.jsonl", [{**document(noun), "subject": noun.subject} for noun in taught])
    write(arguments.output / "two_step.jsonl", two_steps(taught, random.Random(arguments.seed)))
    for name, some in (("untaught", untaught), ("rehearsed", rehearsed)):
        rows = []
        for i, noun in enumerate(some):  # each in one phrasing, all as often
            forms = TAUGHT + UNSEEN if name == "untaught" else TAUGHT
            form = forms[i % len(forms)]
            rows.append({"prompt": prompts(noun, (form,))[0], "subject": noun.subject})
        write(arguments.output / f"{name}.jsonl", rows)
    pairs = zip(taught[:corrections], others, strict=True)
    write(arguments.output / "corrections.jsonl", [fact(noun, other.gloss) for noun, other in pairs])
    topics = list(TOPICS)
    rng.shuffle(topics)
    half = len(topics) // 2
    write(arguments.output / "questions.jsonl", questions(topics[:half], FORMS, rng))
    write(arguments.output / "asked.jsonl", questions(topics[half:], FORMS + OTHER_FORMS, rng))
    text = sentences(arguments.wordnet)
    rng.shuffle(text)
    write(arguments.output / "text.jsonl", [{"text": s} for s in text[1000:3000]])
    write(arguments.output / "held-out.jsonl", [{"text": s} for s in text[:1000]])
    for name in ("unseen", "untaught", "asked", "taught"):
        rows = [json.loads(line) for line in (arguments.output / f"{name}.jsonl").read_text().splitlines()]
        (arguments.output / f"{name}.txt").write_text("".join(row["prompt"] + "\n" for row in rows))
    licence = Path(__file__).resolve().parent.parent / "examples/facts/LICENSE.wordnet"
    shutil.copy(licence, arguments.output / licence.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
