#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures what a pretrained model learns in a memory and what it keeps: the figures of docs/retrofit.md.

    scripts/fetch_smollm2.sh; python3 tools/retrofit.py --facts 100 --seed 0

makes data (tools/make_facts.py) and a retrofitted model under --work, teaches it by `memlayers learn`, and asks by
`memlayers generate`: greedy answers, word for word. Each figure is a line of JSON of the file of results (--out); a
step whose figures are there is not done again. Steps: before, learn, recall, transfer, keep, tokens, text, tasks, confidence,
rows, corrections, rollback. `tasks` are those of --tasks (tools/retrofit_tasks.py says which files); `text` is the perplexity of --text, the first of its tokens: wikitext-2's test.txt stands in the
repository pytorch/examples, word_language_model/data/wikitext-2, and is not ours to give.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import retrofit_tasks
from make_facts import TAUGHT, UNSEEN

ROOT = Path(__file__).resolve().parent.parent
GATE = "0.5"
sys.path.insert(0, str(ROOT / "python"))  # memlayers, for the steps that ask it in this process


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def auc(high: list[float], low: list[float]) -> float:
    """That one of `high` is above one of `low`, halves for equals."""
    ranked = sorted([(value, 1) for value in high] + [(value, 0) for value in low])
    wins = below = at = 0.0
    while at < len(ranked):
        end = int(at)
        while end < len(ranked) and ranked[end][0] == ranked[int(at)][0]:
            end += 1
        group = ranked[int(at) : end]
        ours = sum(kind for _, kind in group)
        wins += ours * (below + (len(group) - ours) / 2)
        below += len(group) - ours
        at = end
    return wins / (len(high) * len(low))


