#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures every line of the table in docs/performance.md and prints it as Markdown.

    make acceptance        # or: .venv/bin/python bench/acceptance.py --only gather,lookup

Runs one process after the other; nothing else should run. Writes <out>/results.jsonl (what each command
said) and <out>/acceptance.md. --only names lines: gather, lookup, update, peers, size, decode, decoder.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 3  # of what is compared across processes: in turn, the fastest counts


class Runner:
    """Runs `memlayers bench` and bench/peers/run.py, and keeps what they said."""

    def __init__(self, command: Path, out: Path, threads: int) -> None:
        self.command, self.out, self.threads = command, out, threads
        out.mkdir(parents=True, exist_ok=True)
        self.file = (out / "results.jsonl").open("w")

    def bench(self, kind: str, options: str) -> list[dict]:
        """The cases; empty where one does not fit into the free memory."""
        line = f"bench {kind} {options} --threads {self.threads} --json"
        print(f"memlayers {line}", file=sys.stderr, flush=True)
        done = subprocess.run([self.command, *line.split()], capture_output=True, text=True)
        said = (done.stderr.strip().splitlines() or [""])[-1]  # the lines before are progress
        if done.returncode == 1 and "of free memory" in said:
            print(f"  does not fit: {said}", file=sys.stderr)
            return []
        if done.returncode != 0:
            sys.exit(f"acceptance.py: {line}: exit {done.returncode}: {said}")
        cases = [json.loads(text) for text in done.stdout.splitlines()]
        self.keep(cases)
        return cases

    def peers(self, dtype: str, model_dtype: str) -> list[dict]:
        """Each arm's fastest training step, or why it has none."""
        out = self.out / "peers"
        script = ROOT / "bench" / "peers" / "run.py"
        line = [sys.executable, str(script), "--n-keys", "1024"]
        line += ["--arms", "memlayers,torch-dense,torch-sparse"]
        line += ["--dtype", dtype, "--model-dtype", model_dtype, "--rounds", str(ROUNDS)]
        line += ["--command", str(self.command), "--threads", str(self.threads), "--out", str(out)]
        print("bench/peers/run.py", *line[2:], file=sys.stderr, flush=True)
        if subprocess.run(line, stdout=subprocess.DEVNULL).returncode != 0:
            sys.exit("acceptance.py: bench/peers/run.py failed")
        results = [json.loads(text) for text in (out / "results.jsonl").read_text().splitlines()]
        self.keep(results)
        return results

    def keep(self, cases: list[dict]) -> None:
        for case in cases:
            self.file.write(json.dumps(case) + "\n")
        self.file.flush()


