# SPDX-License-Identifier: Apache-2.0
"""One memory layer's training step: ours beside PyTorch and packages from PyPI, in one run.

    .venv/bin/python bench/peers/run.py                       # the sizes of docs/performance.md
    .venv/bin/python bench/peers/run.py --dim 256 --n-keys 256,4096 --arms memlayers-adagrad

One process after the other, on the same number of threads; --rounds times over, of which an arm's fastest
counts: a slow minute of the machine else falls on one of them. Steps of more than ten seconds are of one
round. Writes <out>/results.jsonl as it goes, then <out>/peers.md (ratios), and with --plot a plot, for
which matplotlib is needed. A size that does not fit into the free memory is left out, and the table says so.
"""

import argparse
import importlib.util
import json
import math
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

from arms import ARMS, Sizes
from report import plot, table

ROOT = Path(__file__).resolve().parents[2]

# Options of `memlayers bench step` for each of our arms.
OURS = {
    "memlayers": [],
    "memlayers-adagrad": ["--optimizer", "rowwise_adagrad"],
    "memlayers-sgd": ["--optimizer", "sgd"],
    "memlayers-peer": ["--variant", "peer"],
}

NO_MEMORY = ("of free memory", "out of memory", "can't allocate memory", "MemoryError")
ONCE_MS = 10_000  # a step this long is of one round: what a slow minute adds to it matters little


def measure_ours(command: Path, name: str, s: Sizes) -> dict:
    line = [str(command), "bench", "step", "--json", *OURS[name]]
    for field, value in s.__dict__.items():
        line += ["--" + field.replace("_", "-"), str(value)]
    done = subprocess.run(line, capture_output=True, text=True)
    return answer(done, {"arm": name, **s.__dict__})


def measure_peer(name: str, s: Sizes) -> dict:
    script = Path(__file__).with_name("arms.py")
    line = [sys.executable, str(script), name, json.dumps(s.__dict__)]
    # What the command does for itself (src/cli/main.cpp): freed memory is kept.
    malloc = {"MALLOC_MMAP_THRESHOLD_": str(256 << 20), "MALLOC_TRIM_THRESHOLD_": str((1 << 31) - 1)}
    done = subprocess.run(line, capture_output=True, text=True, env={**os.environ, **malloc})
    return answer(done, {"arm": name, **s.__dict__})


def answer(done: subprocess.CompletedProcess, case: dict) -> dict:
    """What the process printed; or why there is nothing: too large, or it was ended."""
    if done.returncode == 0:
        return {**json.loads(done.stdout.splitlines()[-1]), **case}
    said = (done.stderr.strip().splitlines() or [""])[-1]
    # The command's words, torch's, and what is left of a process that the system ended.
    if any(words in said for words in NO_MEMORY) or done.returncode == -9:
        return {**case, "skipped": said.split("error: ")[-1] or "out of memory"}
    raise SystemExit(f"{case['arm']}: exit {done.returncode}: {said}")


def arguments() -> argparse.Namespace:
    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(",")]

    def words(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    default = Sizes()
    parser.add_argument("--arms", type=words, default=[*OURS, *ARMS], help="default: all")
    parser.add_argument("--n-keys", type=numbers, default=[64, 128, 256, 512, 1024, 2048, 4096])
    parser.add_argument("--dtype", type=words, default=["float32", "bfloat16"])
    for name in ("dim", "tokens", "heads", "knn", "k_dim", "threads", "repeat"):
        parser.add_argument(
            "--" + name.replace("_", "-"), dest=name, type=int, default=getattr(default, name)
        )
    parser.add_argument("--model-dtype", default=default.model_dtype, choices=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--command", type=Path, default=ROOT / "build/release/memlayers")
    parser.add_argument("--out", type=Path, default=ROOT / "build/peers")
    parser.add_argument("--plot", type=Path, help="file of the plot, such as peers.svg (absent: none)")
    chosen = parser.parse_args()
    for arm in chosen.arms:
        if arm not in OURS and arm not in ARMS:
            parser.error(f"--arms: expected {', '.join([*OURS, *ARMS])}, got {arm}")
    if chosen.rounds < 1:
        parser.error(f"--rounds: expected 1 or more, got {chosen.rounds}")
    # Said before hours of measuring, not after.
    if chosen.plot and importlib.util.find_spec("matplotlib") is None:
        sys.exit("run.py: --plot: expected matplotlib, found none (make peers-install installs it)")
    return chosen


def measure(a: argparse.Namespace, sizes: Sizes) -> list[dict]:
    """Every arm's fastest round, or why it has none."""
    fastest: dict[str, dict] = {}
    for _ in range(a.rounds):
        for arm in a.arms:
            before = fastest.get(arm, {})
            if "skipped" in before or before.get("step_ms", 0) > ONCE_MS:
                continue
            result = measure_ours(a.command, arm, sizes) if arm in OURS else measure_peer(arm, sizes)
            step = result.get("skipped") or f"{result['step_ms']:.1f} ms a step"
            print(f"{sizes.dtype} {sizes.n_keys}^2 {arm}: {step}", file=sys.stderr, flush=True)
            if arm not in fastest or result.get("step_ms", math.inf) < before["step_ms"]:
                fastest[arm] = result
    return list(fastest.values())


def main() -> None:
    a = arguments()
    a.out.mkdir(parents=True, exist_ok=True)
    every = {field.name: getattr(a, field.name) for field in fields(Sizes)}
    results = []
    with (a.out / "results.jsonl").open("w") as file:
        for dtype in a.dtype:
            for n_keys in a.n_keys:
                sizes = Sizes(**{**every, "dtype": dtype, "n_keys": n_keys})
                for result in measure(a, sizes):
                    results.append(result)
                    file.write(json.dumps(result) + "\n")
                file.flush()
    text = table(results)
    (a.out / "peers.md").write_text(text)
    print(text)
    if a.plot:
        plot(results, a.plot)


if __name__ == "__main__":
    main()