class Experiment:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.name = f"{arguments.name}{arguments.facts}-seed{arguments.seed}"
        self.work = arguments.work / self.name
        self.data, self.model = self.work / "data", self.work / "model"
        self.plain = arguments.work / "plain"
        self.results = arguments.out
        self.work.mkdir(parents=True, exist_ok=True)
        self.results.parent.mkdir(parents=True, exist_ok=True)

    def has(self, step: str) -> bool:
        if not self.results.exists():
            return False
        return any(row["run"] == self.name and row["step"] == step for row in read(self.results))

    def note(self, step: str, **figures: Any) -> None:
        line = json.dumps({"run": self.name, "step": step, **figures})
        with self.results.open("a", encoding="utf-8") as out:
            out.write(line + "\n")
        print(line, flush=True)

    def run(self, *arguments: str | Path) -> str:
        command = [str(self.arguments.command), *map(str, arguments)]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"retrofit.py: error: {' '.join(command)} ended with {done.returncode}")
        return done.stdout

    def ask(self, model: Path, prompts: str, *more: str, tokens: int = 32) -> list[dict[str, Any]]:
        """Greedy answers to a file of prompts, one a line."""
        out = self.run(
            "generate", model, "--chat", "--json", "--file", self.data / prompts,
            "--max-tokens", str(tokens), *more,
        )  # fmt: skip
        return [json.loads(line) for line in out.splitlines()]

    def recalled(self, model: Path, name: str, answers: list[dict[str, Any]]) -> float:
        wanted = [row["answer"] for row in read(self.data / f"{name}.jsonl")]
        pairs = zip(answers, wanted, strict=True)
        return sum(answer["text"].strip() == fact for answer, fact in pairs) / len(wanted)

    def prepare(self) -> None:
        a = self.arguments
        if not self.plain.exists():
            gguf = subprocess.run(
                [ROOT / "scripts/fetch_smollm2.sh"], stdout=subprocess.PIPE, text=True, check=True
            ).stdout.strip()
            self.run("import", gguf, "-o", self.plain, "--dtype", "bfloat16")
        if not self.data.exists():
            make = [sys.executable, ROOT / "tools/make_facts.py", "-o", self.data, "--seed", str(a.seed)]
            corrections = str(min(100, a.facts // 2))
            counts = ["--facts", str(a.facts), "--untaught", str(a.untaught), "--corrections", corrections]
            subprocess.run([*make, *counts, "--primed", str(a.prime), *a.facts_options.split()], check=True)
            for name in ("asked.jsonl", "asked.txt"):
                lines = (self.data / name).read_text().splitlines(keepends=True)
                (self.data / name).write_text("".join(lines[: a.asked]))
            some = sorted(random.Random(a.seed).sample(range(a.facts), min(a.facts, a.facts_asked)))
            for name, each in (("taught", len(TAUGHT)), ("unseen", len(UNSEEN))):
                for path in (self.data / f"{name}.jsonl", self.data / f"{name}.txt"):
                    lines = path.read_text().splitlines(keepends=True)
                    path.write_text("".join(lines[each * i + k] for i in some for k in range(each)))
            questions = (self.data / "questions.jsonl").read_text() + (self.data / "rehearsed.jsonl").read_text()
            (self.data / "kept.jsonl").write_text(questions)
        if not self.model.exists():
            options = ["--layers", a.layers, "--seed", str(a.seed), *a.retrofit.split()]
            if a.prime > 0:
                primed = {"--prime": "prime.jsonl", "--questions": "kept.jsonl", "--background": "text.jsonl"}
                options += ["--empty", *(str(o) for name, file in primed.items() for o in (name, self.data / file))]
            begin = time.monotonic()
            told = json.loads(self.run("retrofit", self.plain, "-o", self.model, "--json", *options))
            told["model"] = self.name
            self.note("retrofitted", options=a.retrofit, seconds=round(time.monotonic() - begin, 1), **told)

    def logits(self, model: Path) -> str:
        import torch

        import memlayers

        torch.set_num_threads(1)
        generator = memlayers.Generator(model)
        rows = read(self.data / "held-out.jsonl")[:8]
        digest = hashlib.sha256()
        for row in rows:
            tokens = generator.tokenizer.encode(row["text"])
            digest.update(generator.logits(torch.tensor([tokens])).numpy().tobytes())
        return digest.hexdigest()

    def perplexity(self, model: Path) -> float:
        out = json.loads(self.run("eval", model, "--data", self.data / "held-out.jsonl", "--json"))
        return float(out["perplexity"])

    def before(self) -> None:
        for name in ("untaught", "asked"):
            answers = self.ask(self.plain, f"{name}.txt")
            (self.work / f"{name}-before.json").write_text(json.dumps([a["text"] for a in answers]))
        self.note(
            "before",
            logits_are_those_of_the_import=self.logits(self.model) == self.logits(self.plain),
            perplexity=self.perplexity(self.plain),
        )

    def learn_and_apply(self, facts: str, patch: str, *more: str) -> dict[str, Any]:
        target = self.work / patch
        target.unlink(missing_ok=True)
        begin = time.monotonic()
        out = self.run("learn", self.model, self.data / facts, "-o", target, "--json", *more)
        seconds = time.monotonic() - begin
        self.run("patch", "apply", self.model, target)
        return {"seconds": round(seconds, 1), **json.loads(out)}

    def learn(self) -> None:
        """In --patches patches, each of which rehearses the facts of those before it."""
        options = self.arguments.learn.split()
        lines = (self.data / "facts.jsonl").read_text().splitlines(keepends=True)
        earlier: list[Path] = []
        for i in range(self.arguments.patches):
            part = self.data / f"facts-{i + 1}.jsonl"
            part.write_text("".join(lines[i :: self.arguments.patches]))
            rehearsed = ["--questions", self.data / "kept.jsonl", "--background", self.data / "text.jsonl", *earlier]
            told = self.learn_and_apply(part.name, f"facts-{i + 1}.safetensors", *map(str, rehearsed), *options)
            earlier.append(part)
            facts = len(lines[i :: self.arguments.patches])
            self.note(
                "learned",
                facts=facts,
                options=self.arguments.learn,
                exposures_of_a_fact=told["steps"] * self.arguments.batch / facts,
                **{key: told[key] for key in ("seconds", "steps", "slots", "rows", "bytes")},
            )
        self.note("learn")

    def recall(self) -> None:
        patch_of = {row["subject"]: i % self.arguments.patches for i, row in enumerate(read(self.data / "facts.jsonl"))}
        for name in ("taught", "unseen"):
            answers = self.ask(self.model, f"{name}.txt")
            rows = read(self.data / f"{name}.jsonl")
            right = [a["text"].strip() == row["answer"] for a, row in zip(answers, rows, strict=True)]
            figures: dict[str, Any] = {"recall": sum(right) / len(right)}
            if self.arguments.patches > 1:
                of: list[list[bool]] = [[] for _ in range(self.arguments.patches)]
                for is_right, row in zip(right, rows, strict=True):
                    of[patch_of[row["subject"]]].append(is_right)
                figures["of_patches"] = [sum(some) / len(some) if some else None for some in of]
            if name == "unseen":
                for i in range(len(UNSEEN)):
                    figures[f"family_{i + 1}"] = sum(right[i :: len(UNSEEN)]) / len(right[i :: len(UNSEEN)])
            gated = self.ask(self.model, f"{name}.txt", "--gate-below", GATE)
            figures["recall_gated"] = self.recalled(self.model, name, gated)
            self.note(name, **figures)
        self.note("recall")

    def transfer(self) -> None:
        """What was taught in questions: in the middle of a text, and behind a question of two steps; plain text both."""
        asked = {row["subject"] for row in read(self.data / "taught.jsonl")}
        paths = {}
        for name in ("document", "two_step"):
            rows = [row for row in read(self.data / f"{name}.jsonl") if row.pop("subject") in asked]
            paths[name] = self.work / f"{name}.jsonl"
            paths[name].write_text("".join(json.dumps(row) + "\n" for row in rows))
        for label, model in (("before", self.plain), ("after", self.model)):
            told = json.loads(self.run("eval", model, "--facts", paths["document"], "--no-chat", "--json"))
            chosen = json.loads(self.run("eval", model, "--choices", paths["two_step"], "--json"))
            self.note(
                f"transfer_{label}",
                document_recall=told["recall"]["value"],
                document_nll=told["nll"]["value"],
                two_step=chosen["acc"]["value"],
                two_step_questions=chosen["questions"],
            )
        self.note("transfer")

    def keep(self) -> None:
        for name in ("untaught", "asked"):
            before = json.loads((self.work / f"{name}-before.json").read_text())
            now = {
                "kept": self.ask(self.model, f"{name}.txt"),
                "kept_gated": self.ask(self.model, f"{name}.txt", "--gate-below", GATE),
            }
            figures: dict[str, Any] = {"questions": len(before)}
            for key, answers in now.items():
                figures[key] = sum(a["text"] == b for a, b in zip(answers, before, strict=True)) / len(before)
            figures["off"] = sum(a["memory_is_off"] for a in now["kept_gated"]) / len(before)
            self.note(name, **figures)
        self.note("keep", perplexity=self.perplexity(self.model))

    def tokens(self) -> None:
        """The share of the tokens of the model's own answers that are the likeliest behind those before them."""
        import jinja2
        import memlayers

        template = jinja2.Template((self.plain / "chat_template.jinja").read_text(encoding="utf-8"))
        for name in ("untaught", "asked"):
            answers = json.loads((self.work / f"{name}-before.json").read_text())
            figures = {}
            for label, folder in (("frozen", self.plain), ("taught", self.model)):
                generator = memlayers.Generator(folder)
                kept = of = 0
                for row, answer in zip(read(self.data / f"{name}.jsonl"), answers, strict=True):
                    message = [{"role": "user", "content": row["prompt"]}]
                    prompt = template.render(messages=message, add_generation_prompt=True)
                    asked = generator.tokenizer.encode(prompt, special=True)
                    own = generator.tokenizer.encode(answer)
                    kept += sum(retrofit_tasks.likeliest(generator, asked, own))
                    of += len(own)
                figures[label] = kept / of
            self.note(f"tokens_{name}", **figures)
        self.note("tokens")

    def text(self) -> None:
        if self.arguments.text is None:
            return
        piece = self.work / "text.txt"
        piece.write_text(self.arguments.text.read_text(encoding="utf-8")[: self.arguments.characters], encoding="utf-8")

        def perplexity(model: Path) -> float:
            options = ["--data", piece, "--stride", "1024", "--window", "2048", "--json"]
            return float(json.loads(self.run("eval", model, *options))["perplexity"])

        before, after = perplexity(self.plain), perplexity(self.model)
        self.note("text", file=self.arguments.text.name, before=before, after=after, change=after / before - 1)

    def tasks(self) -> None:
        folder, count = self.arguments.tasks, self.arguments.task_questions
        if folder is None:
            return
        import memlayers

        models = {"before": self.plain, "after": self.model}
        for name, questions in (("piqa", retrofit_tasks.piqa(folder)), ("arc_easy", retrofit_tasks.arc_easy(folder))):
            chosen = retrofit_tasks.some(questions, count)
            if not chosen:
                continue
            path = self.work / f"{name}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in chosen), encoding="utf-8")
            figures = {
                label: json.loads(self.run("eval", model, "--choices", path, "--json"))["acc"]["value"]
                for label, model in models.items()
            }
            self.note(f"tasks_{name}", questions=len(chosen), **figures)
        passages = retrofit_tasks.some(retrofit_tasks.lambada(folder), count)
        if passages:
            right = {
                label: retrofit_tasks.last_words(memlayers.Generator(model), passages)
                for label, model in models.items()
            }
            self.note(
                "tasks_lambada",
                questions=len(passages),
                **{label: sum(found) / len(found) for label, found in right.items()},
            )
        self.note("tasks")

    def confidence(self) -> None:
        import memlayers

        generator = memlayers.Generator(self.model)
        lines = []
        for name in ("taught", "unseen", "untaught", "asked"):
            for row in read(self.data / f"{name}.jsonl"):
                found = generator.memory_confidence(row["prompt"])
                lines.append([name, found.value, found.match, found.agreement, row["prompt"]])
        (self.work / "confidence.json").write_text(json.dumps(lines))
        of = {name: [line[1] for line in lines if line[0] == name] for name in ("taught", "unseen", "untaught", "asked")}
        agreement = {name: [line[3] for line in lines if line[0] == name] for name in of}
        self.note(
            "confidence",
            auc_taught_against_untaught=auc(of["taught"], of["untaught"]),
            auc_unseen_against_untaught=auc(of["unseen"], of["untaught"]),
            auc_unseen_against_asked=auc(of["unseen"], of["asked"]),
            mean_agreement={name: sum(values) / len(values) for name, values in agreement.items()},
            above_gate={name: sum(v >= float(GATE) for v in values) / len(values) for name, values in of.items()},
        )

    def rows(self) -> None:
        for row_type in ("int8", "int4"):
            folder = self.work / row_type
            shutil.rmtree(folder, ignore_errors=True)
            self.run("quantize", self.model, "--rows", row_type, "-o", folder)
            recall = {
                name: self.recalled(folder, name, self.ask(folder, f"{name}.txt")) for name in ("taught", "unseen")
            }
            self.note(f"rows_{row_type}", **recall)
            shutil.rmtree(folder)
        self.note("rows")

    def corrections(self) -> None:
        corrected = read(self.data / "corrections.jsonl")
        subjects = {row["subject"] for row in corrected}
        others = [row for row in read(self.data / "taught.jsonl") if row["subject"] not in subjects]
        path = self.data / "others.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in others))
        (self.data / "others.txt").write_text("".join(row["prompt"] + "\n" for row in others))
        new = [{"prompt": p, "answer": r["answer"]} for r in corrected for p in [r["prompt"], *r["paraphrases"]]]
        (self.data / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in new))
        (self.data / "new.txt").write_text("".join(row["prompt"] + "\n" for row in new))
        before = self.recalled(self.model, "others", self.ask(self.model, "others.txt"))
        options = ["--questions", str(self.data / "kept.jsonl"), "--background", str(path), str(self.data / "text.jsonl")]
        told = self.learn_and_apply("corrections.jsonl", "corrections.safetensors", *options, *self.arguments.learn.split())
        self.note(
            "corrections",
            facts=len(corrected),
            seconds=told["seconds"],
            steps=told["steps"],
            new_answer=self.recalled(self.model, "new", self.ask(self.model, "new.txt")),
            neighbours_before=before,
            neighbours=self.recalled(self.model, "others", self.ask(self.model, "others.txt")),
        )

    def rollback(self) -> None:
        for line in self.run("patch", "list", self.model, "--json").splitlines():
            patch = json.loads(line)
            if patch.get("state", "applied") == "applied":
                self.run("patch", "rollback", self.model, patch["id"])
        self.note("rollback", logits_are_those_of_the_import=self.logits(self.model) == self.logits(self.plain))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--facts", type=int, default=100)
    parser.add_argument("--facts-asked", type=int, default=100, help="how many of them are asked, in all phrasings")
    parser.add_argument("--patches", type=int, default=1, help="in which they are taught, one behind the other")
    parser.add_argument("--untaught", type=int, default=200, help="nouns that are not taught, and as many rehearsed")
    parser.add_argument("--asked", type=int, default=200, help="unrelated questions, at most")
    parser.add_argument("--text", type=Path, help="a file of text whose perplexity is measured")
    parser.add_argument("--characters", type=int, default=300_000, help="of --text, at most")
    parser.add_argument("--tasks", type=Path, help="a folder of tasks' files, as tools/retrofit_tasks.py takes them")
    parser.add_argument("--task-questions", type=int, default=500, help="of each task, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="facts", help="of the run, before the number of facts")
    parser.add_argument("--facts-options", default="", help="further ones of tools/make_facts.py")
    parser.add_argument("--prime", type=int, default=0, help="further nouns, by which the memory is primed and emptied")
    parser.add_argument("--layers", default="15,20,25", help="that get a memory")
    parser.add_argument("--retrofit", default="", help="further options of `memlayers retrofit`")
    parser.add_argument("--learn", default="", help="options of `memlayers learn`")
    parser.add_argument("--batch", type=int, default=32, help="of these options")
    parser.add_argument("--steps", nargs="+", help="only these")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/retrofit")
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results/retrofit/results.jsonl")
    parser.add_argument("--command", type=Path, default=ROOT / "build/release/memlayers")
    arguments = parser.parse_args()
    experiment = Experiment(arguments)
    experiment.prepare()
    steps = "before learn recall transfer keep tokens text tasks confidence rows corrections rollback".split()
    for step in arguments.steps or steps:
        if not experiment.has(step):
            getattr(experiment, step)()
    return 0


if __name__ == "__main__":
    sys.exit(main())