class Table:
    """Lines of: what, measured, the limit beside it, ratio, what is wanted, whether it holds, and the ratio
    at the machine's limit (limit_ms of bench step, random_update_gbs of bench update) or, of a gather, where
    its arithmetic alone took its time (cached_gather_gbs)."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = []

    def add(
        self,
        what: str,
        got: str,
        limit: str,
        ratio: float,
        sign: str,
        wanted: float,
        at_best: float | None = None,
    ) -> None:
        holds = ratio >= wanted if sign == ">=" else ratio <= wanted
        best = "" if at_best is None else f"{at_best:.2f}"
        row = [what, got, limit, f"{ratio:.2f}", f"{sign} {wanted:g}", "yes" if holds else "no"]
        self.rows.append([*row, best])

    def skip(self, what: str, why: str) -> None:
        self.rows.append([what, why, "", "", "", "not run", ""])

    def text(self) -> str:
        head = ["measured", "got", "beside", "ratio", "wanted", "holds", "at best"]
        lines = [head, ["---"] * len(head), *self.rows]
        return "\n".join("| " + " | ".join(row) + " |" for row in lines) + "\n"


def fitting(run: Runner, table: Table, what: str, kind: str, options: str) -> list[dict]:
    """The cases of a command; where one of them does not fit, a line that says so instead."""
    cases = run.bench(kind, options)
    if not cases:
        table.skip(what, "too little free memory")
    return cases


def gather(run: Runner, table: Table) -> None:
    for n_keys, dim in ((1024, 1024), (2048, 256)):
        options = f"--n-keys {n_keys} --dim {dim} --dtype float32,bfloat16,int8,int4 --dist uniform,zipf"
        for c in fitting(run, table, f"gather, {n_keys}² x {dim}", "gather", options):
            table.add(
                f"gather, {n_keys}² x {dim} {c['dtype']}, {c['dist']}",
                f"{c['gather_gbs']:.1f} GB/s",
                f"{c['random_row_gbs']:.1f} GB/s random rows; {c['cached_gather_gbs']:.1f} from the cache",
                c["gather_ratio"],
                ">=",
                0.85,
                min(1, c["cached_gather_gbs"] / c["random_row_gbs"]),
            )


def lookup(run: Runner, table: Table) -> None:
    for c in fitting(run, table, "lookup", "lookup", "--n-keys 256,1024,4096 --repeat 20"):
        what = f"lookup, n_keys {c['n_keys']}"
        table.add(
            what,
            f"{c['lookup_ms']:.2f} ms",
            f"{c['products_ms']:.2f} ms products alone",
            c["lookup_ratio"],
            "<=",
            1.5,
        )
        table.add(
            what + ", backward",
            f"{c['lookup_backward_ms']:.2f} ms",
            f"{c['lookup_ms']:.2f} ms forward",
            c["backward_ratio"],
            "<=",
            0.5,
        )


def update(run: Runner, table: Table) -> None:
    for c in fitting(run, table, "row update", "update", "--dtype float32,bfloat16"):
        table.add(
            f"row update, {c['n_keys']}² x {c['dim']} {c['dtype']}, {c['optimizer']}",
            f"{c['update_gbs']:.1f} GB/s",
            f"{c['stream_gbs']:.1f} GB/s stream",
            c["update_ratio"],
            ">=",
            0.6,
            c["random_update_gbs"] / c["stream_gbs"],
        )


def peers(run: Runner, table: Table) -> None:
    for dtype, model_dtype, wanted in (
        ("float32", "float32", 6),
        ("bfloat16", "float32", 12),
        ("bfloat16", "bfloat16", 12),
    ):
        what = f"one layer's training step, 1024² slots, {dtype} rows, all else {model_dtype}"
        steps = {r["arm"]: r for r in run.peers(dtype, model_dtype) if "step_ms" in r}
        ours = steps.pop("memlayers", None)
        if ours is None or not steps:
            table.skip(what, "too little free memory")
            continue
        fastest = min(steps.values(), key=lambda r: r["step_ms"])
        got, theirs = ours["step_ms"], fastest["step_ms"]
        beside = f"{theirs:.0f} ms {fastest['arm']}"
        table.add(what, f"{got:.0f} ms", beside, theirs / got, ">=", wanted, theirs / ours["limit_ms"])


def size(run: Runner, table: Table) -> None:
    what = "training step, dim 256, 4096² slots beside 256²"
    # The largest that fits: AdamW's moments are twice the size of float32 rows.
    for dtype, optimizer in (
        ("float32", "adamw"),
        ("bfloat16", "adamw"),
        ("float32", "rowwise_adagrad"),
        ("bfloat16", "rowwise_adagrad"),
    ):
        options = f"--dim 256 --k-dim 128 --dtype {dtype} --optimizer {optimizer} --n-keys "
        large = run.bench("step", options + "4096")
        if not large:
            continue
        small = run.bench("step", options + "256")
        for _ in range(ROUNDS - 1):
            large += run.bench("step", options + "4096")
            small += run.bench("step", options + "256")

        def least(cases: list[dict], key: str) -> float:
            return min(case[key] for case in cases)

        got, beside = least(large, "step_ms"), least(small, "step_ms")
        what += f", {dtype}, {optimizer}"
        at_best = least(large, "limit_ms") / least(small, "limit_ms")
        table.add(what, f"{got:.1f} ms", f"{beside:.1f} ms", got / beside, "<=", 1.2, at_best)
        return
    table.skip(what, "too little free memory")


def decode(run: Runner, table: Table) -> None:
    for what, options in (
        ("decoding one token through the layer, 1024²", ""),
        (
            "decoding one token, 4096² slots, dim 256, bfloat16 rows",
            "--n-keys 4096 --dim 256 --k-dim 128 --dtype bfloat16 ",
        ),
    ):
        for c in fitting(run, table, what, "layer", f"--tokens 1 {options}--repeat 40"):
            table.add(
                what,
                f"{c['inference_ms']:.2f} ms",
                f"{c['inference_limit_ms']:.2f} ms: {c['inference_bytes'] / 1e6:.1f} MB at the stream's rate",
                c["inference_ratio"],
                "<=",
                1.3,
            )


def decoder(run: Runner, table: Table) -> None:
    what = "whole decoder's training step, dim 512, 8 layers, 3 with memory, 1024²"
    for c in fitting(run, table, what, "decoder", "--dim 512 --layers 8 --n-keys 1024"):
        table.add(
            what,
            f"{c['step_ms']:.0f} ms",
            f"{c['dense_step_ms']:.0f} ms dense twin",
            c["step_ratio"],
            "<=",
            1.25,
        )


PARTS = {f.__name__: f for f in (gather, lookup, update, peers, size, decode, decoder)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default=",".join(PARTS), help="default: all lines")
    parser.add_argument("--command", type=Path, default=ROOT / "build/release/memlayers")
    parser.add_argument("--out", type=Path, default=ROOT / "build/acceptance")
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    chosen = a.only.split(",")
    for name in chosen:
        if name not in PARTS:
            parser.error(f"--only: expected {', '.join(PARTS)}, got {name}")
    if not os.access(a.command, os.X_OK):
        parser.error(f"--command: expected a program, found none at {a.command} (make build makes it)")
    run, table = Runner(a.command, a.out, a.threads), Table()
    for name in chosen:
        PARTS[name](run, table)
        (a.out / "acceptance.md").write_text(table.text())
    print(table.text())


if __name__ == "__main__":
    main()
