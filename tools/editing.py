#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Teaches a trained memory model new facts patch by patch, and measures what it learns and forgets.

For each seed a model is trained on 10,000 facts of WordNet in eight phrasings and on sentences. Then come nine patches
of 100 facts, one of 1,000, one of 100 corrections, each learned with those before applied; full finetuning and LoRA
learn the 1,000 facts beside it; and everything is rolled back. One JSON object a step goes to standard output, a table
at the end to standard error. Everything is in runs/editing; what is there already is not trained again.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from build_facts import Noun, article, choose, read_nouns

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "runs" / "editing"
NOUNS = 14_000  # the most used ones; what follows is taken from them at random
BASE, NEW, PATCHES, EARLIER, CORRECTIONS = 10_000, 1_000, 9, 100, 100
FORMS = (
    "What is {a} {s}?",
    "Define {s}.",
    "Tell me what {a} {s} is.",
    "{s} means what?",
    "What does {s} mean?",
    "Explain the word {s}.",
    "Do you know what {a} {s} is?",
    "In short, {s} is",
)
LEARNED = 6  # phrasings of a new fact that are learned; the others are only asked
THOUSAND = ["--batch", "96", "--rehearsal", "1", "--steps", "800", "--check-every", "100"]
RATES = {"finetune": "4e-3", "lora": "1e-2"}  # at 1e-3, in 800 steps, one learned a third and the other nothing


def prompts(noun: Noun) -> list[str]:
    return [form.format(a=article(noun.subject), s=noun.subject) for form in FORMS]


def new_fact(noun: Noun, answer: str) -> dict[str, Any]:
    first, *rest = prompts(noun)
    return {
        "prompt": first,
        "answer": answer,
        "paraphrases": rest[: LEARNED - 1],
        "unseen": rest[LEARNED - 1 :],
    }


def lines_of(noun: Noun, answer: str, forms: int) -> list[dict[str, Any]]:
    return [{"prompt": prompt, "answer": answer} for prompt in prompts(noun)[:forms]]


