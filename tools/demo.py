#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains a memory model and its dense twin side by side, and compares what they recall.

Both are started as `memlayers train ... --json` with one thread each; two progress bars follow their steps. Then
`memlayers eval --facts` measures each, a table is printed, and questions are put to both. With --seeds several
seeds are run one after the other.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples" / "demo"
FACTS = ROOT / "examples" / "facts" / "facts.jsonl"
SUBJECTS = ("violin", "volcano", "bicycle", "cathedral", "hurricane", "dictionary")  # asked first


@dataclass
class Run:
    name: str
    config: Path
    out: Path
    seed: int
    step: dict[str, float] = field(default_factory=dict)
    total: int = 0
    process: subprocess.Popen[str] | None = None
    messages: list[str] = field(default_factory=list)
    began: float = 0.0


def fail(message: str) -> None:
    print(f"demo: error: {message}", file=sys.stderr)
    sys.exit(1)


def start(run: Run, command: str, overrides: list[str]) -> None:
    arguments = [command, "train", str(run.config), "--json", "--set", f"out={run.out}"]
    for text in [f"train.seed={run.seed}", "train.log_every=5", "train.threads=1", *overrides]:
        arguments += ["--set", text]
    run.began = time.monotonic()
    run.process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )

    def read_steps() -> None:
        assert run.process is not None and run.process.stdout is not None
        for line in run.process.stdout:
            record = json.loads(line)
            if "step" in record and "loss" in record:
                run.step = record
            run.total = int(record.get("total_steps", run.total))

    def read_messages() -> None:
        assert run.process is not None and run.process.stderr is not None
        for line in run.process.stderr:
            run.messages.append(line.rstrip("\n"))

    for target in (read_steps, read_messages):
        threading.Thread(target=target, daemon=True).start()


def total_steps(run: Run) -> int:
    """From the line "run  N steps" that train prints at its start."""
    if run.total == 0:
        for message in run.messages:
            words = message.split()
            if message.startswith("run ") and "steps," in words:
                run.total = int(words[words.index("steps,") - 1])
    return run.total


def bar(run: Run) -> str:
    total = total_steps(run)
    done = int(run.step.get("step", 0))
    share = done / total if total else 0.0
    width = 28
    full = int(share * width)
    text = f"{run.name:<7} {100 * share:3.0f}% |{'#' * full}{'.' * (width - full)}| {done}/{total}"
    if run.step:
        text += f"  loss {run.step['loss']:.3f}  {run.step['tokens_per_s'] / 1000:.1f}k tok/s"
        if 0 < share < 1:
            left = int((time.monotonic() - run.began) * (1 - share) / share)
            text += f"  {left // 60}:{left % 60:02d} left"
    return text


def follow(runs: list[Run]) -> None:
    terminal = sys.stderr.isatty()
    drawn = False
    last = 0.0
    while True:
        alive = any(run.process is not None and run.process.poll() is None for run in runs)
        if terminal:
            if drawn:
                sys.stderr.write(f"\x1b[{len(runs)}A")
            for run in runs:
                sys.stderr.write(f"\r\x1b[K{bar(run)}\n")
            sys.stderr.flush()
            drawn = True
        elif time.monotonic() - last > 20 or not alive:
            last = time.monotonic()
            for run in runs:
                print(bar(run), file=sys.stderr, flush=True)
        if not alive:
            break
        time.sleep(0.2)
    for run in runs:
        assert run.process is not None
        if run.process.returncode != 0:
            fail(f"{run.name}: " + (run.messages[-1] if run.messages else "training failed"))


