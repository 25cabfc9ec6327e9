#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures every line of the table in docs/performance.md and prints it as Markdown.

    make acceptance        # or: .venv/bin/python bench/acceptance.py --only gather,lookup

Runs one process after the other; nothing else should run. Writes <out>/results.jsonl (what each command
said) and <out>/acceptance.md. --only names lines: gather, lookup, update, peers, size, decode, decoder.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 3  # of what is compared across processes: in turn, the fastest counts
DTYPES = ["float32", "bfloat16", "int8", "int4"]


class Runner:
    """Runs `memlayers bench` and keeps what it said."""

    def __init__(self, command: Path, out: Path, threads: int) -> None:
        self.command, self.out, self.threads = command, out, threads
        out.mkdir(parents=True, exist_ok=True)
        self.file = (out / "results.jsonl").open("w")

    def bench(self, kind: str, options: str) -> list[dict]:
        """The cases; empty where one does not fit into the free memory."""
        line = f"bench {kind} {options} --threads {self.threads} --json"
        print(f"memlayers {line}", file=sys.stderr, flush=True)
        done = subprocess.run([self.command, *line.split()], capture_output=True, text=True)
        if done.returncode == 1 and "of free memory" in done.stderr:
            print(f"  does not fit: {done.stderr.strip()}", file=sys.stderr)
            return []
        if done.returncode != 0:
            sys.exit(f"acceptance.py: {line}: {done.stderr.strip()}")
        cases = [json.loads(text) for text in done.stdout.splitlines()]
        self.keep(cases)
        return cases

    def keep(self, cases: list[dict]) -> None:
        for case in cases:
            self.file.write(json.dumps(case) + "\n")
        self.file.flush()

    def dtypes(self) -> list[str]:
        """Those that this build has."""
        tiny = "--dim 16 --n-keys 8 --knn 2 --k-dim 4 --tokens 2 --repeat 1"
        found = []
        for dtype in DTYPES:
            line = [self.command, "bench", "gather", *tiny.split(), "--dtype", dtype]
            if subprocess.run(line, capture_output=True).returncode == 0:
                found.append(dtype)
        return found


class Table:
    """Lines of: what, measured, the limit beside it, ratio, what is wanted, whether it holds, and the ratio
    at the machine's limit (limit_ms of bench step, random_update_gbs of bench update)."""

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


def gather(run: Runner, table: Table) -> None:
    dtypes = ",".join(run.dtypes())
    for n_keys, dim in ((1024, 1024), (2048, 256)):
        options = f"--n-keys {n_keys} --dim {dim} --dtype {dtypes} --dist uniform,zipf"
        for c in run.bench("gather", options):
            table.add(
                f"gather, {n_keys}² x {dim} {c['dtype']}, {c['dist']}",
                f"{c['gather_gbs']:.1f} GB/s",
                f"{c['random_row_gbs']:.1f} GB/s random rows",
                c["gather_ratio"],
                ">=",
                0.85,
            )


def lookup(run: Runner, table: Table) -> None:
    for c in run.bench("lookup", "--n-keys 256,1024,4096 --repeat 20"):
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
    for c in run.bench("update", "--dtype float32,bfloat16"):
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
        results = peer_results(run, dtype, model_dtype)
        steps = {r["arm"]: r for r in results if "step_ms" in r}
        ours = steps.pop("memlayers", None)
        if ours is None or not steps:
            table.skip(what, "too little free memory")
            continue
        fastest = min(steps.values(), key=lambda r: r["step_ms"])
        got, theirs = ours["step_ms"], fastest["step_ms"]
        beside = f"{theirs:.0f} ms {fastest['arm']}"
        table.add(what, f"{got:.0f} ms", beside, theirs / got, ">=", wanted, theirs / ours["limit_ms"])


def peer_results(run: Runner, dtype: str, model_dtype: str) -> list[dict]:
    out = run.out / "peers"
    script = ROOT / "bench" / "peers" / "run.py"
    line = [sys.executable, str(script), "--n-keys", "1024", "--arms", "memlayers,torch-dense,torch-sparse"]
    line += ["--dtype", dtype, "--model-dtype", model_dtype, "--rounds", str(ROUNDS)]
    line += ["--command", str(run.command), "--threads", str(run.threads), "--out", str(out)]
    print("bench/peers/run.py", *line[2:], file=sys.stderr, flush=True)
    if subprocess.run(line, stdout=subprocess.DEVNULL).returncode != 0:
        sys.exit("acceptance.py: bench/peers/run.py failed")
    results = [json.loads(text) for text in (out / "results.jsonl").read_text().splitlines()]
    run.keep(results)
    return results


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
    for c in run.bench("layer", "--tokens 1 --repeat 40"):
        table.add(
            "decoding one token through the layer, 1024²",
            f"{c['inference_ms']:.2f} ms",
            f"{c['inference_limit_ms']:.2f} ms: {c['inference_bytes'] / 1e6:.1f} MB at the stream's rate",
            c["inference_ratio"],
            "<=",
            1.3,
        )


def decoder(run: Runner, table: Table) -> None:
    for c in run.bench("decoder", "--dim 512 --layers 8 --n-keys 1024"):
        table.add(
            "whole decoder's training step, dim 512, 8 layers, 3 with memory, 1024²",
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
    run, table = Runner(a.command, a.out, a.threads), Table()
    for name in chosen:
        PARTS[name](run, table)
        (a.out / "acceptance.md").write_text(table.text())
    print(table.text())


if __name__ == "__main__":
    main()