def write(name: str, rows: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (RUNS / name).write_text(text, encoding="utf-8")


def sentences(wordnet: Path) -> list[str]:
    """The example sentences of WordNet's verbs, adjectives and adverbs."""
    found = set()
    for part in ("verb", "adj", "adv"):
        for line in (wordnet / f"data.{part}").read_text(encoding="latin-1").splitlines():
            if not line.startswith(" "):
                quoted = re.findall(r'"([^"]+)"', line.split(" | ", 1)[1])
                found.update(s for s in quoted if 4 <= len(s.split()) <= 16)
    return sorted(found)


def make_data(wordnet: Path) -> None:
    RUNS.mkdir(parents=True, exist_ok=True)
    choice = argparse.Namespace(
        single_words=True, common_first=True, min_words=3, limit=NOUNS, seed=0
    )
    nouns = choose(list(read_nouns(wordnet, max_words=8)), choice)
    rng = random.Random(1)
    rng.shuffle(nouns)
    base, rest = nouns[:BASE], nouns[BASE:]
    write("base.jsonl", [line for noun in base for line in lines_of(noun, noun.gloss, len(FORMS))])
    write("known.jsonl", [lines_of(noun, noun.gloss, 1)[0] for noun in base])
    write("new.jsonl", [new_fact(noun, noun.gloss) for noun in rest[:NEW]])
    write("new-taught.jsonl", [x for n in rest[:NEW] for x in lines_of(n, n.gloss, LEARNED)])
    for i in range(PATCHES):
        first = NEW + i * EARLIER
        some = rest[first : first + EARLIER]
        write(f"earlier-{i + 1}.jsonl", [new_fact(noun, noun.gloss) for noun in some])
        write(f"taught-{i + 1}.jsonl", [x for n in some for x in lines_of(n, n.gloss, LEARNED)])
    # A correction: a known subject gets the answer of a noun that is nowhere else.
    corrected, answers = base[:CORRECTIONS], rest[NEW + PATCHES * EARLIER :][:CORRECTIONS]
    pairs = zip(corrected, answers, strict=True)
    write("corrections.jsonl", [new_fact(noun, other.gloss) for noun, other in pairs])
    kinds = {noun.kind for noun in corrected}
    alike = [noun for noun in base[CORRECTIONS:] if noun.kind in kinds]
    write("same-kind.jsonl", [lines_of(noun, noun.gloss, 1)[0] for noun in alike])
    write("unchanged.jsonl", [lines_of(noun, noun.gloss, 1)[0] for noun in base[CORRECTIONS:]])
    text = sentences(wordnet)
    rng.shuffle(text)
    write("text.jsonl", [{"text": s} for s in text[1000:21000]])
    write("held-out.jsonl", [{"text": s} for s in text[:1000]])


class Seed:
    """The experiment of one seed: its model, and its steps one after the other."""

    def __init__(self, command: str, seed: int, threads: int) -> None:
        self.command, self.seed, self.threads = command, seed, threads
        self.folder = RUNS / f"seed-{seed}"
        self.model = self.folder / "model"
        self.results: list[dict[str, Any]] = []

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [self.command, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode != 0:
            sys.exit(f"editing.py: error: memlayers {' '.join(arguments)} ended with {done.returncode}")
        return done.stdout

    def note(self, step: str, text: str) -> dict[str, Any]:
        result = {"seed": self.seed, "step": step, **json.loads(text)}
        self.results.append(result)
        print(json.dumps(result), flush=True)
        return result

    def digest(self) -> str:
        text = self.run("inspect", str(self.model), "--digest", "--json")
        return str(json.loads(text)["pool"]["digest"])

    def train(self) -> None:
        trained = RUNS / f"trained-{self.seed}"
        if not (trained / "done").exists():
            config = ROOT / "examples" / "editing" / "memory.toml"
            settings = [f"out={trained}", f"train.seed={self.seed}", f"train.threads={self.threads}"]
            self.run("train", str(config), *(x for s in settings for x in ("--set", s)))
            (trained / "done").touch()
        newest = max(trained.glob("step-*"), key=lambda path: int(path.name.split("-")[1]))
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(newest, self.model)

    def learn(self, verb: list[str], facts: str, taught: list[str], more: list[str]) -> str:
        files = [RUNS / "base.jsonl", RUNS / "text.jsonl", *(RUNS / name for name in taught)]
        arguments = [*verb, str(self.model), str(RUNS / facts)]
        arguments += [x for file in files for x in ("--background", str(file))]
        arguments += ["--held-out", str(RUNS / "held-out.jsonl"), "--threads", str(self.threads)]
        return self.run(*arguments, "--seed", str(self.seed), "--json", *more)

    def patch(self, step: str, facts: str, taught: list[str], more: list[str]) -> None:
        file = str(self.folder / f"{step}.safetensors")
        self.note(step, self.learn(["learn"], facts, taught, ["-o", file, *more]))
        self.run("patch", "apply", str(self.model), file)

    def everything(self, compared: bool) -> None:
        self.train()
        before = self.digest()
        known = ["--keep", str(RUNS / "known.jsonl")]
        earlier, taught = [], []
        for i in range(1, PATCHES + 1):
            self.patch(f"earlier-{i}", f"earlier-{i}.jsonl", taught, ["--check-every", "50"])
            earlier += ["--earlier", str(RUNS / f"earlier-{i}.jsonl")]
            taught.append(f"taught-{i}.jsonl")
        if compared:
            for method, rate in RATES.items():
                options = ["--methods", method, "--weight-lr", rate, *THOUSAND, *known, *earlier]
                text = self.learn(["bench", "learn"], "new.jsonl", taught, options)
                self.note(f"thousand by {method}", text)
        self.patch("thousand", "new.jsonl", taught, [*THOUSAND, *known, *earlier])
        taught.append("new-taught.jsonl")
        kept = ["--keep", str(RUNS / "same-kind.jsonl"), "--check-every", "50"]
        kept += [x for name in ("unchanged", "new") for x in ("--earlier", str(RUNS / f"{name}.jsonl"))]
        self.patch("corrections", "corrections.jsonl", taught, kept)
        for line in self.run("patch", "list", str(self.model), "--json").splitlines():
            self.run("patch", "rollback", str(self.model), json.loads(line)["id"])
        is_same = self.digest() == before
        self.note("all rolled back", json.dumps({"pool_as_before": is_same}))


def table(results: list[dict[str, Any]]) -> str:
    """A line a step: the range over the seeds of each number, in percent."""

    def span(values: list[float], scale: float, digits: int) -> str:
        if not values:
            return ""
        low, high = (f"{scale * x:.{digits}f}" for x in (min(values), max(values)))
        return low if low == high else f"{low} to {high}"

    def change(rows: list[dict[str, Any]], name: str) -> list[float]:
        return [row[name]["after"] - row[name]["before"] for row in rows if name in row]

    lines = ["| step | recall | unseen | known facts, points | earlier patches, points | perplexity | steps |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for step in dict.fromkeys(row["step"] for row in results if "recall" in row):
        rows = [row for row in results if row["step"] == step]
        files = [pair for row in rows for pair in row.get("earlier", {}).values()]
        ratio = [r["perplexity"]["after"] / r["perplexity"]["before"] for r in rows]
        cells = [
            step,
            span([row["recall"]["after"] for row in rows], 100, 1),
            span([row["unseen"]["after"] for row in rows], 100, 1),
            span(change(rows, "keep"), 100, 1),
            span([pair["after"] - pair["before"] for pair in files], 100, 1),
            span(ratio, 1, 3),
            span([row["steps"] for row in rows], 1, 0),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--command", default="build/release/memlayers")
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="its folder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-comparison", action="store_true", help="no finetuning, no LoRA")
    arguments = parser.parse_args()
    make_data(arguments.wordnet)
    results = []
    for number in arguments.seeds:
        seed = Seed(str((ROOT / arguments.command).resolve()), number, arguments.threads)
        seed.everything(not arguments.no_comparison)
        results += seed.results
    print(table(results), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