def answer(command: str, run: Run, questions: list[str]) -> list[str]:
    output = subprocess.run(
        [command, "generate", str(run.out), "--json", "--threads", "1", "--max-tokens", "48", *questions],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout
    return [json.loads(line)["text"].strip() for line in output.splitlines()]


def evaluate(command: str, run: Run) -> dict[str, dict[str, float]]:
    output = subprocess.run(
        [command, "eval", str(run.out), "--facts", str(FACTS), "--threads", "2", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout
    return json.loads(output.splitlines()[-1])


def inspect(command: str, run: Run) -> dict[str, dict[str, float]]:
    output = subprocess.run(
        [command, "inspect", str(run.out), "--json"], stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT
    ).stdout
    return json.loads(output)


def training_seconds(run: Run) -> float:
    """Of the whole run, earlier sittings included: a run that was done before trains no step now."""
    lines = (ROOT / run.out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return float(json.loads(lines[-1])["time_s"])


def short(count: float) -> str:
    for unit in ("", "k", "M", "B"):
        if count < 1000:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g}T"


def show_table(command: str, runs: list[Run]) -> None:
    rows = [["", *[run.name for run in runs]]]
    facts = sum(1 for _ in FACTS.open(encoding="utf-8"))
    looks = [inspect(command, run) for run in runs]
    scores = [evaluate(command, run) for run in runs]

    def interval(estimate: dict[str, float], scale: float, digits: int) -> str:
        value, low, high = (scale * estimate[key] for key in ("value", "low", "high"))
        return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"

    rows.append(["facts learned, and asked", *[str(facts) for _ in runs]])
    rows.append(["forward FLOPs a token", *[short(look["flops_per_token"]["total"]) for look in looks]])
    rows.append(
        ["parameters outside the pool", *[short(look["parameters"]["dense"] + look["parameters"]["memory"]) for look in looks]]
    )
    rows.append(["parameters in the pool", *[short(look["parameters"]["pool"]) for look in looks]])
    rows.append(["recalled exactly, % (95 % interval)", *[interval(s["recall"], 100, 1) for s in scores]])
    rows.append(["nats an answer (95 % interval)", *[interval(s["nll"], 1, 2) for s in scores]])
    rows.append(["training, s", *[f"{training_seconds(run):.0f}" for run in runs]])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    print()
    for row in rows:
        print("  ".join([row[0].ljust(widths[0]), *[cell.rjust(widths[i + 1]) for i, cell in enumerate(row[1:])]]))
    print()


def show_answers(command: str, runs: list[Run]) -> None:
    records = [json.loads(line) for line in FACTS.open(encoding="utf-8")]
    wanted = [record for record in records if record["subject"] in SUBJECTS]
    chosen = wanted or records[:: max(1, len(records) // len(SUBJECTS))]
    questions = [record["prompt"] for record in chosen]
    answers = [answer(command, run, questions) for run in runs]
    for i, record in enumerate(chosen):
        print(f"{record['prompt']}  (taught: {record['answer']})")
        for run, given in zip(runs, answers):
            print(f"  {run.name:<7} {'=' if given[i] == record['answer'] else ' '} {given[i]}")
    print()


def converse(command: str, runs: list[Run]) -> None:
    print('Ask them yourself, e.g. "What is a violin?"; an empty line ends.')
    while True:
        try:
            question = input("> ").strip()
        except EOFError:
            return
        if not question:
            return
        for run in runs:
            print(f"  {run.name:<7} {answer(command, run, [question])[0]}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--command", default=str(ROOT / "build" / "release" / "memlayers"))
    parser.add_argument("--out", type=Path, default=ROOT / "runs", help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="one comparison a seed")
    parser.add_argument("--set", action="append", default=[], help="override for both, as in memlayers train")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    command = str(Path(arguments.command).resolve())
    if not Path(command).is_file():
        fail(f"{command}: expected the memlayers command, found none (make build)")
    for seed in arguments.seeds:
        runs = [
            Run(name, EXAMPLES / f"{name}.toml", arguments.out / f"demo-{name}-{seed}", seed)
            for name in ("memory", "dense")
        ]
        print(f"seed {seed}: a decoder with memory layers and its dense twin learn {FACTS.name}, one core each", file=sys.stderr)
        for run in runs:
            start(run, command, arguments.set)
        try:
            follow(runs)
        except KeyboardInterrupt:
            for run in runs:
                assert run.process is not None
                run.process.wait()  # it has the signal too: it saves and leaves
            fail("stopped; the next call goes on from here")
        show_table(command, runs)
        show_answers(command, runs)
    print("Reports with curves and the map of slots:")
    for run in runs:
        print(f"  {run.out}/report.html")
    print(f'Ask on:  {Path(command).relative_to(ROOT) if Path(command).is_relative_to(ROOT) else command} '
          f'generate {runs[0].out} "What is a violin?"')
    if sys.stdin.isatty():
        converse(command, runs)


if __name__ == "__main__":
    main()
