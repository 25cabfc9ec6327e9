#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the study of docs/study.md: how much dense compute a memory stands for.

    tools/study.py --plan                        arms, FLOPs a token, hours
    tools/study.py --arm memory-2e16 --seed 1    one arm; after a kill the same command goes on
    tools/study.py --arm dense-1x --tune         its learning rate, on a quarter of the facts
    tools/study.py --table --write               every number and plot of docs/study.md from the results

Results are lines of bench/results/study/SET-FACTS.jsonl.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import study_table
from study_data import SETS
from study_runs import RATES, ROOT, Run, Study, StudyError, best_rate, find, records, run_arm, sizes

# FLOPs of training a second that one core was seen to make in decoders of this size; what the plan
# goes by until an arm of the kind has run.
GUESS = {"dense": 6e9, "other": 3e9}


def training_flops(record: dict[str, float]) -> float:
    return 3 * record["flops"] * record["tokens"]


def speed(study: Study, arm: str) -> float:
    """FLOPs a second: of this arm where it has run, else of its kind."""
    done = [r for r in records(study) if r["cpu_s"] > 0]
    kind = "dense" if arm.startswith("dense") else "other"
    for alike in (
        [r for r in done if r["arm"] == arm],
        [r for r in done if r["arm"].startswith("dense") == (kind == "dense")],
    ):
        if alike:
            return sum(map(training_flops, alike)) / sum(r["cpu_s"] for r in alike)
    return GUESS[kind]


def plan(study: Study, seeds: int) -> str:
    names = sorted(path.stem for path in study.arms.glob("*.toml"))
    rows = [["arm", "FLOPs a token", "of dense-1x", "parameters", "in the pool", "steps", "hours a seed", "seeds done"]]
    total = left = 0.0
    first = sizes(study, Run("dense-1x", 1, best_rate(study, "dense-1x"), study.exposures))
    for name in names:
        run = Run(name, 1, best_rate(study, name), study.exposures)
        counted = sizes(study, run)
        flops = counted["flops_per_token"]["total"]
        tokens = counted["tokens"] * study.exposures / 4
        hours = 3 * flops * tokens / speed(study, name) / 3600
        done = sum(
            find(study, Run(name, seed, run.rate, study.exposures)) is not None
            for seed in range(1, seeds + 1)
        )
        total += seeds * hours
        left += (seeds - done) * hours
        parameters = counted["parameters"]
        rows.append([
            name,
            f"{flops / 1e3:.1f}k",
            f"{flops / first['flops_per_token']['total']:.2f}",
            study_table.short(parameters["dense"] + parameters["memory"]),
            study_table.short(parameters["pool"]),
            str(counted["steps"]),
            f"{hours:.2f}",
            f"{done} of {seeds}",
        ])  # fmt: skip
    end = f"{study.name}: {total:.1f} hours of a core for {seeds} seeds, {left:.1f} of them to run"
    return study_table.text_table(rows) + "\n" + end + "\n"


def tune(study: Study, arm: str, deadline: float | None) -> bool:
    for rate in RATES:
        record = run_arm(study, Run(arm, 1, rate, study.exposures, is_trial=True), deadline)
        if record is None:
            return False
        print(f"{arm}: rate {rate:g}: {sum(record['nll']) / len(record['nll']):.3f} nats an answer")
    print(f"{arm}: best rate {best_rate(study, arm):g}")
    return True


def run_one(study: Study, arguments: argparse.Namespace, deadline: float | None) -> bool:
    rate = arguments.rate if arguments.rate is not None else best_rate(study, arguments.arm)
    record = run_arm(study, Run(arguments.arm, arguments.seed, rate, study.exposures), deadline)
    if record is None:
        return False
    recalled = 100 * record["recalled"].count("1") / len(record["recalled"])
    nll = sum(record["nll"]) / len(record["nll"])
    print(
        f"{arguments.arm}, seed {arguments.seed}, rate {rate:g}: {nll:.3f} nats an answer, {recalled:.1f} % recalled, "
        f"{record['cpu_s']:.0f} s of a core"
    )
    return True


def parse_arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--plan", action="store_true", help="arms, FLOPs a token and hours; starts nothing")
    what.add_argument("--arm", help="run this one: a file of examples/study, without .toml")
    what.add_argument("--table", action="store_true", help="print the page's tables from the results")
    parser.add_argument("--seed", type=int, default=1, help="of weights and of the order of facts")
    parser.add_argument("--seeds", type=int, default=3, help="with --plan: how many of each arm")
    parser.add_argument("--tune", action="store_true", help="with --arm: try its learning rates on a quarter")
    parser.add_argument("--rate", type=float, help="learning rate (default: the best one tried)")
    parser.add_argument("--hours", type=float, help="stop in time: the same command goes on later")
    parser.add_argument("--set", choices=SETS, default="glosses", help="what the answers are")
    parser.add_argument("--facts", type=int, default=3000, help="how many facts are learned")
    parser.add_argument("--exposures", type=int, default=100, help="how often each is seen, in four phrasings")
    parser.add_argument("--write", action="store_true", help="with --table: write docs/study.md and its plots")
    parser.add_argument("--pause-while", type=Path, help="training stands still as long as this file is there")
    parser.add_argument("--command", default=Study.command, help="the memlayers command")
    parser.add_argument("--runs", type=Path, default=Study.runs, help="folder of the runs")
    parser.add_argument("--results", type=Path, default=Study.results, help="folder of the results")
    parser.add_argument("--wordnet", type=Path, default=Study.wordnet, help="WordNet's folder")
    arguments = parser.parse_args(given)
    if arguments.exposures < 1 or arguments.facts < 4:
        parser.error("expected at least 1 exposure of at least 4 facts")
    return arguments


def main(given: list[str] | None = None) -> int:
    arguments = parse_arguments(given)
    study = Study(
        kind=arguments.set,
        facts=arguments.facts,
        exposures=arguments.exposures,
        command=str(Path(arguments.command).resolve()),
        runs=arguments.runs.resolve(),
        results=arguments.results.resolve(),
        wordnet=arguments.wordnet,
        pause_while=arguments.pause_while,
    )
    deadline = None if arguments.hours is None else time.monotonic() + 3600 * arguments.hours
    try:
        if arguments.table:
            text = study_table.page(study)
            if arguments.write:
                study_table.write(text, ROOT / "docs")
            else:
                print(text.tables)
            return 0
        if not Path(study.command).is_file():
            raise StudyError(f"{study.command}: expected the memlayers command, found none (make build)")
        if arguments.plan:
            print(plan(study, arguments.seeds), end="")
            return 0
        is_done = tune(study, arguments.arm, deadline) if arguments.tune else run_one(study, arguments, deadline)
        if not is_done:
            print("stopped in time; the same command goes on from there")
        return 0
    except StudyError as error:
        print(f"study: error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
